//! What is deployed, and what is written about it: manifests, rights, capabilities, alerts, dashboards, documents.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and says where"
)]

mod access;
mod capabilities;
mod documents;
mod files;
mod manifests;
mod monitoring;
#[path = "../daemon/node.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod node;
mod rights;

use std::process::ExitCode;

use testkit::run;

fn main() -> ExitCode {
    if capabilities::is_announcer() {
        return capabilities::announce();
    }
    run(&[
        ("kustomizations_name_the_files_that_are_there", |_| manifests::kustomizations_name_the_files_that_are_there()),
        ("every_field_is_one_that_kubernetes_has", |_| manifests::every_field_is_one_that_kubernetes_has()),
        ("every_pod_is_guaranteed_and_critical", |_| manifests::every_pod_is_guaranteed_and_critical()),
        ("the_names_are_upstreams", |_| manifests::the_names_are_upstreams()),
        ("the_daemon_reads_the_configurations", manifests::the_daemon_reads_the_configurations),
        ("every_path_of_the_configurations_is_mounted", |_| manifests::every_path_of_the_configurations_is_mounted()),
        ("there_is_time_to_drain_and_memory_for_plugins", |_| {
            manifests::there_is_time_to_drain_and_memory_for_plugins();
        }),
        ("every_program_is_in_the_image", |_| manifests::every_program_is_in_the_image()),
        ("probes_are_answered_beside_a_long_queue", manifests::probes_are_answered_beside_a_long_queue),
        (
            "the_daemon_needs_all_of_its_role_and_nothing_else",
            access::the_daemon_needs_all_of_its_role_and_nothing_else,
        ),
        ("the_thin_program_needs_all_of_its_role_and_nothing_else", |lab| {
            access::the_thin_program_needs_all_of_its_role_and_nothing_else(lab);
        }),
        ("resource_claims_need_all_of_their_role_and_nothing_else", |lab| {
            access::resource_claims_need_all_of_their_role_and_nothing_else(lab);
        }),
        ("a_certificate_needs_all_of_its_role_and_nothing_else", |lab| {
            access::a_certificate_needs_all_of_its_role_and_nothing_else(lab);
        }),
        ("a_pod_gets_its_networks_under_the_role", access::a_pod_gets_its_networks_under_the_role),
        ("executed_plugins_find_the_hosts_programs", capabilities::executed_plugins_find_the_hosts_programs),
        ("four_capabilities_are_enough", capabilities::four_capabilities_are_enough),
        ("without_sys_admin_no_sandbox_is_entered", capabilities::without_sys_admin_no_sandbox_is_entered),
        ("without_net_admin_no_link_is_made", capabilities::without_net_admin_no_link_is_made),
        ("without_sys_chroot_no_plugin_is_executed", capabilities::without_sys_chroot_no_plugin_is_executed),
        ("without_net_raw_no_plugin_announces", capabilities::without_net_raw_no_plugin_announces),
        ("names_that_are_none_are_refused_by_every_program", rights::names_that_are_none_are_refused_by_every_program),
        (
            "each_program_needs_its_capabilities_and_no_others",
            rights::each_program_needs_its_capabilities_and_no_others,
        ),
        (
            "alerts_and_dashboards_use_metrics_that_there_are",
            monitoring::alerts_and_dashboards_use_metrics_that_there_are,
        ),
        ("every_alert_says_what_to_do", |_| monitoring::every_alert_says_what_to_do()),
        ("every_test_that_is_named_exists", |_| documents::every_test_that_is_named_exists()),
        ("every_message_that_is_quoted_is_in_the_code", |_| documents::every_message_that_is_quoted_is_in_the_code()),
        ("every_link_leads_somewhere", |_| documents::every_link_leads_somewhere()),
        ("every_flag_and_key_is_documented", |_| documents::every_flag_and_key_is_documented()),
        ("every_flag_and_key_has_a_test", |_| documents::every_flag_and_key_has_a_test()),
    ])
}
