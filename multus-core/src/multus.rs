//! The meta-plugin's commands.

mod hot_plug;

pub use hot_plug::HotPlug;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use multus_cni::{
    Attachment, AttachmentId, AttachmentRequest, Chain, Command, ContainerId, Invocation, NetworkConfigList, Pending,
    Plugin, Registry, ResultCache, Success, Version, must_be_guarded,
};
use multus_net::Namespace;
use tracing::{info, warn};

use crate::{
    Checkpoint, Cluster, Config, Delegate, DeviceInfoFiles, Error, Event, NetworkStatus, Observer, Planner, Pod,
    PodArgs, PodResources, Sandbox, Scratch, Step,
    attached::{Attached, Before},
    observer::{Unobserved, timed, timed_network},
    route_steering,
    turn::{self, Turn},
};

/// How long an ADD waits for the readiness indicator file, and how often it looks.
const READINESS: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(1));

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
        let args = PodArgs::parse(&invocation.args)?;
        let cluster = (self.access)(&config).map_err(|error| error.of_pod(&args.pod))?;
        // What is in there says which plugins DEL runs, and with what.
        for directory in [config.cni_dir.clone(), config.cni_dir.join("results")] {
            must_be_guarded(&directory).map_err(Error::io("opening directory", directory))?;
        }
        let mut chain = Chain::new(self.registry.clone(), ResultCache::new(&config.cni_dir));
        chain.path = [&config.bin_dir].into_iter().chain(&invocation.path).cloned().collect();
        chain.environment = invocation.environment.clone();
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

/// What is attached to a sandbox, as DEL and CHECK find it.
struct Remembered {
    network: String,
    config: NetworkConfigList,
    request: AttachmentRequest,
}

