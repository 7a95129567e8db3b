//! What those see who look after a store: everything that lies in it, and whether its index agrees with it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use host_local_ipam::{DiskStore, Entry, EntryKind, MemoryStore, Reservations, Stage, Store};
use multus_cni::{AttachmentId, NetworkName};
use tempfile::TempDir;

#[test]
fn everything_in_a_network_is_told_for_what_it_is() {
    let disk = Disk::new();
    let mut reservations = disk.store.lock(&network()).unwrap();
    reservations.reserve(address("10.0.0.10"), &owner("c1"), Stage::Unfinished).unwrap();
    reservations.reserve(address("2001:db8::1"), &owner("c1"), Stage::Finished).unwrap();
    reservations.set_last_reserved(0, address("10.0.0.10")).unwrap();
    fs::write(disk.path("10.0.0.9"), "").unwrap();
    fs::write(disk.path("10.0.0.8"), "not an owner").unwrap();
    fs::write(disk.path("10.0.0.7"), "c7\r\neth0").unwrap();
    fs::write(disk.path("2001:DB8::2"), "c8\r\neth0").unwrap();
    fs::write(disk.path("last_reserved_ip.x"), "").unwrap();
    fs::create_dir(disk.path("10.0.0.6")).unwrap();
    symlink("10.0.0.7", disk.path("10.0.0.5")).unwrap();
    fs::write(disk.path(".reservation"), "what a killed ADD has left").unwrap();
    let (entries, to_come) = listed(&mut *reservations);
    let told: Vec<(String, String)> = entries.iter().map(|entry| (name(entry), kind(entry))).collect();
    let expected = [
        ("10.0.0.10", "c1, Unfinished"),
        ("10.0.0.5", "foreign"),
        ("10.0.0.6", "foreign"),
        ("10.0.0.7", "c7, Unrecorded"),
        ("10.0.0.8", "foreign"),
        ("10.0.0.9", "torn"),
        ("2001:DB8::2", "foreign"),
        ("2001:db8::1", "c1, Finished"),
        ("last_reserved_ip.x", "foreign"),
    ];
    assert_eq!(told, expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert_eq!(to_come, [8, 7, 6, 5, 4, 3, 2, 1, 0]);
    for entry in &entries {
        let age = SystemTime::now().duration_since(entry.modified.unwrap()).unwrap();
        assert!(age < Duration::from_secs(60), "{entry:?}");
        if let Ok(address) = name(entry).parse::<IpAddr>()
            && address.to_string() == name(entry)
        {
            assert_eq!(reservations.entry(address).unwrap().as_ref(), Some(entry));
        }
    }
    assert_eq!(reservations.entry(address("10.0.0.1")).unwrap(), None);
}

#[test]
fn a_store_in_memory_has_its_reservations() {
    let store = MemoryStore::new();
    let mut reservations = store.lock(&network()).unwrap();
    reservations.reserve(address("10.0.0.10"), &owner("c1"), Stage::Unfinished).unwrap();
    reservations.reserve(address("10.0.0.9"), &owner("c1"), Stage::Finished).unwrap();
    let (entries, to_come) = listed(&mut *reservations);
    let told: Vec<String> = entries.iter().map(kind).collect();
    assert_eq!((told.join("; ").as_str(), to_come), ("c1, Unfinished; c1, Finished", vec![1, 0]));
    assert_eq!(reservations.entry(address("10.0.0.9")).unwrap().as_ref(), entries.get(1));
    assert_eq!(reservations.entry(address("10.0.0.8")).unwrap(), None);
    assert_eq!(reservations.verify().unwrap(), Vec::<IpAddr>::new());
}

#[test]
fn an_index_that_disagrees_is_found_as_long_as_it_counts() {
    let disk = Disk::new();
    let verify = || disk.store.lock(&network()).unwrap().verify().unwrap();
    let reserve = |number: u8| {
        let mut reservations = disk.store.lock(&network()).unwrap();
        reservations.reserve(address(&format!("10.0.0.{number}")), &owner("c1"), Stage::Finished).unwrap();
    };
    assert_eq!(verify(), Vec::<IpAddr>::new());
    for number in 1..100 {
        reserve(number);
    }
    assert_eq!(verify(), Vec::<IpAddr>::new());
    // In place, so that the directory does not change: another owner, one without an interface, nothing, and nobody.
    for (number, content) in [(7, "c2\r\neth0"), (8, "c1"), (9, ""), (10, "no owner")] {
        fs::write(disk.path(&format!("10.0.0.{number}")), content).unwrap();
    }
    assert_eq!(verify(), ["10.0.0.7", "10.0.0.8", "10.0.0.9", "10.0.0.10"].map(address));
    // A page that cannot be read says nothing of any address.
    let index = disk.directory.path().join(".host-local/storage.index");
    let good = fs::read(&index).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    fs::write(&index, &bad).unwrap();
    assert_eq!(verify().len(), 98);
    // Whatever it says, when it does not count any more.
    fs::write(disk.path("10.0.0.200"), "c3\r\neth0").unwrap();
    assert_eq!(verify(), Vec::<IpAddr>::new());
}

struct Disk {
    directory: TempDir,
    store: DiskStore,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskStore::new(directory.path());
        drop(store.lock(&network()).unwrap());
        Self { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("storage").join(name)
    }
}

fn listed(reservations: &mut dyn Reservations) -> (Vec<Entry>, Vec<usize>) {
    let mut all = Vec::new();
    reservations.for_each_entry(&mut |entry, to_come| all.push((entry, to_come))).unwrap();
    all.into_iter().unzip()
}

fn name(entry: &Entry) -> String {
    entry.name.to_str().unwrap().to_owned()
}

fn kind(entry: &Entry) -> String {
    match &entry.kind {
        EntryKind::Reservation(reservation, standing) => format!("{}, {standing:?}", reservation.owner.container_id),
        EntryKind::Torn(_) => "torn".to_owned(),
        EntryKind::Foreign => "foreign".to_owned(),
    }
}

fn network() -> NetworkName {
    "storage".parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}
