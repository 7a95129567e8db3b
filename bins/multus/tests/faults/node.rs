//! A sandbox with three networks, and what must hold when something fails in a command for it.

use std::{fs, path::Path};

use serde_json::{Value, json};
use testkit::{Call, Exchange, Fault, Lab, Netns, Networks, Reply, Subject, SystemCall, go_plugins, is_gone_after_del};

const MULTUS: &str = env!("CARGO_BIN_EXE_multus");
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=uid-1";
pub(crate) const NETWORKS: [&str; 3] = ["cluster", "first", "second"];

pub(crate) struct Node<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) sandbox: Netns,
    delegates: Vec<Value>,
    host_links: Vec<&'static str>,
    /// Whether the file goes in which ADD remembers the sandbox.
    is_forgetful: bool,
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
        Self {
            lab,
            sandbox: lab.container("sandbox"),
            delegates,
            host_links: vec!["ens32", "lo", "wire"],
            is_forgetful: false,
        }
    }

    /// With a cluster network of the Go plugins.
    pub(crate) fn with_bridge(lab: &'a Lab) -> Self {
        let ipam = json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.1.0.0/24"});
        let bridge =
            json!({"cniVersion": "0.4.0", "name": "cluster", "type": "bridge", "bridge": "cni0", "ipam": ipam});
        lab.host.ip("link add cni0 type bridge");
        Self { host_links: vec!["cni0", "ens32", "lo", "wire"], ..Self::new(lab).replacing(0, bridge) }
    }

    /// Whose file of the sandbox is lost after each ADD; what is stored of each attachment is there.
    pub(crate) fn forgetful(lab: &'a Lab) -> Self {
        Self { is_forgetful: true, ..Self::new(lab) }
    }

    /// With that network in place of one.
    pub(crate) fn replacing(mut self, index: usize, delegate: Value) -> Self {
        self.delegates[index] = delegate;
        self
    }

    /// What the command asks the kernel.
    pub(crate) fn exchanges(&self, command: &str) -> Vec<Exchange> {
        self.start_anew();
        let previous = (command != "ADD").then(|| self.run("ADD", None).result());
        let (reply, exchanges) = self.with_previous(command, previous.as_ref()).exchanges(self.lab);
        reply.succeeded();
        is_gone_after_del(self, "nothing");
        exchanges
    }

    pub(crate) fn is_empty(&self, after: &str) {
        assert_eq!(self.left(), [""; 0], "{after}");
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

impl Subject for Node<'_> {
    fn start_anew(&self) {
        for directory in [self.lab.data_dir(), self.lab.path("multus")] {
            let _absent = fs::remove_dir_all(directory);
        }
    }

    fn run(&self, command: &str, previous: Option<&Value>) -> Reply {
        let reply = self.with_previous(command, previous).run_in(&self.lab.host);
        if self.is_forgetful && command == "ADD" {
            fs::remove_file(self.lab.path("multus/c1")).unwrap();
        }
        reply
    }

    fn run_with(&self, fault: &Fault, command: &str, previous: Option<&Value>) -> Reply {
        self.with_previous(command, previous).run_with(fault, self.lab)
    }

    fn follow(&self, fault: Option<&Fault>, command: &str, previous: Option<&Value>) -> (Reply, Vec<SystemCall>) {
        self.with_previous(command, previous).follow_in(&self.lab.host, fault)
    }

    fn networks(&self) -> Networks {
        let links = self.sandbox.links();
        let of = |(network, link): (&str, &str)| (links.contains(&link.to_owned()), self.lab.reserved(network));
        NETWORKS.into_iter().zip(["eth0", "net1", "net2"]).map(of).collect()
    }

    fn differences(&self, _: &Value) -> Vec<String> {
        let lacking = self.networks().into_iter().zip(NETWORKS);
        let lacking = lacking.filter(|((has_link, reserved), _)| !has_link || reserved.is_empty());
        lacking.map(|(_, network)| network.to_owned()).collect()
    }

    /// What is remembered of the sandbox may be that it has no networks.
    fn left(&self) -> Vec<String> {
        let inside = self.sandbox.links().into_iter().filter(|link| link != "lo");
        // The other end of a veth goes a moment after it.
        let is_new = |link: &String| !link.starts_with("veth") && !self.host_links.contains(&&**link);
        let outside = self.lab.host.links().into_iter().filter(is_new);
        let reserved = NETWORKS.into_iter().flat_map(|network| self.lab.reserved(network));
        let directory = self.lab.path("multus");
        let remembered = fs::read_to_string(directory.join("c1")).ok().filter(|remembered| remembered != "[]");
        let stored = names(&directory.join("results"));
        inside.chain(outside).chain(reserved).chain(stored).chain(remembered).collect()
    }

    fn left_by_del(&self) -> Vec<String> {
        let files = names(&self.lab.path("multus"));
        let left = files.into_iter().filter(|name| ![".sandboxes", "results"].contains(&&**name));
        self.left().into_iter().chain(left).collect()
    }

    fn damage(&self) {
        self.sandbox.ip("link set net2 down");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
