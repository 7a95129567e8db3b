//! What was attached to each sandbox, kept for its DEL in the files and in the format of Multus.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use multus_cni::{ContainerId, Document, FieldError, Item, Object, RawObject, WholeFile, parse_ip};
use serde::Serialize;

use crate::{
    Bandwidth, DefaultRoute, DefaultRoutes, Delegate, Error, InterfaceRequest, PortMapping, error::malformed,
    network_config,
};

/// The scratch cache: a directory with a file for each sandbox, named by its container ID.
#[derive(Clone, Debug)]
pub struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    /// The files in `directory`, [`Config::cni_dir`](crate::Config::cni_dir).
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Remembers the delegates of a sandbox, in place of those that were.
    ///
    /// # Errors
    /// [`Error::Io`]; then the old ones are still there.
    pub fn save(&self, container: &ContainerId, delegates: &[Delegate]) -> Result<(), Error> {
        let path = self.path(container);
        let entries: Vec<Entry<'_>> = delegates.iter().map(Entry::new).collect();
        let written = serde_json::to_vec(&entries).map_err(io::Error::from);
        let written = written.and_then(|bytes| WholeFile::new(&path).in_directory(0o700).durable().replace(&bytes));
        written.map_err(Error::io("writing file", path))
    }

    /// The delegates of a sandbox, the first one first; `None` when nothing is remembered.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] when the file is malformed.
    pub fn load(&self, container: &ContainerId) -> Result<Option<Vec<Delegate>>, Error> {
        let path = self.path(container);
        let Some(bytes) = WholeFile::new(&path).read().map_err(Error::io("reading file", &path))? else {
            return Ok(None);
        };
        let malformed = |error| Error::File { path, source: Box::new(error) };
        parse(&bytes).map(Some).map_err(malformed)
    }

    /// Forgets a sandbox.
    ///
    /// # Errors
    /// [`Error::Io`]. That nothing was remembered is none.
    pub fn remove(&self, container: &ContainerId) -> Result<(), Error> {
        let path = self.path(container);
        WholeFile::new(&path).remove().map(drop).map_err(Error::io("removing file", path))
    }

    /// The sandboxes that are remembered, in no order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn containers(&self) -> Result<Vec<ContainerId>, Error> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io("reading directory", &self.directory))?,
        };
        let mut containers = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("reading directory", &self.directory))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            let name = entry.file_name().into_string().ok().filter(|_| is_file);
            containers.extend(name.and_then(|name| name.parse::<ContainerId>().ok()));
        }
        Ok(containers)
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.directory.join(Path::new(container.as_str()))
    }
}

/// A delegate in the file. What Multus has no key for follows under keys that it passes over.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    conf: Conf<'a>,
    conf_list: ConfList<'a>,
    name: &'a str,
    #[serde(rename = "ifnameRequest", skip_serializing_if = "str::is_empty")]
    ifname: &'a str,
    #[serde(rename = "macRequest", skip_serializing_if = "str::is_empty")]
    mac: &'a str,
    #[serde(rename = "infinibandGUIDRequest", skip_serializing_if = "str::is_empty")]
    infiniband_guid: &'a str,
    #[serde(rename = "ipRequest", skip_serializing_if = "<[String]>::is_empty")]
    ips: &'a [String],
    #[serde(rename = "default-route", skip_serializing_if = "Option::is_none")]
    default_route: &'a Option<Vec<IpAddr>>,
    #[serde(rename = "IsFilterV4Gateway")]
    removes_ipv4: bool,
    #[serde(rename = "IsFilterV6Gateway")]
    removes_ipv6: bool,
    #[serde(rename = "deviceID", skip_serializing_if = "str::is_empty")]
    device_id: &'a str,
    #[serde(rename = "resourceName", skip_serializing_if = "str::is_empty")]
    resource_name: &'a str,
    bytes: String,
    #[serde(rename = "portMappings", skip_serializing_if = "<[PortMapping]>::is_empty")]
    port_mappings: &'a [PortMapping],
    #[serde(rename = "bandwidth", skip_serializing_if = "Option::is_none")]
    bandwidth: Option<Bandwidth>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Conf<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    cni_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfList<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    cni_version: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    /// What tells Multus that this is a list.
    plugins: Option<Vec<Conf<'a>>>,
}

