//! Reservations in memory, for tests and for programs that need none to last.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use multus_cni::{AttachmentId, NetworkName};

use crate::{Owner, Reservation, Reservations, Store, StoreError, range::successor, store::release_each};

/// Reservations that end with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    networks: Mutex<BTreeMap<NetworkName, Network>>,
}

#[derive(Debug, Default)]
struct Network {
    owners: BTreeMap<IpAddr, Owner>,
    /// The same by owner.
    addresses: HashMap<Owner, Vec<IpAddr>>,
    last_reserved: BTreeMap<usize, IpAddr>,
}

impl MemoryStore {
    /// A store without reservations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<NetworkName, Network>> {
        // No operation leaves the map in between two states, so a panic elsewhere spoils nothing.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn lock(&self, network: &NetworkName) -> Result<Box<dyn Reservations + '_>, StoreError> {
        let mut networks = self.locked();
        networks.entry(network.clone()).or_default();
        Ok(Box::new(Locked { networks, network: network.clone() }))
    }

    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        let networks = self.locked();
        if !networks.contains_key(network) {
            return Ok(None);
        }
        Ok(Some(Box::new(Locked { networks, network: network.clone() })))
    }
}

struct Locked<'a> {
    networks: MutexGuard<'a, BTreeMap<NetworkName, Network>>,
    network: NetworkName,
}

impl Locked<'_> {
    fn network(&mut self) -> &mut Network {
        self.networks.entry(self.network.clone()).or_default()
    }
}

impl Reservations for Locked<'_> {
    fn all(&mut self) -> Result<Vec<Reservation>, StoreError> {
        let reservation = |(address, owner): (&IpAddr, &Owner)| Reservation { address: *address, owner: owner.clone() };
        let mut all: Vec<Reservation> = self.network().owners.iter().map(reservation).collect();
        all.sort_by_cached_key(|reservation| reservation.address.to_string());
        Ok(all)
    }

    fn next_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        if first > last {
            return Ok(None);
        }
        let mut candidate = first;
        for taken in self.network().owners.range(first..=last).map(|(address, _)| *address) {
            if taken != candidate {
                break;
            }
            if taken == last {
                return Ok(None);
            }
            candidate = successor(taken);
        }
        Ok(Some(candidate))
    }

    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId) -> Result<bool, StoreError> {
        let Network { owners, addresses, .. } = self.network();
        let Entry::Vacant(vacant) = owners.entry(address) else {
            return Ok(false);
        };
        let owner = Owner::from(owner);
        addresses.entry(owner.clone()).or_default().push(address);
        vacant.insert(owner);
        Ok(true)
    }

    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        let Reservation { address, owner } = reservation;
        let Network { owners, addresses, .. } = self.network();
        if owners.get(address) == Some(owner) {
            owners.remove(address);
            if let Some(held) = addresses.get_mut(owner) {
                held.retain(|held| held != address);
                if held.is_empty() {
                    addresses.remove(owner);
                }
            }
        }
        Ok(())
    }

    /// Reservations in memory always have an interface.
    fn held_by(&mut self, owner: &AttachmentId) -> Result<Vec<IpAddr>, StoreError> {
        let mut held = self.network().addresses.get(&Owner::from(owner)).cloned().unwrap_or_default();
        held.sort_by_cached_key(IpAddr::to_string);
        Ok(held)
    }

    fn release_all(&mut self, owner: &AttachmentId) -> Result<(), StoreError> {
        let reservation = |address| Reservation { address, owner: owner.into() };
        let held = self.held_by(owner)?;
        release_each(self, held.into_iter().map(reservation))
    }

    fn last_reserved(&mut self, set: usize) -> Option<IpAddr> {
        self.network().last_reserved.get(&set).copied()
    }

    fn set_last_reserved(&mut self, set: usize, address: IpAddr) -> Result<(), StoreError> {
        self.network().last_reserved.insert(set, address);
        Ok(())
    }
}
