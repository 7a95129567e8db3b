//! Two ADDs of one attachment at once, by two processes. The first stands still behind each of its requests to the kernel in
//! turn, and the second does all that it can do meanwhile: one of them succeeds, and has what it tells.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test fails by panicking")]

use std::process::ExitCode;

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, Stopped, SystemCall, go_plugins, run_when, strace, system_calls_can_fail};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

fn main() -> ExitCode {
    run_when(
        &[
            ("of_two_adds_at_once_one_succeeds", |lab| each_point(lab, &ipam(lab), false)),
            ("of_two_adds_without_addresses_one_succeeds", |lab| each_point(lab, &json!({}), false)),
            ("of_two_adds_with_an_executed_ipam_one_succeeds", |lab| each_point(lab, &ipam(lab), true)),
            ("of_two_adds_under_a_name_of_the_hosts_one_succeeds", |lab| {
                each_point(host_with_that_name(lab), &ipam(lab), false);
            }),
            ("of_two_adds_under_a_name_of_the_hosts_without_addresses_one_succeeds", |lab| {
                each_point(host_with_that_name(lab), &json!({}), false);
            }),
            ("of_two_adds_under_a_name_of_the_hosts_with_an_executed_ipam_one_succeeds", |lab| {
                each_point(host_with_that_name(lab), &ipam(lab), true);
            }),
        ],
        go_plugins().and(strace()).and(system_calls_can_fail()),
    )
}

fn each_point(lab: &Lab, ipam: &Value, is_ipam_executed: bool) {
    let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "ens32", "ipam": ipam});
    let call = |command, sandbox: &Netns| {
        let call = Call::new(MACVLAN, command, sandbox.path()).config(&config);
        if is_ipam_executed {
            return call.env("CNI_BUILTIN", "").env("CNI_PATH", go_plugins().unwrap().to_str().unwrap());
        }
        call
    };
    let first = lab.container("first");
    let (reply, calls) = call("ADD", &first).follow_in(&lab.host, None);
    reply.succeeded();
    call("DEL", &first).run_in(&lab.host).succeeded();
    let requests: Vec<&SystemCall> = calls.iter().filter(|call| call.name.starts_with("send")).collect();
    for (number, request) in requests.iter().enumerate() {
        let sandbox = lab.container(&format!("c{number}"));
        let stopped = Stopped::start(&call("ADD", &sandbox), request, lab);
        let has_begun = sandbox.links() != ["lo"];
        let mut second = lab.host.within(|| call("ADD", &sandbox).start());
        let _waits_for_the_first = second.waits_for("net.attachments");
        let replies = [stopped.go_on(), second.reply()];
        let results: Vec<Value> =
            replies.iter().filter(|reply| reply.status == Some(0)).map(|one| one.result()).collect();
        let told = format!("{}: {replies:?}", request.text);
        assert_eq!(results.len(), 1, "{told}");
        // Such an IPAM does not tell whether the ADD that has begun lives: then it is let alone.
        assert!(!(is_ipam_executed && has_begun) || replies[0].status == Some(0), "{told}");
        assert_eq!(sandbox.links(), ["eth0", "lo"], "{told}");
        let link = sandbox.link("eth0").unwrap();
        assert_eq!(
            (&link["address"], &link["group"]),
            (&results[0]["interfaces"][0]["mac"], &json!("default")),
            "{told}"
        );
        let address = &results[0]["ips"][0]["address"];
        let addresses: Vec<&str> = address.as_str().into_iter().collect();
        assert_eq!(sandbox.addresses("eth0"), addresses, "{told}");
        assert_eq!(lab.reserved("net").len(), addresses.len(), "{told}");
        call("DEL", &sandbox).run_in(&lab.host).succeeded();
        assert_eq!((sandbox.links(), lab.reserved("net")), (vec!["lo".to_owned()], Vec::new()), "{told}");
    }
    eprintln!("two ADDs at once at {} requests", requests.len());
    assert!(requests.len() > 5);
}

/// Before Linux 6.15 the link is born under another name then.
fn host_with_that_name(lab: &Lab) -> &Lab {
    lab.host.ip("link add eth0 type veth peer name eth0-peer");
    lab
}

fn ipam(lab: &Lab) -> Value {
    json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": "10.1.2.0/24"}]]})
}
