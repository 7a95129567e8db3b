//! The meta-plugin's own configuration.

use std::path::PathBuf;

use multus_cni::{Document, FieldError, NetworkConfigList, Object, RawObject, Success, Version};
use serde_json::value::RawValue;

use crate::{
    Error, RuntimeConfig,
    network_config::{self, array, check_standard_keys, object},
};

/// A configuration of type `multus`, or of a daemon's request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// `name`; may be empty.
    pub name: String,
    /// `cniVersion` as written; may be empty.
    pub version: String,
    /// `delegates`, or `clusterNetwork` and `defaultNetworks`.
    pub master: Master,
    /// `confDir`: where configurations are searched by name.
    pub conf_dir: PathBuf,
    /// `cniDir`: where the scratch cache and the results of delegates are kept.
    pub cni_dir: PathBuf,
    /// `binDir`: where plugins are searched first.
    pub bin_dir: PathBuf,
    /// `kubeconfig`: access to the API.
    pub kubeconfig: Option<PathBuf>,
    /// `namespaceIsolation`: pods may use their own namespace's networks, and those of
    /// [`global_namespaces`](Self::global_namespaces).
    pub namespace_isolation: bool,
    /// `globalNamespaces`
    pub global_namespaces: Vec<String>,
    /// `systemNamespaces`: their pods get no `defaultNetworks`.
    pub system_namespaces: Vec<String>,
    /// `multusNamespace`: where networks are that pods do not name.
    pub multus_namespace: String,
    /// `readinessindicatorfile`: nothing is attached before this file exists.
    pub readiness_indicator_file: Option<PathBuf>,
    /// `retryDeleteOnError`: what a failed DEL needs is kept.
    pub retry_delete_on_error: bool,
    /// `auxiliaryCNIChainName`: the directory of a last chain of plugins, beside the cluster network's file.
    pub auxiliary_chain: Option<String>,
    /// `runtimeConfig`: what the runtime offers.
    pub runtime_config: RuntimeConfig,
    /// `logFile`, `logLevel`, `logToStderr`, `logOptions`
    pub log: LogConfig,
}

/// Where the networks that every pod gets come from. The first is the one the runtime hears of.
#[derive(Clone, Debug)]
pub enum Master {
    /// `delegates`: at least one.
    Inline(Vec<NetworkConfigList>),
    /// References: to a network attachment definition, to a configuration by its name, or to a file or directory.
    Reference {
        /// `clusterNetwork`
        cluster_network: String,
        /// `defaultNetworks`
        default_networks: Vec<String>,
    },
}

/// Where to log what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogConfig {
    /// `logFile`; may be empty.
    pub file: String,
    /// `logLevel`: `panic`, `error`, `verbose` or `debug`; an unknown word is to be reported, and ignored.
    pub level: String,
    /// `logToStderr`; `None` when not given.
    pub to_stderr: Option<bool>,
    /// `logOptions.maxAge` in days.
    pub max_age: i64,
    /// `logOptions.maxSize` in megabytes.
    pub max_size: i64,
    /// `logOptions.maxBackups`: how many old files are kept.
    pub max_backups: i64,
    /// `logOptions.compress`: whether old files are compressed.
    pub compress: bool,
}

impl LogConfig {
    /// Reads the keys out of a configuration.
    ///
    /// # Errors
    /// The first key that is malformed.
    pub fn read(view: &Object<'_>) -> Result<Self, FieldError> {
        let options = view.object("logOptions")?;
        let number = |key, default| match &options {
            Some(options) => Ok(options.integer(key)?.unwrap_or(default)),
            None => Ok(default),
        };
        Ok(Self {
            file: view.string("logFile")?.unwrap_or_default().to_owned(),
            level: view.string("logLevel")?.unwrap_or_default().to_owned(),
            to_stderr: view.boolean("logToStderr")?,
            max_age: number("maxAge", 5)?,
            max_size: number("maxSize", 100)?,
            max_backups: number("maxBackups", 5)?,
            compress: options
                .as_ref()
                .map(|options| options.boolean("compress"))
                .transpose()?
                .flatten()
                .unwrap_or(true),
        })
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// The first key that is malformed, and when there is no network.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |error: &dyn ToString| Error::Config(error.to_string());
        let document = Document::parse(bytes).map_err(|error| malformed(&error))?;
        let view = document.root("").object().map_err(|_| malformed(&"it must be a JSON object"))?;
        let mut config = Self::read(&view).map_err(|error| malformed(&error))?;
        if let Master::Inline(delegates) = &mut config.master {
            *delegates = inline_delegates(bytes).map_err(|error| malformed(&error))?;
        }
        check_previous_result(&view, &config.version).map_err(|error| malformed(&error))?;
        match &config.master {
            Master::Inline(delegates) if delegates.is_empty() => Err(Error::NoNetworks),
            Master::Inline(_) | Master::Reference { .. } => Ok(config),
        }
    }