impl<'a> Entry<'a> {
    fn new(delegate: &'a Delegate) -> Self {
        let Delegate { name, config, request, resource_name, device_id, default_routes } = delegate;
        let (version, network) = (config.version(), config.name().as_str());
        let plugin = |kind| Conf { cni_version: "", name: "", kind };
        let (conf, conf_list) = if config.is_single() {
            let kind = config.types().next().unwrap_or_default();
            (Conf { cni_version: version, name: network, kind }, ConfList { cni_version: "", name: "", plugins: None })
        } else {
            // Without one, Multus 4.3 would put its own, and lose most of the configuration on the way.
            let version = if version.is_empty() { "0.1.0" } else { version };
            let plugins = Some(config.types().map(plugin).collect());
            (plugin(""), ConfList { cni_version: version, name: network, plugins })
        };
        Self {
            conf,
            conf_list,
            name,
            ifname: request.ifname.as_ref().map(|name| name.as_str()).unwrap_or_default(),
            mac: request.mac.as_deref().unwrap_or_default(),
            infiniband_guid: request.infiniband_guid.as_deref().unwrap_or_default(),
            ips: &request.ips,
            default_route: &request.default_route,
            removes_ipv4: default_routes.ipv4 == DefaultRoute::Remove,
            removes_ipv6: default_routes.ipv6 == DefaultRoute::Remove,
            device_id: device_id.as_deref().unwrap_or_default(),
            resource_name: resource_name.as_deref().unwrap_or_default(),
            bytes: STANDARD.encode(config.bytes()),
            port_mappings: &request.port_mappings,
            bandwidth: request.bandwidth,
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<Delegate>, Error> {
    let document = Document::parse(bytes).map_err(|error| malformed("", format_args!("must be JSON: {error}")))?;
    let root = document.root("");
    let entries = root.array().map_err(|_| malformed("", "must be a list of delegates"))?;
    entries.iter().map(parse_entry).collect()
}

fn parse_entry(item: &Item<'_>) -> Result<Delegate, Error> {
    let entry = item.object().map_err(|_| FieldError::new(item.path(), "must be an object"))?;
    let text = |key| entry.string(key).map(|text| text.filter(|text| !text.is_empty()).map(str::to_owned));
    let gateways = entry.item("default-route").map(|list| gateways(&list)).transpose()?;
    let ifname = text("ifnameRequest")?.map(|name: String| name.parse()).transpose()?;
    let removes = |key| entry.boolean(key).map(Option::unwrap_or_default);
    let decide =
        |removes: bool, is_family: fn(&IpAddr) -> bool| match gateways.iter().flatten().copied().find(is_family) {
            Some(gateway) => DefaultRoute::Replace(gateway),
            None if removes => DefaultRoute::Remove,
            None => DefaultRoute::Keep,
        };
    let default_routes = DefaultRoutes {
        ipv4: decide(removes("IsFilterV4Gateway")?, IpAddr::is_ipv4),
        ipv6: decide(removes("IsFilterV6Gateway")?, IpAddr::is_ipv6),
    };
    let config = match whole_list(&entry)? {
        Some(list) => network_config::read(&list, &entry.path_of("CNINetworkConfigList"))?,
        None => network_config::read(&decoded(&entry, "Bytes")?, &entry.path_of("Bytes"))?,
    };
    Ok(Delegate {
        name: text("Name")?.unwrap_or_default(),
        config,
        request: InterfaceRequest {
            ifname,
            ips: entry.strings("ipRequest")?,
            mac: text("macRequest")?,
            infiniband_guid: text("infinibandGUIDRequest")?,
            port_mappings: PortMapping::parse_all(&entry)?,
            bandwidth: Bandwidth::parse(&entry)?,
            device_id: None,
            cni_args: None,
            default_route: gateways,
        },
        resource_name: text("resourceName")?,
        device_id: text("deviceID")?,
        default_routes,
    })
}

/// Multus 4.3 keeps only part of a list that comes from a file in `Bytes`, and the whole of each plugin here.
fn whole_list(entry: &Object<'_>) -> Result<Option<Vec<u8>>, Error> {
    let Some(list) = entry.object("CNINetworkConfigList")? else {
        return Ok(None);
    };
    let mut plugins = Vec::new();
    for plugin in list.array("Plugins")? {
        let plugin = plugin.object()?;
        let object = RawObject::parse(&decoded(&plugin, "Bytes")?);
        plugins.push(object.map_err(|_| FieldError::new(plugin.path_of("Bytes"), "must be an object"))?);
    }
    if plugins.is_empty() {
        return Ok(None);
    }
    let mut whole = RawObject::default();
    for (key, theirs) in [("cniVersion", "CNIVersion"), ("name", "Name")] {
        whole.set(key, list.string(theirs)?.unwrap_or_default())?;
    }
    for (key, theirs) in [("disableCheck", "DisableCheck"), ("disableGC", "DisableGC")] {
        if list.boolean(theirs)?.unwrap_or(false) {
            whole.set(key, &true)?;
        }
    }
    whole.set("plugins", &plugins)?;
    Ok(Some(whole.print()))
}

fn decoded(object: &Object<'_>, key: &str) -> Result<Vec<u8>, FieldError> {
    let malformed = || FieldError::new(object.path_of(key), "must be base64");
    let item = object.item(key).ok_or_else(|| FieldError::new(object.path_of(key), "is missing"))?;
    STANDARD.decode(item.string().map_err(|_| malformed())?).map_err(|_| malformed())
}

fn gateways(list: &Item<'_>) -> Result<Vec<IpAddr>, FieldError> {
    let read = |item: &Item<'_>| {
        let address = parse_ip(item.string()?);
        address.ok_or_else(|| FieldError::new(item.path(), "must be the address of a gateway"))
    };
    list.array()?.iter().map(read).collect()
}
