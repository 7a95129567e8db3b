//! The program as a runtime runs it: with networks in the configuration, and with an API server that knows of pods.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    ops::Deref,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use multus_core::kubernetes;
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, Reply, go_plugins, run_when};
use testkit_kubernetes::{ApiServer, Container, Fault, Kubelet, KubeletFault};
use thin_entrypoint::{Kubeconfig, Master, Template, Thin};

const MULTUS: &str = env!("CARGO_BIN_EXE_multus");
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=uid-1";

fn main() -> ExitCode {
    let cases: &[testkit::Case] = &[
        ("version_and_introduction", version_and_introduction),
        ("inline_delegates_need_no_cluster", inline_delegates_need_no_cluster),
        ("built_in_plugins_can_be_turned_off", built_in_plugins_can_be_turned_off),
        ("the_walkthrough", the_walkthrough),
        ("the_result_is_in_the_version_of_the_configuration", the_result_is_in_the_version_of_the_configuration),
        (
            "a_list_gets_the_addresses_and_the_route_that_are_asked_for",
            a_list_gets_the_addresses_and_the_route_that_are_asked_for,
        ),
        ("plugins_beside_the_cluster_networks_file_join_it", plugins_beside_the_cluster_networks_file_join_it),
        ("devices_are_the_kubelets_and_those_of_claims", devices_are_the_kubelets_and_those_of_claims),
        ("a_pod_that_is_not_there_gets_nothing", a_pod_that_is_not_there_gets_nothing),
        ("an_api_server_that_is_away_is_an_error_in_time", an_api_server_that_is_away_is_an_error_in_time),
        ("an_api_server_that_is_silent_is_an_error_in_time", an_api_server_that_is_silent_is_an_error_in_time),
        ("events_that_nobody_takes_hold_no_pod_up", events_that_nobody_takes_hold_no_pod_up),
        ("del_needs_no_credentials", del_needs_no_credentials),
        ("what_thin_entrypoint_writes_works", what_thin_entrypoint_writes_works),
        ("an_unusable_kubeconfig_is_named", an_unusable_kubeconfig_is_named),
        ("the_clusters_own_pods_need_no_kubeconfig", the_clusters_own_pods_need_no_kubeconfig),
        ("the_log_has_the_lines_of_its_level", the_log_has_the_lines_of_its_level),
        ("a_log_that_cannot_be_written_stops_nobody", a_log_that_cannot_be_written_stops_nobody),
        ("any_bytes_get_an_error_object", any_bytes_get_an_error_object),
    ];
    run_when(cases, go_plugins().map(drop))
}

