//! The daemon of Multus: reads arguments, environment and configuration file once, and leaves the rest to the modules.

mod arguments;
mod call;
mod daemon;
mod error;
mod execution;
mod healthcheck;
mod keeping;
mod metrics;
mod metrics_server;
mod operations;
mod options;
mod process;
mod ranges;
mod server;
mod spooled;

use std::{
    env,
    io::{Write, stderr, stdout},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use multus_core::LogConfig;
use multus_log::{Level, Log, Rotation};

use arguments::{Arguments, THICK, USAGE};
use error::Error;
use options::Options;
use thin_entrypoint::{install, uninstall};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "multus-daemon ends");
            let _nobody_reads = writeln!(stderr(), "multus-daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let said = |text: &str| stdout().write_all(text.as_bytes()).map_err(Error::io("cannot write to", "stdout"));
    match Arguments::parse(env::args_os())? {
        Arguments::Help => said(USAGE),
        Arguments::Version => said(&format!("multus-daemon {}\n", env!("CARGO_PKG_VERSION"))),
        Arguments::Healthcheck { config, is_ready } => healthcheck::check(&Options::read(&config)?.socket(), is_ready),
        Arguments::Install { programs, source, destination } => {
            for program in programs {
                install(&source.join(program), &destination)?;
                said(&format!("{} is installed\n", destination.join(program).display()))?;
            }
            Ok(())
        }
        Arguments::Uninstall { config, destination } => {
            for path in uninstall(&Options::read(&config)?.conf_dir, &destination, &THICK)? {
                said(&format!("{} is removed\n", path.display()))?;
            }
            Ok(())
        }
        Arguments::Serve { config } => {
            let options = Options::read(&config)?;
            log(&options.log).install();
            daemon::run(&options, options.keeper()?, env::vars_os().collect())
        }
    }
}

/// Errors are told unless the configuration says otherwise, and somewhere.
fn log(config: &LogConfig) -> Log {
    let LogConfig { file, level, to_stderr, max_age, max_size, max_backups, compress, .. } = config;
    let log = Log::new("multus-daemon", SystemTime::now)
        .with_level(level, Level::Error)
        .with_file(Path::new(file))
        .with_rotation(Rotation::from_options(*max_size, *max_backups, *max_age, *compress));
    let to_stderr = to_stderr.unwrap_or(!log.has_file());
    log.with_stderr(to_stderr)
}
