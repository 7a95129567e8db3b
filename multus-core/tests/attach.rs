//! Sandboxes attached and detached in the kernel, through the meta-plugin, macvlan and host-local in one process.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod fake;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    thread,
    time::Duration,
};

use fake::FakeCluster;
use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{Attachment, Error, ErrorCode, Invocation, NetworkConfig, Pending, Plugin, Registry, Success};
use multus_core::{Cluster, DeviceInfoFiles, InterfaceRequest, Multus, Pod, PodReference};
use serde_json::{Value, json};
use testkit::{Lab, Netns, run};

fn main() -> ExitCode {
    run(&[
        ("a_pod_gets_its_networks_and_their_status", a_pod_gets_its_networks_and_their_status),
        ("a_pod_that_is_not_there_gets_nothing", a_pod_that_is_not_there_gets_nothing),
        ("a_network_that_fails_has_all_before_it_taken_back", a_network_that_fails_has_all_before_it_taken_back),
        (
            "a_status_that_cannot_be_written_takes_everything_back",
            a_status_that_cannot_be_written_takes_everything_back,
        ),
        (
            "default_routes_that_cannot_be_set_take_everything_back",
            default_routes_that_cannot_be_set_take_everything_back,
        ),
        ("an_interface_that_is_taken_is_an_error_and_stays", an_interface_that_is_taken_is_an_error_and_stays),
        ("a_namespace_that_is_not_there_is_an_error", a_namespace_that_is_not_there_is_an_error),
        ("a_result_that_is_not_delivered_takes_everything_back", a_result_that_is_not_delivered_takes_everything_back),
        ("the_default_route_moves_to_the_interface_that_asks", the_default_route_moves_to_the_interface_that_asks),
        (
            "a_network_behind_the_one_that_asks_leaves_its_default_route_alone",
            a_network_behind_the_one_that_asks_leaves_its_default_route_alone,
        ),
        ("del_needs_neither_the_pod_nor_the_definition", del_needs_neither_the_pod_nor_the_definition),
        (
            "del_of_a_sandbox_that_is_being_torn_down_releases_its_addresses",
            del_of_a_sandbox_that_is_being_torn_down_releases_its_addresses,
        ),
        ("del_without_its_cache_finds_what_was_stored", del_without_its_cache_finds_what_was_stored),
        ("a_failed_del_keeps_what_the_next_one_needs", a_failed_del_keeps_what_the_next_one_needs),
        ("check_looks_at_every_network", check_looks_at_every_network),
        ("garbage_is_what_the_runtime_does_not_know", garbage_is_what_the_runtime_does_not_know),
        (
            "what_a_sandbox_has_whose_files_cannot_be_read_is_no_garbage",
            what_a_sandbox_has_whose_files_cannot_be_read_is_no_garbage,
        ),
        ("what_is_plugged_in_while_garbage_is_collected_stays", what_is_plugged_in_while_garbage_is_collected_stays),
        ("what_a_plugged_device_was_said_to_be_goes_with_it", what_a_plugged_device_was_said_to_be_goes_with_it),
        ("add_and_del_of_a_sandbox_take_turns", add_and_del_of_a_sandbox_take_turns),
        ("status_is_that_of_the_first_network", status_is_that_of_the_first_network),
    ])
}

fn a_pod_gets_its_networks_and_their_status(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf, other/second@lab0");
    let sandbox = lab.container("c1");
    let success = host.add(&sandbox).unwrap();
    assert_eq!(success.interfaces[0].name, "eth0");
    assert_eq!(success.ips[0].address.to_string(), "10.1.0.2/24");
    assert_eq!(sandbox.links(), ["eth0", "lab0", "lo", "net1"]);
    assert_eq!(sandbox.addresses("net1"), ["192.168.1.200/24"]);
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_data"]["mode"], "bridge");
    assert_eq!(sandbox.addresses("lab0"), ["10.3.0.2/24"]);

    let status = host.status();
    let of = |key: &str| status.as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["cbr0", "test/macvlan-conf", "other/second"]);
    assert_eq!(of("interface"), ["eth0", "net1", "lab0"]);
    assert_eq!(of("default"), [json!(true), Value::Null, Value::Null]);
    assert_eq!(status[1]["ips"], json!(["192.168.1.200"]));
    assert_eq!(status[1]["gateway"], json!(["192.168.1.1"]));
    assert_eq!(status[1]["mac"], sandbox.link("net1").unwrap()["address"]);
    assert_eq!(
        *host.cluster.events.lock().unwrap(),
        [
            "Normal AddedInterface Add eth0 [10.1.0.2/24 2001:db8:1::2/64] from cbr0",
            "Normal AddedInterface Add net1 [192.168.1.200/24] from test/macvlan-conf",
            "Normal AddedInterface Add lab0 [10.3.0.2/24] from other/second",
        ]
    );
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
    host.del(&sandbox).unwrap();
}

