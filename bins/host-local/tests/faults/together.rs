//! Many processes at once, half of them the Go plugin's.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Mutex,
    thread,
};

use multus_cni::AttachmentId;
use serde_json::{Value, json};
use testkit::Call;

use crate::{Host, addresses, owner, sequence::tries};

const WORKERS: u64 = 16;
/// How many containers each has at a time, and how many it forgets in all.
const CONTAINERS: u64 = 4;
const FORGOTTEN: u64 = 24;

/// What those know who got addresses.
#[derive(Default)]
struct Known {
    owners: Mutex<BTreeMap<IpAddr, String>>,
    /// Containers that have gone without a DEL.
    forgotten: Mutex<BTreeSet<String>>,
    served: Mutex<[u32; 2]>,
}

pub(crate) fn never_the_same_address() {
    let host = Host::new();
    let known = Known::default();
    let calls = u64::from(tries(2_000)) / WORKERS;
    thread::scope(|scope| {
        for number in 0..WORKERS {
            let worker = Worker { number, host: &host, known: &known, live: BTreeMap::new(), forgotten: 0 };
            scope.spawn(move || worker.work(calls));
        }
    });
    assert!(known.owners.lock().unwrap().is_empty());
    assert!(known.forgotten.lock().unwrap().len() > 16);
    collection(&host, &known).run().succeeded();
    assert!(host.reservations().is_empty(), "{:?}", host.reservations());
    let [served, full] = known.served.into_inner().unwrap();
    println!("{} calls, {served} ADDs served, {full} without an address", calls * WORKERS);
    assert!(served > 500 && full > 0, "{served} ADDs served, {full} without an address");
}

/// One after the other, calls of one of the programs for containers of its own.
struct Worker<'a> {
    number: u64,
    host: &'a Host,
    known: &'a Known,
    live: BTreeMap<String, Vec<IpAddr>>,
    forgotten: u64,
}

impl Worker<'_> {
    fn work(mut self, calls: u64) {
        for _ in 0..calls {
            let choice = RandomState::new().hash_one(self.number);
            let free = (0..CONTAINERS).map(|place| live(self.number, place)).find(|id| !self.live.contains_key(id));
            match (choice % 10, free) {
                (0..5, Some(container)) => {
                    if let Some(given) = self.add(&container) {
                        self.live.insert(container, given);
                    }
                }
                (5, _) if self.forgotten < FORGOTTEN => {
                    let container = forgotten(self.number, self.forgotten);
                    if let Some(given) = self.add(&container) {
                        self.forgotten += 1;
                        self.give_up(&given);
                        self.known.forgotten.lock().unwrap().insert(container);
                    }
                }
                (6, _) => collection(self.host, self.known).run().succeeded(),
                (7, _) if !self.live.is_empty() => self.call("CHECK", self.any(choice)).run().succeeded(),
                _ if !self.live.is_empty() => self.release(self.any(choice).to_owned()),
                _ => {}
            }
        }
        while let Some(container) = self.live.keys().next() {
            self.release(container.clone());
        }
    }

    fn any(&self, choice: u64) -> &str {
        let place = usize::try_from(choice / 10).unwrap() % self.live.len();
        self.live.keys().nth(place).unwrap()
    }

    /// The addresses that an ADD gave, which nobody else has.
    fn add(&self, container: &str) -> Option<Vec<IpAddr>> {
        let reply = self.call("ADD", container).run();
        let is_served = reply.status == Some(0);
        self.known.served.lock().unwrap()[usize::from(!is_served)] += 1;
        if !is_served {
            assert!(reply.error().1.contains("no IP addresses available in range set"), "{reply:?}");
            return None;
        }
        let given = addresses(&reply);
        assert_eq!(given.len(), 2);
        let mut owners = self.known.owners.lock().unwrap();
        for address in &given {
            let other = owners.insert(*address, container.to_owned());
            assert_eq!(other, None, "{address} given to {container} is of");
        }
        Some(given)
    }

    fn release(&mut self, container: String) {
        let given = self.live.remove(&container).unwrap();
        self.give_up(&given);
        self.call("DEL", &container).run().succeeded();
    }

    /// From now on, others may get them.
    fn give_up(&self, given: &[IpAddr]) {
        let mut owners = self.known.owners.lock().unwrap();
        for address in given {
            owners.remove(address).unwrap();
        }
    }

    fn call(&self, command: &str, container: &str) -> Call {
        let call = if self.number.is_multiple_of(2) {
            self.host.go(command, container)
        } else {
            self.host.ours(command, container)
        };
        call.config(&config(self.host))
    }
}

/// A GC that spares everybody who may come or is there, since the Go plugin does not tell who is coming.
fn collection(host: &Host, known: &Known) -> Call {
    let gone = known.forgotten.lock().unwrap();
    let of_worker = |number| {
        let live = (0..CONTAINERS).map(move |place| live(number, place));
        live.chain((0..FORGOTTEN).map(move |place| forgotten(number, place)))
    };
    let containers = (0..WORKERS).flat_map(of_worker).filter(|id| !gone.contains(id));
    let valid: Vec<AttachmentId> = containers.map(|id| owner(&id)).collect();
    host.gc_of(&valid)
}

fn live(number: u64, place: u64) -> String {
    format!("live{number}-{place}")
}

fn forgotten(number: u64, place: u64) -> String {
    format!("forgotten{number}-{place}")
}

/// Mostly enough, and sometimes not.
fn config(host: &Host) -> Value {
    let mut config = host.config();
    config["ipam"]["ranges"] =
        json!([[{"subnet": "10.0.0.0/26", "rangeEnd": "10.0.0.40"}], [{"subnet": "2001:db8::/120"}]]);
    config
}
