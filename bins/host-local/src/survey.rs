//! What lies in the store, network by network. No lock is held any more when it has been seen.

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use host_local_ipam::{DiskStore, Entry, EntryKind, Owner, Reservation, Standing, Store};
use multus_cni::NetworkName;
use serde::Serialize;

use crate::{failure::Failure, output::printable, progress::Progress};

/// The store and where it is.
pub(crate) struct Place {
    pub(crate) store: DiskStore,
    pub(crate) data_dir: PathBuf,
}

/// What there is, in the order of the networks.
#[derive(Default)]
pub(crate) struct Survey {
    /// Sorted by address within a network.
    pub(crate) held: Vec<Held>,
    pub(crate) strays: Vec<Stray>,
}

/// A reservation.
pub(crate) struct Held {
    pub(crate) network: NetworkName,
    pub(crate) reservation: Reservation,
    pub(crate) standing: Standing,
    pub(crate) modified: Option<SystemTime>,
    /// Whether an ADD or a DEL of its attachment was under way.
    pub(crate) is_busy: bool,
}

/// Something else among the reservations.
pub(crate) struct Stray {
    pub(crate) network: NetworkName,
    pub(crate) name: OsString,
    pub(crate) is_torn: bool,
}

impl Place {
    /// The networks that are asked for: all, or the one that there must be.
    pub(crate) fn networks(&self, wanted: Option<&NetworkName>) -> Result<Vec<NetworkName>, Failure> {
        let all = self.store.networks()?;
        let Some(wanted) = wanted else {
            return Ok(all);
        };
        if all.contains(wanted) {
            return Ok(vec![wanted.clone()]);
        }
        let names: Vec<&str> = all.iter().map(NetworkName::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Failure::Refused(format!("there is no network {wanted} in {:?}, but {known}", self.data_dir)))
    }

    /// Everything in these networks.
    pub(crate) fn survey(&self, networks: &[NetworkName], progress: &mut Progress<'_>) -> Result<Survey, Failure> {
        let mut survey = Survey::default();
        for network in networks {
            let Some(mut reservations) = self.store.lock_existing(network)? else {
                continue;
            };
            let mut held = Vec::new();
            let mut done = 0;
            reservations.for_each_entry(&mut |entry, to_come| {
                done += 1;
                progress.show(network.as_str(), done, done + to_come, Instant::now());
                match Held::of(network, entry) {
                    Ok(one) => held.push(one),
                    Err(stray) => survey.strays.push(stray),
                }
            })?;
            for one in &mut held {
                one.is_busy = reservations.try_lock_attachment(&one.owner().attachment())?.is_none();
            }
            held.sort_by_key(|one| one.reservation.address);
            survey.held.append(&mut held);
        }
        Ok(survey)
    }
}

impl Held {
    /// An entry that is a reservation; any other is a stray.
    pub(crate) fn of(network: &NetworkName, entry: Entry) -> Result<Self, Stray> {
        let network = network.clone();
        let Entry { name, modified, kind } = entry;
        match kind {
            EntryKind::Reservation(reservation, standing) => {
                Ok(Self { network, reservation, standing, modified, is_busy: false })
            }
            EntryKind::Torn(_) => Err(Stray { network, name, is_torn: true }),
            EntryKind::Foreign => Err(Stray { network, name, is_torn: false }),
        }
    }

    /// Whether an entry is still this very reservation, of the same ADD.
    pub(crate) fn is(&self, entry: &Entry) -> bool {
        let same = matches!(&entry.kind, EntryKind::Reservation(reservation, standing)
            if *reservation == self.reservation && *standing == self.standing);
        same && entry.modified == self.modified
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.reservation.owner
    }

    /// How long it has been there; `None` where that is not known, or lies in the future.
    pub(crate) fn age(&self, now: SystemTime) -> Option<Duration> {
        now.duration_since(self.modified?).ok()
    }

    /// Who has it, for people.
    pub(crate) fn holder(&self) -> String {
        let Owner { container_id, ifname } = self.owner();
        let words = [Some(container_id), ifname.as_ref()].into_iter().flatten();
        words.map(|word| printable(word)).collect::<Vec<_>>().join(" ")
    }

    /// What JSON says of it.
    pub(crate) fn record(&self) -> Record<'_> {
        let Reservation { address, owner } = &self.reservation;
        Record {
            network: self.network.as_str(),
            address: address.to_string(),
            container_id: &owner.container_id,
            ifname: owner.ifname.as_deref(),
        }
    }
}

/// `10.1.2.3 of storage (c1 eth0)`.
impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} ({})", self.reservation.address, self.network, self.holder())
    }
}

/// A reservation as JSON has it, with the keys of CNI.
#[derive(Serialize)]
pub(crate) struct Record<'a> {
    network: &'a str,
    address: String,
    #[serde(rename = "containerID")]
    container_id: &'a str,
    ifname: Option<&'a str>,
}
