//! Lists of the Go plugins of Debian's package `containernetworking-plugins`, in real namespaces.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{env, fs, process::ExitCode};

use multus_cni::{Attachment, AttachmentRequest, Chain, NetworkConfigList, RawObject, Registry, ResultCache, Version};
use serde_json::json;
use testkit::{Lab, Netns, go_plugins, run_when};

fn main() -> ExitCode {
    run_when(
        &[
            ("a_list_of_go_plugins_is_added_checked_and_deleted", a_list_of_go_plugins_is_added_checked_and_deleted),
            ("a_list_that_fails_half_way_leaves_nothing", a_list_that_fails_half_way_leaves_nothing),
        ],
        go_plugins().map(drop),
    )
}

fn a_list_of_go_plugins_is_added_checked_and_deleted(lab: &Lab) {
    for version in ["0.3.1", "0.4.0", "1.0.0"] {
        let sandbox = lab.container(version);
        let (chain, request) = (chain(lab), request(&sandbox));
        let list = bridged(lab, version, &json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_notify": "1"}}));
        lab.host.within(|| {
            chain.validate(&list).unwrap();
            let result = chain.add(&list, &request).unwrap().keep();
            assert_eq!(result.ips[0].address.to_string(), "10.9.0.2/24");
        });
        assert_eq!(sandbox.addresses("eth0"), ["10.9.0.2/24"]);
        assert_eq!(sandbox.sysctl("net/ipv4/conf/eth0/arp_notify"), "1");
        assert_eq!(sandbox.link("eth0").unwrap()["address"], "02:00:00:00:00:01");

        if Version::parse(version).unwrap() >= Version::V0_4_0 {
            lab.host.within(|| chain.check(&list, &request).unwrap());
        }
        let cached = chain.cache.read(list.name(), &request.attachment).unwrap().unwrap();
        lab.host.within(|| chain.del(&cached.list().unwrap(), &cached.request).unwrap());
        assert_nothing_is_left(lab, &sandbox);
        lab.host.within(|| chain.del(&list, &request).unwrap());
    }
}

fn a_list_that_fails_half_way_leaves_nothing(lab: &Lab) {
    let sandbox = lab.container("c1");
    let (chain, request) = (chain(lab), request(&sandbox));
    let list = bridged(lab, "1.0.0", &json!({"type": "tuning", "sysctl": {"net.ipv4.no_such_key": "1"}}));
    let error = lab.host.within(|| chain.add(&list, &request).unwrap_err()).to_string();
    assert!(error.starts_with("plugin type=\"tuning\" failed (add): "), "{error}");
    assert_nothing_is_left(lab, &sandbox);
}

fn assert_nothing_is_left(lab: &Lab, sandbox: &Netns) {
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
    assert_eq!(fs::read_dir(lab.path("results")).unwrap().count(), 0);
}

fn chain(lab: &Lab) -> Chain {
    let mut chain = Chain::new(Registry::new(), ResultCache::new(&lab.path("")));
    chain.path = vec![go_plugins().unwrap()];
    chain.environment = [("PATH".into(), env::var_os("PATH").unwrap())].into_iter().collect();
    chain
}

fn request(sandbox: &Netns) -> AttachmentRequest {
    let mut request = AttachmentRequest::new(Attachment {
        container_id: "c1".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: Some(sandbox.path().to_owned()),
    });
    request.args = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
    request.capability_args = RawObject::parse(br#"{"mac":"02:00:00:00:00:01"}"#).unwrap();
    request
}

/// A bridge with an address for each container, and `second` after it.
fn bridged(lab: &Lab, version: &str, second: &serde_json::Value) -> NetworkConfigList {
    let ipam = json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": "10.9.0.0/24", "rangeStart": "10.9.0.2", "rangeEnd": "10.9.0.2"});
    let bridge = json!({"type": "bridge", "bridge": "cni9", "capabilities": {"mac": true}, "ipam": ipam});
    let list = json!({"name": "net", "cniVersion": version, "plugins": [bridge, second]});
    NetworkConfigList::parse(list.to_string().as_bytes()).unwrap()
}
