//! What a daemon keeps of the cluster.

use std::{
    thread,
    time::{Duration, Instant},
};

use multus_core::{
    Cluster, Pod,
    kubernetes::{ApiCluster, Error, Limits},
};
use serde_json::json;
use testkit_kubernetes::{ApiServer, Fault};
use tokio::runtime::{Builder, Runtime};

use crate::{LIMITS, NETWORKS, PATIENCE, STATUS, UID, access, event, network, pod, reporter, server, web};

#[test]
fn a_daemon_answers_from_its_copies() {
    let server = server();
    let daemon = Daemon::start(&server);
    let pod = daemon.cluster.pod(&web("nginx-0", UID)).unwrap().unwrap();
    assert_eq!(pod.networks.as_deref(), Some(NETWORKS));
    assert!(daemon.cluster.network("web", "macvlan-conf").unwrap().is_some());
    assert_eq!(server.count("get", "pods") + server.count("get", "network-attachment-definitions"), 0);
    assert!(server.log().iter().filter(|asked| asked.resource == "pods").all(|asked| asked.metadata_only));
}

#[test]
fn a_daemon_follows_what_happens() {
    let server = server();
    let daemon = Daemon::start(&server);
    server.put(pod("nginx-1", "33333333", "node-1", &json!({ Pod::NETWORKS: "storage" })));
    eventually(|| daemon.cluster.copies() == (Some(2), Some(1)));
    server.delete("pods", "web", "nginx-0");
    server.put(network("storage", r#"{"type":"bridge"}"#));
    eventually(|| daemon.cluster.copies() == (Some(1), Some(2)));
    server.put(network("storage", r#"{"type":"ipvlan"}"#));
    let config = || daemon.cluster.network("web", "storage").unwrap().unwrap().config;
    eventually(|| config() == r#"{"type":"ipvlan"}"#);
    assert_eq!(server.count("get", "network-attachment-definitions"), 0);
    assert_eq!(daemon.cluster.pod(&web("nginx-0", UID)).unwrap(), None);
    assert_eq!(server.count("get", "pods"), 1, "what a copy lacks is asked for before it is denied");
}

#[test]
fn a_daemon_never_asks_for_pods_of_other_nodes() {
    let server = server();
    for number in 0..5000 {
        server.put(pod(&format!("other-{number}"), "", &format!("node-{}", 2 + number % 100), &json!({})));
    }
    let daemon = Daemon::start(&server);
    assert_eq!(daemon.cluster.copies(), (Some(1), Some(1)));
    for number in 0..5000 {
        server.put(pod(&format!("other-{number}"), "", &format!("node-{}", 2 + number % 100), &json!({ "a": "b" })));
    }
    // A pod that is bound to the node comes into view only then.
    server.put(pod("late", "44444444", "", &json!({})));
    server.put(pod("late", "44444444", "node-1", &json!({})));
    eventually(|| daemon.cluster.copies() == (Some(2), Some(1)));
    // What does not come cannot be kept.
    assert!(server.sent() < 16_384, "{} bytes were sent", server.sent());
    let collections = server.log().into_iter().filter(|asked| asked.resource == "pods" && asked.name.is_empty());
    for asked in collections {
        assert_eq!(asked.query.get("fieldSelector").map(String::as_str), Some("spec.nodeName=node-1"), "{asked:?}");
    }
}

#[test]
fn a_daemon_without_a_node_of_its_own_does_not_start() {
    let server = server();
    let runtime = runtime();
    for node in ["", "node-1,status.phase=Running", "NODE"] {
        let access = access(&server.kubeconfig());
        let error = ApiCluster::watching(runtime.handle(), &access, LIMITS, reporter(node)).unwrap_err();
        assert!(matches!(error, Error::Name { kind: "node", .. }), "{error}");
    }
    assert!(server.log().is_empty());
}

#[test]
fn a_pod_and_a_network_newer_than_the_copies_are_found_live() {
    let server = server();
    // The watch stands, and nothing comes.
    server.fail("watch", "pods", Fault::Silence);
    server.fail("watch", "network-attachment-definitions", Fault::Silence);
    let daemon = Daemon::start(&server);
    server.put(pod("late", "55555555", "node-1", &json!({ Pod::NETWORKS: "late" })));
    server.put(network("late", "{}"));
    assert!(daemon.cluster.pod(&web("late", "55555555")).unwrap().is_some());
    assert!(daemon.cluster.network("web", "late").unwrap().is_some());
    // A pod that was made anew under its name, as a StatefulSet does.
    server.delete("pods", "web", "nginx-0");
    server.put(pod("nginx-0", "66666666", "node-1", &json!({ Pod::NETWORKS: "new" })));
    let found = daemon.cluster.pod(&web("nginx-0", "66666666")).unwrap().unwrap();
    assert_eq!((found.reference.uid.as_str(), found.networks.as_deref()), ("66666666", Some("new")));
    assert_eq!(server.count("get", "pods"), 2);
}

#[test]
fn what_is_too_much_to_keep_is_asked_for_when_it_is_needed() {
    let server = server();
    let config = |length| format!(r#"{{"type":"bridge","note":"{}"}}"#, "x".repeat(length));
    server.put(network("long", &config(65 << 10)));
    for number in 0..300 {
        server.put(network(&format!("network-{number}"), &config(60 << 10)));
        // Anybody who may create some may bind them to this node.
        let networks = json!({ Pod::NETWORKS: "x".repeat(60 << 10) });
        server.put(pod(&format!("pod-{number}"), &format!("uid-{number}"), "node-1", &networks));
    }
    let daemon = Daemon::start(&server);
    let kept = daemon.cluster.copies().0.unwrap();
    assert!((200..=279).contains(&kept), "16 MiB of pods, not {kept}");
    let kept = daemon.cluster.copies().1.unwrap();
    assert!((200..=279).contains(&kept), "16 MiB of networks, not {kept}");
    let is_found = |name: &str| daemon.cluster.network("web", name).unwrap().is_some();
    let is_pod =
        |number| daemon.cluster.pod(&web(&format!("pod-{number}"), &format!("uid-{number}"))).unwrap().is_some();
    assert!((0..300).all(is_pod));
    assert!(is_found("long") && (0..300).all(|number| is_found(&format!("network-{number}"))));
    assert_eq!(server.count("get", "network-attachment-definitions"), 301 + 1 - kept);
    // Where others go there is room again; that of one that grows or shrinks is its own.
    for number in 0..300 {
        server.delete("network-attachment-definitions", "web", &format!("network-{number}"));
    }
    for length in [65 << 10, 10, 65 << 10, 10] {
        server.put(network("long", &config(length)));
    }
    eventually(|| daemon.cluster.copies().1 == Some(2));
}

#[test]
fn a_caller_that_knows_no_uid_gets_no_copy() {
    let server = server();
    let daemon = Daemon::start(&server);
    assert!(daemon.cluster.pod(&web("nginx-0", "")).unwrap().is_some());
    assert_eq!(server.count("get", "pods"), 1);
}

#[test]
fn while_the_watch_is_broken_everything_is_asked_live() {
    let server = server();
    let daemon = Daemon::start(&server);
    server.fail("watch", "pods", Fault::Status(500, None));
    server.fail("list", "pods", Fault::Status(500, None));
    server.disconnect();
    eventually(|| daemon.cluster.copies().0.is_none());
    let changed = json!({ Pod::NETWORKS: "changed" });
    server.put(pod("nginx-0", UID, "node-1", &changed));
    let networks = || daemon.cluster.pod(&web("nginx-0", UID)).unwrap().unwrap().networks;
    assert_eq!(networks().as_deref(), Some("changed"));
    let live = server.count("get", "pods");
    assert_eq!(live, 1);
    server.recover();
    assert!(daemon.cluster.wait_for_copies(PATIENCE));
    eventually(|| networks().as_deref() == Some("changed"));
    assert_eq!(server.count("get", "pods"), live);
}

#[test]
fn a_daemon_without_permission_to_watch_works_live() {
    let server = server();
    for resource in ["pods", "network-attachment-definitions"] {
        server.deny("list", resource);
    }
    let runtime = runtime();
    let access = access(&server.kubeconfig());
    let cluster = ApiCluster::watching(runtime.handle(), &access, LIMITS, reporter("node-1")).unwrap();
    server.wait_for(2, "list", "pods");
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
    assert!(cluster.network("web", "macvlan-conf").unwrap().is_some());
    server.allow("list", "pods");
    server.allow("list", "network-attachment-definitions");
    assert!(cluster.wait_for_copies(PATIENCE));
}

#[test]
fn a_daemon_that_starts_before_the_server_does_not_wait_for_it() {
    let server = server();
    server.stop();
    let runtime = runtime();
    let limits = Limits { overall: Duration::from_millis(300), ..LIMITS };
    let access = access(&server.kubeconfig());
    let begin = Instant::now();
    let cluster = ApiCluster::watching(runtime.handle(), &access, limits, reporter("node-1")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).is_err());
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(cluster.copies(), (None, None));
    server.resume();
    assert!(cluster.wait_for_copies(PATIENCE));
    assert_eq!(cluster.copies(), (Some(1), Some(1)));
    server.stop();
    eventually(|| cluster.copies() == (None, None));
    server.resume();
    assert!(cluster.wait_for_copies(PATIENCE));
}

#[test]
fn a_watch_that_lost_its_place_begins_anew() {
    let server = server();
    let daemon = Daemon::start(&server);
    server.fail("watch", "pods", Fault::Status(503, None));
    server.disconnect();
    server.wait_for(2, "watch", "pods");
    server.delete("pods", "web", "nginx-0");
    server.put(pod("nginx-1", "77777777", "node-1", &json!({})));
    server.put(pod("nginx-2", "88888888", "node-1", &json!({})));
    server.forget();
    server.recover();
    eventually(|| daemon.cluster.copies().0 == Some(2));
    assert!(server.count("list", "pods") > 1);
}

#[test]
fn a_bookmark_moves_a_watch_along_so_that_it_need_not_begin_anew() {
    let server = server();
    let daemon = Daemon::start(&server);
    // Nothing that concerns the watch; then the past is forgotten.
    let other = server.put(pod("other", "", "node-2", &json!({})));
    server.forget();
    server.bookmark();
    server.disconnect();
    server.wait_for(2, "watch", "pods");
    assert!(daemon.cluster.wait_for_copies(PATIENCE));
    assert_eq!(server.count("list", "pods"), 1);
    let log = server.log();
    let second = log.iter().filter(|asked| asked.verb == "watch" && asked.resource == "pods").nth(1).unwrap();
    assert_eq!(json!(second.query["resourceVersion"]), other["metadata"]["resourceVersion"]);
}

#[test]
fn a_watch_whose_connection_died_in_silence_is_noticed() {
    let server = server();
    server.fail_next(1, "watch", "pods", Fault::Silence);
    let limits =
        Limits { watch: Duration::from_secs(1), attempt: Duration::from_secs(1), overall: Duration::from_secs(2) };
    let daemon = Daemon::start_with(&server, limits);
    server.put(pod("nginx-1", "bbbbbbbb", "node-1", &json!({})));
    eventually(|| daemon.cluster.copies().0 == Some(2));
    assert_eq!(server.count("list", "pods"), 1, "what was missed is in the next watch");
}

#[test]
fn a_watch_that_talks_nonsense_begins_anew() {
    let server = server();
    server.fail_next(1, "watch", "pods", Fault::Garbage);
    server.fail_next(1, "list", "network-attachment-definitions", Fault::Garbage);
    let daemon = Daemon::start(&server);
    server.wait_for(2, "watch", "pods");
    assert!(daemon.cluster.wait_for_copies(PATIENCE));
    assert_eq!(daemon.cluster.copies(), (Some(1), Some(1)));
}

#[test]
fn many_pods_at_once_cost_one_status_write_each_no_reads_and_few_connections() {
    let server = server();
    for number in 0..100 {
        server.put(pod(&format!("pod-{number}"), &format!("uid-{number}"), "node-1", &json!({})));
    }
    let daemon = Daemon::start(&server);
    thread::scope(|scope| {
        for number in 0..100 {
            let cluster = &daemon.cluster;
            scope.spawn(move || {
                let reference = web(&format!("pod-{number}"), &format!("uid-{number}"));
                assert!(cluster.pod(&reference).unwrap().is_some());
                assert!(cluster.network("web", "macvlan-conf").unwrap().is_some());
                cluster.set_network_status(&reference, STATUS).unwrap();
                cluster.emit(&reference, event("Add net1 [] from web/macvlan-conf"));
            });
        }
    });
    assert!(daemon.cluster.flush(PATIENCE));
    assert_eq!(server.count("patch", "pods/status"), 100);
    assert_eq!(server.count("get", "pods") + server.count("get", "network-attachment-definitions"), 0);
    assert_eq!(server.objects("events").len(), 100);
    // Two watches, sixteen at once, and a few that were not back in time.
    assert!(server.accepted() < 40, "{} connections were made", server.accepted());
}

/// A cluster with copies, and the runtime that keeps them.
struct Daemon {
    cluster: ApiCluster,
    _runtime: Runtime,
}

impl Daemon {
    #[track_caller]
    fn start(server: &ApiServer) -> Self {
        Self::start_with(server, LIMITS)
    }

    #[track_caller]
    fn start_with(server: &ApiServer, limits: Limits) -> Self {
        let runtime = runtime();
        let access = access(&server.kubeconfig());
        let cluster = ApiCluster::watching(runtime.handle(), &access, limits, reporter("node-1")).unwrap();
        assert!(cluster.wait_for_copies(PATIENCE));
        Self { cluster, _runtime: runtime }
    }
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Fails when `holds` does not come true.
#[track_caller]
fn eventually(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come true");
        thread::yield_now();
    }
}
