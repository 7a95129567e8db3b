//! Devices that the kubelet has allocated to a pod.

use std::collections::{BTreeMap, VecDeque};

use crate::{Error, PodReference};

/// Devices of one resource in one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceDevices {
    /// The resource, such as `intel.com/sriov`, or the name of a claim.
    pub resource: String,
    /// The devices' IDs, such as PCI addresses.
    pub ids: Vec<String>,
}

/// Whoever knows the devices of pods: the kubelet's podresources socket, or its [checkpoint](crate::Checkpoint).
pub trait PodResources: Send + Sync {
    /// The devices of `pod`, in the order of its containers; none for a pod that is not known.
    ///
    /// # Errors
    /// Why they are not known, as a clause.
    fn devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, String>;
}

/// Which devices of a pod its networks have not taken yet. The kubelet is asked when the first one is needed.
pub(crate) struct Allocations<'a> {
    resources: &'a dyn PodResources,
    pod: &'a PodReference,
    left: Option<BTreeMap<String, VecDeque<String>>>,
}

impl<'a> Allocations<'a> {
    pub(crate) fn new(resources: &'a dyn PodResources, pod: &'a PodReference) -> Self {
        Self { resources, pod, left: None }
    }

    /// The next device of `resource`; `None` when there is none left.
    pub(crate) fn next(&mut self, resource: &str) -> Result<Option<String>, Error> {
        if self.left.is_none() {
            let refused = |problem| Error::Devices { resource: resource.to_owned(), problem };
            self.left = Some(by_resource(self.resources.devices(self.pod).map_err(refused)?));
        }
        let left = self.left.as_mut().and_then(|left| left.get_mut(resource));
        Ok(left.and_then(VecDeque::pop_front))
    }
}

/// Containers keep their order. Within one, the kubelet's order means nothing and differs between calls.
fn by_resource(devices: Vec<ResourceDevices>) -> BTreeMap<String, VecDeque<String>> {
    let mut by_resource: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
    for ResourceDevices { resource, mut ids } in devices {
        ids.sort();
        by_resource.entry(resource).or_default().extend(ids);
    }
    by_resource
}
