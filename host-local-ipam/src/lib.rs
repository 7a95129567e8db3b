//! The `host-local` IPAM plugin as a library: addresses of this host's ranges, reserved in files that the Go plugin of
//! the same name understands, and may read and write at the same time.
//!
//! * [`HostLocal`]: the plugin, for a [`Registry`](multus_cni::Registry) or a program of its own.
//! * [`allocate`]: the allocator by itself, over any [`Store`].
//! * [`DiskStore`] keeps reservations in a directory; [`MemoryStore`] in memory.
//!
//! ```
//! use host_local_ipam::{MemoryStore, Range, RangeSet, Request, Stage, Store, allocate};
//! use multus_cni::AttachmentId;
//!
//! let sets = [RangeSet::new(vec![Range::new("192.168.1.0/24".parse()?)?])?];
//! let owner = AttachmentId { container_id: "c1".into(), ifname: "eth0".into() };
//! let store = MemoryStore::new();
//! let mut reservations = store.lock(&"storage".parse()?)?;
//! let allocated = allocate(&mut *reservations, &Request { owner: &owner, sets: &sets, wanted: &[], stage: Stage::Finished })?;
//! assert_eq!(allocated[0].address.to_string(), "192.168.1.2/24");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # On disk
//!
//! `<dataDir>/<network>/` holds a file per reserved address, named by it, with the container's ID, a CR LF and the
//! interface's name; `last_reserved_ip.<n>` with the address given last from range set `n`; and `lock`, under whose
//! exclusive flock(2) everything happens. A reservation appears with its content or not at all. Its extended attribute
//! `user.host-local` tells the boot it was made in, and whether its ADD was delivered: see [`Standing`].
//!
//! Beside the networks, in `<dataDir>/.host-local`, is a hint of who has which address, so that an operation costs the same
//! however many reservations there are. It is made anew whenever anybody else has changed the directory. There, too, are
//! the locks that keep operations on one attachment apart.

mod allocator;
mod config;
mod disk;
mod entry;
mod error;
mod index;
mod lock;
mod memory;
mod plugin;
mod range;
mod resolv_conf;
mod standing;
mod store;
mod uninterrupted;

pub use allocator::{Allocation, Request, Usage, allocate, allocate_all, collect, is_exhausted, usage};
pub use config::Config;
pub use disk::DiskStore;
pub use entry::{Entry, EntryKind};
pub use error::Error;
pub use lock::AttachmentLock;
pub use memory::MemoryStore;
pub use plugin::{HostLocal, Watched};
pub use range::{Range, RangeError, RangeSet};
pub use standing::{Boot, Stage, Standing};
pub use store::{Owner, Reservation, Reservations, Store, StoreError};
