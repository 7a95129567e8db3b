//! The life of the daemon.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use macvlan::Macvlan;
use multus_cni::{Builtin, Environment, Registry};
use multus_core::{
    Multus,
    kubernetes::{Access, ApiCluster, Kubelet, Limits, NodeCertificate, Reporter},
};
use multus_shim::Spool;
use thin_entrypoint::Keeper;
use tokio::{
    runtime::{self, Handle},
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
    task::spawn_blocking,
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    call::Surroundings,
    error::Error,
    execution::Executor,
    keeping::Keeping,
    metrics::Metrics,
    metrics_server::{self, MetricsServer},
    operations::Operations,
    options::Options,
    ranges::WatchedHostLocal,
    server::{self, Server},
    spooled::Spooled,
};

const NODE_NAME: &str = "MULTUS_NODE_NAME";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A DEL in the spool that hangs must not keep the node from starting pods.
const FIRST_PASS: Duration = Duration::from_secs(60);
/// For somebody to approve the node's certificate.
const APPROVAL: Duration = Duration::from_secs(120);
/// For answers that are on their way.
const FAREWELL: Duration = Duration::from_secs(3);
/// It reads files and waits.
const SPOOL_STACK: usize = 256 << 10;
/// It waits, and sometimes asks for a certificate.
const CERTIFICATE_STACK: usize = 1 << 20;

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(options: &Options, keeper: Keeper, environment: Environment) -> Result<(), Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("cannot start", "the runtime"))?;
    let served = runtime.block_on(serve(options, keeper, environment));
    // Else it would wait for who waits for locks of reservations, or for the answer of a name server.
    runtime.shutdown_background();
    served
}

async fn serve(options: &Options, keeper: Keeper, environment: Environment) -> Result<(), Error> {
    let mut end = End::new()?;
    let certificate = node_certificate(options, &environment)?.map(Arc::new);
    let access = match &certificate {
        Some(certificate) => tokio::select! {
            obtained = obtained(Arc::clone(certificate)) => Some(obtained?),
            () = end.asked_for() => {
                info!("multus-daemon ends, without having had a certificate");
                return Ok(());
            }
        },
        None => access(options, &environment)?,
    };
    let (metrics, host_local) = (Metrics::default(), WatchedHostLocal::default());
    let multus =
        multus(&environment, access.as_ref(), certificate, &host_local)?.with_observer(Arc::new(metrics.clone()));
    let multus = multus.with_resources(Arc::new(Kubelet::new(&options.root)));
    let surroundings = Arc::new(Surroundings::new(options.overrides(), &options.content, environment, &options.root));
    let operations = Operations::new(options.operations);
    let executor = Executor::new(Arc::new(multus.clone()), operations.clone(), metrics.clone());
    let spool = Spool::new(&options.spool_dir);

    if options.asks_for_profiles {
        warn!("\"enablePprof\" asks for profiles of the Go runtime, and there is none; perf(1) shows where time goes");
    }
    if let Some(port) = options.metrics_port {
        let listener = metrics_server::listen(port).await?;
        let (metrics, operations, spool) = (metrics.clone(), operations.clone(), spool.clone());
        let asked = MetricsServer::new(metrics, operations, spool, host_local);
        tokio::spawn(asked.serve(listener));
    }
    let server = Arc::new(Server::new(multus, executor.clone(), Arc::clone(&surroundings), metrics));
    tokio::spawn(Arc::clone(&server).serve(server::listen(&options.socket())?, server::own_uid()?));
    info!(socket = %options.socket().display(), version = env!("CARGO_PKG_VERSION"), "multus-daemon serves");

    let first_pass = work_off(Spooled { spool, executor, surroundings })?;
    tokio::select! {
        passed = timeout(FIRST_PASS, first_pass) => {
            if passed.is_err() {
                warn!("the spool is still being worked off after {FIRST_PASS:?}; pods are served now");
            }
            server.set_ready(true);
            info!("multus-daemon is ready");
            // From now on the runtime finds somebody who answers. It stays when this ends, so that pods wait for the next one.
            let _kept = Keeping::start(keeper)?;
            end.asked_for().await;
        }
        () = end.asked_for() => {}
    }
    server.set_ready(false);
    operations.drain();
    let load = operations.load();
    info!(waiting = load.waiting, in_flight = load.in_flight, "multus-daemon ends when nothing is under way");
    if timeout(options.drain, operations.idle()).await.is_err() {
        let load = operations.load();
        error!(waiting = load.waiting, in_flight = load.in_flight, "what is under way did not end in time");
        operations.give_up();
    }
    let _in_time = timeout(FAREWELL, server.quiet()).await;
    info!("multus-daemon ends");
    Ok(())
}

