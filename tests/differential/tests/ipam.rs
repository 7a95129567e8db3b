//! host-local against the Go plugin of that name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, process::ExitCode};

use differential::{ALLOWED, Campaign, LEFT_OUT, Side, ipam};
use testkit::{go_plugins, run_without_lab};

fn main() -> ExitCode {
    run_without_lab(
        &[
            ("the_same_commands_have_the_same_outcome", the_same_commands_have_the_same_outcome),
            ("every_allowed_difference_is_a_row_of_the_table", every_allowed_difference_is_a_row_of_the_table),
        ],
        go_plugins().map(drop),
    )
}

fn the_same_commands_have_the_same_outcome() {
    let campaign =
        Campaign { what: "commands of host-local", counted: None, wanted: 20_000, steps: ipam, side: Side::with_files };
    campaign.run();
}

fn every_allowed_difference_is_a_row_of_the_table() {
    let table = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/compat.md")).unwrap();
    for (section, row) in ALLOWED.iter().map(|rule| (rule.section, rule.row)).chain(LEFT_OUT.iter().copied()) {
        let rows = table.split("\n## ").find(|rows| rows.starts_with(&format!("{section}\n")));
        let rows = rows.unwrap_or_else(|| panic!("no section {section:?}"));
        assert!(rows.contains(&format!("\n| {row} |")), "no row {row:?} in {section:?}");
    }
}
