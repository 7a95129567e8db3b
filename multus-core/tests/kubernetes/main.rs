//! The cluster behind an API server, asked over HTTPS.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

mod certificate_request;
mod claims;
mod copies;
mod events;
mod kubelet;
mod network_status;
mod node_certificate;
mod requests;

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use multus_core::{
    Event, EventKind, NetworkAttachmentDefinition, Pod, PodReference,
    kubernetes::{Access, ApiCluster, Limits, Reporter},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kubernetes::ApiServer;

const UID: &str = "11111111-1111-4111-8111-111111111111";
const NETWORKS: &str = "macvlan-conf";
const STATUS: &str = r#"[{"name":"cbr0"}]"#;

const LIMITS: Limits =
    Limits { attempt: Duration::from_secs(3), overall: Duration::from_secs(10), watch: Duration::from_secs(60) };
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with the pod `web/nginx-0` on `node-1` and the network `web/macvlan-conf`.
fn server() -> ApiServer {
    let server = ApiServer::start();
    server.put(pod("nginx-0", UID, "node-1", &json!({ Pod::NETWORKS: NETWORKS })));
    server.put(network("macvlan-conf", r#"{"type":"macvlan"}"#));
    server
}

fn pod(name: &str, uid: &str, node: &str, annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "namespace": "web", "name": name, "uid": uid, "annotations": annotations },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "nginx", "fieldOfTheFuture": 1.5 }] },
        "status": { "phase": "Pending", "anotherOne": { "a": [1, 2, null] } },
        "topLevelToo": true,
    })
}

fn network(name: &str, config: &str) -> Value {
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {
            "namespace": "web", "name": name,
            "annotations": { NetworkAttachmentDefinition::RESOURCE_NAME: "intel.com/sriov" },
        },
        "spec": { "config": config },
    })
}

fn web(name: &str, uid: &str) -> PodReference {
    PodReference { namespace: "web".to_owned(), name: name.to_owned(), uid: uid.to_owned() }
}

fn event(message: &str) -> Event {
    Event { kind: EventKind::Normal, reason: "AddedInterface", message: message.to_owned() }
}

fn reporter(node: &str) -> Reporter {
    let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
    Reporter { component: "multus".to_owned(), node: node.to_owned(), now }
}

fn access(kubeconfig: &str) -> Access {
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("kubeconfig");
    fs::write(&path, kubeconfig).unwrap();
    Access::from_kubeconfig(&path).unwrap()
}

fn thin(server: &ApiServer) -> ApiCluster {
    ApiCluster::new(&access(&server.kubeconfig()), LIMITS, reporter("")).unwrap()
}
