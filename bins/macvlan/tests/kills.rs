//! A kill at every system call: whatever the killed process had begun, the next call finishes, and nothing is left over.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, process::ExitCode};

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, Reply, run_when, strace};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

fn main() -> ExitCode {
    run_when(
        &[
            ("a_killed_add_is_made_good_by_the_next", a_killed_add_is_made_good_by_the_next),
            ("a_killed_add_without_addresses_is_made_good", a_killed_add_without_addresses_is_made_good),
            ("a_killed_add_is_taken_back_by_del", a_killed_add_is_taken_back_by_del),
            (
                "a_killed_add_under_a_name_of_the_hosts_is_made_good",
                a_killed_add_under_a_name_of_the_hosts_is_made_good,
            ),
            (
                "a_killed_add_under_a_name_of_the_hosts_is_taken_back",
                a_killed_add_under_a_name_of_the_hosts_is_taken_back,
            ),
            ("a_killed_del_is_finished_by_the_next", a_killed_del_is_finished_by_the_next),
        ],
        strace().map(drop),
    )
}

fn a_killed_add_is_made_good_by_the_next(lab: &Lab) {
    let (killer, config) = (Killer::new(lab), layer_three(lab));
    let points = killer.points("ADD", &config);
    for (number, point) in points.iter().enumerate() {
        let sandbox = lab.container(&format!("c{number}"));
        let killed = killer.killed("ADD", &sandbox, &config, point);
        let reserved = lab.reserved("net");
        assert!(reserved.len() <= 1, "{point:?}: {reserved:?}");
        let again = killer.call("ADD", &sandbox, &config);
        if serde_json::from_str::<Value>(&killed.stdout).is_err() {
            let address = again.result()["ips"][0]["address"].as_str().unwrap().to_owned();
            let same = reserved.first().is_none_or(|reserved| address == format!("{reserved}/24"));
            assert!(same, "{point:?}: {reserved:?}, then {address}");
        }
        // Else it was delivered before it died: then this one may be refused, as any second one.
        let reserved = lab.reserved("net");
        assert_eq!(reserved.len(), 1, "{point:?}: {again:?}");
        assert_eq!(sandbox.links(), ["eth0", "lo"], "{point:?}");
        assert_eq!(sandbox.addresses("eth0"), [format!("{}/24", reserved[0])], "{point:?}");
        killer.is_gone_after_del(&sandbox, &config);
    }
    eprintln!("killed at {} system calls of an ADD", points.len());
    assert!(points.len() > 50);
}

fn a_killed_add_without_addresses_is_made_good(lab: &Lab) {
    let (killer, config) = (Killer::new(lab), layer_two());
    let points = killer.points("ADD", &config);
    for (number, point) in points.iter().enumerate() {
        let sandbox = lab.container(&format!("c{number}"));
        let killed = killer.killed("ADD", &sandbox, &config, point);
        // Finished before its result is told, since nobody keeps such ADDs apart.
        let was_finished = sandbox.link("eth0").is_some_and(|link| link["group"] == "default");
        let again = killer.call("ADD", &sandbox, &config);
        if serde_json::from_str::<Value>(&killed.stdout).is_err() && !was_finished {
            again.succeeded();
            assert_eq!(sandbox.link("eth0").unwrap()["group"], "default", "{point:?}");
        }
        assert_eq!(sandbox.links(), ["eth0", "lo"], "{point:?}");
        killer.is_gone_after_del(&sandbox, &config);
    }
    eprintln!("killed at {} system calls of an ADD without addresses", points.len());
    assert!(points.len() > 40);
}

fn a_killed_add_is_taken_back_by_del(lab: &Lab) {
    let (killer, config) = (Killer::new(lab), layer_three(lab));
    for (number, point) in killer.points("ADD", &config).iter().enumerate() {
        let sandbox = lab.container(&format!("c{number}"));
        killer.killed("ADD", &sandbox, &config, point);
        killer.is_gone_after_del(&sandbox, &config);
    }
}

