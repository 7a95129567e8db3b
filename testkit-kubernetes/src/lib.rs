//! An API server double: the part of Kubernetes' API that a node's network plugins use, over HTTPS, with objects in memory.
//!
//! It keeps resource versions, lists, watches (with bookmarks, and `410 Gone` once the past is forgotten), field selectors,
//! the `status` subresource, merge patches, conflicts, and metadata-only answers as a real server does. A test can take
//! permissions away, make requests fail in many ways, and read what was asked.
//!
//! And a [kubelet](Kubelet) double: its podresources API over gRPC.
//!
//! Both listen on real sockets, so that a program under test may be another process: see [`ApiServer::kubeconfig`].

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed, and says so where tests speak"
)]

mod answer;
mod certificates;
mod connection;
mod fault;
mod kubelet;
mod request;
mod server;
mod store;

pub use fault::Fault;
pub use kubelet::{Container, Kubelet, KubeletFault};
pub use request::Asked;
pub use server::{ApiServer, Grant};
