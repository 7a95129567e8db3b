//! Writing the network status of a pod.

use std::{thread, time::Duration};

use multus_core::{Cluster, Pod};
use serde_json::{Value, json};
use testkit_kubernetes::{ApiServer, Fault};

use crate::{STATUS, UID, pod, server, thin, web};

#[test]
fn one_small_patch_sets_the_network_status_and_nothing_else() {
    let server = server();
    let before = server.object("pods", "web", "nginx-0").unwrap();
    thin(&server).set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    let log = server.log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!((log[0].verb.as_str(), log[0].resource.as_str()), ("patch", "pods/status"));
    assert!(log[0].metadata_only && log[0].body_length < 300, "{log:?}");
    assert_only_status_differs(before, &server);
}

#[test]
fn where_a_patch_is_forbidden_the_pod_is_replaced_with_all_its_fields() {
    let server = server();
    server.deny("patch", "pods/status");
    let before = server.object("pods", "web", "nginx-0").unwrap();
    let cluster = thin(&server);
    cluster.set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    assert_only_status_differs(before, &server);
    cluster.set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    assert_eq!(server.count("patch", "pods/status"), 1, "it was tried again");
    assert_eq!(server.count("update", "pods/status"), 2);
}

#[test]
fn a_pod_without_annotations_gets_its_first() {
    for verb in ["none", "patch"] {
        let server = server();
        server.deny(verb, "pods/status");
        let mut bare = pod("bare", UID, "node-1", &Value::Null);
        bare["metadata"].as_object_mut().unwrap().remove("annotations");
        server.put(bare);
        thin(&server).set_network_status(&web("bare", UID), STATUS).unwrap();
        let annotations = &server.object("pods", "web", "bare").unwrap()["metadata"]["annotations"];
        assert_eq!(*annotations, json!({ Pod::NETWORK_STATUS: STATUS }));
    }
}

#[test]
fn conflicts_are_retried_on_the_newest_object() {
    let server = server();
    server.fail_next(2, "patch", "pods/status", Fault::Status(409, None));
    thin(&server).set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    assert_eq!(server.count("patch", "pods/status"), 3);
    server.deny("patch", "pods/status");
    // More than the five tries that upstream makes.
    server.fail_next(7, "update", "pods/status", Fault::Status(409, None));
    thin(&server).set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    assert_eq!(server.count("update", "pods/status"), 8);
}

#[test]
fn another_writer_between_reading_and_writing_loses_nothing() {
    let server = server();
    server.deny("patch", "pods/status");
    server.fail_next(1, "update", "pods/status", Fault::Delay(Duration::from_millis(300)));
    let cluster = thin(&server);
    thread::scope(|scope| {
        let writing = scope.spawn(|| cluster.set_network_status(&web("nginx-0", UID), STATUS));
        server.wait_for(1, "update", "pods/status");
        let mut object = server.object("pods", "web", "nginx-0").unwrap();
        object["status"]["phase"] = "Running".into();
        server.put(object);
        writing.join().unwrap().unwrap();
    });
    let object = server.object("pods", "web", "nginx-0").unwrap();
    assert_eq!(object["status"]["phase"], "Running");
    assert_eq!(object["metadata"]["annotations"][Pod::NETWORK_STATUS], STATUS);
}

#[test]
fn the_status_of_a_pod_that_is_gone_is_no_failure() {
    for verb in ["none", "patch"] {
        let server = server();
        server.deny(verb, "pods/status");
        server.delete("pods", "web", "nginx-0");
        thin(&server).set_network_status(&web("nginx-0", UID), STATUS).unwrap();
    }
}

#[test]
fn another_pod_of_that_name_keeps_its_annotations() {
    for verb in ["none", "patch"] {
        let server = server();
        server.deny(verb, "pods/status");
        let other = "99999999-9999-4999-8999-999999999999";
        let error = thin(&server).set_network_status(&web("nginx-0", other), STATUS).unwrap_err().to_string();
        let expected = format!("expected pod UID {other:?} but got {UID:?} from Kube API");
        assert!(error.contains(&expected), "{error}");
        let annotations = &server.object("pods", "web", "nginx-0").unwrap()["metadata"]["annotations"];
        assert_eq!(annotations[Pod::NETWORK_STATUS], Value::Null);
    }
}

#[test]
fn a_status_that_the_role_forbids_altogether_is_an_error_that_says_so() {
    let server = server();
    server.deny("patch", "pods/status");
    server.deny("update", "pods/status");
    let error = thin(&server).set_network_status(&web("nginx-0", UID), STATUS).unwrap_err().to_string();
    assert!(error.contains("403 Forbidden") && error.contains("cannot update resource"), "{error}");
}

#[track_caller]
fn assert_only_status_differs(mut before: Value, server: &ApiServer) {
    let after = server.object("pods", "web", "nginx-0").unwrap();
    before["metadata"]["annotations"][Pod::NETWORK_STATUS] = STATUS.into();
    before["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"].clone();
    assert_eq!(after, before);
}
