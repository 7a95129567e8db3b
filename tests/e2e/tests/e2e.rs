//! What a pod, its owner and the operator of a node see of Multus, through a real container runtime.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and says where"
)]

use std::{
    collections::BTreeSet,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use e2e::{Containerd, Node, PRIVATE, Pod, Sandbox, needed, wait};
use serde_json::{Value, json};
use testkit::{Case, Lab, Netns, ping, run_contained};

/// Long enough for a daemon that starts.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let cases: [Case; 13] = [
        (
            "a_pod_gets_the_network_it_asks_for_beside_that_of_the_cluster",
            a_pod_gets_the_network_it_asks_for_beside_that_of_the_cluster,
        ),
        (
            "two_networks_in_json_get_the_interface_names_they_ask_for",
            two_networks_in_json_get_the_interface_names_they_ask_for,
        ),
        ("a_pod_gets_the_mac_and_the_address_it_asks_for", a_pod_gets_the_mac_and_the_address_it_asks_for),
        ("a_network_of_another_namespace_is_found", a_network_of_another_namespace_is_found),
        ("the_default_route_goes_where_the_pod_wants_it", the_default_route_goes_where_the_pod_wants_it),
        ("a_port_of_the_host_reaches_the_pod", a_port_of_the_host_reaches_the_pod),
        (
            "a_network_that_does_not_exist_fails_the_sandbox_and_leaves_nothing",
            a_network_that_does_not_exist_fails_the_sandbox_and_leaves_nothing,
        ),
        (
            "without_a_daemon_a_sandbox_fails_and_says_where_to_look",
            without_a_daemon_a_sandbox_fails_and_says_where_to_look,
        ),
        (
            "a_sandbox_stopped_without_a_daemon_is_cleaned_up_by_the_next_one",
            a_sandbox_stopped_without_a_daemon_is_cleaned_up_by_the_next_one,
        ),
        (
            "a_daemon_killed_while_a_sandbox_starts_leaves_nothing",
            a_daemon_killed_while_a_sandbox_starts_leaves_nothing,
        ),
        ("twenty_pods_at_once_all_get_two_networks", twenty_pods_at_once_all_get_two_networks),
        (
            "a_daemon_killed_while_twenty_pods_start_loses_nothing",
            a_daemon_killed_while_twenty_pods_start_loses_nothing,
        ),
        (
            "macvlan_may_be_the_runtimes_own_network_without_multus",
            macvlan_may_be_the_runtimes_own_network_without_multus,
        ),
    ];
    run_contained(&cases, needed(), &PRIVATE)
}

/// The range of the walkthrough of every tutorial.
fn macvlan_conf(node: &Node<'_>) -> Value {
    let ipam = json!({
        "subnet": "192.168.1.0/24", "rangeStart": "192.168.1.200", "rangeEnd": "192.168.1.216",
        "routes": [{"dst": "0.0.0.0/0"}], "gateway": "192.168.1.1",
    });
    node.macvlan("macvlan-conf", &ipam)
}

/// A node with the network `macvlan-conf`.
fn node(lab: &Lab) -> Node<'_> {
    node_with_patience(lab, PATIENCE)
}

fn node_with_patience(lab: &Lab, patience: Duration) -> Node<'_> {
    let node = Node::new(lab, patience);
    node.cluster.attachment(&node.cluster.namespace, "macvlan-conf", &macvlan_conf(&node));
    node
}

