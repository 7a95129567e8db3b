//! The cluster of a call that may need none.

use std::sync::OnceLock;

use multus_core::{
    Cluster, ClusterError, Event, NetworkAttachmentDefinition, Pod, PodReference, ResourceDevices,
    kubernetes::{self, Access, ApiCluster, Limits, Reporter},
};

/// The cluster behind an API server, for which credentials are not even read before something is asked: a DEL that has what
/// ADD left works without them.
pub(crate) struct LazyCluster {
    access: Box<dyn Fn() -> Result<Access, kubernetes::Error> + Send + Sync>,
    reporter: Reporter,
    connected: OnceLock<ApiCluster>,
}

impl LazyCluster {
    pub(crate) fn new(
        access: impl Fn() -> Result<Access, kubernetes::Error> + Send + Sync + 'static,
        reporter: Reporter,
    ) -> Self {
        Self { access: Box::new(access), reporter, connected: OnceLock::new() }
    }

    /// Sends all events, or gives them up in the time of one request; whether that was enough.
    pub(crate) fn flush(&self) -> bool {
        self.connected.get().is_none_or(|cluster| cluster.flush(Limits::default().attempt))
    }

    fn connected(&self) -> Result<&ApiCluster, ClusterError> {
        if let Some(cluster) = self.connected.get() {
            return Ok(cluster);
        }
        let connect = |access| ApiCluster::new(&access, Limits::default(), self.reporter.clone());
        let cluster = (self.access)().and_then(connect).map_err(|source| ClusterError {
            attempt: "connect to the API server".to_owned(),
            source: source.into(),
        })?;
        Ok(self.connected.get_or_init(|| cluster))
    }
}

impl Cluster for LazyCluster {
    fn pod(&self, wanted: &PodReference) -> Result<Option<Pod>, ClusterError> {
        self.connected()?.pod(wanted)
    }

    fn network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, ClusterError> {
        self.connected()?.network(namespace, name)
    }

    fn claimed_devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError> {
        self.connected()?.claimed_devices(pod)
    }

    fn set_network_status(&self, pod: &PodReference, status: &str) -> Result<(), ClusterError> {
        self.connected()?.set_network_status(pod, status)
    }

    fn emit(&self, pod: &PodReference, event: Event) {
        if let Ok(cluster) = self.connected() {
            cluster.emit(pod, event);
        }
    }
}
