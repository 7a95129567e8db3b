//! Eight processes on one directory against one: addresses allocated and released a second, all together.

use std::{
    env,
    path::Path,
    process::{Child, Command},
    time::Instant,
};

use host_local_ipam::{DiskStore, Range, RangeSet, Request, Stage, Store, allocate};
use multus_cni::AttachmentId;

use crate::report::Report;

/// Of all processes together.
const TURNS: u32 = 16_000;
const ROUNDS: usize = 3;

/// Adds what came of it.
pub(crate) fn measure(plugins: &Path, report: &mut Report) {
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in(plugins.parent().unwrap()).unwrap();
    let mut best = [0.0_f64; 2];
    for _ in 0..ROUNDS {
        for (best, processes) in best.iter_mut().zip([1, 8]) {
            *best = best.max(throughput(directory.path(), processes));
        }
    }
    let [one, eight] = best;
    report.heading("Contention");
    report.paragraph(&format!(
        "Allocations and releases a second on one directory on disk, best of {ROUNDS}: {one:.0} by one process, {eight:.0} by \
         eight together ({:.2} times as many).",
        eight / one
    ));
}

fn throughput(directory: &Path, processes: u32) -> f64 {
    let started = Instant::now();
    let turns = TURNS / processes;
    let spawn = |number| -> Child {
        let (name, turns) = (format!("c{number}"), turns.to_string());
        let program = env::current_exe().unwrap();
        Command::new(program).arg("contend").arg(directory).args([name, turns]).spawn().unwrap()
    };
    let children: Vec<Child> = (0..processes).map(spawn).collect();
    assert!(children.into_iter().all(|mut child| child.wait().unwrap().success()), "a process failed");
    f64::from(turns * processes) / started.elapsed().as_secs_f64()
}

/// Takes an address, makes sure that it is still its own, and gives it back, so many times.
pub(crate) fn work(directory: &Path, name: &str, turns: u32) {
    let store = DiskStore::new(directory);
    let network = "bench".parse().unwrap();
    let owner = AttachmentId { container_id: name.to_owned(), ifname: "net1".to_owned() };
    let sets = [RangeSet::new(vec![Range::new("10.0.0.0/16".parse().unwrap()).unwrap()]).unwrap()];
    let request = Request { owner: &owner, sets: &sets, wanted: &[], stage: Stage::Finished };
    for _ in 0..turns {
        let allocated = allocate(&mut *store.lock(&network).unwrap(), &request).unwrap();
        let given: Vec<_> = allocated.iter().map(|allocation| allocation.address.address()).collect();
        let mut reservations = store.lock(&network).unwrap();
        assert_eq!(reservations.held_by(&owner).unwrap(), given, "an address was given twice");
        reservations.release_all(&owner).unwrap();
    }
}
