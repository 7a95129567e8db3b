//! A client certificate for each node.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use multus_core::{
    Cluster,
    kubernetes::{Access, ApiCluster, NodeCertificate},
};
use serde_json::json;
use tempfile::TempDir;
use testkit_kubernetes::ApiServer;

use crate::{LIMITS, PATIENCE, UID, reporter, server, web};

#[test]
fn a_node_gets_a_certificate_of_its_own_and_needs_nothing_else_from_then_on() {
    let server = server();
    server.sign_certificates(Duration::from_secs(600));
    let node = Node::new(&server);
    let certificate = node.certificate();
    let now = SystemTime::now();
    assert_eq!(certificate.renewal(now).unwrap(), None);
    certificate.renew(now, LIMITS, PATIENCE).unwrap();
    let request = &server.objects("certificatesigningrequests")[0]["spec"];
    assert_eq!(request["signerName"], "kubernetes.io/kube-apiserver-client");
    assert_eq!(request["usages"], json!(["digital signature", "client auth"]));
    assert_eq!(request["expirationSeconds"], 600);
    let cluster = ApiCluster::new(&certificate.access().unwrap(), LIMITS, reporter("")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
    let path = node.directory.path().join("run/multus.kubeconfig");
    certificate.write_kubeconfig(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("multus-client-current.pem") && !text.contains(ApiServer::TOKEN), "{text}");
    let cluster = ApiCluster::new(&Access::from_kubeconfig(&path).unwrap(), LIMITS, reporter("")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
    let users: Vec<String> = server.log().into_iter().map(|asked| asked.user).collect();
    assert!(users.iter().rev().take(2).all(|user| user == "system:multus:node-1"), "{users:?}");
    assert_eq!(users[0], "");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(node.current()), 0o600);
    assert_eq!(mode(path), 0o600);
}

#[test]
fn a_certificate_is_renewed_by_itself_before_it_ends_and_leaves_one_file() {
    let server = server();
    server.sign_certificates(Duration::from_secs(600));
    let node = Node::new(&server);
    let certificate = node.certificate();
    let now = SystemTime::now();
    certificate.renew(now, LIMITS, PATIENCE).unwrap();
    // The signer dates it back by five minutes: four fifths of fifteen minutes are seven from now.
    let renewal = certificate.renewal(now).unwrap().unwrap();
    let due = renewal.duration_since(now).unwrap();
    assert!((410..=421).contains(&due.as_secs()), "{due:?}");
    let first = fs::read_to_string(node.current()).unwrap();
    certificate.renew(renewal, LIMITS, PATIENCE).unwrap();
    assert_eq!(server.log().last().unwrap().user, "system:multus:node-1");
    let second = fs::read_to_string(node.current()).unwrap();
    let key = |pem: &str| pem.split("PRIVATE KEY").nth(1).unwrap().to_owned();
    assert_ne!(key(&first), key(&second), "a key is used once");
    let files = fs::read_dir(node.directory.path().join("certs")).unwrap().count();
    assert_eq!(files, 2, "the certificate, and the link to it");
    let long_after = now + Duration::from_secs(3600);
    assert_eq!(certificate.renewal(long_after).unwrap(), None);
    certificate.renew(long_after, LIMITS, PATIENCE).unwrap();
    assert_eq!(server.log().last().unwrap().user, "", "one that has ended is not shown");
}

#[test]
fn a_certificate_that_the_server_does_not_take_any_more_is_replaced_through_the_bootstrap() {
    let (server, former) = (server(), server());
    former.sign_certificates(Duration::from_secs(600));
    let node = Node::new(&former);
    node.certificate().renew(SystemTime::now(), LIMITS, PATIENCE).unwrap();
    // The cluster has a new authority.
    server.sign_certificates(Duration::from_secs(600));
    fs::write(node.bootstrap(), server.kubeconfig()).unwrap();
    let certificate = node.certificate();
    assert!(certificate.renewal(SystemTime::now()).unwrap().is_some());
    certificate.renew(SystemTime::now(), LIMITS, PATIENCE).unwrap();
    let cluster = ApiCluster::new(&certificate.access().unwrap(), LIMITS, reporter("")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
}

#[test]
fn a_certificate_that_nobody_signs_is_an_error_that_says_what_to_do_and_the_present_one_stays() {
    let server = server();
    server.sign_certificates(Duration::from_secs(600));
    let node = Node::new(&server);
    node.certificate().renew(SystemTime::now(), LIMITS, PATIENCE).unwrap();
    let before = fs::read_to_string(node.current()).unwrap();
    let error = |server: &ApiServer| {
        fs::write(node.bootstrap(), server.kubeconfig()).unwrap();
        let later = SystemTime::now() + Duration::from_secs(3600);
        node.certificate().renew(later, LIMITS, Duration::from_millis(200)).unwrap_err().to_string()
    };
    let idle = crate::server();
    let waiting = error(&idle);
    assert!(waiting.starts_with("client certificate of node \"node-1\" was not approved"), "{waiting}");
    assert!(waiting.contains("kubectl certificate approve csr-"), "{waiting}");
    idle.deny("create", "certificatesigningrequests");
    assert!(error(&idle).contains("403 Forbidden"));
    assert_eq!(fs::read_to_string(node.current()).unwrap(), before);
}

#[test]
fn a_certificate_file_that_is_torn_or_of_something_else_counts_as_none() {
    let server = server();
    server.sign_certificates(Duration::from_secs(600));
    let node = Node::new(&server);
    let certificate = node.certificate();
    certificate.renew(SystemTime::now(), LIMITS, PATIENCE).unwrap();
    let whole = fs::read_to_string(node.current()).unwrap();
    for content in ["", "\0", &whole[..200], "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(node.current(), content).unwrap();
        assert_eq!(certificate.renewal(SystemTime::now()).unwrap(), None, "{content:?}");
        assert!(certificate.access().is_err(), "{content:?}");
    }
    certificate.renew(SystemTime::now(), LIMITS, PATIENCE).unwrap();
    assert!(certificate.renewal(SystemTime::now()).unwrap().is_some());
}

/// A node's directory, with a bootstrap kubeconfig.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new(server: &ApiServer) -> Self {
        let node = Self { directory: TempDir::new().unwrap() };
        fs::write(node.bootstrap(), server.kubeconfig()).unwrap();
        node
    }

    fn bootstrap(&self) -> PathBuf {
        self.directory.path().join("bootstrap.kubeconfig")
    }

    fn current(&self) -> PathBuf {
        self.directory.path().join("certs/multus-client-current.pem")
    }

    fn certificate(&self) -> NodeCertificate {
        let certs = self.directory.path().join("certs");
        NodeCertificate::new(&self.bootstrap(), &certs, "node-1", Duration::from_secs(600)).unwrap()
    }
}
