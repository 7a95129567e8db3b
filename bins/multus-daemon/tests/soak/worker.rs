//! A part of a runtime: it has some sandboxes, and does one thing after the other with one of them.

use std::{collections::BTreeSet, path::PathBuf, thread, time::Duration};

use serde_json::Value;
use testkit::{Call, Choices, Netns, Reply};

use crate::{
    node::Node,
    runtime::{Operation, Runtime},
    world::{World, content, id},
};

/// In a hundred calls.
const KILLED: usize = 12;
/// What a range says that is too small.
const FULL: &str = "no IP addresses available in range set";

pub(crate) struct Worker<'a> {
    world: &'a World<'a>,
    pub(crate) runtime: Runtime,
    choices: Choices,
    slots: Vec<Slot>,
}

struct Slot {
    name: String,
    life: usize,
    sandbox: Option<Sandbox>,
}

/// A sandbox that is there, attached or to be detached.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// Until it is removed; host-local needs none.
    pub(crate) netns: Option<Netns>,
    path: PathBuf,
    /// Those that the kernel has, in the order of the runtime's networks.
    pub(crate) addresses: Vec<String>,
    result: Value,
    /// A Go plugin that is killed may leave a link of a name that nobody knows.
    is_littered: bool,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(world: &'a World<'a>, runtime: Runtime, number: usize, seed: u64) -> Self {
        let slot = |place| {
            let name = format!("{}-{number}-{place}", format!("{runtime:?}").to_lowercase());
            if runtime != Runtime::Multus {
                world.enter(&name, 0);
            }
            Slot { name, life: 0, sandbox: None }
        };
        let choices = Choices::new(seed.wrapping_mul(1_000).wrapping_add(u64::try_from(number).unwrap()));
        Self { world, runtime, choices, slots: (0..runtime.slots()).map(slot).collect() }
    }

    /// Tells the API of its pods.
    pub(crate) fn announce(&self, node: &Node<'_>) {
        if self.runtime == Runtime::Multus {
            self.slots.iter().for_each(|slot| node.announce(&slot.name, "macvlan-conf"));
        }
    }

    pub(crate) fn work(&mut self, operations: usize) {
        for _ in 0..operations {
            let operation = Operation::any(&mut self.choices);
            self.operate(operation);
        }
    }

    /// Detaches everything.
    pub(crate) fn end(&mut self) {
        for place in 0..self.slots.len() {
            if let Some(sandbox) = self.slots[place].sandbox.take() {
                self.world.take_back(&sandbox.addresses);
                self.detach(place, sandbox, Operation::Del);
            }
        }
    }

    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = &Sandbox> {
        self.slots.iter().filter_map(|slot| slot.sandbox.as_ref())
    }

    fn operate(&mut self, operation: Operation) {
        if operation == Operation::Gc {
            return self.collect();
        }
        let _nobody_collects = (self.runtime == Runtime::Multus).then(|| self.world.gate.read().unwrap());
        let (live, free): (Vec<_>, Vec<_>) =
            (0..self.slots.len()).partition(|place| self.slots[*place].sandbox.is_some());
        let among = if operation == Operation::Add { free } else { live };
        if among.is_empty() {
            return;
        }
        let place = self.choices.pick(&among);
        match operation {
            Operation::Add => self.add(place),
            Operation::Check => self.check(place),
            Operation::Del | Operation::DelWithoutNamespace | Operation::Lose | Operation::Gc => {
                self.leave(place, operation);
            }
        }
    }

    fn leave(&mut self, place: usize, operation: Operation) {
        let mut sandbox = self.slots[place].sandbox.take().unwrap();
        self.world.take_back(&sandbox.addresses);
        if operation != Operation::Del {
            sandbox.remove_namespace();
        }
        if operation == Operation::Lose {
            self.world.count_lost(self.runtime);
            self.next_life(place);
        } else {
            self.detach(place, sandbox, operation);
        }
    }

    fn add(&mut self, place: usize) {
        let id = id(&self.slots[place].name, self.slots[place].life);
        let netns = self.runtime.has_sandbox().then(|| self.world.lab.container(&id));
        let path = netns.as_ref().map_or_else(|| "/nowhere".into(), |netns| netns.path().to_owned());
        let (addresses, result) = (Vec::new(), Value::Null);
        let mut sandbox = Sandbox { id, netns, path, addresses, result, is_littered: false };
        let is_go = self.choices.chance(50);
        let call = self.call("ADD", place, &sandbox, is_go);
        match self.run(Operation::Add, &call) {
            Some(reply) if reply.status == Some(0) => {
                sandbox.result = reply.result();
                self.attached(&mut sandbox);
                self.slots[place].sandbox = Some(sandbox);
                return;
            }
            Some(_) => {}
            None => sandbox.is_littered = is_go && self.runtime == Runtime::Macvlan,
        }
        self.detach(place, sandbox, Operation::Del);
    }

    /// What was told is what the kernel and the store have, and nobody else has it.
    fn attached(&self, sandbox: &mut Sandbox) {
        let networks = self.runtime.networks();
        sandbox.addresses = match &sandbox.netns {
            Some(netns) => {
                let mut links: Vec<&str> = networks.iter().map(|(_, ifname)| *ifname).chain(["lo"]).collect();
                links.sort_unstable();
                assert_eq!(netns.links(), links, "{}", sandbox.id);
                networks.iter().flat_map(|(_, ifname)| netns.addresses(ifname)).collect()
            }
            None => vec![told(&sandbox.result)],
        };
        sandbox.addresses.iter_mut().for_each(|address| *address = address.split('/').next().unwrap().to_owned());
        assert_eq!(sandbox.addresses.len(), networks.len(), "{}", sandbox.id);
        assert_eq!(told(&sandbox.result).split('/').next(), Some(sandbox.addresses[0].as_str()));
        self.world.give(&sandbox.addresses, &sandbox.id);
        for (address, (network, ifname)) in sandbox.addresses.iter().zip(networks) {
            let stored = self.world.stored(network);
            assert_eq!(stored.get(address), Some(&content(&sandbox.id, ifname)), "{address}");
        }
    }

    fn check(&mut self, place: usize) {
        let sandbox = self.slots[place].sandbox.take().unwrap();
        let is_go = self.choices.chance(50);
        let call = self.call("CHECK", place, &sandbox, is_go);
        let _killed = self.run(Operation::Check, &call);
        self.slots[place].sandbox = Some(sandbox);
    }

    /// Calls DEL until one succeeds.
    fn detach(&mut self, place: usize, mut sandbox: Sandbox, operation: Operation) {
        loop {
            let daemon = self.world.daemon();
            let is_go = self.choices.chance(50);
            let call = self.call("DEL", place, &sandbox, is_go);
            if self.run(operation, &call).is_some_and(|reply| reply.status == Some(0)) {
                // A DEL that no daemon hears of is done when the next one is there.
                if self.runtime != Runtime::Multus || daemon.is_some() && daemon == self.world.daemon() {
                    self.is_detached(&sandbox);
                }
                break;
            }
        }
        sandbox.remove_namespace();
        // A container that starts again keeps its name; a pod gets another sandbox.
        if self.runtime == Runtime::Multus {
            self.slots[place].life += 1;
        }
    }

    fn is_detached(&self, sandbox: &Sandbox) {
        if let Some(netns) = sandbox.netns.as_ref().filter(|_| !sandbox.is_littered) {
            assert_eq!(netns.links(), ["lo"], "{}", sandbox.id);
        }
        for (network, ifname) in self.runtime.networks() {
            let content = content(&sandbox.id, ifname);
            let stored = self.world.stored(network);
            assert!(!stored.values().any(|stored| *stored == content), "{} in {stored:?}", sandbox.id);
        }
    }

    fn collect(&mut self) {
        if self.runtime == Runtime::Multus {
            let _alone = self.world.gate.write().unwrap();
            let call = self.world.garbage_collection(self.runtime, &self.world.sandboxes_of_multus());
            self.answer(Operation::Gc, || Some(call.run_in(&self.world.lab.host)));
        } else {
            let call = self.world.garbage_collection(Runtime::Macvlan, &self.world.everybody());
            let _killed = self.run(Operation::Gc, &call);
        }
    }

    fn next_life(&mut self, place: usize) {
        let slot = &mut self.slots[place];
        slot.life += 1;
        if self.runtime != Runtime::Multus {
            self.world.enter(&slot.name, slot.life);
        }
    }

    fn call(&self, command: &str, place: usize, sandbox: &Sandbox, is_go: bool) -> Call {
        let name = &self.slots[place].name;
        let mut config = self.world.config(self.runtime);
        if command == "CHECK" {
            config["prevResult"] = sandbox.result.clone();
        }
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let call = self.runtime.call(command, &sandbox.path, is_go).container(&sandbox.id).config(&config);
        if self.runtime == Runtime::Multus { call.env("CNI_ARGS", &args) } else { call }
    }

    /// Makes a call on the host, and maybe kills it: then there is no answer.
    fn run(&mut self, operation: Operation, call: &Call) -> Option<Reply> {
        let life = self.choices.below(self.runtime.life());
        let is_victim = self.choices.chance(KILLED);
        self.answer(operation, || {
            let running = self.world.lab.host.within(|| call.start());
            if !is_victim {
                return Some(running.reply());
            }
            thread::sleep(Duration::from_micros(u64::try_from(life).unwrap()));
            Some(running.kill()).filter(|reply| reply.status.is_some())
        })
    }

    /// Unless the daemon was away in the meantime, an answer is that of a success, or that the range is full.
    fn answer(&self, operation: Operation, call: impl FnOnce() -> Option<Reply>) -> Option<Reply> {
        let daemon = self.world.daemon();
        let reply = call();
        self.world.count(self.runtime, operation, reply.as_ref());
        let is_excused = self.runtime == Runtime::Multus && (daemon.is_none() || daemon != self.world.daemon());
        if let Some(reply) = reply.as_ref().filter(|reply| reply.status != Some(0) && !is_excused) {
            let message = reply.error().1;
            assert!(operation == Operation::Add && message.contains(FULL), "{operation:?}: {reply:?}");
        }
        reply
    }
}

impl Sandbox {
    fn remove_namespace(&mut self) {
        if let Some(netns) = self.netns.take() {
            netns.remove_path();
        }
    }
}

/// The first address of a result.
fn told(result: &Value) -> String {
    result["ips"][0]["address"].as_str().unwrap().to_owned()
}

/// The containers of all these workers that are there.
pub(crate) fn containers(workers: &[Worker<'_>], of: impl Fn(Runtime) -> bool) -> BTreeSet<String> {
    let workers = workers.iter().filter(|worker| of(worker.runtime));
    workers.flat_map(Worker::sandboxes).map(|sandbox| sandbox.id.clone()).collect()
}
