//! The daemon as a process, between shims, the kernel and an API server.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where"
)]

#[allow(dead_code, reason = "other programs use the rest")]
mod node;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{PermissionsExt, symlink},
        net::UnixStream,
    },
    path::Path,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use multus_cni::Error;
use multus_core::kubernetes;
use nix::{
    mount::{MsFlags, mount},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use node::{Node, PROGRAM, head, wait};
use serde_json::{Value, json};
use testkit::{Lab, Netns, run};
use testkit_kubernetes::{Container, Kubelet, KubeletFault};

fn main() -> ExitCode {
    run(&[
        ("a_pod_gets_its_networks_and_their_status", a_pod_gets_its_networks_and_their_status),
        ("networks_get_the_devices_that_the_kubelet_allocated", networks_get_the_devices_that_the_kubelet_allocated),
        ("requests_and_answers_are_upstreams", requests_and_answers_are_upstreams),
        ("upstreams_shim_gets_what_it_expects", upstreams_shim_gets_what_it_expects),
        ("the_daemons_configuration_wins_over_the_requests", the_daemons_configuration_wins_over_the_requests),
        ("a_network_is_plugged_into_a_pod_that_runs", a_network_is_plugged_into_a_pod_that_runs),
        ("what_is_plugged_in_goes_with_the_pod", what_is_plugged_in_goes_with_the_pod),
        ("what_is_plugged_in_under_an_old_name_is_released", what_is_plugged_in_under_an_old_name_is_released),
        ("an_interface_that_is_there_is_not_plugged_in_again", an_interface_that_is_there_is_not_plugged_in_again),
        ("nothing_is_plugged_into_a_pod_that_is_gone", nothing_is_plugged_into_a_pod_that_is_gone),
        ("a_wish_that_cannot_be_met_is_named", a_wish_that_cannot_be_met_is_named),
        ("a_hundred_pods_at_once_all_get_their_networks", a_hundred_pods_at_once_all_get_their_networks),
        ("one_at_a_time_is_enough_for_all", one_at_a_time_is_enough_for_all),
        ("a_sandbox_is_attached_whole_or_not_whatever_crosses", a_sandbox_is_attached_whole_or_not_whatever_crosses),
        ("a_sandbox_may_be_added_again_behind_its_del", a_sandbox_may_be_added_again_behind_its_del),
        ("a_del_waits_for_the_add_that_is_under_way", a_del_waits_for_the_add_that_is_under_way),
        ("an_add_that_waits_is_overtaken_by_its_del", an_add_that_waits_is_overtaken_by_its_del),
        ("what_is_made_for_a_client_that_left_is_undone", what_is_made_for_a_client_that_left_is_undone),
        (
            "a_daemon_killed_during_an_add_leaves_nothing_after_del",
            a_daemon_killed_during_an_add_leaves_nothing_after_del,
        ),
        ("a_del_without_a_daemon_is_done_by_the_next_one", a_del_without_a_daemon_is_done_by_the_next_one),
        ("what_fails_stays_in_the_spool", what_fails_stays_in_the_spool),
        ("a_daemon_that_is_to_end_finishes_what_it_does", a_daemon_that_is_to_end_finishes_what_it_does),
        ("a_daemon_that_is_to_end_waits_only_so_long", a_daemon_that_is_to_end_waits_only_so_long),
        ("a_node_gets_a_certificate_of_its_own", a_node_gets_a_certificate_of_its_own),
        (
            "a_daemon_that_waits_for_its_certificate_ends_when_it_is_to",
            a_daemon_that_waits_for_its_certificate_ends_when_it_is_to,
        ),
        ("a_clock_that_is_ahead_makes_no_flood_of_requests", a_clock_that_is_ahead_makes_no_flood_of_requests),
        ("a_daemon_in_a_pod_uses_its_service_account", a_daemon_in_a_pod_uses_its_service_account),
        ("a_daemon_without_a_node_name_watches_nothing", a_daemon_without_a_node_name_watches_nothing),
        ("the_hosts_namespace_is_no_sandbox", the_hosts_namespace_is_no_sandbox),
        ("names_and_paths_of_a_request_stay_in_their_places", names_and_paths_of_a_request_stay_in_their_places),
        ("hostile_requests_harm_nobody", hostile_requests_harm_nobody),
        (
            "requests_up_to_the_limits_are_served_and_no_longer_ones",
            requests_up_to_the_limits_are_served_and_no_longer_ones,
        ),
        ("the_connection_beyond_the_last_waits_for_its_turn", the_connection_beyond_the_last_waits_for_its_turn),
        ("a_slow_client_is_cut_off", a_slow_client_is_cut_off),
        ("the_socket_is_its_owners", the_socket_is_its_owners),
        ("the_runtimes_configuration_is_kept_and_stays", the_runtimes_configuration_is_kept_and_stays),
        ("a_directory_that_is_stuck_does_not_keep_the_daemon", a_directory_that_is_stuck_does_not_keep_the_daemon),
        ("a_configuration_that_somebody_wrote_is_copied", a_configuration_that_somebody_wrote_is_copied),
        ("programs_are_installed_and_taken_away", programs_are_installed_and_taken_away),
        ("metrics_count_and_measure", metrics_count_and_measure),
        (
            "who_holds_connections_does_not_keep_others_from_metrics",
            who_holds_connections_does_not_keep_others_from_metrics,
        ),
        (
            "a_locked_range_neither_piles_up_threads_nor_keeps_the_daemon_alive",
            a_locked_range_neither_piles_up_threads_nor_keeps_the_daemon_alive,
        ),
        ("options_without_a_meaning_here_are_told", options_without_a_meaning_here_are_told),
        ("the_program_tells_its_health_and_its_version", the_program_tells_its_health_and_its_version),
    ])
}

fn a_pod_gets_its_networks_and_their_status(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    let success = node.add(&sandbox).unwrap();
    assert_eq!(success.interfaces[0].name, "eth0");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(sandbox.addresses("net1"), ["192.168.1.2/24"]);
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_data"]["mode"], "bridge");
    let status = node.network_status("web-0");
    let of = |key: &str| status.as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["cbr0", "test/macvlan-conf"]);
    assert_eq!(of("interface"), ["eth0", "net1"]);
    assert_eq!(of("default"), [json!(true), Value::Null]);
    assert_eq!(status[1]["gateway"], json!(["192.168.1.1"]));
    assert_eq!(status[1]["mac"], sandbox.link("net1").unwrap()["address"]);
    node.api.wait_for(2, "create", "events");
    node.check(&sandbox).unwrap();
    node.status(&sandbox).unwrap();
    sandbox.ip("link delete net1");
    assert!(node.check(&sandbox).unwrap_err().to_string().contains("network \"test/macvlan-conf\""));
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
    node.del(&sandbox).unwrap();
}

