//! Devices that a pod has been given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{Cluster, Error, PodReference, error::quoted};

/// Devices of one resource in one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceDevices {
    /// The resource, such as `intel.com/sriov`, or the name of a claim.
    pub resource: String,
    /// The devices' IDs, such as PCI addresses.
    pub ids: Vec<String>,
    /// Whether `resource` is the name of a claim. Then the IDs are names that its driver has made up for the runtime.
    pub is_claim: bool,
}

/// Whoever knows the devices of pods: the kubelet's podresources socket, or its [checkpoint](crate::Checkpoint).
pub trait PodResources: Send + Sync {
    /// The devices of `pod`, in the order of its containers; none for a pod that is not known.
    ///
    /// # Errors
    /// Why they are not known, as a clause.
    fn devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, String>;
}

/// Which devices of a pod its networks have not taken yet. Whoever knows of them is asked once, when
/// the first one is needed.
pub(crate) struct Allocations<'a> {
    resources: &'a dyn PodResources,
    cluster: Option<&'a dyn Cluster>,
    pod: &'a PodReference,
    allocated: Option<Result<Allocated, String>>,
    claimed: Option<Result<Left, String>>,
}

/// By the kubelet's word.
struct Allocated {
    devices: Left,
    claims: Left,
}

/// What is left, by resource.
#[derive(Default)]
struct Left(BTreeMap<String, VecDeque<String>>);

impl<'a> Allocations<'a> {
    pub(crate) fn new(
        resources: &'a dyn PodResources,
        cluster: Option<&'a dyn Cluster>,
        pod: &'a PodReference,
    ) -> Self {
        Self { resources, cluster, pod, allocated: None, claimed: None }
    }

    /// The next device of `resource`; `None` when there is none left.
    pub(crate) fn next(&mut self, resource: &str) -> Result<Option<String>, Error> {
        let next = self.find(resource).and_then(|id| id.map(usable).transpose());
        next.map_err(|problem| Error::Devices { resource: resource.to_owned(), problem })
    }

    /// Device plugins' first. Of a claim's device, what the API says is what a network plugin understands; what the kubelet
    /// says is for clusters whose API does not know.
    fn find(&mut self, resource: &str) -> Result<Option<String>, String> {
        let (resources, cluster, pod) = (self.resources, self.cluster, self.pod);
        let allocated = self.allocated.get_or_insert_with(|| resources.devices(pod).map(Allocated::new));
        let allocated = allocated.as_mut().map_err(|problem| problem.clone())?;
        if let Some(id) = allocated.devices.take(resource) {
            return Ok(Some(id));
        }
        let claimed = self.claimed.get_or_insert_with(|| match cluster.map(|cluster| cluster.claimed_devices(pod)) {
            Some(claimed) => claimed.map(Left::new).map_err(|error| error.to_string()),
            None => Ok(Left::default()),
        });
        match claimed.as_mut().map(|claimed| claimed.take(resource)) {
            Ok(Some(id)) => Ok(Some(id)),
            Ok(None) => Ok(allocated.claims.take(resource)),
            Err(problem) => allocated.claims.take(resource).map(Some).ok_or_else(|| problem.clone()),
        }
    }
}

impl Allocated {
    /// Containers keep their order. Within one, the kubelet's order means nothing and differs between calls.
    fn new(mut devices: Vec<ResourceDevices>) -> Self {
        devices.iter_mut().for_each(|devices| devices.ids.sort());
        let (claims, devices) = devices.into_iter().partition(|devices| devices.is_claim);
        Self { devices: Left::new(devices), claims: Left::new(claims) }
    }
}

impl Left {
    fn new(devices: Vec<ResourceDevices>) -> Self {
        let mut left: BTreeMap<String, VecDeque<String>> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for ResourceDevices { resource, ids, .. } in devices {
            // Containers may share a claim.
            let new = ids.into_iter().filter(|id| known.insert((resource.clone(), id.clone())));
            left.entry(resource.clone()).or_default().extend(new);
        }
        Self(left)
    }

    fn take(&mut self, resource: &str) -> Option<String> {
        self.0.get_mut(resource)?.pop_front()
    }
}

/// It becomes a value in a configuration and a part of a file's name.
fn usable(id: String) -> Result<String, String> {
    match id.is_empty() || id.len() > 253 || id.contains(char::is_control) {
        false => Ok(id),
        true => Err(format!("device ID {} must be 1 to 253 bytes without control characters", quoted(&id))),
    }
}
