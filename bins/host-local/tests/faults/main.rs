//! Kills and errors at every system call, many processes at once, beside the Go plugin of the same name: no address is lost
//! and none given twice.
//!
//! A long run (`SOAK=1`) tries more of everything. Each case prints how much it tried.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it tried"
)]

use std::{fs, net::IpAddr, path::PathBuf, process::ExitCode, thread};

use host_local_ipam::{Boot, Config, DiskStore, Request, Stage, Store, allocate};
use multus_cni::{AttachmentId, Invocation, NetworkConfig};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Machine, Reply, go_plugins, run_without_lab, strace, system_calls_can_fail};

use sequence::{NETWORK, Reservations};

mod errors;
mod kills;
mod lives;
mod order;
#[path = "../../../../host-local-ipam/tests/sequence/mod.rs"]
mod sequence;
mod sync;
mod together;

fn main() -> ExitCode {
    let needed = go_plugins().and(strace()).and(system_calls_can_fail());
    run_without_lab(
        &[
            ("an_add_killed_at_any_call_is_served_again", kills::an_add_is_served_again),
            ("an_add_that_adopts_may_be_killed_at_any_call", kills::an_add_that_adopts),
            ("an_add_that_reclaims_may_be_killed_at_any_call", kills::an_add_that_reclaims),
            ("a_durable_add_may_be_killed_at_any_call", kills::a_durable_add),
            ("a_release_a_collection_and_a_check_may_be_killed_at_any_call", kills::commands_without_a_result),
            ("an_add_survives_an_error_of_any_call_or_leaves_nothing", errors::of_adds),
            ("an_add_that_adopts_survives_an_error_of_any_call_or_leaves_nothing", errors::of_adds_that_adopt),
            ("a_release_a_collection_and_a_check_survive_an_error_of_any_call_or_tell", errors::of_other_commands),
            ("an_error_that_lasts_keeps_no_address_that_del_does_not_tell_of", errors::that_last),
            ("lives_with_the_go_plugin_are_those_of_the_model", lives::are_those_of_the_model),
            ("many_at_once_never_have_the_same_address", together::never_the_same_address),
            ("an_attachment_waits_for_its_add_and_no_other_does", order::waits_for_its_add),
            ("what_is_durable_is_synced_in_order_and_nothing_else_at_all", sync::in_order),
        ],
        needed,
    )
}

/// The boot that everything happens in, unless told otherwise.
const NOW: Boot = Boot { machine: Some(0xa), id: 0xb };
const EARLIER: Boot = Boot { machine: Some(0xa), id: 0x9 };

/// A machine with a data directory that does not exist yet.
struct Host {
    directory: TempDir,
    machine: Machine,
    durable: bool,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::new(directory.path(), NOW.machine.unwrap(), NOW.id);
        Self { directory, machine, durable: false }
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.path().join("networks")
    }

    fn config(&self) -> Value {
        let ranges: Value = serde_json::from_str(&sequence::ranges()).unwrap();
        let mut ipam = json!({"type": "host-local", "dataDir": self.data_dir(), "ranges": ranges});
        if self.durable {
            ipam["durable"] = json!(true);
        }
        json!({"cniVersion": "1.0.0", "name": NETWORK, "ipam": ipam})
    }

    fn ours(&self, command: &str, container: &str) -> Call {
        self.call(env!("CARGO_BIN_EXE_host-local").into(), command, container)
    }

    fn go(&self, command: &str, container: &str) -> Call {
        self.call(go_plugins().unwrap().join("host-local"), command, container)
    }

    fn call(&self, program: PathBuf, command: &str, container: &str) -> Call {
        let call = Call::new(program, command, &self.directory.path().join("netns"));
        call.container(container).config(&self.config())
    }

    /// A GC of ours for which these containers are valid.
    fn gc(&self, valid: &[&str]) -> Call {
        self.gc_of(&valid.iter().map(|container| owner(container)).collect::<Vec<_>>())
    }

    fn gc_of(&self, valid: &[AttachmentId]) -> Call {
        let listed = |one: &AttachmentId| json!({"containerID": one.container_id, "ifname": one.ifname});
        let valid: Vec<Value> = valid.iter().map(listed).collect();
        let mut config = self.config();
        config["cniVersion"] = json!("1.1.0");
        config["cni.dev/valid-attachments"] = json!(valid);
        self.ours("GC", "unused").config(&config)
    }

    /// Reserves in that boot, or without a record, as the Go plugin does.
    fn reserve(&self, boot: Option<Boot>, container: &str, stage: Stage) {
        let owner = owner(container);
        let config = NetworkConfig::parse(self.config().to_string().into_bytes()).unwrap();
        let config = Config::parse(&Invocation::new(config)).unwrap();
        let store = DiskStore::in_boot(self.data_dir(), boot);
        let _lock = store.lock_attachment(&NETWORK.parse().unwrap(), &owner).unwrap();
        let request = Request { owner: &owner, sets: &config.sets, wanted: &[], stage };
        allocate(&mut *store.lock(&NETWORK.parse().unwrap()).unwrap(), &request).unwrap();
    }

    fn reservations(&self) -> Reservations {
        sequence::files(&self.data_dir())
    }

    /// The reservations of a container.
    fn held_by(&self, container: &str) -> Reservations {
        let mut reservations = self.reservations();
        reservations.retain(|_, one| one.content == sequence::content(&owner(container)));
        reservations
    }
}

fn owner(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.to_owned(), ifname: "eth0".to_owned() }
}

/// The addresses of a result.
fn addresses(reply: &Reply) -> Vec<IpAddr> {
    let result = reply.result();
    let texts = result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap());
    texts.map(|text| text.split('/').next().unwrap().parse().unwrap()).collect()
}

