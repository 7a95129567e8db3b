//! The cluster behind an API server.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use kube::api::GetParams;
use tokio::{
    runtime::{self, Handle, Runtime},
    task::JoinSet,
    time::timeout,
};

use super::{
    Access, Error, Limits, Reporter, claims,
    client::Client,
    copies::{self, Copies},
    error::chain,
    events::EventQueue,
    network_status,
    objects::{self, DefinitionObject, Object, PodObject},
};
use crate::{Cluster, ClusterError, Event, NetworkAttachmentDefinition, Pod, PodReference, ResourceDevices};

/// The [`Cluster`] behind an API server. Its methods block, and must not be called on a runtime's own threads.
pub struct ApiCluster {
    client: Client,
    pods: Arc<Copies<Pod>>,
    networks: Arc<Copies<NetworkAttachmentDefinition>>,
    may_patch: AtomicBool,
    events: EventQueue,
    executor: Executor,
    /// Ends with the cluster.
    tasks: JoinSet<()>,
}

enum Executor {
    Own(Runtime),
    Shared(Handle),
}

impl ApiCluster {
    /// For a short-lived program: every question is one to the server, on the caller's thread.
    ///
    /// # Errors
    /// [`Error::Access`] when the credentials are unusable. The server is not asked yet.
    pub fn new(access: &Access, limits: Limits, reporter: Reporter) -> Result<Self, Error> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Runtime)?;
        Self::with(Executor::Own(runtime), access, limits, reporter)
    }

    /// For a daemon: keeps copies of the pods of the node that `reporter` names, without their specifications, and of all
    /// network attachment definitions. It does not wait for them, and asks the server whenever they do not answer.
    ///
    /// # Errors
    /// [`Error::Access`] when the credentials are unusable, [`Error::Name`] when the node has none or a malformed name. The
    /// server need not be there yet.
    pub fn watching(runtime: &Handle, access: &Access, limits: Limits, reporter: Reporter) -> Result<Self, Error> {
        objects::check("node", &reporter.node)?;
        let selector = format!("spec.nodeName={}", reporter.node);
        let mut cluster = Self::with(Executor::Shared(runtime.clone()), access, limits, reporter)?;
        let (pods, networks) = (Arc::clone(&cluster.pods), Arc::clone(&cluster.networks));
        let client = || cluster.client.clone();
        cluster.tasks.spawn_on(copies::keep::<PodObject>(client(), Some(selector), pods), runtime);
        cluster.tasks.spawn_on(copies::keep::<DefinitionObject>(client(), None, networks), runtime);
        Ok(cluster)
    }

    fn with(executor: Executor, access: &Access, limits: Limits, reporter: Reporter) -> Result<Self, Error> {
        let handle = executor.handle().clone();
        let client = {
            let _entered = handle.enter();
            Client::new(access, limits)?
        };
        let (events, sending) = EventQueue::new(client.clone(), reporter);
        let mut tasks = JoinSet::new();
        tasks.spawn_on(sending, &handle);
        let (pods, networks) = (Arc::new(Copies::new()), Arc::new(Copies::new()));
        Ok(Self { client, pods, networks, may_patch: AtomicBool::new(true), events, executor, tasks })
    }

    /// Uses other credentials from now on, or another address.
    ///
    /// # Errors
    /// [`Error::Access`] when they are unusable; then all stays as it is.
    pub fn reconnect(&self, access: &Access) -> Result<(), Error> {
        let _entered = self.executor.handle().enter();
        self.client.reconnect(access)?;
        self.may_patch.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// How many pods and how many network attachment definitions there are copies of; `None` where the watch does not stand.
    #[must_use]
    pub fn copies(&self) -> (Option<usize>, Option<usize>) {
        (self.pods.count(), self.networks.count())
    }

    /// Waits until all copies are there, but no longer than `limit`; returns whether they are. Nothing depends on it.
    pub fn wait_for_copies(&self, limit: Duration) -> bool {
        let both = async {
            self.pods.current().await;
            self.networks.current().await;
        };
        self.executor.run(async { timeout(limit, both).await.is_ok() })
    }

    /// How many events found no room in the queue.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.events.dropped()
    }

    /// Waits until all events so far were sent or given up, but no longer than `limit`; returns whether that was enough.
    pub fn flush(&self, limit: Duration) -> bool {
        self.executor.run(async { timeout(limit, self.events.flush()).await.is_ok() })
    }

    /// The object that `request` asks for, live.
    fn find<T: Object>(
        &self,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Option<T::Kept>, Error> {
        let request = request.map_err(|error| Error::access(&self.client.host, chain(&error)))?;
        match self.executor.run(self.client.ask::<T>(T::KIND, request, self.client.deadline())) {
            Ok(object) => Ok(Some(object.keep())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn live_pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, Error> {
        self.find::<PodObject>(objects::pods(namespace, name)?.get_metadata(name, &GetParams::default()))
    }

    fn live_network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, Error> {
        self.find::<DefinitionObject>(objects::definitions(namespace, name)?.get(name, &GetParams::default()))
    }
}

impl Cluster for ApiCluster {
    fn pod(&self, wanted: &PodReference) -> Result<Option<Pod>, ClusterError> {
        let PodReference { namespace, name, uid } = wanted;
        // Without a UID nobody could tell a copy of the pod from one of its predecessor.
        match self.pods.find(namespace, name).filter(|pod| pod.reference.uid == *uid) {
            Some(pod) => Ok(Some(pod)),
            None => self.live_pod(namespace, name).map_err(attempt("get pod", namespace, name)),
        }
    }

    fn network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, ClusterError> {
        match self.networks.find(namespace, name) {
            Some(network) => Ok(Some(network)),
            None => self.live_network(namespace, name).map_err(attempt(
                "get network-attachment-definition",
                namespace,
                name,
            )),
        }
    }

    fn claimed_devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError> {
        self.executor.run(claims::devices(&self.client, pod))
    }

    fn set_network_status(&self, pod: &PodReference, status: &str) -> Result<(), ClusterError> {
        self.executor.run(network_status::write(&self.client, pod, status, &self.may_patch)).map_err(attempt(
            "set network-status of pod",
            &pod.namespace,
            &pod.name,
        ))
    }

    fn emit(&self, pod: &PodReference, event: Event) {
        self.events.push(pod, event);
    }
}

impl fmt::Debug for ApiCluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiCluster").field("host", &self.client.host).finish_non_exhaustive()
    }
}

impl Executor {
    fn handle(&self) -> &Handle {
        match self {
            Self::Own(runtime) => runtime.handle(),
            Self::Shared(handle) => handle,
        }
    }

    /// The runtime's own tasks run meanwhile, too, if it has no threads.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Own(runtime) => runtime.block_on(future),
            Self::Shared(handle) => handle.block_on(future),
        }
    }
}

fn attempt<'a>(verb: &'a str, namespace: &'a str, name: &'a str) -> impl FnOnce(Error) -> ClusterError + use<'a> {
    move |error| ClusterError { attempt: format!("{verb} {namespace}/{name}"), source: error.into() }
}
