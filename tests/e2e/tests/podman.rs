//! What somebody sees who runs containers with podman, whose plugins are `macvlan` and `host-local`, and no others.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and says where"
)]

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, process::ExitCode, thread};

use e2e::{PODMAN_PRIVATE, Podman, adopt, end, podman_needed, wait};
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
};
use serde_json::Value;
use tempfile::TempDir;
use testkit::{Lab, Machine, Netns, ping, run_contained};

fn main() -> ExitCode {
    run_contained(
        &[
            (
                "containers_reach_each_other_and_podman_tells_what_the_kernel_has",
                containers_reach_each_other_and_podman_tells_what_the_kernel_has,
            ),
            (
                "an_address_and_a_mac_are_kept_for_whoever_asked_first",
                an_address_and_a_mac_are_kept_for_whoever_asked_first,
            ),
            ("a_restart_frees_the_address_and_a_reload_keeps_it", a_restart_frees_the_address_and_a_reload_keeps_it),
            ("a_container_has_two_networks_of_two_families", a_container_has_two_networks_of_two_families),
            ("whoever_is_killed_removal_leaves_nothing", whoever_is_killed_removal_leaves_nothing),
            ("ten_at_once_have_ten_addresses", ten_at_once_have_ten_addresses),
            ("an_executed_host_local_keeps_the_same_store", an_executed_host_local_keeps_the_same_store),
            (
                "after_a_reboot_containers_get_their_addresses_again_and_forgotten_ones_are_free",
                after_a_reboot_containers_get_their_addresses_again_and_forgotten_ones_are_free,
            ),
        ],
        podman_needed(),
        &PODMAN_PRIVATE,
    )
}

fn containers_reach_each_other_and_podman_tells_what_the_kernel_has(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    for (container, address) in [("one", "10.9.0.2"), ("two", "10.9.0.3")] {
        podman.run(container, &format!("--network {lan}")).unwrap();
        assert_eq!(told(&podman, container, &lan), kernel(&podman.netns(container), "eth0", &["10.9.0.0/24"]));
        assert_eq!(podman.netns(container).addresses("eth0"), [format!("{address}/24")]);
    }
    ping(&podman.netns("one"), "10.9.0.3".parse().unwrap()).unwrap();
    ping(&podman.netns("two"), "10.9.0.2".parse().unwrap()).unwrap();
    assert_eq!(podman.reserved(&lan), ["10.9.0.2", "10.9.0.3"]);
    podman.does("stop --time 0 one");
    assert_eq!(podman.reserved(&lan), ["10.9.0.3"]);
    removed(&podman, &["one", "two"]);
}

fn an_address_and_a_mac_are_kept_for_whoever_asked_first(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    let mac = "02:00:00:00:00:77";
    podman.run("first", &format!("--network {lan} --ip 10.9.0.77 --mac-address {mac}")).unwrap();
    let has_both = || {
        let netns = podman.netns("first");
        assert_eq!(netns.addresses("eth0"), ["10.9.0.77/24"]);
        assert_eq!(netns.link("eth0").unwrap()["address"], mac);
        assert_eq!(podman.reserved(&lan), ["10.9.0.77"]);
    };
    has_both();
    podman.does("restart --time 0 first");
    has_both();

    let id = podman.inspect("first")["Id"].as_str().unwrap().to_owned();
    let taken = format!(
        "requested IP address 10.9.0.77 is not available in range set 10.9.0.1-10.9.0.254: reserved for container {id}, \
         interface eth0"
    );
    for (options, problem) in [
        ("--ip 10.9.0.77", taken.as_str()),
        ("--ip 10.9.0.1", "requested ip 10.9.0.1 is subnet's gateway"),
        (
            "--ip 10.9.0.78 --mac-address 02:00:00:00:00:77",
            "address already in use (another link on \"ens32\", or that itself, has the MAC address 02:00:00:00:00:77)",
        ),
    ] {
        let error = podman.run("second", &format!("--network {lan} {options}")).unwrap_err();
        assert!(error.contains("plugin type=\"macvlan\" failed (add): ") && error.contains(problem), "{error}");
        has_both();
        podman.does("rm second");
    }
    podman.does("rm --force --time 0 first");
    podman.run("second", &format!("--network {lan} --ip 10.9.0.77 --mac-address {mac}")).unwrap();
    removed(&podman, &["second"]);
}

