//! The `macvlan` plugin as a library: a link on a parent of the host, born in a container's network namespace, with the
//! addresses and routes that an IPAM plugin gives it.
//!
//! [`Macvlan`] is the plugin, for a [`Registry`](multus_cni::Registry) or a program of its own. It is given the IPAM
//! plugins it may use in its own process; others are executed.
//!
//! An ADD goes one way: [`Config`] is read, a plan is made with everything looked up and checked, the link is made, the
//! addresses are reserved, the link is configured. Whatever fails, the steps before it are taken back.
//!
//! ```no_run
//! use host_local_ipam::HostLocal;
//! use macvlan::Macvlan;
//! use multus_cni::{Attachment, Invocation, NetworkConfig, Plugin, Registry};
//!
//! let plugin = Macvlan::new(Registry::new().with("host-local", HostLocal::new()));
//! let config = br#"{"cniVersion":"1.1.0","name":"storage","type":"macvlan","master":"ens32",
//!                   "ipam":{"type":"host-local","subnet":"192.168.1.0/24"}}"#;
//! let invocation = Invocation::new(NetworkConfig::parse(config)?);
//! let attachment = Attachment {
//!     container_id: "c1".parse()?,
//!     ifname: "net1".parse()?,
//!     netns: Some("/var/run/netns/c1".into()),
//! };
//! let attached = plugin.add(&attachment, &invocation)?.keep();
//! println!("{}", attached.ips[0].address);
//! plugin.del(&attachment, &invocation)?;
//! # Ok::<(), multus_cni::Error>(())
//! ```

mod apply;
mod check;
mod config;
mod error;
mod plan;
mod plugin;

pub use config::Config;
pub use error::Error;
pub use plugin::Macvlan;
