//! Random calls against a model that keeps plain lists: both stores must do what it does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use host_local_ipam::{
    DiskStore, MemoryStore, Range, RangeSet, Request, Reservations, Stage, Store, allocate, collect, is_exhausted,
};
use multus_cni::{AttachmentId, Cidr, NetworkName};
use proptest::{collection::vec, option, prelude::*, sample::Index};

#[test]
fn the_store_in_memory_does_what_the_model_does() {
    proptest!(config(), |(network in network(), calls in vec(call(), 1..40))| {
        follow(&MemoryStore::new(), &network, &calls)?;
    });
}

#[test]
fn the_store_on_disk_does_what_the_model_does() {
    proptest!(config(), |(network in network(), calls in vec(call(), 1..40))| {
        let directory = tempfile::tempdir().unwrap();
        follow(&DiskStore::new(directory.path()), &network, &calls)?;
    });
}

/// Makes every call on the store and on the model, and compares all that can be seen after each.
fn follow(store: &dyn Store, network: &Network, calls: &[Call]) -> Result<(), TestCaseError> {
    let sets: Vec<RangeSet> = network.0.iter().map(|set| RangeSet::new(set.ranges()).unwrap()).collect();
    let mut model = Model::new(network);
    let name: NetworkName = "storage".parse().unwrap();
    for call in calls {
        let mut reservations = store.lock(&name).unwrap();
        match call {
            Call::Allocate { owner, first_set_only, wanted } => {
                let wanted: Vec<IpAddr> = wanted.iter().map(|place| place.get(&model.places)).copied().collect();
                let count = if *first_set_only { 1 } else { sets.len() };
                let (owner, sets) = (attachment(*owner), &sets[..count]);
                let given = allocate(
                    &mut *reservations,
                    &Request { owner: &owner, sets, wanted: &wanted, stage: Stage::Finished },
                );
                if let Ok(given) = &given {
                    for (allocation, set) in given.iter().zip(sets) {
                        let address = allocation.address.address();
                        let range = set.ranges().iter().find(|range| range.contains(address)).unwrap();
                        prop_assert!(range.first() <= address && address <= range.last());
                        prop_assert_ne!(address, range.gateway());
                        prop_assert_eq!(allocation.gateway, range.gateway());
                        prop_assert_eq!(allocation.address.prefix(), range.subnet().prefix());
                    }
                }
                let given = given.map(|given| given.iter().map(|one| one.address.address()).collect::<Vec<_>>());
                prop_assert_eq!(given.map_err(|error| error.to_string()), model.allocate(&owner, count, &wanted));
            }
            Call::Release { owner } => {
                reservations.release_all(&attachment(*owner)).unwrap();
                model.owners.retain(|_, holder| *holder != attachment(*owner));
            }
            Call::Collect { valid } => {
                let valid: Vec<AttachmentId> = valid.iter().map(|owner| attachment(*owner)).collect();
                collect(&mut *reservations, &valid).unwrap();
                model.owners.retain(|_, holder| valid.contains(holder));
            }
        }
        compare(&mut *reservations, &model, &sets)?;
    }
    Ok(())
}

fn compare(reservations: &mut dyn Reservations, model: &Model, sets: &[RangeSet]) -> Result<(), TestCaseError> {
    let all: Vec<(String, String, Option<String>)> = reservations
        .all()
        .unwrap()
        .into_iter()
        .map(|one| (one.address.to_string(), one.owner.container_id, one.owner.ifname))
        .collect();
    let expected: Vec<(String, String, Option<String>)> = model
        .owners
        .iter()
        .map(|(address, owner)| (address.clone(), owner.container_id.clone(), Some(owner.ifname.clone())))
        .collect();
    prop_assert_eq!(all, expected);
    for (index, set) in sets.iter().enumerate() {
        prop_assert_eq!(reservations.last_reserved(index), model.last[index]);
        let free = model.sets[index].iter().any(|slot| model.is_free(slot));
        prop_assert_eq!(is_exhausted(reservations, set).unwrap(), !free);
    }
    Ok(())
}

/// What the stores must do, the slow and obvious way.
struct Model {
    /// For each set all addresses of all its ranges in order, gateways included.
    sets: Vec<Vec<Slot>>,
    names: Vec<String>,
    /// Owners by the text of their address.
    owners: BTreeMap<String, AttachmentId>,
    last: Vec<Option<IpAddr>>,
    /// What may be asked for: every address, and some beside.
    places: Vec<IpAddr>,
}

struct Slot {
    address: IpAddr,
    is_gateway: bool,
}

