//! The meta-plugin's commands.

mod attach;
mod collect;
mod detach;
mod hot_plug;

pub use hot_plug::HotPlug;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use multus_cni::{
    Attachment, Chain, Command, ContainerId, Invocation, Pending, Plugin, Registry, ResultCache, Version,
    must_be_guarded,
};
use tracing::warn;

use crate::{
    Checkpoint, Cluster, Config, Delegate, DeviceInfoFiles, Error, Event, Observer, Planner, Pod, PodArgs,
    PodResources, Sandbox, Scratch,
    observer::{Unobserved, timed_network},
    turn::{self, Turn},
};
use detach::Remembered;

/// The meta-plugin: attaches a sandbox to the cluster network and to what its pod asks for, and tells the runtime of the
/// first.
#[derive(Clone)]
pub struct Multus {
    registry: Registry,
    access: Access,
    resources: Arc<dyn PodResources>,
    device_info: DeviceInfoFiles,
    observer: Arc<dyn Observer>,
}

/// How a configuration comes to its cluster; `None` for one that has none.
type Access = Arc<dyn Fn(&Config) -> Result<Option<Arc<dyn Cluster>>, Error> + Send + Sync>;

impl Multus {
    /// The meta-plugin over these built-in plugins, without a cluster; it asks the kubelet's checkpoint for devices.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            access: Arc::new(|_| Ok(None)),
            resources: Arc::new(Checkpoint::default()),
            device_info: DeviceInfoFiles::new(DeviceInfoFiles::DIRECTORY),
            observer: Arc::new(Unobserved),
        }
    }

    /// With access to a cluster, as each call's configuration says.
    #[must_use]
    pub fn with_access(
        self,
        access: impl Fn(&Config) -> Result<Option<Arc<dyn Cluster>>, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { access: Arc::new(access), ..self }
    }

    /// With this cluster, whatever configurations say.
    #[must_use]
    pub fn with_cluster(self, cluster: Arc<dyn Cluster>) -> Self {
        self.with_access(move |_| Ok(Some(Arc::clone(&cluster))))
    }

    /// With another source of devices.
    #[must_use]
    pub fn with_resources(self, resources: Arc<dyn PodResources>) -> Self {
        Self { resources, ..self }
    }

    /// With device-info files elsewhere.
    #[must_use]
    pub fn with_device_info(self, device_info: DeviceInfoFiles) -> Self {
        Self { device_info, ..self }
    }

    /// With somebody who is told how long things take.
    #[must_use]
    pub fn with_observer(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    fn call<'a>(&'a self, invocation: &'a Invocation) -> Result<Call<'a>, Error> {
        self.call_with(Config::parse(invocation.config.bytes())?, invocation)
    }

    fn call_with<'a>(&'a self, config: Config, invocation: &'a Invocation) -> Result<Call<'a>, Error> {
        invocation.environment.refuse_nested()?;
        let args = PodArgs::parse(&invocation.args)?;
        let cluster = (self.access)(&config).map_err(|error| error.of_pod(&args.pod))?;
        // What is in there says which plugins DEL runs, and with what.
        for directory in [config.cni_dir.clone(), config.cni_dir.join("results")] {
            must_be_guarded(&directory).map_err(Error::io("opening directory", directory))?;
        }
        let mut chain = Chain::new(self.registry.clone(), ResultCache::new(&config.cni_dir));
        chain.path = [&config.bin_dir].into_iter().chain(&invocation.path).cloned().collect();
        chain.environment = invocation.environment.marked_as_nested();
        chain.root.clone_from(&invocation.root);
        let scratch = Scratch::new(&config.cni_dir);
        Ok(Call { multus: self, invocation, config, args, cluster, chain, scratch })
    }
}

impl Plugin for Multus {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, multus_cni::Error> {
        let call = self.call(invocation)?;
        Ok(call.attach(attachment).map_err(|error| call.of_pod(error))?)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        if invocation.environment.is_nested() {
            // Its ADD was refused.
            return Ok(());
        }
        let call = self.call(invocation)?;
        Ok(call.detach(attachment).map_err(|error| call.of_pod(error))?)
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        let call = self.call(invocation)?;
        Ok(call.verify(attachment).map_err(|error| call.of_pod(error))?)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        Ok(self.call(invocation)?.ask()?)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        self.call(invocation)?.collect()
    }
}