fn networks_get_the_devices_that_the_kubelet_allocated(lab: &Lab) {
    // The host's root as the daemon's container sees it.
    let root = lab.path("root");
    fs::create_dir(&root).unwrap();
    let directory = fs::canonicalize(lab.path("")).unwrap();
    let top = directory.components().nth(1).unwrap();
    symlink(Path::new("/").join(top), root.join(top)).unwrap();
    let socket = root.join(kubernetes::Kubelet::SOCKET.trim_start_matches('/'));
    let mut kubelet = Kubelet::start(&socket);
    kubelet.put("test", "web-0", vec![Container::with("intel.com/vf", &["0000:03:00.2", "0000:03:00.1"])]);
    let mut node = Node::without_daemon(lab, json!({"chrootDir": root}));
    let mut network = node.api.object("network-attachment-definitions", "test", "macvlan-conf").unwrap();
    network["metadata"]["annotations"] = json!({"k8s.v1.cni.cncf.io/resourceName": "intel.com/vf"});
    node.api.put(network);
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf,macvlan-conf");
    node.add(&sandbox).unwrap();
    let remembered = fs::read_to_string(lab.path("multus").join("web-0")).unwrap();
    let place = |id| remembered.find(&format!("\"deviceID\":\"{id}\"")).unwrap_or_else(|| panic!("{id}: {remembered}"));
    assert!(place("0000:03:00.1") < place("0000:03:00.2"), "{remembered}");
    assert_eq!(kubelet.lists(), 1);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
    kubelet.fail(KubeletFault::Status(7, "not for you"));
    let error = node.add(&sandbox).unwrap_err().to_string();
    assert!(error.starts_with("Multus: [test/web-0/uid-web-0]: network \"test/macvlan-conf\": resource"), "{error}");
    assert!(error.ends_with(&format!("kubelet socket {socket:?}: \"not for you\", PermissionDenied")), "{error}");
    node.is_empty(&[&sandbox]);
    kubelet.stop(false);
}

