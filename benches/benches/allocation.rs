//! Allocation throughput: one address reserved and released again, in memory and on disk, beside what others hold.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement that fails has no result"
)]

use std::{
    fs,
    fs::File,
    hint::black_box,
    io::{Read, Write},
    net::Ipv4Addr,
    path::Path,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use host_local_ipam::{DiskStore, MemoryStore, Range, RangeSet, Request, Stage, Store, allocate};
use multus_cni::{AttachmentId, NetworkName};
use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    sys::stat::Mode,
    unistd::linkat,
};

criterion_group!(benches, in_memory, on_disk);
criterion_main!(benches);

/// How many reservations there are already.
const SIZES: [u32; 3] = [0, 1_000, 60_000];

fn in_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocate and release in memory");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let store = MemoryStore::new();
        fill(&store, size);
        group
            .bench_function(BenchmarkId::from_parameter(size), |bencher| bencher.iter(|| allocate_and_release(&store)));
    }
}

fn on_disk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocate and release on disk");
    group.throughput(Throughput::Elements(1));
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for size in SIZES {
        let store = DiskStore::new(directory.path().join(size.to_string()));
        fill(&store, size);
        group
            .bench_function(BenchmarkId::from_parameter(size), |bencher| bencher.iter(|| allocate_and_release(&store)));
    }
    let floor = directory.path().join("floor");
    fs::create_dir(&floor).unwrap();
    group.bench_function("the same calls of the system", |bencher| bencher.iter(|| bare(&floor)));
}

/// What the format demands of anybody, and nothing else: lock, an unnamed file with its content, its name, the address last
/// given; lock, look whose it is, unlink.
fn bare(directory: &Path) {
    let mode = |bits| Mode::from_bits_truncate(bits);
    let open = |name: &str, flags, bits| {
        File::from(nix::fcntl::open(&directory.join(name), flags | OFlag::O_CLOEXEC, mode(bits)).unwrap())
    };
    let lock = || {
        let lock = open("lock", OFlag::O_RDONLY | OFlag::O_CREAT, 0o750);
        lock.lock().unwrap();
        lock
    };
    let path = directory.join("10.0.0.2");

    let locked = lock();
    let mut file = open(".", OFlag::O_WRONLY | OFlag::O_TMPFILE, 0o600);
    file.write_all(CONTENT).unwrap();
    linkat(&file, "", AT_FDCWD, &path, AtFlags::AT_EMPTY_PATH).unwrap();
    drop(file);
    open("last_reserved_ip.0", OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).write_all(b"10.0.0.2").unwrap();
    drop(locked);

    let _locked = lock();
    let mut content = [0; 256];
    let length = File::open(&path).unwrap().read(&mut content).unwrap();
    assert_eq!(&content[..length], CONTENT);
    fs::remove_file(&path).unwrap();
}

const CONTENT: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\nnet1";

fn allocate_and_release(store: &dyn Store) {
    let (sets, owner) = (sets(), owner("late"));
    let request = Request { owner: &owner, sets: &sets, wanted: &[], stage: Stage::Finished };
    black_box(allocate(&mut *store.lock(&network()).unwrap(), &request).unwrap());
    store.lock(&network()).unwrap().release_all(&owner).unwrap();
}

fn fill(store: &dyn Store, size: u32) {
    let mut reservations = store.lock(&network()).unwrap();
    for number in 0..size {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 2).to_bits() + number);
        assert!(reservations.reserve(address.into(), &owner(&format!("c{number}")), Stage::Finished).unwrap());
    }
    if size > 0 {
        let last = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + size);
        reservations.set_last_reserved(0, last.into()).unwrap();
    }
}

fn sets() -> [RangeSet; 1] {
    [RangeSet::new(vec![Range::new("10.0.0.0/15".parse().unwrap()).unwrap()]).unwrap()]
}

fn network() -> NetworkName {
    "bench".parse().unwrap()
}

fn owner(container_id: &str) -> AttachmentId {
    AttachmentId { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}
