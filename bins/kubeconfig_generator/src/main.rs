//! Keeps a certificate of the node's own, and a kubeconfig that refers to it: reads flags and environment once, and leaves
//! the rest to the library.

mod arguments;

use std::{
    env,
    error::Error as StdError,
    fs,
    io::{self, Write, stderr, stdout},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, SystemTime},
};

use multus_core::kubernetes::{Error, Limits, NodeCertificate};
use multus_log::{Level, Log};
use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info, warn};

use arguments::{Arguments, HELP, Request};

type Outcome = Result<(), Box<dyn StdError>>;

/// For somebody to approve a certificate.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between tries that fail, and while a clock is being set.
const PAUSE: Duration = Duration::from_secs(10);

/// Why the program ends.
enum End {
    Signal,
    Failure(Error),
    Panic,
}

fn main() -> ExitCode {
    Log::new("kubeconfig_generator", SystemTime::now).with_level("", Level::Verbose).with_stderr(true).install();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads = writeln!(stderr(), "kubeconfig_generator: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    match Request::parse(env::args_os())? {
        Request::Help => Ok(stdout().write_all(HELP.as_bytes())?),
        Request::Version => Ok(writeln!(stdout(), "kubeconfig_generator {}", env!("CARGO_PKG_VERSION"))?),
        Request::Run(arguments) => serve(arguments),
    }
}

fn serve(arguments: Arguments) -> Outcome {
    let node = env::var("MULTUS_NODE_NAME").unwrap_or_default();
    if node.is_empty() {
        return Err("MULTUS_NODE_NAME is not set; it is to be the node's name, from spec.nodeName".into());
    }
    let Arguments { certificates, bootstrap, kubeconfig, duration } = arguments;
    let certificate = NodeCertificate::new(&bootstrap, &certificates, &node, duration)?;
    // Before there are threads.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let (ends, end) = mpsc::channel();
    let (failed, path) = (ends.clone(), kubeconfig.clone());
    let keep = move || {
        let failure = catch_unwind(AssertUnwindSafe(|| keep(&certificate, &path)));
        failed.send(failure.map_or(End::Panic, End::Failure))
    };
    thread::Builder::new().spawn(keep)?;
    thread::Builder::new().spawn(move || signals.wait().map(|_| ends.send(End::Signal)))?;
    let end = end.recv()?;
    match fs::remove_file(&kubeconfig) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => error!(%error, "{kubeconfig:?} is not removed"),
        _ => info!("{kubeconfig:?} is removed"),
    }
    match end {
        End::Signal => Ok(()),
        End::Failure(error) => Err(error.into()),
        End::Panic => Err("it panicked; the lines above say where".into()),
    }
}

/// Writes the kubeconfig once there is a certificate, and renews both in time, for ever. Only the first must succeed.
fn keep(certificate: &NodeCertificate, kubeconfig: &Path) -> Error {
    let mut is_first = true;
    loop {
        let now = SystemTime::now();
        let due = certificate.renewal(now).ok().flatten().unwrap_or(now);
        let rest = due.duration_since(now).unwrap_or_default();
        if !is_first && !rest.is_zero() {
            // Step by step, since clocks are set.
            thread::sleep(rest.min(PAUSE));
            continue;
        }
        let renewed = if rest.is_zero() { certificate.renew(now, Limits::default(), PATIENCE) } else { Ok(()) };
        match renewed.and_then(|()| certificate.write_kubeconfig(kubeconfig)) {
            Ok(()) => {
                info!("{kubeconfig:?} is written; the node has a certificate of its own");
                let now = SystemTime::now();
                if !certificate.renewal(now).is_ok_and(|due| due.is_some_and(|due| due > now)) {
                    warn!("the new certificate is not valid at this time; is this node's clock right?");
                    thread::sleep(NodeCertificate::PAUSE_OF_WRONG_CLOCK);
                }
            }
            Err(error) if is_first => return error,
            Err(error) => {
                error!(%error, "the node's certificate is not renewed");
                thread::sleep(PAUSE);
            }
        }
        is_first = false;
    }
}
