//! The ranges that host-local has been asked to give addresses from.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use host_local_ipam::{HostLocal, Range, Usage, Watched};
use multus_cni::{Attachment, Error, Invocation, Pending, Plugin};
use tracing::debug;

/// More networks than a node has; the names come from those who may define networks.
const MOST_NETWORKS: usize = 1000;
/// Of each of them, and each is a series of metrics.
const MOST_RANGES: usize = 64;

/// host-local, and what it gave addresses from. Clones share that.
#[derive(Clone, Default)]
pub(crate) struct WatchedHostLocal {
    plugin: HostLocal,
    networks: Arc<Mutex<BTreeMap<String, Watched>>>,
}

impl WatchedHostLocal {
    fn note(&self, invocation: &Invocation, is_newest: bool) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        let name = invocation.config.name().as_str();
        let is_known = networks.contains_key(name);
        let is_noted = if is_known { is_newest } else { networks.len() < MOST_NETWORKS };
        if is_noted && let Ok(watched) = self.plugin.watched(invocation, MOST_RANGES) {
            networks.insert(name.to_owned(), watched);
        }
    }

    /// How much of each network's ranges is used. It waits for the locks of stores.
    pub(crate) fn usage(&self) -> Vec<(String, Range, Usage)> {
        let networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_network = |(name, watched): (String, Watched)| {
            let usage = self.plugin.usage(&watched).unwrap_or_else(|error| {
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
        // What cannot be used, such as a directory's name without end, is not kept.
        let added = self.plugin.add(attachment, invocation)?;
        self.note(invocation, true);
        Ok(added)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.plugin.del(attachment, invocation)?;
        // By the configuration of its ADD, which may be an old one.
        self.note(invocation, false);
        Ok(())
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
        self.plugin.del_with_interface(attachment, invocation, delete_interface)?;
        self.note(invocation, false);
        Ok(())
    }

    fn serializes_attachments(&self) -> bool {
        self.plugin.serializes_attachments()
    }
}

#[cfg(test)]
mod tests {
    use multus_cni::NetworkConfig;
    use serde_json::json;

    use super::*;

    fn invocation(directory: &std::path::Path, subnet: &str) -> Invocation {
        let config = json!({
            "cniVersion": "1.0.0", "name": "net", "ipam": {
                "type": "host-local", "dataDir": directory, "ranges": [[{"subnet": subnet}]],
            },
        });
        Invocation::new(NetworkConfig::parse(config.to_string()).unwrap())
    }

    /// What a network costs is the same whatever its author writes into it.
    #[test]
    fn of_a_configuration_little_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let watched = WatchedHostLocal::default();
        let ranges: Vec<_> = (0..100).map(|third| json!([{"subnet": format!("10.0.{third}.0/24")}])).collect();
        let config = |name: &str, data_dir: &str| {
            let ipam = json!({"type": "host-local", "dataDir": data_dir, "ranges": ranges});
            let config = json!({"cniVersion": "1.0.0", "name": name, "note": "x".repeat(1 << 20), "ipam": ipam});
            Invocation::new(NetworkConfig::parse(config.to_string()).unwrap())
        };
        let attachment =
            Attachment { container_id: "c1".parse().unwrap(), ifname: "net1".parse().unwrap(), netns: None };
        let long = format!("{}/{}", directory.path().display(), "x/".repeat(1 << 19));
        watched.add(&attachment, &config("long", &long)).unwrap_err();
        watched.add(&attachment, &config("net", directory.path().to_str().unwrap())).unwrap().keep();
        let kept = watched.networks.lock().unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["net"]);
        let length = format!("{kept:?}").len();
        assert!(length < 64 * 512, "{length}");
        drop(kept);
        assert_eq!(watched.usage().len(), MOST_RANGES);
    }

    #[test]
    fn the_del_of_an_old_pod_does_not_bring_its_range_back() {
        let directory = tempfile::tempdir().unwrap();
        let watched = WatchedHostLocal::default();
        let [old, new] = ["10.0.0.0/29", "10.0.0.0/24"].map(|subnet| invocation(directory.path(), subnet));
        let attachment =
            |id: &str| Attachment { container_id: id.parse().unwrap(), ifname: "net1".parse().unwrap(), netns: None };
        watched.add(&attachment("c1"), &old).unwrap().keep();
        watched.add(&attachment("c2"), &new).unwrap().keep();
        watched.del(&attachment("c1"), &old).unwrap();
        let ranges: Vec<String> = watched.usage().iter().map(|(_, range, _)| range.to_string()).collect();
        assert_eq!(ranges, ["10.0.0.1-10.0.0.254"]);
    }
}
