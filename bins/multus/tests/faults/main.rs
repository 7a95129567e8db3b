//! Every system call of an ADD, of a DEL and of a CHECK for a sandbox with three networks fails once, or from then on, the
//! process dies at each, replies of the kernel's are none, and a plugin that is executed does whatever a program can do: nothing is left of
//! an ADD that failed, in no network and no file, and a DEL goes through in the end.
//!
//! As it is a sample of the faults; all of them with `SOAK=1`. Each case prints how many they were.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where"
)]

use std::process::ExitCode;

use testkit::{go_plugins, run_when, strace, system_calls_can_fail};

mod calls;
mod delegates;
mod node;

fn main() -> ExitCode {
    run_when(
        &[
            ("an_error_of_any_system_call_leaves_nothing_of_three_networks", calls::errors),
            (
                "an_error_of_any_system_call_leaves_nothing_beside_an_executed_plugin",
                calls::errors_beside_an_executed_plugin,
            ),
            ("an_error_that_lasts_is_told_and_leaves_what_del_takes_of_three_networks", calls::errors_that_last),
            ("an_error_that_lasts_hides_no_attachment_from_del", calls::errors_that_last_where_a_file_is_lost),
            ("an_error_in_undoing_three_networks_is_told_too_and_leaves_what_del_takes", calls::errors_in_undoing),
            ("any_odd_reply_of_the_kernels_leaves_nothing_of_three_networks", calls::replies),
            ("a_result_that_nobody_gets_leaves_nothing_of_three_networks", calls::nobody_listens),
            ("a_death_at_any_system_call_leaves_what_del_takes", calls::deaths),
            ("an_add_whose_plugin_does_anything_leaves_nothing", delegates::adds),
            ("a_del_whose_plugin_does_anything_is_told_and_can_be_repeated", delegates::dels),
            ("a_plugin_that_hangs_is_given_up_with_the_command", delegates::hangs),
        ],
        go_plugins().and(strace()).and(system_calls_can_fail()),
    )
}