impl Model {
    fn new(network: &Network) -> Self {
        let mut sets = Vec::new();
        let mut names = Vec::new();
        for set in &network.0 {
            let mut slots = Vec::new();
            let mut texts = Vec::new();
            for range in &set.0 {
                let (first, last) = range.ends();
                let gateway = range.gateway();
                slots.extend(
                    (first..=last)
                        .map(|host| range.subnet.host(host))
                        .map(|address| Slot { address, is_gateway: address == gateway }),
                );
                texts.push(format!("{}-{}", range.subnet.host(first), range.subnet.host(last)));
            }
            sets.push(slots);
            names.push(texts.join(","));
        }
        let mut places: Vec<IpAddr> = sets.iter().flatten().map(|slot| slot.address).collect();
        places.extend(["10.99.0.1", "2001:db8:99::1"].map(|text| text.parse::<IpAddr>().unwrap()));
        Self { last: vec![None; sets.len()], sets, names, owners: BTreeMap::new(), places }
    }

    fn is_free(&self, slot: &Slot) -> bool {
        !slot.is_gateway && !self.owners.contains_key(&slot.address.to_string())
    }

    fn allocate(&mut self, owner: &AttachmentId, count: usize, wanted: &[IpAddr]) -> Result<Vec<IpAddr>, String> {
        let mut left: Vec<IpAddr> = Vec::new();
        for address in wanted {
            if !left.contains(address) {
                left.push(*address);
            }
        }
        let mut assigned = vec![None; count];
        for (index, assigned) in assigned.iter_mut().enumerate() {
            let contains = |address: &IpAddr| self.sets[index].iter().any(|slot| slot.address == *address);
            if let Some(place) = left.iter().position(contains) {
                *assigned = Some(left.remove(place));
            }
        }
        if !left.is_empty() {
            let texts: Vec<String> = left.iter().map(ToString::to_string).collect();
            return Err(format!("failed to allocate all requested IPs: {}", texts.join(" ")));
        }
        let before = self.owners.clone();
        let mut given = Vec::new();
        for (index, wanted) in assigned.into_iter().enumerate() {
            match self.choose(owner, index, wanted) {
                Ok(address) => {
                    self.owners.insert(address.to_string(), owner.clone());
                    self.last[index] = Some(address);
                    given.push(address);
                }
                Err(problem) => {
                    self.owners = before;
                    return Err(format!("failed to allocate for range {index}: {problem}"));
                }
            }
        }
        Ok(given)
    }

    fn choose(&self, owner: &AttachmentId, index: usize, wanted: Option<IpAddr>) -> Result<IpAddr, String> {
        let (slots, name) = (&self.sets[index], &self.names[index]);
        if let Some(address) = wanted {
            let slot = slots.iter().find(|slot| slot.address == address).unwrap();
            if slot.is_gateway {
                return Err(format!("requested ip {address} is subnet's gateway"));
            }
            if let Some(AttachmentId { container_id, ifname }) = self.owners.get(&address.to_string()) {
                return Err(format!(
                    "requested IP address {address} is not available in range set {name}: reserved for container \
                     {container_id}, interface {ifname}"
                ));
            }
            return Ok(address);
        }
        let is_here = |text: &str| slots.iter().any(|slot| slot.address.to_string() == text);
        if let Some((address, _)) = self.owners.iter().find(|(address, holder)| *holder == owner && is_here(address)) {
            let id = &owner.container_id;
            return Err(format!("{address} has been allocated to {id}, duplicate allocation is not allowed"));
        }
        let last = self.last[index].and_then(|last| slots.iter().position(|slot| slot.address == last));
        let start = last.map_or(0, |last| last + 1);
        let round = slots[start..].iter().chain(&slots[..start]);
        let free = round.into_iter().find(|slot| self.is_free(slot)).map(|slot| slot.address);
        free.ok_or_else(|| format!("no IP addresses available in range set: {name}"))
    }
}

#[derive(Clone, Debug)]
enum Call {
    Allocate { owner: u8, first_set_only: bool, wanted: Vec<Index> },
    Release { owner: u8 },
    Collect { valid: Vec<u8> },
}

/// The sets of a network.
#[derive(Clone, Debug)]
struct Network(Vec<Set>);

#[derive(Clone, Debug)]
struct Set(Vec<RangePlan>);

impl Set {
    fn ranges(&self) -> Vec<Range> {
        self.0.iter().map(RangePlan::range).collect()
    }
}

/// A range by numbers: hosts count from the address of the network.
#[derive(Clone, Copy, Debug)]
struct RangePlan {
    subnet: Subnet,
    first: Option<u8>,
    last: Option<u8>,
    gateway: Gateway,
}

#[derive(Clone, Copy, Debug)]
struct Subnet {
    ipv4: bool,
    prefix: u8,
    set: u8,
    place: u8,
}

#[derive(Clone, Copy, Debug)]
enum Gateway {
    Absent,
    Host(u8),
    Outside,
    OtherFamily,
}

