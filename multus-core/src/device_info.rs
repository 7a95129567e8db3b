//! Device-info files, see the Device Information Specification 1.1.0 of the Network Plumbing Working Group.

use std::path::{Path, PathBuf};

use multus_cni::{AttachmentId, Document, WholeFile};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::{Error, error::malformed};

/// The directory of device-info files: device plugins write theirs in `dp`, network plugins in `cni`.
#[derive(Clone, Debug)]
pub struct DeviceInfoFiles {
    directory: PathBuf,
}

impl DeviceInfoFiles {
    /// Where the host has them, as every program that reads or writes them knows it.
    pub const DIRECTORY: &str = "/var/run/k8s.cni.cncf.io/devinfo";

    /// The files in `directory`, which is where this process sees [`DIRECTORY`](Self::DIRECTORY).
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The path on the host of the file for an attachment to `network`, as its plugin is told.
    #[must_use]
    pub fn path_for_plugin(network: &str, attachment: &AttachmentId) -> String {
        format!("{}/cni/{}", Self::DIRECTORY, file_name(network, attachment))
    }

    /// Copies what the device plugin wrote of `device` to the file for an attachment to `network`, in place of one that
    /// an earlier attachment left. Without a file of the device plugin nothing is done.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy(&self, resource: &str, device: &str, network: &str, attachment: &AttachmentId) -> Result<(), Error> {
        let name = format!("{resource}-{device}-device.json").replace('/', "-");
        let from = self.directory.join("dp").join(name);
        let Some(content) = WholeFile::new(&from).read().map_err(Error::io("reading file", &from))? else {
            return Ok(());
        };
        let to = self.path(network, attachment);
        WholeFile::new(&to)
            .with_mode(0o444)
            .in_directory(0o755)
            .replace(&content)
            .map_err(Error::io("writing file", to))
    }

    /// What the file for an attachment to `network` says; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] for a file that is no device information.
    pub fn read(&self, network: &str, attachment: &AttachmentId) -> Result<Option<DeviceInfo>, Error> {
        let path = self.path(network, attachment);
        let content = WholeFile::new(&path).read().map_err(Error::io("reading file", &path))?;
        let of_file = |error| Error::File { path: path.clone(), source: Box::new(error) };
        content.map(|content| DeviceInfo::parse(&content).map_err(of_file)).transpose()
    }

    /// Removes the file for an attachment to `network`, if there is one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, network: &str, attachment: &AttachmentId) -> Result<(), Error> {
        let path = self.path(network, attachment);
        WholeFile::new(&path).remove().map(drop).map_err(Error::io("removing file", path))
    }

    fn path(&self, network: &str, attachment: &AttachmentId) -> PathBuf {
        self.directory.join(Path::new("cni")).join(file_name(network, attachment))
    }
}

fn file_name(network: &str, attachment: &AttachmentId) -> String {
    format!("{network}-{}_{}", attachment.container_id, attachment.ifname).replace('/', "-")
}

/// What is known of the device behind an interface: the fields of the specification that are set, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo(Vec<(&'static str, Part)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Section(Vec<(&'static str, String)>),
}

const SECTIONS: [(&str, &[&str]); 4] = [
    ("pci", &["pci-address", "vhost-net", "rdma-device", "pf-pci-address", "representor-device"]),
    ("vdpa", &["parent-device", "driver", "path", "pci-address", "pf-pci-address", "representor-device"]),
    ("vhost-user", &["mode", "path"]),
    ("memif", &["role", "path", "mode"]),
];

impl DeviceInfo {
    /// Reads a device-info document. Fields that are not in the specification are left out.
    ///
    /// # Errors
    /// When it is not JSON, or a field is of a wrong type.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let document = Document::parse(bytes).map_err(|error| malformed("", format_args!("must be JSON: {error}")))?;
        let root = document.root("");
        let view = root.object().map_err(|_| malformed("", "must be a JSON object"))?;
        let mut parts = Vec::new();
        for key in ["type", "version"] {
            parts.extend(
                view.string(key)?.filter(|text| !text.is_empty()).map(|text| (key, Part::Text(text.to_owned()))),
            );
        }
        for (key, fields) in SECTIONS {
            let Some(section) = view.object(key)? else {
                continue;
            };
            let mut texts = Vec::new();
            for field in fields {
                texts.extend(
                    section.string(field)?.filter(|text| !text.is_empty()).map(|text| (*field, text.to_owned())),
                );
            }
            parts.push((key, Part::Section(texts)));
        }
        Ok(Self(parts))
    }
}

impl Serialize for DeviceInfo {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(parts) = self;
        let mut map = serializer.serialize_map(Some(parts.len()))?;
        for (key, part) in parts {
            map.serialize_entry(key, part)?;
        }
        map.end()
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Section(texts) => serializer.collect_map(texts.iter().map(|(key, text)| (key, text))),
        }
    }
}