impl std::fmt::Debug for Multus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Multus").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// One call, with everything that its configuration names.
struct Call<'a> {
    multus: &'a Multus,
    invocation: &'a Invocation,
    config: Config,
    args: PodArgs,
    cluster: Option<Arc<dyn Cluster>>,
    chain: Chain,
    scratch: Scratch,
}

impl Call<'_> {
    fn verify(&self, attachment: &Attachment) -> Result<(), Error> {
        let _turn = self.turn(&attachment.container_id)?;
        let remembered = self.remembered(attachment, Command::Check)?.ok_or_else(|| {
            let container = attachment.container_id.to_string();
            Error::UnknownSandbox { container, directory: self.config.cni_dir.clone() }
        })?;
        for Remembered { network, config, request } in remembered {
            if Version::parse(config.version()).is_ok_and(|version| version >= Version::V0_4_0) {
                let failed =
                    |source| Error::Protocol(multus_cni::Error::within(source, format!("network {network:?}")));
                let check = || self.chain.check(&config, &request);
                timed_network(&*self.multus.observer, Command::Check, &network, check).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether the first network could be attached now.
    fn ask(&self) -> Result<(), Error> {
        self.is_ready()?;
        let delegates = self.plan(None)?;
        let Some(first) = delegates.first() else {
            return Ok(());
        };
        self.chain.status(&first.config).map_err(|source| Error::Delegate { network: first.name.clone(), source })
    }

    /// The pod that the runtime speaks of; `None` without Kubernetes.
    fn pod(&self) -> Result<Option<Pod>, Error> {
        let wanted = &self.args.pod;
        let Some(cluster) = self.cluster.as_ref().filter(|_| !wanted.name.is_empty()) else {
            return Ok(None);
        };
        let pod = cluster.pod(wanted)?.ok_or(Error::NoPod)?;
        pod.verify(&wanted.uid)?;
        Ok(Some(pod))
    }

    fn plan(&self, pod: Option<&Pod>) -> Result<Vec<Delegate>, Error> {
        match self.planner().plan(pod) {
            Ok(plan) => {
                self.tell(&plan.warnings, pod);
                Ok(plan.delegates)
            }
            Err(error) => {
                self.tell(std::slice::from_ref(&error), pod);
                Err(error)
            }
        }
    }

    /// Tells the log, and the pod, where it is something that it asks for.
    fn tell(&self, errors: &[Error], pod: Option<&Pod>) {
        for error in errors {
            warn!(%error, "a network cannot be resolved as it is written");
            if let (Some(cluster), Some(pod), Some(event)) = (&self.cluster, pod, Event::no_network_found(error)) {
                cluster.emit(&pod.reference, event);
            }
        }
    }

    fn planner(&self) -> Planner<'_> {
        Planner { config: &self.config, cluster: self.cluster.as_deref(), resources: &*self.multus.resources }
    }

    fn sandbox<'b>(&'b self, attachment: &'b Attachment) -> Sandbox<'b> {
        let inherited = self.invocation.environment.value("CNI_ARGS").and_then(|args| args.to_str());
        Sandbox {
            attachment,
            args: &self.args,
            inherited_args: inherited.unwrap_or_default(),
            runtime_config: &self.config.runtime_config,
        }
    }

    fn is_ready(&self) -> Result<(), Error> {
        match &self.config.readiness_indicator_file {
            Some(path) if !exists(path)? => Err(Error::NotReady(path.display().to_string())),
            _ => Ok(()),
        }
    }

    fn turn(&self, container: &ContainerId) -> Result<Turn, Error> {
        turn::wait(&self.config.cni_dir, container)
    }

    /// The error, told of the pod unless it is already.
    fn of_pod(&self, error: Error) -> Error {
        if matches!(error, Error::Pod { .. }) { error } else { error.of_pod(&self.args.pod) }
    }
}

fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(Error::io("looking for", PathBuf::from(path)))
}
