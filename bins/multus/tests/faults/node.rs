//! A sandbox with three networks, and what must hold when something fails in a command for it.

use std::{fs, path::Path};

use serde_json::{Value, json};
use testkit::{Call, Fault, Lab, Netns, Reply, SystemCall, go_plugins};

const MULTUS: &str = env!("CARGO_BIN_EXE_multus");
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=uid-1";
pub(crate) const NETWORKS: [&str; 3] = ["cluster", "first", "second"];

/// Each network's link in the sandbox, and the addresses that are reserved for it.
type State = Vec<(bool, Vec<String>)>;

pub(crate) struct Node<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) sandbox: Netns,
    delegates: Vec<Value>,
    host_links: Vec<&'static str>,
}

impl<'a> Node<'a> {
    /// All of macvlan.
    pub(crate) fn new(lab: &'a Lab) -> Self {
        let addresses = |ranges: Value| json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": ranges});
        let network = |name: &str, ranges| {
            json!({
                "cniVersion": "1.0.0", "name": name, "type": "macvlan", "master": "ens32", "ipam": addresses(ranges),
            })
        };
        let both = json!([[{"subnet": "10.1.1.0/24"}], [{"subnet": "2001:db8:1::/64"}]]);
        let delegates = vec![
            network("cluster", json!([[{"subnet": "10.1.0.0/24"}]])),
            network("first", both),
            network("second", json!([[{"subnet": "10.1.2.0/24"}]])),
        ];
        Self { lab, sandbox: lab.container("sandbox"), delegates, host_links: vec!["ens32", "lo", "wire"] }
    }

    /// With a cluster network of the Go plugins.
    pub(crate) fn with_bridge(lab: &'a Lab) -> Self {
        let ipam = json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.1.0.0/24"});
        let bridge =
            json!({"cniVersion": "0.4.0", "name": "cluster", "type": "bridge", "bridge": "cni0", "ipam": ipam});
        lab.host.ip("link add cni0 type bridge");
        Self { host_links: vec!["cni0", "ens32", "lo", "wire"], ..Self::new(lab).replacing(0, bridge) }
    }

    /// With that network in place of one.
    pub(crate) fn replacing(mut self, index: usize, delegate: Value) -> Self {
        self.delegates[index] = delegate;
        self
    }

    /// What a whole command does.
    pub(crate) fn system_calls(&self, command: &str) -> Vec<SystemCall> {
        self.start_anew();
        let previous = (command != "ADD").then(|| self.run("ADD").result());
        let (reply, calls) = self.with_previous(command, previous.as_ref()).system_calls(self.lab);
        reply.succeeded();
        self.is_gone_after_del("nothing");
        calls
    }

    /// Has that happen to the command, and sees to it that all is well.
    pub(crate) fn survives(&self, command: &str, fault: &Fault) {
        self.start_anew();
        match command {
            "ADD" => self.add_survives(fault),
            "DEL" => self.del_survives(fault),
            _ => self.check_survives(fault),
        }
        self.is_gone_after_del(&format!("{command}: {fault}"));
    }

    fn add_survives(&self, fault: &Fault) {
        let reply = self.call("ADD").run_with(fault, self.lab);
        let result = if fault.is_survived(&reply) {
            reply.result()
        } else {
            self.is_empty(&format!("{fault}: {reply:?}"));
            // It was that one time.
            self.run("ADD").result()
        };
        self.is_attached(&result, fault);
    }

    fn del_survives(&self, fault: &Fault) {
        let result = self.run("ADD").result();
        let whole = self.state();
        let reply = self.call("DEL").run_with(fault, self.lab);
        if fault.is_survived(&reply) {
            self.is_gone(&format!("{fault}: {reply:?}"));
        }
        let check = self.with_previous("CHECK", Some(&result)).run_in(&self.lab.host);
        assert_eq!(check.status == Some(0), self.state() == whole, "{fault}: {reply:?}, then {check:?}");
    }

