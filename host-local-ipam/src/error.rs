//! What can go wrong in giving an address.

use std::{io, net::IpAddr, path::PathBuf};

use multus_cni::{ErrorCode, FieldError, os_error_text, shortened};

use crate::{Owner, RangeError, StoreError};

/// A failure of the host-local plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the configuration, or `CNI_ARGS`, is malformed.
    #[error(transparent)]
    Protocol(#[from] multus_cni::Error),
    /// The configuration has no `ipam` object.
    #[error("IPAM config missing 'ipam' key")]
    MissingIpam,
    /// There is no range to allocate from.
    #[error("no IP ranges specified: give \"ipam.ranges\" or \"ipam.subnet\"")]
    NoRanges,
    /// A range set is not usable.
    #[error("invalid range set {index}: {source}")]
    RangeSet {
        /// Its place: ranges of the runtime, then `ipam.subnet`, then `ipam.ranges`.
        index: usize,
        /// What is wrong with it.
        source: RangeError,
    },
    /// Two range sets share addresses.
    #[error("range set {0} overlaps with {1}")]
    SetsOverlap(usize, usize),
    /// Two range sets of a family, in a version that knows one address of each.
    #[error("CNI version {0} does not support more than 1 address per family")]
    TooManyForVersion(String),
    /// A requested address that is none.
    #[error("invalid IP address {}{}", shortened(.text), place(.path))]
    RequestedAddress {
        /// What was given.
        text: String,
        /// The key it was given in; empty for `CNI_ARGS`.
        path: String,
    },
    /// The file of `resolvConf` could not be read.
    #[error("open {path}: {}", os_error_text(.source))]
    ResolvConf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A range set could not give an address.
    #[error("failed to allocate for range {set}: {source}")]
    Allocation {
        /// The place of the range set.
        set: usize,
        /// Why.
        source: Box<Self>,
    },
    /// Every address of a range set is reserved.
    #[error("no IP addresses available in range set: {0}")]
    Exhausted(String),
    /// The owner has an address of this range set already.
    #[error("{address} has been allocated to {container_id}, duplicate allocation is not allowed")]
    Duplicate {
        /// The address it has.
        address: IpAddr,
        /// The owner's container.
        container_id: String,
    },
    /// The requested address is that of the gateway.
    #[error("requested ip {0} is subnet's gateway")]
    RequestedGateway(IpAddr),
    /// The requested address is reserved.
    #[error("requested IP address {address} is not available in range set {set}{}", holder(.owner.as_ref()))]
    RequestedTaken {
        /// The address.
        address: IpAddr,
        /// The range set.
        set: String,
        /// Who has it; absent where that is not recorded.
        owner: Option<Owner>,
    },
    /// No range set, or none that had not served another request, contains these addresses.
    #[error("failed to allocate all requested IPs: {}", listed(.0))]
    RequestsLeft(Vec<IpAddr>),
    /// After a failure, something that had been reserved could not be released.
    #[error("{cause}; and releasing what had been reserved failed: {remains}")]
    NotUndone {
        /// The failure.
        cause: Box<Self>,
        /// Why the release failed.
        remains: StoreError,
    },
    /// CHECK: the owner has no reservation.
    #[error("host-local: Failed to find address added by container {0}")]
    NotReserved(String),
    /// CHECK: an address of `prevResult` is not reserved for the owner.
    #[error("host-local: address {address} is not reserved for container {container_id}, interface {ifname}")]
    NotReservedAddress {
        /// The address.
        address: IpAddr,
        /// The owner's container.
        container_id: String,
        /// The owner's interface.
        ifname: String,
    },
}

impl Error {
    /// The code of the CNI error object; as the Go plugin's, except for a full range set in STATUS.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol(error) => error.code(),
            Self::MissingIpam
            | Self::NoRanges
            | Self::RangeSet { .. }
            | Self::SetsOverlap(..)
            | Self::TooManyForVersion(_)
            | Self::RequestedAddress { .. }
            | Self::ResolvConf { .. }
            | Self::Store(_)
            | Self::Allocation { .. }
            | Self::Exhausted(_)
            | Self::Duplicate { .. }
            | Self::RequestedGateway(_)
            | Self::RequestedTaken { .. }
            | Self::RequestsLeft(_)
            | Self::NotUndone { .. }
            | Self::NotReserved(_)
            | Self::NotReservedAddress { .. } => ErrorCode::Internal,
        }
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::Protocol(error.into())
    }
}

impl From<Error> for multus_cni::Error {
    fn from(error: Error) -> Self {
        if let Error::Protocol(error) = error {
            return error;
        }
        let remains = matches!(error, Error::NotUndone { .. });
        let error = Self::from_plugin(error.code(), error);
        if remains { Self::NotUndone(Box::new(error)) } else { error }
    }
}

/// What is in the file is not known to be a container's ID.
fn holder(owner: Option<&Owner>) -> String {
    let Some(Owner { container_id, ifname }) = owner else {
        return String::new();
    };
    let ifname = ifname.as_ref().map(|ifname| format!(", interface {}", shortened(ifname).escape_debug()));
    format!(": reserved for container {}{}", shortened(container_id).escape_debug(), ifname.unwrap_or_default())
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" in {path:?}") }
}

fn listed(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(" ")
}
