//! The configuration of multus, the program that does all in its own process.

use std::collections::BTreeMap;

use multus_cni::{RawObject, Version};
use serde::Serialize;

use crate::{Error, Generated, Master, Template, master::versions};

/// Makes the configuration of multus: it contains the master. Empty texts are left out.
#[derive(Clone, Debug, Default)]
pub struct Thin {
    /// What the master's `cniVersion` must be; empty for any.
    pub version: String,
    /// Whether it is made so where it is not.
    pub force_version: bool,
    /// Whether the network is called as the master's.
    pub override_network_name: bool,
    /// `namespaceIsolation`
    pub namespace_isolation: bool,
    /// `globalNamespaces`
    pub global_namespaces: String,
    /// Whether `logToStderr` is to be false; it is true by default.
    pub quiet: bool,
    /// `logLevel`: one of `panic`, `error`, `verbose`, `debug` in any letter case.
    pub log_level: String,
    /// `logFile`
    pub log_file: String,
    /// `binDir`
    pub bin_dir: String,
    /// `cniConf`, which upstream writes and nobody reads.
    pub cni_conf: String,
    /// `readinessindicatorfile`
    pub readiness_indicator_file: String,
    /// `kubeconfig`
    pub kubeconfig: String,
}

/// In the order in which it is written, as all of these.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Single<'a> {
    cni_version: &'a str,
    name: &'a str,
    #[serde(flatten)]
    plugin: Plugin<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    cni_version: &'a str,
    name: &'a str,
    plugins: [Plugin<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plugin<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    capabilities: &'a BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_isolation: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    global_namespaces: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_to_stderr: Option<bool>,
    #[serde(skip_serializing_if = "str::is_empty")]
    log_level: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    log_file: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    bin_dir: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    cni_conf: &'a str,
    #[serde(rename = "readinessindicatorfile", skip_serializing_if = "str::is_empty")]
    readiness_indicator_file: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kubeconfig: &'a str,
    delegates: [&'a RawObject; 1],
}

impl Thin {
    /// Checks what no master can change.
    ///
    /// # Errors
    /// [`Error::Options`] with what is wrong.
    pub fn verify(&self) -> Result<(), Error> {
        let levels = ["", "panic", "error", "verbose", "debug"];
        let (level, version) = (&self.log_level, &self.version);
        if !levels.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(Error::Options(format!("log level {level:?} is none of panic, error, verbose, debug")));
        }
        let unknown = |_| Error::Options(format!("CNI version is {version:?}; {}", versions()));
        Version::parse(version).map(drop).map_err(unknown)
    }
}

impl Template for Thin {
    fn generate(&self, master: &Master) -> Result<Generated, Error> {
        let refused = |problem: String| Error::Master { path: master.path().to_owned(), problem };
        let forced = match (self.version.as_str(), master.version()) {
            ("", "") => return Err(refused("\"cniVersion\" is missing".to_owned())),
            ("", _) => None,
            (wanted, found) if wanted == found => None,
            (wanted, _) if self.force_version => Some(master.clone().with_version(wanted)?),
            (wanted, found) => {
                return Err(refused(format!("\"cniVersion\" is {found:?}, but {wanted:?} is asked for")));
            }
        };
        let master = forced.as_ref().unwrap_or(master);
        let version = master.known_version()?;
        let name = match self.override_network_name {
            true if master.name().is_empty() => return Err(refused("\"name\" is missing".to_owned())),
            true => master.name(),
            false => Generated::NETWORK,
        };
        let log_level = self.log_level.to_ascii_lowercase();
        let plugin = Plugin {
            r#type: "multus",
            capabilities: master.capabilities(),
            namespace_isolation: self.namespace_isolation.then_some(true),
            global_namespaces: &self.global_namespaces,
            log_to_stderr: self.quiet.then_some(false),
            log_level: &log_level,
            log_file: &self.log_file,
            bin_dir: &self.bin_dir,
            cni_conf: &self.cni_conf,
            readiness_indicator_file: &self.readiness_indicator_file,
            kubeconfig: &self.kubeconfig,
            delegates: [master.content()],
        };
        let cni_version = version.as_str();
        let (file_name, content) = match version < Version::V1_0_0 {
            true => (Generated::SINGLE, serde_json::to_vec(&Single { cni_version, name, plugin })),
            false => (Generated::LIST, serde_json::to_vec(&List { cni_version, name, plugins: [plugin] })),
        };
        Ok(Generated { file_name, content: content.map_err(|error| refused(error.to_string()))? })
    }
}