impl Call<'_> {
    fn attach(&self, attachment: &Attachment) -> Result<Pending, Error> {
        self.wait_until_ready()?;
        let turn = self.turn(&attachment.container_id)?;
        let observer = &*self.multus.observer;
        let pod = timed(observer, Step::Pod, || self.pod())?;
        let delegates = timed(observer, Step::Plan, || self.plan(pod.as_ref()))?;
        let requests = self.sandbox(attachment).requests(&delegates, Command::Add)?;
        // Of an ADD before, which is not this one's to forget.
        let before = self.scratch.load(&attachment.container_id).ok().flatten().unwrap_or_default();
        self.scratch.save(&attachment.container_id, &delegates)?;

        let mut attached = Attached::new(self.multus.device_info.clone(), turn);
        let (scratch, container) = (self.scratch.clone(), attachment.container_id.clone());
        attached.note_before(Before { scratch, container, delegates: before });
        match self.attach_all(&mut attached, &delegates, &requests, pod.as_ref()) {
            Ok(success) => Ok(Pending::new(success, attached)),
            Err(cause) => Err(match attached.take_back() {
                Ok(()) => cause,
                Err(remains) => Error::NotUndone { cause: Box::new(cause), remains },
            }),
        }
    }

    /// Attaches to each network in order, reports to the cluster, and returns the result of the first.
    fn attach_all(
        &self,
        attached: &mut Attached,
        delegates: &[Delegate],
        requests: &[AttachmentRequest],
        pod: Option<&Pod>,
    ) -> Result<Success, Error> {
        let observer = &*self.multus.observer;
        let attach_one = |attached: &mut Attached, delegate: &Delegate, request| {
            let attach = || self.attach_one(attached, delegate, request);
            timed_network(observer, Command::Add, &delegate.name, attach)
        };
        let successes: Vec<Success> = timed(observer, Step::Attach, || {
            let both = delegates.iter().zip(requests);
            both.map(|(delegate, request)| attach_one(attached, delegate, request)).collect::<Result<_, _>>()
        })?;
        let mut first = None;
        let mut statuses = Vec::new();
        let mut events = Vec::new();
        for ((delegate, request), success) in delegates.iter().zip(requests).zip(successes) {
            let id = request.attachment.id();
            let device_info = self.multus.device_info.read(&delegate.name, &id).unwrap_or_else(|error| {
                warn!(%error, "a device-info file is left out of the network status");
                None
            });
            let mut in_the_end = success.clone();
            delegate.default_routes.apply(&mut in_the_end);
            statuses.extend(NetworkStatus::of(&in_the_end, &delegate.name, first.is_none(), device_info.as_ref()));
            events.extend(Event::added_interface(request.attachment.ifname.as_str(), &success, &delegate.name));
            info!(network = delegate.name, container = id.container_id, interface = id.ifname, "attached");
            first.get_or_insert(success);
        }
        if let (Some(cluster), Some(pod)) = (&self.cluster, pod) {
            let is_system = self.config.system_namespaces.contains(&pod.reference.namespace);
            if !statuses.is_empty() && !is_system {
                let text = NetworkStatus::print(&statuses);
                timed(observer, Step::Status, || cluster.set_network_status(&pod.reference, &text))?;
            }
            for event in events {
                cluster.emit(&pod.reference, event);
            }
        }
        Ok(first.unwrap_or_default())
    }

    fn attach_one(
        &self,
        attached: &mut Attached,
        delegate: &Delegate,
        request: &AttachmentRequest,
    ) -> Result<Success, Error> {
        let failed = |source| Error::Delegate { network: delegate.name.clone(), source };
        let id = request.attachment.id();
        if let (Some(resource), Some(device)) = (&delegate.resource_name, &delegate.device_id)
            && let Err(error) = self.multus.device_info.copy(resource, device, &delegate.name, &id)
        {
            warn!(%error, "a device-info file is not passed on");
        }
        // Also where the plugin makes the file.
        attached.note_device_info(&delegate.name, &id);
        let pending = self.chain.add(&delegate.config, request).map_err(failed)?;
        let success = pending.success().clone();
        attached.note(pending);
        let has_interface = !success.interfaces.is_empty() || !success.ips.is_empty();
        if has_interface && !delegate.default_routes.is_keep() {
            self.steer(delegate, request, &success)?;
        }
        Ok(success)
    }

    /// Makes the interface's default routes what the pod asks for, in the kernel and in what CHECK compares with.
    fn steer(&self, delegate: &Delegate, request: &AttachmentRequest, success: &Success) -> Result<(), Error> {
        let attachment = &request.attachment;
        let failed = |source| Error::Delegate { network: delegate.name.clone(), source };
        if let Some(netns) = &attachment.netns {
            let steered = route_steering::steer(
                &self.invocation.on_host(netns),
                attachment.ifname.as_str(),
                &delegate.default_routes,
            );
            steered.map_err(|source| Error::DefaultRoutes { ifname: attachment.ifname.to_string(), source })?;
        }
        let network = delegate.config.name();
        if let Some(cached) = self.chain.cache.read(network, attachment).map_err(failed)? {
            let mut steered = success.clone();
            delegate.default_routes.apply(&mut steered);
            let version = Version::parse(delegate.config.version()).map_err(failed)?;
            let cached = cached.with_result(&steered, version).map_err(failed)?;
            self.chain.cache.write(&cached).map_err(failed)?;
        }
        Ok(())
    }

    fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        let _turn = self.turn(&attachment.container_id)?;
        let remembered = self.remembered_or_planned(attachment)?;
        self.delete(remembered)?;
        self.scratch.remove(&attachment.container_id)
    }

    /// Detaches from all of these, the last one first, whatever becomes of each.
    fn delete(&self, attached: Vec<Remembered>) -> Result<(), Error> {
        let mut failures = Vec::new();
        let all: Vec<_> = attached.iter().map(|Remembered { config, request, .. }| (config, request)).collect();
        self.chain.prepare_del(&all);
        for Remembered { network, config, request } in attached.into_iter().rev() {
            let observer = &*self.multus.observer;
            let deleted = timed_network(observer, Command::Del, &network, || self.delete_one(&config, &request));
            failures.extend(deleted.map_err(|error| error.within(format!("network {network:?}"))).err());
            if let Err(error) = self.multus.device_info.remove(&network, &request.attachment.id()) {
                warn!(%error, "a device-info file is left");
            }
        }
        Ok(multus_cni::Error::all(failures)?)
    }

    /// Detaches from one. A runtime unbinds a namespace, and then removes the file; in between plugins refuse it, and keep
    /// the addresses. Without a namespace they release them.
    fn delete_one(&self, config: &NetworkConfigList, request: &AttachmentRequest) -> Result<(), multus_cni::Error> {
        let failure = match self.chain.del(config, request) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let gone = request.attachment.netns.as_ref().filter(|netns| self.is_gone(netns));
        if gone.is_none() {
            return Err(failure);
        }
        let mut request = request.clone();
        request.attachment.netns = None;
        self.chain.del(config, &request)
    }

    fn is_gone(&self, netns: &Path) -> bool {
        let opened = Namespace::open(&self.invocation.on_host(netns));
        opened.is_err_and(|error| error.is_not_found() || matches!(error, multus_net::Error::NotANamespace { .. }))
    }

    /// What the sandbox is attached to: as ADD remembered it, or else as it was stored for each attachment, or else as ADD
    /// would resolve it now.
    fn remembered_or_planned(&self, attachment: &Attachment) -> Result<Vec<Remembered>, Error> {
        if let Some(remembered) = self.remembered(attachment, Command::Del)? {
            return Ok(remembered);
        }
        let pod = self.pod().unwrap_or_else(|error| {
            warn!(%error, "nothing is known of the sandbox or of its pod");
            None
        });
        let Some(pod) = pod else {
            return Ok(Vec::new());
        };
        let planner = self.planner();
        let plan = planner.plan_deletion(&pod)?;
        self.tell(&plan.warnings, Some(&pod));
        self.with_requests(attachment, plan.delegates, Command::Del)
    }

    /// What the sandbox is attached to, as ADD remembered it, then what else was stored for it; what cannot be read is passed
    /// over. `None` when nothing is known.
    fn remembered(&self, attachment: &Attachment, command: Command) -> Result<Option<Vec<Remembered>>, Error> {
        let delegates = self.scratch.load(&attachment.container_id).unwrap_or_else(|error| {
            warn!(%error, "what ADD remembered of the sandbox cannot be read");
            None
        });
        let is_known = delegates.is_some();
        let mut remembered = self.with_requests(attachment, delegates.unwrap_or_default(), command)?;
        for cached in self.chain.cache.attachments(Some(&attachment.container_id))? {
            let stored = cached.and_then(|cached| Ok((cached.list()?, cached.request)));
            match stored {
                Ok((config, request)) => {
                    let is_it = |known: &Remembered| {
                        known.config.name() == config.name()
                            && known.request.attachment.ifname == request.attachment.ifname
                    };
                    if !remembered.iter().any(is_it) {
                        remembered.push(Remembered { network: config.name().to_string(), config, request });
                    }
                }
                Err(error) => warn!(%error, "an attachment cannot be read"),
            }
        }
        Ok((is_known || !remembered.is_empty()).then_some(remembered))
    }

    fn with_requests(
        &self,
        attachment: &Attachment,
        delegates: Vec<Delegate>,
        command: Command,
    ) -> Result<Vec<Remembered>, Error> {
        let requests = self.sandbox(attachment).requests(&delegates, command)?;
        let both = delegates.into_iter().zip(requests);
        Ok(both.map(|(Delegate { name, config, .. }, request)| Remembered { network: name, config, request }).collect())
    }

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

    /// Detaches the sandboxes that are remembered and not among those the runtime has, and has each network's plugins free
    /// what belongs to none of the others. A sandbox that somebody works on is left alone. The runtime calls no ADD or DEL
    /// meanwhile; whoever plugs single networks in does not know, and waits.
    fn collect(&self) -> Result<(), multus_cni::Error> {
        let Some(valid) = self.invocation.config.valid_attachments()? else {
            return Ok(());
        };
        let mut failures = Vec::new();
        let mut networks: Vec<NetworkConfigList> = Vec::new();
        let mut attached: Vec<(NetworkConfigList, AttachmentId)> = Vec::new();
        let mut kept_as_they_are = Vec::new();
        for container in self.containers()? {
            let attachment = Attachment { container_id: container.clone(), ifname: "eth0".parse()?, netns: None };
            let is_valid = valid.iter().any(|id| id.container_id == container.as_str());
            let turn = if is_valid {
                kept_as_they_are.push(self.turn(&container)?);
                None
            } else {
                self.turn_if_free(&container)?
            };
            // In its turn: an ADD may have ended just now.
            let remembered = self.remembered(&attachment, Command::Del)?.unwrap_or_default();
            networks.extend(remembered.iter().map(|known| known.config.clone()));
            if turn.is_some() {
                info!(container = container.as_str(), "a sandbox that the runtime does not know is detached");
                let deleted = self.delete(remembered).and_then(|()| self.scratch.remove(&container));
                failures.extend(deleted.map_err(multus_cni::Error::from).err());
            } else {
                attached.extend(remembered.into_iter().map(|known| (known.config, known.request.attachment.id())));
            }
        }
        match self.plan(None) {
            Ok(delegates) => networks.extend(delegates.into_iter().map(|delegate| delegate.config)),
            Err(error) => failures.push(error.into()),
        }
        networks.sort_by(|a, b| a.name().cmp(b.name()));
        networks.dedup_by(|a, b| a.name() == b.name());
        for network in networks {
            let of_network = attached.iter().filter(|(config, _)| config.name() == network.name());
            let valid: Vec<AttachmentId> = of_network.map(|(_, id)| id.clone()).collect();
            failures.extend(self.chain.gc(&network, &valid).err());
        }
        multus_cni::Error::all(failures)
    }

    /// Every sandbox that anything is remembered of.
    fn containers(&self) -> Result<Vec<ContainerId>, Error> {
        let mut containers = self.scratch.containers()?;
        let cached = self.chain.cache.attachments(None)?.into_iter().flatten();
        containers.extend(cached.map(|cached| cached.request.attachment.container_id));
        containers.sort();
        containers.dedup();
        Ok(containers)
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

    fn wait_until_ready(&self) -> Result<(), Error> {
        let (patience, pause) = READINESS;
        let deadline = Instant::now() + patience;
        while Instant::now() + pause < deadline {
            match self.is_ready() {
                Err(Error::NotReady(_)) => thread::sleep(pause),
                other => return other,
            }
        }
        self.is_ready()
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

    fn turn_if_free(&self, container: &ContainerId) -> Result<Option<Turn>, Error> {
        turn::try_take(&self.config.cni_dir, container)
    }

    /// The error, told of the pod unless it is already.
    fn of_pod(&self, error: Error) -> Error {
        if matches!(error, Error::Pod { .. }) { error } else { error.of_pod(&self.args.pod) }
    }
}

fn exists(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(Error::io("looking for", PathBuf::from(path)))
}
