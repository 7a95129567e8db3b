//! From a master to our configuration.

use crate::{Error, Master};

/// Makes a configuration from a master.
pub trait Template: Send {
    /// The configuration.
    ///
    /// # Errors
    /// When the master cannot be served as the options want it.
    fn generate(&self, master: &Master) -> Result<Generated, Error>;
}

/// A configuration that was made from a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// One of [`FILE_NAMES`](Self::FILE_NAMES).
    pub file_name: &'static str,
    /// JSON on one line.
    pub content: Vec<u8>,
}

impl Generated {
    /// What the file of a single plugin is called, and that of a list.
    pub const FILE_NAMES: [&str; 2] = [Self::SINGLE, Self::LIST];
    pub(crate) const SINGLE: &str = "00-multus.conf";
    pub(crate) const LIST: &str = "00-multus.conflist";
    /// The network's name.
    pub(crate) const NETWORK: &str = "multus-cni-network";
}
