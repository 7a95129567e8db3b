//! Every file operation and every request to the kernel of the daemon, for an ADD, a DEL and a CHECK of a pod with two macvlan
//! networks, fails once: the answer says so, nothing is left of an ADD that failed, a DEL goes through in the end, and the
//! next pod is served. As it is a sample of the errors, and with `SOAK=1` all of them.

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

use std::{fs, process::ExitCode};

use multus_cni::{AttachmentId, ByteLock};
use node::Node;
use serde_json::{Value, json};
use testkit::{
    Fault, Lab, Netns, Networks, Reply, Subject, SystemCall, inject, run_when, sample, survives, system_calls_can_fail,
    system_calls_of,
};

const POD: &str = "web-0";
/// Those of the daemon that work on sandboxes.
const THREADS: [&str; 2] = ["operation", "netns"];
/// Of each command, in a short run.
const SAMPLE: usize = 20;

fn main() -> ExitCode {
    run_when(
        &[(
            "an_error_of_any_system_call_of_the_daemon_is_answered_and_leaves_nothing",
            an_error_of_any_system_call_of_the_daemon_is_answered_and_leaves_nothing,
        )],
        system_calls_can_fail(),
    )
}

fn an_error_of_any_system_call_of_the_daemon_is_answered_and_leaves_nothing(lab: &Lab) {
    let served = Served::new(lab);
    for command in ["ADD", "DEL", "CHECK"] {
        let calls = system_calls_of(&served, command);
        let faults = Fault::errors(&calls);
        let count = faults.len();
        assert!(count > 100, "only {count}");
        let chosen = sample(faults, SAMPLE);
        for fault in &chosen {
            survives(&served, command, fault);
        }
        eprintln!("{} of {count} errors in {} system calls of {command}", chosen.len(), calls.len());
    }
}

/// A pod that a daemon serves, which lives through everything; and another one.
struct Served<'a> {
    node: Node<'a>,
    sandbox: Netns,
    next: Netns,
}

impl<'a> Served<'a> {
    fn new(lab: &'a Lab) -> Self {
        let node = Node::new(lab);
        let (sandbox, next) = (node.pod(POD, "macvlan-conf"), node.pod("next", "macvlan-conf"));
        Self { node, sandbox, next }
    }

    fn ask(&self, command: &str) -> Reply {
        let request = self.node.request(command, &self.sandbox).to_string();
        let answer = self.node.post("/cni", request.as_bytes()).unwrap_or_else(|| panic!("no answer to {command}"));
        // Until its turn is over: what an ADD has made is kept behind the answer.
        let turn = AttachmentId { container_id: POD.to_owned(), ifname: String::new() }.stable_hash();
        drop(ByteLock::acquire(&self.node.lab.path("multus/.sandboxes"), turn));
        let body = String::from_utf8(answer.body).unwrap();
        let result = serde_json::from_str(&body).ok().and_then(|body: Value| body.get("Result").map(Value::to_string));
        Reply { status: Some(i32::from(answer.status != 200)), stdout: result.unwrap_or(body), stderr: String::new() }
    }
}

impl Subject for Served<'_> {
    /// The next pod is served; then the daemon has the same files open each time, with the same in them.
    fn start_anew(&self) {
        let _absent = fs::remove_dir_all(self.node.lab.data_dir());
        self.node.add(&self.next).unwrap();
        self.node.del(&self.next).unwrap();
        self.node.is_empty(&[&self.next]);
    }

    fn run(&self, command: &str, _: Option<&Value>) -> Reply {
        self.ask(command)
    }

    fn run_with(&self, fault: &Fault, command: &str, previous: Option<&Value>) -> Reply {
        self.follow(Some(fault), command, previous).0
    }

    fn follow(&self, fault: Option<&Fault>, command: &str, _: Option<&Value>) -> (Reply, Vec<SystemCall>) {
        inject(self.node.id(), &THREADS, fault, || self.ask(command))
    }

    fn networks(&self) -> Networks {
        let links = self.sandbox.links();
        let of = |(network, link): (&str, &str)| (links.contains(&link.to_owned()), self.node.lab.reserved(network));
        [("cbr0", "eth0"), ("macvlan-conf", "net1")].into_iter().map(of).collect()
    }

    fn differences(&self, result: &Value) -> Vec<String> {
        assert_eq!(result["interfaces"][0]["name"], json!("eth0"));
        let networks = self.networks();
        let is_whole = |(has_link, reserved): &(bool, Vec<String>)| *has_link && reserved.len() == 1;
        networks.iter().filter(|network| !is_whole(network)).map(|network| format!("{network:?}")).collect()
    }

    /// What is remembered of the sandbox may be that it has no networks.
    fn left(&self) -> Vec<String> {
        let lab = self.node.lab;
        let inside = self.sandbox.links().into_iter().filter(|link| link != "lo");
        let outside = lab.host.links().into_iter().filter(|link| !["ens32", "lo", "wire"].contains(&&**link));
        let stored = fs::read_dir(lab.path("multus/results")).into_iter().flatten();
        let stored = stored.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let remembered = fs::read_to_string(lab.path("multus").join(POD)).ok().filter(|remembered| remembered != "[]");
        inside.chain(outside).chain(self.node.reserved()).chain(stored).chain(remembered).collect()
    }

    fn left_by_del(&self) -> Vec<String> {
        let files = fs::read_dir(self.node.lab.path("multus")).unwrap();
        let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left = names.filter(|name| ![".sandboxes", "results", "spool"].contains(&&**name));
        self.left().into_iter().chain(left).collect()
    }

    fn damage(&self) {
        self.sandbox.ip("link set net1 down");
    }
}
