//! Keeps a certificate of the node's own, and a kubeconfig that refers to it: reads flags and environment once, and leaves
//! the rest to the library.

mod arguments;

use std::{
    convert::Infallible,
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
use tracing::{error, info};

use arguments::{Arguments, HELP, Request};

type Outcome = Result<(), Box<dyn StdError>>;

/// For somebody to approve a certificate.
const PATIENCE: Duration = Duration::from_secs(120);

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
        let end = match catch_unwind(AssertUnwindSafe(|| keep(&certificate, &path))) {
            Ok(Err(error)) => End::Failure(error),
            Err(_) => End::Panic,
        };
        failed.send(end)
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
fn keep(certificate: &NodeCertificate, kubeconfig: &Path) -> Result<Infallible, Error> {
    let write = || {
        certificate.write_kubeconfig(kubeconfig)?;
        info!("{kubeconfig:?} is written; the node has a certificate of its own");
        Ok(())
    };
    certificate.obtain(Limits::default(), PATIENCE)?;
    write()?;
    certificate.keep(Limits::default(), PATIENCE, write)
}
