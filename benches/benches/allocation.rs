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
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
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
/// The same in memory, where there may be more.
const SIZES_IN_MEMORY: [u32; 4] = [0, 1_000, 60_000, 1_000_000];

fn in_memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocate and release in memory");
    group.throughput(Throughput::Elements(1));
    for (family, subnet) in [("IPv4", "10.0.0.0/8"), ("IPv6", "2001:db8::/64")] {
        for size in SIZES_IN_MEMORY {
            let store = MemoryStore::new();
            let mut turns = Turns::new(subnet, size);
            turns.fill(&store, size);
            group.bench_function(BenchmarkId::new(family, size), |bencher| bencher.iter(|| turns.take_one(&store)));
        }
    }
}

fn on_disk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allocate and release on disk");
    group.throughput(Throughput::Elements(1));
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for size in SIZES {
        let data_dir = directory.path().join(size.to_string());
        let store = DiskStore::new(&data_dir);
        let mut turns = Turns::new("10.0.0.0/15", size);
        turns.fill(&store, size);
        group.bench_function(BenchmarkId::new("ours", size), |bencher| bencher.iter(|| turns.take_one(&store)));
        let network = data_dir.join(turns.network.as_str());
        group.bench_function(BenchmarkId::new("bare", size), |bencher| bencher.iter(|| bare(&network)));
    }
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
    let path = directory.join("10.9.9.9");

    let locked = lock();
    let mut file = open(".", OFlag::O_WRONLY | OFlag::O_TMPFILE, 0o600);
    file.write_all(CONTENT).unwrap();
    linkat(&file, "", AT_FDCWD, &path, AtFlags::AT_EMPTY_PATH).unwrap();
    drop(file);
    open("last_reserved_ip.0", OFlag::O_WRONLY | OFlag::O_CREAT, 0o600).write_all(b"10.9.9.9").unwrap();
    drop(locked);

    let _locked = lock();
    let mut content = [0; 256];
    let length = File::open(&path).unwrap().read(&mut content).unwrap();
    assert_eq!(&content[..length], CONTENT);
    fs::remove_file(&path).unwrap();
}

const CONTENT: &[u8] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\nnet1";

/// Containers that come and go one after another, beside those that stay.
struct Turns {
    network: NetworkName,
    sets: [RangeSet; 1],
    /// So many that the next one's place is not at hand.
    owners: Vec<AttachmentId>,
    turn: usize,
}

impl Turns {
    fn new(subnet: &str, size: u32) -> Self {
        Self {
            network: "bench".parse().unwrap(),
            sets: [RangeSet::new(vec![Range::new(subnet.parse().unwrap()).unwrap()]).unwrap()],
            owners: (size..size + 1024).map(owner).collect(),
            turn: 0,
        }
    }

    /// Reserves so many addresses from the first behind the gateway on.
    fn fill(&self, store: &dyn Store, size: u32) {
        let gateway = self.sets[0].ranges()[0].gateway();
        let mut reservations = store.lock(&self.network).unwrap();
        for number in 0..size {
            assert!(reservations.reserve(nth(gateway, number + 1), &owner(number), Stage::Finished).unwrap());
        }
        if size > 0 {
            reservations.set_last_reserved(0, nth(gateway, size)).unwrap();
        }
    }

    fn take_one(&mut self, store: &dyn Store) {
        self.turn = (self.turn + 1) % self.owners.len();
        let owner = &self.owners[self.turn];
        let request = Request { owner, sets: &self.sets, wanted: &[], stage: Stage::Finished };
        black_box(allocate(&mut *store.lock(&self.network).unwrap(), &request).unwrap());
        store.lock(&self.network).unwrap().release_all(owner).unwrap();
    }
}

/// The address so many after `address`.
fn nth(address: IpAddr, count: u32) -> IpAddr {
    match address {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() + count).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(count)).into(),
    }
}

/// The interface of a container as runtimes name them: 64 hexadecimal digits.
fn owner(number: u32) -> AttachmentId {
    let mut word = u64::from(number);
    let digits = |_| {
        word = (word ^ word >> 29).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{word:016x}")
    };
    AttachmentId { container_id: (0..4).map(digits).collect(), ifname: "net1".to_owned() }
}
