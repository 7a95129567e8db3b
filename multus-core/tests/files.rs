//! Files that others read and write too: the scratch cache, device information, the kubelet's checkpoint.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use multus_cni::{AttachmentId, ContainerId, NetworkConfigList};
use multus_core::{
    Bandwidth, Checkpoint, DefaultRoute, DefaultRoutes, Delegate, DeviceInfoFiles, InterfaceRequest, PodReference,
    PodResources, PortMapping, Scratch,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

#[test]
fn a_sandbox_is_remembered_in_the_form_of_multus() {
    let directory = TempDir::new().unwrap();
    let scratch = Scratch::new(directory.path().join("multus"));
    let single = r#"{"cniVersion":"0.4.0","name":"weave1","type":"weave-net","big":12345678901234567890123}"#;
    let list = r#"{ "name":"mylist","plugins":[{"type":"a","x":1.0},{"type":"b"}] }"#;
    let first = delegate(single);
    let mut second = delegate(list);
    second.name = "test/net1".to_owned();
    second.request = InterfaceRequest {
        ifname: Some("lab0".parse().unwrap()),
        ips: vec!["10.0.0.1/24".to_owned()],
        mac: Some("c2:11:22:33:44:66".to_owned()),
        infiniband_guid: Some("24:8a:07:03:00:8d:ae:2e".to_owned()),
        port_mappings: vec![PortMapping {
            host_port: 1,
            container_port: 2,
            protocol: String::new(),
            host_ip: String::new(),
        }],
        bandwidth: Some(Bandwidth { ingress_rate: 1, ingress_burst: 2, egress_rate: 3, egress_burst: 4 }),
        default_route: Some(vec!["10.0.0.254".parse().unwrap()]),
        ..InterfaceRequest::default()
    };
    second.device_id = Some("0000:03:02.0".to_owned());
    second.resource_name = Some("intel.com/vf".to_owned());
    second.default_routes =
        DefaultRoutes { ipv4: DefaultRoute::Replace("10.0.0.254".parse().unwrap()), ipv6: DefaultRoute::Remove };
    scratch.save(&id("c1"), &[first, second]).unwrap();

    let path = directory.path().join("multus/c1");
    let written: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        written,
        json!([
            {"Conf": {"cniVersion": "0.4.0", "name": "weave1", "type": "weave-net"}, "ConfList": {"plugins": null},
             "Name": "weave1", "IsFilterV4Gateway": false, "IsFilterV6Gateway": false, "Bytes": STANDARD.encode(single)},
            {"Conf": {}, "ConfList": {"cniVersion": "0.1.0", "name": "mylist", "plugins": [{"type": "a"}, {"type": "b"}]},
             "Name": "test/net1", "ifnameRequest": "lab0", "macRequest": "c2:11:22:33:44:66",
             "infinibandGUIDRequest": "24:8a:07:03:00:8d:ae:2e", "ipRequest": ["10.0.0.1/24"],
             "default-route": ["10.0.0.254"], "IsFilterV4Gateway": false, "IsFilterV6Gateway": true,
             "deviceID": "0000:03:02.0", "resourceName": "intel.com/vf", "Bytes": STANDARD.encode(list),
             "portMappings": [{"hostPort": 1, "containerPort": 2}],
             "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4}},
        ])
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

    let read = scratch.load(&id("c1")).unwrap().unwrap();
    assert_eq!(read[0].config.bytes(), single.as_bytes());
    assert_eq!(read[1].config.bytes(), list.as_bytes());
    assert!(!read[1].config.is_single() && read[0].config.is_single());
    assert_eq!(read[1].default_routes.ipv6, DefaultRoute::Remove);
    scratch.save(&id("c2"), &read).unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(path.with_file_name("c2")).unwrap());
}

#[test]
fn what_multus_wrote_is_read() {
    let directory = TempDir::new().unwrap();
    let config = r#"{"cniVersion":"0.3.1","name":"n","type":"macvlan","master":"eth1"}"#;
    let text = json!([{
        "Conf": {"cniVersion": "0.3.1", "name": "n", "type": "macvlan", "ipam": {}, "dns": {}},
        "ConfList": {"cniVersion": "", "name": "", "plugins": null},
        "CNINetworkConfigList": null, "Name": "default/n", "macRequest": "c2:11:22:33:44:66", "default-route": [],
        "IsFilterV4Gateway": true, "IsFilterV6Gateway": true, "Bytes": STANDARD.encode(config),
    }]);
    fs::write(directory.path().join("c1"), text.to_string()).unwrap();
    let read = Scratch::new(directory.path()).load(&id("c1")).unwrap().unwrap();
    assert_eq!((read[0].name.as_str(), read[0].config.bytes()), ("default/n", config.as_bytes()));
    assert_eq!(read[0].request.mac.as_deref(), Some("c2:11:22:33:44:66"));
    assert_eq!(read[0].request.default_route, Some(vec![]));
    assert_eq!(read[0].default_routes, DefaultRoutes { ipv4: DefaultRoute::Remove, ipv6: DefaultRoute::Remove });
}

#[test]
fn a_list_that_multus_cut_is_read_whole() {
    let directory = TempDir::new().unwrap();
    let cut = r#"{"cniVersion":"0.3.1","name":"cbr0","plugins":[{"type":"calico","ipam":{"type":"calico-ipam"}}]}"#;
    let whole = r#"{"type":"calico","ipam":{"type":"calico-ipam","assign_ipv4":"true"},"datastore_type":"kubernetes"}"#;
    let text = json!([{
        "Conf": {"ipam": {}, "dns": {}},
        "ConfList": {"cniVersion": "0.3.1", "name": "cbr0", "plugins": [{"type": "calico"}]},
        "CNINetworkConfigList": {
            "Name": "cbr0", "CNIVersion": "0.3.1", "DisableCheck": true, "DisableGC": false, "LoadOnlyInlinedPlugins": false,
            "Plugins": [{"Network": {"type": "calico"}, "Bytes": STANDARD.encode(whole)}], "Bytes": STANDARD.encode("{}"),
        },
        "Name": "cbr0", "IsFilterV4Gateway": false, "IsFilterV6Gateway": false, "Bytes": STANDARD.encode(cut),
    }]);
    fs::write(directory.path().join("c1"), text.to_string()).unwrap();
    let read = Scratch::new(directory.path()).load(&id("c1")).unwrap().unwrap();
    assert_eq!(
        String::from_utf8_lossy(read[0].config.bytes()),
        r#"{"cniVersion":"0.3.1","disableCheck":true,"name":"cbr0","plugins":[{"datastore_type":"kubernetes","ipam":{"type":"calico-ipam","assign_ipv4":"true"},"type":"calico"}]}"#
    );
}

#[test]
fn a_malformed_file_is_an_error_that_holds_nothing_of_it() {
    let directory = TempDir::new().unwrap();
    let scratch = Scratch::new(directory.path());
    for (text, problem) in [
        ("", "it must be JSON: unexpected end of JSON input"),
        ("[{\"Bytes\":\"hunter2", "it must be JSON: unexpected end of JSON input"),
        ("{\"password\":\"hunter2\"}", "it must be a list of delegates"),
        ("[\"hunter2\"]", "\"[0]\" must be an object"),
        ("[{}]", "\"[0].Bytes\" is missing"),
        ("[{\"Bytes\":\"hunter2!\"}]", "\"[0].Bytes\" must be base64"),
        ("[{\"Bytes\":\"aHVudGVyMg==\"}]", "\"[0].Bytes\" must be JSON: "),
        ("[{\"CNINetworkConfigList\":{\"Plugins\":[{\"Bytes\":\"aHVudGVyMg==\"}]}}]", "Bytes\" must be an object"),
    ] {
        fs::write(directory.path().join("c1"), text).unwrap();
        let error = scratch.load(&id("c1")).unwrap_err().to_string();
        assert!(error.contains("/c1\": ") && error.contains(problem) && !error.contains("hunter2"), "{text}: {error}");
    }
    fs::write(directory.path().join("c1"), "[]").unwrap();
    assert!(scratch.load(&id("c1")).unwrap().unwrap().is_empty());
}

#[test]
fn a_file_is_replaced_in_one_step_and_removed_once() {
    let directory = TempDir::new().unwrap();
    let scratch = Scratch::new(directory.path());
    assert!(scratch.load(&id("c1")).unwrap().is_none());
    scratch.save(&id("c1"), &[]).unwrap();
    let before = fs::File::open(directory.path().join("c1")).unwrap();
    // What a killed process may have left.
    fs::write(directory.path().join(".c1.new"), "half").unwrap();
    scratch.save(&id("c1"), &[delegate(r#"{"name":"n","type":"t"}"#)]).unwrap();
    // Whoever has the old file open still sees the whole of it.
    assert_eq!(before.metadata().unwrap().len(), 2);
    assert_ne!(before.metadata().unwrap().ino(), fs::metadata(directory.path().join("c1")).unwrap().ino());
    fs::create_dir(directory.path().join("results")).unwrap();
    fs::write(directory.path().join(".hidden"), "").unwrap();
    assert_eq!(scratch.containers().unwrap(), [id("c1")]);
    scratch.remove(&id("c1")).unwrap();
    scratch.remove(&id("c1")).unwrap();
    assert!(scratch.containers().unwrap().is_empty());
    assert!(Scratch::new("/nowhere/at/all").containers().unwrap().is_empty());
}

#[test]
fn device_information_goes_from_the_device_plugin_to_the_network_plugin() {
    let directory = TempDir::new().unwrap();
    let files = DeviceInfoFiles::new(directory.path());
    let attachment = AttachmentId { container_id: "c1".into(), ifname: "net1".into() };
    assert_eq!(
        DeviceInfoFiles::path_for_plugin("test/a", &attachment),
        "/var/run/k8s.cni.cncf.io/devinfo/cni/test-a-c1_net1"
    );
    let traversal = AttachmentId { container_id: "../..".into(), ifname: "net1".into() };
    assert_eq!(
        DeviceInfoFiles::path_for_plugin("../../etc/a", &traversal),
        "/var/run/k8s.cni.cncf.io/devinfo/cni/..-..-etc-a-..-.._net1"
    );

    assert_eq!(files.read("test/a", &attachment).unwrap(), None);
    files.copy("intel.com/vf", "0000:03:02.0", "test/a", &attachment).unwrap();
    assert_eq!(files.read("test/a", &attachment).unwrap(), None);

    fs::create_dir(directory.path().join("dp")).unwrap();
    let of_device_plugin = directory.path().join("dp/intel.com-vf-0000:03:02.0-device.json");
    for path in ["/dev/a", "/dev/b"] {
        let text = format!(r#"{{"memif":{{"role":"slave","mode":"ethernet","path":"{path}"}},"type":"memif"}}"#);
        fs::write(&of_device_plugin, text).unwrap();
        // The second time there is one of an attachment before.
        files.copy("intel.com/vf", "0000:03:02.0", "test/a", &attachment).unwrap();
        let info = files.read("test/a", &attachment).unwrap().unwrap();
        assert_eq!(
            serde_json::to_string(&info).unwrap(),
            format!(r#"{{"type":"memif","memif":{{"role":"slave","path":"{path}","mode":"ethernet"}}}}"#)
        );
    }
    let of_network_plugin = directory.path().join("cni/test-a-c1_net1");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&of_network_plugin), mode(of_network_plugin.parent().unwrap())), (0o444, 0o755));

    fs::remove_file(&of_network_plugin).unwrap();
    fs::write(&of_network_plugin, r#"{"pci":{"pci-address":5}}"#).unwrap();
    let error = files.read("test/a", &attachment).unwrap_err().to_string();
    assert!(error.ends_with(r#""pci.pci-address" must be a string, not 5"#), "{error}");
    files.remove("test/a", &attachment).unwrap();
    files.remove("test/a", &attachment).unwrap();
    assert!(!of_network_plugin.exists() && of_device_plugin.exists());
}

#[test]
fn the_checkpoint_is_read_by_the_pods_uid() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("kubelet_internal_checkpoint");
    let devices = |uid: &str| {
        let pod = PodReference { namespace: "test".into(), name: "web-0".into(), uid: uid.into() };
        let found = Checkpoint::new(&path).devices(&pod)?;
        Ok::<_, String>(found.iter().map(|of| format!("{}={}", of.resource, of.ids.join("+"))).collect::<Vec<_>>())
    };
    assert!(devices("u1").unwrap_err().starts_with("error reading file "));
    fs::write(
        &path,
        r#"{"Data":{"PodDeviceEntries":[
            {"PodUID":"u1","ContainerName":"a","ResourceName":"intel.com/vf","DeviceIDs":{"0":["03:1"],"-1":["03:0"]},"AllocResp":"x"},
            {"PodUID":"u2","ContainerName":"a","ResourceName":"intel.com/vf","DeviceIDs":{"0":["03:5"]}},
            {"PodUID":"u1","ContainerName":"b","ResourceName":"other","DeviceIDs":{"0":null}}],
            "RegisteredDevices":{"intel.com/vf":["03:1"]}},"Checksum":12345678901234567890}"#,
    )
    .unwrap();
    assert_eq!(devices("u1").unwrap(), ["intel.com/vf=03:0+03:1", "other="]);
    assert!(devices("u3").unwrap().is_empty());
    assert_eq!(devices("").unwrap_err(), "the pod's UID is not known");
    for (text, problem) in [
        ("", "unexpected end of JSON input"),
        ("{}", "\"Data\" is missing"),
        (r#"{"Data":{"PodDeviceEntries":[5]}}"#, "\"Data.PodDeviceEntries[0]\" must be an object"),
        (r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u1","DeviceIDs":["a"]}]}}"#, "DeviceIDs\" must be an object"),
    ] {
        fs::write(&path, text).unwrap();
        let error = devices("u1").unwrap_err();
        assert!(error.starts_with("malformed checkpoint ") && error.contains(problem), "{text}: {error}");
    }
}

proptest! {
    #[test]
    fn whatever_is_saved_is_loaded(
        name in "[a-z]{1,8}/[a-z0-9.-]{1,8}",
        value in any::<String>(),
        is_list in any::<bool>(),
        mac in prop::option::of("[0-9a-f]{2}(:[0-9a-f]{2}){5}"),
        ips in prop::collection::vec("[0-9./]{1,9}", 0..3),
        device_id in prop::option::of(".{1,9}"),
    ) {
        let plugin = json!({"type": "t", "value": value});
        let config = if is_list { json!({"name": "n", "plugins": [plugin]}) } else { json!({"name": "n", "type": "t", "value": value}) };
        let mut saved = delegate(&config.to_string());
        saved.name = name;
        saved.request.mac = mac;
        saved.request.ips = ips;
        saved.device_id = device_id;
        let directory = TempDir::new().unwrap();
        let scratch = Scratch::new(directory.path());
        scratch.save(&id("c1"), std::slice::from_ref(&saved)).unwrap();
        let loaded = scratch.load(&id("c1")).unwrap().unwrap().remove(0);
        prop_assert_eq!(loaded.config.bytes(), saved.config.bytes());
        prop_assert_eq!(loaded.config.is_single(), !is_list);
        prop_assert_eq!(loaded.name, saved.name);
        prop_assert_eq!(loaded.request.mac, saved.request.mac);
        prop_assert_eq!(loaded.request.ips, saved.request.ips);
        prop_assert_eq!(loaded.device_id, saved.device_id);
    }

    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in r#"\[\{"(Bytes|Name|ipRequest|CNINetworkConfigList|default-route)":[\[\]{}"a-z0-9:,]{0,20}\}\]"#) {
        let directory = TempDir::new().unwrap();
        for content in [bytes, text.into_bytes()] {
            fs::write(directory.path().join("c1"), content).unwrap();
            let _either = Scratch::new(directory.path()).load(&id("c1"));
            let _either = Checkpoint::new(directory.path().join("c1"))
                .devices(&PodReference { uid: "u".into(), ..PodReference::default() });
        }
    }
}

fn id(text: &str) -> ContainerId {
    text.parse().unwrap()
}

fn delegate(text: &str) -> Delegate {
    Delegate::new(NetworkConfigList::parse_either(text.as_bytes()).unwrap())
}
