//! Devices by the word of a kubelet.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use multus_core::{
    Checkpoint, Cluster, Config, Planner, PodReference, PodResources, ResourceDevices, kubernetes::Kubelet as Client,
};
use tempfile::TempDir;
use testkit_kubernetes::{Container, Kubelet, KubeletFault};

use crate::{UID, server, thin, web};

const VF: &str = "intel.com/sriov";
const RATE_LIMIT: KubeletFault = KubeletFault::Status(8, "rejected by rate limit");

#[test]
fn devices_come_container_by_container() {
    let node = Node::new();
    let gpu = ("nvidia.com/gpu".to_owned(), "GPU-1".to_owned());
    let mut first = Container::with(VF, &["0000:03:02.1", "0000:03:02.0"]);
    first.devices.push(gpu);
    node.kubelet.put("web", "nginx-0", vec![first, Container::default(), Container::with(VF, &["0000:01:00.1"])]);
    node.kubelet.put("lab", "nginx-0", vec![Container::with(VF, &["0000:09:00.0"])]);
    let client = node.client();
    let expected = [
        devices(VF, &["0000:03:02.1", "0000:03:02.0"]),
        devices("nvidia.com/gpu", &["GPU-1"]),
        devices(VF, &["0000:01:00.1"]),
    ];
    assert_eq!(client.devices(&nginx()).unwrap(), expected);
    assert_eq!(client.devices(&web("nginx-1", UID)).unwrap(), []);
}

#[test]
fn a_claims_devices_have_its_name() {
    let node = Node::new();
    let names = ["vendor.com/net=vf-7", "vendor.com/net", "vendor.com/net=a=b", "=", "vendor.com/net=vf-3"];
    node.kubelet.put("web", "nginx-0", vec![Container::with_claim("nic", &names), Container::with(VF, &["01:1"])]);
    let claim = ResourceDevices { is_claim: true, ..devices("nic", &["vf-7", "", "vf-3"]) };
    assert_eq!(node.client().devices(&nginx()).unwrap(), [claim, devices(VF, &["01:1"])]);
}

#[test]
fn without_a_socket_its_checkpoint_is_read() {
    let mut node = Node::new();
    node.kubelet.stop(false);
    let text = format!(
        r#"{{"Data":{{"PodDeviceEntries":[{{"PodUID":"{UID}","ResourceName":"R","DeviceIDs":{{"0":["01:1"]}}}}]}}}}"#
    );
    let neither = node.client().devices(&nginx()).unwrap_err();
    assert!(
        neither.starts_with("the kubelet has neither \"/var/lib/kubelet/pod-resources/kubelet.sock\" nor"),
        "{neither}"
    );
    let checkpoint = node.path(Checkpoint::FILE);
    fs::create_dir_all(checkpoint.parent().unwrap()).unwrap();
    fs::write(&checkpoint, text).unwrap();
    let client = node.client();
    assert_eq!(client.devices(&nginx()).unwrap(), [devices("R", &["01:1"])]);
    // It is asked again when it has one.
    node.kubelet.resume();
    assert_eq!(client.devices(&nginx()).unwrap(), []);
    assert_eq!(node.kubelet.lists(), 1);
}

#[test]
fn a_burst_of_pods_asks_a_few_times() {
    let node = Node::new();
    for number in 0..100 {
        let id = format!("0000:03:{number:02x}.0");
        node.kubelet.put("web", &format!("pod-{number}"), vec![Container::with(VF, &[&id])]);
    }
    node.kubelet.fail(KubeletFault::Delay(Duration::from_millis(200)));
    let client = node.client();
    thread::scope(|scope| {
        for number in 0..100 {
            let client = &client;
            scope.spawn(move || {
                let expected = devices(VF, &[&format!("0000:03:{number:02x}.0")]);
                assert_eq!(client.devices(&web(&format!("pod-{number}"), "")).unwrap(), [expected]);
            });
        }
    });
    // Threads that start late may need one of their own.
    assert!((2..=10).contains(&node.kubelet.lists()), "{}", node.kubelet.lists());
}

#[test]
fn an_answer_is_never_from_before_the_question() {
    let node = Node::new();
    node.kubelet.fail_next(1, KubeletFault::Delay(Duration::from_millis(500)));
    let client = node.client();
    thread::scope(|scope| {
        let first = scope.spawn(|| client.devices(&nginx()));
        while node.kubelet.lists() == 0 {
            thread::yield_now();
        }
        node.kubelet.put("web", "nginx-0", vec![Container::with(VF, &["01:1"])]);
        // Nobody knows what the first answer will be like, so it does not count.
        assert_eq!(client.devices(&nginx()).unwrap(), [devices(VF, &["01:1"])]);
        first.join().unwrap().unwrap();
    });
    assert_eq!(node.kubelet.lists(), 2);
    client.devices(&nginx()).unwrap();
    assert_eq!(node.kubelet.lists(), 3, "nothing is kept");
}

