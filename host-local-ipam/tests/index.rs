//! The index is a hint: whatever happens to it, and whoever else changes the directory, the answers are those of the
//! files.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use host_local_ipam::{DiskStore, Range, RangeSet, Request, Reservations, Stage, Store, allocate};
use multus_cni::{AttachmentId, NetworkName};
use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;

#[test]
fn changes_of_others_are_noticed_within_one_tick_of_the_clock() {
    let disk = Disk::new();
    for round in 0..300_u32 {
        // Ours, sealed just now.
        disk.locked(|reservations| reservations.reserve(address(9), &owner(9), Stage::Finished)).unwrap();
        // Theirs, in the same tick, where the kernel's time has no finer ones (before Linux 6.13).
        let theirs = disk.reservation(address(round % 8));
        fs::write(&theirs, "c1\r\neth0").unwrap();
        assert_eq!(
            disk.locked(|reservations| reservations.held_by(&owner(1))).unwrap(),
            [address(round % 8)],
            "{round}"
        );
        disk.locked(|reservations| reservations.release_all(&owner(9))).unwrap();
        fs::remove_file(&theirs).unwrap();
        let store = disk.store();
        let mut reservations = store.lock(&network()).unwrap();
        assert_eq!(reservations.held_by(&owner(1)).unwrap(), Vec::<IpAddr>::new(), "{round}");
        assert_eq!(reservations.next_free(address(0), address(15)).unwrap(), Some(address(0)), "{round}");
    }
}

#[test]
fn changes_of_another_process_are_noticed_within_one_tick_of_the_clock_in_memory_too() {
    // Where Linux gives a change that adds or removes a link the coarse time, whether it was read before or not.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let [a, b] = [(); 2].map(|()| DiskStore::new(directory.path()));
    for round in 0..300 {
        a.lock(&network()).unwrap().reserve(address(1), &owner(1), Stage::Finished).unwrap();
        b.lock(&network()).unwrap().reserve(address(2), &owner(2), Stage::Finished).unwrap();
        assert_eq!(a.lock(&network()).unwrap().held_by(&owner(2)).unwrap(), [address(2)], "{round}");
        for (store, number) in [(&a, 1), (&b, 2)] {
            store.lock(&network()).unwrap().release_all(&owner(number)).unwrap();
        }
        assert_eq!(a.lock(&network()).unwrap().count(address(0), address(15)).unwrap(), 0, "{round}");
    }
}

#[test]
fn it_lies_beside_the_networks_where_nobody_else_looks() {
    let disk = Disk::new();
    disk.locked(|reservations| reservations.reserve(address(1), &owner(1), Stage::Finished)).unwrap();
    let index = disk.directory.path().join(".host-local");
    assert_eq!(fs::metadata(&index).unwrap().permissions().mode() & 0o777, 0o700);
    for file in disk.index_files() {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    let names = fs::read_dir(disk.network()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["10.0.0.1", "lock"]);
    // No network can have that name.
    assert!(".host-local".parse::<NetworkName>().is_err());
}

#[test]
fn a_restored_backup_does_not_bring_an_old_seal_back() {
    let disk = Disk::new();
    disk.locked(|reservations| reservations.reserve(address(1), &owner(1), Stage::Finished)).unwrap();
    let backup = tempfile::tempdir().unwrap();
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status();
        assert!(status.unwrap().success());
    };
    copy(disk.directory.path(), backup.path());
    disk.locked(|reservations| reservations.reserve(address(2), &owner(2), Stage::Finished)).unwrap();
    copy(backup.path(), disk.directory.path());
    assert_eq!(disk.locked(|reservations| reservations.held_by(&owner(2))).unwrap(), [address(2)]);
    assert_eq!(disk.locked(|reservations| reservations.held_by(&owner(1))).unwrap(), [address(1)]);
}

#[test]
fn who_changes_the_directory_without_the_lock_is_noticed() {
    let disk = Disk::new();
    disk.locked(|reservations| reservations.reserve(address(1), &owner(1), Stage::Finished)).unwrap();
    let store = disk.store();
    let mut reservations = store.lock(&network()).unwrap();
    assert_eq!(reservations.held_by(&owner(1)).unwrap(), [address(1)]);
    fs::write(disk.reservation(address(3)), "c3\r\neth0").unwrap();
    assert!(reservations.reserve(address(2), &owner(2), Stage::Finished).unwrap());
    assert!(!reservations.reserve(address(3), &owner(4), Stage::Finished).unwrap());
    fs::write(disk.reservation(address(5)), "c5\r\neth0").unwrap();
    drop(reservations);
    for number in [1, 2, 3, 5] {
        assert_eq!(
            disk.locked(|reservations| reservations.held_by(&owner(number))).unwrap(),
            [address(number.into())],
            "{number}"
        );
    }
}

