//! The daemon of Multus: reads arguments, environment and configuration file once, and leaves the rest to the modules.

mod arguments;
mod call;
mod credentials;
mod daemon;
mod error;
mod execution;
mod healthcheck;
mod log;
mod metrics;
mod metrics_server;
mod operations;
mod options;
mod server;
mod spooled;

use std::{
    env,
    io::{Write, stderr, stdout},
    process::ExitCode,
};

use arguments::Arguments;
use error::Error;
use options::Options;

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
    match Arguments::parse(env::args_os().skip(1))? {
        Arguments::Version => writeln!(stdout(), "multus-daemon {}", env!("CARGO_PKG_VERSION"))
            .map_err(Error::io("cannot write to", "stdout")),
        Arguments::Healthcheck { config, is_ready } => healthcheck::check(&Options::read(&config)?.socket(), is_ready),
        Arguments::Serve { config } => {
            let options = Options::read(&config)?;
            log::start(&options)?;
            daemon::run(&options, env::vars_os().collect())
        }
    }
}
