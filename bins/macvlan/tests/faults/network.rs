//! A network, and what must hold when something fails in a command for it.

use std::fs;

use serde_json::{Value, json};
use testkit::{Call, Exchange, Fault, Lab, Netns, Networks, Reply, Subject, SystemCall, go_plugins, is_gone_after_del};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

/// The network `net`, with one sandbox.
pub(crate) struct Network<'a> {
    pub(crate) name: &'static str,
    lab: &'a Lab,
    sandbox: Netns,
    config: Value,
    is_ipam_executed: bool,
}

impl<'a> Network<'a> {
    pub(crate) fn ipv4(lab: &'a Lab) -> Self {
        let ranges = json!([[{"subnet": "10.1.2.0/24"}]]);
        Self::new(lab, "IPv4", &ranges, &json!([{"dst": "0.0.0.0/0"}]))
    }

    pub(crate) fn dual_stack(lab: &'a Lab) -> Self {
        let ranges = json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]);
        Self::new(lab, "dual stack", &ranges, &json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]))
    }

    /// The Go plugin.
    pub(crate) fn executed_ipam(lab: &'a Lab) -> Self {
        Self { name: "executed IPAM", is_ipam_executed: true, ..Self::dual_stack(lab) }
    }

    fn new(lab: &'a Lab, name: &'static str, ranges: &Value, routes: &Value) -> Self {
        let ipam = json!({"type": "host-local", "dataDir": lab.data_dir(), "ranges": ranges, "routes": routes});
        let config = json!({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": "ens32", "ipam": ipam});
        Self { name, lab, sandbox: lab.container("sandbox"), config, is_ipam_executed: false }
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

    fn with_previous(&self, command: &str, previous: Option<&Value>) -> Call {
        let mut config = self.config.clone();
        if let Some(previous) = previous {
            config["prevResult"] = previous.clone();
        }
        self.call(command).config(&config)
    }

    fn call(&self, command: &str) -> Call {
        let call = Call::new(MACVLAN, command, self.sandbox.path()).config(&self.config);
        if self.is_ipam_executed {
            return call.env("CNI_BUILTIN", "").env("CNI_PATH", go_plugins().unwrap().to_str().unwrap());
        }
        call
    }
}

impl Subject for Network<'_> {
    fn start_anew(&self) {
        let _absent = fs::remove_dir_all(self.lab.data_dir());
    }

    fn run(&self, command: &str, previous: Option<&Value>) -> Reply {
        self.with_previous(command, previous).run_in(&self.lab.host)
    }

    fn run_with(&self, fault: &Fault, command: &str, previous: Option<&Value>) -> Reply {
        self.with_previous(command, previous).run_with(fault, self.lab)
    }

    fn follow(&self, fault: Option<&Fault>, command: &str, previous: Option<&Value>) -> (Reply, Vec<SystemCall>) {
        self.with_previous(command, previous).follow_in(&self.lab.host, fault)
    }

    fn networks(&self) -> Networks {
        vec![(self.sandbox.links() == ["eth0", "lo"], self.lab.reserved("net"))]
    }

    fn differences(&self, result: &Value) -> Vec<String> {
        if self.sandbox.links() != ["eth0", "lo"] {
            return self.sandbox.links();
        }
        let mut held: Vec<String> = self.sandbox.addresses("eth0").iter().map(|one| without_prefix(one)).collect();
        held.sort();
        let told = addresses(result);
        let wrong = [held, self.lab.reserved("net")].into_iter().filter(|found| *found != told);
        wrong.flatten().collect()
    }

    fn left(&self) -> Vec<String> {
        let inside = self.sandbox.links().into_iter().filter(|link| link != "lo");
        let outside = self.lab.host.links().into_iter().filter(|link| !["ens32", "lo", "wire"].contains(&&**link));
        inside.chain(outside).chain(self.lab.reserved("net")).collect()
    }

    fn damage(&self) {
        self.sandbox.ip("route delete default");
    }
}

/// Those of a result, sorted as the names of their files are.
fn addresses(result: &Value) -> Vec<String> {
    let texts = result["ips"].as_array().unwrap().iter().map(|ip| without_prefix(ip["address"].as_str().unwrap()));
    let mut addresses: Vec<String> = texts.collect();
    addresses.sort();
    addresses
}

fn without_prefix(address: &str) -> String {
    address.split('/').next().unwrap().to_owned()
}