fn a_pod_gets_the_network_it_asks_for_beside_that_of_the_cluster(lab: &Lab) {
    let node = node(lab);
    let pod = node.cluster.pod("samplepod", "macvlan-conf");
    let sandbox = node.run(&pod).unwrap();

    assert_eq!(sandbox.netns().links(), ["eth0", "lo", "net1"]);
    let net1 = sandbox.netns().link("net1").unwrap();
    assert_eq!(net1["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(net1["linkinfo"]["info_data"]["mode"], "bridge");
    assert_eq!(sandbox.netns().addresses("net1"), ["192.168.1.200/24"]);
    assert_eq!(sandbox.netns().addresses("eth0"), [format!("{}/24", sandbox.ip)]);
    assert!(sandbox.ip.starts_with("10.244.1."), "{}", sandbox.ip);

    let network = format!("{}/macvlan-conf", node.cluster.namespace);
    let mac = |link: &str| sandbox.netns().link(link).unwrap()["address"].clone();
    let status = node.cluster.network_status(&pod);
    assert_eq!(
        status,
        json!([
            {
                "name": "cbr0", "interface": "eth0", "ips": [sandbox.ip], "mac": mac("eth0"), "default": true, "dns": {},
                "gateway": ["10.244.1.1"],
            },
            {
                "name": network, "interface": "net1", "ips": ["192.168.1.200"], "mac": mac("net1"), "dns": {},
                "gateway": ["192.168.1.1"],
            },
        ])
    );
    let events = node.cluster.events(&pod, "AddedInterface", 2);
    assert_eq!(
        events,
        [format!("Add eth0 [{}/24] from cbr0", sandbox.ip), format!("Add net1 [192.168.1.200/24] from {network}")]
    );

    end(&node, &[sandbox]);
}

fn two_networks_in_json_get_the_interface_names_they_ask_for(lab: &Lab) {
    let node = node(lab);
    let second = node.macvlan("second", &json!({"subnet": "192.168.2.0/24"}));
    node.cluster.attachment(&node.cluster.namespace, "second", &second);
    let networks =
        json!([{"name": "macvlan-conf", "interface": "storage0"}, {"name": "second", "interface": "media0"}]);
    let pod = node.cluster.pod("named", &networks.to_string());
    let sandbox = node.run(&pod).unwrap();
    assert_eq!(sandbox.netns().links(), ["eth0", "lo", "media0", "storage0"]);
    assert_eq!(sandbox.netns().addresses("storage0"), ["192.168.1.200/24"]);
    assert_eq!(sandbox.netns().addresses("media0"), ["192.168.2.2/24"]);
    let status = node.cluster.network_status(&pod);
    let interfaces: Vec<_> = status.as_array().unwrap().iter().map(|element| element["interface"].clone()).collect();
    assert_eq!(interfaces, ["eth0", "storage0", "media0"]);
    end(&node, &[sandbox]);
}

fn a_pod_gets_the_mac_and_the_address_it_asks_for(lab: &Lab) {
    let node = node(lab);
    let mut config = node.macvlan("fixed", &json!({"subnet": "192.168.3.0/24"}));
    config["capabilities"] = json!({"ips": true, "mac": true});
    node.cluster.attachment(&node.cluster.namespace, "fixed", &config);
    let networks = json!([{"name": "fixed", "ips": ["192.168.3.77/24"], "mac": "02:00:00:00:00:77"}]);
    let pod = node.cluster.pod("fixed", &networks.to_string());
    let sandbox = node.run(&pod).unwrap();
    assert_eq!(sandbox.netns().addresses("net1"), ["192.168.3.77/24"]);
    assert_eq!(sandbox.netns().link("net1").unwrap()["address"], "02:00:00:00:00:77");
    let status = node.cluster.network_status(&pod);
    assert_eq!((&status[1]["ips"][0], &status[1]["mac"]), (&json!("192.168.3.77"), &json!("02:00:00:00:00:77")));
    end(&node, &[sandbox]);
}

fn a_network_of_another_namespace_is_found(lab: &Lab) {
    let mut node = node(lab);
    let other = node.cluster.add_namespace("-shared");
    let config = node.macvlan("shared", &json!({"subnet": "192.168.4.0/24"}));
    node.cluster.attachment(&other, "shared", &config);
    let pod = node.cluster.pod("guest", &format!("{other}/shared@lan0"));
    let sandbox = node.run(&pod).unwrap();
    assert_eq!(sandbox.netns().addresses("lan0"), ["192.168.4.2/24"]);
    assert_eq!(node.cluster.network_status(&pod)[1]["name"], format!("{other}/shared"));
    end(&node, &[sandbox]);
}

fn the_default_route_goes_where_the_pod_wants_it(lab: &Lab) {
    let node = node(lab);
    let gateways = |netns: &Netns| {
        let routes = netns.ip_json("route show default");
        let of = |route: &Value| (route["dev"].clone(), route["gateway"].clone());
        routes.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    let networks = json!([{"name": "macvlan-conf", "default-route": ["192.168.1.1"]}]);
    let steered = node.run(&node.cluster.pod("steered", &networks.to_string())).unwrap();
    assert_eq!(gateways(&steered.netns()), [(json!("net1"), json!("192.168.1.1"))]);
    end(&node, &[steered]);
}

fn a_port_of_the_host_reaches_the_pod(lab: &Lab) {
    let node = node(lab);
    let pod = node.cluster.pod("web", "macvlan-conf");
    let sandbox = node.run_with_port(&pod, Some((8080, 80))).unwrap();
    let target = format!("--to-destination {}:80", sandbox.ip);
    let rules = node.iptables("-t nat -S");
    let is_meant = |rule: &str| rule.contains("--dport 8080") && rule.contains(&target);
    assert!(rules.lines().any(is_meant), "{rules}");
    end(&node, &[sandbox]);
    let rules = node.iptables("-t nat -S");
    assert!(!rules.contains("8080"), "{rules}");
}

fn a_network_that_does_not_exist_fails_the_sandbox_and_leaves_nothing(lab: &Lab) {
    let node = node(lab);
    let pod = node.cluster.pod("hopeful", "macvlan-conf,no-such-network");
    let error = node.run(&pod).unwrap_err();
    let beginning: String = ours(&error).chars().take(150).collect();
    let namespace = &node.cluster.namespace;
    assert!(beginning.contains(&format!("{namespace}/hopeful")), "{error}");
    assert!(beginning.contains("no-such-network"), "{error}");
    assert_eq!(node.cluster.events(&pod, "NoNetworkFound", 1).len(), 1);
    node.clean_up(&pod).unwrap();
    assert_eq!(node.left_over(), [""; 0]);
    // Once it is there the pod starts.
    node.cluster.attachment(namespace, "no-such-network", &macvlan_conf(&node));
    let sandbox = node.run(&pod).unwrap();
    assert_eq!(sandbox.netns().links(), ["eth0", "lo", "net1", "net2"]);
    end(&node, &[sandbox]);
}

fn without_a_daemon_a_sandbox_fails_and_says_where_to_look(lab: &Lab) {
    let node = node_with_patience(lab, Duration::from_secs(2));
    let pod = node.cluster.pod("waiting", "macvlan-conf");
    node.kill_daemon();
    let error = node.run(&pod).unwrap_err();
    let ours = ours(&error);
    assert!(ours.starts_with("multus-daemon not ready on ") && ours.contains(" after 2 s"), "{error}");
    assert!(ours.ends_with("see the kube-multus-ds pod of this node"), "{error}");
    node.clean_up(&pod).unwrap();
    node.start_daemon();
    node.wait_until_clean();
    end(&node, &[node.run(&pod).unwrap()]);
}

fn a_sandbox_stopped_without_a_daemon_is_cleaned_up_by_the_next_one(lab: &Lab) {
    let node = node_with_patience(lab, Duration::from_secs(2));
    let pod = node.cluster.pod("short", "macvlan-conf");
    let sandbox = node.run(&pod).unwrap();
    node.kill_daemon();
    node.stop(&sandbox).unwrap();
    node.remove(&sandbox).unwrap();
    assert_eq!(node.reserved().len(), 2);
    node.start_daemon();
    node.wait_until_clean();
}

fn a_daemon_killed_while_a_sandbox_starts_leaves_nothing(lab: &Lab) {
    let node = node(lab);
    let namespace = node.cluster.namespace.clone();
    node.cluster.attachment(&namespace, "slow", &json!({"cniVersion": "0.3.1", "name": "slow", "type": "slow"}));
    let begun = node.slow_plugin();
    let pod = node.cluster.pod("unlucky", "macvlan-conf,slow");
    let error = thread::scope(|scope| {
        let start = scope.spawn(|| node.run(&pod).unwrap_err());
        wait("the second network to be under way", || begun.exists());
        assert_eq!(node.reserved().len(), 2);
        node.kill_daemon();
        start.join().unwrap()
    });
    assert!(ours(&error).contains("multus-daemon"), "{error}");
    node.clean_up(&pod).unwrap();
    node.start_daemon();
    node.wait_until_clean();
    node.cluster.attachment(&namespace, "quick", &macvlan_conf(&node));
    let sandbox = node.run(&node.cluster.pod("lucky", "quick")).unwrap();
    end(&node, &[sandbox]);
}

fn twenty_pods_at_once_all_get_two_networks(lab: &Lab) {
    let node = node(lab);
    let pods = twenty_pods(&node);
    let sandboxes = at_once(&pods, |pod| node.run(pod).unwrap());
    each_has_its_networks(&node, &pods, &sandboxes);
    end_at_once(&node, &sandboxes);
}

fn a_daemon_killed_while_twenty_pods_start_loses_nothing(lab: &Lab) {
    let node = node(lab);
    let pods = twenty_pods(&node);
    let sandboxes = thread::scope(|scope| {
        let start = scope.spawn(|| at_once(&pods, |pod| run_as_a_kubelet_does(&node, pod)));
        wait("a third of the addresses to be reserved", || node.reserved().len() >= 20);
        node.kill_daemon();
        node.start_daemon();
        start.join().unwrap()
    });
    each_has_its_networks(&node, &pods, &sandboxes);
    end_at_once(&node, &sandboxes);
}

fn macvlan_may_be_the_runtimes_own_network_without_multus(lab: &Lab) {
    let macvlan = json!({
        "type": "macvlan", "master": "ens32",
        "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": "10.9.0.0/24"}]]},
    });
    let containerd =
        Containerd::with_network(lab, &json!({"cniVersion": "1.0.0", "name": "lan", "plugins": [macvlan]}));
    let sandboxes = ["one", "two"].map(|name| containerd.run_named(name).unwrap());
    for (sandbox, address) in sandboxes.iter().zip(["10.9.0.2", "10.9.0.3"]) {
        assert_eq!(sandbox.netns().addresses("eth0"), [format!("{address}/24")]);
        assert_eq!(sandbox.ip, address);
    }
    assert_eq!(lab.reserved("lan"), ["10.9.0.2", "10.9.0.3"]);
    assert_eq!(containerd.results("lan").len(), 2);
    for (from, to) in [(0, 1), (1, 0)] {
        ping(&sandboxes[from].netns(), sandboxes[to].ip.parse().unwrap()).unwrap();
    }
    for sandbox in &sandboxes {
        containerd.stop(sandbox).unwrap();
        assert!(!sandbox.has_network());
        containerd.remove(sandbox).unwrap();
    }
    assert_eq!(lab.host.links(), ["ens32", "lo", "wire"]);
    assert_eq!(lab.reserved("lan"), [""; 0]);
    assert_eq!(containerd.results("lan"), [""; 0]);
}

