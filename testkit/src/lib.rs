//! Tests against the real kernel: a private host with a parent link, containers beside it, and what ip(8) says of them.
//!
//! [`run`] is the `main` of a test program without the standard harness. It moves the program into a mount namespace of
//! its own (and into a user namespace, unless it is root) before there are threads; each case then gets a [`Lab`] of
//! fresh network namespaces, which vanish with it. Where namespaces cannot be had the cases are reported as ignored, with
//! the reason; with `CI=true` that is a failure.
//!
//! The kernel is read with `ip -j -d`, never with the code under test.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed, and says so where tests speak"
)]

mod choices;
mod contained;
mod errors;
mod faults;
mod injection;
mod kernel;
mod killing;
mod lab;
mod machine;
mod netns;
mod ping;
mod plugin;
mod programs;
mod registers;
mod replies;
mod running;
mod subject;
mod system_call;
mod tracer;

use std::{env, process::ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

pub use choices::Choices;
pub use contained::cgroup;
pub use errors::LACKS;
pub use faults::{Fault, is_soak, sample};
pub use injection::inject;
pub use kernel::linux;
pub use killing::kill_at;
pub use lab::Lab;
pub use machine::Machine;
pub use netns::{Netns, enter_private_namespaces};
pub use ping::ping;
pub use plugin::{Call, Reply, go_plugins, strace};
pub use programs::{are_current, program};
pub use registers::system_calls_can_fail;
pub use replies::Exchange;
pub use running::{Held, Running, Stopped};
pub use subject::{Networks, Subject, is_gone_after_del, outlives, survives, system_calls_after, system_calls_of};
pub use system_call::SystemCall;

/// A test: its name and what it does.
pub type Case = (&'static str, fn(&Lab));

/// Runs `cases` as a test program.
pub fn run(cases: &[Case]) -> ExitCode {
    run_when(cases, Ok(()))
}

/// As [`run`], for cases that need something besides namespaces; `needed` says why they cannot run without.
pub fn run_when(cases: &[Case], needed: Result<(), String>) -> ExitCode {
    run_with(&Arguments::from_args(), cases, needed)
}

/// As [`run_when`], for cases that start programs which start others: containers, say. Nothing of that outlives the test
/// program, whatever becomes of it. Each of `directories` is empty for them, the first has all temporary files, the network besides that of the [`Lab`] is the
/// one that the program was started in, and they are root's.
pub fn run_contained(cases: &[Case], needed: Result<(), String>, directories: &[&str]) -> ExitCode {
    match needed.and_then(|()| contained::contain(directories)) {
        Ok(Some(code)) => code,
        Ok(None) => run_prepared(&Arguments::from_args(), with_labs(cases), Ok(())),
        Err(obstacle) => run_prepared(&Arguments::from_args(), with_labs(cases), Err(obstacle)),
    }
}

/// As [`run_when`], for cases that need the private namespaces but no network.
pub fn run_without_lab(cases: &[(&'static str, fn())], needed: Result<(), String>) -> ExitCode {
    run_trials(&Arguments::from_args(), cases.to_vec(), needed)
}

/// As [`run`], each case with the kind of link that it needs of the kernel, which nobody can install. Where the kernel has
/// none such, the case is ignored, also with `CI=true`, unless the variable `KERNEL_HAS` names the kind.
pub fn run_where_there_are(cases: &[(&'static str, Case)]) -> ExitCode {
    let arguments = Arguments::from_args();
    if let Err(obstacle) = enter_private_namespaces() {
        let cases: Vec<Case> = cases.iter().map(|(_, case)| *case).collect();
        return run_prepared(&arguments, with_labs(&cases), Err(obstacle));
    }
    let trial = |(kind, (name, case)): &(&'static str, Case)| {
        let case = *case;
        trial(name, move || case(&Lab::new()), kernel::has_links(kind).err(), kernel::must_have(kind))
    };
    libtest_mimic::run(&arguments, cases.iter().map(trial).collect()).exit_code()
}

/// As [`run`], with all cases on the program's first thread, which stays its only one.
pub fn run_on_one_thread(cases: &[Case]) -> ExitCode {
    run_with(&Arguments { test_threads: Some(1), ..Arguments::from_args() }, cases, Ok(()))
}

fn run_with(arguments: &Arguments, cases: &[Case], needed: Result<(), String>) -> ExitCode {
    run_trials(arguments, with_labs(cases), needed)
}

fn with_labs(cases: &[Case]) -> Vec<(&'static str, impl FnOnce() + Send + 'static)> {
    let with_lab = |(name, case): &Case| {
        let case = *case;
        (*name, move || case(&Lab::new()))
    };
    cases.iter().map(with_lab).collect()
}

fn run_trials<F: FnOnce() + Send + 'static>(
    arguments: &Arguments,
    cases: Vec<(&'static str, F)>,
    needed: Result<(), String>,
) -> ExitCode {
    run_prepared(arguments, cases, needed.and_then(|()| enter_private_namespaces()))
}

fn run_prepared<F: FnOnce() + Send + 'static>(
    arguments: &Arguments,
    cases: Vec<(&'static str, F)>,
    prepared: Result<(), String>,
) -> ExitCode {
    let obstacle = prepared.err();
    let must_run = env::var("CI").is_ok_and(|value| value == "true");
    let trials = cases.into_iter().map(|(name, case)| trial(name, case, obstacle.clone(), must_run));
    libtest_mimic::run(arguments, trials.collect()).exit_code()
}

fn trial(name: &str, case: impl FnOnce() + Send + 'static, obstacle: Option<String>, must_run: bool) -> Trial {
    let ignored = obstacle.is_some() && !must_run;
    if let Some(reason) = obstacle.as_ref().filter(|_| ignored) {
        eprintln!("ignored: {name}: {reason}");
    }
    let test = move || match obstacle {
        Some(reason) => Err(Failed::from(reason)),
        None => {
            case();
            Ok(())
        }
    };
    Trial::test(name, test).with_ignored_flag(ignored)
}
