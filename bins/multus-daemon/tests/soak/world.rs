//! What all workers share, and what was done.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use testkit::{Call, Lab, Reply};

use crate::runtime::{Operation, Runtime, lan};

/// More than a slot can have had lives while somebody collects garbage.
const LIVES: usize = 20;

pub(crate) struct World<'a> {
    pub(crate) lab: &'a Lab,
    multus: Value,
    /// Whose each address is, from the ADD that gave it to the beginning of its end.
    owners: Mutex<BTreeMap<String, String>>,
    /// How often what was in a slot has been lost: nobody comes with an earlier number any more.
    lives: Mutex<BTreeMap<String, usize>>,
    /// A runtime of Multus has nothing under way while it collects garbage.
    pub(crate) gate: RwLock<()>,
    /// Odd while one is under way: the daemon, or a plugin that it executes, dies.
    disturbances: AtomicUsize,
    deaths: AtomicUsize,
    plugins_killed: AtomicUsize,
    done: Mutex<BTreeMap<(Runtime, Operation), Done>>,
    errors: Mutex<BTreeMap<String, usize>>,
}

#[derive(Default)]
struct Done {
    succeeded: usize,
    failed: usize,
    killed: usize,
}

impl<'a> World<'a> {
    pub(crate) fn new(lab: &'a Lab, multus: Value) -> Self {
        Self {
            lab,
            multus,
            owners: Mutex::default(),
            lives: Mutex::default(),
            gate: RwLock::default(),
            disturbances: AtomicUsize::default(),
            deaths: AtomicUsize::default(),
            plugins_killed: AtomicUsize::default(),
            done: Mutex::default(),
            errors: Mutex::default(),
        }
    }

    /// What `runtime` configures its plugin with.
    pub(crate) fn config(&self, runtime: Runtime) -> Value {
        if runtime == Runtime::Multus { self.multus.clone() } else { lan(self.lab) }
    }