#[test]
fn a_name_with_space_around_it_is_found_as_its_file_says() {
    let disk = Disk::new();
    let spaced = AttachmentId { container_id: " c1".to_owned(), ifname: "eth0 ".to_owned() };
    disk.locked(|reservations| reservations.reserve(address(1), &spaced, Stage::Finished)).unwrap();
    assert_eq!(disk.locked(|reservations| reservations.held_by(&owner(1))).unwrap(), [address(1)]);
}

#[test]
fn networks_whose_names_differ_by_an_ending_have_their_own() {
    let disk = Disk::new();
    for (number, name) in ["a", "a.seal", "a.host-local", "a.index.owners"].into_iter().enumerate() {
        let store = disk.store();
        let mut reservations = store.lock(&name.parse().unwrap()).unwrap();
        assert!(reservations.reserve(address(1), &owner(u8::try_from(number).unwrap()), Stage::Finished).unwrap());
    }
    for (number, name) in ["a", "a.seal", "a.host-local", "a.index.owners"].into_iter().enumerate() {
        let store = disk.store();
        let mut reservations = store.lock(&name.parse().unwrap()).unwrap();
        assert_eq!(reservations.held_by(&owner(u8::try_from(number).unwrap())).unwrap(), [address(1)], "{name}");
    }
}

#[test]
fn where_none_can_be_kept_the_files_are_read() {
    let disk = Disk::new();
    // A file in its place: nobody can make the directory, not even root.
    fs::write(disk.directory.path().join(".host-local"), "").unwrap();
    for number in 1..4 {
        assert!(
            disk.locked(|reservations| reservations.reserve(address(number.into()), &owner(number), Stage::Finished))
                .unwrap()
        );
        assert_eq!(disk.locked(|reservations| reservations.held_by(&owner(number))).unwrap(), [address(number.into())]);
    }
    disk.locked(|reservations| reservations.release_all(&owner(2))).unwrap();
    assert_eq!(disk.locked(|reservations| reservations.next_free(address(1), address(9))).unwrap(), Some(address(2)));
}

#[test]
fn thousands_are_found_and_forgotten() {
    let disk = Disk::new();
    let sets = [RangeSet::new(vec![Range::new("10.0.0.0/16".parse().unwrap()).unwrap()]).unwrap()];
    let named = |number: u32| AttachmentId { container_id: format!("c{number}"), ifname: "eth0".to_owned() };
    let store = disk.store();
    let mut reservations = store.lock(&network()).unwrap();
    for number in 0..9_000 {
        let (owner, expected) = (named(number), address(number + 2));
        let given =
            allocate(&mut *reservations, &Request { owner: &owner, sets: &sets, wanted: &[], stage: Stage::Finished })
                .unwrap();
        assert_eq!(given[0].address.address(), expected);
    }
    drop(reservations);
    let store = disk.store();
    let mut reservations = store.lock(&network()).unwrap();
    assert_eq!(reservations.next_free(address(2), address(65_534)).unwrap(), Some(address(9_002)));
    for number in (0..9_000).step_by(3) {
        reservations.release_all(&named(number)).unwrap();
    }
    drop(reservations);
    let store = disk.store();
    let mut reservations = store.lock(&network()).unwrap();
    for number in 0..9_000 {
        let expected: &[IpAddr] = if number % 3 == 0 { &[] } else { &[address(number + 2)] };
        assert_eq!(reservations.held_by(&named(number)).unwrap(), expected);
    }
    assert_eq!(reservations.next_free(address(6_000), address(65_534)).unwrap(), Some(address(6_002)));
}

#[test]
fn whatever_happens_to_it_the_answers_are_those_of_the_files() {
    let cases = ProptestConfig { cases: 128, ..ProptestConfig::default() };
    proptest!(cases, |(events in vec(event(), 1..40))| {
        let disk = Disk::new();
        for event in &events {
            disk.happens(event);
            if !matches!(event, Event::Damage { .. } | Event::Truncate { .. }) {
                disk.answers_are_those_of_the_files()?;
            }
        }
        disk.answers_are_those_of_the_files()?;
    });
}

