//! The CNI plugin that hands every call to multus-daemon over its unix socket, and keeps a DEL for it while it is away.
//!
//! * [`Shim`]: the plugin, for [`multus_cni::serve`].
//! * [`Request`]: a call as it stands on the socket and in the spool.
//! * [`Spool`]: the DELs that no daemon has seen yet; the shim adds to it, the daemon empties it. It lives here, and not
//!   with the daemon's libraries, because the shim must stay without an asynchronous runtime and a Kubernetes client.
//! * [`post`]: one HTTP exchange over a unix socket, with a deadline.

mod daemon;
mod error;
mod http;
mod request;
mod settings;
mod shim;
mod spool;

pub use error::Error;
pub use http::{HttpError, Response, post};
pub use request::{MalformedRequest, Request};
pub use shim::Shim;
pub use spool::{Entry, Spool, SpoolError};
