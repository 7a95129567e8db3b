//! Beside the Go plugin of the same name on one data directory, and against it on two.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use libtest_mimic::{Arguments, Failed, Trial};
use proptest::{collection::vec, prelude::*, test_runner::TestRunner};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Reply, go_plugins};

type Case = (&'static str, fn(&Plugins));

const CASES: [Case; 8] = [
    ("each_checks_and_releases_what_the_other_reserved", each_checks_and_releases_what_the_other_reserved),
    ("each_goes_on_where_the_other_left_off", each_goes_on_where_the_other_left_off),
    ("each_refuses_the_duplicates_of_the_other", each_refuses_the_duplicates_of_the_other),
    ("records_of_the_container_alone_mean_the_same_to_both", records_of_the_container_alone_mean_the_same_to_both),
    ("the_number_of_sets_does_not_decide_what_a_release_ends", the_number_of_sets_does_not_decide_what_a_release_ends),
    ("adds_of_both_at_the_same_time_get_different_addresses", adds_of_both_at_the_same_time_get_different_addresses),
    ("the_same_calls_have_the_same_outcome_with_one_set", the_same_calls_have_the_same_outcome_with_one_set),
    ("the_same_calls_have_the_same_outcome_with_two_families", the_same_calls_have_the_same_outcome_with_two_families),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let obstacle = go_plugins().err();
    let must_run = env::var("CI").is_ok_and(|value| value == "true");
    if let Some(reason) = obstacle.as_ref().filter(|_| !must_run) {
        eprintln!("ignored: {reason}");
    }
    let ignored = obstacle.is_some() && !must_run;
    let trial = |(name, case): Case| {
        let test = move || {
            let go = go_plugins().map_err(Failed::from)?.join("host-local");
            case(&Plugins { go, rust: PathBuf::from(env!("CARGO_BIN_EXE_host-local")) });
            Ok(())
        };
        Trial::test(name, test).with_ignored_flag(ignored)
    };
    libtest_mimic::run(&arguments, CASES.into_iter().map(trial).collect()).exit_code()
}

fn each_checks_and_releases_what_the_other_reserved(plugins: &Plugins) {
    for (adding, releasing) in plugins.both_ways() {
        for version in ["0.2.0", "0.4.0", "1.0.0"] {
            let host = Host::new();
            let mut config = host.config(version, &dual_stack());
            let result = host.call(adding, "ADD", &config).run().result();
            assert_eq!(host.reserved(), ["10.1.2.2", "2001:db8::2"]);
            if version >= "0.4.0" {
                config["prevResult"] = result;
                host.call(releasing, "CHECK", &config).run().succeeded();
                assert_eq!(host.call(releasing, "CHECK", &config).container("c2").run().error().0, 999);
                assert_eq!(host.call(releasing, "CHECK", &config).env("CNI_IFNAME", "net1").run().error().0, 999);
            }
            host.call(releasing, "DEL", &config).env("CNI_IFNAME", "net1").run().succeeded();
            assert_eq!(host.reserved().len(), 2);
            let reply = host.call(releasing, "DEL", &config).run();
            assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
            assert_eq!(host.reserved(), [""; 0], "{version}: {releasing:?} releases");
        }
    }
}

fn each_goes_on_where_the_other_left_off(plugins: &Plugins) {
    for (first, second) in plugins.both_ways() {
        let host = Host::new();
        let config = host.config("0.4.0", &json!([[{"subnet": "10.1.2.0/29"}]]));
        let add = |program, container: &str| host.call(program, "ADD", &config).container(container).run();
        for (program, expected) in [first, second, first, second, first].into_iter().zip(2..) {
            let result = add(program, &format!("c{expected}")).result();
            assert_eq!(result["ips"][0]["address"], format!("10.1.2.{expected}/29"));
            assert_eq!(host.contents()["last_reserved_ip.0"], format!("10.1.2.{expected}"));
        }
        let full = "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6";
        for program in [first, second] {
            assert_eq!(add(program, "late").error(), (999, full.to_owned(), String::new()));
        }
        host.call(first, "DEL", &config).container("c4").run().succeeded();
        assert_eq!(add(second, "late").result()["ips"][0]["address"], "10.1.2.4/29");
    }
}

fn each_refuses_the_duplicates_of_the_other(plugins: &Plugins) {
    for (first, second) in plugins.both_ways() {
        let host = Host::new();
        let mut config = host.config("0.4.0", &dual_stack());
        host.call(first, "ADD", &config).run().succeeded();
        let expected = host.contents();
        for program in [first, second] {
            let duplicate = "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation \
                             is not allowed";
            assert_eq!(host.call(program, "ADD", &config).run().error().1, duplicate);
        }
        config["args"] = json!({"cni": {"ips": ["10.1.2.2"]}});
        let taken = "failed to allocate for range 0: requested IP address 10.1.2.2 is not available in range set \
                     10.1.2.1-10.1.2.254";
        for program in [first, second] {
            let told = host.call(program, "ADD", &config).container("c2").run().error().1;
            let who = if program == plugins.rust { ": reserved for container c1, interface eth0" } else { "" };
            assert_eq!(told, format!("{taken}{who}"));
        }
        assert_eq!(host.contents(), expected);
    }
}

fn records_of_the_container_alone_mean_the_same_to_both(plugins: &Plugins) {
    let ranges = json!([[{"subnet": "10.1.2.0/24"}]]);
    let calls = [
        ("ADD", "c2", "eth0"),
        ("CHECK", "c2", "net1"),
        ("CHECK", "c1", "net1"),
        ("DEL", "c1", "eth0"),
        ("CHECK", "c1", "eth0"),
        ("DEL", "c1", "eth0"),
        ("DEL", "c2", "net1"),
        ("CHECK", "c2", "net1"),
    ];
    assert_eq!(with_old_records(&plugins.rust, &ranges, &calls), with_old_records(&plugins.go, &ranges, &calls));
}

/// Go releases once for each range set, so that with two of them a record without an interface goes along, though it may
/// be another interface's.
fn the_number_of_sets_does_not_decide_what_a_release_ends(plugins: &Plugins) {
    let calls = [("DEL", "c1", "eth0"), ("DEL", "c1", "eth0")];
    let left = |program| {
        let outcome = with_old_records(program, &dual_stack(), &calls);
        outcome.into_iter().map(|(_, files)| files.contains_key("10.1.2.8")).collect::<Vec<_>>()
    };
    assert_eq!(left(&plugins.rust), [true, false]);
    assert_eq!(left(&plugins.go), [false, false]);
}

/// What becomes of `calls` where `c1` has records with and without its interface, and `c2` one without.
fn with_old_records(
    program: &Path,
    ranges: &Value,
    calls: &[(&str, &str, &str)],
) -> Vec<(Reply, BTreeMap<String, String>)> {
    let host = Host::new();
    let config = host.config("0.4.0", ranges);
    host.call(program, "ADD", &config).run().succeeded();
    fs::write(host.network().join("10.1.2.8"), "c1").unwrap();
    fs::write(host.network().join("10.1.2.9"), "c2\n").unwrap();
    let outcome = |(command, container, ifname): &(&str, &str, &str)| {
        let reply = host.call(program, command, &config).container(container).env("CNI_IFNAME", ifname).run();
        (reply, host.contents())
    };
    calls.iter().map(outcome).collect()
}

fn adds_of_both_at_the_same_time_get_different_addresses(plugins: &Plugins) {
    let host = Host::new();
    let config = host.config("1.0.0", &dual_stack());
    let programs = [&plugins.go, &plugins.rust, &plugins.go, &plugins.rust];
    let work = |worker: usize, program: &Path| {
        let mut given = Vec::new();
        for turn in 0..20 {
            let container = format!("c{worker}-{turn}");
            let result = host.call(program, "ADD", &config).container(&container).run().result();
            given.extend(result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap().to_owned()));
            // Every fourth goes at once, so that releases are among it, by the other program.
            if turn % 4 == 3 {
                let other = if program == plugins.go { &plugins.rust } else { &plugins.go };
                host.call(other, "DEL", &config).container(&container).run().succeeded();
            }
        }
        given
    };
    let given: Vec<String> = thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = programs
            .into_iter()
            .enumerate()
            .map(|(worker, program)| scope.spawn(move || work(worker, program)))
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    // The round does not come back to a released address as long as there are others.
    assert_eq!(given.len(), 2 * 4 * 20);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{given:?}");
    assert_eq!(host.reserved().len(), 2 * 4 * 15);
    let owners: BTreeMap<String, usize> =
        host.contents().into_iter().fold(BTreeMap::new(), |mut owners, (_, content)| {
            *owners.entry(content).or_default() += 1;
            owners
        });
    let pairs = owners.iter().filter(|(content, count)| content.ends_with("\r\neth0") && **count == 2).count();
    assert_eq!(pairs, 4 * 15, "each attachment left has one address of each family");
}

