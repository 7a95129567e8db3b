//! From configuration, pod and cluster to the networks that are attached, and what each is run with.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

mod fake;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use fake::{FakeCluster, FakeDevices, devices};
use multus_cni::{Attachment, AttachmentRequest, Command};
use multus_core::{
    Checkpoint, Cluster, Config, DefaultRoute, Delegate, Error, Event, Plan, Planner, Pod, PodArgs, PodReference,
    PodResources, ResourceDevices, RuntimeConfig, Sandbox,
};
use proptest::prelude::*;
use tempfile::TempDir;

const UID: &str = "0b0e1d5c-9a3b-4a54-9c57-3f7cf3a6c0de";
const INLINE: &str =
    r#"{"name":"multus","type":"multus","delegates":[{"name":"weave1","cniVersion":"0.4.0","type":"weave-net"}]}"#;

#[test]
fn inline_delegates_come_first_and_need_no_cluster() {
    let config = config(
        r#"{"name":"m","kubeconfig":"/k","delegates":[{"name":"a","type":"x"},{"name":"b","plugins":[{"type":"y"}]}]}"#,
    );
    let plan = Planner { config: &config, cluster: None, resources: &FakeDevices::default() }.plan(None).unwrap();
    assert_eq!(summary(&plan.delegates), ["a eth0", "b net1"]);
}

