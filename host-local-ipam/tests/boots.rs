//! Reservations whose ADD died, and those from before a reboot: who gets the address then.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, net::IpAddr};

use host_local_ipam::{
    Boot, DiskStore, Error, MemoryStore, Range, RangeSet, Request, Reservations, Stage, Standing, Store, Usage,
    allocate, allocate_all, collect, usage,
};
use multus_cni::{AttachmentId, NetworkName};
use tempfile::TempDir;

const FIRST: Boot = Boot { machine: Some(0xa), id: 1 };
const SECOND: Boot = Boot { machine: Some(0xa), id: 2 };
const ELSEWHERE: Boot = Boot { machine: Some(0xb), id: 3 };
const NAMELESS: Boot = Boot { machine: None, id: 4 };

#[test]
fn the_add_after_one_that_died_gets_the_same_address() {
    let disk = Disk::new();
    let stores: [&dyn Store; 2] = [&MemoryStore::new(), &disk.in_boot(FIRST)];
    for store in stores {
        assert_eq!(add(store, "c0", Stage::Finished).unwrap(), "10.0.0.2");
        assert_eq!(add(store, "c1", Stage::Unfinished).unwrap(), "10.0.0.3");
        assert_eq!(add(store, "c2", Stage::Finished).unwrap(), "10.0.0.4");
        assert_eq!(standing(store, "10.0.0.3"), Standing::Unfinished);

        assert_eq!(add(store, "c1", Stage::Unfinished).unwrap(), "10.0.0.3");
        store.finish(&network(), &["10.0.0.3".parse().unwrap()]).unwrap();
        assert_eq!(standing(store, "10.0.0.3"), Standing::Finished);
        let refused = add(store, "c1", Stage::Unfinished).unwrap_err();
        assert!(
            refused.ends_with("10.0.0.3 has been allocated to c1, duplicate allocation is not allowed"),
            "{refused}"
        );
        // The round has not gone back.
        assert_eq!(add(store, "c3", Stage::Finished).unwrap(), "10.0.0.5");
    }
}

#[test]
fn the_add_after_one_that_died_may_ask_for_another_address() {
    let disk = Disk::new();
    let store = disk.in_boot(FIRST);
    assert_eq!(add(&store, "c1", Stage::Unfinished).unwrap(), "10.0.0.2");
    assert_eq!(add_wanted(&store, "c1", "10.0.0.5").unwrap(), "10.0.0.5");
    assert_eq!(disk.reserved(), ["10.0.0.5"]);
    assert_eq!(add_wanted(&store, "c1", "10.0.0.5").unwrap(), "10.0.0.5");
    assert!(add_wanted(&store, "c2", "10.0.0.5").unwrap_err().contains("is not available in range set"));
}

#[test]
fn after_a_reboot_an_attachment_gets_its_address_again() {
    let disk = Disk::new();
    for container in ["c1", "c2", "c3"] {
        add(&disk.in_boot(FIRST), container, Stage::Finished).unwrap();
    }
    let store = disk.in_boot(SECOND);
    assert_eq!(standing(&store, "10.0.0.3"), Standing::EarlierBoot);
    assert_eq!(add(&store, "c2", Stage::Finished).unwrap(), "10.0.0.3");
    assert_eq!(standing(&store, "10.0.0.3"), Standing::Finished);
    add(&store, "c2", Stage::Finished).unwrap_err();
    // While others are free, those of the first boot are left to their owners.
    assert_eq!(add(&store, "c4", Stage::Finished).unwrap(), "10.0.0.5");
    assert_eq!(add(&store, "c1", Stage::Finished).unwrap(), "10.0.0.2");
}

