//! Every system call of an ADD, of a DEL and of a CHECK fails once, or from then on, and every reply of the kernel's is once
//! none: nothing is left of an ADD that failed, or it says why; a DEL goes through in the end, and a CHECK does not lie.
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

use network::Network;

mod errors;
mod network;
mod replies;

fn main() -> ExitCode {
    run_when(
        &[
            ("an_error_of_any_system_call_leaves_nothing", |lab| errors::of_system_calls(&Network::ipv4(lab))),
            ("an_error_of_any_system_call_leaves_nothing_of_two_address_families", |lab| {
                errors::of_system_calls(&Network::dual_stack(lab));
            }),
            ("an_error_of_any_system_call_leaves_nothing_of_an_executed_ipam", |lab| {
                errors::of_system_calls(&Network::executed_ipam(lab));
            }),
            ("an_error_that_lasts_is_told_and_leaves_what_del_takes", |lab| {
                errors::that_last(&Network::dual_stack(lab));
            }),
            ("an_error_in_undoing_is_told_too_and_leaves_what_del_takes", |lab| {
                errors::of_the_undoing(&Network::dual_stack(lab));
            }),
            ("any_refusal_of_the_kernels_leaves_nothing", replies::refusals),
            ("any_nonsense_of_the_kernels_leaves_nothing", replies::nonsense),
            ("a_message_that_answers_nothing_does_not_matter", replies::harmless),
            ("a_kernel_that_does_not_answer_is_an_error_in_time", replies::silence),
        ],
        go_plugins().and(strace()).and(system_calls_can_fail()),
    )
}