/// The signals that end the daemon. The first process of a container gets those only that it handles.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl End {
    fn new() -> Result<Self, Error> {
        let handled = |kind| signal(kind).map_err(Error::io("cannot handle", "signals"));
        Ok(Self { terminate: handled(SignalKind::terminate())?, interrupt: handled(SignalKind::interrupt())? })
    }

    async fn asked_for(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// On a thread of its own: it waits for somebody to approve the certificate.
async fn obtained(certificate: Arc<NodeCertificate>) -> Result<Access, Error> {
    let obtained = spawn_blocking(move || certificate.obtain(Limits::default(), APPROVAL)).await;
    let panicked = |error| Error::io("cannot wait for", "the node's certificate")(io::Error::other(error));
    Ok(obtained.map_err(panicked)??)
}

/// Starts with the spool; the receiver hears when everything in it was tried once.
fn work_off(spooled: Spooled) -> Result<oneshot::Receiver<()>, Error> {
    let (sender, first_pass) = oneshot::channel();
    let work = move || {
        spooled.work_off(|| {
            let _nobody_waits = sender.send(());
        });
    };
    let started = thread::Builder::new().name("spool".to_owned()).stack_size(SPOOL_STACK).spawn(work);
    started.map_err(Error::io("cannot start", "a thread"))?;
    Ok(first_pass)
}

fn multus(
    environment: &Environment,
    access: Option<&Access>,
    certificate: Option<Arc<NodeCertificate>>,
    host_local: &WatchedHostLocal,
) -> Result<Multus, Error> {
    let builtin = || Builtin::from_environment(environment);
    let ipams = || Registry::new().with("host-local", host_local.clone()).allow(builtin());
    let multus = Multus::new(ipams().with("macvlan", Macvlan::new(ipams())));
    let Some(access) = access else {
        warn!("no Kubernetes: \"kubeconfig\" is not set, nor is KUBERNETES_SERVICE_HOST");
        return Ok(multus);
    };
    let cluster = Arc::new(cluster(access, environment)?);
    if let Some(certificate) = certificate {
        let renewed = Arc::clone(&cluster);
        let keep = move || certificate.keep(Limits::default(), APPROVAL, || renewed.reconnect(&certificate.access()?));
        let thread = thread::Builder::new().name("certificate".to_owned()).stack_size(CERTIFICATE_STACK);
        thread.spawn(keep).map(drop).map_err(Error::io("cannot start", "a thread"))?;
    }
    Ok(multus.with_cluster(cluster))
}

fn node_certificate(options: &Options, environment: &Environment) -> Result<Option<NodeCertificate>, Error> {
    let Some(asked) = &options.node_certificate else {
        return Ok(None);
    };
    let node = environment.value(NODE_NAME).map(|node| node.to_string_lossy()).unwrap_or_default();
    Ok(Some(NodeCertificate::new(&asked.bootstrap, &asked.directory, &node, asked.duration)?))
}

/// The file that `kubeconfig` names, or else what a pod is given.
fn access(options: &Options, environment: &Environment) -> Result<Option<Access>, Error> {
    if let Some(kubeconfig) = &options.kubeconfig {
        return Ok(Some(Access::from_kubeconfig(kubeconfig)?));
    }
    let value = |name| environment.value(name).map(|value| value.to_string_lossy());
    match (value("KUBERNETES_SERVICE_HOST"), value("KUBERNETES_SERVICE_PORT")) {
        (Some(host), Some(port)) => Ok(Some(Access::in_cluster(&host, &port, Path::new(SERVICE_ACCOUNT))?)),
        _ => Ok(None),
    }
}

fn cluster(access: &Access, environment: &Environment) -> Result<ApiCluster, Error> {
    let node = environment.value(NODE_NAME).map(|node| node.to_string_lossy().into_owned());
    let reporter = |node| Reporter { component: "multus".to_owned(), node, now: SystemTime::now };
    Ok(match node {
        Some(node) => ApiCluster::watching(&Handle::current(), access, Limits::default(), reporter(node))?,
        None => {
            warn!("MULTUS_NODE_NAME is not set: every pod and network is asked for when it is needed");
            ApiCluster::new(access, Limits::default(), reporter(String::new()))?
        }
    })
}
