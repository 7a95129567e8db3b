//! The index beside the reservations, whatever becomes of it.

use std::{fs, net::IpAddr, path::PathBuf};

use host_local_ipam::{DiskStore, Stage, Store};
use multus_cni::{AttachmentId, NetworkName};

/// With an index that was damaged, the answers are those of the files. The input says how many reservations there are, how
/// much of the index is cut off, and which bytes of it are replaced: three bytes each, place and value.
pub fn index(data: &[u8]) {
    let Some((&count, damage)) = data.split_first() else {
        return;
    };
    let directory = crate::files::directory();
    let network: NetworkName = "net".parse().unwrap();
    let count = count % 64;
    let store = DiskStore::new(directory.path());
    let mut reservations = store.lock(&network).unwrap();
    for number in 0..count {
        assert!(reservations.reserve(address(number), &owner(number), Stage::Finished).unwrap());
    }
    drop(reservations);
    drop(store);
    for file in files(directory.path().join(".host-local")) {
        let mut content = fs::read(&file).unwrap();
        let length = content.len().max(1);
        for patch in damage.chunks(3) {
            match *patch {
                [high, low, value] => {
                    if let Some(byte) = content.get_mut(usize::from(u16::from_be_bytes([high, low])) % length) {
                        *byte = value;
                    }
                }
                [cut] => content.truncate(usize::from(cut) * 64),
                _ => {}
            }
        }
        fs::write(file, content).unwrap();
    }
    let store = DiskStore::new(directory.path());
    let mut reservations = store.lock(&network).unwrap();
    for number in 0..count {
        assert_eq!(reservations.held_by(&owner(number)).unwrap(), [address(number)]);
        assert!(!reservations.reserve(address(number), &owner(64), Stage::Finished).unwrap());
    }
    assert_eq!(reservations.next_free(address(0), address(200)).unwrap(), Some(address(count)));
    assert_eq!(reservations.count(address(0), address(200)).unwrap(), u64::from(count));
    if count > 0 {
        reservations.release_all(&owner(0)).unwrap();
        assert_eq!(reservations.next_free(address(0), address(200)).unwrap(), Some(address(0)));
    }
    assert!(reservations.reserve(address(count), &owner(64), Stage::Finished).unwrap());
    assert_eq!(reservations.verify().unwrap(), Vec::<IpAddr>::new());
}

fn address(number: u8) -> IpAddr {
    [10, 1, 2, number].into()
}

fn owner(number: u8) -> AttachmentId {
    AttachmentId { container_id: format!("c{number}"), ifname: "eth0".to_owned() }
}

fn files(directory: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(path) } else { vec![path] }).collect()
}
