//! Attachments in a process that stays: through the library, and the floor's requests beside it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a measurement that fails has no result"
)]

mod floor;

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use floor::Floor;
use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{Attachment, Invocation, NetworkConfig, Plugin, Registry};
use serde_json::json;
use testkit::{Lab, Netns, enter_private_namespaces};

const THREADS: [u8; 4] = [1, 2, 4, 8];

fn main() {
    if let Err(reason) = enter_private_namespaces() {
        eprintln!("attachments are not measured: {reason}");
        return;
    }
    let mut criterion =
        Criterion::default().sample_size(20).measurement_time(Duration::from_secs(6)).configure_from_args();
    let lab = Lab::new();
    let sandboxes: Vec<Netns> = (0..8).map(|number| lab.container(&format!("pod-{number}"))).collect();
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bench = Bench {
        lab: &lab,
        sandboxes: &sandboxes,
        directory: directory.path(),
        plugin: Macvlan::new(Registry::new().with("host-local", HostLocal::new())),
    };

    for (part, attaching) in [("attach", true), ("detach", false)] {
        let mut group = criterion.benchmark_group(part);
        for (name, ours) in [("ours", true), ("floor", false)] {
            group.bench_function(BenchmarkId::new(name, 1), |bencher| {
                bencher.iter_custom(|times| bench.one_part(times, ours, attaching));
            });
        }
    }
    let mut group = criterion.benchmark_group("attach and detach");
    group.throughput(Throughput::Elements(1));
    for threads in THREADS {
        for (name, ours) in [("ours", true), ("floor", false)] {
            group.bench_function(BenchmarkId::new(name, threads), |bencher| {
                bencher.iter_custom(|times| bench.both(times, threads, ours));
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

struct Bench<'a> {
    lab: &'a Lab,
    sandboxes: &'a [Netns],
    directory: &'a Path,
    plugin: Macvlan,
}

impl Bench<'_> {
    /// How long so many attachments, or detachments, take by themselves.
    fn one_part(&self, times: u64, ours: bool, attaching: bool) -> Duration {
        self.lab.host.within(|| {
            let mut subject = self.subject(0, ours);
            let mut sum = Duration::ZERO;
            for _ in 0..times {
                let start = Instant::now();
                subject.attach();
                let attached = start.elapsed();
                subject.detach();
                sum += if attaching { attached } else { start.elapsed() - attached };
            }
            sum
        })
    }

    /// How long so many attachments with their detachments take, spread over threads that have a sandbox each.
    fn both(&self, times: u64, threads: u8, ours: bool) -> Duration {
        let each = times.div_ceil(threads.into());
        let barrier = Barrier::new(usize::from(threads) + 1);
        let elapsed = self.lab.host.within(|| {
            thread::scope(|scope| {
                for number in 0..threads {
                    let barrier = &barrier;
                    scope.spawn(move || {
                        let mut subject = self.subject(number, ours);
                        barrier.wait();
                        for _ in 0..each {
                            subject.attach();
                            subject.detach();
                        }
                        barrier.wait();
                    });
                }
                barrier.wait();
                let start = Instant::now();
                barrier.wait();
                start.elapsed()
            })
        });
        // There were some more than asked for.
        let done = each * u64::from(threads);
        Duration::from_nanos(u64::try_from(elapsed.as_nanos() * u128::from(times) / u128::from(done)).unwrap())
    }

    fn subject(&self, number: u8, ours: bool) -> Subject<'_> {
        let sandbox = self.sandboxes[usize::from(number)].path();
        if !ours {
            let address = Ipv4Addr::new(192, 168, 1, 2 + number);
            return Subject::Floor(Floor::new(&self.directory.join("floor"), sandbox, address));
        }
        let config = json!({
            "cniVersion": "1.1.0", "name": "bench", "type": "macvlan", "master": "ens32",
            "ipam": {
                "type": "host-local", "dataDir": self.directory,
                "subnet": "192.168.1.0/24", "routes": [{"dst": "0.0.0.0/0"}],
            },
        });
        let attachment = Attachment {
            container_id: format!("c{number}").parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            netns: Some(sandbox.to_owned()),
        };
        let config = NetworkConfig::parse(config.to_string()).unwrap();
        Subject::Library(&self.plugin, attachment, Invocation::new(config))
    }
}

enum Subject<'a> {
    Library(&'a Macvlan, Attachment, Invocation),
    Floor(Floor),
}

impl Subject<'_> {
    fn attach(&mut self) {
        match self {
            Self::Library(plugin, attachment, invocation) => drop(plugin.add(attachment, invocation).unwrap().keep()),
            Self::Floor(floor) => floor.attach(),
        }
    }

    fn detach(&mut self) {
        match self {
            Self::Library(plugin, attachment, invocation) => plugin.del(attachment, invocation).unwrap(),
            Self::Floor(floor) => floor.detach(),
        }
    }
}
