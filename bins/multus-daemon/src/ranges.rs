//! The ranges that host-local has been asked to give addresses from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use host_local_ipam::{HostLocal, Range, Usage};
use multus_cni::{Attachment, Error, Invocation, Pending, Plugin};
use tracing::debug;

/// More networks than a node has; the names come from those who may define networks.
const MOST_NETWORKS: usize = 1000;

/// host-local, and with what configurations it was called. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct WatchedHostLocal {
    plugin: HostLocal,
    networks: Arc<Mutex<BTreeMap<String, Invocation>>>,
}

impl WatchedHostLocal {
    fn note(&self, invocation: &Invocation) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let name = invocation.config.name().as_str();
        if networks.len() < MOST_NETWORKS || networks.contains_key(name) {
            networks.insert(name.to_owned(), invocation.clone());
        }
    }

    /// How much of each network's ranges is used. It waits for the locks of stores.
    pub(crate) fn usage(&self) -> Vec<(String, Range, Usage)> {
        let networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_network = |(name, invocation): (String, Invocation)| {
            let usage = self.plugin.usage(&invocation).unwrap_or_else(|error| {
                debug!(network = name, %error, "how much of its ranges is used cannot be told");
                Vec::new()
            });
            usage.into_iter().map(move |(range, usage)| (name.clone(), range, usage))
        };
        networks.into_iter().flat_map(of_network).collect()
    }
}

impl Plugin for WatchedHostLocal {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        self.note(invocation);
        self.plugin.add(attachment, invocation)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.note(invocation);
        self.plugin.del(attachment, invocation)
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.plugin.check(attachment, invocation)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Error> {
        self.plugin.status(invocation)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Error> {
        self.plugin.gc(invocation)
    }

    fn versions(&self, invocation: &Invocation) -> Result<Vec<String>, Error> {
        self.plugin.versions(invocation)
    }

    fn del_with_interface(
        &self,
        attachment: &Attachment,
        invocation: &Invocation,
        delete_interface: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        self.note(invocation);
        self.plugin.del_with_interface(attachment, invocation, delete_interface)
    }

    fn serializes_attachments(&self) -> bool {
        self.plugin.serializes_attachments()
    }
}
