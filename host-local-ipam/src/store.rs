//! What a store of reservations is.

use std::{io, net::IpAddr, path::PathBuf};

use multus_cni::{AttachmentId, NetworkName, os_error_text};

use crate::{AttachmentLock, Entry, Stage, Standing};

/// Keeps the reservations of networks.
///
/// Whatever changes reservations is done through [`lock`](Self::lock): without the lock there is nothing to call. Two
/// operations on one attachment are kept apart by [`lock_attachment`](Self::lock_attachment), which is taken first.
pub trait Store: Send + Sync {
    /// Waits for the network's lock, and makes the network where it does not exist yet. A thread that holds a lock of the
    /// store and waits for another one may wait for ever.
    ///
    /// # Errors
    /// When the lock cannot be had: then nothing may be read or written.
    fn lock(&self, network: &NetworkName) -> Result<Box<dyn Reservations + '_>, StoreError>;

    /// As [`lock`](Self::lock), but `None` for a network in which nothing was ever reserved, which is left so.
    ///
    /// # Errors
    /// When the lock cannot be had.
    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError>;

    /// Waits until nobody else works on the attachment, and holds others off until the lock is dropped. To be taken
    /// before the network's lock.
    ///
    /// # Errors
    /// When the lock cannot be had.
    fn lock_attachment(&self, network: &NetworkName, attachment: &AttachmentId) -> Result<AttachmentLock, StoreError>;

    /// As [`lock_attachment`](Self::lock_attachment), but `None` for a network in which nothing was ever reserved, which is
    /// left so.
    ///
    /// # Errors
    /// When the lock cannot be had.
    fn lock_existing_attachment(
        &self,
        network: &NetworkName,
        attachment: &AttachmentId,
    ) -> Result<Option<AttachmentLock>, StoreError>;

    /// Takes note that the ADD for which `addresses` were reserved is delivered. Needs no lock but the attachment's.
    ///
    /// # Errors
    /// When that cannot be recorded: then another ADD of the attachment gets the same addresses.
    fn finish(&self, network: &NetworkName, addresses: &[IpAddr]) -> Result<(), StoreError>;

    /// Every network that has reservations, or had, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn networks(&self) -> Result<Vec<NetworkName>, StoreError>;
}

/// The reservations of one network, held under its lock until dropped.
pub trait Reservations {
    /// Every reservation, in the order of the addresses' text.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn all(&mut self) -> Result<Vec<Reservation>, StoreError>;

    /// As [`Store::lock_attachment`], but `None` when somebody works on the attachment.
    ///
    /// # Errors
    /// When it cannot be told.
    fn try_lock_attachment(&mut self, attachment: &AttachmentId) -> Result<Option<AttachmentLock>, StoreError>;

    /// The first address from `first` to `last`, both included, that is free.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn next_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError>;

    /// The first address from `first` to `last`, both included, whose reservation was made before this machine started.
    /// Slow where there are many, since each is looked at.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn next_from_earlier_boot(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError>;

    /// How many addresses from `first` to `last`, both included, are taken.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn count(&mut self, first: IpAddr, last: IpAddr) -> Result<u64, StoreError>;

    /// The reservation of `address`.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn find(&mut self, address: IpAddr) -> Result<Option<Reservation>, StoreError>;

    /// How the reservation of `address` stands.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn standing(&mut self, address: IpAddr) -> Result<Standing, StoreError>;

