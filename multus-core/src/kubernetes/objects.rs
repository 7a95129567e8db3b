//! The API objects, as far as they are read. Everything else in them is skipped, and never kept.

use std::collections::BTreeMap;

use kube::api::Request;
use serde::{Deserialize, de::DeserializeOwned};

use super::Error;
use crate::{NetworkAttachmentDefinition, Pod, PodReference};

/// A kind of object that copies are kept of.
pub(super) trait Object: Clone + DeserializeOwned + Send + 'static {
    /// What is kept of it.
    type Kept: Clone + Weight + Send + Sync + 'static;
    /// What one is called.
    const KIND: &str;
    /// The path of all of them.
    const PATH: &str;
    /// Whether metadata is all that is needed.
    const METADATA_ONLY: bool;

    fn metadata(&self) -> &Metadata;
    fn keep(self) -> Self::Kept;
}

/// What a copy costs, in bytes, where there may be too many of a kind to keep all.
pub(super) trait Weight {
    fn weight(&self) -> usize {
        0
    }
}

/// A node has some hundreds that run, and whoever may create pods may bind any number to it.
impl Weight for Pod {
    fn weight(&self) -> usize {
        let annotations = [&self.networks, &self.default_network];
        let names = self.reference.namespace.len() + self.reference.name.len() + self.reference.uid.len();
        names + annotations.into_iter().flatten().map(String::len).sum::<usize>()
    }
}

impl Weight for NetworkAttachmentDefinition {
    fn weight(&self) -> usize {
        let names = self.namespace.len() + self.name.len();
        names + self.config.len() + self.resource_name.as_ref().map_or(0, String::len)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodObject {
    pub(super) metadata: Metadata,
}

impl Object for PodObject {
    type Kept = Pod;
    const KIND: &str = "a pod";
    const PATH: &str = "/api/v1/pods";
    const METADATA_ONLY: bool = true;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn keep(self) -> Pod {
        let Metadata { namespace, name, uid, annotations, .. } = self.metadata;
        Pod::new(PodReference { namespace, name, uid }, &annotations.unwrap_or_default())
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct DefinitionObject {
    metadata: Metadata,
    spec: Option<Spec>,
}

#[derive(Clone, Debug, Deserialize)]
struct Spec {
    config: Option<String>,
}

impl Object for DefinitionObject {
    type Kept = NetworkAttachmentDefinition;
    const KIND: &str = "a network-attachment-definition";
    const PATH: &str = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions";
    const METADATA_ONLY: bool = false;

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn keep(self) -> NetworkAttachmentDefinition {
        let Metadata { namespace, name, annotations, .. } = self.metadata;
        let resource_name = annotations.and_then(|mut all| all.remove(NetworkAttachmentDefinition::RESOURCE_NAME));
        let config = self.spec.and_then(|spec| spec.config).unwrap_or_default();
        NetworkAttachmentDefinition { namespace, name, config, resource_name }
    }
}

#[derive(Debug, Deserialize)]
#[serde(bound = "")]
pub(super) struct List<T: Object> {
    pub(super) metadata: Metadata,
    pub(super) items: Option<Vec<T>>,
}

/// The pods of `namespace`, of which one is called `name`.
pub(super) fn pods(namespace: &str, name: &str) -> Result<Request, Error> {
    check("pod", name)?;
    check("namespace", namespace)?;
    Ok(Request::new(format!("/api/v1/namespaces/{namespace}/pods")))
}

/// The network attachment definitions of `namespace`, of which one is called `name`.
pub(super) fn definitions(namespace: &str, name: &str) -> Result<Request, Error> {
    check("network-attachment-definition", name)?;
    check("namespace", namespace)?;
    Ok(Request::new(format!("/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions")))
}

/// The events of `namespace`.
pub(super) fn events(namespace: &str) -> Result<Request, Error> {
    check("namespace", namespace)?;
    Ok(Request::new(format!("/api/v1/namespaces/{namespace}/events")))
}

/// Checks that `name` stays within its place in a path or a selector.
pub(super) fn check(kind: &'static str, name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    match name.starts_with(|first: char| first.is_ascii_alphanumeric()) && name.bytes().all(is_allowed) {
        true => Ok(()),
        false => Err(Error::Name { kind, name: name.chars().take(60).collect() }),
    }
}
