//! The daemon killed in the middle of its work, at any system call of whichever of its threads: what the kubelet asks for
//! then leaves nothing. As it is a few dozen points, and with `SOAK=1` all of them.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where"
)]

#[path = "daemon/node.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod node;

use std::{env, fs, process::ExitCode};

use node::Node;
use serde_json::json;
use testkit::{Lab, Netns, kill_at, run};

/// About how many, of some hundred system calls: a tenth of a second each.
const POINTS: usize = 60;

fn main() -> ExitCode {
    run(&[
        (
            "a_daemon_killed_at_any_system_call_of_an_add_leaves_nothing_after_del",
            a_daemon_killed_at_any_system_call_of_an_add_leaves_nothing_after_del,
        ),
        (
            "a_daemon_killed_at_any_system_call_of_a_del_leaves_nothing_after_the_next",
            a_daemon_killed_at_any_system_call_of_a_del_leaves_nothing_after_the_next,
        ),
    ])
}

fn a_daemon_killed_at_any_system_call_of_an_add_leaves_nothing_after_del(lab: &Lab) {
    let mut kills = Kills::new(lab);
    let calls = kills.last("ADD");
    let mut left_halfway = 0;
    let points = points(calls);
    for (number, point) in points.iter().enumerate() {
        let sandbox = kills.pod();
        let answer = kills.kill("ADD", &sandbox, *point);
        let links = sandbox.links();
        assert!(answer != Some(200) || links == ["eth0", "lo", "net1"], "call {point}: {links:?}");
        left_halfway += usize::from(links == ["eth0", "lo"]);
        kills.is_gone_after_del(&sandbox, number, *point);
    }
    eprintln!("killed at {} of {calls} system calls of an ADD; {left_halfway} left one link of two", points.len());
    assert!(calls > 200 && left_halfway > 0, "{calls} calls, {left_halfway}");
}

fn a_daemon_killed_at_any_system_call_of_a_del_leaves_nothing_after_the_next(lab: &Lab) {
    let mut kills = Kills::new(lab);
    let calls = kills.last("DEL");
    let points = points(calls);
    for (number, point) in points.iter().enumerate() {
        let sandbox = kills.pod();
        assert_eq!(kills.kill("ADD", &sandbox, usize::MAX), Some(200));
        kills.kill("DEL", &sandbox, *point);
        let is_held = !sandbox.links().contains(&"net1".to_owned()) || !lab.reserved("macvlan-conf").is_empty();
        assert!(is_held, "call {point}: the address is free while a link has it");
        kills.is_gone_after_del(&sandbox, number, *point);
    }
    eprintln!("killed at {} of {calls} system calls of a DEL", points.len());
    assert!(calls > 100, "{calls}");
}

/// Which of `calls` system calls are the daemon's last.
fn points(calls: usize) -> Vec<usize> {
    let step = if env::var("SOAK").is_ok_and(|value| value == "1") { 1 } else { (calls / POINTS).max(1) };
    (1..=calls).step_by(step).collect()
}

/// A node whose daemon dies again and again.
struct Kills<'a> {
    node: Node<'a>,
    pods: usize,
    is_running: bool,
}

impl<'a> Kills<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self { node: Node::without_daemon(lab, json!({})), pods: 0, is_running: false }
    }

    fn pod(&mut self) -> Netns {
        self.pods += 1;
        self.node.pod(&format!("web-{}", self.pods), "macvlan-conf")
    }

    fn start(&mut self) {
        if !self.is_running {
            self.node.start();
            self.is_running = true;
        }
    }

    /// How many system calls a whole `command` takes.
    fn last(&mut self, command: &str) -> usize {
        let sandbox = self.pod();
        self.start();
        let call = |command: &str| {
            let request = self.node.request(command, &sandbox).to_string();
            let (answer, calls) =
                kill_at(self.node.id(), usize::MAX, || self.node.post("/cni", request.as_bytes()).unwrap());
            assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
            calls
        };
        let (add, del) = (call("ADD"), call("DEL"));
        if command == "ADD" { add } else { del }
    }

    /// Has the daemon die at system call `point` of the command, if it comes that far; returns the status of its answer.
    fn kill(&mut self, command: &str, sandbox: &Netns, point: usize) -> Option<u16> {
        self.start();
        let request = self.node.request(command, sandbox).to_string();
        let (answer, calls) = kill_at(self.node.id(), point, || self.node.post("/cni", request.as_bytes()));
        if point < usize::MAX {
            self.is_running = calls != point;
        }
        answer.map(|answer| answer.status)
    }

    /// The DEL comes after the next daemon or before it, with the pod still in the API or not.
    fn is_gone_after_del(&mut self, sandbox: &Netns, number: usize, point: usize) {
        if !self.is_running {
            self.node.ended();
        }
        if number.is_multiple_of(3) {
            self.node.api.delete("pods", "test", &format!("web-{}", self.pods));
        }
        if number.is_multiple_of(2) {
            self.start();
        }
        self.node.del(sandbox).unwrap();
        self.start();
        assert_eq!(sandbox.links(), ["lo"], "killed at call {point}");
        self.node.is_empty(&[sandbox]);
        let directory = self.node.lab.path("multus");
        let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = files.filter(|name| !["results", "spool", ".sandboxes"].contains(&&**name)).collect();
        assert_eq!(left, [""; 0], "killed at call {point}");
        assert_eq!(self.node.spool().entries().unwrap(), []);
        assert_eq!(self.node.lab.host.links(), ["ens32", "lo", "wire"], "killed at call {point}");
    }
}