fn requests_and_answers_are_upstreams(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    let cni = |request: &Value| {
        let response = node.post("/cni", request.to_string().as_bytes()).unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    };
    let (status, body) = cni(&node.request("ADD", &sandbox));
    let result: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &result["Result"]["cniVersion"]), (200, &json!("1.1.0")));
    assert_eq!(result["Result"]["ips"][0]["address"], "10.1.0.2/24");
    for command in ["CHECK", "STATUS", "GC", "DEL"] {
        assert_eq!(cni(&node.request(command, &sandbox)), (200, String::new()), "{command}");
    }
    let missing = node.pod("web-1", "nowhere");
    let (status, body) = cni(&node.request("ADD", &missing));
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &error["code"]), (400, &json!(999)));
    let text = error["msg"].as_str().unwrap();
    assert!(text.starts_with("Multus: [test/web-1/uid-web-1]: ") && text.contains("(nowhere)"), "{text}");
    let mut anonymous = node.request("ADD", &sandbox);
    anonymous["env"]["CNI_ARGS"] = json!("");
    let (status, body) = cni(&anonymous);
    assert!(status == 400 && body.contains("invalid CNI_ARG: K8S_POD_NAMESPACE is missing"), "{body}");

    for target in ["/healthz", "/readyz"] {
        assert_eq!(node.probe(target), Some(200));
        let get = node.raw(format!("GET {target} HTTP/1.1\r\nHost: dummy\r\n\r\n").as_bytes());
        assert!(get.starts_with("HTTP/1.1 200 OK\r\n") && get.contains("connection: close"), "{get}");
        let put = node.raw(format!("PUT {target} HTTP/1.1\r\nHost: dummy\r\n\r\n").as_bytes());
        assert!(put.starts_with("HTTP/1.1 405 ") && put.ends_with("Method not allowed\n"), "{put}");
    }
    assert!(node.raw(b"GET /cni HTTP/1.1\r\nHost: dummy\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert_eq!(node.probe("/nothing"), Some(404));
    node.is_empty(&[&sandbox, &missing]);
}

/// Byte for byte what upstream's shim sends: each request on a connection of its own, a probe first.
fn upstreams_shim_gets_what_it_expects(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    let post = |target: &str, body: &str| {
        let head = format!(
            "POST {target} HTTP/1.1\r\nHost: dummy\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\n\
             Content-Type: application/json\r\nAccept-Encoding: gzip\r\n\r\n",
            body.len()
        );
        let answer = node.raw(format!("{head}{body}").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nconnection: close"), "{head}");
        (head.to_lowercase(), body.to_owned())
    };
    let calls = [
        ("/readyz", "STATUS"),
        ("/readyz", "GC"),
        ("/healthz", "ADD"),
        ("/healthz", "CHECK"),
        ("/healthz", "DEL"),
        ("/readyz", "ADD"),
        ("/readyz", "CHECK"),
        ("/healthz", "DEL"),
        ("/healthz", "DEL"),
    ];
    for (probe, command) in calls {
        let (head, body) = post(probe, "null");
        assert!(head.starts_with("http/1.1 200 ok") && body.is_empty(), "{probe}: {head}");
        let mut request = node.request(command, &sandbox);
        request["env"]["HOME"] = json!("/root");
        if matches!(command, "STATUS" | "GC") {
            // Of no sandbox.
            let env = request["env"].as_object_mut().unwrap();
            env.retain(|name, _| ["CNI_COMMAND", "CNI_PATH", "HOME"].contains(&&**name));
        }
        let (head, body) = post("/cni", &request.to_string());
        assert!(head.starts_with("http/1.1 200 ok"), "{command}: {head} {body}");
        if command == "ADD" {
            let result: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(result["Result"]["cniVersion"], "1.1.0");
            assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
        } else {
            assert_eq!(body, "", "{command}");
        }
    }
    node.is_empty(&[&sandbox]);

    // A failure is told in the object that it passes on, and what is no request in words.
    let (head, body) = post("/cni", &node.request("ADD", &node.pod("web-1", "nowhere")).to_string());
    assert!(head.starts_with("http/1.1 400 ") && head.contains("content-type: application/json"), "{head}");
    let error: Value = serde_json::from_str(&body).unwrap();
    assert!(!error["msg"].as_str().unwrap().is_empty() && error["code"].is_u64(), "{error}");
    let (head, body) = post("/cni", "null");
    assert!(head.starts_with("http/1.1 400 ") && head.contains("content-type: text/plain"), "{head}");
    assert!(body.starts_with("not a CNI request: ") && body.ends_with('\n'), "{body}");

    // Old kubelets tell no UID, and a runtime may leave the interface out.
    let mut request = node.request("ADD", &sandbox);
    request["env"]["CNI_ARGS"] = json!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0");
    request["env"].as_object_mut().unwrap().remove("CNI_IFNAME");
    assert!(post("/cni", &request.to_string()).0.starts_with("http/1.1 200 "));
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(node.network_status("web-0").as_array().unwrap().len(), 2);

    // The client for dynamic networks says no more of the pod than this.
    let mut request = node.request("ADD", &sandbox);
    request["env"]["CNI_ARGS"] = json!("K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=uid-web-0");
    request["env"]["CNI_IFNAME"] = json!("net9");
    let (head, body) = post("/delegate", &request.to_string());
    assert!(head.starts_with("http/1.1 400 ") && body.contains("multus-shim"), "{head} {body}");
    let network = node.api.object("network-attachment-definitions", "test", "macvlan-conf").unwrap();
    request["config"] = json!(BASE64_STANDARD.encode(network["spec"]["config"].as_str().unwrap()));
    request["interfaceAttributes"] = json!({"ips": null, "mac": "", "cni-args": null});
    let (head, body) = post("/delegate", &request.to_string());
    assert!(head.starts_with("http/1.1 200 ") && body.starts_with("{\"Result\":{"), "{head} {body}");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1", "net9"]);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn the_daemons_configuration_wins_over_the_requests(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"namespaceIsolation": true, "globalNamespaces": "lab"}));
    node.start();
    let sandbox = node.pod("web-0", "default/macvlan-conf");
    let mut config = node.config();
    for (key, value) in [
        ("namespaceIsolation", json!(false)),
        ("globalNamespaces", json!("default")),
        ("cniDir", json!("/nowhere/at/all")),
        ("readinessindicatorfile", json!("/nowhere/at/all")),
        ("logLevel", json!("panic")),
        ("logFile", json!(lab.path("log-of-the-request"))),
    ] {
        config[key] = value;
    }
    let mut request = node.request("ADD", &sandbox);
    request["config"] = json!(BASE64_STANDARD.encode(config.to_string()));
    let refused = node.post("/cni", request.to_string().as_bytes()).unwrap();
    let error: Value = serde_json::from_slice(&refused.body).unwrap();
    let text = "namespace isolation enabled, annotation violates permission, pod is in namespace test but refers to target \
                namespace default";
    assert!(error["msg"].as_str().unwrap().contains(text), "{error}");
    // Its log is its own, whatever requests say.
    assert!(node.log().contains(text) && !lab.path("log-of-the-request").exists(), "{}", node.log());
    // What the daemon does not say is the request's.
    let allowed = node.pod("web-1", "macvlan-conf");
    let mut request = node.request("ADD", &allowed);
    request["config"] = json!(BASE64_STANDARD.encode(config.to_string()));
    assert_eq!(node.post("/cni", request.to_string().as_bytes()).unwrap().status, 200);
    assert_eq!(allowed.links(), ["eth0", "lo", "net1"]);
    node.del(&allowed).unwrap();
    node.is_empty(&[&sandbox, &allowed]);
}

fn a_network_is_plugged_into_a_pod_that_runs(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    node.add(&sandbox).unwrap();
    let wishes = json!({"ips": ["192.168.7.77/24"], "mac": "02:00:00:00:07:77"});
    let (status, body) = node.delegate("ADD", &sandbox, "net9", &wishes);
    assert_eq!(status, 200, "{body}");
    let result: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(result["Result"]["ips"][0]["address"], "192.168.7.77/24");
    assert_eq!(sandbox.addresses("net9"), ["192.168.7.77/24"]);
    assert_eq!(sandbox.link("net9").unwrap()["address"], "02:00:00:00:07:77");
    // One of its eth0 before.
    node.api.wait_for(2, "create", "events");
    assert_eq!(node.network_status("web-0").as_array().unwrap().len(), 1, "the status is the controller's");
    for command in ["CHECK", "STATUS", "DEL", "DEL"] {
        assert_eq!(node.delegate(command, &sandbox, "net9", &Value::Null), (200, String::new()), "{command}");
    }
    assert_eq!(sandbox.links(), ["eth0", "lo"]);
    assert_eq!(lab.reserved("plugged"), [""; 0]);
    node.check(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn what_is_plugged_in_goes_with_the_pod(lab: &Lab) {
    let mut node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    assert_eq!(node.delegate("ADD", &sandbox, "net9", &json!({})).0, 200);
    node.kill();
    node.start();
    node.del(&sandbox).unwrap();
    assert_eq!(lab.reserved("plugged"), [""; 0]);
    node.is_empty(&[&sandbox]);
}

fn what_is_plugged_in_under_an_old_name_is_released(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    node.add(&sandbox).unwrap();
    let network = |name: &str| {
        json!({
            "cniVersion": "1.1.0", "name": name, "type": "macvlan", "master": "ens32",
            "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "subnet": "192.168.7.0/24"},
        })
    };
    assert_eq!(node.delegate_to(&network("old"), "ADD", &sandbox, "net7", &json!({})).0, 200);
    assert_eq!(lab.reserved("old"), ["192.168.7.2"]);
    // Its definition has got another name since.
    assert_eq!(node.delegate_to(&network("new"), "DEL", &sandbox, "net7", &json!({})), (200, String::new()));
    assert_eq!((sandbox.links(), lab.reserved("old")), (vec!["eth0".to_owned(), "lo".to_owned()], Vec::new()));
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn an_interface_that_is_there_is_not_plugged_in_again(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    node.add(&sandbox).unwrap();
    // A plugin that is executed, and makes interfaces as bridge or SR-IOV do: ADD fails where there is one, DEL deletes it.
    let link = "nsenter --net=$CNI_NETNS ip link";
    let script = format!(
        "#!/bin/sh\nPATH=$PATH:/usr/sbin:/sbin\ncase $CNI_COMMAND in\nADD) {link} add $CNI_IFNAME type veth peer name peer || exit 1;;\n\
         DEL) {link} delete $CNI_IFNAME;;\nesac\n\
         echo '{{\"cniVersion\":\"1.0.0\",\"interfaces\":[{{\"name\":\"x\",\"sandbox\":\"y\"}}]}}'\n"
    );
    fs::write(lab.path("bin/pair"), script).unwrap();
    fs::set_permissions(lab.path("bin/pair"), fs::Permissions::from_mode(0o755)).unwrap();
    let network = json!({"cniVersion": "1.0.0", "name": "pairs", "type": "pair"});
    let delegate = |command: &str, ifname: &str| node.delegate_to(&network, command, &sandbox, ifname, &json!({}));
    let (status, body) = delegate("ADD", "net9");
    assert_eq!(status, 200, "{body}");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net9", "peer"]);
    // A controller that has forgotten, and one that takes an interface of the pod's own.
    for (ifname, other) in [("net9", "pairs"), ("eth0", "cbr0")] {
        let (status, body) = delegate("ADD", ifname);
        assert_eq!((status, sandbox.links().join(" ").as_str()), (400, "eth0 lo net9 peer"), "{body}");
        assert!(body.contains(&format!("already exists: network \\\"{other}\\\" of this pod has it")), "{body}");
    }
    assert_eq!(delegate("DEL", "net9").0, 200);
    assert_eq!(delegate("ADD", "net9").0, 200);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn nothing_is_plugged_into_a_pod_that_is_gone(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    // The API still has the pod, and the runtime has not removed the namespace yet; no DEL follows.
    let (status, body) = node.delegate("ADD", &sandbox, "net9", &json!({}));
    assert_eq!(status, 400, "{body}");
    assert!(body.contains("nothing is known of container web-0 in"), "{body}");
    assert_eq!(lab.reserved("plugged"), [""; 0]);
    node.is_empty(&[&sandbox]);
}

fn a_wish_that_cannot_be_met_is_named(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    node.add(&sandbox).unwrap();
    let refused = |command: &str, sandbox: &Netns, wishes: Value| {
        let (status, body) = node.delegate(command, sandbox, "net9", &wishes);
        let error: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 400);
        error["msg"].as_str().unwrap().to_owned()
    };
    let error = refused("ADD", &sandbox, json!({"mac": "02:xx"}));
    assert!(error.starts_with("\"interfaceAttributes.mac\" must be a hardware address"), "{error}");
    assert_eq!(refused("ADD", &sandbox, json!(5)), "\"interfaceAttributes\" must be a JSON object");
    let error = refused("ADD", &sandbox, json!({"ips": ["10.9.9.9/24"]}));
    assert!(error.starts_with("Multus: [test/web-0/uid-web-0]: ") && error.contains("\"plugged\""), "{error}");
    assert!(refused("GC", &sandbox, json!({})).starts_with("unknown cmd type: GC is of all networks"));
    // That would be eth0's, if it were taken as in a call for the whole sandbox.
    for command in ["ADD", "CHECK", "DEL"] {
        let (status, body) = node.delegate(command, &sandbox, "", &json!({}));
        assert_eq!(status, 400, "{command} {body}");
        assert!(body.contains("CNI_IFNAME is missing"), "{command} {body}");
        assert_eq!(sandbox.links(), ["eth0", "lo"], "{command}");
    }
    let gone = lab.container("web-1");
    assert!(refused("ADD", &gone, json!({})).contains("pod not found in the Kubernetes API"));
    assert_eq!(node.delegate("DEL", &gone, "net9", &json!({})), (200, String::new()));
    assert_eq!(lab.reserved("plugged"), [""; 0]);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox, &gone]);
}

fn a_hundred_pods_at_once_all_get_their_networks(lab: &Lab) {
    let node = Node::new(lab);
    let idle = node.memory();
    let sandboxes: Vec<Netns> = (0..100).map(|number| node.pod(&format!("web-{number}"), "macvlan-conf")).collect();
    let all = |work: &(dyn Fn(&Netns) -> Result<(), Error> + Sync)| {
        thread::scope(|scope| {
            let calls: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(move || work(sandbox))).collect();
            calls.into_iter().for_each(|call| call.join().unwrap().unwrap());
        });
    };
    all(&|sandbox| node.add(sandbox).map(drop));
    let mut addresses: Vec<String> = sandboxes.iter().flat_map(|sandbox| sandbox.addresses("net1")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 100);
    assert_eq!(node.reserved().len(), 200);
    let memory = node.memory();
    eprintln!("memory of its own: {idle} KiB idle, {memory} KiB after a hundred pods");
    assert!(idle < 12 << 10 && memory < 24 << 10, "{idle} KiB, {memory} KiB");
    all(&|sandbox| node.del(sandbox));
    node.is_empty(&sandboxes.iter().collect::<Vec<_>>());
}

fn one_at_a_time_is_enough_for_all(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"connectionLimit": 1}));
    node.start();
    let sandboxes: Vec<Netns> = (0..6).map(|number| node.pod(&format!("web-{number}"), "macvlan-conf")).collect();
    thread::scope(|scope| {
        let adds: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(|| node.add(sandbox))).collect();
        adds.into_iter().for_each(|add| drop(add.join().unwrap().unwrap()));
    });
    sandboxes.iter().for_each(|sandbox| node.del(sandbox).unwrap());
    node.is_empty(&sandboxes.iter().collect::<Vec<_>>());
}