impl Subnet {
    fn host(self, host: u8) -> IpAddr {
        if self.ipv4 {
            Ipv4Addr::new(10, self.set, self.place, host).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, self.set.into(), self.place.into(), 0, 0, 0, host.into()).into()
        }
    }

    fn size(self) -> u8 {
        let bits = if self.ipv4 { 32 } else { 128 };
        1 << (bits - self.prefix)
    }
}

impl RangePlan {
    /// The first and the last host.
    fn ends(&self) -> (u8, u8) {
        let default_last = if self.subnet.ipv4 { self.subnet.size() - 2 } else { self.subnet.size() - 1 };
        (self.first.unwrap_or(1), self.last.unwrap_or(default_last))
    }

    fn gateway(&self) -> IpAddr {
        match self.gateway {
            Gateway::Absent => self.subnet.host(1),
            Gateway::Host(host) => self.subnet.host(host),
            Gateway::Outside => Subnet { place: 200, ..self.subnet }.host(1),
            Gateway::OtherFamily => Subnet { ipv4: !self.subnet.ipv4, ..self.subnet }.host(1),
        }
    }

    fn range(&self) -> Range {
        let subnet = Cidr::new(self.subnet.host(0), self.subnet.prefix).unwrap();
        let host = |host: Option<u8>| host.map(|host| self.subnet.host(host));
        let gateway = (!matches!(self.gateway, Gateway::Absent)).then(|| self.gateway());
        Range::within(subnet, host(self.first), host(self.last), gateway).unwrap()
    }
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

fn attachment(owner: u8) -> AttachmentId {
    AttachmentId {
        container_id: format!("c{}", owner / 2),
        ifname: ["eth0", "net1"][usize::from(owner % 2)].to_owned(),
    }
}

fn call() -> impl Strategy<Value = Call> {
    let wanted = prop_oneof![3 => vec(any::<Index>(), 0..1), 1 => vec(any::<Index>(), 1..4)];
    let allocate = (owner(), prop::bool::weighted(0.3), wanted);
    prop_oneof![
        12 => allocate.prop_map(|(owner, first_set_only, wanted)| Call::Allocate { owner, first_set_only, wanted }),
        3 => owner().prop_map(|owner| Call::Release { owner }),
        1 => vec(owner(), 0..12).prop_map(|valid| Call::Collect { valid }),
    ]
}

fn owner() -> impl Strategy<Value = u8> {
    0_u8..12
}

fn network() -> impl Strategy<Value = Network> {
    (1_u8..=3).prop_flat_map(|count| (0..count).map(set).collect::<Vec<_>>()).prop_map(Network)
}

/// Up to two subnets of a family, each whole, a window of it, or two windows in either order.
fn set(set: u8) -> impl Strategy<Value = Set> {
    (any::<bool>(), 1_u8..=2)
        .prop_flat_map(move |(ipv4, subnets)| (0..subnets).map(|place| ranges(ipv4, set, place)).collect::<Vec<_>>())
        .prop_map(|ranges| Set(ranges.concat()))
}

fn ranges(ipv4: bool, set: u8, place: u8) -> impl Strategy<Value = Vec<RangePlan>> {
    let prefix = if ipv4 { 28..=29_u8 } else { 125..=125 };
    prefix.prop_flat_map(move |prefix| {
        let subnet = Subnet { ipv4, prefix, set, place };
        let end = subnet.size() - 1;
        // Not the broadcast address alone, whose range would end before it.
        let whole = (option::of(0..end), gateway(end))
            .prop_map(move |(first, gateway)| vec![RangePlan { subnet, first, last: None, gateway }]);
        let window = (0..=end).prop_flat_map(move |first| (Just(first), first..=end));
        let window = (window, gateway(end)).prop_map(move |((first, last), gateway)| {
            vec![RangePlan { subnet, first: Some(first), last: Some(last), gateway }]
        });
        let split = (1..=end, any::<bool>(), gateway(end), gateway(end));
        let split = split.prop_map(move |(middle, swapped, low_gateway, high_gateway)| {
            let low = RangePlan { subnet, first: Some(0), last: Some(middle - 1), gateway: low_gateway };
            let high = RangePlan { subnet, first: Some(middle), last: Some(end), gateway: high_gateway };
            if swapped { vec![high, low] } else { vec![low, high] }
        });
        prop_oneof![whole, window, split]
    })
}

fn gateway(end: u8) -> impl Strategy<Value = Gateway> {
    prop_oneof![
        2 => Just(Gateway::Absent),
        2 => (0..=end).prop_map(Gateway::Host),
        1 => Just(Gateway::Outside),
        1 => Just(Gateway::OtherFamily),
    ]
}