    /// Reads everything but the networks, of which there need not be any.
    ///
    /// # Errors
    /// The first key that is malformed.
    pub fn parse_settings(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |error: &dyn ToString| Error::Config(error.to_string());
        let document = Document::parse(bytes).map_err(|error| malformed(&error))?;
        let view = document.root("").object().map_err(|_| malformed(&"it must be a JSON object"))?;
        Self::read(&view).map_err(|error| malformed(&error))
    }

    fn read(view: &Object<'_>) -> Result<Self, FieldError> {
        check_standard_keys(view)?;
        let text = |key| view.string(key).map(Option::unwrap_or_default);
        let path = |key| Ok(Some(text(key)?).filter(|path| !path.is_empty()).map(PathBuf::from));
        let path_or = |key, default: &str| Ok(path(key)?.unwrap_or_else(|| PathBuf::from(default)));
        let switch = |key| Ok(view.boolean(key)?.unwrap_or(false));
        let runtime_config =
            view.item("runtimeConfig").map(|item| RuntimeConfig::parse(&object(&item)?)).transpose()?;
        let system_namespaces = view.item("systemNamespaces").map(|_| view.strings("systemNamespaces")).transpose()?;
        Ok(Self {
            name: text("name")?.to_owned(),
            version: text("cniVersion")?.to_owned(),
            master: master(view)?,
            conf_dir: path_or("confDir", "/etc/cni/multus/net.d")?,
            cni_dir: path_or("cniDir", "/var/lib/cni/multus")?,
            bin_dir: path_or("binDir", "/opt/cni/bin")?,
            kubeconfig: path("kubeconfig")?,
            namespace_isolation: switch("namespaceIsolation")?,
            global_namespaces: match text("globalNamespaces")? {
                "" => vec!["default".to_owned()],
                list => list.split(',').map(|namespace| namespace.trim().to_owned()).collect(),
            },
            system_namespaces: system_namespaces.unwrap_or_else(|| vec!["kube-system".to_owned()]),
            multus_namespace: Some(text("multusNamespace")?)
                .filter(|name| !name.is_empty())
                .unwrap_or("kube-system")
                .to_owned(),
            readiness_indicator_file: path("readinessindicatorfile")?,
            retry_delete_on_error: switch("retryDeleteOnError")?,
            auxiliary_chain: Some(text("auxiliaryCNIChainName")?).filter(|name| !name.is_empty()).map(str::to_owned),
            runtime_config: runtime_config.unwrap_or_default(),
            log: LogConfig::read(view)?,
        })
    }
}

/// References win over what is inline; an empty `clusterNetwork` is none.
fn master(view: &Object<'_>) -> Result<Master, FieldError> {
    let cluster_network = view.string("clusterNetwork")?.unwrap_or_default().to_owned();
    let default_networks = view.strings("defaultNetworks")?;
    if let Some(delegates) = view.item("delegates") {
        array(&delegates)?.iter().try_for_each(|delegate| object(delegate).map(drop))?;
    }
    Ok(match cluster_network.is_empty() {
        true => Master::Inline(Vec::new()),
        false => Master::Reference { cluster_network, default_networks },
    })
}

fn inline_delegates(bytes: &[u8]) -> Result<Vec<NetworkConfigList>, Error> {
    let document = RawObject::parse(bytes)?;
    let list = document.value("delegates").map_or("[]", RawValue::get);
    let delegates: Vec<Box<RawValue>> = serde_json::from_str(list).unwrap_or_default();
    let parse = |(index, raw): (usize, Box<RawValue>)| {
        network_config::read(raw.get().as_bytes(), &format!("delegates[{index}]"))
    };
    delegates.into_iter().enumerate().map(parse).collect()
}

/// It is not used, but one that cannot be read is refused.
fn check_previous_result(view: &Object<'_>, version: &str) -> Result<(), multus_cni::Error> {
    let Some(item) = view.item("prevResult") else {
        return Ok(());
    };
    Success::from_previous(&object(&item)?, Version::parse(version)?).map(drop)
}
