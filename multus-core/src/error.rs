//! What can go wrong between a pod's wish for networks and the plan to attach them.

use std::{fmt, io, path::PathBuf};

use multus_cni::{ErrorCode, FieldError, os_error_text};

use crate::{ClusterError, PodReference};

/// A failure of the meta-plugin. Texts begin with the pod, the network and the field; they hold short values, and nothing of
/// a configuration's content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A failure for a pod.
    #[error("Multus: [{pod}]: {source}")]
    Pod {
        /// The pod.
        pod: PodReference,
        /// What failed.
        source: Box<Self>,
    },
    /// A failure in one of a pod's networks.
    #[error("network {network:?}: {source}")]
    Network {
        /// The network, as `namespace/name` or by the name of its configuration.
        network: String,
        /// What failed.
        source: Box<Self>,
    },
    /// The meta-plugin's own configuration is malformed.
    #[error("error loading netconf: {0}")]
    Config(String),
    /// The meta-plugin's own configuration names no network.
    #[error("error loading netconf: at least one delegate/clusterNetwork must be specified")]
    NoNetworks,
    /// `CNI_ARGS` is malformed, a result cannot be read, or a configuration is not one.
    #[error(transparent)]
    Protocol(#[from] multus_cni::Error),
    /// A field of an annotation, a configuration or a network attachment definition is malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A document is malformed as a whole.
    #[error("it {0}")]
    Malformed(String),
    /// An annotation is malformed as a whole.
    #[error("annotation {annotation}: {problem}")]
    Annotation {
        /// Its key.
        annotation: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A reference to a namespace that the pod may not use.
    #[error(
        "namespace isolation enabled, annotation violates permission, pod is in namespace {pod_namespace} but refers to \
         target namespace {namespace}; the administrator can add that to \"globalNamespaces\""
    )]
    Isolation {
        /// The pod's namespace.
        pod_namespace: String,
        /// The one it refers to.
        namespace: String,
    },
    /// A network attachment definition that does not exist, or could not be read.
    #[error("cannot find a network-attachment-definition ({name}) in namespace ({namespace}): {}", reason(.source))]
    NoDefinition {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Why it could not be read; `None` when it does not exist.
        source: Option<ClusterError>,
    },
    /// Networks are to be looked up in the cluster, and there is no cluster.
    #[error("must have either Kubernetes config or delegates: \"clusterNetwork\" is {0:?}, and there is no API access")]
    NoCluster(String),
    /// A reference that is neither a network attachment definition nor a configuration file.
    #[error("failed to get clusterNetwork/defaultNetworks {reference:?}: {definition}; and as a file: {file}")]
    NoReference {
        /// The reference.
        reference: String,
        /// Why it is no network attachment definition.
        definition: Box<Self>,
        /// Why it is no configuration file.
        file: Box<Self>,
    },
    /// No configuration file has that name.
    #[error("no network available in the name {name:?} in {directory:?}")]
    NoSuchFile {
        /// The network's name.
        name: String,
        /// The directory that was searched.
        directory: PathBuf,
    },
    /// A directory without configuration files.
    #[error("No networks found in {0:?}")]
    NoFiles(PathBuf),
    /// A configuration file is malformed.
    #[error("network configuration file {path:?}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A file could not be read, written or removed.
    #[error("error {attempt} {path:?}: {}", os_error_text(.source))]
    Io {
        /// What was attempted, such as `reading file`.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Kubernetes could not be asked, or refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The pod of that name is another one than the runtime speaks of.
    #[error(
        "expected pod UID {expected:?} but got {found:?} from Kube API; the sandbox belongs to a pod that was replaced"
    )]
    PodUid {
        /// The UID the runtime gave.
        expected: String,
        /// That of the object.
        found: String,
    },
    /// The devices of a pod could not be found out.
    #[error("resource {resource:?}: {problem}")]
    Devices {
        /// The resource, as the network attachment definition names it.
        resource: String,
        /// Why.
        problem: String,
    },
    /// Two networks ask for one interface name, or the sandbox has it already.
    #[error(
        "interface name {ifname} already exists: network {other:?} of this pod has it; ask for another \"interface\""
    )]
    InterfaceTaken {
        /// The name.
        ifname: String,
        /// The network that comes first.
        other: String,
    },
    /// The pod that the sandbox is for is not there.
    #[error("pod not found in the Kubernetes API: without it nobody knows which networks its sandbox is to have")]
    NoPod,
    /// The cluster network is not ready, as its readiness indicator file tells.
    #[error("still waiting for readinessindicatorfile @ {0}: the cluster network's plugin has not written it")]
    NotReady(String),
    /// A network could not be attached.
    #[error("error adding container to network {network:?}: {source}")]
    Delegate {
        /// The network.
        network: String,
        /// Why.
        source: multus_cni::Error,
    },
    /// The default routes of an interface could not be made what the pod asks for.
    #[error("cannot set the default routes of {ifname}: {source}")]
    DefaultRoutes {
        /// The interface.
        ifname: String,
        /// Why.
        source: multus_net::Error,
    },
    /// After a failure, something that had been made could not be taken back.
    #[error("{cause}; and taking back what had been attached failed: {remains}")]
    NotUndone {
        /// The failure.
        cause: Box<Self>,
        /// Why something remains.
        remains: multus_cni::Error,
    },
    /// CHECK of a sandbox that nothing is remembered of, or another network for it.
    #[error("nothing is known of container {container} in {directory:?}: its ADD was not here, or its DEL was")]
    UnknownSandbox {
        /// The sandbox.
        container: String,
        /// Where it would be remembered.
        directory: PathBuf,
    },
    /// More than one default gateway of a family.
    #[error("multus does not support ECMP for default-route: {family} gateways in {networks}; leave one")]
    ManyGateways {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// The networks that ask for them.
        networks: String,
    },
}

