//! ADD and DEL of a macvlan network with host-local as whole processes.

use std::{path::Path, thread, time::Duration};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use testkit::{Lab, strace};

use crate::{
    candidates::{self, Candidate, Place, compiled},
    chart::{Bar, Group, svg},
    machine,
    report::{Report, replace},
    statistics::{median, median_ratio, milliseconds, share},
};

const ROUNDS: usize = 300;
const CHART: &str = "processes.svg";
/// What takes so many times as long as the shortest has no bar: those of the others could not be seen.
const TOO_LONG: f64 = 30.0;

/// Adds the tables, and writes the picture into `directory`.
pub(crate) fn measure(plugins: &Path, directory: &Path, report: &mut Report) {
    let lab = Lab::new();
    let container = lab.container("c1");
    // Not on tmpfs: reservations are on a disk in real life.
    let data_dir = tempfile::tempdir_in(plugins.parent().unwrap()).unwrap();
    let place = Place { lab: &lab, container: &container, master: "ens32", data_dir: data_dir.path() };
    let (candidates, missing) = candidates::all(&place, plugins);
    let measured = take_turns(&candidates, &place);

    report.heading("Whole processes");
    report.paragraph(&format!(
        "One container attached and detached, {ROUNDS} rounds. Times are from before the start of the process to its end, \
         seen by its parent. The floor is a static C program that makes the same requests of the kernel and nothing else \
         ([floor.c](../../benches/floor/floor.c)); all ratios are to it. Memory is the most that one process has resident \
         (`ru_maxrss`); system calls are those of child processes too, as strace counts them. netavark makes the link and its \
         routes, gets the address from its caller, and keeps, checks and undoes nothing."
    ));
    for reason in missing {
        report.paragraph(&format!("Not measured: {reason}."));
    }
    report.paragraph(&format!("![ADD and DEL as whole processes]({CHART})"));
    let mut groups = Vec::new();
    for (command, of) in [("ADD", Measured::add as fn(&Measured) -> &Series), ("DEL", Measured::del)] {
        let floor = of(&measured[0]);
        let columns = [command, "median ms", "p99 ms", "CPU ms", "of the floor", "memory KiB", "system calls"];
        let rows: Vec<Vec<String>> =
            candidates.iter().zip(&measured).map(|(candidate, measured)| of(measured).row(candidate, floor)).collect();
        report.table(&columns, &rows);
        groups.push(group(command, &candidates, &measured, of));
    }
    let caption = machine::describe_short();
    replace(&directory.join(CHART), &svg("ADD and DEL of a macvlan network as whole processes", &groups, &caption));
}

fn group(command: &str, candidates: &[Candidate], measured: &[Measured], of: fn(&Measured) -> &Series) -> Group {
    let medians: Vec<f64> = measured.iter().map(|measured| median(&of(measured).times)).collect();
    let shortest = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let bars = candidates.iter().zip(medians).filter(|(_, median)| *median < shortest * TOO_LONG);
    let bar =
        |(candidate, value): (&Candidate, f64)| Bar { name: candidate.name.clone(), value, is_ours: candidate.is_ours };
    Group { title: format!("{command}, median, ms"), bars: bars.map(bar).collect() }
}

/// One command of one candidate.
#[derive(Default)]
struct Series {
    /// In milliseconds.
    times: Vec<f64>,
    /// In which rounds.
    rounds: Vec<usize>,
    cpu: Duration,
    /// In KiB.
    memory: String,
    calls: String,
}

#[derive(Default)]
struct Measured {
    add: Series,
    del: Series,
}

impl Measured {
    fn add(&self) -> &Series {
        &self.add
    }

    fn del(&self) -> &Series {
        &self.del
    }
}

impl Series {
    fn run(&mut self, candidate: &Candidate, add: bool, place: &Place<'_>, round: usize) {
        let before = children_cpu();
        self.times.push(milliseconds(candidate.run(add, place)));
        self.rounds.push(round);
        self.cpu += children_cpu() - before;
    }

    fn row(&self, candidate: &Candidate, floor: &Self) -> Vec<String> {
        let floor: Vec<f64> = self.rounds.iter().map(|round| floor.times[*round]).collect();
        vec![
            candidate.name.clone(),
            format!("{:.2}", median(&self.times)),
            format!("{:.2}", share(&self.times, 0.99)),
            format!("{:.2}", milliseconds(self.cpu) / self.times.len() as f64),
            format!("{:.2}", median_ratio(&self.times, &floor)),
            self.memory.clone(),
            self.calls.clone(),
        ]
    }
}

fn take_turns(candidates: &[Candidate], place: &Place<'_>) -> Vec<Measured> {
    let peak = compiled("peak", place.lab).unwrap();
    let mut measured: Vec<Measured> = candidates.iter().map(|_| Measured::default()).collect();
    // The first calls find nothing in place.
    for (candidate, measured) in candidates.iter().zip(&mut measured) {
        for add in [true, false] {
            candidate.run(add, place);
        }
        for (add, series) in [(true, &mut measured.add), (false, &mut measured.del)] {
            series.memory = candidate.run_through(&[peak.to_str().unwrap()], add, place).trim().to_owned();
        }
        for (add, series) in [(true, &mut measured.add), (false, &mut measured.del)] {
            series.calls = calls(candidate, add, place);
        }
    }
    let count = candidates.len();
    for round in 0..ROUNDS {
        // Everybody is first equally often.
        for turn in 0..count {
            let index = (turn + round) % count;
            let (candidate, measured) = (&candidates[index], &mut measured[index]);
            if round % candidate.one_round_in == 0 {
                measured.add.run(candidate, true, place, round);
                measured.del.run(candidate, false, place, round);
                // What the kernel still has to clean up after a DEL is nobody else's burden.
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
    measured
}

/// How many system calls a call makes.
fn calls(candidate: &Candidate, add: bool, place: &Place<'_>) -> String {
    match strace() {
        Ok(strace) => {
            // The line of the sum: share, seconds, microseconds for each, calls, errors.
            let summary = candidate.run_through(&[strace, "-f", "-c"], add, place);
            let total = summary.lines().find(|line| line.trim_end().ends_with(" total")).unwrap();
            total.split_whitespace().nth(3).unwrap().to_owned()
        }
        Err(_) => {
            candidate.run(add, place);
            "no strace".to_owned()
        }
    }
}

fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}