/// What is sent at once arrives in any order; what is sent one after the other in that.
fn a_sandbox_is_attached_whole_or_not_whatever_crosses(lab: &Lab) {
    let node = Node::new(lab);
    let orders = ["AD", "DA", "ADA", "DAD", "AAD", "ADAD", "DDAA"];
    for (number, order) in orders.iter().cycle().take(orders.len() * 5).enumerate() {
        let sandbox = node.pod(&format!("web-{number}"), "macvlan-conf");
        let request = |letter| node.request(if letter == 'A' { "ADD" } else { "DEL" }, &sandbox).to_string();
        let ask = |letter| (letter, node.post("/cni", request(letter).as_bytes()).unwrap());
        let is_in_order = number < orders.len();
        let answers: Vec<_> = if is_in_order {
            order.chars().map(ask).collect()
        } else {
            let ask = &ask;
            thread::scope(|scope| {
                let calls: Vec<_> = order.chars().map(|letter| scope.spawn(move || ask(letter))).collect();
                calls.into_iter().map(|call| call.join().unwrap()).collect()
            })
        };
        let mut adds = 0;
        for (letter, answer) in answers {
            let body = String::from_utf8(answer.body).unwrap();
            let is_expected =
                ["overtook this ADD", "the sandbox has an interface of that name", "duplicate allocation"];
            let is_refused = letter == 'A' && is_expected.iter().any(|text| body.contains(text));
            assert!(answer.status == 200 || is_refused, "{order}: {letter}: {body}");
            adds += usize::from(letter == 'A' && answer.status == 200);
        }
        let is_attached = sandbox.links() == ["eth0", "lo", "net1"];
        assert!(is_attached || sandbox.links() == ["lo"], "{order}: {:?}", sandbox.links());
        assert!(adds > 0 || !is_attached, "{order}");
        if is_in_order {
            assert_eq!(is_attached, order.ends_with('A'), "{order}");
        }
        node.del(&sandbox).unwrap();
        node.is_empty(&[&sandbox]);
    }
}

fn a_sandbox_may_be_added_again_behind_its_del(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"metricsPort": 9094}));
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf,slow");
    let waiting =
        |count| wait("the queue", || metrics(&node).contains(&format!("multus_operations_waiting {count}\n")));
    thread::scope(|scope| {
        let first = scope.spawn(|| node.add(&sandbox));
        node.wait_until_begun();
        let del = scope.spawn(|| node.del(&sandbox));
        waiting(1);
        let second = scope.spawn(|| node.add(&sandbox));
        waiting(2);
        node.release();
        first.join().unwrap().unwrap();
        node.wait_until_begun();
        del.join().unwrap().unwrap();
        node.release();
        second.join().unwrap().unwrap();
    });
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    node.check(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn a_del_waits_for_the_add_that_is_under_way(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf,slow");
    thread::scope(|scope| {
        let add = scope.spawn(|| node.add(&sandbox));
        node.wait_until_begun();
        let del = scope.spawn(|| node.del(&sandbox));
        // It is healthy, and serves others meanwhile.
        let other = node.pod("web-1", "macvlan-conf");
        node.add(&other).unwrap();
        node.del(&other).unwrap();
        assert!(!del.is_finished() && sandbox.links().contains(&"net1".to_owned()));
        node.release();
        add.join().unwrap().unwrap();
        del.join().unwrap().unwrap();
    });
    node.is_empty(&[&sandbox]);
}

fn an_add_that_waits_is_overtaken_by_its_del(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"connectionLimit": 1, "metricsPort": 9091}));
    node.start();
    let (busy, sandbox) = (node.pod("web-0", "slow"), node.pod("web-1", "macvlan-conf"));
    thread::scope(|scope| {
        let first = scope.spawn(|| node.add(&busy));
        node.wait_until_begun();
        let add = scope.spawn(|| node.add(&sandbox));
        wait("the ADD to be in the queue", || metrics(&node).contains("multus_operations_waiting 1\n"));
        assert!(metrics(&node).contains("multus_operations_in_flight 1\n"));
        let del = scope.spawn(|| node.del(&sandbox));
        let error = add.join().unwrap().unwrap_err();
        assert_eq!(error.code().number(), 11);
        assert!(error.to_string().starts_with("a DEL of the same sandbox overtook this ADD"), "{error}");
        node.release();
        del.join().unwrap().unwrap();
        first.join().unwrap().unwrap();
    });
    node.del(&busy).unwrap();
    node.is_empty(&[&busy, &sandbox]);
}

