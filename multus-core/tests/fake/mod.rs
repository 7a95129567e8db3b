//! A cluster in memory, and devices by word of mouth.

#![allow(dead_code, reason = "no test needs all of it")]

use std::{collections::BTreeMap, sync::Mutex};

use multus_core::{
    Cluster, ClusterError, Event, NetworkAttachmentDefinition, Pod, PodReference, PodResources, ResourceDevices,
};

/// A cluster with what was put in, that remembers what it was told.
#[derive(Debug, Default)]
pub(crate) struct FakeCluster {
    pods: Vec<Pod>,
    networks: Vec<NetworkAttachmentDefinition>,
    /// By resource claims.
    pub(crate) claimed: Vec<ResourceDevices>,
    pub(crate) refuses_claims: bool,
    is_down: bool,
    refuses_statuses: bool,
    /// Events as `kubectl` shows them: type, reason and message.
    pub(crate) events: Mutex<Vec<String>>,
    /// Statuses by pod.
    pub(crate) statuses: Mutex<BTreeMap<String, String>>,
}

impl FakeCluster {
    pub(crate) fn with_pod(mut self, pod: Pod) -> Self {
        self.pods.push(pod);
        self
    }

    /// Adds a definition; `name` is `namespace/name`.
    pub(crate) fn with_network(self, name: &str, config: &str) -> Self {
        self.with_resource(name, config, None)
    }

    pub(crate) fn with_resource(mut self, name: &str, config: &str, resource: Option<&str>) -> Self {
        let (namespace, name) = name.split_once('/').unwrap();
        self.networks.push(NetworkAttachmentDefinition {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            config: config.to_owned(),
            resource_name: resource.map(str::to_owned),
        });
        self
    }

    pub(crate) fn that_is_down(mut self) -> Self {
        self.is_down = true;
        self
    }

    pub(crate) fn that_refuses_statuses(mut self) -> Self {
        self.refuses_statuses = true;
        self
    }

    fn reach(&self, attempt: String) -> Result<(), ClusterError> {
        match self.is_down {
            true => Err(ClusterError { attempt, source: "connection refused".into() }),
            false => Ok(()),
        }
    }
}

impl Cluster for FakeCluster {
    fn pod(&self, wanted: &PodReference) -> Result<Option<Pod>, ClusterError> {
        self.reach(format!("get pod {}/{}", wanted.namespace, wanted.name))?;
        let is_wanted =
            |pod: &&Pod| (&pod.reference.namespace, &pod.reference.name) == (&wanted.namespace, &wanted.name);
        Ok(self.pods.iter().find(is_wanted).cloned())
    }

    fn network(&self, namespace: &str, name: &str) -> Result<Option<NetworkAttachmentDefinition>, ClusterError> {
        self.reach(format!("get network-attachment-definition {namespace}/{name}"))?;
        let is_wanted = |network: &&NetworkAttachmentDefinition| network.namespace == namespace && network.name == name;
        Ok(self.networks.iter().find(is_wanted).cloned())
    }

    fn claimed_devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError> {
        let attempt = format!("pod {}/{}", pod.namespace, pod.name);
        match self.refuses_claims {
            true => Err(ClusterError { attempt, source: "forbidden".into() }),
            false => Ok(self.claimed.clone()),
        }
    }

    fn set_network_status(&self, pod: &PodReference, status: &str) -> Result<(), ClusterError> {
        let attempt = format!("patch pod {}/{}", pod.namespace, pod.name);
        if self.refuses_statuses {
            return Err(ClusterError { attempt, source: "forbidden".into() });
        }
        self.reach(attempt)?;
        self.statuses.lock().unwrap().insert(format!("{}/{}", pod.namespace, pod.name), status.to_owned());
        Ok(())
    }

    fn emit(&self, _: &PodReference, event: Event) {
        let text = format!("{} {} {}", event.kind.as_str(), event.reason, event.message);
        self.events.lock().unwrap().push(text);
    }
}

/// The devices of every pod: the resource and the IDs, container by container. A resource that begins with `claim:` is one.
#[derive(Debug, Default)]
pub(crate) struct FakeDevices(pub(crate) Vec<(&'static str, Vec<&'static str>)>);

pub(crate) fn devices(resource: &str, ids: &[&str]) -> ResourceDevices {
    let is_claim = resource.starts_with("claim:");
    let resource = resource.trim_start_matches("claim:").to_owned();
    ResourceDevices { resource, ids: ids.iter().map(|id| (*id).to_owned()).collect(), is_claim }
}

impl PodResources for FakeDevices {
    fn devices(&self, _: &PodReference) -> Result<Vec<ResourceDevices>, String> {
        Ok(self.0.iter().map(|(resource, ids)| devices(resource, ids)).collect())
    }
}
