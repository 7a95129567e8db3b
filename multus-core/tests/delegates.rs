//! Networks whose plugins are executed: with what each is run, in which order, and what becomes of it. The plugins write down
//! how they were called.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

mod fake;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fake::{FakeCluster, FakeDevices};
use multus_cni::{
    Attachment, Environment, Error, ErrorCode, Invocation, NetworkConfig, Pending, Plugin, Registry, Success,
};
use multus_core::{Cluster, DeviceInfoFiles, Multus, Pod, PodReference};
use serde_json::{Value, json};
use tempfile::TempDir;

const UID: &str = "uid-1";
const VERSIONS: [&str; 4] = ["0.2.0", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn networks_of_every_version_are_attached_in_order_and_detached_backwards() {
    for version in VERSIONS {
        let node = Node::new(FakeCluster::default());
        let config = node.config(&json!({"cniVersion": version, "delegates": [
            node.network("weave1", version), {"cniVersion": version, "name": "other1", "plugins": [node.network("x", version)]},
        ]}));
        let success = node.add(&config).unwrap();
        assert_eq!(success.ips[0].address.to_string(), "1.1.1.2/24", "{version}: the first one's");
        assert_eq!(node.calls(), ["ADD weave1 eth0", "ADD other1 net1"]);
        let scratch = node.path("multus/c1");
        assert!(scratch.is_file(), "{version}");
        node.del(&config).unwrap();
        assert_eq!(node.calls(), ["DEL other1 net1", "DEL weave1 eth0"], "{version}");
        assert!(!scratch.exists());
        // And again, as runtimes do: nothing is known any more.
        node.del(&config).unwrap();
        assert_eq!(node.calls(), [""; 0], "{version}");
    }
}

#[test]
fn each_plugin_is_run_with_what_its_network_asks_for() {
    let annotation = r#"[{"name":"net1","mac":"c2:11:22:33:44:66","ips":["10.0.0.1/24"],"deviceID":"01:1",
        "infiniband-guid":"24:8a:07:03:00:8d:ae:2e","bandwidth":{"ingressRate":100},"cni-args":{"k":"v"},
        "portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}]"#;
    let mut node = Node::new(FakeCluster::default());
    let capabilities = json!({
        "mac": true, "ips": true, "bandwidth": true, "portMappings": true, "deviceID": true, "infinibandGUID": true,
        "CNIDeviceInfoFile": true, "aliases": true,
    });
    let mut network = node.network("net1", "1.0.0");
    network["capabilities"] = capabilities.clone();
    node.set_cluster(cluster(annotation).with_network("test/net1", &network.to_string()));
    let mut weave = node.network("weave1", "1.0.0");
    weave["capabilities"] = capabilities;
    let config = node.config(&json!({
        "cniVersion": "1.0.0", "delegates": [weave],
        "runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 2}], "aliases": {"x": ["y"]}},
    }));
    node.add(&config).unwrap();
    let [eth0, net1] = <[Called; 2]>::try_from(node.called()).unwrap();
    assert_eq!(eth0.config["runtimeConfig"], json!({"portMappings": [{"hostPort": 1, "containerPort": 2}]}));
    assert_eq!(
        net1.config["runtimeConfig"],
        json!({
            "mac": "c2:11:22:33:44:66", "ips": ["10.0.0.1/24"], "deviceID": "01:1",
            "bandwidth": {"ingressRate": 100, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
            "infinibandGUID": "24:8a:07:03:00:8d:ae:2e",
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "CNIDeviceInfoFile": "/var/run/k8s.cni.cncf.io/devinfo/cni/test-net1-c1_net1",
        })
    );
    assert_eq!(net1.config["args"], json!({"cni": {"k": "v"}}));
    assert_eq!((&eth0.config["args"], &eth0.config["prevResult"]), (&Value::Null, &Value::Null));
    let fixed =
        "IgnoreUnknown=true;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=;K8S_POD_UID=uid-1";
    assert_eq!(eth0.variable("CNI_ARGS"), fixed);
    assert_eq!(net1.variable("CNI_ARGS"), format!("{fixed};MAC=c2:11:22:33:44:66;IP=10.0.0.1/24"));
    for call in [&eth0, &net1] {
        assert_eq!(call.variable("CNI_CONTAINERID"), "c1");
        assert_eq!(call.variable("CNI_NETNS"), "/run/netns/c1");
        let path = format!("{}:{}", node.path("bin").display(), node.path("more").display());
        assert_eq!(call.variable("CNI_PATH"), path);
    }
}

#[test]
fn what_the_runtime_offers_reaches_the_plugins_of_a_list_that_declare_it() {
    let node = Node::new(FakeCluster::default());
    let (first, mut second) = (node.network("first", "1.0.0"), node.network("second", "1.0.0"));
    second["capabilities"] = json!({"portMappings": true, "mac": false});
    let config = node.config(&json!({
        "cniVersion": "1.0.0", "runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 2}], "mac": "02:00:00:00:00:01"},
        "delegates": [{"cniVersion": "1.0.0", "name": "weave1", "plugins": [first, second]}, second],
    }));
    node.add(&config).unwrap();
    let [first, second, other] = <[Called; 3]>::try_from(node.called()).unwrap();
    // Of whichever network they are.
    assert_eq!(other.config["runtimeConfig"], second.config["runtimeConfig"]);
    assert_eq!(first.config["runtimeConfig"], Value::Null);
    assert_eq!(second.config["runtimeConfig"], json!({"portMappings": [{"hostPort": 1, "containerPort": 2}]}));
    assert_eq!(second.config["prevResult"]["ips"][0]["address"], "1.1.1.2/24");
    assert_eq!(second.config["name"], "weave1");
}

#[test]
fn arguments_of_the_process_itself_follow_those_of_the_pod() {
    let mut node = Node::new(FakeCluster::default());
    node.inherited_args = "IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID=c1;BLAHBLAH=foo=bar";
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.add(&config).unwrap();
    assert_eq!(
        node.called()[0].variable("CNI_ARGS"),
        "IgnoreUnknown=true;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=uid-1;\
         IgnoreUnknown=1;BLAHBLAH=foo=bar"
    );
}

#[test]
fn plugins_are_searched_in_the_bin_dir_and_then_in_the_path() {
    let node = Node::new(FakeCluster::default());
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    let (first, second) = (node.path("bin/recorder"), node.path("more/recorder"));
    fs::create_dir(node.path("more")).unwrap();
    let script = |answer: &str| {
        format!("#!/bin/sh\necho '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"{answer}/24\"}}]}}'\n")
    };
    node.executable("more/recorder", &script("2.2.2.2"));
    assert_eq!(node.add(&config).unwrap().ips[0].address.to_string(), "1.1.1.2/24");
    fs::remove_file(&first).unwrap();
    node.del(&config).unwrap();
    assert_eq!(node.add(&config).unwrap().ips[0].address.to_string(), "2.2.2.2/24");
    fs::remove_file(&second).unwrap();
    let error = node.add(&config).unwrap_err().to_string();
    assert!(error.contains("failed to find plugin \"recorder\" in path"), "{error}");
}

#[test]
fn a_network_that_fails_is_told_apart_and_those_before_it_are_deleted() {
    let node = Node::new(FakeCluster::default());
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [
        node.network("weave1", "1.0.0"), node.network("other1", "1.0.0"), node.network("never", "1.0.0"),
    ]}));
    node.answer("other1", r#"{"cniVersion":"1.0.0","code":100,"msg":"expected plugin failure"}"#);
    let error = node.add(&config).unwrap_err();
    let expected = "error adding container to network \"other1\": expected plugin failure";
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(node.calls(), ["ADD weave1 eth0", "ADD other1 net1", "DEL other1 net1", "DEL weave1 eth0"]);
    // The runtime's own DEL has nothing left to do.
    node.del(&config).unwrap();
    assert_eq!(node.calls(), [""; 0]);
}

