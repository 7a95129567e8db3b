//! What each case starts with.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::Netns;

/// A host with the parent link `ens32`, and a directory for files. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// The host's network namespace.
    pub host: Netns,
    // Dropped last, when nothing is bound to its files any more.
    directory: TempDir,
}

impl Lab {
    /// A fresh host. Its parent link `ens32` is up and has a carrier; the other end of the wire is `wire`.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Netns::new(directory.path().join("host"));
        host.ip("link set lo up");
        let lab = Self { host, directory };
        lab.add_parent("ens32", "wire");
        lab
    }

    /// Adds another parent link to the host.
    pub fn add_parent(&self, name: &str, other_end: &str) {
        self.host.ip(&format!("link add {name} type veth peer name {other_end}"));
        self.host.ip(&format!("link set {name} up"));
        self.host.ip(&format!("link set {other_end} up"));
    }

    /// A fresh container.
    #[must_use]
    pub fn container(&self, name: &str) -> Netns {
        Netns::new(self.path(name))
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the cases keep reservations.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.path("networks")
    }

    /// The reserved addresses of a network, sorted; empty when nothing was ever reserved.
    #[must_use]
    pub fn reserved(&self, network: &str) -> Vec<String> {
        reserved(&self.data_dir().join(network))
    }
}

impl Default for Lab {
    fn default() -> Self {
        Self::new()
    }
}

fn reserved(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut addresses: Vec<String> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
    addresses.sort();
    addresses
}
