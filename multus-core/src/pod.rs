//! Pods, as far as networks go.

use std::{collections::BTreeMap, fmt};

use crate::Error;

/// A pod as the runtime names it. Without Kubernetes all is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; empty when it is not known.
    pub uid: String,
}

impl fmt::Display for PodReference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}/{}", self.namespace, self.name, self.uid)
    }
}

/// What the API object of a pod says about networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Which pod it is; for a static pod, the UID of its mirror.
    pub reference: PodReference,
    /// The annotation [`NETWORKS`](Self::NETWORKS).
    pub networks: Option<String>,
    /// The annotation [`DEFAULT_NETWORK`](Self::DEFAULT_NETWORK).
    pub default_network: Option<String>,
    /// Whether a kubelet made it from a file: then runtimes know it by another UID than the API.
    pub is_static: bool,
}

impl Pod {
    /// The key of the annotation that asks for networks.
    pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
    /// The key of the annotation that asks for another first network.
    pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
    /// The key of the annotation that [`Cluster::set_network_status`](crate::Cluster::set_network_status) writes.
    pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

    const SOURCE: &str = "kubernetes.io/config.source";

    /// The pod with these annotations.
    #[must_use]
    pub fn new(reference: PodReference, annotations: &BTreeMap<String, String>) -> Self {
        Self {
            reference,
            networks: annotations.get(Self::NETWORKS).cloned(),
            default_network: annotations.get(Self::DEFAULT_NETWORK).cloned(),
            is_static: annotations.get(Self::SOURCE).is_some_and(|source| source != "api"),
        }
    }

    /// Checks that this is the pod of UID `uid`, where one is given.
    ///
    /// # Errors
    /// [`Error::PodUid`] when it is another pod of the same name.
    pub fn verify(&self, uid: &str) -> Result<(), Error> {
        if uid.is_empty() || self.is_static || self.reference.uid == uid {
            return Ok(());
        }
        Err(Error::PodUid { expected: uid.to_owned(), found: self.reference.uid.clone() })
    }
}
