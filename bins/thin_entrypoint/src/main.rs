//! The container of the thin DaemonSet: reads flags and environment once, and leaves the rest to the library.

mod arguments;

use std::{
    env,
    error::Error as StdError,
    fs::DirBuilder,
    io::{Write, stderr, stdout},
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use multus_log::{Level, Log};
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use thin_entrypoint::{Keeper, Kubeconfig, Source, install, uninstall};
use tracing::info;

use arguments::{Arguments, HELP, Request};

type Outcome = Result<(), Box<dyn StdError>>;

fn main() -> ExitCode {
    Log::new("thin_entrypoint", SystemTime::now).with_level("", Level::Verbose).with_stderr(true).install();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads = writeln!(stderr(), "thin_entrypoint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome {
    match Request::parse(env::args_os())? {
        Request::Help => Ok(stdout().write_all(HELP.as_bytes())?),
        Request::Version => Ok(writeln!(stdout(), "thin_entrypoint {}", env!("CARGO_PKG_VERSION"))?),
        Request::Run(arguments) => serve(arguments),
        Request::Uninstall(arguments) => take_away(arguments),
    }
}

fn serve(arguments: Arguments) -> Outcome {
    // Before anything is done that a signal could end half-way.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let stop = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    arguments.thin.verify()?;
    must_exist("--cni-conf-dir", &arguments.conf_dir)?;
    if let Some(path) = &arguments.conf_file {
        must_exist("--multus-conf-file", path)?;
    }
    if !arguments.skip_copy {
        must_exist("--cni-bin-dir", &arguments.bin_dir)?;
        must_exist("--multus-bin-file", &arguments.program)?;
        install(&arguments.program, &arguments.bin_dir)?;
        info!("{:?} is in {:?}", arguments.program, arguments.bin_dir);
    }
    DirBuilder::new().recursive(true).mode(0o755).create(&arguments.networks_dir)?;

    let (skip_watch, cleanup) = (arguments.skip_watch, arguments.cleanup);
    let mut keeper = keeper(arguments)?;
    if !skip_watch {
        keeper.keep(stop.as_fd())?;
    } else if keeper.write(stop.as_fd())? {
        signals.wait()?;
    }
    if cleanup {
        keeper.remove()?;
        info!("the configuration is removed");
    }
    Ok(())
}

fn keeper(arguments: Arguments) -> Result<Keeper, Box<dyn StdError>> {
    let kubeconfig = kubeconfig(&arguments)?;
    Ok(without_kubeconfig(arguments).with_kubeconfig(kubeconfig))
}

fn without_kubeconfig(arguments: Arguments) -> Keeper {
    let source = match arguments.conf_file {
        Some(path) => Source::File(path),
        None => Source::Generated {
            directory: arguments.autoconfig_dir,
            file: arguments.master,
            force_version: String::new(),
            template: Box::new(arguments.thin),
        },
    };
    Keeper::new(&arguments.conf_dir, source).renaming_master(arguments.rename_master)
}

fn kubeconfig(arguments: &Arguments) -> Result<Kubeconfig, Box<dyn StdError>> {
    let needed = |name| match env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(format!("{name} is not set; this program runs in a pod, which is told so where the API server is")),
    };
    let protocol = env::var("KUBERNETES_SERVICE_PROTOCOL").unwrap_or_default();
    let (host, port) = (needed("KUBERNETES_SERVICE_HOST")?, needed("KUBERNETES_SERVICE_PORT")?);
    let kubeconfig = Kubeconfig::new(&arguments.conf_dir, &protocol, &host, &port, &arguments.service_account);
    Ok(kubeconfig.skip_tls_verify(arguments.skip_tls_verify))
}

fn take_away(arguments: Arguments) -> Outcome {
    let (conf_dir, bin_dir) = (arguments.conf_dir.clone(), arguments.bin_dir.clone());
    let program = arguments.program.file_name().and_then(|name| name.to_str()).unwrap_or("multus").to_owned();
    let programs: &[&str] = if arguments.skip_copy { &[] } else { &[&program] };
    // First, so that at no time the runtime has no configuration at all.
    without_kubeconfig(arguments).restore_master()?;
    for path in uninstall(&conf_dir, &bin_dir, programs)? {
        info!("{path:?} is removed");
    }
    Ok(())
}

fn must_exist(flag: &str, path: &Path) -> Outcome {
    match path.try_exists() {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("{flag}: {path:?} does not exist; is the volume mounted?").into()),
        Err(error) => Err(format!("{flag}: {path:?}: {error}").into()),
    }
}