fn a_pod_that_is_not_there_gets_nothing(lab: &Lab) {
    let host = Host::with(lab, FakeCluster::default());
    let sandbox = lab.container("c1");
    let error = host.add(&sandbox).unwrap_err();
    assert!(
        error.to_string().starts_with("Multus: [test/web-0/uid-1]: pod not found in the Kubernetes API"),
        "{error}"
    );
    host.is_empty(&[&sandbox]);

    let replaced = PodReference { uid: "uid-2".to_owned(), ..reference() };
    let host = Host::with(lab, FakeCluster::default().with_pod(Pod::new(replaced, &BTreeMap::new())));
    let error = host.add(&sandbox).unwrap_err();
    assert!(error.to_string().contains("expected pod UID \"uid-1\" but got \"uid-2\""), "{error}");
    host.is_empty(&[&sandbox]);
}

fn a_network_that_fails_has_all_before_it_taken_back(lab: &Lab) {
    for (networks, text, code) in [
        ("macvlan-conf, full", "network \"test/full\": no IP addresses available in range set: 10.4.0.1-10.4.0.1", 999),
        ("macvlan-conf, no-master", "network \"test/no-master\": master \"ens99\" not found", 999),
        ("macvlan-conf, no-plugin", "network \"test/no-plugin\": failed to find plugin \"missing\" in path", 999),
        ("macvlan-conf, nowhere", "cannot find a network-attachment-definition (nowhere) in namespace (test)", 999),
        ("macvlan-conf, busy", "network \"test/busy\": try again later", 11),
    ] {
        let host = Host::new(lab, networks);
        let sandbox = lab.container(&format!("c{}", text.len()));
        let error = host.add(&sandbox).unwrap_err();
        let shown = error.to_string();
        assert!(shown.starts_with("Multus: [test/web-0/uid-1]: "), "{shown}");
        let text = text.replacen("network \"", "error adding container to network \"", 1);
        let (network, cause) = text.split_once(": ").unwrap_or((&text, ""));
        assert!(shown.contains(network) && shown.contains(cause), "{shown}");
        assert_eq!(error.code().number(), code, "{shown}");
        assert_eq!(sandbox.links(), ["lo"], "{shown}");
        assert!(host.reserved().is_empty(), "{shown}");
        assert!(host.cluster.statuses.lock().unwrap().is_empty());
        assert!(!host.cluster.events.lock().unwrap().iter().any(|event| event.contains("AddedInterface")));
        // As the runtime does then.
        host.del(&sandbox).unwrap();
        host.is_empty(&[&sandbox]);
    }
}

fn a_status_that_cannot_be_written_takes_everything_back(lab: &Lab) {
    let host = Host::with(lab, Host::cluster("macvlan-conf").that_refuses_statuses());
    let sandbox = lab.container("c1");
    let error = host.add(&sandbox).unwrap_err();
    assert!(error.to_string().contains("patch pod test/web-0: forbidden"), "{error}");
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(host.reserved().is_empty());
}