#[test]
fn a_full_range_takes_back_what_was_made_before_a_reboot() {
    let disk = Disk::new();
    for container in ["c1", "c2", "c3", "c4", "c5"] {
        add(&disk.in_boot(FIRST), container, Stage::Finished).unwrap();
    }
    add(&disk.in_boot(FIRST), "c6", Stage::Finished).unwrap_err();
    let store = disk.in_boot(SECOND);
    let given: Vec<String> =
        (6..11).map(|number| add(&store, &format!("c{number}"), Stage::Finished).unwrap()).collect();
    assert_eq!(given, ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    let refused = add(&store, "c11", Stage::Finished).unwrap_err();
    assert!(refused.contains("no IP addresses available in range set"), "{refused}");
    assert_eq!(fs::read_to_string(disk.path("10.0.0.4")).unwrap(), "c8\r\neth0");
}

#[test]
fn an_address_from_before_a_reboot_is_given_to_who_asks_for_it() {
    let disk = Disk::new();
    add(&disk.in_boot(FIRST), "c1", Stage::Finished).unwrap();
    assert_eq!(add_wanted(&disk.in_boot(SECOND), "c2", "10.0.0.2").unwrap(), "10.0.0.2");
    assert_eq!(fs::read_to_string(disk.path("10.0.0.2")).unwrap(), "c2\r\neth0");
}

#[test]
fn what_another_machine_or_program_reserved_is_never_taken_back() {
    let disk = Disk::new();
    add(&disk.in_boot(ELSEWHERE), "c1", Stage::Finished).unwrap();
    add(&disk.in_boot(ELSEWHERE), "c2", Stage::Unfinished).unwrap();
    add(&disk.in_boot(NAMELESS), "c3", Stage::Finished).unwrap();
    fs::write(disk.path("10.0.0.5"), "c4\r\neth0").unwrap();
    fs::write(disk.path("10.0.0.6"), "not a reservation").unwrap();
    for boot in [FIRST, SECOND, Boot { id: 5, ..NAMELESS }] {
        let store = disk.in_boot(boot);
        for (container, address) in [("c1", "10.0.0.2"), ("c2", "10.0.0.3"), ("c3", "10.0.0.4"), ("c4", "10.0.0.5")] {
            let refused = add(&store, container, Stage::Finished).unwrap_err();
            assert!(refused.contains(&format!("{address} has been allocated to {container}")), "{refused}");
            assert!(add_wanted(&store, "c9", address).unwrap_err().contains("is not available"));
        }
        assert!(add(&store, "c9", Stage::Finished).unwrap_err().contains("no IP addresses available"));
    }
    assert_eq!(disk.reserved().len(), 5);
}

#[test]
fn a_record_does_not_outlive_its_file() {
    let disk = Disk::new();
    add(&disk.in_boot(FIRST), "c1", Stage::Unfinished).unwrap();
    // As the Go plugin's DEL and ADD do.
    fs::remove_file(disk.path("10.0.0.2")).unwrap();
    fs::write(disk.path("10.0.0.2"), "c1\r\neth0").unwrap();
    for boot in [FIRST, SECOND] {
        assert_eq!(standing(&disk.in_boot(boot), "10.0.0.2"), Standing::Unrecorded);
        add(&disk.in_boot(boot), "c1", Stage::Finished).unwrap_err();
    }
    // And one that comes too late is none of theirs.
    disk.in_boot(FIRST).finish(&network(), &["10.0.0.2".parse().unwrap()]).unwrap();
    assert_eq!(standing(&disk.in_boot(FIRST), "10.0.0.2"), Standing::Unrecorded);
}

#[test]
fn garbage_is_not_what_somebody_works_on() {
    let disk = Disk::new();
    let memory = MemoryStore::new();
    // A second store on the same directory, as another process has it.
    let (ours, theirs) = (disk.in_boot(FIRST), disk.in_boot(FIRST));
    let pairs: [(&dyn Store, &dyn Store); 2] = [(&memory, &memory), (&ours, &theirs)];
    for (ours, theirs) in pairs {
        add(ours, "c1", Stage::Finished).unwrap();
        let lock = ours.lock_attachment(&network(), &owner("c2")).unwrap();
        add(ours, "c2", Stage::Unfinished).unwrap();
        collect(&mut *theirs.lock(&network()).unwrap(), &[]).unwrap();
        assert_eq!(theirs.lock(&network()).unwrap().held_by(&owner("c1")).unwrap().len(), 0);
        assert_eq!(theirs.lock(&network()).unwrap().held_by(&owner("c2")).unwrap().len(), 1);
        drop(lock);
        collect(&mut *theirs.lock(&network()).unwrap(), &[]).unwrap();
        assert_eq!(theirs.lock(&network()).unwrap().held_by(&owner("c2")).unwrap().len(), 0);
    }
}

#[test]
fn many_requests_are_served_together_or_not_at_all() {
    let disk = Disk::new();
    let stores: [&dyn Store; 2] = [&MemoryStore::new(), &disk.in_boot(FIRST)];
    for store in stores {
        let mut reservations = store.lock(&network()).unwrap();
        let sets = [set()];
        let served = |reservations: &mut dyn Reservations, containers: std::ops::Range<u8>| {
            let owners: Vec<AttachmentId> = containers.map(|number| owner(&format!("c{number}"))).collect();
            let request = |owner| Request { owner, sets: &sets, wanted: &[], stage: Stage::Finished };
            let requests: Vec<Request<'_>> = owners.iter().map(request).collect();
            allocate_all(reservations, &requests)
        };
        assert_eq!(served(&mut *reservations, 0..3).unwrap().len(), 3);
        let range = sets[0].ranges()[0];
        assert_eq!(usage(&mut *reservations, &range).unwrap(), Usage { used: 3, free: 2 });
        let error = served(&mut *reservations, 3..6).unwrap_err().to_string();
        assert!(error.contains("no IP addresses available in range set"), "{error}");
        assert_eq!(usage(&mut *reservations, &range).unwrap(), Usage { used: 3, free: 2 });
        assert_eq!(served(&mut *reservations, 3..5).unwrap().len(), 2);
        assert_eq!(usage(&mut *reservations, &range).unwrap(), Usage { used: 5, free: 0 });
    }
}

#[test]
fn usage_of_huge_ranges_is_counted_too() {
    let disk = Disk::new();
    let mut counted = Vec::new();
    let stores: [&dyn Store; 2] = [&MemoryStore::new(), &disk.in_boot(FIRST)];
    for store in stores {
        let mut reservations = store.lock(&network()).unwrap();
        for address in ["2001:db8::1", "2001:db8::2", "2001:db8::7ff", "2001:db8::800", "2001:db8:0:1::"] {
            reservations.reserve(address.parse().unwrap(), &owner("c1"), Stage::Finished).unwrap();
        }
        let range = Range::new("2001:db8::/64".parse().unwrap()).unwrap();
        counted.push(usage(&mut *reservations, &range).unwrap());
        let whole = Range::within("::/0".parse().unwrap(), Some("::".parse().unwrap()), None, None).unwrap();
        assert_eq!(usage(&mut *reservations, &whole).unwrap().used, 5);
        assert_eq!(reservations.count("2001:db8::2".parse().unwrap(), "2001:db8::7ff".parse().unwrap()).unwrap(), 2);
    }
    // 2⁶⁴ addresses but the network's own; the gateway is among the used ones.
    assert_eq!(counted, [Usage { used: 4, free: (1 << 64) - 1 - 4 }; 2]);
}

struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn in_boot(&self, boot: Boot) -> DiskStore {
        DiskStore::in_boot(self.0.path(), Some(boot))
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join("storage").join(name)
    }

    fn reserved(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut addresses: Vec<String> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        addresses.sort();
        addresses
    }
}

