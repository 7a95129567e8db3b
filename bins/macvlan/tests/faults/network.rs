//! A network, and what must hold when something fails in a command for it.

use std::fs;

use serde_json::{Value, json};
use testkit::{Call, Exchange, Fault, Lab, Netns, SystemCall, go_plugins};

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

    /// What a whole command does, once what it is for is there.
    pub(crate) fn system_calls(&self, command: &str) -> Vec<SystemCall> {
        self.start_anew();
        let previous = (command != "ADD").then(|| self.call("ADD").run_in(&self.lab.host).result());
        let (reply, calls) = self.with_previous(command, previous.as_ref()).system_calls(self.lab);
        reply.succeeded();
        self.is_gone_after_del("nothing");
        calls
    }

    pub(crate) fn exchanges(&self, command: &str) -> Vec<Exchange> {
        Exchange::all(&self.system_calls(command))
    }

    /// Has that happen to the command, and sees to it that all is well.
    pub(crate) fn survives(&self, command: &str, fault: &Fault) {
        self.start_anew();
        match command {
            "ADD" => self.add_survives(fault),
            "DEL" => self.del_survives(fault),
            _ => self.check_survives(fault),
        }
        self.is_gone_after_del(&format!("{} {command}: {fault}", self.name));
    }

    fn add_survives(&self, fault: &Fault) {
        let reply = self.call("ADD").run_with(fault, self.lab);
        let result = if fault.is_survived(&reply) {
            reply.result()
        } else {
            self.is_gone(&format!("{fault}: {reply:?}"));
            // It was that one time.
            self.call("ADD").run_in(&self.lab.host).result()
        };
        self.is_attached(&result, fault);
    }

    fn del_survives(&self, fault: &Fault) {
        let result = self.call("ADD").run_in(&self.lab.host).result();
        let reply = self.call("DEL").run_with(fault, self.lab);
        let is_gone = (self.sandbox.links(), self.lab.reserved("net")) == (vec!["lo".to_owned()], Vec::new());
        if fault.is_survived(&reply) {
            assert!(is_gone, "{fault}: {reply:?}: {:?} {:?}", self.sandbox.links(), self.lab.reserved("net"));
        }
        let is_whole = self.sandbox.links() == ["eth0", "lo"] && self.lab.reserved("net") == addresses(&result);
        let check = self.with_previous("CHECK", Some(&result)).run_in(&self.lab.host);
        assert_eq!(check.status == Some(0), is_whole, "{fault}: {reply:?}, then {check:?}");
    }

    fn check_survives(&self, fault: &Fault) {
        let result = self.call("ADD").run_in(&self.lab.host).result();
        let reply = self.with_previous("CHECK", Some(&result)).run_with(fault, self.lab);
        let _whole = fault.is_survived(&reply);
        self.is_attached(&result, fault);
        self.sandbox.ip("route delete default");
        let reply = self.with_previous("CHECK", Some(&result)).run_with(fault, self.lab);
        assert_eq!(reply.status, Some(1), "{}: {fault}: a route is missing", self.name);
    }

    fn is_attached(&self, result: &Value, fault: &Fault) {
        assert_eq!(self.sandbox.links(), ["eth0", "lo"], "{fault}");
        assert_eq!(self.lab.reserved("net"), addresses(result), "{fault}");
        let mut held: Vec<String> = self.sandbox.addresses("eth0").iter().map(|one| without_prefix(one)).collect();
        held.sort();
        assert_eq!(held, addresses(result), "{fault}");
        self.with_previous("CHECK", Some(result)).run_in(&self.lab.host).succeeded();
    }

    fn is_gone_after_del(&self, after: &str) {
        let reply = self.call("DEL").run_in(&self.lab.host);
        assert_eq!(reply.status, Some(0), "{after}: {reply:?}");
        self.is_gone(after);
    }

    fn is_gone(&self, after: &str) {
        assert_eq!(self.sandbox.links(), ["lo"], "{after}");
        assert_eq!(self.lab.reserved("net"), [""; 0], "{after}");
        assert_eq!(self.lab.host.links(), ["ens32", "lo", "wire"], "{after}");
    }

    /// So that every command does the same each time.
    fn start_anew(&self) {
        let _absent = fs::remove_dir_all(self.lab.data_dir());
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