fn what_is_made_for_a_client_that_left_is_undone(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"connectionLimit": 1, "metricsPort": 9092}));
    node.start();
    let (leaving, never) = (node.pod("web-0", "macvlan-conf,slow"), node.pod("web-1", "macvlan-conf"));
    let send = |sandbox: &Netns| {
        let body = node.request("ADD", sandbox).to_string();
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.write_all(format!("{}{body}", head("/cni", body.len())).as_bytes()).unwrap();
        stream
    };
    let first = send(&leaving);
    node.wait_until_begun();
    let second = send(&never);
    wait("the second one to be in the queue", || metrics(&node).contains("multus_operations_waiting 1\n"));
    assert_eq!(leaving.links(), ["eth0", "lo", "net1"]);
    drop((first, second));
    assert_eq!(node.probe("/healthz"), Some(200));
    node.release();
    wait("the ADD to be undone", || node.log().contains("undone: its result reached nobody"));
    wait("the other one to be left", || node.log().contains("not begun: nobody waits for it any more"));
    assert_eq!((leaving.links(), never.links()), (vec!["lo".to_owned()], vec!["lo".to_owned()]));
    assert_eq!(node.reserved(), [""; 0]);
}

fn a_daemon_killed_during_an_add_leaves_nothing_after_del(lab: &Lab) {
    let mut node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf,slow");
    let error = thread::scope(|scope| {
        let add = scope.spawn(|| {
            let body = node.request("ADD", &sandbox).to_string();
            node.raw(format!("{}{body}", head("/cni", body.len())).as_bytes())
        });
        node.wait_until_begun();
        assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
        node.signal(Signal::SIGKILL);
        add.join().unwrap()
    });
    assert_eq!(error, "", "nobody was left to answer");
    node.ended();
    node.release();
    // The pod is gone when the runtime cleans up.
    node.api.delete("pods", "test", "web-0");
    node.start();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn a_del_without_a_daemon_is_done_by_the_next_one(lab: &Lab) {
    let mut node = Node::new(lab);
    let sandboxes = ["web-0", "web-1"].map(|name| node.pod(name, "macvlan-conf"));
    for sandbox in &sandboxes {
        node.add(sandbox).unwrap();
    }
    node.kill();
    for sandbox in &sandboxes {
        node.del(sandbox).unwrap();
        assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    }
    assert_eq!(node.spool().entries().unwrap().len(), 2);
    node.start();
    assert_eq!(node.spool().entries().unwrap(), [], "done before it is ready");
    node.is_empty(&[&sandboxes[0], &sandboxes[1]]);
    // The ADD of a sandbox that was given up, from a shim that waited for the daemon.
    let error = node.add(&sandboxes[0]).unwrap_err();
    assert!(error.to_string().starts_with("a DEL of the same sandbox overtook this ADD"), "{error}");
    node.is_empty(&[&sandboxes[0], &sandboxes[1]]);
}

fn what_fails_stays_in_the_spool(lab: &Lab) {
    let mut node = Node::new(lab);
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.kill();
    node.del(&sandbox).unwrap();
    let (network, aside) = (lab.data_dir().join("macvlan-conf"), lab.data_dir().join("aside"));
    fs::rename(&network, &aside).unwrap();
    fs::write(&network, "").unwrap();
    node.start();
    assert_eq!(node.spool().entries().unwrap().len(), 1);
    assert!(node.log().contains("a DEL of the spool failed and stays in it"));
    fs::remove_file(&network).unwrap();
    fs::rename(&aside, &network).unwrap();
    node.kill();
    node.start();
    assert_eq!(node.spool().entries().unwrap(), []);
    node.is_empty(&[&sandbox]);
}

fn a_daemon_that_is_to_end_finishes_what_it_does(lab: &Lab) {
    let mut node = Node::new(lab);
    let [busy, attached, late] = [("web-0", "macvlan-conf,slow"), ("web-1", "macvlan-conf"), ("web-2", "macvlan-conf")]
        .map(|(name, networks)| node.pod(name, networks));
    node.add(&attached).unwrap();
    thread::scope(|scope| {
        let add = scope.spawn(|| node.add(&busy));
        node.wait_until_begun();
        node.signal(Signal::SIGTERM);
        wait("the daemon to be not ready", || node.probe("/readyz") == Some(500));
        assert_eq!(node.probe("/healthz"), Some(200));
        let refused = node.post("/cni", node.request("ADD", &late).to_string().as_bytes()).unwrap();
        let error: Value = serde_json::from_slice(&refused.body).unwrap();
        assert_eq!((refused.status, &error["code"]), (400, &json!(11)));
        assert!(error["msg"].as_str().unwrap().starts_with("multus-daemon is shutting down"), "{error}");
        node.del(&attached).unwrap();
        assert_eq!(attached.links(), ["lo"]);
        node.release();
        add.join().unwrap().unwrap();
    });
    assert!(node.ended().success());
    assert_eq!(busy.links(), ["eth0", "lo", "net1"]);
    node.start();
    node.del(&busy).unwrap();
    node.is_empty(&[&busy, &attached, &late]);
}

fn a_daemon_that_is_to_end_waits_only_so_long(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"connectionLimit": 1, "drainSeconds": 1, "metricsPort": 9093}));
    node.start();
    let (busy, waiting) = (node.pod("web-0", "macvlan-conf,slow"), node.pod("web-1", "macvlan-conf"));
    thread::scope(|scope| {
        let first = scope.spawn(|| node.post("/cni", node.request("ADD", &busy).to_string().as_bytes()));
        node.wait_until_begun();
        let second = scope.spawn(|| node.post("/cni", node.request("ADD", &waiting).to_string().as_bytes()));
        wait("the second one to be in the queue", || metrics(&node).contains("multus_operations_waiting 1\n"));
        node.signal(Signal::SIGTERM);
        let refused = String::from_utf8(second.join().unwrap().unwrap().body).unwrap();
        assert!(refused.contains("this waited too long for its turn"), "{refused}");
        assert!(first.join().unwrap().is_none(), "nobody was left to answer");
    });
    assert!(node.ended().success());
    node.release();
    node.start();
    node.del(&busy).unwrap();
    node.is_empty(&[&busy, &waiting]);
}

