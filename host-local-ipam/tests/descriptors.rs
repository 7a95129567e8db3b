//! A plugin that lives on keeps few files open, whatever configurations name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use host_local_ipam::HostLocal;
use multus_cni::{Attachment, Invocation, NetworkConfig, Plugin};

#[test]
fn a_hundred_directories_do_not_stay_open() {
    let directory = tempfile::tempdir().unwrap();
    let plugin = HostLocal::new();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for number in 0..100 {
        let data_dir = directory.path().join(number.to_string());
        let config = format!(
            r#"{{"cniVersion":"1.0.0","name":"storage","type":"macvlan","ipam":{{
                "type":"host-local","dataDir":"{}","ranges":[[{{"subnet":"10.1.2.0/24"}}]]}}}}"#,
            data_dir.display()
        );
        let invocation = Invocation::new(NetworkConfig::parse(config.as_bytes()).unwrap());
        let attachment =
            Attachment { container_id: "c1".parse().unwrap(), ifname: "eth0".parse().unwrap(), netns: None };
        plugin.add(&attachment, &invocation).unwrap().keep();
    }
    assert!(open() - before < 100, "{before} before, {} now", open());
}
