//! The cluster behind a Kubernetes API server.
//!
//! [`ApiCluster`] is the [`Cluster`](crate::Cluster) of a real API server. A short-lived program makes one with
//! [`ApiCluster::new`], asks, and [flushes](ApiCluster::flush) its events before it ends. A daemon makes one with
//! [`ApiCluster::watching`], which also keeps copies of this node's pods and of all network attachment definitions. A copy is
//! used only while its watch stands and only where it answers the question; everything else is asked live.
//!
//! With a [`NodeCertificate`] each node has credentials of its own, that are renewed: after
//! [`renew`](NodeCertificate::renew), [`reconnect`](ApiCluster::reconnect) with its [`access`](NodeCertificate::access).
//!
//! [`CertificateApprover`] decides by [`CertificateRequest::verdict`] who gets one.
//!
//! [`Kubelet`] is the [`PodResources`](crate::PodResources) of a real kubelet.
//!
//! Programs that link this choose the version of the API: one of `k8s-openapi`'s version features, `earliest` for all servers
//! that are still maintained.

mod access;
mod api_cluster;
mod certificate_approver;
mod certificate_request;
mod claims;
mod client;
mod copies;
mod error;
mod events;
mod kubelet;
mod network_status;
mod node_certificate;
mod objects;
mod pod_resources;
mod shared_answer;

pub use access::Access;
pub use api_cluster::ApiCluster;
pub use certificate_approver::CertificateApprover;
pub use certificate_request::{CertificateRequest, Verdict};
pub use client::Limits;
pub use error::Error;
pub use events::Reporter;
pub use kubelet::Kubelet;
pub use node_certificate::NodeCertificate;