fn a_node_gets_a_certificate_of_its_own(lab: &Lab) {
    let certificate = json!({
        "enabled": true, "bootstrapKubeconfig": lab.path("kubeconfig"), "certDir": lab.path("certificates"),
    });
    let mut node = Node::without_daemon(lab, json!({"perNodeCertificate": certificate}));
    node.api.sign_certificates(Duration::from_secs(600));
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    let patches = node.api.log().into_iter().filter(|asked| asked.verb == "patch").map(|asked| asked.user);
    assert_eq!(patches.collect::<Vec<_>>(), ["system:multus:node1"]);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn a_daemon_that_waits_for_its_certificate_ends_when_it_is_to(lab: &Lab) {
    let certificate = json!({
        "enabled": true, "bootstrapKubeconfig": lab.path("kubeconfig"), "certDir": lab.path("certificates"),
    });
    let mut node = Node::without_daemon(lab, json!({"perNodeCertificate": certificate}));
    // As in a container: signals that its first process does not handle do not reach it.
    node.wrapper = ["unshare", "--pid", "--fork", "--kill-child"].map(Into::into).into();
    node.spawn();
    node.api.wait_for(1, "create", "certificatesigningrequests");
    let unshare = node.id();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).unwrap();
    let daemon = Pid::from_raw(children.trim().parse().unwrap());
    kill(daemon, Signal::SIGTERM).unwrap();
    wait("the daemon to end", || kill(daemon, None).is_err());
    assert!(node.ended().success(), "{}", node.log());
}

fn a_clock_that_is_ahead_makes_no_flood_of_requests(lab: &Lab) {
    let certificate = json!({
        "enabled": true, "bootstrapKubeconfig": lab.path("kubeconfig"), "certDir": lab.path("certificates"),
    });
    let mut node = Node::without_daemon(lab, json!({"perNodeCertificate": certificate}));
    // Over when it is there, as for a node whose clock is ten minutes ahead of the server's.
    node.api.sign_certificates(Duration::ZERO);
    node.start();
    wait("the daemon to notice", || node.log().contains("is this node's clock right?"));
    thread::sleep(Duration::from_secs(1));
    assert_eq!(node.api.count("create", "certificatesigningrequests"), 2);
}

