//! Questions, their deadlines and their repetition.

use std::{
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use multus_core::{
    Cluster, NetworkAttachmentDefinition, Pod,
    kubernetes::{Access, ApiCluster, Error, Limits},
};
use serde_json::json;
use tempfile::TempDir;
use testkit_kubernetes::{ApiServer, Fault};

use crate::{LIMITS, NETWORKS, STATUS, UID, access, network, pod, reporter, server, thin, web};

#[test]
fn a_pod_and_its_network_are_asked_for_once_each_and_without_the_pods_specification() {
    let server = server();
    let cluster = thin(&server);
    let pod = cluster.pod(&web("nginx-0", UID)).unwrap().unwrap();
    assert_eq!(pod.reference, web("nginx-0", UID));
    assert_eq!(pod.networks.as_deref(), Some(NETWORKS));
    let network = cluster.network("web", "macvlan-conf").unwrap().unwrap();
    let expected = NetworkAttachmentDefinition {
        namespace: "web".to_owned(),
        name: "macvlan-conf".to_owned(),
        config: r#"{"type":"macvlan"}"#.to_owned(),
        resource_name: Some("intel.com/sriov".to_owned()),
    };
    assert_eq!(network, expected);
    let log = server.log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].metadata_only, "{log:?}");
}

#[test]
fn what_does_not_exist_is_none_at_once() {
    let server = server();
    let cluster = thin(&server);
    assert_eq!(cluster.pod(&web("nginx-9", UID)).unwrap(), None);
    assert_eq!(cluster.network("web", "storage").unwrap(), None);
    assert_eq!(server.log().len(), 2);
}

#[test]
fn a_static_pod_is_known_as_one() {
    let server = server();
    server.put(pod("kube-proxy", "22222222", "node-1", &json!({ "kubernetes.io/config.source": "file" })));
    assert!(thin(&server).pod(&web("kube-proxy", UID)).unwrap().unwrap().is_static);
}

#[test]
fn a_pod_on_its_service_account_reaches_the_server() {
    let server = server();
    let directory = TempDir::new().unwrap();
    server.write_service_account(directory.path());
    let address = server.address();
    let access = Access::in_cluster("127.0.0.1", &address.port().to_string(), directory.path()).unwrap();
    assert_eq!(access.host(), format!("https://{address}"));
    let cluster = ApiCluster::new(&access, LIMITS, reporter("")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
}

#[test]
fn credentials_that_are_unusable_are_named_with_their_file() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("multus.kubeconfig");
    let text = |result: Result<Access, Error>| result.unwrap_err().to_string();
    let missing = text(Access::from_kubeconfig(&path));
    assert!(missing.contains("multus.kubeconfig") && missing.contains("No such file"), "{missing}");
    let kubeconfig = ApiServer::start().kubeconfig();
    let broken = |from: &str, to: &str| kubeconfig.replace(from, to);
    for content in [
        "\0".to_owned(),
        "{".to_owned(),
        "clusters: 5".to_owned(),
        "{}".to_owned(),
        "apiVersion: v1\ncurrent-context: gone\n".to_owned(),
        broken("https://", ""),
        broken("https://127.0.0.1", "/"),
        broken("https://", "unix://"),
        broken("\"certificate-authority-data\":\"", "\"certificate-authority-data\":\"!"),
        broken("\"server\"", "\"proxy-url\":\"http://proxy\",\"server\""),
    ] {
        fs::write(&path, &content).unwrap();
        let malformed = text(Access::from_kubeconfig(&path));
        assert!(malformed.starts_with("kubeconfig \"") && malformed.len() < 400, "{content:?}: {malformed}");
    }
    let missing = text(Access::in_cluster("10.96.0.1", "443", directory.path()));
    assert!(missing.contains("ca.crt") && missing.contains("is missing"), "{missing}");
    fs::write(directory.path().join("ca.crt"), "").unwrap();
    fs::write(directory.path().join("token"), "secret").unwrap();
    let malformed = text(Access::in_cluster("10.96.0.1", "port", directory.path()));
    assert!(malformed.contains("https://10.96.0.1:port") && !malformed.contains("secret"), "{malformed}");
}

#[test]
fn a_wrong_token_is_no_reason_to_ask_again_and_is_not_told() {
    let server = server();
    let access = access(&server.kubeconfig_with_token("secret-token"));
    let cluster = ApiCluster::new(&access, LIMITS, reporter("")).unwrap();
    let error = cluster.pod(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.starts_with("get pod web/nginx-0: API server https://127.0.0.1:"), "{error}");
    assert!(error.contains("401 Unauthorized") && !error.contains("secret-token"), "{error}");
    assert_eq!(server.log().len(), 1);
}

