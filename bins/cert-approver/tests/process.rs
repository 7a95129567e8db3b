//! The program as its pod runs it, with nodes that ask.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    process::{Child, Command, Output},
    thread,
    time::{Duration, Instant, SystemTime},
};

use multus_core::kubernetes::{Limits, NodeCertificate};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit_kubernetes::{ApiServer, Fault};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cert-approver");
const PATIENCE: Duration = Duration::from_secs(30);
const REQUESTS: &str = "certificatesigningrequests";
const APPROVAL: &str = "certificatesigningrequests/approval";

#[test]
fn a_node_gets_its_certificate_and_with_it_the_next() {
    let cluster = Cluster::new();
    let _approver = cluster.approver();
    cluster.node_asks("node-1").unwrap();
    let request = &cluster.server.objects(REQUESTS)[0];
    let conditions = request["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1);
    assert_eq!((&conditions[0]["type"], &conditions[0]["reason"]), (&json!("Approved"), &json!("AutoApproved")));
    cluster.server.wait_for(1, "create", "events");
    let event = &cluster.events()[0];
    assert_eq!((&event["reason"], &event["type"]), (&json!("CSRApproved"), &json!("Normal")));
    assert_eq!(event["involvedObject"]["name"], request["metadata"]["name"]);
    assert_eq!(event["involvedObject"]["uid"], request["metadata"]["uid"]);
    // Whoever comes with a certificate is known by it, and not by the token.
    cluster.node_asks("node-1").unwrap();
    assert_eq!(cluster.server.objects(REQUESTS)[1]["spec"]["username"], "system:multus:node-1");
}

#[test]
fn a_node_that_asks_for_anothers_certificate_is_denied_and_told_why() {
    let cluster = Cluster::new();
    let _approver = cluster.approver();
    let error = cluster.node_asks("node-2").unwrap_err();
    let reason = r#"spec.username must be "system:node:node-2" or "system:multus:node-2", not "system:node:node-1""#;
    assert!(error.contains(&format!("is Denied: {reason}")), "{error}");
    let condition = &cluster.server.objects(REQUESTS)[0]["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("AutoDenied"), &json!(reason)));
    cluster.server.wait_for(1, "create", "events");
    let event = &cluster.events()[0];
    assert_eq!((&event["reason"], &event["type"]), (&json!("CSRDenied"), &json!("Warning")));
    assert!(event["message"].as_str().unwrap().contains(reason));
    assert_eq!(cluster.server.count("update", REQUESTS), 0);
}

#[test]
fn what_was_asked_for_before_it_came_is_decided_and_what_is_not_its_own_is_not() {
    let cluster = Cluster::new();
    cluster.server.put(request("waiting", "system:node:node-1", "kubernetes.io/kube-apiserver-client", &cluster));
    cluster.server.put(request("serving", "system:node:node-1", "kubernetes.io/kubelet-serving", &cluster));
    let mut decided = request("decided", "system:node:node-1", "kubernetes.io/kube-apiserver-client", &cluster);
    decided["status"] = json!({ "conditions": [{ "type": "Denied", "status": "True" }] });
    cluster.server.put(decided);
    let _approver = cluster.approver();
    cluster.wait_for_verdict("waiting", "Approved");
    cluster.server.put(request("late", "system:node:node-2", "kubernetes.io/kube-apiserver-client", &cluster));
    cluster.wait_for_verdict("late", "Denied");
    assert!(cluster.object("serving").get("status").is_none());
    assert_eq!(cluster.object("decided")["status"]["conditions"].as_array().unwrap().len(), 1);
    assert_eq!(cluster.server.count("update", APPROVAL), 2);
}

#[test]
fn whatever_fails_is_tried_again_until_it_is_decided() {
    let cluster = Cluster::new();
    cluster.server.fail_next(1, "list", REQUESTS, Fault::Garbage);
    cluster.server.fail_next(1, "watch", REQUESTS, Fault::Disconnect);
    cluster.server.fail_next(1, "get", REQUESTS, Fault::Garbage);
    cluster.server.fail_next(2, "update", APPROVAL, Fault::Status(409, None));
    cluster.server.fail_next(1, "update", APPROVAL, Fault::Disconnect);
    cluster.server.deny("create", "events");
    let _approver = cluster.approver();
    cluster.server.put(request("one", "system:node:node-1", "kubernetes.io/kube-apiserver-client", &cluster));
    cluster.wait_for_verdict("one", "Approved");
    // Without the right to do so nothing happens, and nothing is hammered.
    cluster.server.deny("update", APPROVAL);
    let before = cluster.server.count("update", APPROVAL);
    cluster.server.put(request("two", "system:node:node-1", "kubernetes.io/kube-apiserver-client", &cluster));
    thread::sleep(Duration::from_secs(2));
    let tries = cluster.server.count("update", APPROVAL) - before;
    assert!((1..=10).contains(&tries), "{tries}");
    cluster.server.allow("update", APPROVAL);
    cluster.wait_for_verdict("two", "Approved");
    // What comes while the server cannot be reached is found afterwards.
    cluster.server.stop();
    cluster.server.put(request("three", "system:node:node-1", "kubernetes.io/kube-apiserver-client", &cluster));
    cluster.server.resume();
    cluster.wait_for_verdict("three", "Approved");
}

#[test]
fn signals_end_it_and_what_is_missing_is_named() {
    let cluster = Cluster::new();
    for (number, signal) in [(1, Signal::SIGTERM), (2, Signal::SIGINT)] {
        let mut approver = cluster.approver();
        cluster.server.wait_for(number, "watch", REQUESTS);
        kill(Pid::from_raw(approver.0.id().try_into().unwrap()), signal).unwrap();
        assert!(approver.0.wait().unwrap().success());
    }
    let refused = |command: &mut Command| {
        let Output { status, stderr, .. } = command.output().unwrap();
        assert_eq!(status.code(), Some(1));
        String::from_utf8(stderr).unwrap()
    };
    let missing = refused(cluster.command().env_remove("KUBERNETES_SERVICE_PORT"));
    assert!(missing.contains("KUBERNETES_SERVICE_PORT is not set"), "{missing}");
    assert!(refused(cluster.command().arg("--kubeconfig=/x")).contains("there is no flag --kubeconfig"));
    fs::remove_file(cluster.directory.path().join("token")).unwrap();
    assert!(refused(&mut cluster.command()).contains("token\" is missing"));
    for (flag, text) in [("--help", "--service-account-dir"), ("--version", "cert-approver 0.")] {
        let output = Command::new(PROGRAM).arg(flag).env_clear().output().unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains(text), "{flag}");
    }
}

/// A server that signs what is approved, where the token is that of the kubelet of `node-1`.
struct Cluster {
    directory: TempDir,
    server: ApiServer,
}

struct Approver(Child);

impl Cluster {
    fn new() -> Self {
        let cluster = Self { directory: TempDir::new().unwrap(), server: ApiServer::start() };
        cluster.server.write_service_account(cluster.directory.path());
        cluster.server.identify("system:node:node-1", &["system:nodes", "system:authenticated"]);
        cluster.server.sign_approved_certificates(Duration::from_secs(600));
        cluster
    }

    fn command(&self) -> Command {
        let address = self.server.address();
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("KUBERNETES_SERVICE_HOST", address.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", address.port().to_string());
        command.arg("--service-account-dir").arg(self.directory.path());
        command
    }

    fn approver(&self) -> Approver {
        Approver(self.command().spawn().unwrap())
    }

    /// Asks for the certificate of `node`.
    fn node_asks(&self, node: &str) -> Result<(), String> {
        let bootstrap = self.directory.path().join("bootstrap");
        fs::write(&bootstrap, self.server.kubeconfig()).unwrap();
        let certificates = self.directory.path().join("certs");
        let certificate = NodeCertificate::new(&bootstrap, &certificates, node, Duration::from_secs(600)).unwrap();
        certificate.renew(SystemTime::now(), Limits::default(), PATIENCE).map_err(|error| error.to_string())
    }

    fn object(&self, name: &str) -> Value {
        self.server.object(REQUESTS, "", name).unwrap()
    }

    fn events(&self) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        while self.server.objects("events").is_empty() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.server.objects("events")
    }

    #[track_caller]
    fn wait_for_verdict(&self, name: &str, verdict: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.object(name)["status"]["conditions"][0]["type"].clone();
            if found == verdict {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {found}");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Approver {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A request for the certificate of `node-1`.
fn request(name: &str, username: &str, signer: &str, cluster: &Cluster) -> Value {
    // One that a node has made.
    let other = ApiServer::start();
    other.sign_certificates(Duration::from_secs(600));
    let bootstrap = cluster.directory.path().join("other");
    fs::write(&bootstrap, other.kubeconfig()).unwrap();
    let directory = TempDir::new().unwrap();
    let certificate = NodeCertificate::new(&bootstrap, directory.path(), "node-1", Duration::from_secs(600)).unwrap();
    certificate.renew(SystemTime::now(), Limits::default(), PATIENCE).unwrap();
    let made = &other.objects(REQUESTS)[0];
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": { "name": name },
        "spec": {
            "request": made["spec"]["request"], "signerName": signer, "usages": made["spec"]["usages"],
            "expirationSeconds": 600, "username": username, "groups": ["system:nodes", "system:authenticated"],
        },
    })
}
