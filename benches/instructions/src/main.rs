//! Counts the instructions of what every attachment goes through, and compares them with a baseline: unlike times, they are
//! the same on a busy machine.
//!
//!     instructions check BASELINE     instructions write BASELINE     instructions run WORK TIMES
//!
//! Each work is run so many times, and twice as many, under callgrind; the difference is what the work itself takes, without
//! the start of the process. `run` is what callgrind gets to see.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is what this is for")]

mod baseline;
mod work;

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use baseline::{Baseline, rustc_version};
use work::WORKS;

const ATTEMPTS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["run", work, times] => run(work, times),
        ["write", path] => write(Path::new(path)),
        ["check", path] => check(Path::new(path)),
        _ => Err("usage: instructions check BASELINE | write BASELINE | run WORK TIMES".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, times: &str) -> Result<(), String> {
    let work = WORKS.iter().find(|work| work.name == name).ok_or_else(|| format!("no work is called {name:?}"))?;
    let times = times.parse().map_err(|error| format!("{times:?} is no number of times: {error}"))?;
    (work.run)(times);
    Ok(())
}

fn write(path: &Path) -> Result<(), String> {
    let counted = Baseline { rustc: rustc_version()?, counts: count_all()? };
    counted.write(path)?;
    print!("{}", counted.print());
    Ok(())
}

fn check(path: &Path) -> Result<(), String> {
    let baseline = Baseline::read(path)?;
    let counted = Baseline { rustc: rustc_version()?, counts: count_all()? };
    let outside = baseline.compare(&counted);
    if outside.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\nIf that is meant, `make instructions-baseline` writes the new counts, to be committed with the change.",
        outside.join("\n")
    ))
}

fn count_all() -> Result<Vec<(String, u64)>, String> {
    WORKS.iter().map(|work| Ok((work.name.to_owned(), count(work.name, work.times)?))).collect()
}

/// The instructions of one time of a work. Hash tables begin with other random numbers in each process, which makes a percent
/// or two where an address is allocated: of some attempts the middle one counts.
fn count(work: &str, times: u64) -> Result<u64, String> {
    let mut counts = Vec::new();
    for _ in 0..ATTEMPTS {
        let (once, twice) = (collected(work, times)?, collected(work, times * 2)?);
        counts.push(twice.saturating_sub(once) / times);
    }
    counts.sort_unstable();
    Ok(counts.get(ATTEMPTS / 2).copied().unwrap_or_default())
}

/// The instructions of a whole process, as callgrind counts them.
fn collected(work: &str, times: u64) -> Result<u64, String> {
    let program = env::current_exe().map_err(|error| format!("this program's own path: {error}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(program).args(["run", work, &times.to_string()]);
    // Nothing in the environment may make a difference.
    let path = env::var_os("PATH").unwrap_or_default();
    let output = command.env_clear().env("PATH", path).output();
    let output = output.map_err(|error| format!("valgrind: {error}: install the package valgrind"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    count.filter(|_| output.status.success()).ok_or_else(|| format!("{command:?}: {}\n{text}", output.status))
}