#[test]
fn a_server_with_another_authority_is_not_trusted() {
    let (server, other) = (server(), server());
    let kubeconfig = other.kubeconfig().replace(&other.address().to_string(), &server.address().to_string());
    let cluster = ApiCluster::new(&access(&kubeconfig), LIMITS, reporter("")).unwrap();
    let begin = Instant::now();
    let error = cluster.pod(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    assert!(begin.elapsed() < LIMITS.overall, "it was asked again");
}

#[test]
fn names_that_would_leave_their_place_in_a_path_are_refused() {
    let server = server();
    let cluster = thin(&server);
    for name in ["", "..", "../../secrets/token", "a/b", "a?watch=true", "a%2fb", "A", "a b", "a\n"] {
        let error = cluster.pod(&web(name, UID)).unwrap_err().to_string();
        assert!(error.contains(&format!("pod {name:?} is no name that Kubernetes allows")), "{error}");
        assert!(cluster.network(name, "macvlan-conf").is_err());
        assert!(cluster.network("web", name).is_err());
        assert!(cluster.set_network_status(&web(name, UID), STATUS).is_err());
    }
    assert!(server.log().is_empty());
}

#[test]
fn what_is_transient_is_asked_again() {
    for fault in [
        Fault::Status(429, Some(0)),
        Fault::Status(500, None),
        Fault::Status(503, None),
        Fault::Status(504, None),
        Fault::Disconnect,
        Fault::Silence,
    ] {
        let server = server();
        server.fail_next(2, "get", "pods", fault);
        let limits = Limits { attempt: Duration::from_millis(500), overall: Duration::from_secs(20), ..LIMITS };
        let cluster = ApiCluster::new(&access(&server.kubeconfig()), limits, reporter("")).unwrap();
        assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some(), "{fault:?}");
        assert_eq!(server.count("get", "pods"), 3, "{fault:?}");
    }
}

#[test]
fn what_is_not_transient_is_asked_once() {
    for (fault, text) in [
        (Fault::Status(400, None), "400 Bad Request"),
        (Fault::Status(401, None), "401 Unauthorized"),
        (Fault::Status(403, None), "403 Forbidden"),
        (Fault::Status(404, None), "404 Not Found"),
        (Fault::Garbage, "something else than a pod"),
        (Fault::NotHttp, "cannot be reached"),
    ] {
        let server = server();
        server.fail("get", "pods", fault);
        let error = thin(&server).pod(&web("nginx-0", UID)).unwrap_err().to_string();
        assert!(error.starts_with("get pod web/nginx-0: API server https://127.0.0.1:"), "{error}");
        assert!(error.contains(text), "{error}");
        assert_eq!(server.count("get", "pods"), 1, "{fault:?}");
    }
}

