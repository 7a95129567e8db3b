//! What is asked of Kubernetes.

use std::{error::Error as StdError, fmt};

use crate::{Event, Pod, PodReference, ResourceDevices};

/// The cluster, as the meta-plugin needs it. Every call blocks, and ends within the time its implementation allows.
pub trait Cluster: Send + Sync {
    /// The pod of that namespace and name; `None` when there is none. The UID is what the caller expects: an implementation
    /// that keeps copies, and has none of that UID, asks the API before it answers.
    ///
    /// # Errors
    /// When the API cannot be asked, or refuses.
    fn pod(&self, wanted: &PodReference) -> Result<Option<Pod>, ClusterError>;

    /// A network attachment definition; `None` when there is none. An implementation that keeps copies asks the API
    /// before it says so.
    ///
    /// # Errors
    /// When the API cannot be asked, or refuses.
    fn network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, ClusterError>;

    /// The devices that were allocated to the resource claims of `pod`, claim by claim, by the resource that each names;
    /// none where the cluster has no claims.
    ///
    /// # Errors
    /// When the API cannot be asked, refuses, or has another pod of that name by now.
    fn claimed_devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError>;

    /// Sets the annotation [`Pod::NETWORK_STATUS`] of `pod` to `status`, and nothing else. That the pod is gone meanwhile is
    /// no failure.
    ///
    /// # Errors
    /// When the API cannot be asked, refuses, or has another pod of that name by now.
    fn set_network_status(&self, pod: &PodReference, status: &str) -> Result<(), ClusterError>;

    /// Sends an event about `pod`, in the background and without a promise.
    fn emit(&self, pod: &PodReference, event: Event);
}

/// What a network attachment definition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkAttachmentDefinition {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.config`: the JSON text of a configuration. Empty refers to a file that has the definition's name.
    pub config: String,
    /// The annotation [`RESOURCE_NAME`](Self::RESOURCE_NAME).
    pub resource_name: Option<String>,
}

impl NetworkAttachmentDefinition {
    /// The key of the annotation that names the resource whose devices the network uses.
    pub const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
}

impl fmt::Display for NetworkAttachmentDefinition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A failure in talking to the cluster.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}")]
pub struct ClusterError {
    /// What was attempted on what, such as `get pod web/nginx-0`.
    pub attempt: String,
    /// Why it failed.
    pub source: Box<dyn StdError + Send + Sync>,
}
