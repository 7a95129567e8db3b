//! Reservations in memory, for tests and for programs that need none to last.

use std::{
    collections::HashSet,
    io,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use multus_cni::{AttachmentId, NetworkName};

use crate::{AttachmentLock, Reservation, Reservations, Stage, Standing, Store, StoreError};

mod entries;
mod network;
mod order;
mod owners;

use network::Network;

/// Reservations that end with the process. A million of them take at most 64 MiB, if their containers' IDs are 64
/// hexadecimal digits, or at most 32 bytes of anything.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// In the order of their names; none is ever taken out.
    networks: Mutex<Vec<Network>>,
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

impl MemoryStore {
    /// A store without reservations.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Network>> {
        // No operation leaves a network in between two states, so a panic elsewhere spoils nothing.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn lock(&self, network: &NetworkName) -> Result<Box<dyn Reservations + '_>, StoreError> {
        let mut networks = self.locked();
        let place = place(&networks, network).unwrap_or_else(|place| {
            networks.insert(place, Network::new(network.clone()));
            place
        });
        Ok(Box::new(Locked { networks, place, attachments: &self.attachments }))
    }

    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        let networks = self.locked();
        let Ok(place) = place(&networks, network) else {
            return Ok(None);
        };
        Ok(Some(Box::new(Locked { networks, place, attachments: &self.attachments })))
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
        let is_known = place(&self.locked(), network).is_ok();
        is_known.then(|| self.lock_attachment(network, attachment)).transpose()
    }

    fn finish(&self, network: &NetworkName, addresses: &[IpAddr]) -> Result<(), StoreError> {
        let mut networks = self.locked();
        if let Some(network) = place(&networks, network).ok().and_then(|place| networks.get_mut(place)) {
            for address in addresses {
                network.set_stage(*address, Stage::Finished);
            }
        }
        Ok(())
    }

    fn networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        Ok(self.locked().iter().map(|network| network.name.clone()).collect())
    }
}

/// Where the network is, or else belongs.
fn place(networks: &[Network], name: &NetworkName) -> Result<usize, usize> {
    networks.binary_search_by(|network| network.name.cmp(name))
}

struct Locked<'a> {
    networks: MutexGuard<'a, Vec<Network>>,
    place: usize,
    attachments: &'a Arc<Attachments>,
}

impl Locked<'_> {
    #[allow(clippy::indexing_slicing, reason = "it was there when the networks were locked")]
    fn network(&mut self) -> &mut Network {
        &mut self.networks[self.place]
    }
}

impl Reservations for Locked<'_> {
    fn all(&mut self) -> Result<Vec<Reservation>, StoreError> {
        let mut all: Vec<Reservation> = self.network().all().collect();
        all.sort_by_cached_key(|reservation| reservation.address.to_string());
        Ok(all)
    }

    fn try_lock_attachment(&mut self, attachment: &AttachmentId) -> Result<Option<AttachmentLock>, StoreError> {
        let attachment = (self.network().name.clone(), attachment.clone());
        let is_free = self.attachments.locked().insert(attachment.clone());
        Ok(is_free.then(|| AttachmentLock::new(Turn { attachments: Arc::clone(self.attachments), attachment })))
    }

    fn next_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        Ok(self.network().next_free(first, last))
    }

    /// All of them end with the process, and so with the boot.
    fn next_from_earlier_boot(&mut self, _first: IpAddr, _last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        Ok(None)
    }

    fn count(&mut self, first: IpAddr, last: IpAddr) -> Result<u64, StoreError> {
        Ok(u64::try_from(self.network().count(first, last)).unwrap_or(u64::MAX))
    }

    fn find(&mut self, address: IpAddr) -> Result<Option<Reservation>, StoreError> {
        let owner = self.network().owner(address);
        Ok(owner.map(|owner| Reservation { address, owner }))
    }

    fn standing(&mut self, address: IpAddr) -> Result<Standing, StoreError> {
        Ok(match self.network().stage(address) {
            Some(Stage::Unfinished) => Standing::Unfinished,
            Some(Stage::Finished) => Standing::Finished,
            None => Standing::Unrecorded,
        })
    }

    fn adopt(&mut self, address: IpAddr, stage: Stage) -> Result<(), StoreError> {
        self.network().set_stage(address, stage);
        Ok(())
    }

    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId, stage: Stage) -> Result<bool, StoreError> {
        let full = || StoreError {
            attempt: "reserve in memory",
            path: address.to_string().into(),
            source: io::ErrorKind::OutOfMemory.into(),
        };
        self.network().reserve(address, owner, stage).ok_or_else(full)
    }

    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        let network = self.network();
        if network.owner(reservation.address).as_ref() == Some(&reservation.owner) {
            network.release(reservation.address);
        }
        Ok(())
    }

    /// Reservations in memory always have an interface.
    fn held_by(&mut self, owner: &AttachmentId) -> Result<Vec<IpAddr>, StoreError> {
        let mut held = self.network().held_by(owner);
        held.sort_by_cached_key(IpAddr::to_string);
        Ok(held)
    }

    fn release_all(&mut self, owner: &AttachmentId) -> Result<(), StoreError> {
        let network = self.network();
        for address in network.held_by(owner) {
            network.release(address);
        }
        Ok(())
    }

    fn last_reserved(&mut self, set: usize) -> Option<IpAddr> {
        self.network().last_reserved.get(&set).copied()
    }

    fn set_last_reserved(&mut self, set: usize, address: IpAddr) -> Result<(), StoreError> {
        self.network().last_reserved.insert(set, address);
        Ok(())
    }
}
