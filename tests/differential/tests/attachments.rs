//! macvlan with host-local against the Go plugins of those names.

use std::process::ExitCode;

use differential::{Campaign, Side, attachments};
use testkit::{go_plugins, run_without_lab};

fn main() -> ExitCode {
    run_without_lab(
        &[("the_same_attachments_have_the_same_outcome", the_same_attachments_have_the_same_outcome)],
        go_plugins().map(drop),
    )
}

fn the_same_attachments_have_the_same_outcome() {
    let campaign = Campaign {
        what: "attachments",
        counted: Some("ADD"),
        wanted: 2_000,
        steps: attachments,
        side: Side::with_host,
    };
    campaign.run();
}