fn version_and_introduction(_: &Lab) {
    for flag in ["--version", "-v"] {
        let output = Command::new(MULTUS).arg(flag).output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, format!("multus {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    }
    let alone = Call::new(MULTUS, "ADD", Path::new("/run/netns/none")).without("CNI_COMMAND").run();
    assert!(alone.stderr.starts_with("CNI multus plugin v"), "{}", alone.stderr);
}

fn inline_delegates_need_no_cluster(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    let mut config = node.config();
    config["delegates"] = json!([macvlan(lab, "first", "10.1.0"), macvlan(lab, "second", "10.2.0")]);
    let result = node.call("ADD", &sandbox, &config).result();
    assert_eq!(result["ips"][0]["address"], "10.1.0.2/24");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(sandbox.addresses("net1"), ["10.2.0.2/24"]);
    assert_eq!(sandbox.link("eth0").unwrap()["linkinfo"]["info_data"]["mode"], "bridge");
    node.call("CHECK", &sandbox, &with(&config, "prevResult", result)).succeeded();
    node.call("STATUS", &sandbox, &config).succeeded();
    for _ in 0..2 {
        node.call("DEL", &sandbox, &config).succeeded();
        node.is_empty(&sandbox);
    }
}

fn built_in_plugins_can_be_turned_off(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    let mut config = node.config();
    // The Go plugins' newest version.
    config["delegates"] = json!([with(&macvlan(lab, "first", "10.1.0"), "cniVersion", json!("1.0.0"))]);
    let call = node.prepare("ADD", &sandbox, &config).env("CNI_BUILTIN", "");
    let (_, message, _) = call.clone().env("CNI_PATH", "/nowhere").run_in(&lab.host).error();
    assert!(message.contains("failed to find plugin \"macvlan\" in path"), "{message}");
    assert_eq!(sandbox.links(), ["lo"]);
    call.run_in(&lab.host).succeeded();
    assert_eq!(sandbox.addresses("eth0"), ["10.1.0.2/24"]);
    node.call("DEL", &sandbox, &config).succeeded();
    node.is_empty(&sandbox);
}

fn the_walkthrough(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    let result = node.call("ADD", &sandbox, &config).result();
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/24");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(sandbox.link("eth0").unwrap()["linkinfo"]["info_kind"], "veth");
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_data"]["mode"], "bridge");
    assert_eq!(sandbox.addresses("net1"), ["192.168.1.200/24"]);

    let mac = |link: &str| sandbox.link(link).unwrap()["address"].clone();
    let status = json!([
        {
            "name": "cbr0", "interface": "eth0", "ips": ["10.244.1.2"], "mac": mac("eth0"), "default": true, "dns": {},
            "gateway": ["10.244.1.1"],
        },
        {
            "name": "test/macvlan-conf", "interface": "net1", "ips": ["192.168.1.200"], "mac": mac("net1"), "dns": {},
            "gateway": ["192.168.1.1"],
        },
    ]);
    assert_eq!(network_status(&server), status);
    // They were sent before the program ended.
    let messages: Vec<Value> = server.objects("events").iter().map(|event| event["message"].clone()).collect();
    let expected = ["Add eth0 [10.244.1.2/24] from cbr0", "Add net1 [192.168.1.200/24] from test/macvlan-conf"];
    assert_eq!(messages, expected);
    for event in server.objects("events") {
        assert_eq!(event["reason"], "AddedInterface");
        assert_eq!(event["involvedObject"]["name"], "web-0");
        assert_eq!(event["source"], json!({"component": "multus", "host": "node-1"}));
    }

    // DEL needs nothing but what ADD left on the node.
    server.delete("pods", "test", "web-0");
    server.stop();
    node.call("DEL", &sandbox, &config).succeeded();
    node.is_empty(&sandbox);
}

fn the_result_is_in_the_version_of_the_configuration(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    for (outer, own) in [("1.1.0", "0.3.1"), ("0.3.1", "1.0.0"), ("0.2.0", "1.1.0")] {
        let mut config = with(&node.config(), "cniVersion", json!(outer));
        config["delegates"] = json!([with(&macvlan(lab, "first", "10.1.0"), "cniVersion", json!(own))]);
        let result = node.call("ADD", &sandbox, &config).result();
        assert_eq!(result["cniVersion"], outer);
        node.call("DEL", &sandbox, &config).succeeded();
        node.is_empty(&sandbox);
    }
}

/// Without a name, with static addresses and another plugin behind, asked for by capability or in `CNI_ARGS`.
fn a_list_gets_the_addresses_and_the_route_that_are_asked_for(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let config = node.config_with_cluster(&server);
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        for (name, capabilities) in [("by-capability", json!({"ips": true})), ("by-argument", json!({}))] {
            let plugin = json!({
                "type": "macvlan", "master": "ens32", "mode": "bridge", "capabilities": capabilities,
                "ipam": {"type": "static"},
            });
            let list = json!({"cniVersion": version, "plugins": [plugin, {"type": "tuning"}]});
            server.put(json!({
                "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
                "metadata": {"namespace": "test", "name": name}, "spec": {"config": list.to_string()},
            }));
        }
        for (name, address, gateway, default) in [
            ("by-capability", "10.1.1.11/24", None, "10.244.1.1 eth0"),
            ("by-argument", "10.1.1.22/24", None, "10.244.1.1 eth0"),
            ("by-argument", "10.1.1.21/24", Some("10.1.1.254"), "10.1.1.254 net1"),
        ] {
            let mut element = json!({"name": name, "ips": [address]});
            if let Some(gateway) = gateway {
                element["default-route"] = json!([gateway]);
            }
            let mut pod = server.object("pods", "test", "web-0").unwrap();
            pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = json!(json!([element]).to_string());
            server.put(pod);
            let sandbox = lab.container("c1");
            node.call("ADD", &sandbox, &config).succeeded();
            assert_eq!(sandbox.addresses("net1"), [address], "{version} {name}");
            let routes = sandbox.ip_json("-4 route show default");
            let show =
                |route: &Value| format!("{} {}", route["gateway"].as_str().unwrap(), route["dev"].as_str().unwrap());
            assert_eq!(routes.as_array().unwrap().iter().map(show).collect::<Vec<_>>(), [default], "{version} {name}");
            assert_eq!(network_status(&server)[1]["ips"], json!([address.trim_end_matches("/24")]));
            node.call("CHECK", &sandbox, &config).succeeded();
            node.call("DEL", &sandbox, &config).succeeded();
            node.is_empty(&sandbox);
            sandbox.remove_path();
        }
    }
}

fn plugins_beside_the_cluster_networks_file_join_it(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let config = node.config_with_cluster(&server);
    let passthru = lab.path("bin/passthru");
    fs::create_dir_all(lab.path("bin")).unwrap();
    fs::write(&passthru, "#!/bin/sh\n[ $CNI_COMMAND != ADD ] || echo '{\"cniVersion\":\"1.0.0\"}'\n").unwrap();
    fs::set_permissions(&passthru, PermissionsExt::from_mode(0o755)).unwrap();
    // The directory of the list's own name, and that of another chain.
    for (directory, link, keys) in [
        ("cbr0", "IFNAME", json!({})),
        ("vendor-cni-chain", "eth0", json!({"auxiliaryCNIChainName": "vendor-cni-chain", "cniVersion": "1.0.0"})),
    ] {
        let file = lab.path("net.d").join(directory).join("sysctltwiddle.conf");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let plugin = json!({"type": "tuning", "sysctl": {format!("net.ipv4.conf.{link}.arp_filter"): "1"}});
        fs::write(&file, plugin.to_string()).unwrap();
        let mut config = config.clone();
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let sandbox = lab.container("c1");
        let setting = || sandbox.within(|| fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_filter"));
        node.call("ADD", &sandbox, &config).succeeded();
        assert_eq!(setting().unwrap(), "1\n", "{directory}");
        node.call("DEL", &sandbox, &config).succeeded();
        node.is_empty(&sandbox);
        fs::remove_file(file).unwrap();
        node.call("ADD", &sandbox, &config).succeeded();
        assert_eq!(setting().unwrap(), "0\n", "{directory}: without it");
        node.call("DEL", &sandbox, &config).succeeded();
        sandbox.remove_path();
    }
}

fn devices_are_the_kubelets_and_those_of_claims(lab: &Lab) {
    // In a mount namespace of this test's own.
    mount(Some("tmpfs"), "/var/lib", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let kubelet = Kubelet::start(Path::new(kubernetes::Kubelet::SOCKET));
    kubelet.put("test", "web-0", vec![Container::with("example.com/nic", &["0000:03:00.1"])]);
    let node = Node::new(lab);
    let server = node.server();
    let mut network = server.object("network-attachment-definitions", "test", "macvlan-conf").unwrap();
    network["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/resourceName": "example.com/nic"});
    server.put(network);
    let mut pod = server.object("pods", "test", "web-0").unwrap();
    pod["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/networks": "macvlan-conf,macvlan-conf"});
    pod["spec"]["resourceClaims"] = json!([{"name": "nic", "resourceClaimName": "nic"}]);
    server.put(pod);
    let allocation = json!({"devices": {"results": [{"driver": "nic.example.com", "pool": "p", "device": "vf-2"}]}});
    server.put(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"namespace": "test", "name": "nic"},
        "status": {"allocation": allocation},
    }));
    let attributes = json!({
        "k8s.cni.cncf.io/resourceName": {"string": "example.com/nic"},
        "k8s.cni.cncf.io/deviceID": {"string": "0000:03:00.2"},
    });
    server.put(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
        "spec": {
            "nodeName": "node-1", "driver": "nic.example.com", "pool": {"name": "p", "generation": 1},
            "devices": [{"name": "vf-2", "attributes": attributes}],
        },
    }));
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    node.call("ADD", &sandbox, &config).succeeded();
    let remembered = fs::read_to_string(lab.path("multus").join("c1")).unwrap();
    for id in ["0000:03:00.1", "0000:03:00.2"] {
        assert!(remembered.contains(&format!("\"deviceID\":\"{id}\"")), "{id}: {remembered}");
    }
    node.call("DEL", &sandbox, &config).succeeded();
    node.is_empty(&sandbox);
    kubelet.fail(KubeletFault::Status(7, "not for you"));
    let (_, message, _) = node.call("ADD", &sandbox, &config).error();
    let expected =
        "Multus: [test/web-0/uid-1]: network \"test/macvlan-conf\": resource \"example.com/nic\": kubelet socket";
    assert!(message.starts_with(expected) && message.contains("not for you"), "{message}");
    node.is_empty(&sandbox);
}

