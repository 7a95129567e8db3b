//! The directory of a network, whatever lies in it.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use host_local_ipam::{
    DiskStore, Owner, Range, RangeSet, Request, Stage, Store, allocate, collect, is_exhausted, usage,
};
use multus_cni::{AttachmentId, NetworkName};

use crate::{message, parts};

/// No address is given that somebody has, what is reserved is what the files say, and releasing ends the owner's
/// reservations and nobody else's. Each part of the input is a file: its name, by number, and its content.
pub fn reservations(data: &[u8]) {
    let directory = crate::files::directory();
    let network: NetworkName = "net".parse().unwrap();
    let path = directory.path().join(network.as_str());
    fs::create_dir(&path).unwrap();
    for part in parts(data).take(20) {
        if let Some((number, content)) = part.split_first() {
            let name = path.join(NAMES[usize::from(*number) % NAMES.len()]);
            if *number < 128 {
                let _a_directory = fs::write(name, content);
            } else if !name.exists() {
                fs::create_dir(name).unwrap();
            }
        }
    }
    let before = reserved(&path);
    if path.join("lock").is_dir() {
        let refused = DiskStore::new(directory.path()).lock(&network).map(drop).unwrap_err();
        return message::check(data, &refused);
    }
    let sets = sets();
    let (owner, other) = (attachment("new"), attachment("other"));
    let store = DiskStore::new(directory.path());
    let mut given = Vec::new();
    for owner in [&owner, &other] {
        let request = Request { owner, sets: &sets, wanted: &[], stage: Stage::Finished };
        let mut reservations = store.lock(&network).unwrap();
        match allocate(&mut *reservations, &request) {
            Ok(allocations) => {
                for allocation in allocations {
                    let address = allocation.address.address();
                    assert!(!before.contains_key(&address), "{address} was taken");
                    assert!(!given.contains(&address), "{address} was given");
                    assert_eq!(reservations.find(address).unwrap().unwrap().owner, Owner::from(owner));
                    given.push(address);
                }
            }
            Err(error) => message::check(data, &error),
        }
        assert_eq!(reservations.verify().unwrap(), Vec::<IpAddr>::new());
    }
    drop(store);
    let store = DiskStore::new(directory.path());
    let mut reservations = store.lock(&network).unwrap();
    let all: Vec<IpAddr> = reservations.all().unwrap().iter().map(|reservation| reservation.address).collect();
    assert!(given.iter().all(|address| all.contains(address)));
    reservations.for_each_entry(&mut |_, _| {}).unwrap();
    for set in &sets {
        is_exhausted(&mut *reservations, set).unwrap();
        for range in set.ranges() {
            let usage = usage(&mut *reservations, range).unwrap();
            let told = u128::from(usage.used) + usage.free;
            // The gateway is neither.
            assert!(told == range.size() || told + 1 == range.size(), "{usage:?}");
        }
    }
    // What is of the whole container goes last.
    for _ in 0..2 {
        reservations.release_all(&owner).unwrap();
    }
    assert_eq!(reservations.held_by(&owner).unwrap(), Vec::<IpAddr>::new());
    assert_eq!(reservations.verify().unwrap(), Vec::<IpAddr>::new());
    let after = reserved(&path);
    for (address, content) in &before {
        let is_owners = reservations_owner(content).is_some_and(|id| id == "new");
        assert!(is_owners || after.get(address) == Some(content), "{address} was somebody else's");
    }
    collect(&mut *reservations, &[]).unwrap();
    let left = reservations.all().unwrap();
    assert!(left.is_empty(), "{left:?} is not in the list");
}

const NAMES: [&str; 12] = [
    "10.1.2.2",
    "10.1.2.3",
    "10.1.2.4",
    "10.1.2.5",
    "10.1.2.6",
    "2001:db8::2",
    "2001:DB8::3",
    "last_reserved_ip.0",
    "last_reserved_ip.1",
    "lock",
    "10.1.2.02",
    "notes",
];

fn sets() -> [RangeSet; 2] {
    ["10.1.2.0/29", "2001:db8::/125"].map(|subnet| {
        let range = Range::new(subnet.parse().unwrap()).unwrap();
        RangeSet::new(vec![range]).unwrap()
    })
}

fn attachment(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}

/// Files that are called by addresses, as these are printed, and are not empty.
fn reserved(network: &Path) -> BTreeMap<IpAddr, Vec<u8>> {
    let paths = fs::read_dir(network).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let address: IpAddr = name.parse().ok()?;
        Some((address, fs::read(path).ok()?))
            .filter(|(address, content)| address.to_string() == name && !content.is_empty())
    };
    paths.filter_map(read).collect()
}

fn reservations_owner(content: &[u8]) -> Option<String> {
    String::from_utf8_lossy(content).trim().lines().next().map(|line| line.trim().to_owned())
}
