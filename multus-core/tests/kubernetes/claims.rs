//! Devices by a pod's resource claims.

use std::time::{Duration, Instant};

use multus_core::{
    Checkpoint, Cluster, Config, Planner, ResourceDevices,
    kubernetes::{ApiCluster, Limits},
};
use serde_json::{Value, json};
use testkit_kubernetes::{ApiServer, Fault};

use crate::{LIMITS, UID, access, network, reporter, thin, web};

const DRIVER: &str = "sriov.example.com";

#[test]
fn the_devices_of_a_pods_claims_are_found_in_the_slices_of_its_node() {
    let server = server();
    let cluster = thin(&server);
    let found = cluster.claimed_devices(&web("nginx-0", UID)).unwrap();
    // Its own claim, the generated one, that of an extended resource; what is not for networks is left out.
    let expected = [device("shared-nic", "0000:07:00.0"), device("nic", "0000:03:00.2"), device("ext", "0000:05:00.0")];
    assert_eq!(found, expected);
    assert_eq!(server.count("get", "pods"), 1);
    assert_eq!(server.count("get", "resourceclaims"), 3);
    let lists: Vec<String> = server
        .log()
        .into_iter()
        .filter(|asked| asked.resource == "resourceslices")
        .map(|asked| format!("{} {}", asked.verb, asked.query["fieldSelector"]))
        .collect();
    let selected = |driver: &str| format!("list spec.nodeName=node-1,spec.driver={driver}");
    assert_eq!(lists, [selected(DRIVER), selected("gpu.example.com")]);
}

#[test]
fn a_network_gets_the_device_of_its_resource() {
    let server = server();
    let cluster = thin(&server);
    let plan = plan(&cluster).unwrap();
    assert_eq!(plan, "0000:03:00.2");
}

