//! Masters of every kind, each with two sandboxes that reach each other.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{net::Ipv4Addr, process::ExitCode};

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, ping, run_where_there_are};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");

fn main() -> ExitCode {
    run_where_there_are(&[
        ("bridge", ("a_bridge_as_master", a_bridge_as_master)),
        ("dummy", ("a_dummy_as_master", a_dummy_as_master)),
        ("vlan", ("a_vlan_as_master", a_vlan_as_master)),
        ("bond", ("a_bond_as_master", a_bond_as_master)),
        ("ipvlan", ("an_ipvlan_as_master_is_explained", an_ipvlan_as_master_is_explained)),
        ("bond", ("a_master_in_a_bond_is_explained", a_master_in_a_bond_is_explained)),
        ("ipvlan", ("a_master_with_an_ipvlan_is_explained", a_master_with_an_ipvlan_is_explained)),
    ])
}

fn a_bridge_as_master(lab: &Lab) {
    lab.host.ip("link add br0 type bridge");
    lab.host.ip("link set ens32 master br0");
    two_sandboxes_reach_each_other(lab, "br0");
}

fn a_dummy_as_master(lab: &Lab) {
    lab.host.ip("link add dummy7 type dummy");
    two_sandboxes_reach_each_other(lab, "dummy7");
}

fn a_vlan_as_master(lab: &Lab) {
    lab.host.ip("link add link ens32 name ens32.5 type vlan id 5");
    two_sandboxes_reach_each_other(lab, "ens32.5");
}

fn a_bond_as_master(lab: &Lab) {
    bond(lab);
    two_sandboxes_reach_each_other(lab, "bond7");
}

fn an_ipvlan_as_master_is_explained(lab: &Lab) {
    lab.host.ip("link add link ens32 name ipv0 type ipvlan mode l2");
    let why = "invalid argument (is there a passthru link on \"ipv0\", is it an ipvlan link or no Ethernet device, or is the \
               MTU too small for it?)";
    is_refused(lab, "ipv0", why);
}

fn a_master_in_a_bond_is_explained(lab: &Lab) {
    bond(lab);
    is_in_use(lab);
}

fn a_master_with_an_ipvlan_is_explained(lab: &Lab) {
    lab.host.ip("link add link ens32 name ipv0 type ipvlan mode l2");
    is_in_use(lab);
}

fn bond(lab: &Lab) {
    lab.host.ip("link add bond7 type bond mode active-backup miimon 100");
    lab.host.ip("link set ens32 down");
    lab.host.ip("link set ens32 master bond7");
}

fn is_in_use(lab: &Lab) {
    is_refused(lab, "ens32", r#"device or resource busy ("ens32" is in use by a bridge, a bond or an ipvlan link)"#);
}

fn is_refused(lab: &Lab, master: &str, why: &str) {
    let sandbox = lab.container("c1");
    let (_, message, _) = call("ADD", &sandbox, &network(lab, master)).run_in(&lab.host).error();
    assert_eq!(message, format!("failed to create macvlan: {why}"));
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
}

fn two_sandboxes_reach_each_other(lab: &Lab, master: &str) {
    lab.host.ip(&format!("link set {master} up"));
    let before = lab.host.links();
    let config = network(lab, master);
    let sandboxes = ["c1", "c2"].map(|name| lab.container(name));
    let results = sandboxes.each_ref().map(|sandbox| call("ADD", sandbox, &config).run_in(&lab.host).result());
    for (sandbox, result) in sandboxes.iter().zip(&results) {
        let mut with_previous = config.clone();
        with_previous["prevResult"] = result.clone();
        call("CHECK", sandbox, &with_previous).run_in(&lab.host).succeeded();
    }
    let addresses: [Ipv4Addr; 2] = ["10.1.2.2", "10.1.2.3"].map(|address| address.parse().unwrap());
    ping(&sandboxes[0], addresses[1]).unwrap();
    ping(&sandboxes[1], addresses[0]).unwrap();
    for sandbox in &sandboxes {
        call("DEL", sandbox, &config).run_in(&lab.host).succeeded();
        assert_eq!(sandbox.links(), ["lo"]);
    }
    assert!(lab.reserved("net").is_empty());
    assert_eq!(lab.host.links(), before);
}

fn call(command: &str, sandbox: &Netns, config: &Value) -> Call {
    let container = sandbox.path().file_name().unwrap().to_str().unwrap();
    Call::new(MACVLAN, command, sandbox.path()).container(container).config(config)
}

fn network(lab: &Lab, master: &str) -> Value {
    let ranges = json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]);
    json!({"cniVersion": "1.0.0", "name": "net", "type": "macvlan", "master": master,
           "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "ranges": ranges}})
}