/// Says where a case was when it failed.
struct Place(String);

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.0);
        }
    }
}

/// A call that something is done to, with what it finds.
struct Scenario {
    name: &'static str,
    command: &'static str,
    durable: bool,
    prepare: fn(&Host),
}

/// Whom the calls of the scenarios are for.
const ITS: &str = "c1";
/// Those that have an address all the time: one of ours, one of the Go plugin's.
const OTHERS: [&str; 2] = ["c7", "c8"];

impl Scenario {
    const fn new(name: &'static str, command: &'static str, prepare: fn(&Host)) -> Self {
        Self { name, command, durable: false, prepare }
    }

    fn host(&self) -> Host {
        let host = Host { durable: self.durable, ..Host::new() };
        (self.prepare)(&host);
        host
    }

    fn call(&self, host: &Host) -> Call {
        if self.command == "GC" { host.gc(&OTHERS) } else { host.ours(self.command, ITS) }
    }

    /// The system calls that it makes once it has read its configuration: each by its name, and which of that name it is.
    /// Before that it has not looked at the store.
    fn system_calls(&self) -> Vec<(String, usize)> {
        let host = self.host();
        let trace = host.directory.path().join("trace");
        self.call(&host).through(&[strace().unwrap(), "-qq", "-o", trace.to_str().unwrap()]).run().succeeded();
        let text = fs::read_to_string(trace).unwrap();
        let names: Vec<&str> = text.lines().map(|line| line.split('(').next().unwrap()).collect();
        let start = text.lines().position(|line| line.starts_with("read(0,")).unwrap();
        assert!(!text.lines().take(start).any(|line| line.contains(host.data_dir().to_str().unwrap())), "{text}");
        let which = |place: usize| names[..=place].iter().filter(|name| **name == names[place]).count();
        (start..names.len()).map(|place| (names[place].to_owned(), which(place))).collect()
    }

    /// Whatever became of the call: what was reserved is whole, of the right owner, and nobody else's business is touched.
    /// What appears has a record.
    fn assert_invariants(&self, host: &Host, before: &Reservations, was_killed: bool) {
        let after = host.reservations();
        let own = sequence::content(&owner(ITS));
        let mut reclaimed = 0;
        for (address, old) in before.iter().filter(|(_, old)| old.content != own) {
            let is_earlier = old.record.is_some_and(|record| record.boot == EARLIER);
            match after.get(address) {
                Some(new) if new == old => {}
                Some(new) if is_earlier && new.content == own => reclaimed += 1,
                None if is_earlier && self.command == "ADD" => reclaimed += 1,
                other => panic!("{address}: {old:?} has become {other:?}"),
            }
        }
        assert!(reclaimed <= 1, "{before:?} has become {after:?}");
        for set in sequence::sets() {
            let held = after.iter().filter(|(address, new)| set.contains(address) && new.content == own);
            assert!(held.count() <= 1, "{after:?}");
        }
        for (address, new) in after.iter().filter(|(address, new)| before.get(*address) != Some(new)) {
            assert_eq!((self.command, &new.content), ("ADD", &own), "{address}");
            let boot = new.record.map(|record| record.boot);
            assert!(boot == Some(NOW), "{address} appears with {boot:?}");
        }
        // An ADD that failed has undone what it adopted too.
        if was_killed && self.command == "ADD" {
            let mut had = before.iter().filter(|(_, old)| old.content == own);
            assert!(had.all(|(address, _)| after.contains_key(address)), "{before:?} has become {after:?}");
        }
        for set in 0..2 {
            let last = fs::read_to_string(host.data_dir().join(format!("{NETWORK}/last_reserved_ip.{set}")));
            assert!(last.as_ref().map_or(true, |text| text.parse::<IpAddr>().is_ok()), "{last:?}");
        }
    }
}

const FRESH: Scenario = Scenario::new("ADD in a fresh directory", "ADD", |_| {});
const BESIDE: Scenario = Scenario::new("ADD beside others", "ADD", others);
const AFTER_DEATH: Scenario = Scenario::new("ADD after one that died", "ADD", |host| {
    others(host);
    host.reserve(Some(NOW), ITS, Stage::Unfinished);
});
const AFTER_REBOOT: Scenario = Scenario::new("ADD after a reboot", "ADD", |host| {
    host.reserve(Some(EARLIER), ITS, Stage::Finished);
    others(host);
});
const FULL: Scenario = Scenario::new("ADD where all are of an earlier boot", "ADD", |host| {
    for container in ["e2", "e3", "e4", "e5", "e6"] {
        host.reserve(Some(EARLIER), container, Stage::Finished);
    }
});
const RELEASE: Scenario = Scenario::new("DEL", "DEL", attached);
const RELEASE_WITHOUT_INDEX: Scenario = Scenario::new("DEL without an index", "DEL", |host| {
    attached(host);
    fs::remove_file(host.data_dir().join(format!(".host-local/{NETWORK}.index"))).unwrap();
});
const RELEASE_WHERE_NO_INDEX_CAN_BE: Scenario = Scenario::new("DEL where no index can be", "DEL", |host| {
    attached(host);
    let index = host.data_dir().join(format!(".host-local/{NETWORK}.index"));
    fs::remove_file(&index).unwrap();
    fs::create_dir_all(index.join("taken")).unwrap();
});
const COLLECTION: Scenario = Scenario::new("GC", "GC", attached);
const VERIFICATION: Scenario = Scenario::new("CHECK", "CHECK", attached);

fn others(host: &Host) {
    host.reserve(None, OTHERS[1], Stage::Finished);
    host.reserve(Some(NOW), OTHERS[0], Stage::Finished);
}

fn attached(host: &Host) {
    others(host);
    host.reserve(Some(NOW), ITS, Stage::Finished);
}