#[test]
fn a_pod_without_claims_is_one_question_and_one_without_resources_is_none() {
    let server = server();
    server.put(pod(&json!([]), &json!({})));
    let cluster = thin(&server);
    assert_eq!(cluster.claimed_devices(&web("nginx-0", UID)).unwrap(), []);
    assert_eq!((server.count("get", "pods"), server.log().len()), (1, 1));
    let mut plain = network("macvlan-conf", r#"{"type":"macvlan"}"#);
    plain["metadata"]["annotations"] = json!({});
    server.put(plain);
    assert_eq!(plan(&cluster).unwrap(), "");
    assert_eq!(server.count("get", "pods"), 2, "the pod itself");
}

#[test]
fn a_cluster_without_the_api_has_no_claims() {
    let server = server();
    server.fail("get", "resourceclaims", Fault::Status(404, None));
    assert_eq!(thin(&server).claimed_devices(&web("nginx-0", UID)).unwrap(), []);
}

#[test]
fn a_claim_that_is_gone_or_has_nothing_gives_nothing_but_the_schedulers_own_must_have_something() {
    let server = server();
    let cluster = thin(&server);
    let found = || cluster.claimed_devices(&web("nginx-0", UID)).map_err(|error| error.to_string());
    server.delete("resourceclaims", "web", "nginx-0-nic-x7");
    server.put(claim("shared", &json!(null)));
    assert_eq!(found().unwrap(), [device("ext", "0000:05:00.0")]);
    server.put(claim("nginx-0-ext", &json!(null)));
    assert_eq!(found().unwrap_err(), r#"resourceclaim web/nginx-0-ext: "status.allocation" is missing"#);
    server.delete("resourceclaims", "web", "nginx-0-ext");
    assert!(found().unwrap_err().starts_with("resourceclaim web/nginx-0-ext: API server https://"));
}

#[test]
fn only_the_newest_generation_of_a_pool_counts_whatever_the_order() {
    for (name, stays) in [("a-first", true), ("z-last", true), ("a-first", false), ("z-last", false)] {
        let server = server();
        let generation = if stays { 1 } else { 3 };
        let vf = json!([{ "name": "vf-2", "attributes": attributes("nic", "0000:ff:00.0") }]);
        server.put(slice(name, "node-1", DRIVER, "pool", generation, &vf));
        let found = thin(&server).claimed_devices(&web("nginx-0", UID)).unwrap();
        let nic = found.iter().find(|device| device.resource == "nic").unwrap();
        assert_eq!(nic.ids[0], if stays { "0000:03:00.2" } else { "0000:ff:00.0" });
    }
}

#[test]
fn all_requests_share_one_deadline() {
    let server = server();
    server.fail("get", "resourceclaims", Fault::Delay(Duration::from_millis(400)));
    let limits = Limits { attempt: Duration::from_secs(3), overall: Duration::from_secs(1), ..LIMITS };
    let cluster = ApiCluster::new(&access(&server.kubeconfig()), limits, reporter("")).unwrap();
    let begun = Instant::now();
    let error = cluster.claimed_devices(&web("nginx-0", UID)).unwrap_err().to_string();
    assert!(error.starts_with("resourceclaim web/") && error.contains("did not answer"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn what_the_api_refuses_is_an_error() {
    for (verb, resource) in [("get", "resourceclaims"), ("list", "resourceslices")] {
        let server = server();
        server.deny(verb, resource);
        let error = plan(&thin(&server)).unwrap_err();
        assert!(error.contains("403 Forbidden") && error.contains(resource), "{error}");
    }
}

#[test]
fn hostile_objects_are_one_error_that_names_pod_network_resource_and_object() {
    let long = "x".repeat(100_000);
    let results = |driver: Value, pool: Value| json!([{ "driver": driver, "pool": pool, "device": "vf-2" }]);
    let objects = [
        (claim("shared", &results(json!(5), json!("pool"))), "\"status.allocation.devices.results[0].driver\" must be"),
        (
            claim("shared", &results(json!(DRIVER), json!(null))),
            "\"status.allocation.devices.results[0].pool\" is missing",
        ),
        (claim("shared", &json!({ "a": 1 })), "\"status.allocation.devices.results\" must be an array"),
        (claim("shared", &json!([7])), "\"status.allocation.devices.results[0]\" must be an object"),
        (
            claim("shared", &results(json!("a,spec.driver=b"), json!("p"))),
            "results[0].driver\" must be a DNS name, not \"a,spec.dr",
        ),
        (
            claim("shared", &results(json!("../../secrets"), json!("p"))),
            "results[0].driver\" must be a DNS name, not \"../../sec",
        ),
        (claim("shared", &results(json!(long), json!("p"))), "results[0].driver\" must be a DNS name, not \"xxxx"),
        (claim("shared", &results(json!(DRIVER), json!([]))), "\"status.allocation.devices.results[0].pool\" must be"),
        (
            pod(&json!([{ "name": "c", "resourceClaimName": "../secrets" }]), &json!({})),
            "\"spec.resourceClaims[0].resourceClaimName\" must be a",
        ),
        (
            pod(&json!([{ "name": "c", "resourceClaimName": long }]), &json!({})),
            "\"spec.resourceClaims[0].resourceClaimName\" must be a",
        ),
        (pod(&json!("x"), &json!({})), "\"spec.resourceClaims\" must be an array"),
        (
            pod(&json!([{ "name": 5, "resourceClaimName": 5 }]), &json!({})),
            "\"spec.resourceClaims[0].resourceClaimName\"",
        ),
        (
            pod(&json!([]), &json!({ "extendedResourceClaimStatus": [] })),
            "\"status.extendedResourceClaimStatus\" must be",
        ),
        (slice("s", "node-1", DRIVER, "pool", 2, &json!({})), ".spec.devices\" must be an array"),
        (
            slice("s", "node-1", DRIVER, "pool", 2, &json!([{ "name": "vf-9", "attributes": [] }])),
            "attributes\" must be",
        ),
        (
            slice(
                "s",
                "node-1",
                DRIVER,
                "pool",
                2,
                &json!([{ "name": "vf-2", "attributes": attributes("nic", "a\nb") }]),
            ),
            "device ID \"a\\nb\" must be 1 to 253 bytes",
        ),
    ];
    for (object, word) in objects {
        let server = server();
        server.put(object.clone());
        let error = plan(&thin(&server)).unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
        assert!(error.len() < 500 && !error.contains('\n'), "{error}");
        let shown: String = error.chars().take(150).collect();
        assert!(shown.contains("web/nginx-0") && shown.contains("network \"web/macvlan-conf\""), "{shown}");
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        assert!(shown.contains("resource \"nic\"") && (shown.contains(&kind) || word.starts_with("device")), "{shown}");
    }
    let server = server();
    server.fail("list", "resourceslices", Fault::Garbage);
    let error = plan(&thin(&server)).unwrap_err();
    assert!(error.contains("resourceslices of sriov.example.com: \"body\" must be JSON"), "{error}");
}

#[test]
fn another_pod_of_that_name_has_no_say() {
    let server = server();
    let cluster = thin(&server);
    let error = cluster.claimed_devices(&web("nginx-0", "another")).unwrap_err().to_string();
    assert!(error.starts_with(r#"pod web/nginx-0: "metadata.uid" is "#), "{error}");
    server.delete("pods", "web", "nginx-0");
    assert!(cluster.claimed_devices(&web("nginx-0", UID)).unwrap_err().to_string().contains("404 Not Found"));
}

/// The devices of the pod's networks; the error, if there is one.
fn plan(cluster: &ApiCluster) -> Result<String, String> {
    let config = Config::parse(br#"{"name":"m","type":"multus","delegates":[{"name":"d","type":"t"}]}"#).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let checkpoint = directory.path().join("checkpoint");
    std::fs::write(&checkpoint, r#"{"Data":{}}"#).unwrap();
    let planner = Planner { config: &config, cluster: Some(cluster), resources: &Checkpoint::new(checkpoint) };
    let pod = cluster.pod(&web("nginx-0", UID)).unwrap();
    let plan = planner.plan(pod.as_ref()).map_err(|error| error.to_string())?;
    Ok(plan.delegates.iter().filter_map(|delegate| delegate.device_id.clone()).collect())
}

/// A server with a pod of three claims, and the slices of two drivers on two nodes.
fn server() -> ApiServer {
    let server = ApiServer::start();
    let claims = json!([
        { "name": "shared", "resourceClaimName": "shared" },
        { "name": "nic", "resourceClaimTemplateName": "nic" },
        { "name": "not-yet", "resourceClaimTemplateName": "nic" },
    ]);
    let status = json!({
        "resourceClaimStatuses": [{ "name": "nic", "resourceClaimName": "nginx-0-nic-x7" }, { "name": "not-yet" }],
        "extendedResourceClaimStatus": { "resourceClaimName": "nginx-0-ext", "requestMappings": [] },
    });
    server.put(pod(&claims, &status));
    let result = |driver: &str, pool: &str, device: &str| json!({ "request": "r", "driver": driver, "pool": pool, "device": device });
    server.put(claim("shared", &json!([result(DRIVER, "other", "vf-2")])));
    let own =
        [result(DRIVER, "pool", "vf-2"), result("gpu.example.com", "gpus", "gpu-0"), result(DRIVER, "pool", "gone")];
    server.put(claim("nginx-0-nic-x7", &json!(own)));
    server.put(claim("nginx-0-ext", &json!([result(DRIVER, "pool", "ext-0"), result(DRIVER, "pool", "half")])));
    server.put(slice("old", "node-1", DRIVER, "pool", 1, &json!([])));
    let devices = json!([
        { "name": "vf-1", "attributes": attributes("nic", "0000:03:00.1") },
        { "name": "vf-2", "attributes": attributes("nic", "0000:03:00.2") },
        { "name": "half", "attributes": { "k8s.cni.cncf.io/deviceID": { "string": "0000:03:00.3" } } },
    ]);
    server.put(slice("pool-1", "node-1", DRIVER, "pool", 2, &devices));
    let devices = json!([{ "name": "ext-0", "attributes": attributes("ext", "0000:05:00.0") }]);
    server.put(slice("pool-2", "node-1", DRIVER, "pool", 2, &devices));
    let devices = json!([{ "name": "vf-2", "attributes": attributes("shared-nic", "0000:07:00.0") }]);
    server.put(slice("pool-3", "node-1", DRIVER, "other", 1, &devices));
    let devices = json!([{ "name": "vf-2", "attributes": attributes("nic", "another node's") }]);
    server.put(slice("far", "node-2", DRIVER, "pool", 9, &devices));
    server.put(slice("gpus", "node-1", "gpu.example.com", "gpus", 1, &json!([{ "name": "gpu-0" }])));
    let mut network = network("macvlan-conf", r#"{"type":"macvlan"}"#);
    network["metadata"]["annotations"]["k8s.v1.cni.cncf.io/resourceName"] = "nic".into();
    server.put(network);
    server
}

fn pod(claims: &Value, status: &Value) -> Value {
    let mut pod = crate::pod("nginx-0", UID, "node-1", &json!({ "k8s.v1.cni.cncf.io/networks": "macvlan-conf" }));
    pod["spec"]["resourceClaims"] = claims.clone();
    pod["status"] = status.clone();
    pod
}

fn claim(name: &str, results: &Value) -> Value {
    let allocation = if results.is_null() { json!(null) } else { json!({ "devices": { "results": results } }) };
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": { "namespace": "web", "name": name },
        "spec": {}, "status": { "allocation": allocation, "reservedFor": [] },
    })
}

fn slice(name: &str, node: &str, driver: &str, pool: &str, generation: u32, devices: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": { "name": name },
        "spec": {
            "nodeName": node, "driver": driver, "devices": devices,
            "pool": { "name": pool, "generation": generation, "resourceSliceCount": 1 },
        },
    })
}

fn attributes(resource: &str, id: &str) -> Value {
    json!({
        "k8s.cni.cncf.io/resourceName": { "string": resource },
        "k8s.cni.cncf.io/deviceID": { "string": id },
        "example.com/numa": { "int": 1 },
        "example.com/isPf": { "bool": false },
    })
}

fn device(resource: &str, id: &str) -> ResourceDevices {
    ResourceDevices { resource: resource.to_owned(), ids: vec![id.to_owned()], is_claim: false }
}