impl Error {
    /// The code of the CNI error object: that of the plugin that failed, 50 when nothing can be attached yet, else 999.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Pod { source, .. } | Self::Network { source, .. } | Self::File { source, .. } => source.code(),
            Self::NotUndone { cause, .. } => cause.code(),
            Self::Delegate { source, .. } => source.code(),
            Self::NotReady(_) => ErrorCode::NotAvailable,
            Self::Config(_)
            | Self::NoNetworks
            | Self::Protocol(_)
            | Self::Field(_)
            | Self::Malformed(_)
            | Self::Annotation { .. }
            | Self::Isolation { .. }
            | Self::NoDefinition { .. }
            | Self::NoCluster(_)
            | Self::NoReference { .. }
            | Self::NoSuchFile { .. }
            | Self::NoFiles(_)
            | Self::Io { .. }
            | Self::Cluster(_)
            | Self::PodUid { .. }
            | Self::Devices { .. }
            | Self::InterfaceTaken { .. }
            | Self::NoPod
            | Self::DefaultRoutes { .. }
            | Self::UnknownSandbox { .. }
            | Self::ManyGateways { .. } => ErrorCode::Internal,
        }
    }

    /// The failure itself, without pod, network and file.
    pub(crate) fn root(&self) -> &Self {
        let mut error = self;
        while let Self::Pod { source, .. }
        | Self::Network { source, .. }
        | Self::File { source, .. }
        | Self::NoReference { definition: source, .. } = error
        {
            error = source;
        }
        error
    }

    /// The same failure, told of `pod`.
    #[must_use]
    pub fn of_pod(self, pod: &PodReference) -> Self {
        Self::Pod { pod: pod.clone(), source: Box::new(self) }
    }

    pub(crate) fn of_network(self, network: &str) -> Self {
        Self::Network { network: network.to_owned(), source: Box::new(self) }
    }

    pub(crate) fn io(attempt: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { attempt, path, source }
    }
}

impl From<Error> for multus_cni::Error {
    fn from(error: Error) -> Self {
        Self::from_plugin(error.code(), error)
    }
}

/// What is wrong with the document called `label`, which has no name of its own when that is empty.
pub(crate) fn malformed(label: &str, problem: impl fmt::Display) -> Error {
    match label.is_empty() {
        true => Error::Malformed(problem.to_string()),
        false => FieldError::new(label, problem).into(),
    }
}

/// `text` in quotation marks, cut where it would fill the message.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(60) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
    }
}

fn reason(source: &Option<ClusterError>) -> String {
    source.as_ref().map_or_else(|| "not found".to_owned(), ToString::to_string)
}