/// The next address is the one after the last that was given; podman's reload asks for the one that is there.
fn a_restart_frees_the_address_and_a_reload_keeps_it(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    podman.run("one", &format!("--network {lan}")).unwrap();
    let has = |address: &str| {
        assert_eq!(podman.netns("one").addresses("eth0"), [format!("{address}/24")]);
        assert_eq!(told(&podman, "one", &lan), kernel(&podman.netns("one"), "eth0", &["10.9.0.0/24"]));
        assert_eq!(podman.reserved(&lan), [address]);
    };
    has("10.9.0.2");
    podman.does("restart --time 0 one");
    has("10.9.0.3");
    let before = podman.netns("one").link("eth0").unwrap();
    podman.does("network reload one");
    has("10.9.0.3");
    let after = podman.netns("one").link("eth0").unwrap();
    assert_eq!(before["address"], after["address"]);
    assert_ne!(before["ifindex"], after["ifindex"]);
    podman.does("stop --time 0 one");
    assert_eq!(podman.left_over(), [""; 0]);
    podman.does("start one");
    has("10.9.0.4");
    removed(&podman, &["one"]);
}

fn a_container_has_two_networks_of_two_families(lab: &Lab) {
    let podman = Podman::new(lab);
    let subnets = ["10.9.1.0/24", "fd00:9::/64"];
    let (lan, wan) = (podman.network("lan", &["10.9.0.0/24"]), podman.network("wan", &subnets));
    podman.run("one", &format!("--network {lan}:interface_name=lan0 --network {wan}:ip=10.9.1.50")).unwrap();
    let netns = podman.netns("one");
    assert_eq!(netns.links(), ["eth0", "lan0", "lo"]);
    assert_eq!(told(&podman, "one", &lan), kernel(&netns, "lan0", &["10.9.0.0/24"]));
    assert_eq!(told(&podman, "one", &wan), kernel(&netns, "eth0", &subnets));
    assert_eq!(netns.addresses("eth0"), ["10.9.1.50/24", "fd00:9::2/64"]);
    assert_eq!((podman.reserved(&lan).len(), podman.reserved(&wan).len()), (1, 2));

    podman.does(&format!("network disconnect {lan} one"));
    assert_eq!(netns.links(), ["eth0", "lo"]);
    assert_eq!(podman.reserved(&lan), [""; 0]);
    podman.does(&format!("network connect --ip 10.9.0.99 {lan} one"));
    assert_eq!(netns.links(), ["eth0", "eth1", "lo"]);
    assert_eq!(netns.addresses("eth1"), ["10.9.0.99/24"]);
    removed(&podman, &["one"]);
}

fn whoever_is_killed_removal_leaves_nothing(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    let start = || podman.run("one", &format!("--network {lan}")).unwrap();

    // podman is told, and cleans up by itself.
    start();
    kill(podman.process("one", "Pid"), Signal::SIGKILL).unwrap();
    wait("podman to detach a container that has died", || podman.reserved(&lan).is_empty());
    removed(&podman, &["one"]);

    // Nobody tells podman.
    start();
    let [monitor, process] = ["ConmonPid", "Pid"].map(|key| podman.process("one", key));
    end(monitor);
    end(process);
    assert_eq!(podman.reserved(&lan).len(), 1);
    removed(&podman, &["one"]);

    // It lives on, without anybody who watches it.
    start();
    let [monitor, process] = ["ConmonPid", "Pid"].map(|key| podman.process("one", key));
    end(monitor);
    adopt(process);
    assert_eq!(podman.netns("one").links(), ["eth0", "lo"]);
    removed(&podman, &["one"]);
}

fn ten_at_once_have_ten_addresses(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    let names: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| podman.run(name, &format!("--network {lan}")).unwrap());
        }
    });
    let addresses = names.iter().flat_map(|name| podman.netns(name).addresses("eth0"));
    let expected = (2..12).map(|number| format!("10.9.0.{number}/24"));
    assert_eq!(addresses.collect::<BTreeSet<_>>(), expected.collect());
    removed(&podman, &names.iter().map(String::as_str).collect::<Vec<_>>());
}

fn an_executed_host_local_keeps_the_same_store(lab: &Lab) {
    let podman = Podman::new(lab);
    let lan = podman.network("lan", &["10.9.0.0/24"]);
    podman.run("one", &format!("--network {lan}")).unwrap();
    edit(lab, &lan, |plugin| plugin["builtin"] = Value::Array(Vec::new()));
    let (plugin, calls) = (lab.path("bin/host-local"), lab.path("calls"));
    let program = fs::read_link(&plugin).unwrap();
    fs::remove_file(&plugin).unwrap();
    let script = format!("#!/bin/sh\necho $CNI_COMMAND >> {}\nexec {}\n", calls.display(), program.display());
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();

    podman.run("two", &format!("--network {lan}")).unwrap();
    assert_eq!(podman.netns("two").addresses("eth0"), ["10.9.0.3/24"]);
    podman.run("three", &format!("--network {lan} --ip 10.9.0.2")).unwrap_err();
    podman.does("rm three");
    ping(&podman.netns("two"), "10.9.0.2".parse().unwrap()).unwrap();
    removed(&podman, &["one", "two"]);
    let calls = fs::read_to_string(calls).unwrap();
    assert!(calls.contains("ADD\n") && calls.contains("DEL\n"), "{calls}");
}