    pub(crate) fn without_a_daemon(&self, restart: impl FnOnce()) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        restart();
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        self.deaths.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn without_a_plugin(&self, kill: impl FnOnce() -> bool) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        self.plugins_killed.fetch_add(usize::from(kill()), Ordering::SeqCst);
        self.disturbances.fetch_add(1, Ordering::SeqCst);
    }

    /// To be compared with the same later: whether the daemon has been left alone all the time.
    pub(crate) fn daemon(&self) -> Option<usize> {
        let disturbances = self.disturbances.load(Ordering::SeqCst);
        disturbances.is_multiple_of(2).then_some(disturbances)
    }

    /// What an ADD gave, which nobody else has.
    #[track_caller]
    pub(crate) fn give(&self, addresses: &[String], id: &str) {
        let mut owners = self.owners.lock().unwrap();
        for address in addresses {
            let other = owners.insert(address.clone(), id.to_owned());
            assert_eq!(other, None, "{address}, given to {id}, is of");
        }
    }

    /// From now on others may get them.
    pub(crate) fn take_back(&self, addresses: &[String]) {
        let mut owners = self.owners.lock().unwrap();
        addresses.iter().for_each(|address| drop(owners.remove(address).unwrap()));
    }

    /// Who comes in that slot, from now on.
    pub(crate) fn enter(&self, slot: &str, life: usize) {
        self.lives.lock().unwrap().insert(slot.to_owned(), life);
    }

    /// Everybody who is on the network `lan`, or may come while garbage is collected.
    pub(crate) fn everybody(&self) -> BTreeSet<String> {
        let lives = self.lives.lock().unwrap();
        let of_slot =
            |(slot, life): (&String, &usize)| (*life..life + LIVES).map(|life| id(slot, life)).collect::<Vec<_>>();
        lives.iter().flat_map(of_slot).collect()
    }

    /// The sandboxes of Multus, while none of them comes or goes.
    pub(crate) fn sandboxes_of_multus(&self) -> BTreeSet<String> {
        self.owners.lock().unwrap().values().filter(|id| id.starts_with("multus-")).cloned().collect()
    }

    /// A GC for which these are valid.
    pub(crate) fn garbage_collection(&self, runtime: Runtime, valid: &BTreeSet<String>) -> Call {
        let mut config = self.config(runtime);
        config["cniVersion"] = json!("1.1.0");
        let valid: Vec<Value> = valid.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect();
        config["cni.dev/valid-attachments"] = json!(valid);
        runtime.call("GC", self.lab.host.path(), false).config(&config)
    }

    /// What is reserved in a network, with whom it is for. The Go plugin, killed, leaves empty files, which reserve nothing.
    pub(crate) fn stored(&self, network: &str) -> BTreeMap<String, String> {
        let content = |address: String| {
            // Somebody may release it.
            let text = fs::read_to_string(self.lab.data_dir().join(network).join(&address)).ok()?;
            (!text.is_empty()).then_some((address, text))
        };
        self.lab.reserved(network).into_iter().filter_map(content).collect()
    }

    /// Takes note of what became of an operation; a killed one has no answer.
    pub(crate) fn count(&self, runtime: Runtime, operation: Operation, reply: Option<&Reply>) {
        let mut all = self.done.lock().unwrap();
        let done = all.entry((runtime, operation)).or_default();
        match reply {
            None => done.killed += 1,
            Some(reply) if reply.status == Some(0) => done.succeeded += 1,
            Some(reply) => {
                done.failed += 1;
                let message = shape(&format!("{runtime:?} {operation:?}: {}", reply.error().1));
                *self.errors.lock().unwrap().entry(message).or_default() += 1;
            }
        }
    }

    pub(crate) fn count_lost(&self, runtime: Runtime) {
        self.done.lock().unwrap().entry((runtime, Operation::Lose)).or_default().succeeded += 1;
    }

    pub(crate) fn counts(&self) -> String {
        let mut text = String::new();
        let mut total = 0;
        for ((runtime, operation), done) in &*self.done.lock().unwrap() {
            let Done { succeeded, failed, killed } = done;
            total += succeeded + failed + killed;
            writeln!(text, "{runtime:?} {operation:?}: {succeeded} succeeded, {failed} failed, {killed} killed")
                .unwrap();
        }
        let [deaths, plugins] = [&self.deaths, &self.plugins_killed].map(|count| count.load(Ordering::SeqCst));
        writeln!(
            text,
            "{total} operations; the daemon killed {deaths} times, plugins that it executed {plugins} times"
        )
        .unwrap();
        for (message, times) in &*self.errors.lock().unwrap() {
            writeln!(text, "{times} times: {message}").unwrap();
        }
        text
    }

    /// Of everything at least once, or the run says nothing. A plugin is not always caught in a short run.
    pub(crate) fn has_done_everything(&self, is_short: bool) {
        let done = self.done.lock().unwrap();
        for runtime in [Runtime::Multus, Runtime::Macvlan, Runtime::HostLocal] {
            for operation in [Operation::Add, Operation::Check, Operation::Del, Operation::Lose, Operation::Gc] {
                let times = done.get(&(runtime, operation)).map_or(0, |done| done.succeeded);
                assert!(times > 0, "{runtime:?} {operation:?}");
            }
        }
        assert!(done.values().map(|done| done.killed).sum::<usize>() > 0);
        assert!(is_short || self.plugins_killed.load(Ordering::SeqCst) > 0);
    }
}

/// The container of a slot, in one of its lives.
pub(crate) fn id(slot: &str, life: usize) -> String {
    format!("{slot}-{life}")
}

/// What is in a reservation's file.
pub(crate) fn content(id: &str, ifname: &str) -> String {
    format!("{id}\r\n{ifname}")
}

/// A message without what differs from time to time.
fn shape(message: &str) -> String {
    let mut shape = String::new();
    for character in message.chars() {
        let character = if character.is_ascii_digit() { '#' } else { character };
        if character != '#' || !shape.ends_with('#') {
            shape.push(character);
        }
    }
    shape
}