    fn check_survives(&self, fault: &Fault) {
        let result = self.run("ADD").result();
        let reply = self.with_previous("CHECK", Some(&result)).run_with(fault, self.lab);
        let _whole = fault.is_survived(&reply);
        self.is_attached(&result, fault);
        self.sandbox.ip("link set net2 down");
        let reply = self.with_previous("CHECK", Some(&result)).run_with(fault, self.lab);
        assert_eq!(reply.status, Some(1), "{fault}: the last link is down");
    }

    /// Has the process die there, and sees to it that the next commands make that good.
    pub(crate) fn outlives(&self, command: &str, fault: &Fault) {
        self.start_anew();
        if command == "DEL" {
            self.run("ADD").succeeded();
        }
        let _died = self.call(command).run_with(fault, self.lab);
        self.is_gone_after_del(&format!("{command}: {fault}"));
        self.run("ADD").succeeded();
        self.is_gone_after_del(&format!("{command}: {fault}, and ADD"));
    }

    fn is_attached(&self, result: &Value, fault: &Fault) {
        let state = self.state();
        assert!(state.iter().all(|(has_link, reserved)| *has_link && !reserved.is_empty()), "{fault}: {state:?}");
        let check = self.with_previous("CHECK", Some(result)).run_in(&self.lab.host);
        assert_eq!(check.status, Some(0), "{fault}: {check:?}");
    }

    pub(crate) fn is_gone_after_del(&self, after: &str) {
        let reply = self.run("DEL");
        assert_eq!(reply.status, Some(0), "{after}: {reply:?}");
        self.is_gone(after);
    }

    /// Nothing is left: no link, no address, no file.
    pub(crate) fn is_gone(&self, after: &str) {
        self.is_empty(after);
        let files = names(&self.lab.path("multus"));
        assert!(files.iter().all(|name| [".sandboxes", "results"].contains(&&**name)), "{after}: {files:?}");
    }

    /// What is remembered of the sandbox may be that it has no networks.
    pub(crate) fn is_empty(&self, after: &str) {
        assert_eq!(self.state(), vec![(false, Vec::new()); 3], "{after}");
        assert_eq!(self.sandbox.links(), ["lo"], "{after}");
        let mut links = self.lab.host.links();
        // The other end of a veth goes a moment after it.
        links.retain(|name| !name.starts_with("veth"));
        assert_eq!(links, self.host_links, "{after}");
        let directory = self.lab.path("multus");
        assert_eq!(names(&directory.join("results")), [""; 0], "{after}");
        let remembered = fs::read_to_string(directory.join("c1")).unwrap_or_else(|_| "[]".to_owned());
        assert_eq!(remembered, "[]", "{after}");
    }

    fn state(&self) -> State {
        let links = self.sandbox.links();
        let of = |(network, link): (&str, &str)| (links.contains(&link.to_owned()), self.lab.reserved(network));
        NETWORKS.into_iter().zip(["eth0", "net1", "net2"]).map(of).collect()
    }

    /// So that every command does the same each time.
    fn start_anew(&self) {
        for directory in [self.lab.data_dir(), self.lab.path("multus")] {
            let _absent = fs::remove_dir_all(directory);
        }
    }

    pub(crate) fn run(&self, command: &str) -> Reply {
        self.call(command).run_in(&self.lab.host)
    }

    fn with_previous(&self, command: &str, previous: Option<&Value>) -> Call {
        let mut config = self.config();
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        self.call(command).config(&config)
    }

    pub(crate) fn call(&self, command: &str) -> Call {
        Call::new(MULTUS, command, self.sandbox.path())
            .env("CNI_PATH", go_plugins().unwrap().to_str().unwrap())
            .env("CNI_ARGS", ARGS)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .config(&self.config())
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus", "delegates": self.delegates,
            "cniDir": self.lab.path("multus"), "confDir": self.lab.path("net.d"), "binDir": self.lab.path("bin"),
        })
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