fn the_same_calls_have_the_same_outcome_with_one_set(plugins: &Plugins) {
    let ranges = json!([[
        {"subnet": "10.1.2.0/29"},
        {"subnet": "10.1.3.0/28", "rangeStart": "10.1.3.4", "rangeEnd": "10.1.3.8", "gateway": "10.1.3.6"},
        {"subnet": "10.1.4.0/30", "rangeStart": "10.1.4.0", "gateway": "10.9.9.9"},
    ]]);
    let requests = ["10.1.2.1", "10.1.2.3", "10.1.2.6", "10.1.3.4", "10.1.3.6", "10.1.3.8", "10.1.4.0", "10.1.4.2"];
    compare(plugins, &ranges, &requests);
}

fn the_same_calls_have_the_same_outcome_with_two_families(plugins: &Plugins) {
    compare(plugins, &json!([[{"subnet": "10.1.2.0/29"}], [{"subnet": "2001:db8::/64"}]]), &[]);
}

#[derive(Clone, Debug)]
struct Step {
    command: &'static str,
    container: u8,
    ifname: &'static str,
    version: &'static str,
    request: Option<prop::sample::Index>,
}

/// Makes the same random calls of both, each on a directory of its own.
fn compare(plugins: &Plugins, ranges: &Value, requests: &[&str]) {
    let command = prop_oneof![6 => Just("ADD"), 3 => Just("DEL"), 1 => Just("CHECK")];
    let request = prop::option::weighted(0.3, any::<prop::sample::Index>());
    let ifname = prop::sample::select(&["eth0", "net1"][..]);
    let version = prop::sample::select(&["0.2.0", "0.3.1", "0.4.0"][..]);
    let step =
        (command, 0_u8..8, ifname, version, request).prop_map(|(command, container, ifname, version, request)| Step {
            command,
            container,
            ifname,
            version,
            request,
        });
    let config = ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&vec(step, 10..40), |steps| {
        let (go, rust) = (Host::new(), Host::new());
        for step in &steps {
            let replies = [(&plugins.go, &go), (&plugins.rust, &rust)].map(|(program, host)| {
                let mut config = host.config(step.version, ranges);
                if let Some(request) = step.request.filter(|_| !requests.is_empty()) {
                    config["args"] = json!({"cni": {"ips": [request.get(requests)]}});
                }
                let call = host.call(program, step.command, &config).env("CNI_IFNAME", step.ifname);
                let reply = call.container(&format!("c{}", step.container)).run();
                Reply { stdout: without_owner(&reply.stdout), ..reply }
            });
            prop_assert_eq!(&replies[0], &replies[1], "{:?}", step);
            prop_assert_eq!(go.contents(), rust.contents(), "{:?}", step);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Go does not tell who has an address that is asked for.
fn without_owner(message: &str) -> String {
    let Some((before, owner)) = message.split_once(": reserved for container ") else {
        return message.to_owned();
    };
    before.to_owned() + &owner[owner.find('"').unwrap()..]
}

/// The two programs.
struct Plugins {
    go: PathBuf,
    rust: PathBuf,
}

impl Plugins {
    fn both_ways(&self) -> [(&Path, &Path); 2] {
        [(&self.go, &self.rust), (&self.rust, &self.go)]
    }
}

fn dual_stack() -> Value {
    json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]])
}

/// A data directory that does not exist yet.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn config(&self, version: &str, ranges: &Value) -> Value {
        let data_dir = self.directory.path().join("networks");
        let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "2001:db8:9::/48", "gw": "2001:db8::9"}]);
        let ipam = json!({"type": "host-local", "dataDir": data_dir, "ranges": ranges, "routes": routes});
        json!({"cniVersion": version, "name": "storage", "type": "macvlan", "ipam": ipam})
    }

    fn call(&self, program: &Path, command: &str, config: &Value) -> Call {
        Call::new(program, command, &self.directory.path().join("netns")).config(config)
    }

    fn network(&self) -> PathBuf {
        self.directory.path().join("networks/storage")
    }

    /// All files of the network but the lock; none when there is no directory.
    fn contents(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.network()).into_iter().flatten().map(Result::unwrap);
        let files = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
        files.filter(|(name, _)| name != "lock").map(|(name, path)| (name, fs::read_to_string(path).unwrap())).collect()
    }

    fn reserved(&self) -> Vec<String> {
        self.contents().into_keys().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }
}