fn default_routes_that_cannot_be_set_take_everything_back(lab: &Lab) {
    // In nobody's subnet.
    let host = Host::new(lab, r#"[{"name":"macvlan-conf"},{"name":"routed","default-route":["203.0.113.1"]}]"#);
    let sandbox = lab.container("c1");
    let error = host.add(&sandbox).unwrap_err().to_string();
    assert!(error.starts_with("Multus: [test/web-0/uid-1]: ") && error.contains("net2"), "{error}");
    assert_eq!(sandbox.links(), ["lo"]);
    assert_eq!(host.reserved(), [""; 0]);
    assert!(host.cluster.statuses.lock().unwrap().is_empty());
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
}

fn an_interface_that_is_taken_is_an_error_and_stays(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("c1");
    sandbox.ip("link add net1 type veth peer name other");
    let error = host.add(&sandbox).unwrap_err().to_string();
    assert!(
        error.contains("network \"test/macvlan-conf\"") && error.contains("the sandbox has an interface of that name"),
        "{error}"
    );
    assert_eq!(sandbox.links(), ["lo", "net1", "other"]);
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_kind"], "veth");
    assert_eq!(host.reserved(), [""; 0]);
}

fn a_namespace_that_is_not_there_is_an_error(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("c1");
    sandbox.remove_path();
    let error = host.add(&sandbox).unwrap_err().to_string();
    let network = "error adding container to network \"cbr0\": ";
    assert!(error.contains(network) && error.contains(sandbox.path().to_str().unwrap()), "{error}");
    assert_eq!(host.reserved(), [""; 0]);
}

fn a_result_that_is_not_delivered_takes_everything_back(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("c1");
    let pending = host.pending(&sandbox).unwrap();
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    pending.undo().unwrap();
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(host.reserved().is_empty());
    drop(host.pending(&sandbox).unwrap());
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(host.reserved().is_empty());
}

fn the_default_route_moves_to_the_interface_that_asks(lab: &Lab) {
    let asking = r#"[{"name":"routed","default-route":["192.168.5.1"]}]"#;
    let host = Host::new(lab, asking);
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    let defaults = |family: &str| {
        let routes = sandbox.ip_json(&format!("{family} route show default"));
        let show = |route: &Value| format!("{} {}", route["dev"].as_str().unwrap(), route["gateway"].as_str().unwrap());
        routes.as_array().unwrap().iter().map(show).collect::<Vec<String>>()
    };
    assert_eq!(defaults("-4"), ["net1 192.168.5.1"]);
    assert_eq!(defaults("-6"), ["eth0 2001:db8:1::1"]);
    let status = host.status();
    assert_eq!(status[0]["gateway"], json!(["2001:db8:1::1"]));
    assert_eq!(status[1]["gateway"], json!(["192.168.5.1"]));
    // What CHECK compares with is what there is.
    host.check(&sandbox).unwrap();
    let stored = |network: &str, ifname: &str| {
        let file = lab.path("multus/results").join(format!("{network}-c1-{ifname}"));
        let stored: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        stored["result"]["routes"].clone()
    };
    assert_eq!(stored("cbr0", "eth0"), json!([{"dst": "::/0"}]));
    assert_eq!(stored("routed", "net1"), json!([{"dst": "0.0.0.0/0", "gw": "192.168.5.1"}]));
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
}

fn a_network_behind_the_one_that_asks_leaves_its_default_route_alone(lab: &Lab) {
    let host = Host::new(lab, r#"[{"name":"routed","default-route":["192.168.5.1"]},{"name":"macvlan-conf"}]"#);
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    let routes = sandbox.ip_json("-4 route show default");
    assert_eq!(routes.as_array().unwrap().len(), 1, "{routes}");
    assert_eq!((&routes[0]["dev"], &routes[0]["gateway"]), (&json!("net1"), &json!("192.168.5.1")));
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
}

fn del_needs_neither_the_pod_nor_the_definition(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf, other/second@lab0");
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    let later = host.with_another(FakeCluster::default().that_is_down());
    later.del(&sandbox).unwrap();
    later.is_empty(&[&sandbox]);
}

fn del_of_a_sandbox_that_is_being_torn_down_releases_its_addresses(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf, other/second@lab0");
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    sandbox.unbind();
    assert!(sandbox.path().exists());
    host.del(&sandbox).unwrap();
    assert_eq!(host.reserved(), [""; 0]);
}

fn del_without_its_cache_finds_what_was_stored(lab: &Lab) {
    for damage in ["removed", "torn"] {
        let host = Host::new(lab, "macvlan-conf, other/second@lab0");
        let sandbox = lab.container(damage);
        host.add(&sandbox).unwrap();
        let file = lab.path("multus").join(container_id(&sandbox));
        match damage {
            "removed" => fs::remove_file(&file).unwrap(),
            _ => fs::write(&file, r#"[{"Conf":{"na"#).unwrap(),
        }
        host.with_another(FakeCluster::default()).del(&sandbox).unwrap();
        host.is_empty(&[&sandbox]);
    }
    // With neither, there is what ADD would do now.
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("neither");
    host.add(&sandbox).unwrap();
    fs::remove_dir_all(lab.path("multus")).unwrap();
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
}

fn a_failed_del_keeps_what_the_next_one_needs(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf, other/second@lab0");
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    // The IPAM of one network cannot do its work.
    let network = lab.data_dir().join("macvlan-conf");
    let aside = lab.data_dir().join("aside");
    fs::rename(&network, &aside).unwrap();
    fs::write(&network, "").unwrap();
    let error = host.del(&sandbox).unwrap_err();
    assert!(error.to_string().contains("network \"test/macvlan-conf\": open "), "{error}");
    assert_eq!(host.reserved(), ["aside/192.168.1.200"]);
    fs::remove_file(&network).unwrap();
    fs::rename(&aside, &network).unwrap();
    assert_eq!(host.reserved(), ["macvlan-conf/192.168.1.200"]);
    host.del(&sandbox).unwrap();
    host.is_empty(&[&sandbox]);
}

fn check_looks_at_every_network(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("c1");
    let error = host.check(&sandbox).unwrap_err();
    assert!(error.to_string().contains("nothing is known of container c1"), "{error}");
    host.add(&sandbox).unwrap();
    host.check(&sandbox).unwrap();
    sandbox.ip("link delete net1");
    let error = host.check(&sandbox).unwrap_err();
    assert!(error.to_string().starts_with("Multus: [test/web-0/uid-1]: network \"test/macvlan-conf\": "), "{error}");
    host.del(&sandbox).unwrap();
}

fn garbage_is_what_the_runtime_does_not_know(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let [kept, gone, busy] = ["kept", "gone", "busy"].map(|name| lab.container(name));
    host.add(&kept).unwrap();
    host.add(&gone).unwrap();
    gone.remove_path();
    let under_way = host.pending(&busy).unwrap();
    // A reservation of which nobody remembers anything.
    let leaked = lab.data_dir().join("macvlan-conf/192.168.1.216");
    fs::write(&leaked, "lost\r\nnet1").unwrap();

    let mut config = host.config();
    config["cni.dev/valid-attachments"] = json!([{"containerID": container_id(&kept), "ifname": "eth0"}]);
    host.gc(&config).unwrap();
    let reserved = host.reserved();
    assert_eq!(
        reserved,
        ["cbr0/10.1.0.2", "cbr0/10.1.0.4", "macvlan-conf/192.168.1.200", "macvlan-conf/192.168.1.202"]
    );
    assert_eq!(kept.links(), ["eth0", "lo", "net1"]);
    assert!(!lab.path("multus").join(container_id(&gone)).exists());
    under_way.keep();
    assert_eq!(busy.links(), ["eth0", "lo", "net1"]);
    // Without a list nothing is known, and nothing is freed.
    host.gc(&host.config()).unwrap();
    assert_eq!(host.reserved(), reserved);
    for sandbox in [&kept, &busy] {
        host.del(sandbox).unwrap();
    }
    host.is_empty(&[&kept, &busy]);
}

fn what_a_sandbox_has_whose_files_cannot_be_read_is_no_garbage(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let [torn, whole] = ["torn", "whole"].map(|name| lab.container(name));
    host.add(&torn).unwrap();
    host.add(&whole).unwrap();
    let reserved = host.reserved();
    let mut config = host.config();
    let valid = [&torn, &whole].map(|sandbox| json!({"containerID": container_id(sandbox), "ifname": "eth0"}));
    config["cni.dev/valid-attachments"] = json!(valid);
    let id = container_id(&torn);
    let of_torn = |path: &Path| path.file_name().unwrap().to_str().unwrap().contains(&id);
    let files = ["multus", "multus/results"].map(|directory| fs::read_dir(lab.path(directory)).unwrap());
    let files = files.into_iter().flatten().map(|entry| entry.unwrap().path()).filter(|path| of_torn(path));
    let files: Vec<(PathBuf, Vec<u8>)> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for (path, _) in &files {
        fs::write(path, "{").unwrap();
    }
    let error = host.gc(&config).unwrap_err().to_string();
    assert!(error.contains(&format!("it is not known what sandbox {id} has")), "{error}");
    assert_eq!(host.reserved(), reserved);
    for (path, bytes) in &files {
        fs::write(path, bytes).unwrap();
    }
    host.gc(&config).unwrap();
    assert_eq!(host.reserved(), reserved);
    // As if the runtime had attached it before Multus was there: its interface is the cluster network's.
    for (path, _) in &files {
        fs::remove_file(path).unwrap();
    }
    host.gc(&config).unwrap();
    assert!(host.reserved().contains(&"cbr0/10.1.0.2".to_owned()), "{:?}", host.reserved());
}

fn what_is_plugged_in_while_garbage_is_collected_stays(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let [plugged, other, stale] = ["c1", "c2", "stale"].map(|name| lab.container(name));
    host.add(&plugged).unwrap();
    host.add(&other).unwrap();
    // The last one that GC comes to, with a plugin whose DEL goes on when it is told to.
    let (begun, gate) = (lab.path("begun"), lab.path("gate"));
    let script = format!(
        "#!/bin/sh\nif [ $CNI_COMMAND = DEL ]; then touch {}; until [ -e {} ]; do sleep 0.01; done; fi\necho '{{\"cniVersion\":\"1.0.0\"}}'\n",
        begun.display(),
        gate.display(),
    );
    fs::write(lab.path("bin/gated"), script).unwrap();
    fs::set_permissions(lab.path("bin/gated"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = host.config();
    config["delegates"] = json!([{"cniVersion": "1.0.0", "name": "gated", "type": "gated"}]);
    let invoked = invocation(&config);
    host.within(|multus| multus.add(&attachment(&stale), &invoked).map(Pending::keep)).unwrap();

    let valid = [&plugged, &other].map(|sandbox| json!({"containerID": container_id(sandbox), "ifname": "eth0"}));
    let mut config = host.config();
    config["cni.dev/valid-attachments"] = json!(valid);
    let network = macvlan(lab, "macvlan-conf", json!([[{"subnet": "192.168.1.0/24"}]]), json!([]));
    thread::scope(|scope| {
        let collection = scope.spawn(|| host.gc(&config));
        while !begun.exists() {
            thread::sleep(Duration::from_millis(2));
        }
        let plug = scope.spawn(|| {
            host.within(|multus| {
                let plugin = multus.hot_plug(host.config().to_string().as_bytes(), InterfaceRequest::default());
                let net9 = Attachment { ifname: "net9".parse().unwrap(), ..attachment(&plugged) };
                plugin.add(&net9, &invocation(&network)).map(Pending::keep)
            })
        });
        // Long enough for it to be made before garbage is looked for, if nothing keeps it.
        thread::sleep(Duration::from_millis(500));
        fs::write(&gate, "go\n").unwrap();
        collection.join().unwrap().unwrap();
        plug.join().unwrap().unwrap();
    });
    assert_eq!(plugged.links(), ["eth0", "lo", "net1", "net9"]);
    assert_eq!(lab.reserved("macvlan-conf").len(), 3);
    host.del(&plugged).unwrap();
    host.del(&other).unwrap();
    host.is_empty(&[&plugged, &other]);
}

fn what_a_plugged_device_was_said_to_be_goes_with_it(lab: &Lab) {
    let host = Host::new(lab, "");
    let sandbox = lab.container("c1");
    host.add(&sandbox).unwrap();
    let directory = lab.path("devinfo/cni");
    fs::create_dir_all(&directory).unwrap();
    let multus = host.multus.clone().with_device_info(DeviceInfoFiles::new(lab.path("devinfo")));
    let request = InterfaceRequest::parse(r#"{"deviceID":"0000:03:00.1"}"#, "request").unwrap();
    let plugin = multus.hot_plug(host.config().to_string().as_bytes(), request);
    let net9 = Attachment { ifname: "net9".parse().unwrap(), ..attachment(&sandbox) };
    // A plugin of which DEL leaves the file, as Multus removes it for the pod's own networks, and one that fails, too.
    let script = |end: &str| {
        let file = directory.join("vdpa-c1_net9");
        format!("#!/bin/sh\n[ $CNI_COMMAND = DEL ] && exit 0\necho '{{}}' > {}\n{end}\n", file.display())
    };
    for (end, is_plugged) in [("exit 1", false), (r#"echo '{"cniVersion":"1.0.0"}'"#, true)] {
        fs::write(lab.path("bin/vdpa"), script(end)).unwrap();
        fs::set_permissions(lab.path("bin/vdpa"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let network = invocation(&json!({"cniVersion": "1.0.0", "name": "vdpa", "type": "vdpa"}));
        let files = || fs::read_dir(&directory).unwrap().count();
        let added = lab.host.within(|| plugin.add(&net9, &network).map(Pending::keep));
        assert_eq!((added.is_ok(), files()), (is_plugged, usize::from(is_plugged)));
        lab.host.within(|| plugin.del(&net9, &network)).unwrap();
        assert_eq!(files(), 0);
    }
    host.del(&sandbox).unwrap();
}

fn add_and_del_of_a_sandbox_take_turns(lab: &Lab) {
    let host = Host::new(lab, "macvlan-conf");
    let sandbox = lab.container("c1");
    let pending = host.pending(&sandbox).unwrap();
    thread::scope(|scope| {
        let deletion = scope.spawn(|| host.del(&sandbox));
        // Long enough for it to do what it must not.
        thread::sleep(Duration::from_millis(200));
        assert!(!deletion.is_finished());
        assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
        pending.keep();
        deletion.join().unwrap().unwrap();
    });
    host.is_empty(&[&sandbox]);
}

fn status_is_that_of_the_first_network(lab: &Lab) {
    let host = Host::new(lab, "full");
    let ask = |config: &Value| host.within(|multus| multus.status(&invocation(config)));
    ask(&host.config()).unwrap();
    let mut config = host.config();
    config["delegates"][0]["ipam"]["ranges"] =
        json!([[{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.1", "rangeEnd": "10.1.0.1"}]]);
    fs::create_dir_all(lab.data_dir().join("cbr0")).unwrap();
    assert_eq!(ask(&config).unwrap_err().code(), ErrorCode::NotAvailable);
    let mut config = host.config();
    config["readinessindicatorfile"] = json!(lab.path("not-there"));
    let error = ask(&config).unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotAvailable);
    assert!(error.to_string().contains("still waiting for readinessindicatorfile @ "), "{error}");
}

/// A node of a cluster, where the pod `test/web-0` is to run.
struct Host<'a> {
    lab: &'a Lab,
    cluster: Arc<FakeCluster>,
    multus: Multus,
}

impl<'a> Host<'a> {
    fn new(lab: &'a Lab, networks: &str) -> Self {
        Self::with(lab, Self::cluster(networks))
    }

    fn cluster(networks: &str) -> FakeCluster {
        let annotations = BTreeMap::from([(Pod::NETWORKS.to_owned(), networks.to_owned())]);
        FakeCluster::default().with_pod(Pod::new(reference(), &annotations))
    }

    fn with(lab: &'a Lab, cluster: FakeCluster) -> Self {
        let network = |name: &str, subnet: &str, first: &str, last: &str| {
            let range = json!({"subnet": subnet, "rangeStart": first, "rangeEnd": last});
            macvlan(lab, name, json!([[range]]), json!([{"dst": "0.0.0.0/0"}]))
        };
        let mut no_master = network("no-master", "10.5.0.0/24", "10.5.0.2", "10.5.0.9");
        no_master["master"] = json!("ens99");
        let busy = lab.path("bin").join("busy");
        fs::create_dir_all(lab.path("bin")).unwrap();
        let answer = r#"{"cniVersion":"1.0.0","code":11,"msg":"try again later"}"#;
        fs::write(&busy, format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\necho '{answer}'\nexit 1\n")).unwrap();
        fs::set_permissions(&busy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let cluster = cluster
            .with_network(
                "test/macvlan-conf",
                &network("macvlan-conf", "192.168.1.0/24", "192.168.1.200", "192.168.1.216").to_string(),
            )
            .with_network("other/second", &network("second", "10.3.0.0/24", "10.3.0.2", "10.3.0.9").to_string())
            .with_network("test/routed", &network("routed", "192.168.5.0/24", "192.168.5.2", "192.168.5.9").to_string())
            .with_network("test/full", &network("full", "10.4.0.0/24", "10.4.0.1", "10.4.0.1").to_string())
            .with_network("test/no-master", &no_master.to_string())
            .with_network("test/no-plugin", r#"{"cniVersion":"1.0.0","name":"no-plugin","type":"missing"}"#)
            .with_network("test/busy", r#"{"cniVersion":"1.0.0","name":"busy","type":"busy"}"#);
        let cluster = Arc::new(cluster);
        let ipams = Registry::new().with("host-local", HostLocal::new());
        let registry = Registry::new().with("macvlan", Macvlan::new(ipams));
        let shared: Arc<dyn Cluster> = cluster.clone();
        let multus = Multus::new(registry).with_cluster(shared);
        Self { lab, cluster, multus }
    }

    fn with_another(&self, cluster: FakeCluster) -> Self {
        Self::with(self.lab, cluster)
    }

    fn config(&self) -> Value {
        let ranges = json!([
            [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.2"}],
            [{"subnet": "2001:db8:1::/64"}],
        ]);
        let cbr0 = macvlan(self.lab, "cbr0", ranges, json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        json!({
            "cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus",
            "cniDir": self.lab.path("multus"), "binDir": self.lab.path("bin"), "delegates": [cbr0],
        })
    }

    fn within<T: Send>(&self, work: impl FnOnce(&Multus) -> T + Send) -> T {
        self.lab.host.within(|| work(&self.multus))
    }

    fn pending(&self, sandbox: &Netns) -> Result<Pending, Error> {
        let invocation = invocation(&self.config());
        self.within(|multus| multus.add(&attachment(sandbox), &invocation))
    }

    fn add(&self, sandbox: &Netns) -> Result<Success, Error> {
        self.pending(sandbox).map(Pending::keep)
    }

    fn del(&self, sandbox: &Netns) -> Result<(), Error> {
        let invocation = invocation(&self.config());
        self.within(|multus| multus.del(&attachment(sandbox), &invocation))
    }

    fn check(&self, sandbox: &Netns) -> Result<(), Error> {
        let invocation = invocation(&self.config());
        self.within(|multus| multus.check(&attachment(sandbox), &invocation))
    }

    fn gc(&self, config: &Value) -> Result<(), Error> {
        self.within(|multus| multus.gc(&invocation(config)))
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.cluster.statuses.lock().unwrap()["test/web-0"]).unwrap()
    }

    /// The IPv4 addresses that are reserved, as `network/address`.
    fn reserved(&self) -> Vec<String> {
        let networks = fs::read_dir(self.lab.data_dir()).into_iter().flatten();
        let mut reserved = Vec::new();
        for network in networks.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let addresses = self.lab.reserved(&network).into_iter().filter(|address| !address.contains(':'));
            reserved.extend(addresses.map(|address| format!("{network}/{address}")));
        }
        reserved.sort();
        reserved
    }

    /// Nothing is left of any attachment: no link, no address, no file.
    fn is_empty(&self, sandboxes: &[&Netns]) {
        for sandbox in sandboxes {
            assert_eq!(sandbox.links(), ["lo"]);
            assert!(!self.lab.path("multus").join(container_id(sandbox)).exists());
        }
        assert_eq!(self.reserved(), [""; 0]);
        let results = fs::read_dir(self.lab.path("multus").join("results")).into_iter().flatten();
        assert_eq!(results.count(), 0);
    }
}

fn macvlan(lab: &Lab, name: &str, ranges: Value, routes: Value) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": name, "type": "macvlan", "master": "ens32", "mode": "bridge",
        "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "ranges": ranges, "routes": routes},
    })
}

fn invocation(config: &Value) -> Invocation {
    let mut invocation = Invocation::new(NetworkConfig::parse(config.to_string()).unwrap());
    invocation.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME=web-0;K8S_POD_UID=uid-1".to_owned();
    invocation
}

fn reference() -> PodReference {
    PodReference { namespace: "test".to_owned(), name: "web-0".to_owned(), uid: "uid-1".to_owned() }
}

fn container_id(sandbox: &Netns) -> String {
    sandbox.path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn attachment(sandbox: &Netns) -> Attachment {
    Attachment {
        container_id: container_id(sandbox).parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: Some(sandbox.path().to_owned()),
    }
}