    /// Reserves `address` for `owner`; `false` when it is taken.
    ///
    /// # Errors
    /// When the store cannot be written; then the address is not reserved.
    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId, stage: Stage) -> Result<bool, StoreError>;

    /// Makes a reservation that exists one of this boot, in this stage.
    ///
    /// # Errors
    /// When that cannot be recorded.
    fn adopt(&mut self, address: IpAddr, stage: Stage) -> Result<(), StoreError>;

    /// Ends a reservation. One that does not exist, or by now has another owner, is left as it is.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError>;

    /// The address last reserved from the range set at place `set`.
    fn last_reserved(&mut self, set: usize) -> Option<IpAddr>;

    /// Remembers the address last reserved from the range set at place `set`.
    ///
    /// # Errors
    /// When the store cannot be written.
    fn set_last_reserved(&mut self, set: usize, address: IpAddr) -> Result<(), StoreError>;

    /// What there is of `address`, reservation or not.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn entry(&mut self, address: IpAddr) -> Result<Option<Entry>, StoreError> {
        let Some(reservation) = self.find(address)? else {
            return Ok(None);
        };
        Ok(Some(Entry::of(reservation, self.standing(address)?)))
    }

    /// Calls `each` with everything that lies among the reservations, in the order of their names, and with how many are
    /// still to come. The store's own files are not among them.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn for_each_entry(&mut self, each: &mut dyn FnMut(Entry, usize)) -> Result<(), StoreError> {
        let all = self.all()?;
        let mut to_come = all.len();
        for reservation in all {
            to_come -= 1;
            let standing = self.standing(reservation.address)?;
            each(Entry::of(reservation, standing), to_come);
        }
        Ok(())
    }

    /// Compares what the store keeps besides the reservations, to find them quickly, with the reservations themselves, as
    /// they were when the network was locked. The addresses for which these disagree.
    ///
    /// # Errors
    /// When the reservations cannot be read.
    fn verify(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        Ok(Vec::new())
    }

    /// The addresses that `owner` holds, in the order of their text. One that was reserved before interfaces were recorded
    /// belongs to every interface of its container.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn held_by(&mut self, owner: &AttachmentId) -> Result<Vec<IpAddr>, StoreError> {
        let all = self.all()?;
        let held = all.iter().filter(|reservation| reservation.owner.is(owner) || reservation.owner.is_legacy(owner));
        Ok(held.map(|reservation| reservation.address).collect())
    }

    /// Ends every reservation of `owner`. Only where there is none, those that were made before interfaces were
    /// recorded end for its container.
    ///
    /// # Errors
    /// The first failure; the others were ended, all the same.
    fn release_all(&mut self, owner: &AttachmentId) -> Result<(), StoreError> {
        let (own, others): (Vec<_>, Vec<_>) =
            self.all()?.into_iter().partition(|reservation| reservation.owner.is(owner));
        let ended: Vec<Reservation> = if own.is_empty() {
            others.into_iter().filter(|reservation| reservation.owner.is_legacy(owner)).collect()
        } else {
            own
        };
        release_each(self, ended)
    }
}

/// Ends all of these, whatever becomes of each, and tells of the first failure.
pub(crate) fn release_each<R: Reservations + ?Sized>(
    reservations: &mut R,
    ended: impl IntoIterator<Item = Reservation>,
) -> Result<(), StoreError> {
    let mut result = Ok(());
    for reservation in ended {
        result = result.and(reservations.release(&reservation));
    }
    result
}

/// An address and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub address: IpAddr,
    /// Who has it.
    pub owner: Owner,
}

/// Who has an address, as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The container.
    pub container_id: String,
    /// Its interface; absent where the record is older than v0.8.0 of the Go plugin.
    pub ifname: Option<String>,
}

impl Owner {
    /// Whether this is the record of `attachment`.
    #[must_use]
    pub fn is(&self, attachment: &AttachmentId) -> bool {
        self.container_id == attachment.container_id.trim() && self.ifname.as_deref() == Some(&attachment.ifname)
    }

    /// Whether this is an old record of the container of `attachment`, without an interface.
    #[must_use]
    pub fn is_legacy(&self, attachment: &AttachmentId) -> bool {
        self.container_id == attachment.container_id.trim() && self.ifname.is_none()
    }
}

/// White space around a container's ID does not count.
impl From<&AttachmentId> for Owner {
    fn from(attachment: &AttachmentId) -> Self {
        Self { container_id: attachment.container_id.trim().to_owned(), ifname: Some(attachment.ifname.clone()) }
    }
}

impl Owner {
    /// The attachment that this is the record of; one of the whole container has no interface.
    #[must_use]
    pub fn attachment(&self) -> AttachmentId {
        AttachmentId { container_id: self.container_id.clone(), ifname: self.ifname.clone().unwrap_or_default() }
    }
}

/// A failure of a store: what was attempted on which file, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt} {path}: {}", os_error_text(.source))]
pub struct StoreError {
    /// What was attempted, such as `mkdir`.
    pub attempt: &'static str,
    /// On what.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}
