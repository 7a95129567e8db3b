//! What lies where the reservations of a network are.

use std::{ffi::OsString, net::IpAddr, time::SystemTime};

use crate::{Reservation, Standing};

/// One thing among the reservations of a network, for those who look after the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name; that of a reservation is its address.
    pub name: OsString,
    /// When its content was written; absent where nobody keeps that.
    pub modified: Option<SystemTime>,
    /// What it is.
    pub kind: EntryKind,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A reservation, and how it stands.
    Reservation(Reservation, Standing),
    /// An empty file, which a plugin left that was killed while it reserved this address. It reserves nothing.
    Torn(IpAddr),
    /// No reservation. The address that its name is, if it is one, cannot be given.
    Foreign,
}

impl Entry {
    /// The entry of a reservation in a store that does not keep when it was made.
    pub(crate) fn of(reservation: Reservation, standing: Standing) -> Self {
        let name = reservation.address.to_string().into();
        Self { name, modified: None, kind: EntryKind::Reservation(reservation, standing) }
    }
}
