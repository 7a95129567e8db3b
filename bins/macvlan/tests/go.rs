//! Together with the Go plugins of Debian's package `containernetworking-plugins`, on one node and one directory.
//!
//! The package is older than what we reproduce: it knows no version after 1.0.0.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, Reply, go_plugins, run_when};

const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];

fn main() -> ExitCode {
    run_when(
        &[
            ("go_adds_and_we_check_and_delete", go_adds_and_we_check_and_delete),
            ("we_add_and_go_checks_and_deletes", we_add_and_go_checks_and_deletes),
            ("results_and_kernel_state_are_alike", results_and_kernel_state_are_alike),
            ("errors_have_the_same_code_and_words", errors_have_the_same_code_and_words),
            ("our_macvlan_executes_their_host_local", our_macvlan_executes_their_host_local),
        ],
        go_plugins().map(drop),
    )
}

fn go_adds_and_we_check_and_delete(lab: &Lab) {
    crossed(lab, &go(), &ours());
}

fn we_add_and_go_checks_and_deletes(lab: &Lab) {
    crossed(lab, &ours(), &go());
}

fn crossed(lab: &Lab, adder: &Path, deleter: &Path) {
    for version in VERSIONS {
        let sandbox = lab.container(version);
        let mut config = network(lab, version);
        config["prevResult"] = call(lab, adder, "ADD", &sandbox, &config).result();
        if version >= "0.4.0" {
            call(lab, deleter, "CHECK", &sandbox, &config).succeeded();
        }
        call(lab, deleter, "DEL", &sandbox, &config).succeeded();
        assert_eq!(sandbox.links(), ["lo"]);
        assert!(lab.reserved("net").is_empty());
    }
}

fn results_and_kernel_state_are_alike(lab: &Lab) {
    let address = "02:00:00:00:00:01";
    for version in VERSIONS {
        let observe = |plugins: &Path| {
            let sandbox = lab.container("c1");
            let mut config = network(lab, version);
            config["mac"] = json!(address);
            config["mtu"] = json!(1400);
            config["dns"] = json!({"nameservers": ["9.9.9.9"], "domain": "<x>"});
            let reply = call(lab, plugins, "ADD", &sandbox, &config);
            let directory = lab.data_dir().join("net");
            let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
                .collect();
            files.sort();
            let mut link = running(&sandbox);
            // The package's release still asks for no transmit queue.
            for key in ["ifindex", "link_netnsid", "txqlen"] {
                link.as_object_mut().unwrap().remove(key);
            }
            // And it has another order of keys in 1.0.0.
            let result = if version == "1.0.0" { reply.result().to_string() } else { reply.stdout };
            let state = (
                result,
                link,
                sandbox.addresses("eth0"),
                sandbox.ip("route show table all"),
                sandbox.sysctl("net/ipv4/conf/eth0/arp_notify"),
                files,
            );
            sandbox.ip("link del eth0");
            sandbox.remove_path();
            fs::remove_dir_all(lab.data_dir()).unwrap();
            state
        };
        assert_eq!(observe(&ours()), observe(&go()), "{version}");
    }
}

/// The link, when it runs and has its own IPv6 address, which the kernel sees to after the ADD.
fn running(sandbox: &Netns) -> Value {
    loop {
        let link = sandbox.link("eth0").unwrap();
        let routes = sandbox.ip("-6 route show table all");
        if link["operstate"] == "UP" && routes.contains("local fe80:") && routes.contains("multicast ff00:") {
            return link;
        }
        std::thread::yield_now();
    }
}

fn errors_have_the_same_code_and_words(lab: &Lab) {
    let sandbox = lab.container("c1");
    let with = |path: &str, value: Value| {
        let mut config = network(lab, "1.0.0");
        *config.pointer_mut(path).unwrap() = value;
        config
    };
    let no_name = with("/name", json!(null));
    let full =
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.1", "rangeEnd": "10.1.2.1"}]]));
    for config in [
        no_name,
        with("/name", json!("a b")),
        with("/cniVersion", json!("0.5.0")),
        with("/ipam/ranges", json!([])),
        with("/ipam/ranges", json!([[]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.3/24"}]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/31"}]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.2.0/24"}]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.2.0/24"}]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/24"}, {"subnet": "2001:db8::/64"}]])),
        with("/ipam/ranges", json!([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}]])),
        full,
        with("/ipam/type", json!("missing")),
        with("/ipam/type", json!("a/b")),
        with("/ipam/routes", json!([{"dst": "10.0.0.0/8", "gw": "172.31.0.1"}])),
        with("/mtu", json!(9000)),
        with("/mode", json!("other")),
        with("/master", json!("ens23")),
    ] {
        let theirs = call(lab, &go(), "ADD", &sandbox, &config).error();
        // They leave it.
        if sandbox.link("eth0").is_some() {
            sandbox.ip("link del eth0");
        }
        let (code, text, details) = call(lab, &ours(), "ADD", &sandbox, &config).error();
        assert_eq!(code, theirs.0, "{text}");
        // The package prints its own list of versions.
        assert_eq!(details.is_empty(), theirs.2.is_empty(), "{text}");
        // Nor does it tell of a route's metric, scope and table.
        let theirs = theirs.1.split("': ").next().map(str::to_owned).map(|text| (theirs.0, text)).unwrap();
        let same = text.starts_with(&theirs.1) || text.contains(&format!("({})", theirs.1));
        let reworded = text.starts_with("no IP ranges specified") && theirs.1 == "no IP ranges specified";
        assert!(same || reworded, "ours: {text}\ntheirs: {}", theirs.1);
    }
}

fn our_macvlan_executes_their_host_local(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = network(lab, "1.0.0");
    config["builtin"] = json!([]);
    let path = go();
    let with_their_path = |command: &str, config: &Value| {
        let call = Call::new(ours().join("macvlan"), command, sandbox.path()).env("CNI_PATH", path.to_str().unwrap());
        call.config(config).run_in(&lab.host)
    };
    let result = with_their_path("ADD", &config).result();
    assert_eq!(result["ips"][0]["address"], "10.1.2.2/24");
    config["prevResult"] = result;
    with_their_path("CHECK", &config).succeeded();
    with_their_path("DEL", &config).succeeded();
    assert!(lab.reserved("net").is_empty());
}

fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_macvlan")).parent().unwrap().to_owned()
}

fn go() -> PathBuf {
    go_plugins().unwrap()
}

fn network(lab: &Lab, version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": "macvlan", "master": "ens32", "mode": "bridge", "mtu": 0,
        "ipam": {
            "type": "host-local", "dataDir": lab.data_dir(),
            "ranges": [[{"subnet": "10.1.2.0/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.1.2.5"}],
        },
    })
}

fn call(lab: &Lab, plugins: &Path, command: &str, sandbox: &Netns, config: &Value) -> Reply {
    let call = Call::new(plugins.join("macvlan"), command, sandbox.path());
    call.env("CNI_PATH", go().to_str().unwrap()).config(config).run_in(&lab.host)
}
