//! Rights: the real client under exactly what the manifests grant.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::rbac::v1::ClusterRole;
use multus_core::{
    Cluster, Event, EventKind, PodReference,
    kubernetes::{Access, ApiCluster, Limits, NodeCertificate, Reporter},
};
use serde_json::json;
use testkit::Lab;
use testkit_kubernetes::{ApiServer, Grant};
use tokio::sync::oneshot;

use crate::{files::yaml, node::Node};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn the_daemon_needs_all_of_its_role_and_nothing_else(lab: &Lab) {
    lab.host.within(|| {
        let (server, granted) = server("deploy/thick/cluster-role.yaml");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let access = access(lab, &server);
        let cluster = ApiCluster::watching(runtime.handle(), &access, Limits::default(), reporter()).unwrap();
        let (end, ended) = oneshot::channel::<()>();
        thread::scope(|scope| {
            // The watches run there.
            scope.spawn(|| runtime.block_on(ended));
            assert!(cluster.wait_for_copies(PATIENCE));
            do_everything(&server, &cluster);
            drop(end);
        });
        assert_eq!(used(&server), granted);
        server.stop();
    });
}

pub(crate) fn the_thin_program_needs_all_of_its_role_and_nothing_else(lab: &Lab) {
    lab.host.within(|| {
        let (server, granted) = server("deploy/thin/cluster-role.yaml");
        do_everything(&server, &ApiCluster::new(&access(lab, &server), Limits::default(), reporter()).unwrap());
        assert_eq!(used(&server), granted);
        server.stop();
    });
}

pub(crate) fn a_certificate_needs_all_of_its_role_and_nothing_else(lab: &Lab) {
    lab.host.within(|| {
        let (server, granted) = server("deploy/components/node-certificates/certificate-role.yaml");
        server.sign_certificates(Duration::from_secs(600));
        fs::write(lab.path("kubeconfig"), server.kubeconfig()).unwrap();
        let duration = Duration::from_secs(600);
        let certificate = NodeCertificate::new(&lab.path("kubeconfig"), &lab.path("certs"), "node1", duration).unwrap();
        certificate.renew(SystemTime::now(), Limits::default(), PATIENCE).unwrap();
        assert_eq!(used(&server), granted);
        server.stop();
    });
}

pub(crate) fn resource_claims_need_all_of_their_role_and_nothing_else(lab: &Lab) {
    lab.host.within(|| {
        let (server, granted) = server("deploy/components/dynamic-resources/cluster-role.yaml");
        let template = json!([{"name": "nic", "resourceClaimTemplateName": "nic"}]);
        let pod = Grant { verb: "get".to_owned(), group: String::new(), resource: "pods".to_owned() };
        server.grant_only(granted.iter().chain([&pod]).cloned().collect());
        server.put(json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node1", "resourceClaims": template},
            "metadata": {"namespace": "web", "name": "web-0", "uid": "uid-web-0"},
            "status": {"resourceClaimStatuses": [{"name": "nic", "resourceClaimName": "web-0-nic"}]},
        }));
        let result = json!({"request": "nic", "driver": "nics.example.com", "pool": "node1", "device": "vf0"});
        server.put(json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"namespace": "web", "name": "web-0-nic"},
            "status": {"allocation": {"devices": {"results": [result]}}},
        }));
        let cluster = ApiCluster::new(&access(lab, &server), Limits::default(), reporter()).unwrap();
        let reference =
            PodReference { namespace: "web".to_owned(), name: "web-0".to_owned(), uid: "uid-web-0".to_owned() };
        // That there is no slice with the device may be an error; what counts is what was asked.
        let _no_such_device = cluster.claimed_devices(&reference);
        let mut used = used(&server);
        assert!(used.remove(&pod));
        assert_eq!(used, granted);
        server.stop();
    });
}

pub(crate) fn a_pod_gets_its_networks_under_the_role(lab: &Lab) {
    let mut node = Node::without_daemon(lab, json!({}));
    node.api.grant_only(grants("deploy/thick/cluster-role.yaml").into_iter().collect());
    node.start();
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.api.wait_for(2, "create", "events");
    assert_eq!(node.network_status("web-0").as_array().unwrap().len(), 2);
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

/// Whatever a cluster can be asked, in the ways that cost the most rights.
fn do_everything(server: &ApiServer, cluster: &ApiCluster) {
    let pod = PodReference { namespace: "web".to_owned(), name: "web-0".to_owned(), uid: "uid-web-0".to_owned() };
    assert!(cluster.pod(&pod).unwrap().is_some());
    let newer = PodReference { name: "web-1".to_owned(), uid: "uid-web-1".to_owned(), ..pod.clone() };
    assert_eq!(cluster.pod(&newer).unwrap(), None);
    assert!(cluster.network("web", "macvlan-conf").unwrap().is_some());
    assert_eq!(cluster.network("web", "newer").unwrap(), None);
    cluster.set_network_status(&pod, "[]").unwrap();
    // As where an admission rule forbids it.
    server.deny("patch", "pods/status");
    cluster.set_network_status(&pod, "[1]").unwrap();
    for _ in 0..2 {
        cluster.emit(&pod, Event { kind: EventKind::Normal, reason: "AddedInterface", message: "Add net1".to_owned() });
    }
    assert!(cluster.flush(PATIENCE));
    let events = server.objects("events");
    assert_eq!((events.len(), &events[0]["count"]), (1, &json!(2)));
    let stored = server.object("pods", "web", "web-0").unwrap();
    assert_eq!(stored["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"], "[1]");
}

/// A server that grants what the role in `file` does, with a pod and a network.
fn server(file: &str) -> (ApiServer, BTreeSet<Grant>) {
    let (server, granted) = (ApiServer::start(), grants(file));
    server.put(json!({
        "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node1"},
        "metadata": {"namespace": "web", "name": "web-0", "uid": "uid-web-0"},
    }));
    server.put(json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {"namespace": "web", "name": "macvlan-conf"}, "spec": {"config": "{}"},
    }));
    server.grant_only(granted.iter().cloned().collect());
    (server, granted)
}

/// The rules of the first role in `file`, each verb by itself.
fn grants(file: &str) -> BTreeSet<Grant> {
    let role: ClusterRole = serde_json::from_value(yaml(file).remove(0)).unwrap();
    let mut grants = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert!(rule.resource_names.is_none() && rule.non_resource_urls.is_none(), "{rule:?}");
        for group in rule.api_groups.unwrap() {
            for resource in rule.resources.clone().unwrap() {
                for verb in rule.verbs.clone() {
                    assert!(verb != "*" && resource != "*" && group != "*", "{file}");
                    grants.insert(Grant { verb, group: group.clone(), resource: resource.clone() });
                }
            }
        }
    }
    grants
}

fn used(server: &ApiServer) -> BTreeSet<Grant> {
    let log = server.log().into_iter();
    log.map(|asked| Grant { verb: asked.verb, group: asked.group, resource: asked.resource }).collect()
}

fn access(lab: &Lab, server: &ApiServer) -> Access {
    fs::write(lab.path("kubeconfig"), server.kubeconfig()).unwrap();
    Access::from_kubeconfig(&lab.path("kubeconfig")).unwrap()
}

fn reporter() -> Reporter {
    Reporter { component: "multus".to_owned(), node: "node1".to_owned(), now: SystemTime::now }
}