#[test]
fn a_kubelet_that_limits_the_rate_or_restarts_is_asked_again() {
    let mut node = Node::new();
    node.kubelet.put("web", "nginx-0", vec![Container::with(VF, &["01:1"])]);
    node.kubelet.fail_next(3, RATE_LIMIT);
    let client = node.client();
    assert_eq!(client.devices(&nginx()).unwrap(), [devices(VF, &["01:1"])]);
    assert_eq!(node.kubelet.lists(), 4);
    node.kubelet.stop(true);
    thread::scope(|scope| {
        let asked = scope.spawn(|| client.devices(&nginx()));
        thread::sleep(Duration::from_millis(300));
        node.kubelet.resume();
        assert_eq!(asked.join().unwrap().unwrap(), [devices(VF, &["01:1"])]);
    });
}

#[test]
fn an_answer_may_have_16_mib() {
    let node = Node::new();
    node.kubelet.fail_next(1, KubeletFault::Size((16 << 20) - 5));
    assert_eq!(node.client().devices(&nginx()).unwrap(), []);
    node.kubelet.fail_next(1, KubeletFault::Size((16 << 20) - 4));
    let error = node.client().devices(&nginx()).unwrap_err();
    assert!(error.contains("16777216"), "{error}");
}

#[test]
fn whatever_is_wrong_is_one_error_in_time_that_names_pod_network_resource_and_socket() {
    let faults = [
        (KubeletFault::Message(vec![0xff; 64]), "decode"),
        (KubeletFault::Message(vec![0x0a, 0x04, 0x0a, 0x02, 0xff, 0xfe]), "UTF-8"),
        (KubeletFault::Truncated, "Internal"),
        (KubeletFault::NotHttp, "connection"),
        (KubeletFault::Status(12, "unknown service v1.PodResourcesLister"), "unknown service v1.PodResourcesLister"),
        (KubeletFault::Status(99, "what"), "what"),
        (KubeletFault::Status(7, &"no ".repeat(1000).leak()[..]), "PermissionDenied"),
        (KubeletFault::Disconnect, "connection"),
        (RATE_LIMIT, "rejected by rate limit"),
        (KubeletFault::Silence, "no answer within 500ms"),
        (KubeletFault::Delay(Duration::from_secs(5)), "no answer within 500ms"),
    ];
    let server = server();
    let cluster = thin(&server);
    for (fault, word) in faults {
        let node = Node::new();
        node.kubelet.fail(fault.clone());
        let (error, time) = refused(&node, &cluster);
        assert!(error.contains(word), "{fault:?}: {error}");
        assert!(time < Duration::from_secs(4), "{fault:?}: {time:?}");
    }
    let mut node = Node::new();
    node.kubelet.stop(true);
    assert!(refused(&node, &cluster).0.contains("Connection refused"));
    fs::remove_file(node.path(Client::SOCKET)).unwrap();
    fs::write(node.path(Client::SOCKET), "").unwrap();
    refused(&node, &cluster);
}

/// The error of a pod's plan, and how long it took.
fn refused(node: &Node, cluster: &dyn Cluster) -> (String, Duration) {
    let config = Config::parse(br#"{"name":"m","type":"multus","delegates":[{"name":"d","type":"t"}]}"#).unwrap();
    let client = node.client().with_limit(Duration::from_secs(1));
    let planner = Planner { config: &config, cluster: Some(cluster), resources: &client };
    let pod = cluster.pod(&nginx()).unwrap();
    let begun = Instant::now();
    let error = planner.plan(pod.as_ref()).unwrap_err().to_string();
    let shown: String = error.chars().take(150).collect();
    for part in [&format!("web/nginx-0/{UID}"), "\"web/macvlan-conf\"", "\"intel.com/sriov\"", "kubelet socket"] {
        assert!(shown.contains(part), "{part}: {error}");
    }
    assert!(error.contains(Client::SOCKET) && error.len() < 600 && !error.contains('\n'), "{error}");
    (error, begun.elapsed())
}

/// A node's root directory, with a kubelet.
struct Node {
    root: TempDir,
    kubelet: Kubelet,
}

impl Node {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        let kubelet = Kubelet::start(&below(root.path(), Client::SOCKET));
        Self { root, kubelet }
    }

    fn client(&self) -> Client {
        Client::new(self.root.path())
    }

    fn path(&self, path: &str) -> PathBuf {
        below(self.root.path(), path)
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn nginx() -> PodReference {
    web("nginx-0", UID)
}

fn devices(resource: &str, ids: &[&str]) -> ResourceDevices {
    let ids = ids.iter().map(|id| (*id).to_owned()).collect();
    ResourceDevices { resource: resource.to_owned(), ids, is_claim: false }
}