#[test]
fn an_object_of_the_wrong_shape_is_an_error_without_its_content() {
    let server = server();
    let cluster = thin(&server);
    for spec in [json!({ "config": { "password": "hunter2" } }), json!("hunter2"), json!({ "config": ["hunter2"] })] {
        let mut object = network("odd", "{}");
        object["spec"] = spec;
        server.put(object);
        let error = cluster.network("web", "odd").unwrap_err().to_string();
        assert!(error.starts_with("get network-attachment-definition web/odd: API server"), "{error}");
        assert!(error.contains("something else than a network-attachment-definition"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    for spec in [json!(null), json!({}), json!({ "config": null })] {
        let mut object = network("empty", "{}");
        object["spec"] = spec;
        server.put(object);
        assert_eq!(cluster.network("web", "empty").unwrap().unwrap().config, "");
    }
    for annotations in [json!("hunter2"), json!(["hunter2"]), json!({ "a": { "b": "hunter2" } })] {
        server.put(pod("odd", UID, "node-1", &annotations));
        let error = cluster.pod(&web("odd", UID)).unwrap_err().to_string();
        assert!(error.contains("something else than a pod") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_server_that_asks_for_patience_gets_it() {
    let server = server();
    server.fail_next(1, "get", "pods", Fault::Status(429, Some(1)));
    let begin = Instant::now();
    assert!(thin(&server).pod(&web("nginx-0", UID)).unwrap().is_some());
    assert!(begin.elapsed() >= Duration::from_secs(1));
    server.fail("get", "pods", Fault::Status(429, Some(3600)));
    let begin = Instant::now();
    let error = thin(&server).pod(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.contains("429 Too Many Requests"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(1), "it waited for what its caller will not");
}

#[test]
fn a_server_slower_than_upstreams_deadlines_is_waited_for() {
    let server = server();
    server.fail("get", "pods", Fault::Delay(Duration::from_millis(600)));
    assert!(thin(&server).pod(&web("nginx-0", UID)).unwrap().is_some());
    assert_eq!(server.count("get", "pods"), 1);
}

#[test]
fn deadlines_are_kept_whatever_the_server_does() {
    let limits = Limits { attempt: Duration::from_millis(200), overall: Duration::from_millis(700), ..LIMITS };
    for fault in [Fault::Silence, Fault::Delay(Duration::from_secs(5)), Fault::Status(503, None)] {
        let server = server();
        for (verb, resource) in [("get", "pods"), ("patch", "pods/status"), ("update", "pods/status")] {
            server.fail(verb, resource, fault);
        }
        let cluster = ApiCluster::new(&access(&server.kubeconfig()), limits, reporter("")).unwrap();
        let begin = Instant::now();
        let read = cluster.pod(&web("nginx-0", UID)).unwrap_err().to_string();
        let written = cluster.set_network_status(&web("nginx-0", UID), STATUS).unwrap_err().to_string();
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(2400), "{fault:?}: {took:?}");
        let said = if fault == Fault::Status(503, None) { "503" } else { "did not answer within 200ms" };
        assert!(read.contains(said), "{read}");
        assert!(written.starts_with("set network-status of pod web/nginx-0: API server https://127"), "{written}");
        assert!(server.count("get", "pods") > 1, "{fault:?}");
    }
}

#[test]
fn a_server_that_is_away_is_named_and_one_that_comes_back_in_time_is_no_failure() {
    let server = server();
    server.stop();
    let address = server.address();
    let limits = Limits { overall: Duration::from_millis(500), ..LIMITS };
    let cluster = ApiCluster::new(&access(&server.kubeconfig()), limits, reporter("")).unwrap();
    let error = cluster.pod(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.contains(&format!("API server https://{address} cannot be reached")), "{error}");
    assert!(error.contains("refused"), "{error}");
    let cluster = thin(&server);
    thread::scope(|scope| {
        let asking = scope.spawn(|| cluster.pod(&web("nginx-0", UID)).unwrap());
        server.resume();
        assert!(asking.join().unwrap().is_some());
    });
}

#[test]
fn a_host_that_takes_connections_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server();
    let (here, there) = (server.address().to_string(), listener.local_addr().unwrap().to_string());
    let limits = Limits { attempt: Duration::from_millis(100), overall: Duration::from_millis(400), ..LIMITS };
    let access = access(&server.kubeconfig().replace(&here, &there));
    let cluster = ApiCluster::new(&access, limits, reporter("")).unwrap();
    let begin = Instant::now();
    let error = cluster.pod(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.contains("did not answer within"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn new_credentials_are_used_from_then_on() {
    let server = server();
    let cluster = ApiCluster::new(&access(&server.kubeconfig_with_token("expired")), LIMITS, reporter("")).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).is_err());
    cluster.reconnect(&access(&server.kubeconfig())).unwrap();
    assert!(cluster.pod(&web("nginx-0", UID)).unwrap().is_some());
}

#[test]
fn a_definition_may_have_no_configuration() {
    let server = server();
    for spec in [None, Some(json!(null)), Some(json!({})), Some(json!({"config": null})), Some(json!({"config": ""}))] {
        let mut object = network("on-disk", "");
        object.as_object_mut().unwrap().remove("spec");
        if let Some(spec) = &spec {
            object["spec"] = spec.clone();
        }
        server.put(object);
        let found = thin(&server).network("web", "on-disk").unwrap().unwrap();
        assert_eq!((found.config.as_str(), found.resource_name.as_deref()), ("", Some("intel.com/sriov")), "{spec:?}");
    }
}

#[test]
fn all_annotations_of_a_pod_that_matter_are_read() {
    let server = server();
    let annotations = json!({
        Pod::NETWORKS: "a", Pod::DEFAULT_NETWORK: "b", "kubernetes.io/config.source": "file", "k8s.v1.cni.cncf.io/network": "c",
    });
    server.put(pod("nginx-1", UID, "node-1", &annotations));
    let found = thin(&server).pod(&web("nginx-1", UID)).unwrap().unwrap();
    assert_eq!((found.networks.as_deref(), found.default_network.as_deref()), (Some("a"), Some("b")));
    assert!(found.is_static);
}
