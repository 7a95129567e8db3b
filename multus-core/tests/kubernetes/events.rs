//! Events about pods.

use std::time::{Duration, Instant};

use multus_core::Cluster;
use serde_json::json;
use testkit_kubernetes::Fault;

use crate::{PATIENCE, UID, event, server, thin, web};

#[test]
fn events_reach_the_server_before_a_short_lived_program_ends() {
    let server = server();
    let cluster = thin(&server);
    cluster.emit(&web("nginx-0", UID), event("Add net1 [192.168.1.200/24] from web/macvlan-conf"));
    cluster.emit(&web("nginx-0", UID), event("Add net2 [] from web/storage"));
    assert!(cluster.flush(PATIENCE));
    let events = server.objects("events");
    assert_eq!(events.len(), 2, "{events:?}");
    let first = &events[0];
    assert_eq!(first["message"], "Add net1 [192.168.1.200/24] from web/macvlan-conf");
    assert_eq!((&first["type"], &first["reason"]), (&json!("Normal"), &json!("AddedInterface")));
    let about = json!({ "apiVersion": "v1", "kind": "Pod", "namespace": "web", "name": "nginx-0", "uid": UID });
    assert_eq!(first["involvedObject"], about);
    assert_eq!(first["source"]["component"], "multus");
    assert_eq!(first["firstTimestamp"], "2026-01-02T03:04:05Z");
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("nginx-0."));
}

#[test]
fn an_event_that_repeats_itself_is_counted() {
    let server = server();
    let cluster = thin(&server);
    for _ in 0..3 {
        cluster.emit(&web("nginx-0", UID), event("the same"));
    }
    assert!(cluster.flush(PATIENCE));
    let events = server.objects("events");
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["count"], 3);
    let name = events[0]["metadata"]["name"].as_str().unwrap();
    server.delete("events", "web", name);
    cluster.emit(&web("nginx-0", UID), event("the same"));
    assert!(cluster.flush(PATIENCE));
    assert_eq!(server.objects("events").len(), 1);
}

#[test]
fn events_that_find_no_room_are_dropped_without_delay() {
    let server = server();
    server.fail("create", "events", Fault::Silence);
    let cluster = thin(&server);
    let begin = Instant::now();
    for number in 0..1000 {
        cluster.emit(&web("nginx-0", UID), event(&number.to_string()));
    }
    assert_eq!(cluster.dropped_events(), 744);
    assert!(!cluster.flush(Duration::from_millis(200)), "nothing can have been sent");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_event_that_is_refused_holds_up_nothing() {
    let server = server();
    server.deny("create", "events");
    let cluster = thin(&server);
    cluster.emit(&web("nginx-0", UID), event("refused"));
    assert!(cluster.flush(PATIENCE));
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
    assert_eq!(server.count("create", "events"), 1);
}
