//! Measures, and writes the report: tables as Markdown, and the first one as a picture.
//!
//!     benches PLUGIN_DIRECTORY MULTUS_DAEMON CRITERION_DIRECTORY REPORT_DIRECTORY [SECTION...]
//!
//! The sections are processes, scale, siblings, pods, in-process and contention. The report is written only when all are
//! measured.

#![allow(clippy::print_stdout, reason = "a report is what this is for")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that fails has no result")]
#![allow(clippy::as_conversions, reason = "shares of a count")]

mod candidates;
mod chart;
mod contention;
mod in_process;
mod machine;
mod pods;
mod processes;
mod report;
mod scale;
mod siblings;
mod statistics;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use report::Report;
use testkit::enter_private_namespaces;

const INTRODUCTION: &str = "# Benchmarks

`make bench` measures all of this and writes this file anew. Candidates take turns, so that what else the machine does meets
each of them alike; a ratio is the median of the ratios within a round.";

/// What was given on the command line.
struct Subjects {
    /// The directory of the plugins.
    plugins: PathBuf,
    daemon: PathBuf,
    /// Where criterion has left its estimates.
    criterion: PathBuf,
    /// Where the report goes.
    report: PathBuf,
}

type Section = fn(&Subjects, &mut Report);

const SECTIONS: [(&str, Section); 6] = [
    ("processes", |subjects, report| processes::measure(&subjects.plugins, &subjects.report, report)),
    ("siblings", |subjects, report| siblings::measure(&subjects.plugins, report)),
    ("scale", |subjects, report| scale::measure(&subjects.plugins, report)),
    ("pods", |subjects, report| pods::measure(&subjects.daemon, &subjects.plugins, report)),
    ("in-process", |subjects, report| in_process::collect(&subjects.criterion, report)),
    ("contention", |subjects, report| contention::measure(&subjects.plugins, report)),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let ["contend", directory, name, turns] = arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        return contention::work(Path::new(directory), name, turns.parse().unwrap());
    }
    let [plugins, daemon, criterion, directory, wanted @ ..] = arguments.as_slice() else {
        panic!("usage: benches PLUGIN_DIRECTORY MULTUS_DAEMON CRITERION_DIRECTORY REPORT_DIRECTORY [SECTION...]");
    };
    let absolute = |path: &String| fs::canonicalize(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    fs::create_dir_all(directory).unwrap();
    let subjects = Subjects {
        plugins: absolute(plugins),
        daemon: absolute(daemon),
        criterion: absolute(criterion),
        report: absolute(directory),
    };
    for name in wanted {
        assert!(SECTIONS.iter().any(|(known, _)| known == name), "there is no section {name:?}");
    }
    enter_private_namespaces().unwrap();
    let mut report = Report::default();
    report.paragraph(INTRODUCTION);
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            section(&subjects, &mut report);
        }
    }
    report.paragraph(&machine::describe(&subjects.plugins));
    if wanted.is_empty() {
        report.write(&subjects.report.join("README.md"));
    }
}
