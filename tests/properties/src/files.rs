//! Files that other programs write too.

use std::fs;

use multus_cni::{AttachmentId, ContainerId};
use multus_core::{Checkpoint, DeviceInfo, DeviceInfoFiles, PodReference, PodResources, Scratch};
use tempfile::TempDir;

use crate::message;

/// What is remembered of a sandbox is remembered again in the same words.
pub fn scratch(data: &[u8]) {
    let directory = directory();
    let scratch = Scratch::new(directory.path());
    let [first, second, third]: [ContainerId; 3] = ["a", "b", "c"].map(|id| id.parse().unwrap());
    fs::write(directory.path().join("a"), data).unwrap();
    match scratch.load(&first) {
        Ok(delegates) => {
            scratch.save(&second, &delegates.unwrap()).unwrap();
            scratch.save(&third, &scratch.load(&second).unwrap().unwrap()).unwrap();
            let content = |name| fs::read(directory.path().join(name)).unwrap();
            assert_eq!(content("b"), content("c"));
        }
        Err(error) => message::check(data, &error),
    }
    let mut known = scratch.containers().unwrap();
    known.sort_by_key(ToString::to_string);
    for id in known {
        scratch.remove(&id).unwrap();
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Device information is read again from its own words; the kubelet's checkpoint names devices or its fault.
pub fn device_files(data: &[u8]) {
    let directory = directory();
    let attachment = AttachmentId { container_id: "c1".to_owned(), ifname: "net1".to_owned() };
    let files = DeviceInfoFiles::new(directory.path());
    fs::create_dir_all(directory.path().join("dp")).unwrap();
    fs::write(directory.path().join("dp/vendor-vf-1-device.json"), data).unwrap();
    files.copy("vendor/vf", "1", "web/net", &attachment).unwrap();
    match files.read("web/net", &attachment) {
        Ok(information) => {
            let information = information.unwrap();
            let printed = serde_json::to_vec(&information).unwrap();
            assert_eq!(DeviceInfo::parse(&printed).unwrap(), information);
        }
        Err(error) => message::check(data, &error),
    }
    let path = directory.path().join("checkpoint");
    fs::write(&path, data).unwrap();
    let pod = PodReference { namespace: "web".to_owned(), name: "pod".to_owned(), uid: "u1".to_owned() };
    if let Err(error) = Checkpoint::new(path).devices(&pod) {
        message::check(data, &error);
    }
}

/// An empty directory, in memory.
pub(crate) fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}