fn a_pod_that_is_not_there_gets_nothing(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    server.delete("pods", "test", "web-0");
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    let (_, message, _) = node.call("ADD", &sandbox, &config).error();
    assert!(message.starts_with("Multus: [test/web-0/uid-1]: pod not found in the Kubernetes API"), "{message}");
    node.is_empty(&sandbox);
    node.call("DEL", &sandbox, &config).succeeded();
}

fn an_api_server_that_is_away_is_an_error_in_time(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    server.stop();
    node.fails_in_time(&server, "cannot be reached");
}

fn an_api_server_that_is_silent_is_an_error_in_time(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    server.fail("get", "pods", Fault::Silence);
    node.fails_in_time(&server, "did not answer within");
}

fn events_that_nobody_takes_hold_no_pod_up(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    server.fail("create", "events", Fault::Silence);
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    let begin = Instant::now();
    node.call("ADD", &sandbox, &config).succeeded();
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
}

fn del_needs_no_credentials(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    node.call("ADD", &sandbox, &config).succeeded();
    let asked = server.log().len();
    fs::remove_file(lab.path("kubeconfig")).unwrap();
    node.call("DEL", &sandbox, &config).succeeded();
    node.is_empty(&sandbox);
    assert_eq!(server.log().len(), asked);
}

