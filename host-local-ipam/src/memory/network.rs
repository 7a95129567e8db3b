//! The reservations of one network.

use std::{collections::BTreeMap, net::IpAddr};

use multus_cni::{AttachmentId, NetworkName};

use super::{
    entries::{Entries, Entry},
    order::Order,
    owners::Owners,
};
use crate::{Owner, Reservation, Stage};

/// Each reservation is an entry, found by its owner there and by its address here.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) name: NetworkName,
    pub(super) last_reserved: BTreeMap<usize, IpAddr>,
    entries: Entries,
    order: Order,
    owners: Owners,
}

impl Network {
    /// A network without reservations.
    pub(super) fn new(name: NetworkName) -> Self {
        Self {
            name,
            last_reserved: BTreeMap::new(),
            entries: Entries::default(),
            order: Order::default(),
            owners: Owners::default(),
        }
    }

    /// All, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = Reservation> {
        self.entries.iter().map(|entry| Reservation { address: entry.address, owner: self.owners.unpack(&entry.owner) })
    }

    pub(super) fn next_free(&self, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        self.order.next_free(first, last, |place| self.entries.address(place))
    }

    pub(super) fn count(&self, first: IpAddr, last: IpAddr) -> usize {
        self.order.count(first, last, |place| self.entries.address(place))
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<Owner> {
        Some(self.owners.unpack(&self.entry(address)?.owner))
    }

    pub(super) fn stage(&self, address: IpAddr) -> Option<Stage> {
        Some(self.entry(address)?.stage)
    }

    pub(super) fn set_stage(&mut self, address: IpAddr, stage: Stage) {
        if let Some(entry) = self.place(address).and_then(|place| self.entries.get_mut(place)) {
            entry.stage = stage;
        }
    }

    /// Adds a reservation; `false` when the address is taken, `None` when there is no place for one.
    pub(super) fn reserve(&mut self, address: IpAddr, attachment: &AttachmentId, stage: Stage) -> Option<bool> {
        let Err(position) = self.order.find(address, |place| self.entries.address(place)) else {
            return Some(false);
        };
        let owner = self.owners.pack(attachment);
        let Some(place) = self.entries.insert(address, owner, stage) else {
            self.owners.forget(owner);
            return None;
        };
        self.order.insert(position, address, place, |place| self.entries.address(place));
        Some(true)
    }

    pub(super) fn release(&mut self, address: IpAddr) {
        let Some(place) = self.order.remove(address, |place| self.entries.address(place)) else {
            return;
        };
        if let Some(entry) = self.entries.remove(place) {
            self.owners.forget(entry.owner);
        }
    }

    /// The addresses of one owner, in no order.
    pub(super) fn held_by(&self, attachment: &AttachmentId) -> Vec<IpAddr> {
        let owner = self.owners.find(attachment);
        owner.into_iter().flat_map(|owner| self.entries.of(owner)).map(|entry| entry.address).collect()
    }

    fn entry(&self, address: IpAddr) -> Option<&Entry> {
        self.entries.get(self.place(address)?)
    }

    fn place(&self, address: IpAddr) -> Option<u32> {
        self.order.find(address, |place| self.entries.address(place)).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn many_reservations_are_kept_apart_by_address_and_by_owner() {
        let reserved = vec((0..4000_u16, any::<bool>(), 0..300_u16, any::<bool>()), 0..3000);
        proptest!(ProptestConfig::with_cases(32), |(reserved in reserved, released in vec(0..4000_u16, 0..3000))| {
            let mut network = Network::new("storage".parse().unwrap());
            let mut expected: BTreeMap<IpAddr, (Owner, Stage)> = BTreeMap::new();
            for (address, ipv4, number, finished) in reserved {
                let (address, owner) = (at(address, ipv4), owner(number));
                let stage = if finished { Stage::Finished } else { Stage::Unfinished };
                let is_free = !expected.contains_key(&address);
                prop_assert_eq!(network.reserve(address, &owner, stage), Some(is_free));
                if is_free {
                    expected.insert(address, ((&owner).into(), stage));
                }
            }
            for address in released {
                network.release(at(address, address % 2 == 0));
                expected.remove(&at(address, address % 2 == 0));
            }
            let mut all: Vec<(IpAddr, Owner)> = network.all().map(|one| (one.address, one.owner)).collect();
            all.sort_unstable_by_key(|(address, _)| *address);
            let owners = expected.iter().map(|(address, (owner, _))| (*address, owner.clone()));
            prop_assert_eq!(all, owners.collect::<Vec<_>>());
            for (address, (owner, stage)) in &expected {
                prop_assert_eq!(network.owner(*address), Some(owner.clone()));
                prop_assert_eq!(network.stage(*address), Some(*stage));
            }
            for owner in (0..300).map(owner) {
                let mut held = network.held_by(&owner);
                held.sort_unstable();
                let of_owner = expected.iter().filter(|(_, (holder, _))| holder.is(&owner));
                prop_assert_eq!(held, of_owner.map(|(address, _)| *address).collect::<Vec<_>>());
            }
        });
    }

    fn at(number: u16, ipv4: bool) -> IpAddr {
        if ipv4 {
            Ipv4Addr::from_bits(number.into()).into()
        } else {
            // Some beside one another, some not.
            Ipv6Addr::from_bits(u128::from(number) * u128::from(number / 1000)).into()
        }
    }

    /// Some with digits, some short, some long.
    fn owner(number: u16) -> AttachmentId {
        let container_id = match number % 3 {
            0 => format!("{number:064x}"),
            1 => format!("c{number}"),
            _ => format!("sandbox-{number:064}"),
        };
        AttachmentId { container_id, ifname: format!("net{}", number % 2) }
    }
}