#[test]
fn the_networks_of_the_annotation_follow_in_its_order() {
    let cluster = FakeCluster::default()
        .with_network("test/net1", r#"{"name":"mynet","type":"mynet","cniVersion":"0.2.0"}"#)
        .with_network("test/net2", r#"{"type":"mynet2"}"#)
        .with_network("other/net3", r#"{"name":"","plugins":[{"type":"mynet3"}]}"#);
    let plan = planned(INLINE, &cluster, &pod("test", "net1, net2 ,other/net3")).unwrap();
    assert_eq!(summary(&plan.delegates), ["weave1 eth0", "test/net1 net1", "test/net2 net2", "other/net3 net3"]);
    let names: Vec<&str> = plan.delegates.iter().map(|delegate| delegate.config.name().as_str()).collect();
    assert_eq!(names, ["weave1", "mynet", "net2", "net3"]);

    let json =
        r#"[{"name":"net2","ipRequest":"x","macRequest":"y"},{"name":"net3","namespace":"other"},{"name":"net1"}]"#;
    let plan = planned(INLINE, &cluster, &pod("test", json)).unwrap();
    assert_eq!(summary(&plan.delegates), ["weave1 eth0", "test/net2 net1", "other/net3 net2", "test/net1 net3"]);
}

#[test]
fn what_a_pod_may_ask_for_has_an_end() {
    let long = format!(r#"{{"type":"a","note":"{}"}}"#, "x".repeat(1 << 20));
    let cluster = FakeCluster::default().with_network("test/a", r#"{"type":"a"}"#).with_network("test/long", &long);
    let planned = |name: &str, times| {
        let plan = planned(INLINE, &cluster, &pod("test", &vec![name; times].join(",")));
        plan.map(|plan| plan.delegates.len()).map_err(|error| error.to_string())
    };
    let refused = |problem: &str| Err(format!("Multus: [test/web-0/{UID}]: \"networks\" asks for {problem}"));
    assert_eq!(planned("a", 1000), Ok(1001));
    assert_eq!(planned("a", 1001), refused("1001 networks; a pod can have 1000"));
    assert_eq!(planned("a", 100_000), refused("100000 networks; a pod can have 1000"));
    assert_eq!(planned("long", 3), Ok(4));
    assert_eq!(planned("long", 4), refused("configurations of more than 4194304 bytes together"));
    assert_eq!(planned("long", 1000), refused("configurations of more than 4194304 bytes together"));
}

/// Two bytes of a document may take hundreds of the daemon's memory.
#[test]
fn what_a_network_and_a_wish_may_have_has_an_end() {
    let padded = |values: usize| format!(r#"{{"type":"a","x":[{}0]}}"#, "0,".repeat(values - 4));
    let plugins = |count: usize| format!(r#"{{"plugins":[{}]}}"#, vec![r#"{"type":"a"}"#; count].join(","));
    let cluster = FakeCluster::default()
        .with_network("test/full", &padded(4096))
        .with_network("test/over", &padded(4097))
        .with_network("test/plugins", &plugins(60));
    let planned = |networks: &str| {
        let plan = planned(INLINE, &cluster, &pod("test", networks));
        plan.map(|plan| plan.delegates.len()).map_err(|error| error.to_string())
    };
    let refused = |problem: &str| Err(format!("Multus: [test/web-0/{UID}]: {problem}"));
    let too_many = "has more than 4096 values, and no network needs so many";
    assert_eq!(planned("full"), Ok(2));
    assert_eq!(planned("over"), refused(&format!("network \"test/over\": \"spec.config\" {too_many}")));
    let wish = |values: usize| format!(r#"[{{"name":"full"}},{{"name":"full","x":[{}0]}}]"#, "0,".repeat(values - 4));
    assert_eq!(planned(&wish(4096)), Ok(3));
    assert_eq!(planned(&wish(4097)), refused(&format!("\"networks[1]\" {too_many}")));
    assert_eq!(
        planned(&format!("[{}0]", "0,".repeat(1000))),
        refused("\"networks\" asks for 1001 networks; a pod can have 1000")
    );
    // Each of the plugins gets a copy of the arguments.
    let args = |length: usize| format!(r#"[{{"name":"plugins","cni-args":{{"a":"{}"}}}}]"#, "x".repeat(length));
    assert_eq!(planned(&args(60_000)), Ok(2));
    let together = "\"networks\" asks for configurations of more than 4194304 bytes together";
    assert_eq!(planned(&args(70_000)), refused(&format!("network \"test/plugins\": {together}")));
}

#[test]
fn a_configuration_is_passed_on_as_it_was_written() {
    let text = "{ \"name\" : \"n\",\n \"type\":\"a\", \"big\":12345678901234567890123, \"x\":1.50, \"x\":2 }";
    let cluster = FakeCluster::default().with_network("test/net1", text);
    let plan = planned(INLINE, &cluster, &pod("test", "net1")).unwrap();
    assert_eq!(plan.delegates[1].config.bytes(), text.as_bytes());
}

#[test]
fn a_missing_definition_is_an_error_and_an_event() {
    let cluster = FakeCluster::default();
    let error = planned(INLINE, &cluster, &pod("test", "net1")).unwrap_err();
    let text = "cannot find a network-attachment-definition (net1) in namespace (test): not found";
    assert_eq!(error.to_string(), format!("Multus: [test/web-0/{UID}]: {text}"));
    let event = Event::no_network_found(&error).unwrap();
    assert_eq!((event.kind.as_str(), event.reason, event.message.as_str()), ("Warning", "NoNetworkFound", text));
    let error = planned(INLINE, &cluster, &pod("test", "Net1")).unwrap_err();
    assert_eq!(Event::no_network_found(&error), None);

    let error = planned(INLINE, &FakeCluster::default().that_is_down(), &pod("test", "net1")).unwrap_err().to_string();
    assert!(error.ends_with("get network-attachment-definition test/net1: connection refused"), "{error}");
}

#[test]
fn a_definition_without_configuration_is_a_file_of_its_name() {
    let files = files(&[
        ("10-a.conf", r#"{"name":"first","type":"a"}"#),
        ("20-b.json", r#"{"name":"net1","type":"b"}"#),
        ("30-c.conflist", r#"{"name":"net2","plugins":[{"type":"c"}]}"#),
        ("net2/50-more.conf", r#"{"type":"more"}"#),
        ("40-d.conf.bak", "garbage"),
    ]);
    let cluster = FakeCluster::default()
        .with_network("test/net1", "")
        .with_network("test/net2", "")
        .with_network("test/net3", "");
    let text = with_conf_dir(&files);
    let plan = planned(&text, &cluster, &pod("test", "net1,net2")).unwrap();
    let kinds: Vec<Vec<&str>> = plan.delegates.iter().map(|delegate| delegate.config.types().collect()).collect();
    assert_eq!(kinds, [vec!["weave-net"], vec!["b"], vec!["c"]]);
    let error = planned(&text, &cluster, &pod("test", "net3")).unwrap_err().to_string();
    assert!(error.contains(r#"network "test/net3": no network available in the name "net3" in "#), "{error}");

    fs::write(files.path().join("15-x.conf"), "garbage").unwrap();
    let error = planned(&text, &cluster, &pod("test", "net1")).unwrap_err().to_string();
    assert!(error.contains("15-x.conf: error parsing configuration list: "), "{error}");
    let empty = TempDir::new().unwrap();
    let error = planned(&with_conf_dir(&empty), &cluster, &pod("test", "net1")).unwrap_err().to_string();
    assert!(error.contains("No networks found in "), "{error}");
    empty.close().unwrap();
}

#[test]
fn the_cluster_network_is_a_definition_a_name_a_file_or_a_directory() {
    let files = files(&[
        ("10-a.conf", r#"{"name":"first","type":"a"}"#),
        ("20-b.conflist", r#"{"name":"second","plugins":[{"type":"b"}]}"#),
    ]);
    let directory = files.path().to_str().unwrap().to_owned();
    let cluster = FakeCluster::default()
        .with_network("kube-system/net1", r#"{"name":"mynet","type":"mynet"}"#)
        .with_network("lab/net1", r#"{"name":"labnet","type":"mynet"}"#);
    for (keys, expected) in [
        (r#""clusterNetwork":"net1""#.to_owned(), "kube-system/net1 eth0"),
        (r#""clusterNetwork":"net1","multusNamespace":"lab""#.to_owned(), "lab/net1 eth0"),
        (format!(r#""clusterNetwork":"second","confDir":"{directory}""#), "second eth0"),
        (format!(r#""clusterNetwork":"{directory}""#), "first eth0"),
        (format!(r#""clusterNetwork":"{directory}/20-b.conflist""#), "second eth0"),
    ] {
        let plan = planned(&format!(r#"{{"name":"m",{keys}}}"#), &cluster, &pod("test", "")).unwrap();
        assert_eq!(summary(&plan.delegates), [expected], "{keys}");
        // That there is only a file is told all the same.
        let events = plan.warnings.iter().filter_map(Event::no_network_found).count();
        assert_eq!(events, usize::from(keys.contains("\"second\"")), "{keys}");
    }
    let unknown = format!(r#"{{"name":"m","clusterNetwork":"nothing","confDir":"{directory}"}}"#);
    let error = planned(&unknown, &cluster, &pod("test", "")).unwrap_err();
    assert!(Event::no_network_found(&error).is_some());
    let error = error.to_string();
    assert!(
        error.contains(r#"failed to get clusterNetwork/defaultNetworks "nothing": cannot find a network-attach"#),
        "{error}"
    );
    for path in ["/nowhere/at/all", "/nowhere/at/all.conflist"] {
        let text = format!(r#"{{"name":"m","clusterNetwork":"{path}"}}"#);
        let error = planned(&text, &cluster, &pod("test", "")).unwrap_err().to_string();
        assert!(error.ends_with(&format!("error reading file {path:?}: no such file or directory")), "{error}");
    }
    let config = config(r#"{"name":"m","clusterNetwork":"net1"}"#);
    let planner = Planner { config: &config, cluster: None, resources: &FakeDevices::default() };
    assert!(planner.plan(None).unwrap_err().to_string().starts_with("must have either Kubernetes config or delegates"));
}

#[test]
fn a_pod_of_another_uid_is_not_the_one_asked_for() {
    let of_source = |source: &str| {
        let annotations = BTreeMap::from([("kubernetes.io/config.source".to_owned(), source.to_owned())]);
        Pod::new(pod("test", "").reference, &annotations)
    };
    let cluster = FakeCluster::default().with_pod(of_source("api"));
    let wanted = PodReference { namespace: "test".into(), name: "web-0".into(), uid: "other".into() };
    let found = cluster.pod(&wanted).unwrap().unwrap();
    assert!(found.verify(UID).is_ok() && found.verify("").is_ok());
    let error = found.verify("other").unwrap_err().to_string();
    assert!(error.starts_with(&format!("expected pod UID \"other\" but got {UID:?} from Kube API")), "{error}");
    // Runtimes know static pods by the UID that the kubelet gave them, the API by that of a mirror.
    for source in ["file", "http"] {
        assert!(of_source(source).verify("other").is_ok(), "{source}");
    }
}

#[test]
fn default_networks_are_for_pods_outside_the_system() {
    let cluster = FakeCluster::default()
        .with_network("kube-system/net1", r#"{"type":"mynet"}"#)
        .with_network("kube-system/net2", r#"{"type":"mynet"}"#)
        .with_network("test/net3", r#"{"type":"mynet"}"#);
    let text = r#"{"name":"m","clusterNetwork":"net1","defaultNetworks":["net2"]}"#;
    let plan = planned(text, &cluster, &pod("test", "net3")).unwrap();
    assert_eq!(summary(&plan.delegates), ["kube-system/net1 eth0", "kube-system/net2 net1", "test/net3 net2"]);
    for namespace in ["kube-system", "kube-system-2"] {
        let plan = planned(text, &cluster, &pod(namespace, "")).unwrap();
        assert_eq!(plan.delegates.len(), if namespace == "kube-system" { 1 } else { 2 });
    }
    let config = config(text);
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &FakeDevices::default() };
    assert_eq!(planner.plan(None).unwrap().delegates.len(), 1);
}

#[test]
fn a_file_is_joined_by_the_plugins_of_its_directory() {
    let list = r#"{"name":"kindnet","cniVersion":"0.3.1","plugins":[{"type":"ptp","x":1.0}]}"#;
    let files = files(&[
        ("10-k.conflist", list),
        ("kindnet/20-b.conf", r#"{"type":"b"}"#),
        ("kindnet/10-a.conf", "{\n\"type\":\"a\", \"big\":12345678901234567890123}"),
        ("kindnet/30-c.json", "garbage"),
        ("20-alone.conflist", r#"{"name":"alone","loadOnlyInlinedPlugins":true,"plugins":[{"type":"ptp"}]}"#),
        ("alone/10-a.conf", r#"{"type":"a"}"#),
    ]);
    let load = |file: &str| {
        let text = format!(r#"{{"name":"m","clusterNetwork":"{}/{file}"}}"#, files.path().display());
        planned(&text, &FakeCluster::default(), &pod("test", ""))
    };
    let config = load("10-k.conflist").unwrap().delegates.remove(0).config;
    assert_eq!(
        String::from_utf8_lossy(config.bytes()),
        "{\"cniVersion\":\"0.3.1\",\"loadOnlyInlinedPlugins\":true,\"name\":\"kindnet\",\"plugins\":[{\"type\":\"ptp\",\"x\":1.0},\
         {\"big\":12345678901234567890123,\"type\":\"a\"},{\"type\":\"b\"}]}"
    );
    assert_eq!(load("20-alone.conflist").unwrap().delegates[0].config.types().count(), 1);
    fs::write(files.path().join("kindnet/40-bad.conf"), "[]").unwrap();
    assert!(load("10-k.conflist").unwrap_err().to_string().contains("40-bad.conf: "));
    fs::write(files.path().join("kindnet/40-bad.conf"), "{}").unwrap();
    assert!(
        load("10-k.conflist")
            .unwrap_err()
            .to_string()
            .ends_with("40-bad.conf: error parsing configuration list: missing 'type'")
    );
    fs::remove_dir_all(files.path().join("kindnet")).unwrap();
    assert_eq!(load("10-k.conflist").unwrap().delegates[0].config.bytes(), list.as_bytes());
}

#[test]
fn it_does_not_delegate_to_itself() {
    let files = files(&[("00-multus.conf", r#"{"name":"m","type":"multus-shim","clusterNetwork":"/x"}"#)]);
    let text = format!(r#"{{"name":"m","clusterNetwork":"{}"}}"#, files.path().display());
    let error = planned(&text, &FakeCluster::default(), &pod("test", "")).unwrap_err().to_string();
    assert!(error.ends_with(r#"its type is "multus-shim", which would call itself without end"#), "{error}");
}

#[test]
fn the_auxiliary_chain_comes_last() {
    let files = files(&[
        ("10-a.conf", r#"{"name":"first","type":"a"}"#),
        ("vendor/10-t.conf", r#"{"type":"tuning","x":1.0}"#),
        ("broken/10-t.conf", "garbage"),
    ]);
    let cluster = FakeCluster::default().with_network("test/net1", r#"{"type":"mynet"}"#);
    let plan = |chain: &str, network: &str| {
        let text = format!(
            r#"{{"cniVersion":"0.4.0","name":"m","clusterNetwork":"{network}","auxiliaryCNIChainName":"{chain}"}}"#
        );
        planned(&text, &cluster, &pod("test", "net1"))
    };
    let directory = files.path().display().to_string();
    for network in [directory.clone(), format!("{directory}/"), format!("{directory}/10-a.conf")] {
        let plan = plan("vendor", &network).unwrap();
        assert_eq!(summary(&plan.delegates), ["first eth0", "test/net1 net1", "vendor net2"]);
        let chain = String::from_utf8_lossy(plan.delegates[2].config.bytes()).into_owned();
        assert_eq!(
            chain,
            r#"{"cniVersion":"0.4.0","loadOnlyInlinedPlugins":true,"name":"vendor","plugins":[{"type":"passthru"},{"type":"tuning","x":1.0}]}"#
        );
    }
    assert_eq!(plan("none", &directory).unwrap().delegates.len(), 2);
    let text = format!(r#"{{"name":"m","clusterNetwork":"{directory}","auxiliaryCNIChainName":"vendor"}}"#);
    let config = config(&text);
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &FakeDevices::default() };
    let deletion = |networks: &str| summary(&planner.plan_deletion(&pod("test", networks)).unwrap().delegates);
    assert_eq!(deletion("net1"), ["first eth0", "test/net1 net1", "vendor net2"]);
    // How many networks there were is not known then, nor its interface.
    assert_eq!(deletion("net1,gone"), ["first eth0", "test/net1 net1"]);
    let broken = plan("broken", &directory).unwrap();
    assert_eq!((broken.delegates.len(), broken.warnings.len()), (2, 1));
    for (chain, network) in [("../vendor", directory.as_str()), ("vendor", "net1")] {
        assert!(plan(chain, network).is_err(), "{chain} beside {network}");
    }
}

#[test]
fn the_default_network_replaces_the_first() {
    let cluster = FakeCluster::default()
        .with_network("kube-system/net1", r#"{"type":"mynet"}"#)
        .with_network("kube-system/net2", r#"{"type":"mynet"}"#)
        .with_network("test/net1", r#"{"type":"mynet"}"#);
    let pod = |default: &str| Pod { default_network: Some(default.to_owned()), ..pod("test", "net1") };
    for text in [INLINE, r#"{"name":"m","clusterNetwork":"net1"}"#] {
        let plan = planned(text, &cluster, &pod("net2@pub0")).unwrap();
        assert_eq!(summary(&plan.delegates), ["kube-system/net2 pub0", "test/net1 net1"]);
        assert_eq!(summary(&planned(text, &cluster, &pod("test/net1")).unwrap().delegates)[0], "test/net1 eth0");
    }
    for (annotation, problem) in [
        ("", "pod annotation does not have \"network\" as key"),
        ("net1,net2", "more than one default network is specified"),
        ("[]", "names no network"),
    ] {
        let error = planned(INLINE, &cluster, &pod(annotation)).unwrap_err().to_string();
        assert!(error.contains("annotation v1.multus-cni.io/default-network: ") && error.contains(problem), "{error}");
    }
}

#[test]
fn isolation_confines_a_pod_to_its_own_and_to_global_namespaces() {
    let mut cluster = FakeCluster::default();
    for namespace in ["test", "default", "kube-system", "donkey-kong"] {
        cluster = cluster.with_network(&format!("{namespace}/net1"), r#"{"type":"mynet"}"#);
    }
    let isolated = |keys: &str| {
        format!(r#"{{"name":"m","namespaceIsolation":true,{keys}"delegates":[{{"name":"a","type":"x"}}]}}"#)
    };
    let allowed = |keys: &str, network: &str| planned(&isolated(keys), &cluster, &pod("test", network)).is_ok();
    assert!(allowed("", "net1") && allowed("", "test/net1") && allowed("", "default/net1"));
    assert!(!allowed("", "kube-system/net1"));
    let global = r#""globalNamespaces":" kube-system ,donkey-kong","#;
    assert!(allowed(global, "kube-system/net1") && allowed(global, "donkey-kong/net1"));
    assert!(!allowed(global, "default/net1"));
    assert!(!allowed("", r#"[{"name":"net1","namespace":"kube-system"}]"#));

    let refused = |pod: &Pod| planned(&isolated(""), &cluster, pod).unwrap_err().to_string();
    let text = "namespace isolation enabled, annotation violates permission, pod is in namespace test but refers to target \
                namespace kube-system";
    assert!(refused(&pod("test", "kube-system/net1")).contains(text));
    for default in ["kube-system/net1", "net1"] {
        let pod = Pod { default_network: Some(default.to_owned()), ..pod("test", "") };
        assert!(refused(&pod).contains(text), "{default}");
    }
}

#[test]
fn each_network_takes_the_next_device_of_its_resource() {
    let mut cluster =
        FakeCluster::default().with_resource("kube-system/first", r#"{"type":"s"}"#, Some("intel.com/vf"));
    for name in ["a", "b", "c", "d"] {
        cluster = cluster.with_resource(&format!("test/{name}"), r#"{"plugins":[{"type":"s"}]}"#, Some("intel.com/vf"));
    }
    let cluster = cluster.with_resource("test/x", r#"{"type":"s"}"#, Some("intel.com/other"));
    // Containers keep their order; within one, the order says nothing.
    let devices = FakeDevices(vec![("intel.com/vf", vec!["03:2", "03:1"]), ("intel.com/vf", vec!["01:1"])]);
    let config = config(r#"{"name":"m","clusterNetwork":"first","defaultNetworks":[]}"#);
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &devices };
    let plan = planner.plan(Some(&pod("test", "a,b,c,x"))).unwrap();
    let ids: Vec<Option<&str>> = plan.delegates.iter().map(|delegate| delegate.device_id.as_deref()).collect();
    assert_eq!(ids, [Some("03:1"), Some("03:2"), Some("01:1"), None, None]);
    assert_eq!(plan.delegates[4].resource_name.as_deref(), Some("intel.com/other"));
    let warnings: Vec<String> = plan.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[1].starts_with(r#"network "test/x": resource "intel.com/other": no device is left"#));
    assert_eq!(
        String::from_utf8_lossy(plan.delegates[1].config.bytes()),
        r#"{"name":"a","plugins":[{"deviceID":"03:2","pciBusID":"03:2","type":"s"}]}"#
    );
    // The default network's device is none of the others', and the network it replaces takes none.
    let first = Pod { default_network: Some("test/d".to_owned()), ..pod("test", "a,b") };
    let plan = planner.plan(Some(&first)).unwrap();
    let ids: Vec<Option<&str>> = plan.delegates.iter().map(|delegate| delegate.device_id.as_deref()).collect();
    assert_eq!(ids, [Some("03:1"), Some("03:2"), Some("01:1")]);
}

#[test]
fn a_resources_device_comes_before_the_one_that_is_asked_for() {
    let cluster = FakeCluster::default()
        .with_resource("test/a", r#"{"type":"s"}"#, Some("intel.com/vf"))
        .with_resource("test/b", r#"{"type":"s"}"#, Some(""));
    let config = config(INLINE);
    let devices = FakeDevices(vec![("intel.com/vf", vec!["03:1"]), ("", vec!["none"])]);
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &devices };
    let text = r#"[{"name":"a","deviceID":"99:9"},{"name":"a","deviceID":"99:9"},{"name":"b"}]"#;
    let plan = planner.plan(Some(&pod("test", text))).unwrap();
    let ids: Vec<Option<&str>> = plan.delegates.iter().map(|delegate| delegate.device_id.as_deref()).collect();
    // The second finds none left; an empty name is none.
    assert_eq!(ids, [None, Some("03:1"), Some("99:9"), None]);
    assert_eq!(plan.delegates[3].resource_name, None);
}

#[test]
fn a_claims_device_is_what_its_driver_tells_networks_else_what_it_tells_the_runtime() {
    let network = |cluster: FakeCluster, name: &str| {
        cluster.with_resource(&format!("test/{name}"), r#"{"type":"s"}"#, Some("nic"))
    };
    let mut cluster = ["a", "b", "c", "d"].into_iter().fold(FakeCluster::default(), network);
    cluster.claimed.push(devices("nic", &["03:2", "03:1"]));
    let config = config(INLINE);
    // Two containers share the claim.
    let known = FakeDevices(vec![
        ("claim:nic", vec!["vf-7"]),
        ("nic", vec!["01:1"]),
        ("claim:nic", vec!["vf-7"]),
        ("claim:gpu", vec!["gpu-0"]),
    ]);
    let ids = |cluster: &FakeCluster| {
        let planner = Planner { config: &config, cluster: Some(cluster), resources: &known };
        let plan = planner.plan(Some(&pod("test", "a,b,c,d"))).map_err(|error| error.to_string())?;
        let ids = plan.delegates.iter().skip(1).map(|delegate| delegate.device_id.clone().unwrap_or_default());
        Ok::<_, String>(ids.collect::<Vec<String>>().join(" "))
    };
    assert_eq!(ids(&cluster).unwrap(), "01:1 03:2 03:1 vf-7");
    cluster.claimed.clear();
    assert_eq!(ids(&cluster).unwrap(), "01:1 vf-7  ");
    cluster.refuses_claims = true;
    let error = ids(&cluster).unwrap_err();
    assert!(error.contains(r#"network "test/c": resource "nic": pod test/web-0: forbidden"#), "{error}");
}

#[test]
fn an_unusable_device_id_is_refused_only_by_the_network_that_gets_it() {
    let network = |cluster: FakeCluster, (name, resource)| {
        cluster.with_resource(&format!("test/{name}"), r#"{"type":"s"}"#, Some(resource))
    };
    let cluster = [("a", "good"), ("b", "bad")].into_iter().fold(FakeCluster::default(), network);
    let config = config(INLINE);
    for id in ["", "01\n1", "\0", &"x".repeat(254)] {
        let id: &'static str = String::from(id).leak();
        let known = FakeDevices(vec![("good", vec!["01:1"]), ("bad", vec![id])]);
        let planner = Planner { config: &config, cluster: Some(&cluster), resources: &known };
        let plan = planner.plan(Some(&pod("test", "a"))).unwrap();
        assert_eq!(plan.delegates[1].device_id.as_deref(), Some("01:1"));
        let error = planner.plan(Some(&pod("test", "a,b"))).unwrap_err().to_string();
        assert!(error.contains(r#"network "test/b": resource "bad": device ID "#) && error.len() < 300, "{error}");
    }
}

#[test]
fn a_resource_whose_devices_are_unknown_is_an_error() {
    let cluster = FakeCluster::default().with_resource("test/a", r#"{"type":"s"}"#, Some("intel.com/vf"));
    let config = config(INLINE);
    let checkpoint = Checkpoint::new("/nowhere/kubelet_internal_checkpoint");
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &checkpoint };
    let error = planner.plan(Some(&pod("test", "a"))).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "Multus: [test/web-0/{UID}]: network \"test/a\": resource \"intel.com/vf\": error \
             reading file \"/nowhere/kubelet_internal_checkpoint\": no such file or directory"
        )
    );
}

#[test]
fn a_kubelet_that_fails_is_asked_once_also_where_its_devices_do_not_matter() {
    struct Failing(AtomicUsize);
    impl PodResources for Failing {
        fn devices(&self, _: &PodReference) -> Result<Vec<ResourceDevices>, String> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err("no answer".to_owned())
        }
    }
    let cluster = FakeCluster::default().with_resource("test/a", r#"{"type":"s"}"#, Some("r")).with_resource(
        "test/b",
        r#"{"type":"s"}"#,
        Some("other"),
    );
    let (config, kubelet) = (config(INLINE), Failing(AtomicUsize::new(0)));
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &kubelet };
    let plan = planner.plan_deletion(&pod("test", "a,b,a")).unwrap();
    assert_eq!((plan.delegates.len(), plan.warnings.len()), (4, 3));
    assert_eq!(kubelet.0.into_inner(), 1);
}

#[test]
fn without_a_pod_no_devices_are_asked_for() {
    let cluster = FakeCluster::default().with_resource("kube-system/a", r#"{"type":"s"}"#, Some("intel.com/vf"));
    let config = config(r#"{"name":"m","clusterNetwork":"a"}"#);
    let checkpoint = Checkpoint::new("/nowhere/at/all");
    let plan = Planner { config: &config, cluster: Some(&cluster), resources: &checkpoint }.plan(None).unwrap();
    assert_eq!((plan.delegates[0].device_id.as_deref(), plan.warnings.len()), (None, 0));
}

#[test]
fn an_interface_name_is_asked_for_given_or_counted() {
    let mut cluster = FakeCluster::default();
    for name in ["a", "b", "c"] {
        cluster = cluster.with_network(&format!("test/{name}"), r#"{"type":"s"}"#);
    }
    let plan = planned(INLINE, &cluster, &pod("test", "a@foo,b,c@net7")).unwrap();
    assert_eq!(summary(&plan.delegates), ["weave1 eth0", "test/a foo", "test/b net2", "test/c net7"]);
    for (networks, taken) in [("a@net2,b", "net2"), ("a@eth0", "eth0"), ("a@x,b@x", "x")] {
        let plan = planned(INLINE, &cluster, &pod("test", networks)).unwrap();
        let error = run(&plan.delegates, &RuntimeConfig::default(), Command::Add).unwrap_err().to_string();
        assert!(error.starts_with("Multus: [test/web-0/u]: network \"test/"), "{error}");
        assert!(error.contains(&format!("interface name {taken} already exists: network ")), "{error}");
    }
}

#[test]
fn requests_reach_the_plugins_of_their_network_alone() {
    let cluster = FakeCluster::default().with_network("test/net1", r#"{"type":"mynet"}"#);
    let annotation = r#"[{"name":"net1","mac":"c2:11:22:33:44:66","ips":["10.0.0.1/24","2001:db8::1"],
        "infiniband-guid":"24:8a:07:03:00:8d:ae:2e","deviceID":"01:1","bandwidth":{"ingressRate":100,"egressBurst":5},
        "portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],
        "cni-args":{"k":12345678901234567890123}}]"#;
    let plan = planned(INLINE, &cluster, &pod("test", annotation)).unwrap();
    let runtime = r#"{"runtimeConfig":{"mac":"02:00:00:00:00:01","portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"::1"}]},
        "delegates":[{"name":"a","type":"b"}]}"#;
    let runtime = config(runtime).runtime_config;
    let requests = run(&plan.delegates, &runtime, Command::Add).unwrap();
    assert_eq!(
        offered(&requests[0]),
        r#"{"mac":"02:00:00:00:00:01","portMappings":[{"hostPort":1,"containerPort":2,"hostIP":"::1"}]}"#
    );
    assert_eq!(
        offered(&requests[1]),
        concat!(
            r#"{"CNIDeviceInfoFile":"/var/run/k8s.cni.cncf.io/devinfo/cni/test-net1-c1_net1","#,
            r#""bandwidth":{"ingressRate":100,"ingressBurst":0,"egressRate":0,"egressBurst":5},"deviceID":"01:1","#,
            r#""infinibandGUID":"24:8a:07:03:00:8d:ae:2e","ips":["10.0.0.1/24","2001:db8::1"],"mac":"c2:11:22:33:44:66","#,
            r#""portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#
        )
    );
    let fixed =
        "IgnoreUnknown=true;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=;K8S_POD_UID=u";
    assert_eq!(args(&requests[0]), fixed);
    assert_eq!(args(&requests[1]), format!("{fixed};MAC=c2:11:22:33:44:66;IP=10.0.0.1/24,2001:db8::1"));
    for command in [Command::Del, Command::Check] {
        assert_eq!(args(&run(&plan.delegates, &runtime, command).unwrap()[1]), fixed);
    }
    // A device that is only asked for is no part of the configuration.
    assert_eq!(
        String::from_utf8_lossy(plan.delegates[1].config.bytes()),
        r#"{"args":{"cni":{"k":12345678901234567890123}},"name":"net1","type":"mynet"}"#
    );
}

#[test]
fn the_file_for_device_information_is_named_where_there_is_a_device() {
    let cluster = FakeCluster::default().with_network("test/net1", r#"{"type":"mynet"}"#);
    let plan = planned(INLINE, &cluster, &pod("test", r#"[{"name":"net1"}]"#)).unwrap();
    let file = |runtime: &str| {
        let text = format!(r#"{{"runtimeConfig":{runtime},"delegates":[{{"name":"a","type":"b"}}]}}"#);
        let requests = run(&plan.delegates, &config(&text).runtime_config, Command::Add).unwrap();
        offered(&requests[1])
    };
    assert_eq!(file(r#"{"CNIDeviceInfoFile":"/theirs"}"#), r#"{"CNIDeviceInfoFile":"/theirs"}"#);
    assert_eq!(
        file(r#"{"deviceID":"01:1","CNIDeviceInfoFile":"/theirs"}"#),
        r#"{"CNIDeviceInfoFile":"/var/run/k8s.cni.cncf.io/devinfo/cni/test-net1-c1_net1","deviceID":"01:1"}"#
    );
}

#[test]
fn the_first_network_gets_requests_in_its_arguments_only() {
    let cluster = FakeCluster::default().with_network("kube-system/net1", r#"{"type":"mynet"}"#);
    let annotation = r#"[{"name":"net1","mac":"c2:11:22:33:44:66","ips":["10.0.0.1"]}]"#;
    let pod = Pod { default_network: Some(annotation.to_owned()), ..pod("test", "") };
    let plan = planned(INLINE, &cluster, &pod).unwrap();
    let requests = run(&plan.delegates, &RuntimeConfig::default(), Command::Add).unwrap();
    assert_eq!(offered(&requests[0]), "{}");
    assert!(args(&requests[0]).ends_with(";MAC=c2:11:22:33:44:66;IP=10.0.0.1"));
}

#[test]
fn a_default_route_is_asked_for_in_the_annotation() {
    let cluster = FakeCluster::default().with_network("test/net1", r#"{"type":"mynet"}"#);
    let annotation = r#"[{"name":"net1"},{"name":"net1","default-route":["10.1.1.254"]}]"#;
    let plan = planned(INLINE, &cluster, &pod("test", annotation)).unwrap();
    let ipv4: Vec<DefaultRoute> = plan.delegates.iter().map(|delegate| delegate.default_routes.ipv4).collect();
    assert_eq!(
        ipv4,
        [DefaultRoute::Remove, DefaultRoute::Remove, DefaultRoute::Replace("10.1.1.254".parse().unwrap())]
    );
    let annotation = r#"[{"name":"net1","default-route":["10.1.1.1"]},{"name":"net1","default-route":["10.1.1.2"]}]"#;
    let error = planned(INLINE, &cluster, &pod("test", annotation)).unwrap_err().to_string();
    assert!(
        error.contains("multus does not support ECMP for default-route: IPv4 gateways in test/net1, test/net1"),
        "{error}"
    );
}

#[test]
fn a_deletion_goes_as_far_as_names_are_certain() {
    let cluster = FakeCluster::default().with_network("test/a", r#"{"type":"s"}"#).with_resource(
        "test/b",
        r#"{"type":"s"}"#,
        Some("intel.com/vf"),
    );
    let config = config(INLINE);
    let checkpoint = Checkpoint::new("/nowhere/at/all");
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &checkpoint };
    let plan = planner.plan_deletion(&pod("test", "a,b,gone,a@late")).unwrap();
    assert_eq!(summary(&plan.delegates), ["weave1 eth0", "test/a net1", "test/b net2"]);
    assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
    assert_eq!(planner.plan_deletion(&pod("test", "[garbage")).unwrap().delegates.len(), 1);
    // What an ADD would refuse is no reason to leave anything.
    let twice = r#"[{"name":"a","default-route":["10.0.0.1"]},{"name":"a","default-route":["10.0.0.2"]}]"#;
    assert_eq!(planner.plan_deletion(&pod("test", twice)).unwrap().delegates.len(), 3);
}

#[test]
fn an_error_names_pod_network_and_field_within_150_characters_and_no_secret() {
    let cluster = FakeCluster::default()
        .with_network("test/macvlan-conf", r#"{"type":"mynet","args":"hunter2"}"#)
        .with_network("test/no-json", r#"{"type":"mynet","password":"hunter2"#)
        .with_network("test/no-object", r#""hunter2""#)
        .with_network("test/no-type", r#"{"password":"hunter2"}"#)
        .with_network("test/bad-ipam", r#"{"type":"a","ipam":"hunter2"}"#)
        .with_network("test/bad-plugins", r#"{"plugins":[{"type":"a"},"hunter2"]}"#)
        .with_network("test/bad-name", r#"{"name":"a/b","type":"a","password":"hunter2"}"#);
    for (annotation, network, field) in [
        (r#"[{"name":"macvlan-conf","mac":"02:xx"}]"#, "test/macvlan-conf", "networks[0].mac"),
        (r#"[{"name":"a"},{"name":"macvlan-conf","ips":["10.0.0.300"]}]"#, "test/macvlan-conf", "networks[1].ips[0]"),
        (r#"[{"name":"macvlan-conf","interface":"a b"}]"#, "test/macvlan-conf", "networks[0].interface"),
        (r#"[{"name":"macvlan-conf","default-route":["gw"]}]"#, "test/macvlan-conf", "networks[0].default-route[0]"),
        (
            r#"[{"name":"macvlan-conf","portMappings":[{"hostPort":"80"}]}]"#,
            "test/macvlan-conf",
            "networks[0].portMappings[0].hostPort",
        ),
        (r#"[{"name":"macvlan-conf","cni-args":"hunter2"}]"#, "test/macvlan-conf", "networks[0].cni-args"),
        (r#"[{"name":"macvlan-conf","cni-args":{"a":1}}]"#, "test/macvlan-conf", "args"),
        ("no-json", "test/no-json", "spec.config"),
        ("no-object", "test/no-object", "spec.config"),
        ("no-type", "test/no-type", "spec.config.type"),
        ("bad-ipam", "test/bad-ipam", "spec.config.ipam"),
        ("bad-plugins", "test/bad-plugins", "spec.config.plugins[1]"),
        ("bad-name", "test/bad-name", "spec.config.name"),
        ("a,macvlan-conf@a@b", "macvlan-conf@a@b", "networks[1]"),
        ("[null]", "networks[0]", "networks[0]"),
        (r#"{"name":"a"}"#, "k8s.v1.cni.cncf.io/networks", "k8s.v1.cni.cncf.io/networks"),
    ] {
        let cluster_with_a = &cluster;
        let error = planned(INLINE, cluster_with_a, &pod("test", annotation)).unwrap_err().to_string();
        let shown: String = error.chars().take(150).collect();
        for word in ["test/web-0", network, field] {
            assert!(shown.contains(word), "{word} is not in: {shown}");
        }
        assert!(!error.contains("hunter2"), "{error}");
    }
}

/// What somebody could write where a configuration is expected.
fn hostile_config() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "name",
        "type",
        "plugins",
        "args",
        "cni",
        "cniVersion",
        "cniVersions",
        "capabilities",
        "ipam",
        "dns",
        "disableGC",
        "loadOnlyInlinedPlugins",
        "Type",
    ]);
    let leaf = prop::sample::select(vec![
        "null",
        "true",
        "5",
        "1e999",
        "\"\"",
        "\"a\"",
        "\"1.0.0\"",
        "\"\\ud800\"",
        "[]",
        "{}",
    ]);
    let keys = key.clone();
    let any = leaf.prop_map(str::to_owned).prop_recursive(4, 24, 4, move |inner| {
        let entry = (keys.clone(), inner.clone()).prop_map(|(key, value)| format!("\"{key}\":{value}"));
        prop_oneof![
            prop::collection::vec(entry, 0..5).prop_map(|entries| format!("{{{}}}", entries.join(","))),
            prop::collection::vec(inner, 0..3).prop_map(|elements| format!("[{}]", elements.join(","))),
        ]
    });
    prop_oneof![
        any.clone(),
        (key.clone(), any.clone()).prop_map(|(key, value)| format!(r#"{{"{key}":{value},"type":"a"}}"#)),
        (key, any).prop_map(|(key, value)| format!(r#"{{"plugins":[{{"type":"a","{key}":{value}}},{{"type":"b"}}]}}"#)),
    ]
}

proptest! {
    #[test]
    fn no_definition_makes_it_panic(text in hostile_config(), resource in prop::option::of(Just("r"))) {
        let cluster = FakeCluster::default().with_resource("test/net1", &text, resource);
        let config = config(INLINE);
        let devices = FakeDevices(vec![("r", vec!["d"])]);
        let planner = Planner { config: &config, cluster: Some(&cluster), resources: &devices };
        let annotation = r#"[{"name":"net1","cni-args":{"k":"v"}}]"#;
        match planner.plan(Some(&pod("test", annotation))) {
            Ok(plan) => {
                // Whatever is accepted can be run, and every plugin gets what it is to get.
                let delegate = &plan.delegates[1].config;
                for index in 0..delegate.len() {
                    let plugin = delegate.plugin(index, &[]).unwrap();
                    let args = plugin.view().object("args").unwrap().unwrap().object("cni").unwrap().unwrap();
                    prop_assert_eq!(args.string("k").unwrap(), Some("v"));
                    prop_assert_eq!(plugin.view().string("deviceID").unwrap(), resource.map(|_| "d"));
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("network \"test/net1\": "), "{}", error),
        }
    }

    #[test]
    fn no_configuration_makes_it_panic(text in hostile_config(), bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _either = Config::parse(&bytes);
        let _either = Config::parse(format!(r#"{{"delegates":[{text}],"runtimeConfig":{text}}}"#).as_bytes());
        let _either = Config::parse(format!(r#"{{"clusterNetwork":"a","prevResult":{text},"logOptions":{text}}}"#).as_bytes());
    }
}

fn config(text: &str) -> Config {
    Config::parse(text.as_bytes()).unwrap()
}

fn planned(text: &str, cluster: &FakeCluster, pod: &Pod) -> Result<Plan, Error> {
    Planner { config: &config(text), cluster: Some(cluster), resources: &FakeDevices::default() }.plan(Some(pod))
}

fn pod(namespace: &str, networks: &str) -> Pod {
    let reference = PodReference { namespace: namespace.to_owned(), name: "web-0".to_owned(), uid: UID.to_owned() };
    Pod::new(reference, &BTreeMap::from([(Pod::NETWORKS.to_owned(), networks.to_owned())]))
}

fn run(
    delegates: &[Delegate],
    runtime_config: &RuntimeConfig,
    command: Command,
) -> Result<Vec<AttachmentRequest>, Error> {
    let attachment =
        Attachment { container_id: "c1".parse().unwrap(), ifname: "eth0".parse().unwrap(), netns: Some("/n".into()) };
    let args = PodArgs::parse("K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=u").unwrap();
    let sandbox = Sandbox { attachment: &attachment, args: &args, inherited_args: "", runtime_config };
    sandbox.requests(delegates, command)
}

fn args(request: &AttachmentRequest) -> String {
    request.args.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
}

fn offered(request: &AttachmentRequest) -> String {
    String::from_utf8(request.capability_args.print()).unwrap()
}

fn summary(delegates: &[Delegate]) -> Vec<String> {
    let requests = run(delegates, &RuntimeConfig::default(), Command::Add).unwrap();
    let show = |(delegate, request): (&Delegate, AttachmentRequest)| {
        format!("{} {}", delegate.name, request.attachment.ifname)
    };
    delegates.iter().zip(requests).map(show).collect()
}

fn files(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn with_conf_dir(directory: &TempDir) -> String {
    INLINE.replacen('{', &format!("{{\"confDir\":\"{}\",", directory.path().display()), 1)
}