fn what_thin_entrypoint_writes_works(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let sandbox = lab.container("c1");
    let master = node.config_with_cluster(&server)["clusterNetwork"].as_str().unwrap().to_owned();
    let account = lab.path("account");
    fs::create_dir(&account).unwrap();
    server.write_service_account(&account);
    let (host, port) = (server.address().ip().to_string(), server.address().port().to_string());
    let kubeconfig = Kubeconfig::new(&lab.path("net.d"), "", &host, &port, &account);
    kubeconfig.refresh().unwrap();
    let thin = Thin { kubeconfig: kubeconfig.path().to_str().unwrap().to_owned(), ..Thin::default() };
    let generated = thin.generate(&Master::read(Path::new(&master)).unwrap().unwrap()).unwrap();
    let mut config: Value = serde_json::from_slice(&generated.content).unwrap();
    config["cniDir"] = json!(lab.path("multus"));
    node.call("ADD", &sandbox, &config).succeeded();
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(network_status(&server)[0]["name"], "cbr0");
    assert_eq!(network_status(&server)[1]["name"], "test/macvlan-conf");
    node.call("DEL", &sandbox, &config).succeeded();
    node.is_empty(&sandbox);
}

fn an_unusable_kubeconfig_is_named(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let sandbox = lab.container("c1");
    let config = node.config_with_cluster(&server);
    let kubeconfig = lab.path("kubeconfig");
    for content in [None, Some(""), Some("{\"apiVersion\":\"v1\",\"clusters\":[{\"name\":\"secret-word\"")] {
        fs::remove_file(&kubeconfig).unwrap_or_default();
        if let Some(content) = content {
            fs::write(&kubeconfig, content).unwrap();
        }
        let (_, message, _) = node.call("ADD", &sandbox, &config).error();
        assert!(message.starts_with("Multus: [test/web-0/uid-1]: "), "{message}");
        assert!(message.contains(kubeconfig.to_str().unwrap()), "{message}");
        assert!(!message.contains("secret-word"), "{message}");
        node.is_empty(&sandbox);
    }
}

fn the_clusters_own_pods_need_no_kubeconfig(lab: &Lab) {
    let node = Node::new(lab);
    let server = node.server();
    let sandbox = lab.container("c1");
    let mut config = node.config_with_cluster(&server);
    config.as_object_mut().unwrap().remove("kubeconfig");
    let address = server.address();
    let call = node.prepare("ADD", &sandbox, &config).env("KUBERNETES_SERVICE_HOST", &address.ip().to_string());
    // No service account is where a pod finds it: the error says so, instead of going on without a cluster.
    let inside = call.clone().env("KUBERNETES_SERVICE_PORT", &address.port().to_string());
    let (_, message, _) = inside.run_in(&lab.host).error();
    assert!(message.contains("/var/run/secrets/kubernetes.io/serviceaccount"), "{message}");
    // One variable alone does not make a pod.
    let (_, message, _) = call.run_in(&lab.host).error();
    assert!(message.contains("must have either Kubernetes config or delegates"), "{message}");
    node.is_empty(&sandbox);
}

