//! The kubelet's own record of allocated devices.

use std::{fs, path::PathBuf};

use multus_cni::{Document, FieldError, os_error_text};

use crate::{PodReference, PodResources, ResourceDevices};

/// The file `/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint`, for kubelets without a podresources socket.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
}

impl Checkpoint {
    /// Where the kubelet has it.
    pub const FILE: &str = "/var/lib/kubelet/device-plugins/kubelet_internal_checkpoint";

    /// The file at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self::new(Self::FILE)
    }
}

impl PodResources for Checkpoint {
    fn devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, String> {
        let path = &self.path;
        if pod.uid.is_empty() {
            return Err("the pod's UID is not known".to_owned());
        }
        let bytes =
            fs::read(path).map_err(|error| format!("error reading file {path:?}: {}", os_error_text(&error)))?;
        let document = Document::parse(&bytes).map_err(|error| format!("malformed checkpoint {path:?}: {error}"))?;
        read(&document, &pod.uid).map_err(|error| format!("malformed checkpoint {path:?}: {error}"))
    }
}

fn read(document: &Document, uid: &str) -> Result<Vec<ResourceDevices>, FieldError> {
    let root = document.root("").object()?;
    let Some(data) = root.object("Data")? else {
        return Err(FieldError::new("Data", "is missing"));
    };
    let mut devices = Vec::new();
    for entry in data.array("PodDeviceEntries")? {
        let entry = entry.object()?;
        if entry.string("PodUID")? != Some(uid) {
            continue;
        }
        let mut ids = Vec::new();
        // By NUMA node.
        if let Some(nodes) = entry.object("DeviceIDs")? {
            for node in nodes.items().filter(|node| !node.is_null()) {
                for id in node.array()? {
                    ids.push(id.string()?.to_owned());
                }
            }
        }
        let resource = entry.string("ResourceName")?.unwrap_or_default().to_owned();
        devices.push(ResourceDevices { resource, ids, is_claim: false });
    }
    Ok(devices)
}
