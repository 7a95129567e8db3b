//! Meta-plugins beneath themselves.

use crate::{Environment, Error, ErrorCode};

/// Of whatever a meta-plugin executes, and so of what that executes.
const MARK: &str = "MULTUS_ATTACHING";

/// A call of Multus by a plugin of a network that Multus attaches.
#[derive(Debug, thiserror::Error)]
#[error(
    "a plugin of a network calls Multus, as its IPAM or as a plugin of its own; Multus is for the runtime alone to call: name \
     another plugin in the network's configuration"
)]
struct Nested;

impl Environment {
    /// For what a meta-plugin executes: [`is_nested`](Self::is_nested) knows it again.
    #[must_use]
    pub fn marked_as_nested(&self) -> Self {
        let mark = (MARK.into(), "1".into());
        self.iter().cloned().chain([mark]).collect()
    }

    /// Whether a meta-plugin executed this process, or what did. To be a meta-plugin then is refused, but for a DEL, which has
    /// nothing to do: the configuration is that of a network, whose author must not say from where programs are executed.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.set(MARK).is_some()
    }

    /// Refuses to be a meta-plugin beneath one.
    ///
    /// # Errors
    /// That it [is so](Self::is_nested).
    pub fn refuse_nested(&self) -> Result<(), Error> {
        if self.is_nested() { Err(Error::from_plugin(ErrorCode::InvalidConfig, Nested)) } else { Ok(()) }
    }
}