fn the_log_has_the_lines_of_its_level(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    let lines = |level: &str, command: &str, delegate: &Value| {
        let file = lab.path("logs").join(format!("{level}-{command}.log"));
        let mut config = with(&node.config(), "logFile", json!(file));
        config["logLevel"] = json!(level);
        config["delegates"] = json!([delegate]);
        let reply = node.call(command, &sandbox, &config);
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(reply.stderr, text);
        let shape = |line: &str| {
            let (time, message) = line.split_once(' ').unwrap();
            assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{line}");
            message.to_owned()
        };
        text.lines().map(shape).collect::<Vec<String>>()
    };
    let network = macvlan(lab, "first", "10.1.0");
    let attached = "[verbose] attached network=first container=c1 interface=eth0";
    assert_eq!(lines("Verbose", "ADD", &network), [attached]);
    assert_eq!(lines("Error", "DEL", &network), [""; 0]);
    let missing = with(&network, "master", json!("ens99"));
    let logged = lines("error", "ADD", &missing);
    assert!(logged[0].starts_with("[error] Multus: [test/web-0/uid-1]: error adding container"), "{logged:?}");
    assert!(logged.len() == 1 && logged[0].contains("master \"ens99\" not found"), "{logged:?}");
    assert_eq!(lines("", "ADD", &missing), [""; 0]);
    let mut quiet = with(&node.config(), "logFile", json!(lab.path("quiet.log")));
    quiet["delegates"] = json!([network]);
    quiet["logLevel"] = json!("verbose");
    quiet["logToStderr"] = json!(false);
    assert_eq!(node.call("ADD", &sandbox, &quiet).stderr, "");
    assert!(fs::read_to_string(lab.path("quiet.log")).unwrap().contains(attached));
}

fn a_log_that_cannot_be_written_stops_nobody(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    fs::write(lab.path("file"), "").unwrap();
    for (key, value) in [
        ("logFile", json!(lab.path("file").join("below.log"))),
        ("logFile", json!("/dev/full")),
        ("logLevel", json!("loud")),
    ] {
        let mut config = with(&node.config(), "logLevel", json!("debug"));
        config["delegates"] = json!([macvlan(lab, "first", "10.1.0")]);
        config[key] = value.clone();
        let reply = node.call("ADD", &sandbox, &config);
        reply.succeeded();
        if value != "/dev/full" {
            assert!(reply.stderr.starts_with("multus: "), "{}", reply.stderr);
            assert!(reply.stderr.contains(value.as_str().unwrap()), "{}", reply.stderr);
        }
        let quiet = with(&config, "logToStderr", json!(false));
        node.call("DEL", &sandbox, &quiet).succeeded();
        node.is_empty(&sandbox);
    }
}

fn any_bytes_get_an_error_object(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = lab.container("c1");
    let whole = with(&node.config(), "delegates", json!([macvlan(lab, "first", "10.1.0")])).to_string();
    for length in (0..whole.len()).step_by(7) {
        let call = node.prepare("ADD", &sandbox, &json!({})).stdin(&whole.as_bytes()[..length]);
        let (code, message, _) = call.run_in(&lab.host).error();
        assert!(code != 0 && !message.is_empty(), "{length}");
    }
    for text in ["[]", "null", "{\"name\":\"n\",\"delegates\":5}", "{\"name\":\"n\",\"delegates\":[{\"plugins\":[]}]}"]
    {
        let (_, message, _) = node.prepare("ADD", &sandbox, &json!({})).stdin(text).run_in(&lab.host).error();
        assert!(!message.is_empty() && !message.contains("internal error"), "{message}");
    }
    node.is_empty(&sandbox);
}

/// A node of a cluster, with the Go plugins.
struct Node<'a> {
    lab: &'a Lab,
    plugins: PathBuf,
}

