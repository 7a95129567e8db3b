//! What can go wrong in attaching to a macvlan network.

use std::path::PathBuf;

use multus_cni::{Cidr, ErrorCode, FieldError, shortened};
use multus_net::Error as NetError;

/// A failure of the macvlan plugin. The texts are those of the Go plugin, with what it leaves out added behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the configuration is malformed.
    #[error("failed to load netconf: {0}")]
    Config(#[source] FieldError),
    /// `CNI_ARGS` or `prevResult` is malformed, or the IPAM plugin failed.
    #[error(transparent)]
    Protocol(#[from] multus_cni::Error),
    /// A mode that macvlan does not have.
    #[error("unknown macvlan mode: {:?}; the modes are private, vepa, bridge, passthru, source", shortened(.0))]
    UnknownMode(String),
    /// A hardware address that is none, or that no link can have.
    #[error("invalid args {0} for MAC addr: address {0}: {problem}", shortened(.mac))]
    Mac {
        /// What was given.
        mac: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// No `master` in the configuration, and no default route to take it from.
    #[error("no default route interface found{}; name the interface in \"master\"", in_sandbox(*.in_container))]
    NoDefaultRoute {
        /// Whether the default route was looked for in the sandbox.
        in_container: bool,
    },
    /// There is no link of the parent's name.
    #[error(
        "master {:?} not found{}; interfaces here: {} (Link not found)",
        shortened(.name), in_sandbox(*.in_container), .present.join(", ")
    )]
    MasterNotFound {
        /// The name.
        name: String,
        /// Whether it was looked for in the sandbox.
        in_container: bool,
        /// The links there are.
        present: Vec<String>,
    },
    /// The parent could not be looked up.
    #[error("failed to lookup master {:?}: {source}", shortened(.name))]
    MasterLookup {
        /// Its name.
        name: String,
        /// Why.
        source: NetError,
    },
    /// An MTU beyond that of the parent.
    #[error("invalid MTU {mtu}, must be [0, master MTU({master_mtu})]")]
    Mtu {
        /// What was asked for.
        mtu: i64,
        /// What the parent has.
        master_mtu: u32,
    },
    /// The runtime gave no network namespace.
    #[error("no network namespace given: CNI_NETNS is empty")]
    NoNetns,
    /// The sandbox's network namespace could not be opened.
    #[error("failed to open netns {path:?}: {source}")]
    Netns {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: NetError,
    },
    /// The kernel does not make the link.
    #[error("failed to create macvlan: {source}{hint}")]
    Create {
        /// The kernel's word.
        source: NetError,
        /// What that mostly means here.
        hint: String,
    },
    /// The sandbox has an interface of that name.
    #[error(
        "failed to rename macvlan to {ifname:?}: file exists: the sandbox has an interface of that name; DEL removes it"
    )]
    NameTaken {
        /// The name.
        ifname: String,
        /// The index of the interface, when it is the link of an ADD that is under way or has died.
        unfinished: Option<u32>,
    },
    /// A temporary name could not be replaced.
    #[error("failed to rename macvlan to {ifname:?}: {source}")]
    Rename {
        /// The final name.
        ifname: String,
        /// Why.
        source: NetError,
    },
    /// The link is gone as soon as made.
    #[error("failed to refetch macvlan {0:?}: Link not found")]
    Vanished(String),
    /// The IPAM plugin succeeded, and gave nothing.
    #[error("IPAM plugin returned missing IP config")]
    NoAddress,
    /// IPv6 could not be enabled.
    #[error("failed to enable IPv6 for interface {interface:?}: {source}")]
    EnableIpv6 {
        /// On what.
        interface: String,
        /// Why.
        source: NetError,
    },
    /// An address was refused.
    #[error("failed to add IP addr {address} to {ifname:?}: {source}")]
    AddAddress {
        /// The address.
        address: Cidr,
        /// The link.
        ifname: String,
        /// Why.
        source: NetError,
    },
    /// The link cannot be set up.
    #[error("failed to set {ifname:?} UP: {source}{hint}")]
    SetUp {
        /// The link.
        ifname: String,
        /// Why.
        source: NetError,
        /// What that mostly means here.
        hint: String,
    },
    /// A neighbour has the address, or the kernel could not find out in time.
    #[error("failed to settle addresses for {ifname:?}: link {ifname} {problem}")]
    Settle {
        /// The link.
        ifname: String,
        /// Which address, and what about it.
        problem: String,
    },
    /// A route was refused.
    #[error("failed to add route '{route}': {source}")]
    AddRoute {
        /// The route.
        route: String,
        /// Why.
        source: NetError,
    },
    /// A link could not be deleted.
    #[error("failed to delete {ifname:?}: {source}")]
    Delete {
        /// The link.
        ifname: String,
        /// Why.
        source: NetError,
    },
    /// Another failure in talking to the kernel.
    #[error("{0}")]
    Net(#[from] NetError),
    /// Something failed, and then something else.
    #[error("{first}; and {second}")]
    Both {
        /// What failed first; its code is the one that counts.
        first: Box<Self>,
        /// What failed besides.
        second: Box<Self>,
    },
    /// CHECK without `prevResult`.
    #[error("required prevResult missing")]
    NoPreviousResult,
    /// CHECK: something is not as `prevResult` and configuration say.
    #[error("{0}")]
    Differs(String),
}

impl Error {
    /// The code of the CNI error object, as the Go plugin gives it: that of the IPAM plugin, or 999.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Protocol(error) => error.code(),
            Self::Both { first, .. } => first.code(),
            Self::Config(_)
            | Self::UnknownMode(_)
            | Self::Mac { .. }
            | Self::NoDefaultRoute { .. }
            | Self::MasterNotFound { .. }
            | Self::MasterLookup { .. }
            | Self::Mtu { .. }
            | Self::NoNetns
            | Self::Netns { .. }
            | Self::Create { .. }
            | Self::NameTaken { .. }
            | Self::Rename { .. }
            | Self::Vanished(_)
            | Self::NoAddress
            | Self::EnableIpv6 { .. }
            | Self::AddAddress { .. }
            | Self::SetUp { .. }
            | Self::Settle { .. }
            | Self::AddRoute { .. }
            | Self::Delete { .. }
            | Self::Net(_)
            | Self::NoPreviousResult
            | Self::Differs(_) => ErrorCode::Internal,
        }
    }

    /// What failed of two things that were both done.
    pub(crate) fn both(first: Result<(), Self>, second: Result<(), Self>) -> Result<(), Self> {
        match first {
            Ok(()) => second,
            Err(first) => Err(Self::with(first, second)),
        }
    }

    /// `first`, with `second` added where that failed too.
    pub(crate) fn with(first: Self, second: Result<(), Self>) -> Self {
        match second {
            Ok(()) => first,
            Err(second) => Self::Both { first: Box::new(first), second: Box::new(second) },
        }
    }
}

impl From<FieldError> for Error {
    fn from(error: FieldError) -> Self {
        Self::Config(error)
    }
}

impl From<Error> for multus_cni::Error {
    fn from(error: Error) -> Self {
        if let Error::Protocol(error) = error {
            return error;
        }
        let remains = matches!(error, Error::Both { .. });
        let error = Self::from_plugin(error.code(), error);
        if remains { Self::NotUndone(Box::new(error)) } else { error }
    }
}

fn in_sandbox(in_container: bool) -> &'static str {
    if in_container { " in the sandbox" } else { "" }
}
