//! The configuration of multus-shim.

use std::collections::BTreeMap;

use multus_cni::{Document, FieldError, RawObject, Version};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    Error, Generated, Master, Template,
    master::{switches, versions},
};

/// Makes the configuration of multus-shim: it refers to the master by its path.
#[derive(Clone, Debug)]
pub struct Thick {
    output: Output,
}

/// In the order in which it is written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(skip_serializing_if = "String::is_empty")]
    bin_dir: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    capabilities: BTreeMap<String, bool>,
    cni_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    log_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    log_level: String,
    #[serde(skip_serializing_if = "is_false")]
    log_to_stderr: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_options: Option<Box<RawValue>>,
    name: &'static str,
    cluster_network: String,
    #[serde(skip_serializing_if = "is_false")]
    namespace_isolation: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    global_namespaces: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    cni_dir: String,
    #[serde(rename = "auxiliaryCNIChainName", skip_serializing_if = "String::is_empty")]
    auxiliary_chain: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    daemon_socket_dir: String,
    #[serde(skip_serializing_if = "is_false")]
    override_network_name: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_wait_seconds: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    daemon_spool_dir: String,
}

impl Thick {
    /// Reads the daemon's configuration.
    ///
    /// # Errors
    /// [`Error::Options`] with the first key that is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::read(bytes).map_err(Error::Options)
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let document = Document::parse(bytes)?;
        let view = document.root("").object().map_err(|_| "it must be a JSON object".to_owned())?;
        let told = |error: FieldError| error.to_string();
        let text = |key| view.string(key).map(|text| text.unwrap_or_default().to_owned()).map_err(told);
        let switch = |key| view.boolean(key).map(Option::unwrap_or_default).map_err(told);
        let raw = RawObject::parse(bytes).map_err(|error| error.to_string())?;
        let _is_object = view.object("logOptions").map_err(told)?;
        let output = Output {
            bin_dir: text("binDir")?,
            capabilities: switches(&raw, "capabilities")?,
            cni_version: text("cniVersion")?,
            log_file: text("logFile")?,
            log_level: text("logLevel")?,
            log_to_stderr: switch("logToStderr")?,
            log_options: raw.value("logOptions").map(RawValue::to_owned),
            name: Generated::NETWORK,
            cluster_network: String::new(),
            namespace_isolation: switch("namespaceIsolation")?,
            global_namespaces: text("globalNamespaces")?,
            r#type: "multus-shim",
            cni_dir: text("cniDir")?,
            auxiliary_chain: text("auxiliaryCNIChainName")?,
            daemon_socket_dir: text("daemonSocketDir")?,
            override_network_name: switch("overrideNetworkName")?,
            daemon_wait_seconds: view.integer("daemonWaitSeconds").map_err(told)?,
            daemon_spool_dir: text("daemonSpoolDir")?,
        };
        let version = &output.cni_version;
        Version::parse(version).map_err(|_| format!("\"cniVersion\" is {version:?}; {}", versions()))?;
        Ok(Self { output })
    }

    /// `cniVersion`; may be empty.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.output.cni_version
    }
}

impl Template for Thick {
    fn generate(&self, master: &Master) -> Result<Generated, Error> {
        let refused = |problem: String| Error::Master { path: master.path().to_owned(), problem };
        let (own, theirs) = (&self.output.cni_version, master.version());
        let found = master.known_version()?;
        let is_checked = Version::parse(own).is_ok_and(|own| own >= Version::V0_4_0);
        if is_checked && found < Version::V0_4_0 {
            return Err(refused(format!("delegate cni version is {theirs} while top level cni version is {own}")));
        }
        let Some(path) = master.path().to_str() else {
            return Err(refused("its path is not UTF-8".to_owned()));
        };
        let mut output = Output { cluster_network: path.to_owned(), ..self.output.clone() };
        let offered = master.capabilities().iter().filter(|(_, is_offered)| **is_offered);
        output.capabilities.extend(offered.map(|(name, _)| (name.clone(), true)));
        let content = serde_json::to_vec(&output).map_err(|error| refused(error.to_string()))?;
        Ok(Generated { file_name: Generated::SINGLE, content })
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}
