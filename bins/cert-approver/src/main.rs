//! Approves the requests of nodes for certificates of their own: reads flags and environment once, and leaves the rest to
//! the library.

mod arguments;

use std::{
    env,
    error::Error as StdError,
    io::{Write, stderr, stdout},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::SystemTime,
};

use multus_core::kubernetes::{Access, CertificateApprover, Limits, Reporter};
use multus_log::{Level, Log};
use nix::sys::signal::{SigSet, Signal};
use tracing::info;

use arguments::{HELP, Request};

type Outcome = Result<(), Box<dyn StdError>>;

fn main() -> ExitCode {
    Log::new("cert-approver", SystemTime::now).with_level("", Level::Verbose).with_stderr(true).install();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads = writeln!(stderr(), "cert-approver: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    match Request::parse(env::args_os())? {
        Request::Help => Ok(stdout().write_all(HELP.as_bytes())?),
        Request::Version => Ok(writeln!(stdout(), "cert-approver {}", env!("CARGO_PKG_VERSION"))?),
        Request::Run { service_account } => serve(&service_account),
    }
}

fn serve(service_account: &Path) -> Outcome {
    let needed = |name| match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(format!("{name} is not set; this program runs in a pod, which is told so where the API server is")),
    };
    let (host, port) = (needed("KUBERNETES_SERVICE_HOST")?, needed("KUBERNETES_SERVICE_PORT")?);
    let access = Access::in_cluster(&host, &port, service_account)?;
    let node = env::var("MULTUS_NODE_NAME").unwrap_or_default();
    let reporter = Reporter { component: "cert-approver".to_owned(), node, now: SystemTime::now };
    let approver = CertificateApprover::new(&access, Limits::default(), reporter)?;
    // Before there are threads.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let (ends, end) = mpsc::channel();
    let ended = ends.clone();
    let approve = move || {
        let _panic = catch_unwind(AssertUnwindSafe(|| approver.run()));
        ended.send(None)
    };
    thread::Builder::new().spawn(approve)?;
    thread::Builder::new().spawn(move || signals.wait().map(|signal| ends.send(Some(signal))))?;
    info!("cert-approver looks at requests of {}", access.host());
    let signal = end.recv()?.ok_or("it panicked; the lines above say where")?;
    info!("{signal}: cert-approver ends");
    Ok(())
}