/// What may happen to a store; numbers are of owners, and of addresses in 10.0.0.0/28.
#[derive(Clone, Debug)]
enum Event {
    Reserve {
        owner: u8,
        address: u8,
    },
    ReleaseAll {
        owner: u8,
    },
    /// Somebody else, without our index: a reservation, an empty file, or none.
    Foreign {
        address: u8,
        content: Option<u8>,
    },
    Damage {
        file: u8,
        place: u32,
        bit: u8,
    },
    Truncate {
        file: u8,
        length: u32,
    },
    Lose {
        file: u8,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_u8, 0..16_u8).prop_map(|(owner, address)| Event::Reserve { owner, address }),
        3 => (0..4_u8).prop_map(|owner| Event::ReleaseAll { owner }),
        2 => (0..16_u8, proptest::option::of(0..5_u8)).prop_map(|(address, content)| Event::Foreign { address, content }),
        2 => (0..3_u8, any::<u32>(), 0..8_u8).prop_map(|(file, place, bit)| Event::Damage { file, place, bit }),
        1 => (0..3_u8, any::<u32>()).prop_map(|(file, length)| Event::Truncate { file, length }),
        1 => (0..3_u8).prop_map(|file| Event::Lose { file }),
    ]
}

struct Disk {
    directory: TempDir,
}

impl Disk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> DiskStore {
        DiskStore::new(self.directory.path())
    }

    /// Each time as another process would.
    fn locked<T>(&self, work: impl FnOnce(&mut dyn Reservations) -> T) -> T {
        work(&mut *self.store().lock(&network()).unwrap())
    }

    fn network(&self) -> PathBuf {
        self.directory.path().join("storage")
    }

    fn reservation(&self, address: IpAddr) -> PathBuf {
        self.network().join(address.to_string())
    }

    fn index_files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path().join(".host-local")).into_iter().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn happens(&self, event: &Event) {
        match *event {
            Event::Reserve { owner: number, address: place } => {
                self.locked(|reservations| {
                    reservations.reserve(address(place.into()), &owner(number), Stage::Finished)
                })
                .unwrap();
            }
            Event::ReleaseAll { owner: number } => {
                self.locked(|reservations| reservations.release_all(&owner(number))).unwrap();
            }
            Event::Foreign { address: place, content } => {
                self.locked(|_| ());
                let path = self.reservation(address(place.into()));
                // As they do: a new file, or none; never another content in place.
                fs::remove_file(&path).ok();
                match content {
                    Some(4) => fs::write(path, "").unwrap(),
                    Some(number) => fs::write(path, format!("c{number}\r\neth0")).unwrap(),
                    None => {}
                }
            }
            Event::Damage { file, place, bit } => self.change_index(file, |bytes| {
                // Where something is said.
                let places: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] != 0).collect();
                if !places.is_empty() {
                    bytes[places[usize::try_from(place).unwrap() % places.len()]] ^= 1 << bit;
                }
            }),
            Event::Truncate { file, length } => self.change_index(file, |bytes| {
                bytes.truncate(usize::try_from(length).unwrap() % (bytes.len() + 1));
            }),
            Event::Lose { file } => {
                if let Some(path) = self.index_files().get(usize::from(file)) {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    fn change_index(&self, file: u8, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(path) = self.index_files().get(usize::from(file)) {
            let mut bytes = fs::read(path).unwrap();
            change(&mut bytes);
            fs::write(path, bytes).unwrap();
        }
    }

    fn answers_are_those_of_the_files(&self) -> Result<(), TestCaseError> {
        let content = |place: u32| fs::read_to_string(self.reservation(address(place))).ok();
        for number in 0..4 {
            let mut expected: Vec<IpAddr> =
                (0..16).filter(|place| content(*place) == Some(format!("c{number}\r\neth0"))).map(address).collect();
            expected.sort_by_key(ToString::to_string);
            prop_assert_eq!(self.locked(|reservations| reservations.held_by(&owner(number))).unwrap(), expected);
        }
        for first in [0, 5, 15] {
            let is_free = |place: &u32| content(*place).is_none_or(|content| content.is_empty());
            let expected = (first..16).find(is_free).map(address);
            let found = self.locked(|reservations| reservations.next_free(address(first), address(15))).unwrap();
            prop_assert_eq!(found, expected);
        }
        Ok(())
    }
}

fn network() -> NetworkName {
    "storage".parse().unwrap()
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number).into()
}

fn owner(number: u8) -> AttachmentId {
    AttachmentId { container_id: format!("c{number}"), ifname: "eth0".to_owned() }
}
