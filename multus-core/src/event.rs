//! Events about pods.

use multus_cni::Success;

use crate::Error;

/// An event, for `kubectl describe pod`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// How bad it is.
    pub kind: EventKind,
    /// One word for programs, such as `AddedInterface`.
    pub reason: &'static str,
    /// One sentence for people.
    pub message: String,
}

/// The type of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// Something happened.
    Normal,
    /// Something went wrong.
    Warning,
}

impl EventKind {
    /// The word in the API object.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

impl Event {
    /// That a delegate made `ifname`; `None` when it made nothing worth telling.
    #[must_use]
    pub fn added_interface(ifname: &str, success: &Success, network: &str) -> Option<Self> {
        if success.interfaces.is_empty() && success.ips.is_empty() {
            return None;
        }
        let addresses: Vec<String> = success.ips.iter().map(|ip| ip.address.to_string()).collect();
        let mut message = format!("Add {ifname} [{}]", addresses.join(" "));
        if !network.is_empty() {
            message.push_str(" from ");
            message.push_str(network);
        }
        Some(Self { kind: EventKind::Normal, reason: "AddedInterface", message })
    }

    /// That a network attachment definition was not found, where that is what `error` comes from.
    #[must_use]
    pub fn no_network_found(error: &Error) -> Option<Self> {
        let error = error.root();
        let is_missing = matches!(error, Error::NoDefinition { .. });
        is_missing.then(|| Self { kind: EventKind::Warning, reason: "NoNetworkFound", message: error.to_string() })
    }
}