/// Pods that want the networks `left` and `right`.
fn twenty_pods(node: &Node<'_>) -> Vec<Pod> {
    for (name, subnet) in [("left", "172.16.1.0/24"), ("right", "172.16.2.0/24")] {
        let config = node.macvlan(name, &json!({"subnet": subnet}));
        node.cluster.attachment(&node.cluster.namespace, name, &config);
    }
    (0..20).map(|number| node.cluster.pod(&format!("pod-{number}"), "left,right")).collect()
}

/// Again and again, with what is left of the last time cleaned up before.
fn run_as_a_kubelet_does(node: &Node<'_>, pod: &Pod) -> Sandbox {
    let end = Instant::now() + PATIENCE;
    loop {
        match node.run(pod) {
            Ok(sandbox) => return sandbox,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        node.clean_up(pod).unwrap();
    }
}

/// Each has three addresses that nobody else has, and tells them; no others are reserved.
#[track_caller]
fn each_has_its_networks(node: &Node<'_>, pods: &[Pod], sandboxes: &[Sandbox]) {
    let mut addresses = Vec::new();
    for (pod, sandbox) in pods.iter().zip(sandboxes) {
        let netns = sandbox.netns();
        assert_eq!(netns.links(), ["eth0", "lo", "net1", "net2"]);
        let own: Vec<_> = ["eth0", "net1", "net2"].iter().flat_map(|link| netns.addresses(link)).collect();
        assert_eq!(own.len(), 3, "{own:?}");
        let status = node.cluster.network_status(pod);
        let told: Vec<_> =
            status.as_array().unwrap().iter().map(|element| element["ips"][0].as_str().unwrap()).collect();
        let own: Vec<_> = own.iter().map(|address| address.split('/').next().unwrap().to_owned()).collect();
        assert_eq!(own, told);
        addresses.extend(own);
    }
    addresses.sort();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 3 * pods.len());
    node.wait_until_reserved(&addresses);
}

#[track_caller]
fn end_at_once(node: &Node<'_>, sandboxes: &[Sandbox]) {
    at_once(sandboxes, |sandbox| {
        node.stop(sandbox).unwrap();
        node.remove(sandbox).unwrap();
    });
    assert_eq!(node.left_over(), [""; 0]);
}

/// Stops and removes sandboxes; nothing of them must be left then.
#[track_caller]
fn end(node: &Node<'_>, sandboxes: &[Sandbox]) {
    for sandbox in sandboxes {
        node.stop(sandbox).unwrap();
        assert!(!sandbox.has_network());
        node.remove(sandbox).unwrap();
    }
    assert_eq!(node.left_over(), [""; 0]);
}

/// The runtime says first what it did and which sandbox, network and plugin it was.
fn ours(error: &str) -> &str {
    error.split_once("failed (add): ").map_or(error, |(_, ours)| ours)
}

fn at_once<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| work(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
