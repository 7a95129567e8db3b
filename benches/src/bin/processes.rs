//! Whole processes, taking turns: the kernel's floor, our plugins, and the Go plugins where they are installed.
//!
//!     processes PLUGIN_DIRECTORY [ROUNDS]
//!
//! Each round attaches and detaches one container with every candidate. Times are from before the start of the process to
//! its end, seen by its parent; the ratio is to the floor of the same round.

#![allow(clippy::print_stdout, reason = "a report is what this is for")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that fails has no result")]
#![allow(clippy::as_conversions, reason = "shares of a count")]

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use serde_json::json;
use testkit::{Lab, Netns, enter_private_namespaces, go_plugins};

fn main() {
    let plugins = PathBuf::from(env::args().nth(1).expect("the directory of the plugins to measure"));
    let rounds = env::args().nth(2).map_or(300, |rounds| rounds.parse().expect("a number of rounds"));
    enter_private_namespaces().unwrap();
    let lab = Lab::new();
    let container = lab.container("c1");
    // Not on tmpfs: reservations are on a disk in real life.
    let data_dir = plugins.join("reservations");
    std::fs::create_dir_all(data_dir.join("floor")).unwrap();
    let bench = Bench { lab: &lab, container: &container, data_dir: &data_dir };

    let mut candidates = Vec::new();
    if let Some(floor) = build_floor(&lab.path("floor-program")) {
        candidates.push(Candidate { name: "floor, IPv4", call: Box::new(move |bench, add| bench.floor(&floor, add)) });
    }
    for (name, network, dual_stack) in
        [("macvlan + host-local, IPv4", "ours-4", false), ("macvlan + host-local, dual stack", "ours-6", true)]
    {
        let plugins = plugins.clone();
        candidates.push(Candidate {
            name,
            call: Box::new(move |bench, add| bench.plugin(&plugins, network, add, dual_stack)),
        });
    }
    match go_plugins() {
        Ok(go) => candidates.push(Candidate {
            name: "Go macvlan + host-local, IPv4",
            call: Box::new(move |bench, add| bench.plugin(&go, "go", add, false)),
        }),
        Err(reason) => println!("without the Go plugins: {reason}"),
    }
    let measured: Vec<Measured> = candidates.iter().map(|candidate| Measured::new(candidate.name)).collect();
    let measured = measure(&bench, &candidates, measured, rounds);
    report(&measured, rounds);
    std::fs::remove_dir_all(&data_dir).unwrap();
}

type CandidateCall = Box<dyn Fn(&Bench<'_>, bool) -> Duration>;

struct Candidate {
    name: &'static str,
    call: CandidateCall,
}

struct Measured {
    name: &'static str,
    add: Vec<Duration>,
    del: Vec<Duration>,
    add_cpu: Duration,
}

impl Measured {
    fn new(name: &'static str) -> Self {
        Self { name, add: Vec::new(), del: Vec::new(), add_cpu: Duration::ZERO }
    }
}

fn measure(bench: &Bench<'_>, candidates: &[Candidate], mut measured: Vec<Measured>, rounds: usize) -> Vec<Measured> {
    for candidate in candidates {
        (candidate.call)(bench, true);
        (candidate.call)(bench, false);
    }
    let count = candidates.len();
    for round in 0..rounds {
        // Everybody is first equally often.
        for turn in 0..count {
            let index = (turn + round) % count;
            let (candidate, measured) = (&candidates[index], &mut measured[index]);
            let before = children_cpu();
            measured.add.push((candidate.call)(bench, true));
            measured.add_cpu += children_cpu() - before;
            measured.del.push((candidate.call)(bench, false));
            // What the kernel still has to clean up after a DEL is nobody else's burden.
            thread::sleep(Duration::from_millis(10));
        }
    }
    measured
}

fn children_cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap())
}

struct Bench<'a> {
    lab: &'a Lab,
    container: &'a Netns,
    data_dir: &'a Path,
}

impl Bench<'_> {
    fn floor(&self, program: &Path, add: bool) -> Duration {
        let (netns, store) = (self.container.path(), self.data_dir.join("floor"));
        let mut command = Command::new(program);
        if add {
            command.args([
                "add".as_ref(),
                netns.as_os_str(),
                "ens32".as_ref(),
                store.as_os_str(),
                "192.168.1.2".as_ref(),
            ]);
        } else {
            command.args(["del".as_ref(), netns.as_os_str(), store.as_os_str(), "192.168.1.2".as_ref()]);
        }
        self.timed(command.env_clear(), b"{}")
    }

    /// Each candidate has a network of its own: what it costs to mix them is another question.
    fn plugin(&self, directory: &Path, network: &str, add: bool, dual_stack: bool) -> Duration {
        let mut ranges = vec![json!([{"subnet": "192.168.1.0/24"}])];
        let mut routes = vec![json!({"dst": "0.0.0.0/0"})];
        if dual_stack {
            ranges.push(json!([{"subnet": "2001:db8:1::/64"}]));
            routes.push(json!({"dst": "::/0"}));
        }
        let config = json!({
            "cniVersion": "1.0.0", "name": network, "type": "macvlan", "master": "ens32",
            "ipam": {"type": "host-local", "dataDir": self.data_dir, "ranges": ranges, "routes": routes},
        });
        let mut command = Command::new(directory.join("macvlan"));
        command
            .env_clear()
            .env("CNI_COMMAND", if add { "ADD" } else { "DEL" })
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", self.container.path())
            .env("CNI_PATH", directory);
        self.timed(&mut command, config.to_string().as_bytes())
    }

    fn timed(&self, command: &mut Command, stdin: &[u8]) -> Duration {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.lab.host.within(|| {
            let start = Instant::now();
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(stdin).unwrap();
            let output = child.wait_with_output().unwrap();
            let time = start.elapsed();
            assert!(output.status.success(), "{command:?}: {output:?}");
            time
        })
    }
}

/// Builds the floor with the C compiler, where there is one.
fn build_floor(program: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("floor/floor.c");
    let built = Command::new("cc").args(["-O2", "-static", "-o"]).arg(program).arg(source).status();
    if built.is_ok_and(|status| status.success()) {
        return Some(program.to_owned());
    }
    println!("without the floor: it needs a C compiler called cc");
    None
}

fn report(measured: &[Measured], rounds: usize) {
    println!("{rounds} rounds, times in ms");
    println!("{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "ADD p50", "ADD p99", "ADD CPU", "DEL p50", "ratio");
    for candidate in measured {
        let ratios: Vec<f64> = candidate
            .add
            .iter()
            .zip(&measured[0].add)
            .map(|(own, floor)| own.as_secs_f64() / floor.as_secs_f64())
            .collect();
        println!(
            "{:<34} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {:>8.2}",
            candidate.name,
            milliseconds(share(&candidate.add, 0.5)),
            milliseconds(share(&candidate.add, 0.99)),
            milliseconds(candidate.add_cpu) / rounds as f64,
            milliseconds(share(&candidate.del, 0.5)),
            share(&ratios, 0.5),
        );
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that `share` of all values do not exceed.
fn share<T: PartialOrd + Copy>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the values")]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}
