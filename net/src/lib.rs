//! Network namespaces and [rtnetlink] behind a small blocking API: links, addresses, routes, sysctls.
//!
//! * [`Namespace`]: an open network namespace; [`Namespace::enter`] runs work inside it, so that no other code ever finds
//!   itself in the wrong namespace: on a thread that dies with the work or, in a process of one thread, on that.
//! * [`Connection`]: a conversation with the kernel about one namespace: the one of the thread that opened it. It stays
//!   with that namespace wherever it is used.
//! * [`sysctl`]: settings under `/proc/sys/net` of the calling thread's namespace.
//!
//! A request is one system call to send and one to receive; the kernel does the work in between. Every reply has a
//! deadline, only the kernel is listened to, interrupted dumps are repeated, and the kernel's extended error text is part
//! of the error. What cannot have a deadline is the kernel's own waiting for its RTNL lock, which no signal but a fatal one
//! interrupts.
//!
//! [rtnetlink]: https://docs.kernel.org/userspace-api/netlink/intro.html

mod address;
mod attributes;
mod connection;
mod error;
mod link;
mod namespace;
mod route;
pub mod sysctl;

pub use address::Address;
pub use connection::Connection;
pub use error::{Error, errno_text};
pub use link::{Link, Macvlan, MacvlanMode, MacvlanSpec};
pub use namespace::Namespace;
pub use route::{RouteEntry, RouteSpec};