/// Before Linux 6.15 the link is born under another name then.
fn a_killed_add_under_a_name_of_the_hosts_is_made_good(lab: &Lab) {
    lab.host.ip("link add eth0 type veth peer name eth0-peer");
    a_killed_add_is_made_good_by_the_next(lab);
}

fn a_killed_add_under_a_name_of_the_hosts_is_taken_back(lab: &Lab) {
    lab.host.ip("link add eth0 type veth peer name eth0-peer");
    a_killed_add_is_taken_back_by_del(lab);
}

fn a_killed_del_is_finished_by_the_next(lab: &Lab) {
    let (killer, config) = (Killer::new(lab), layer_three(lab));
    let points = killer.points("DEL", &config);
    for (number, point) in points.iter().enumerate() {
        let sandbox = lab.container(&format!("c{number}"));
        killer.call("ADD", &sandbox, &config).succeeded();
        killer.killed("DEL", &sandbox, &config, point);
        let is_held = sandbox.links() == ["lo"] || !lab.reserved("net").is_empty();
        assert!(is_held, "{point:?}: the address is free while a link has it");
        killer.is_gone_after_del(&sandbox, &config);
    }
    eprintln!("killed at {} system calls of a DEL", points.len());
    assert!(points.len() > 30);
}

/// Runs the program under strace(1).
struct Killer<'a> {
    lab: &'a Lab,
    /// What the host has.
    links: Vec<String>,
    script: PathBuf,
}

/// A system call, and which of the program's calls of that name.
type Point = (String, usize);

impl<'a> Killer<'a> {
    fn new(lab: &'a Lab) -> Self {
        let script = lab.path("traced");
        let line = format!("#!/bin/sh\nexec {} -qq $OPTIONS {MACVLAN}\n", strace().unwrap());
        fs::write(&script, line).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        Self { lab, links: lab.host.links(), script }
    }

    /// Every system call of a command.
    fn points(&self, command: &str, config: &Value) -> Vec<Point> {
        let sandbox = self.lab.container("traced-one");
        if command == "DEL" {
            self.call("ADD", &sandbox, config).succeeded();
        }
        let trace = self.lab.path("trace");
        self.traced(command, &sandbox, config, &format!("-o {}", trace.display())).succeeded();
        self.is_gone_after_del(&sandbox, config);
        let trace = fs::read_to_string(trace).unwrap();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let names = trace.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
        names
            .map(|name| {
                let count = counts.entry(name.clone()).or_default();
                *count += 1;
                (name, *count)
            })
            .collect()
    }

    /// The command, killed as it enters that system call.
    fn killed(&self, command: &str, sandbox: &Netns, config: &Value, (name, count): &Point) -> Reply {
        let options = format!("-o /dev/null --inject={name}:signal=SIGKILL:when={count}");
        self.traced(command, sandbox, config, &options)
    }

    fn traced(&self, command: &str, sandbox: &Netns, config: &Value, options: &str) -> Reply {
        let call = Call::new(&self.script, command, sandbox.path()).env("OPTIONS", options);
        call.config(config).run_in(&self.lab.host)
    }

    fn call(&self, command: &str, sandbox: &Netns, config: &Value) -> Reply {
        Call::new(MACVLAN, command, sandbox.path()).config(config).run_in(&self.lab.host)
    }

    fn is_gone_after_del(&self, sandbox: &Netns, config: &Value) {
        self.call("DEL", sandbox, config).succeeded();
        assert_eq!(sandbox.links(), ["lo"]);
        assert!(self.lab.reserved("net").is_empty());
        assert_eq!(self.lab.host.links(), self.links);
    }
}

fn layer_three(lab: &Lab) -> Value {
    let mut config = layer_two();
    config["ipam"] = json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": "10.1.2.0/24"}]]});
    config
}

fn layer_two() -> Value {
    json!({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "ens32"})
}