fn a_daemon_in_a_pod_uses_its_service_account(lab: &Lab) {
    // In a mount namespace of this test's own.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let account = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
    fs::create_dir_all(account).unwrap();
    let mut node = Node::without_daemon(lab, json!({"kubeconfig": ""}));
    node.api.write_service_account(account);
    let address = node.api.address();
    node.environment.insert("KUBERNETES_SERVICE_HOST", address.ip().to_string());
    node.environment.insert("KUBERNETES_SERVICE_PORT", address.port().to_string());
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    assert_eq!(node.network_status("web-0").as_array().unwrap().len(), 2);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn a_daemon_without_a_node_name_watches_nothing(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({}));
    node.environment.remove("MULTUS_NODE_NAME");
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    for verb in ["list", "watch"] {
        assert_eq!(node.api.count(verb, "pods"), 0, "{verb}");
    }
    assert!(node.log().contains("MULTUS_NODE_NAME is not set"), "{}", node.log());
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn hostile_requests_harm_nobody(lab: &Lab) {
    let node = Node::new(lab);
    let huge = head("/cni", 1 << 40);
    let long = format!("POST /cni HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let large = format!("{}{}", head("/cni", 8 << 20), "x".repeat(8 << 20));
    let bodies = ["null", "[]", "{", r#"{"env":{},"config":"!"}"#, r#"{"env":{"CNI_COMMAND":"ADD"},"config":""}"#];
    for request in [large.as_bytes(), long.as_bytes(), b"\x16\x03\x01\x02\x00\x01", b"\r\n\r\n\r\n", &[0; 4096]] {
        assert!(!node.raw(request).starts_with("HTTP/1.1 200"));
    }
    for body in bodies {
        let answer = node.raw(format!("{}{body}", head("/cni", body.len())).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    // A hundred that say nothing or half of it, while a pod is attached.
    let silent: Vec<UnixStream> = (0..100).map(|_| UnixStream::connect(node.socket()).unwrap()).collect();
    for mut stream in &silent {
        stream.write_all(huge.as_bytes()).unwrap();
    }
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    drop(silent);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn the_hosts_namespace_is_no_sandbox(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    let links = lab.host.links();
    let of_daemon = format!("/proc/{}/ns/net", node.id());
    for netns in [lab.host.path().to_str().unwrap(), &of_daemon] {
        for (command, target) in [("ADD", "/cni"), ("DEL", "/cni"), ("ADD", "/delegate"), ("DEL", "/delegate")] {
            let mut request = node.request(command, &sandbox);
            request["env"]["CNI_NETNS"] = json!(netns);
            request["env"]["CNI_IFNAME"] = json!("ens32");
            if target == "/delegate" {
                let network = json!({"cniVersion": "1.1.0", "name": "x", "type": "macvlan", "master": "ens32"});
                request["config"] = json!(BASE64_STANDARD.encode(network.to_string()));
            }
            let answer = node.post(target, request.to_string().as_bytes()).unwrap();
            let text = String::from_utf8(answer.body).unwrap();
            assert!(answer.status == 400 && text.contains("\"code\": 8"), "{target} {command}: {text}");
        }
    }
    assert_eq!(lab.host.links(), links);
}

fn names_and_paths_of_a_request_stay_in_their_places(lab: &Lab) {
    let node = Node::new(lab);
    let sandbox = node.pod("web-0", "");
    let (file, long) = (lab.path("file"), "x".repeat(256));
    fs::write(&file, "").unwrap();
    let before = files(lab);
    for (variable, value) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", ".sandboxes"),
        ("CNI_CONTAINERID", "-x"),
        ("CNI_CONTAINERID", "a\nb"),
        ("CNI_CONTAINERID", "a\0b"),
        // It is the name of a file.
        ("CNI_CONTAINERID", &long),
        ("CNI_IFNAME", "../x"),
        ("CNI_IFNAME", "a\0b"),
        ("CNI_NETNS", "/a\0b"),
        ("CNI_NETNS", file.to_str().unwrap()),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=../../x;K8S_POD_NAME=web-0"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=test;K8S_POD_NAME=../../../api/v1/secrets/x"),
        ("CNI_ARGS", "K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0?x=y"),
    ] {
        let mut request = node.request("ADD", &sandbox);
        request["env"][variable] = json!(value);
        let answer = node.post("/cni", request.to_string().as_bytes()).unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        assert_eq!(answer.status, 400, "{variable}={value:?}: {text}");
        assert!(text.len() < 2000, "{text}");
    }
    for (name, networks) in
        [("a", "../x"), ("b", "test/../../x"), ("c", "macvlan-conf@../x"), ("d", "-x"), ("e", "a@..")]
    {
        let error = node.add(&node.pod(&format!("pod-{name}"), networks)).unwrap_err().to_string();
        assert!(error.contains("networks"), "{networks}: {error}");
    }
    assert_eq!((sandbox.links(), node.reserved()), (vec!["lo".to_owned()], Vec::new()));
    let after: Vec<String> = files(lab).into_iter().filter(|name| !before.contains(name)).collect();
    let is_ours = |name: &String| name.starts_with("pod-") || ["multus", "networks", "log"].contains(&&**name);
    assert!(after.iter().all(is_ours), "{after:?}");
    assert!(node.api.log().iter().all(|asked| !asked.resource.contains("secrets")));
}

/// The names in the laboratory's directory.
fn files(lab: &Lab) -> Vec<String> {
    fs::read_dir(lab.path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn requests_up_to_the_limits_are_served_and_no_longer_ones(lab: &Lab) {
    let node = Node::new(lab);
    let request = node.request("STATUS", &node.pod("web-0", "")).to_string();
    let padded = |length: usize| request.clone() + &" ".repeat(length - request.len());
    let body = |length: usize| node.post("/cni", padded(length).as_bytes()).unwrap();
    assert_eq!(body(4 << 20).status, 200);
    let refused = body((4 << 20) + 1);
    assert_eq!(refused.status, 400);
    let text = String::from_utf8(refused.body).unwrap();
    assert!(text.starts_with("cannot read the request, of at most 4194304 bytes: "), "{text}");
    let head = |length: usize| {
        let (before, after) = ("POST /readyz HTTP/1.1\r\nHost: dummy\r\nContent-Length: 0\r\nX: ", "\r\n\r\n");
        node.raw(format!("{before}{}{after}", "x".repeat(length - before.len() - after.len())).as_bytes())
    };
    assert!(head(16 << 10).starts_with("HTTP/1.1 200 "));
    let refused = head((16 << 10) + 1);
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused}");
    assert!(
        node.raw(b"POST /readyz HTTP/1.1\r\nHost: dummy\r\nContent-Length: 0\r\n\r\n").starts_with("HTTP/1.1 200 ")
    );
}

fn the_connection_beyond_the_last_waits_for_its_turn(lab: &Lab) {
    let node = Node::new(lab);
    let connect = || UnixStream::connect(node.socket()).unwrap();
    let mut held: Vec<UnixStream> = (0..511).map(|_| connect()).collect();
    assert_eq!(node.probe("/readyz"), Some(200), "the last one");
    held.push(connect());
    let mut beyond = connect();
    beyond.write_all(head("/readyz", 0).as_bytes()).unwrap();
    beyond.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut byte = [0; 1];
    let waits = beyond.read(&mut byte).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    held.pop();
    beyond.set_read_timeout(None).unwrap();
    assert_eq!((beyond.read(&mut byte).unwrap(), byte), (1, *b"H"));
    // Those that are left are cut off in the end, and harm no pod.
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn a_slow_client_is_cut_off(lab: &Lab) {
    let node = Node::new(lab);
    for half in ["POST /cni HT", &head("/cni", 10)] {
        let mut stream = UnixStream::connect(node.socket()).unwrap();
        stream.write_all(half.as_bytes()).unwrap();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}

fn the_socket_is_its_owners(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({}));
    fs::create_dir(lab.path("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(node.socket()).unwrap());
    node.start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&lab.path("run")), mode(&node.socket())), (0o700, 0o600));
}

fn the_runtimes_configuration_is_kept_and_stays(lab: &Lab) {
    let indicator = lab.path("ready");
    let options = json!({"cniVersion": "0.3.1", "readinessindicatorfile": indicator, "socketDir": lab.path("run")});
    let mut node = Node::without_daemon(lab, options);
    let written = lab.path("net.d").join("00-multus.conf");
    let content = || fs::read(&written).ok().map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    node.spawn();
    wait("the log to say what is waited for", || node.log().contains("readiness indicator file"));
    fs::write(&indicator, "").unwrap();
    wait("the log to say what is waited for", || node.log().contains("there is no master configuration in"));
    assert_eq!(content(), None);
    let master = lab.path("net.d").join("10-flannel.conflist");
    let plugins = json!([{"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}}]);
    fs::write(&master, json!({"cniVersion": "0.3.1", "name": "cbr0", "plugins": plugins}).to_string()).unwrap();
    wait("the configuration", || written.exists());
    let expected = json!({
        "capabilities": {"portMappings": true}, "cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true,
        "name": "multus-cni-network", "clusterNetwork": master, "type": "multus-shim",
        "binDir": lab.path("bin"), "cniDir": lab.path("multus"),
    });
    assert_eq!(content(), Some(expected.clone()));
    // Such as Cilium.
    fs::rename(&written, written.with_extension("conf.cilium_bak")).unwrap();
    wait("the configuration to be restored", || written.exists());
    assert!(node.log().contains("was renamed to \"00-multus.conf.cilium_bak\""), "{}", node.log());
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    assert_eq!(content(), Some(expected));
}

fn a_directory_that_is_stuck_does_not_keep_the_daemon(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"cniVersion": "0.3.1", "socketDir": lab.path("run")}));
    let directory = fs::File::open(lab.path("net.d")).unwrap();
    fs::write(lab.path("net.d/10-flannel.conf"), r#"{"cniVersion":"0.3.1","name":"cbr0","type":"bridge"}"#).unwrap();
    // Another writer that has stopped in the middle.
    directory.lock().unwrap();
    node.start();
    let keeps = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.starts_with("configuration")).count() == 1
    };
    wait("the configuration to be kept", keeps);
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(20));
        drop(directory);
    });
    thread::sleep(Duration::from_millis(500));
    node.signal(Signal::SIGTERM);
    let begun = Instant::now();
    assert!(node.ended().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

fn a_configuration_that_somebody_wrote_is_copied(lab: &Lab) {
    let own = lab.path("70-multus.conf");
    fs::write(&own, json!({"cniVersion": "1.0.0", "name": "n", "type": "multus-shim"}).to_string()).unwrap();
    let mut node = Node::without_daemon(lab, json!({"multusConfigFile": own}));
    node.start();
    wait("the copy", || lab.path("net.d").join("70-multus.conf").exists());
    node.add(&node.pod("web-0", "macvlan-conf")).unwrap();
}

fn programs_are_installed_and_taken_away(lab: &Lab) {
    let node = Node::without_daemon(lab, json!({}));
    let (source, bin) = (lab.path("image"), lab.path("bin"));
    fs::create_dir(&source).unwrap();
    for name in ["multus-shim", "multus", "passthru"] {
        fs::write(source.join(name), name).unwrap();
    }
    let installer = lab.path("install_multus");
    symlink(PROGRAM, &installer).unwrap();
    let there = || {
        let mut names: Vec<_> = fs::read_dir(&bin).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let run = |program: &Path, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).arg("-d").arg(&bin).output().unwrap();
        assert_eq!(output.stderr, b"", "{output:?}");
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let source = source.to_str().unwrap();
    run(&installer, &["--type", "thin", "--source-dir", source]);
    assert_eq!(there(), ["multus", "passthru", "slow"]);
    let said = run(PROGRAM.as_ref(), &["install", "--source-dir", source]);
    assert!(said.contains("/multus-shim is installed\n"), "{said}");
    assert_eq!(there(), ["multus", "multus-shim", "passthru", "slow"]);
    fs::write(lab.path("net.d").join("00-multus.conf"), "{}").unwrap();
    let config = lab.path("daemon-config.json");
    let said = run(PROGRAM.as_ref(), &["uninstall", "-config", config.to_str().unwrap()]);
    assert!(said.lines().next().unwrap().ends_with("/net.d/00-multus.conf is removed"), "{said}");
    assert_eq!(there(), ["multus", "slow"]);
    let missing = Command::new(PROGRAM).args(["install", "--source-dir", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("cannot read \"/nowhere/multus-shim\": no such file or directory"), "{said}");
    drop(node);
}

fn metrics_count_and_measure(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"metricsPort": 9090}));
    node.start();
    let (sandbox, other) = (node.pod("web-0", "macvlan-conf"), node.pod("web-1", "macvlan-conf"));
    node.add(&sandbox).unwrap();
    node.add(&other).unwrap();
    node.del(&sandbox).unwrap();
    node.probe("/nothing");
    let text = metrics(&node);
    for line in [
        r#"multus_server_request_total{handler="/cni",code="200",method="post"} 3"#,
        r#"multus_server_request_total{handler="NotFound",code="404",method="post"} 1"#,
        r#"multus_operation_duration_seconds_count{command="ADD",outcome="success"} 2"#,
        r#"multus_network_duration_seconds_count{command="ADD",network="test/macvlan-conf",outcome="success"} 2"#,
        r#"multus_network_duration_seconds_count{command="DEL",network="cbr0",outcome="success"} 1"#,
        r#"multus_step_duration_seconds_count{step="pod"} 2"#,
        r#"multus_step_duration_seconds_count{step="plan"} 2"#,
        r#"multus_step_duration_seconds_count{step="attach"} 2"#,
        r#"multus_step_duration_seconds_count{step="status"} 2"#,
        r#"multus_reservations_used{network="macvlan-conf",range="192.168.1.1-192.168.1.254"} 1"#,
        // Neither the taken one nor the gateway's.
        r#"multus_reservations_free{network="macvlan-conf",range="192.168.1.1-192.168.1.254"} 252"#,
        r#"multus_operation_duration_seconds_count{command="DEL",outcome="success"} 1"#,
        "multus_operations_waiting 0",
        "multus_spool_length 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
    }
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.trim().parse::<f64>().unwrap()
    };
    assert!(value("process_resident_memory_bytes ") > 1e6 && value("process_open_fds ") > 3.0);
    assert!(value("process_cpu_seconds_total ") > 0.0);
}

