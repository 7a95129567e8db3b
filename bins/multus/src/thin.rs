//! The meta-plugin with a log, and a cluster that is found as each configuration says.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use multus_cni::{Attachment, Environment, Error, Invocation, Pending, Plugin, Registry};
use multus_core::{
    Cluster, Config, LogConfig, Multus,
    kubernetes::{Access, Kubelet, Reporter},
};

use multus_log::{Level, Log, Rotation};

use crate::lazy_cluster::LazyCluster;

/// Where a pod finds its credentials.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

pub(crate) struct Thin {
    multus: Multus,
    /// The call's, for what it has to send in the end.
    cluster: Arc<OnceLock<Arc<LazyCluster>>>,
}

impl Thin {
    pub(crate) fn new(plugins: Registry, environment: &Environment, now: fn() -> SystemTime) -> Self {
        let cluster = Arc::new(OnceLock::new());
        let text = |name| environment.value(name).and_then(|value| value.to_str()).unwrap_or_default().to_owned();
        let service = (text("KUBERNETES_SERVICE_HOST"), text("KUBERNETES_SERVICE_PORT"));
        let reporter = Reporter { component: "multus".to_owned(), node: text("MULTUS_NODE_NAME"), now };
        let found = Arc::clone(&cluster);
        let kubelet = Arc::new(Kubelet::new(Path::new("/")));
        let multus = Multus::new(plugins).with_resources(kubelet).with_access(move |config| {
            log(&config.log, now).install();
            let cluster = find(config, &service, &reporter).map(Arc::new);
            if let Some(cluster) = &cluster {
                // A process serves one call.
                let _first = found.set(Arc::clone(cluster));
            }
            Ok(cluster.map(|cluster| -> Arc<dyn Cluster> { cluster }))
        });
        Self { multus, cluster }
    }

    /// Sends the events of the call.
    pub(crate) fn flush(&self) {
        if self.cluster.get().is_some_and(|cluster| !cluster.flush()) {
            tracing::warn!("events were not sent in time");
        }
    }
}

fn log(config: &LogConfig, now: fn() -> SystemTime) -> Log {
    let LogConfig { file, level, to_stderr, max_age, max_size, max_backups, compress, .. } = config;
    Log::new("multus", now)
        .with_level(level, Level::Panic)
        .with_file(Path::new(file))
        .with_rotation(Rotation::from_options(*max_size, *max_backups, *max_age, *compress))
        .with_stderr(to_stderr.unwrap_or(true))
}

/// By the configuration's kubeconfig, or else by what a pod has; `None` without either.
fn find(config: &Config, (host, port): &(String, String), reporter: &Reporter) -> Option<LazyCluster> {
    let reporter = reporter.clone();
    match config.kubeconfig.clone() {
        Some(path) => Some(LazyCluster::new(move || Access::from_kubeconfig(&path), reporter)),
        None if host.is_empty() || port.is_empty() => None,
        None => {
            let (host, port) = (host.clone(), port.clone());
            let access = move || Access::in_cluster(&host, &port, Path::new(SERVICE_ACCOUNT));
            Some(LazyCluster::new(access, reporter))
        }
    }
}

/// A failure goes to the log as it goes to the runtime.
fn logged<T>(outcome: Result<T, Error>) -> Result<T, Error> {
    outcome.inspect_err(|error| tracing::error!("{error}"))
}

impl Plugin for Thin {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        logged(self.multus.add(attachment, invocation))
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        logged(self.multus.del(attachment, invocation))
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        logged(self.multus.check(attachment, invocation))
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Error> {
        logged(self.multus.status(invocation))
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Error> {
        logged(self.multus.gc(invocation))
    }
}
