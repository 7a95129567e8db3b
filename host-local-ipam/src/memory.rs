//! Reservations in memory, for tests and for programs that need none to last.

use std::{
    collections::{BTreeMap, HashMap, HashSet, btree_map::Entry},
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use multus_cni::{AttachmentId, NetworkName};

use crate::{
    AttachmentLock, Owner, Reservation, Reservations, Stage, Standing, Store, StoreError, range::successor,
    store::release_each,
};

/// Reservations that end with the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    networks: Mutex<BTreeMap<NetworkName, Network>>,
    attachments: Arc<Attachments>,
}

/// Those that somebody works on.
#[derive(Debug, Default)]
struct Attachments {
    locked: Mutex<HashSet<(NetworkName, AttachmentId)>>,
    unlocked: Condvar,
}

/// Lets others work on an attachment when it is dropped.
struct Turn {
    attachments: Arc<Attachments>,
    attachment: (NetworkName, AttachmentId),
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.attachments.locked().remove(&self.attachment);
        self.attachments.unlocked.notify_all();
    }
}

impl Attachments {
    fn locked(&self) -> MutexGuard<'_, HashSet<(NetworkName, AttachmentId)>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Network {
    owners: BTreeMap<IpAddr, Owner>,
    unfinished: HashSet<IpAddr>,
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
        Ok(Box::new(Locked { networks, network: network.clone(), attachments: &self.attachments }))
    }

    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        let networks = self.locked();
        if !networks.contains_key(network) {
            return Ok(None);
        }
        Ok(Some(Box::new(Locked { networks, network: network.clone(), attachments: &self.attachments })))
    }

    fn lock_attachment(&self, network: &NetworkName, attachment: &AttachmentId) -> Result<AttachmentLock, StoreError> {
        let attachment = (network.clone(), attachment.clone());
        let locked = self.attachments.locked();
        let free = self.attachments.unlocked.wait_while(locked, |locked| locked.contains(&attachment));
        free.unwrap_or_else(PoisonError::into_inner).insert(attachment.clone());
        Ok(AttachmentLock::new(Turn { attachments: Arc::clone(&self.attachments), attachment }))
    }

    fn lock_existing_attachment(
        &self,
        network: &NetworkName,
        attachment: &AttachmentId,
    ) -> Result<Option<AttachmentLock>, StoreError> {
        let is_known = self.locked().contains_key(network);
        is_known.then(|| self.lock_attachment(network, attachment)).transpose()
    }

    fn finish(&self, network: &NetworkName, addresses: &[IpAddr]) -> Result<(), StoreError> {
        if let Some(network) = self.locked().get_mut(network) {
            for address in addresses {
                network.unfinished.remove(address);
            }
        }
        Ok(())
    }

    fn networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        Ok(self.locked().keys().cloned().collect())
    }
}

struct Locked<'a> {
    networks: MutexGuard<'a, BTreeMap<NetworkName, Network>>,
    network: NetworkName,
    attachments: &'a Arc<Attachments>,
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

    fn try_lock_attachment(&mut self, attachment: &AttachmentId) -> Result<Option<AttachmentLock>, StoreError> {
        let attachment = (self.network.clone(), attachment.clone());
        let is_free = self.attachments.locked().insert(attachment.clone());
        Ok(is_free.then(|| AttachmentLock::new(Turn { attachments: Arc::clone(self.attachments), attachment })))
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

    /// All of them end with the process, and so with the boot.
    fn next_from_earlier_boot(&mut self, _first: IpAddr, _last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        Ok(None)
    }

    fn count(&mut self, first: IpAddr, last: IpAddr) -> Result<u64, StoreError> {
        if first > last {
            return Ok(0);
        }
        let count = self.network().owners.range(first..=last).count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn find(&mut self, address: IpAddr) -> Result<Option<Reservation>, StoreError> {
        let owner = self.network().owners.get(&address).cloned();
        Ok(owner.map(|owner| Reservation { address, owner }))
    }

    fn standing(&mut self, address: IpAddr) -> Result<Standing, StoreError> {
        let Network { owners, unfinished, .. } = self.network();
        Ok(match owners.contains_key(&address) {
            true if unfinished.contains(&address) => Standing::Unfinished,
            true => Standing::Finished,
            false => Standing::Unrecorded,
        })
    }

    fn adopt(&mut self, address: IpAddr, stage: Stage) -> Result<(), StoreError> {
        let unfinished = &mut self.network().unfinished;
        match stage {
            Stage::Unfinished => unfinished.insert(address),
            Stage::Finished => unfinished.remove(&address),
        };
        Ok(())
    }

    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId, stage: Stage) -> Result<bool, StoreError> {
        let Network { owners, addresses, unfinished, .. } = self.network();
        let Entry::Vacant(vacant) = owners.entry(address) else {
            return Ok(false);
        };
        let owner = Owner::from(owner);
        addresses.entry(owner.clone()).or_default().push(address);
        if stage == Stage::Unfinished {
            unfinished.insert(address);
        }
        vacant.insert(owner);
        Ok(true)
    }

    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        let Reservation { address, owner } = reservation;
        let Network { owners, addresses, unfinished, .. } = self.network();
        if owners.get(address) == Some(owner) {
            owners.remove(address);
            unfinished.remove(address);
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
