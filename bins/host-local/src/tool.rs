//! A run of the tool.

use std::{
    ffi::OsString,
    fs,
    io::{IsTerminal, Stderr, Write},
    path::Path,
    time::{Instant, SystemTime},
};

use host_local_ipam::DiskStore;

use crate::{
    arguments::{Arguments, Command, HELP},
    check,
    failure::Failure,
    garbage, list,
    output::{Output, print, printable},
    progress::Progress,
    release,
    survey::Place,
    usage,
};

/// What a command has to say.
pub(crate) struct Report {
    pub(crate) output: Output,
    /// Sentences for standard error.
    pub(crate) notes: Vec<String>,
    pub(crate) status: u8,
}

/// Carries a command out and returns the exit status.
pub(crate) fn run(
    arguments: impl IntoIterator<Item = OsString>,
    now: SystemTime,
    stdout: &mut dyn Write,
    stderr: &mut Stderr,
) -> u8 {
    match carry_out(arguments, now, stdout, stderr) {
        Ok(status) => status,
        Err(failure) => {
            let _nowhere_left = writeln!(stderr, "host-local: {}", printable(&failure.to_string()));
            2
        }
    }
}

fn carry_out(
    arguments: impl IntoIterator<Item = OsString>,
    now: SystemTime,
    stdout: &mut dyn Write,
    stderr: &mut Stderr,
) -> Result<u8, Failure> {
    let Arguments { data_dir, format, command } = Arguments::parse(arguments)?;
    let place = |data_dir: &Path| Place { store: DiskStore::new(data_dir), data_dir: data_dir.to_owned() };
    let place = match &data_dir {
        None => place(Path::new(DiskStore::DEFAULT_DATA_DIR)),
        // Where a typing error would look like order.
        Some(given) => {
            fs::read_dir(given).map_err(|source| Failure::Read { path: given.clone(), source })?;
            place(given)
        }
    };
    let terminal = stderr.is_terminal();
    let mut progress = Progress::new(terminal.then_some(&mut *stderr), Instant::now());
    let report = match command {
        Command::Help => return print(HELP, stdout).map(|()| 0),
        Command::Version => {
            return print(concat!("host-local ", env!("CARGO_PKG_VERSION"), "\n"), stdout).map(|()| 0);
        }
        Command::List { network } => list::list(&place, network.as_ref(), now, &mut progress)?,
        Command::Check { network, config } => {
            check::check(&place, network.as_ref(), config.as_deref(), now, &mut progress)?
        }
        Command::Usage { network, config } => usage::usage(&place, network.as_ref(), config.as_deref())?,
        Command::Gc { network, garbage, yes } => {
            garbage::collect(&place, network.as_ref(), &garbage, yes, now, &mut progress)?
        }
        Command::Release { network, address } => release::release(&place, network.as_ref(), address)?,
    };
    drop(progress);
    report.output.print(format, stdout)?;
    for note in report.notes {
        let _nobody_reads = writeln!(stderr, "host-local: {}", printable(&note));
    }
    Ok(report.status)
}