/// 10.0.0.2 to 10.0.0.6, and the gateway.
fn set() -> RangeSet {
    RangeSet::new(vec![Range::new("10.0.0.0/29".parse().unwrap()).unwrap()]).unwrap()
}

fn network() -> NetworkName {
    "storage".parse().unwrap()
}

fn owner(container_id: &str) -> AttachmentId {
    AttachmentId { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

fn add(store: &dyn Store, container_id: &str, stage: Stage) -> Result<String, String> {
    allocated(store, container_id, &[], stage)
}

fn add_wanted(store: &dyn Store, container_id: &str, address: &str) -> Result<String, String> {
    allocated(store, container_id, &[address.parse().unwrap()], Stage::Unfinished)
}

fn allocated(store: &dyn Store, container_id: &str, wanted: &[IpAddr], stage: Stage) -> Result<String, String> {
    let (owner, sets) = (owner(container_id), [set()]);
    let request = Request { owner: &owner, sets: &sets, wanted, stage };
    let given = allocate(&mut *store.lock(&network()).unwrap(), &request);
    given.map(|given| given[0].address.address().to_string()).map_err(|error: Error| error.to_string())
}

fn standing(store: &dyn Store, address: &str) -> Standing {
    store.lock(&network()).unwrap().standing(address.parse().unwrap()).unwrap()
}