impl<'a> Node<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self { lab, plugins: go_plugins().unwrap() }
    }

    /// Without networks.
    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus",
            "cniDir": self.lab.path("multus"), "confDir": self.lab.path("multus.net.d"), "binDir": self.lab.path("bin"),
        })
    }

    /// With the cluster network `cbr0`, and access to the server.
    fn config_with_cluster(&self, server: &ApiServer) -> Value {
        let kubeconfig = self.lab.path("kubeconfig");
        fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        let directory = self.lab.path("net.d");
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("10-flannel.conflist");
        let cbr0 = json!({
            "cniVersion": "0.3.1", "name": "cbr0",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
                    "ipam": {"type": "host-local", "subnet": "10.244.1.0/24", "dataDir": self.lab.data_dir()},
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
            ],
        });
        fs::write(&file, cbr0.to_string()).unwrap();
        let mut config = with(&self.config(), "kubeconfig", json!(kubeconfig));
        config["clusterNetwork"] = json!(file);
        config
    }

    /// In the host's namespace, with the pod `test/web-0` and the network `test/macvlan-conf`.
    fn server(&self) -> Server<'a> {
        let server = Server { double: Some(self.lab.host.within(ApiServer::start)), host: &self.lab.host };
        server.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "test", "name": "web-0", "uid": "uid-1",
                "annotations": {"k8s.v1.cni.cncf.io/networks": "macvlan-conf"},
            },
            "spec": {"nodeName": "node-1"},
        }));
        let config = json!({
            "cniVersion": "0.3.1", "type": "macvlan", "master": "ens32", "mode": "bridge",
            "ipam": {
                "type": "host-local", "subnet": "192.168.1.0/24", "rangeStart": "192.168.1.200",
                "rangeEnd": "192.168.1.216", "routes": [{"dst": "0.0.0.0/0"}], "gateway": "192.168.1.1",
                "dataDir": self.lab.data_dir(),
            },
        });
        server.put(json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": "test", "name": "macvlan-conf"}, "spec": {"config": config.to_string()},
        }));
        server
    }

    fn prepare(&self, command: &str, sandbox: &Netns, config: &Value) -> Call {
        Call::new(MULTUS, command, sandbox.path())
            .env("CNI_PATH", self.plugins.to_str().unwrap())
            .env("CNI_ARGS", ARGS)
            .env("MULTUS_NODE_NAME", "node-1")
            // For what portmap executes.
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .config(config)
    }

    fn call(&self, command: &str, sandbox: &Netns, config: &Value) -> Reply {
        self.prepare(command, sandbox, config).run_in(&self.lab.host)
    }

    /// ADD ends well before a runtime's patience of minutes, says why, and leaves nothing.
    fn fails_in_time(&self, server: &ApiServer, reason: &str) {
        let sandbox = self.lab.container("c1");
        let config = self.config_with_cluster(server);
        let begin = Instant::now();
        let (_, message, _) = self.call("ADD", &sandbox, &config).error();
        assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
        assert!(message.starts_with("Multus: [test/web-0/uid-1]: "), "{message}");
        assert!(message.contains(reason) && message.contains(&server.address().to_string()), "{message}");
        self.is_empty(&sandbox);
    }

    /// Nothing is left: no link, no address, no file.
    fn is_empty(&self, sandbox: &Netns) {
        assert_eq!(sandbox.links(), ["lo"]);
        for network in ["first", "second", "cbr0", "macvlan-conf"] {
            assert_eq!(self.lab.reserved(network), [""; 0], "{network}");
        }
        assert!(!self.lab.path("multus").join("c1").exists());
        let results = fs::read_dir(self.lab.path("multus").join("results")).into_iter().flatten();
        assert_eq!(results.count(), 0);
    }
}

/// An API server that is reached, and so ended, in the host's namespace alone.
struct Server<'a> {
    double: Option<ApiServer>,
    host: &'a Netns,
}

impl Server<'_> {
    fn stop(&self) {
        self.host.within(|| ApiServer::stop(self));
    }
}

impl Deref for Server<'_> {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        self.double.as_ref().unwrap()
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let double = self.double.take();
        self.host.within(|| drop(double));
    }
}

/// With addresses from `<prefix>.2` on.
fn macvlan(lab: &Lab, name: &str, prefix: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": name, "type": "macvlan", "master": "ens32", "mode": "bridge",
        "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "subnet": format!("{prefix}.0/24")},
    })
}

fn with(config: &Value, key: &str, value: Value) -> Value {
    let mut config = config.clone();
    config[key] = value;
    config
}

fn network_status(server: &ApiServer) -> Value {
    let pod = server.object("pods", "test", "web-0").unwrap();
    serde_json::from_str(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str().unwrap()).unwrap()
}
