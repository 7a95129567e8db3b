//! What a million reservations in memory take: alone in its process, whose memory is measured.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a test fails by panicking")]

use std::fs;

use host_local_ipam::{MemoryStore, Range, RangeSet, Request, Stage, Store, allocate};
use multus_cni::AttachmentId;

const MILLION: u64 = 1_000_000;
const MOST_KIB: u64 = 64 * 1024;

#[test]
fn a_million_reservations_of_a_64_take_at_most_64_mib() {
    let range = Range::new("2001:db8::/64".parse().unwrap()).unwrap();
    let sets = [RangeSet::new(vec![range]).unwrap()];
    let before = memory("VmRSS:");
    let store = MemoryStore::new();
    let mut reservations = store.lock(&"storage".parse().unwrap()).unwrap();
    let mut reserve = |owner: &AttachmentId| {
        let request = Request { owner, sets: &sets, wanted: &[], stage: Stage::Finished };
        allocate(&mut *reservations, &request).unwrap()[0].address.address()
    };
    let some = [0, 1, MILLION / 2, MILLION - 1];
    let mut given = Vec::new();
    for number in 0..MILLION {
        let address = reserve(&owner(number));
        if some.contains(&number) {
            given.push(address);
        }
    }
    let growth = memory("VmHWM:") - before;
    println!("{growth} KiB");
    assert!(growth <= MOST_KIB);
    assert_eq!(reservations.count(range.first(), range.last()).unwrap(), MILLION);
    for (number, address) in some.into_iter().zip(given) {
        assert_eq!(reservations.held_by(&owner(number)).unwrap(), [address]);
    }
}

/// An owner as container runtimes have them.
fn owner(number: u64) -> AttachmentId {
    let words = (1..=4).map(|word| (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ word << 40));
    let container_id: String = words.map(|word| format!("{word:016x}")).collect();
    assert_eq!(container_id.len(), 64);
    AttachmentId { container_id, ifname: "net1".to_owned() }
}

/// The memory of this process in KiB (proc_pid_status(5)): now, or at most so far.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}
