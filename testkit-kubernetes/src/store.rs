//! The objects and their past.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

/// A kind of object.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) resource: &'static str,
    pub(crate) api_version: &'static str,
    pub(crate) name: &'static str,
    /// Whether `status` is written on its own.
    pub(crate) has_status: bool,
}

/// The kinds that exist.
pub(crate) const KINDS: [Kind; 9] = [
    Kind { resource: "pods", api_version: "v1", name: "Pod", has_status: true },
    Kind { resource: "events", api_version: "v1", name: "Event", has_status: false },
    Kind {
        resource: "network-attachment-definitions",
        api_version: "k8s.cni.cncf.io/v1",
        name: "NetworkAttachmentDefinition",
        has_status: false,
    },
    Kind {
        resource: "certificatesigningrequests",
        api_version: "certificates.k8s.io/v1",
        name: "CertificateSigningRequest",
        has_status: true,
    },
    Kind { resource: "resourceclaims", api_version: "resource.k8s.io/v1", name: "ResourceClaim", has_status: true },
    Kind { resource: "resourceslices", api_version: "resource.k8s.io/v1", name: "ResourceSlice", has_status: false },
    Kind { resource: NAMESPACES, api_version: "v1", name: "Namespace", has_status: true },
    Kind { resource: "nodes", api_version: "v1", name: "Node", has_status: true },
    Kind {
        resource: "customresourcedefinitions",
        api_version: "apiextensions.k8s.io/v1",
        name: "CustomResourceDefinition",
        has_status: true,
    },
];

/// A namespace takes what is in it with it.
const NAMESPACES: &str = "namespaces";

/// Resource, namespace and name.
pub(crate) type Key = (&'static str, String, String);

/// A creation, a change or a removal.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: &'static str,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) version: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    changes: Vec<Change>,
    /// Changes up to this version are forgotten.
    pub(crate) forgotten: u64,
}

impl Store {
    pub(crate) fn find(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The objects of `resource` in `namespace`, or in all when that is empty.
    pub(crate) fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let is_wanted = |key: &Key| key.0 == resource && (namespace.is_empty() || key.1 == namespace);
        self.objects.iter().filter(|(key, _)| is_wanted(key)).map(|(_, object)| Arc::clone(object)).collect()
    }

    /// Puts `object` in place, with the next version; a new one gets what a server gives.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        let version = self.version;
        let before = self.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        metadata["name"] = key.2.as_str().into();
        if !key.1.is_empty() {
            metadata["namespace"] = key.1.as_str().into();
        }
        if before.is_none() {
            if metadata["uid"].as_str().is_none_or(str::is_empty) {
                metadata["uid"] = format!("{version:08x}-0000-4000-8000-000000000000").into();
            }
            metadata["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            metadata["managedFields"] = json!([{ "manager": "test", "operation": "Update", "fieldsV1": { "f:metadata": {
                "f:annotations": { ".": {}, "f:a": {}, "f:b": {} }, "f:labels": { ".": {}, "f:app": {} },
            } } }]);
        }
        let after = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&after));
        self.changes.push(Change { version, resource: key.0, before, after: Some(Arc::clone(&after)) });
        after
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let mut last = Value::clone(self.objects.remove(key)?.as_ref());
        self.version += 1;
        last["metadata"]["resourceVersion"] = self.version.to_string().into();
        let last = Arc::new(last);
        let before = Some(Arc::clone(&last));
        self.changes.push(Change { version: self.version, resource: key.0, before, after: None });
        if key.0 == NAMESPACES {
            let inside: Vec<Key> = self.objects.keys().filter(|other| other.1 == key.2).cloned().collect();
            for key in inside {
                self.remove(&key);
            }
        }
        Some(last)
    }

    /// What happened to objects of `resource` after `version`.
    pub(crate) fn changes(&self, resource: &str, version: u64) -> Vec<Change> {
        let from = self.changes.partition_point(|change| change.version <= version);
        self.changes[from..].iter().filter(|change| change.resource == resource).cloned().collect()
    }

    pub(crate) fn forget(&mut self) {
        self.forgotten = self.version;
        self.changes.clear();
    }
}
