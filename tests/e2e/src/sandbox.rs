//! A sandbox, as its runtime tells of it.

use std::path::PathBuf;

use testkit::Netns;

/// A sandbox that runs.
#[derive(Debug)]
pub struct Sandbox {
    pub(crate) id: String,
    pub(crate) netns: PathBuf,
    /// The address that the runtime tells the kubelet.
    pub ip: String,
}

impl Sandbox {
    /// Its network, which lives as long as this is held.
    #[must_use]
    pub fn netns(&self) -> Netns {
        Netns::open(self.netns.clone())
    }

    /// Whether the runtime still has its network.
    #[must_use]
    pub fn has_network(&self) -> bool {
        self.netns.exists()
    }
}