#[test]
fn an_add_of_a_sandbox_that_is_attached_fails_and_changes_nothing_of_what_is_remembered() {
    let mut node = Node::new(FakeCluster::default());
    let network = node.network("mynet", "1.0.0");
    node.set_cluster(cluster("net1").with_network("test/net1", &network.to_string()));
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.add(&config).unwrap();
    let remembered = fs::read(node.path("multus/c1")).unwrap();
    node.answer("weave1", r#"{"cniVersion":"1.0.0","code":100,"msg":"eth0 is there already"}"#);
    node.add(&config).unwrap_err();
    assert_eq!(fs::read(node.path("multus/c1")).unwrap(), remembered);
    node.calls();
    node.del(&config).unwrap();
    assert_eq!(node.calls(), ["DEL mynet net1", "DEL weave1 eth0"]);
}

#[test]
fn a_list_without_a_version_is_deleted_in_the_version_it_was_added_in() {
    let mut node = Node::new(FakeCluster::default());
    let mut plugin = node.network("x", "1.0.0");
    plugin.as_object_mut().unwrap().remove("cniVersion");
    let list = json!({"name": "unversioned", "plugins": [plugin]});
    node.set_cluster(cluster("net1").with_network("test/net1", &list.to_string()));
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.answer("unversioned", r#"{"ip4":{"ip":"1.1.1.3/24"}}"#);
    node.add(&config).unwrap();
    node.del(&config).unwrap();
    let versions: Vec<Value> = node
        .called()
        .into_iter()
        .filter(|call| call.config["name"] == "unversioned")
        .map(|call| call.config["cniVersion"].clone())
        .collect();
    assert_eq!(versions, ["", ""], "which is 0.1.0 to any plugin");
}

#[test]
fn results_without_interfaces_are_fine_and_have_no_status() {
    let mut node = Node::new(FakeCluster::default());
    let network = node.network("mynet", "1.0.0");
    node.set_cluster(cluster("net1").with_network("test/net1", &network.to_string()));
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    for name in ["weave1", "mynet"] {
        node.answer(name, r#"{"cniVersion":"1.0.0"}"#);
    }
    assert!(node.add(&config).unwrap().interfaces.is_empty());
    assert!(node.cluster.statuses.lock().unwrap().is_empty());
    assert!(node.cluster.events.lock().unwrap().is_empty());
}

#[test]
fn pods_of_the_system_get_no_status() {
    for (keys, is_told) in [(json!({}), true), (json!({"systemNamespaces": ["kube-system", "test"]}), false)] {
        let mut node = Node::new(FakeCluster::default());
        node.set_cluster(cluster(""));
        let mut config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        node.add(&config).unwrap();
        assert_eq!(node.cluster.statuses.lock().unwrap().contains_key("test/web-0"), is_told);
        assert_eq!(*node.cluster.events.lock().unwrap(), ["Normal AddedInterface Add eth0 [1.1.1.2/24] from weave1"]);
    }
}

#[test]
fn a_definition_that_is_missing_is_an_event_of_its_pod() {
    let mut node = Node::new(FakeCluster::default());
    node.set_cluster(cluster("nowhere"));
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.add(&config).unwrap_err();
    let text = "cannot find a network-attachment-definition (nowhere) in namespace (test): not found";
    assert_eq!(*node.cluster.events.lock().unwrap(), [format!("Warning NoNetworkFound {text}")]);
    assert_eq!(node.calls(), [""; 0], "nothing was begun");
    // Without a pod there is nobody to tell.
    let config = node.config(&json!({"cniVersion": "1.1.0", "clusterNetwork": "nowhere"}));
    for told in [node.status(&config).unwrap_err(), node.gc(&config, &json!([])).unwrap_err()] {
        assert!(told.to_string().contains("(nowhere) in namespace (kube-system)"), "{told}");
    }
    assert_eq!(node.cluster.events.lock().unwrap().len(), 1);
}

#[test]
fn the_readiness_indicator_file_is_waited_for_by_add_and_by_nobody_else() {
    let node = Node::new(FakeCluster::default());
    let indicator = node.path("ready");
    let config = node.config(&json!({
        "cniVersion": "1.1.0", "delegates": [node.network("weave1", "1.1.0")], "readinessindicatorfile": indicator,
    }));
    let begin = Instant::now();
    node.del(&config).unwrap();
    node.gc(&config, &json!([])).unwrap();
    assert_eq!(node.status(&config).unwrap_err().code(), ErrorCode::NotAvailable);
    assert!(begin.elapsed() < Duration::from_millis(900), "{:?}", begin.elapsed());
    node.calls();
    thread::scope(|scope| {
        let add = scope.spawn(|| node.add(&config));
        thread::sleep(Duration::from_millis(300));
        assert_eq!(node.calls(), [""; 0]);
        fs::write(&indicator, "").unwrap();
        add.join().unwrap().unwrap();
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    node.status(&config).unwrap();
}

#[test]
fn status_and_check_ask_what_they_should_and_pass_the_answer_on() {
    let mut node = Node::new(FakeCluster::default());
    let network = node.network("mynet", "0.3.1");
    node.set_cluster(cluster("net1").with_network("test/net1", &network.to_string()));
    let first = json!({"cniVersion": "1.1.0", "name": "weave1", "plugins": [
        node.network("x", "1.1.0"), node.network("y", "1.1.0"),
    ]});
    let config = node.config(&json!({
        "cniVersion": "1.1.0", "delegates": [first, node.network("other1", "1.1.0")],
    }));
    node.status(&config).unwrap();
    assert_eq!(node.calls(), ["STATUS weave1 -", "STATUS weave1 -"], "both plugins of the first network");
    node.fail("weave1", r#"{"cniVersion":"1.1.0","code":50,"msg":"not yet","details":"soon"}"#);
    let error = node.status(&config).unwrap_err().object();
    assert_eq!((error.code, error.msg.contains("not yet")), (50, true), "{error}");
    node.recover("weave1");
    let old = node.config(&json!({"cniVersion": "1.1.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.calls();
    node.status(&old).unwrap();
    assert_eq!(node.calls(), [""; 0], "plugins of that time have no STATUS");

    node.add(&config).unwrap();
    node.calls();
    node.check(&config).unwrap();
    let checks = node.called();
    let summary: Vec<String> = checks.iter().map(Called::summary).collect();
    // The one of 0.3.1 has no CHECK.
    assert_eq!(summary, ["CHECK weave1 eth0", "CHECK weave1 eth0", "CHECK other1 net1"]);
    assert_eq!(checks[2].config["prevResult"]["ips"][0]["address"], "1.1.1.2/24");
}

#[test]
fn collecting_garbage_on_a_fresh_node_is_no_failure() {
    let node = Node::new(FakeCluster::default());
    let config = node.config(&json!({"cniVersion": "1.1.0", "delegates": [node.network("weave1", "1.1.0")]}));
    node.gc(&config, &json!([])).unwrap();
    let called = node.called();
    assert_eq!(called.iter().map(Called::summary).collect::<Vec<_>>(), ["GC weave1 -"]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(called[0].config[key], json!([]), "{key}");
    }
}

#[test]
fn garbage_of_each_network_is_told_to_its_plugins_with_what_is_none() {
    let mut node = Node::new(FakeCluster::default());
    let network = node.network("mynet", "1.1.0");
    node.set_cluster(cluster("net1").with_network("test/net1", &network.to_string()));
    let config = node.config(&json!({"cniVersion": "1.1.0", "delegates": [node.network("weave1", "1.1.0")]}));
    node.add(&config).unwrap();
    node.calls();
    node.gc(&config, &json!([{"containerID": "c1", "ifname": "eth0"}])).unwrap();
    let called = node.called();
    let told = |call: &Called| (call.summary(), call.config["cni.dev/valid-attachments"].clone());
    let [first, second] = ["net1", "eth0"].map(|ifname| json!([{"containerID": "c1", "ifname": ifname}]));
    assert_eq!(
        called.iter().map(told).collect::<Vec<_>>(),
        [("GC mynet -".to_owned(), first), ("GC weave1 -".to_owned(), second)]
    );
    // What the runtime does not name is detached: as DEL would, and the files too.
    node.gc(&config, &json!([])).unwrap();
    assert_eq!(node.calls()[..2], ["DEL mynet net1", "DEL weave1 eth0"]);
    assert!(!node.path("multus/c1").exists());
    assert_eq!(fs::read_dir(node.path("multus/results")).unwrap().count(), 0);
}

#[test]
fn device_information_is_there_for_the_plugin_and_the_status_and_goes_with_the_attachment() {
    let mut node = Node::new(FakeCluster::default());
    node.devices = vec![("intel.com/vf", vec!["0000:03:02.0"])];
    let network = node.network("mynet", "1.0.0");
    node.set_cluster(cluster("net1").with_resource("test/net1", &network.to_string(), Some("intel.com/vf")));
    let info = r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.0"}}"#;
    fs::create_dir_all(node.path("devinfo/dp")).unwrap();
    fs::create_dir_all(node.path("devinfo/cni")).unwrap();
    fs::write(node.path("devinfo/dp/intel.com-vf-0000:03:02.0-device.json"), info).unwrap();
    let file = node.path("devinfo/cni/test-net1-c1_net1");
    // Of an attachment that nobody detached.
    fs::write(&file, "{}").unwrap();
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.add(&config).unwrap();
    let net1 = node.called().remove(1);
    assert_eq!((&net1.config["deviceID"], &net1.config["pciBusID"]), (&json!("0000:03:02.0"), &json!("0000:03:02.0")));
    assert_eq!(fs::read_to_string(&file).unwrap(), info);
    let status: Value = serde_json::from_str(&node.cluster.statuses.lock().unwrap()["test/web-0"]).unwrap();
    assert_eq!(status[1]["device-info"]["pci"]["pci-address"], "0000:03:02.0");
    assert_eq!(status[0]["device-info"], Value::Null);
    node.del(&config).unwrap();
    assert!(!file.exists());

    node.answer("mynet", r#"{"cniVersion":"1.0.0","code":100,"msg":"no"}"#);
    node.add(&config).unwrap_err();
    assert!(!file.exists(), "it goes with a failed ADD too");
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_before_anything_is_done() {
    let node = Node::new(FakeCluster::default());
    fs::write(node.path("file"), "").unwrap();
    let mut config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    config["cniDir"] = json!(node.path("file/below"));
    let error = node.add(&config).unwrap_err().to_string();
    assert!(error.contains("file/below"), "{error}");
    assert_eq!(node.calls(), [""; 0]);
}

#[test]
fn what_everybody_may_change_is_not_believed() {
    let node = Node::new(FakeCluster::default());
    let config = node.config(&json!({"cniVersion": "1.0.0", "delegates": [node.network("weave1", "1.0.0")]}));
    node.add(&config).unwrap();
    assert!(!node.calls().is_empty());
    let cni_dir = Path::new(config["cniDir"].as_str().unwrap());
    for directory in [cni_dir.to_owned(), cni_dir.join("results")] {
        let set = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        set(0o777);
        for error in [node.add(&config).unwrap_err(), node.del(&config).unwrap_err()] {
            let error = error.to_string();
            assert!(error.contains(&format!("run: chmod o-w {}", directory.display())), "{error}");
        }
        assert_eq!(node.calls(), [""; 0], "no plugin was run");
        set(0o755);
    }
    node.del(&config).unwrap();
}

/// A cluster where the pod `test/web-0` asks for `networks`.
fn cluster(networks: &str) -> FakeCluster {
    let annotations = BTreeMap::from([(Pod::NETWORKS.to_owned(), networks.to_owned())]);
    let reference = PodReference { namespace: "test".to_owned(), name: "web-0".to_owned(), uid: UID.to_owned() };
    FakeCluster::default().with_pod(Pod::new(reference, &annotations))
}

/// A node whose only plugin is `recorder`.
struct Node {
    directory: TempDir,
    cluster: Arc<FakeCluster>,
    has_cluster: bool,
    devices: Vec<(&'static str, Vec<&'static str>)>,
    inherited_args: &'static str,
}

/// One call of a plugin.
#[derive(Debug)]
struct Called {
    variables: BTreeMap<String, String>,
    config: Value,
}

impl Node {
    fn new(cluster: FakeCluster) -> Self {
        let directory = TempDir::new().unwrap();
        let node =
            Self { directory, cluster: Arc::new(cluster), has_cluster: false, devices: Vec::new(), inherited_args: "" };
        for name in ["bin", "calls", "answers"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        // Named by the network: what ADD answers, and whether it fails.
        let script = format!(
            "#!/bin/sh\n\
             cd {}\n\
             call=calls/$(printf %03d $(ls calls | wc -l))\n\
             mkdir $call; env > $call/env; cat > $call/config\n\
             name=$(sed 's/.*\"name\":\"\\([^\"]*\\)\".*/\\1/' $call/config)\n\
             if [ -e answers/$name.failure ]; then cat answers/$name.failure; exit 1; fi\n\
             [ $CNI_COMMAND = ADD ] || exit 0\n\
             [ ! -e answers/$name ] || {{ cat answers/$name; ! grep -q '\"code\"' answers/$name; exit; }}\n\
             version=$(sed 's/.*\"cniVersion\":\"\\([^\"]*\\)\".*/\\1/' $call/config)\n\
             case $version in 0.[12].0) echo '{{\"cniVersion\":\"'$version'\",\"ip4\":{{\"ip\":\"1.1.1.2/24\"}}}}';;\n\
             *) echo '{{\"cniVersion\":\"'$version'\",\"interfaces\":[{{\"name\":\"'$CNI_IFNAME'\",\"sandbox\":\"'$CNI_NETNS'\"}}],\
             \"ips\":[{{\"version\":\"4\",\"interface\":0,\"address\":\"1.1.1.2/24\"}}]}}';; esac\n",
            node.directory.path().display()
        );
        node.executable("bin/recorder", &script);
        node
    }

    fn set_cluster(&mut self, cluster: FakeCluster) {
        self.cluster = Arc::new(cluster);
        self.has_cluster = true;
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn executable(&self, name: &str, script: &str) {
        fs::write(self.path(name), script).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn network(&self, name: &str, version: &str) -> Value {
        json!({"cniVersion": version, "name": name, "type": "recorder"})
    }

    /// What the plugin of `network` answers to an ADD; with a `code` it fails so.
    fn answer(&self, network: &str, answer: &str) {
        fs::write(self.path("answers").join(network), answer).unwrap();
    }

    /// Whatever the command.
    fn fail(&self, network: &str, answer: &str) {
        fs::write(self.path("answers").join(format!("{network}.failure")), answer).unwrap();
    }

    fn recover(&self, network: &str) {
        fs::remove_file(self.path("answers").join(format!("{network}.failure"))).unwrap();
    }

    fn config(&self, keys: &Value) -> Value {
        let mut config = json!({
            "name": "multus-cni-network", "type": "multus", "cniDir": self.path("multus"), "binDir": self.path("bin"),
        });
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        config
    }

    /// What plugins were called with since the last time.
    fn called(&self) -> Vec<Called> {
        let mut directories: Vec<PathBuf> =
            fs::read_dir(self.path("calls")).unwrap().map(|entry| entry.unwrap().path()).collect();
        directories.sort();
        let read = |directory: PathBuf| {
            let variables = fs::read_to_string(directory.join("env")).unwrap();
            let variables = variables.lines().filter_map(|line| line.split_once('='));
            let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let config = serde_json::from_slice(&fs::read(directory.join("config")).unwrap()).unwrap();
            fs::remove_dir_all(directory).unwrap();
            Called { variables, config }
        };
        directories.into_iter().map(read).collect()
    }

    fn calls(&self) -> Vec<String> {
        self.called().iter().map(Called::summary).collect()
    }

    fn multus(&self) -> Multus {
        let multus = Multus::new(Registry::new())
            .with_resources(Arc::new(FakeDevices(self.devices.clone())))
            .with_device_info(DeviceInfoFiles::new(self.path("devinfo")));
        let shared: Arc<dyn Cluster> = self.cluster.clone();
        if self.has_cluster { multus.with_cluster(shared) } else { multus }
    }

    fn invocation(&self, config: &Value) -> Invocation {
        let mut invocation = Invocation::new(NetworkConfig::parse(config.to_string()).unwrap());
        invocation.args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID={UID}");
        invocation.path = vec![self.path("more")];
        let variables = [("PATH", "/usr/bin:/bin"), ("CNI_ARGS", self.inherited_args)];
        invocation.environment = variables
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into(), value.into()))
            .collect::<Environment>();
        invocation
    }

    fn add(&self, config: &Value) -> Result<Success, Error> {
        self.multus().add(&attachment(), &self.invocation(config)).map(Pending::keep)
    }

    fn del(&self, config: &Value) -> Result<(), Error> {
        self.multus().del(&attachment(), &self.invocation(config))
    }

    fn check(&self, config: &Value) -> Result<(), Error> {
        self.multus().check(&attachment(), &self.invocation(config))
    }

    fn status(&self, config: &Value) -> Result<(), Error> {
        self.multus().status(&self.invocation(config))
    }

    fn gc(&self, config: &Value, valid: &Value) -> Result<(), Error> {
        let mut config = config.clone();
        config["cni.dev/valid-attachments"] = valid.clone();
        self.multus().gc(&self.invocation(&config))
    }
}

impl Called {
    #[track_caller]
    fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// Command, network and interface.
    fn summary(&self) -> String {
        let ifname = self.variables.get("CNI_IFNAME").filter(|name| !name.is_empty()).map_or("-", String::as_str);
        format!("{} {} {ifname}", self.variable("CNI_COMMAND"), self.config["name"].as_str().unwrap())
    }
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: Some("/run/netns/c1".into()),
    }
}
