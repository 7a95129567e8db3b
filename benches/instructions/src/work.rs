//! What is counted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that fails has no result")]

use std::{collections::BTreeMap, hint::black_box, net::Ipv4Addr};

use host_local_ipam::{MemoryStore, Range, RangeSet, Request, Stage, Store, allocate};
use multus_cni::{AttachmentId, Interface, Invocation, IpConfig, NetworkConfig, NetworkName, Route, Success, Version};
use multus_core::{
    Cluster, ClusterError, Config, Event, NetworkAttachmentDefinition, Planner, Pod, PodReference, PodResources,
    ResourceDevices,
};

/// Something that every attachment goes through.
pub(crate) struct Work {
    /// What it is called.
    pub(crate) name: &'static str,
    /// How often it is done to be counted.
    pub(crate) times: u64,
    /// Does it so many times.
    pub(crate) run: fn(u64),
}

/// All there is.
pub(crate) const WORKS: [Work; 4] = [
    Work { name: "parse", times: 200, run: parse },
    Work { name: "allocate", times: 1000, run: allocate_and_release },
    Work { name: "plan", times: 100, run: plan },
    Work { name: "encode", times: 200, run: encode },
];

const MACVLAN: &str = r#"{
    "cniVersion": "1.0.0", "name": "storage", "type": "macvlan", "master": "ens32", "mode": "bridge", "mtu": 1500,
    "ipam": {
        "type": "host-local", "dataDir": "/var/lib/cni/networks",
        "ranges": [
            [{"subnet": "192.168.1.0/24", "rangeStart": "192.168.1.10", "rangeEnd": "192.168.1.250", "gateway": "192.168.1.1"}],
            [{"subnet": "2001:db8:1::/64"}]
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.0.0.0/8", "gw": "192.168.1.254"}]
    }
}"#;

/// Bytes to what macvlan and host-local work with.
fn parse(times: u64) {
    for _ in 0..times {
        let invocation = Invocation::new(NetworkConfig::parse(black_box(MACVLAN)).unwrap());
        black_box(macvlan::Config::parse(&invocation).unwrap());
        black_box(host_local_ipam::Config::parse(&invocation).unwrap());
    }
}

/// One address given and taken back, beside a thousand others.
fn allocate_and_release(times: u64) {
    let network: NetworkName = "storage".parse().unwrap();
    let sets = [RangeSet::new(vec![Range::new("10.0.0.0/16".parse().unwrap()).unwrap()]).unwrap()];
    let store = MemoryStore::new();
    let first = Ipv4Addr::new(10, 0, 0, 2).to_bits();
    let owner = |number: u32| AttachmentId { container_id: format!("{number:064x}"), ifname: "net1".to_owned() };
    let mut reservations = store.lock(&network).unwrap();
    for number in 0..1000 {
        assert!(
            reservations.reserve(Ipv4Addr::from_bits(first + number).into(), &owner(number), Stage::Finished).unwrap()
        );
    }
    drop(reservations);
    let owners: Vec<AttachmentId> = (1000..1016).map(owner).collect();
    for owner in owners.iter().cycle().take(times.try_into().unwrap()) {
        let request = Request { owner, sets: &sets, wanted: &[], stage: Stage::Finished };
        black_box(allocate(&mut *store.lock(&network).unwrap(), &request).unwrap());
        store.lock(&network).unwrap().release_all(owner).unwrap();
    }
}

/// What a pod with a cluster network and four networks of its own gets.
fn plan(times: u64) {
    let config = Config::parse(
        br#"{"name":"multus-cni-network","type":"multus","cniVersion":"1.0.0","delegates":[{"cniVersion":"1.0.0",
            "name":"cbr0","plugins":[{"type":"flannel","delegate":{"isDefaultGateway":true}},{"type":"portmap"}]}]}"#,
    );
    let config = config.unwrap();
    let cluster = Definitions((1..=4).map(definition).collect());
    let networks = r#"[{"name":"net1"},{"name":"net2","interface":"data"},{"name":"net3","mac":"02:00:00:00:00:01"},
        {"name":"net4","ips":["192.168.1.20"]}]"#;
    let reference = PodReference { namespace: "web".to_owned(), name: "web-0".to_owned(), uid: "u".to_owned() };
    let pod = Pod::new(reference, &BTreeMap::from([(Pod::NETWORKS.to_owned(), networks.to_owned())]));
    let planner = Planner { config: &config, cluster: Some(&cluster), resources: &NoDevices };
    for _ in 0..times {
        let plan = planner.plan(Some(black_box(&pod))).unwrap();
        assert_eq!(plan.delegates.len(), 5);
        black_box(plan);
    }
}

/// A result to the bytes that a runtime reads.
fn encode(times: u64) {
    let success = Success {
        interfaces: vec![Interface::new("net1", "02:00:00:00:00:01".parse().unwrap(), "/var/run/netns/c1")],
        ips: ["192.168.1.20/24", "2001:db8:1::20/64"]
            .map(|address| IpConfig {
                address: address.parse().unwrap(),
                gateway: Some("192.168.1.1".parse().unwrap()),
                interface: Some(0),
            })
            .into(),
        routes: ["0.0.0.0/0", "::/0", "10.0.0.0/8"].map(|dst| Route::new(dst.parse().unwrap())).into(),
        ..Success::default()
    };
    for _ in 0..times {
        black_box(black_box(&success).print(Version::V1_0_0).unwrap());
    }
}

fn definition(number: u8) -> NetworkAttachmentDefinition {
    NetworkAttachmentDefinition {
        namespace: "web".to_owned(),
        name: format!("net{number}"),
        config: MACVLAN.replace("storage", &format!("net{number}")),
        resource_name: None,
    }
}

/// A cluster that has nothing but definitions.
struct Definitions(Vec<NetworkAttachmentDefinition>);

impl Cluster for Definitions {
    fn pod(&self, _: &PodReference) -> Result<Option<Pod>, ClusterError> {
        Ok(None)
    }

    fn network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, ClusterError> {
        Ok(self.0.iter().find(|known| known.namespace == namespace && known.name == name).cloned())
    }

    fn claimed_devices(&self, _: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError> {
        Ok(Vec::new())
    }

    fn set_network_status(&self, _: &PodReference, _: &str) -> Result<(), ClusterError> {
        Ok(())
    }

    fn emit(&self, _: &PodReference, _: Event) {}
}

struct NoDevices;

impl PodResources for NoDevices {
    fn devices(&self, _: &PodReference) -> Result<Vec<ResourceDevices>, String> {
        Ok(Vec::new())
    }
}
