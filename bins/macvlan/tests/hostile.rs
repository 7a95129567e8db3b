//! Sandboxes whose owner means ill: root inside, with NET_ADMIN, and no rights anywhere else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sys::stat::Mode,
    unistd::mkfifo,
};
use serde_json::{Value, json};
use testkit::{Call, Lab, Reply, run};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

fn main() -> ExitCode {
    run(&[
        (
            "a_path_that_is_no_network_namespace_is_refused_in_time",
            a_path_that_is_no_network_namespace_is_refused_in_time,
        ),
        ("what_hides_a_namespace_is_not_taken_for_it", what_hides_a_namespace_is_not_taken_for_it),
        ("links_change_under_way_and_nothing_else_is_touched", links_change_under_way_and_nothing_else_is_touched),
        ("a_link_that_is_hidden_keeps_no_address", a_link_that_is_hidden_keeps_no_address),
        ("a_namespace_full_of_links_is_one_like_others", a_namespace_full_of_links_is_one_like_others),
    ])
}

fn a_path_that_is_no_network_namespace_is_refused_in_time(lab: &Lab) {
    let pipe = lab.path("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let file = lab.path("file");
    fs::write(&file, "").unwrap();
    let before = lab.host.links();
    for (path, problem) in [
        (pipe, "unknown FS magic"),
        (file, "unknown FS magic"),
        (lab.path(""), "unknown FS magic"),
        (PathBuf::from("/dev/zero"), "unknown FS magic"),
        (PathBuf::from("/proc/self/ns/uts"), "it is a namespace of another kind"),
        (PathBuf::from("/proc/self/ns/mnt"), "it is a namespace of another kind"),
        (lab.path("x".repeat(256).as_str()), "name too long"),
        (PathBuf::from("/../../-x"), "no such file"),
    ] {
        for command in ["ADD", "DEL"] {
            let reply = call(lab, command, &path).run_in(&lab.host);
            // There is nothing to delete where nothing is.
            if command == "DEL" && reply.status == Some(0) {
                assert!(problem == "no such file", "{path:?}");
                continue;
            }
            let (_, message, _) = reply.error();
            let shown = path.to_str().unwrap();
            assert!(
                message.contains(problem) && message.contains(&shown[..shown.len().min(40)]),
                "{command}: {message}"
            );
        }
    }
    assert_eq!((lab.host.links(), lab.reserved("net")), (before, Vec::new()));
}

fn what_hides_a_namespace_is_not_taken_for_it(lab: &Lab) {
    let sandbox = lab.container("c1");
    call(lab, "ADD", sandbox.path()).run_in(&lab.host).succeeded();
    // As a mount over the runtime's path; the calls see it as they see the path.
    let cover = lab.path("cover");
    File::create(&cover).unwrap();
    mount(Some(&cover), sandbox.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let (_, message, _) = call(lab, "DEL", sandbox.path()).run_in(&lab.host).error();
    assert!(message.contains("unknown FS magic"), "{message}");
    sandbox.unbind();
    call(lab, "DEL", sandbox.path()).run_in(&lab.host).succeeded();
    assert_eq!((sandbox.links(), lab.reserved("net")), (vec!["lo".to_owned()], Vec::new()));
}

fn links_change_under_way_and_nothing_else_is_touched(lab: &Lab) {
    let (sandbox, neighbour) = (lab.container("c1"), lab.container("c2"));
    call(lab, "ADD", neighbour.path()).container("c2").run_in(&lab.host).succeeded();
    let before = lab.host.links();
    let is_over = AtomicBool::new(false);
    let mut added = 0;
    thread::scope(|scope| {
        let meddle = || {
            while !is_over.load(Ordering::Relaxed) {
                for change in [
                    "link set eth0 down",
                    "link set eth0 group 1819700839",
                    "link set eth0 alias $(reboot);`reboot`",
                    "address add 10.1.2.77/24 dev eth0",
                    "link set eth0 name mine",
                    "link add eth0 type veth peer name peer",
                    "link delete mine",
                    "link delete eth0",
                    "link set eth0 up",
                ] {
                    // Each fails as often as not.
                    let mut ip = Command::new("ip");
                    let ip = ip.args(change.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
                    let _whatever = sandbox.within(|| ip.status());
                }
            }
        };
        scope.spawn(meddle);
        for _ in 0..40 {
            let reply = call(lab, "ADD", sandbox.path()).run_in(&lab.host);
            added += usize::from(reply.status == Some(0));
            is_told(&reply);
            is_told(&call(lab, "CHECK", sandbox.path()).run_in(&lab.host));
            is_told(&call(lab, "DEL", sandbox.path()).run_in(&lab.host));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    call(lab, "DEL", sandbox.path()).run_in(&lab.host).succeeded();
    assert!(added > 0, "it must have been possible now and then");
    assert_eq!(lab.reserved("net").len(), 1, "the neighbour's");
    assert_eq!((lab.host.links(), neighbour.addresses("eth0").len()), (before, 1));
}

fn a_link_that_is_hidden_keeps_no_address(lab: &Lab) {
    let (sandbox, elsewhere) = (lab.container("c1"), lab.container("c2"));
    let result = call(lab, "ADD", sandbox.path()).run_in(&lab.host).result();
    assert_eq!(result["ips"][0]["address"], "10.1.2.2/24");
    // Into a namespace that the sandbox's owner has made, where nobody looks.
    sandbox.ip(&format!("link set eth0 netns {} name hidden", elsewhere.path().display()));
    sandbox.ip("link add eth0 type veth peer name peer");
    call(lab, "DEL", sandbox.path()).run_in(&lab.host).succeeded();
    assert_eq!((sandbox.links(), lab.reserved("net")), (vec!["lo".to_owned()], Vec::new()));
    assert_eq!(elsewhere.links(), ["hidden", "lo"], "it is not looked for, and goes with that namespace");
}

fn a_namespace_full_of_links_is_one_like_others(lab: &Lab) {
    let sandbox = lab.container("c1");
    let many: String = (0..500).map(|number| format!("link add a{number} type veth peer name b{number}\n")).collect();
    let batch = lab.path("batch");
    fs::write(&batch, many).unwrap();
    sandbox.ip(&format!("-batch {}", batch.display()));
    call(lab, "ADD", sandbox.path()).run_in(&lab.host).succeeded();
    assert_eq!(sandbox.addresses("eth0"), ["10.1.2.2/24"]);
    call(lab, "DEL", sandbox.path()).run_in(&lab.host).succeeded();
    assert_eq!((sandbox.links().len(), lab.reserved("net")), (1001, Vec::new()));
}

/// Whatever it was, it ended as the protocol has it.
fn is_told(reply: &Reply) {
    match reply.status {
        Some(0) => {}
        _ => assert!(!reply.error().1.contains("internal error"), "{reply:?}"),
    }
}

fn call(lab: &Lab, command: &str, netns: &Path) -> Call {
    Call::new(MACVLAN, command, netns).config(&config(lab))
}

fn config(lab: &Lab) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "ens32",
        "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": "10.1.2.0/24"}]]},
    })
}
