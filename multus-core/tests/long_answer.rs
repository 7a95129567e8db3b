//! Answers as long as they may be, in a program of their own: they take a machine's time from others.

#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, and says where")]

use std::{
    fs,
    time::{Duration, SystemTime},
};

use multus_core::{
    Cluster,
    kubernetes::{Access, ApiCluster, Limits, Reporter},
};
use serde_json::json;
use testkit_kubernetes::{ApiServer, Fault};

#[test]
fn an_answer_may_have_64_mib() {
    let server = ApiServer::start();
    server.put(json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "web", "name": "n"}, "spec": {"config": "{}"},
    }));
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    // However slow the machine.
    let patience = Duration::from_secs(120);
    let limits = Limits { attempt: patience, overall: patience, watch: patience };
    let reporter = Reporter { component: "multus".to_owned(), node: String::new(), now: SystemTime::now };
    let cluster = ApiCluster::new(&Access::from_kubeconfig(&kubeconfig).unwrap(), limits, reporter).unwrap();
    let ask = |size| {
        server.fail_next(1, "get", "network-attachment-definitions", Fault::Size(size));
        cluster.network("web", "n").map(|network| network.unwrap().config)
    };
    assert_eq!(ask(64 << 20).unwrap(), "");
    let error = ask((64 << 20) + 1).unwrap_err().to_string();
    assert!(error.ends_with("answered with more than 67108864 bytes"), "{error}");
    // And the next one as ever; nothing was asked for again.
    assert_eq!(cluster.network("web", "n").unwrap().unwrap().config, "{}");
    assert_eq!(server.count("get", "network-attachment-definitions"), 3);
}