fn who_holds_connections_does_not_keep_others_from_metrics(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"metricsPort": 9090}));
    node.start();
    // As a pod that has an address of its own.
    lab.host.ip("address add 10.9.9.9/32 dev lo");
    let held: Vec<_> = lab.host.within(|| {
        let connect = || std::net::TcpStream::connect(("10.9.9.9", 9090)).unwrap();
        (0..200).map(|_| connect()).collect()
    });
    assert!(metrics(&node).starts_with("HTTP/1.1 200 "), "the scraper, which has another address");
    let cut_off = held.iter().filter(|stream| {
        stream.set_nonblocking(true).unwrap();
        let mut stream = *stream;
        matches!(stream.read(&mut [0; 1]), Ok(0))
    });
    assert!(cut_off.count() >= 196);
    // A head without end is cut off, too.
    let answer = lab.host.within(|| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", 9090)).unwrap();
        let _cut_off = stream.write_all(format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(1 << 20)).as_bytes());
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    });
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(metrics(&node).starts_with("HTTP/1.1 200 "));
}

fn a_locked_range_neither_piles_up_threads_nor_keeps_the_daemon_alive(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"metricsPort": 9090}));
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    let is_told = |text: &str| text.contains("multus_reservations_used{network=\"macvlan-conf\"");
    assert!(is_told(&metrics(&node)));
    // A plugin that hangs, say on a disk.
    let lock = fs::File::open(lab.data_dir().join("macvlan-conf/lock")).unwrap();
    lock.lock().unwrap();
    let threads = || {
        let tasks = fs::read_dir(format!("/proc/{}/task", node.id())).unwrap();
        tasks.count()
    };
    assert!(is_told(&metrics(&node)), "as it was the last time");
    let before = threads();
    metrics(&node);
    metrics(&node);
    assert_eq!(threads(), before);
    thread::spawn(move || {
        thread::sleep(Duration::from_secs(20));
        drop(lock);
    });
    node.signal(Signal::SIGTERM);
    let begun = Instant::now();
    assert!(node.ended().success());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

fn options_without_a_meaning_here_are_told(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"enablePprof": true, "logOptions": {"maxSize": 1}}));
    node.start();
    assert!(node.log().contains("[error] \"enablePprof\" asks for profiles of the Go runtime"), "{}", node.log());
}

fn the_program_tells_its_health_and_its_version(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({"logFile": lab.path("logs/multus.log"), "logToStderr": false}));
    let config = lab.path("daemon-config.json");
    let healthcheck = |ready: &[&str]| {
        Command::new(PROGRAM).arg("healthcheck").args(ready).arg("-config").arg(&config).output().unwrap()
    };
    assert_eq!(healthcheck(&[]).status.code(), Some(1));
    node.start();
    assert!(healthcheck(&[]).status.success() && healthcheck(&["-ready"]).status.success());
    let version = Command::new(PROGRAM).arg("--version").output().unwrap();
    assert!(version.status.success() && version.stdout.starts_with(b"multus-daemon "));
    let log = fs::read_to_string(lab.path("logs/multus.log")).unwrap();
    assert!(log.lines().next().unwrap().contains("Z [verbose] multus-daemon serves socket="), "{log}");
    assert_eq!(node.log(), "");
    let missing = Command::new(PROGRAM).args(["-config", "/nowhere.json"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8(missing.stderr).unwrap();
    assert!(said.contains("configuration file /nowhere.json: no such file or directory"), "{said}");
}

fn metrics(node: &Node<'_>) -> String {
    let config: Value = serde_json::from_slice(&fs::read(node.lab.path("daemon-config.json")).unwrap()).unwrap();
    let port = u16::try_from(config["metricsPort"].as_u64().unwrap()).unwrap();
    node.lab.host.within(|| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    })
}