/// As `docs/store.md` says: whoever had an address gets it again, and who is not there any more does not stand in the way.
fn after_a_reboot_containers_get_their_addresses_again_and_forgotten_ones_are_free(lab: &Lab) {
    let podman = Podman::new(lab);
    // On a disk, since tmpfs has extended attributes only in newer kernels.
    let disk = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let machine = Machine::new(lab.path("").as_path(), 1, 1);
    mount(Some(disk.path()), "/var/lib/cni", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    // Four addresses besides that of the gateway.
    let lan = podman.network("lan", &["10.9.0.0/29"]);
    for (container, options) in [("fixed", "--ip 10.9.0.5"), ("one", ""), ("two", ""), ("gone", ""), ("forgotten", "")]
    {
        podman.run(container, format!("--network {lan} {options}").trim_end()).unwrap();
    }
    let of = |container: &str| podman.netns(container).addresses("eth0");
    let before: Vec<_> = ["fixed", "one", "two"].map(of).into();
    assert_eq!(podman.reserved(&lan).len(), 5);
    podman.reboot(&["fixed", "one", "two", "gone", "forgotten"]);
    machine.enter(1, 2);

    // It does not detach what it knows to be of another boot.
    podman.does("rm gone forgotten");
    assert_eq!(podman.reserved(&lan).len(), 5);
    for container in ["two", "one", "fixed"] {
        podman.does(&format!("start {container}"));
    }
    assert_eq!(["fixed", "one", "two"].map(of).to_vec(), before);
    // The range is full of addresses that nobody has.
    podman.run("new", &format!("--network {lan}")).unwrap();
    assert_eq!(podman.reserved(&lan).len(), 5);
    podman.does("rm --force --time 0 fixed one two new");
    assert_eq!(podman.reserved(&lan).len(), 1);
    podman.host_local(&["gc", "--dead", &lan, "--yes"]).unwrap();
    // podman has forgotten libcni's files of those that it did not detach.
    let left = podman.left_over();
    assert!(left.len() == 2 && left.iter().all(|path| path.starts_with("/var/lib/cni/results/")), "{left:?}");
}

/// Removes containers, by force; nothing of them must be left then.
#[track_caller]
fn removed(podman: &Podman<'_>, containers: &[&str]) {
    let networks = containers.iter().filter_map(|container| {
        let key = podman.inspect(container)["NetworkSettings"]["SandboxKey"].as_str().map(str::to_owned);
        key.filter(|key| !key.is_empty())
    });
    let networks: Vec<_> = networks.collect();
    podman.does(&format!("rm --force --time 0 {}", containers.join(" ")));
    assert_eq!(podman.left_over(), [""; 0]);
    assert!(networks.iter().all(|path| !fs::exists(path).unwrap()), "{networks:?}");
}

/// The MAC and the addresses that podman tells.
fn told(podman: &Podman<'_>, container: &str, network: &str) -> Vec<String> {
    let told = podman.inspect(container)["NetworkSettings"]["Networks"][network].take();
    let keys = ["MacAddress", "IPAddress", "GlobalIPv6Address", "Gateway", "IPv6Gateway"];
    keys.iter().map(|key| told[key].as_str().unwrap().to_owned()).collect()
}

/// The same as the kernel has it, for a network of these subnets.
fn kernel(netns: &Netns, link: &str, subnets: &[&str]) -> Vec<String> {
    let addresses = netns.addresses(link);
    let of = |is_v6: bool| {
        let found = addresses.iter().find(|address| address.contains(':') == is_v6);
        found.map_or_else(String::new, |address| address.split('/').next().unwrap().to_owned())
    };
    let gateway = |family: &str| {
        let routes = netns.ip_json(&format!("{family} route show default dev {link}"));
        routes[0]["gateway"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(addresses.len(), subnets.len());
    let mac = netns.link(link).unwrap()["address"].as_str().unwrap().to_owned();
    vec![mac, of(false), of(true), gateway("-4"), gateway("-6")]
}

/// Changes the plugin's configuration in the file that podman has made.
fn edit(lab: &Lab, network: &str, change: impl FnOnce(&mut Value)) {
    let path = lab.path("net.d").join(format!("{network}.conflist"));
    let mut list: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut list["plugins"][0]);
    fs::write(path, list.to_string()).unwrap();
}
