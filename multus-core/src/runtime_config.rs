//! What is offered to plugins by capability.

use multus_cni::{Error, FieldError, Item, Object, RawObject};
use serde::Serialize;

/// The capability arguments that are known, see the
/// [conventions](https://github.com/containernetworking/cni.dev/blob/main/content/docs/conventions.md). What is empty is
/// not offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `portMappings`
    pub port_mappings: Vec<PortMapping>,
    /// `bandwidth`
    pub bandwidth: Option<Bandwidth>,
    /// `ips`: addresses, with or without a prefix length.
    pub ips: Vec<String>,
    /// `mac`
    pub mac: String,
    /// `infinibandGUID`
    pub infiniband_guid: String,
    /// `deviceID`
    pub device_id: String,
    /// `CNIDeviceInfoFile`: a path on the host.
    pub device_info_file: String,
}

/// A port of the host that leads to one of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port of the host.
    pub host_port: i64,
    /// The port of the sandbox.
    pub container_port: i64,
    /// `tcp`, `udp` or `sctp`; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The host's address; empty for all.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// Limits of a link: rates in bits per second, bursts in bits; 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Into the sandbox.
    pub ingress_rate: i64,
    /// Into the sandbox, at once.
    pub ingress_burst: i64,
    /// Out of the sandbox.
    pub egress_rate: i64,
    /// Out of the sandbox, at once.
    pub egress_burst: i64,
}

impl RuntimeConfig {
    /// Reads the `runtimeConfig` object of a configuration. Other keys are left out.
    ///
    /// # Errors
    /// When a known key is of a wrong type.
    pub fn parse(object: &Object<'_>) -> Result<Self, FieldError> {
        let text = |key| object.string(key).map(|text| text.unwrap_or_default().to_owned());
        Ok(Self {
            port_mappings: PortMapping::parse_all(object)?,
            bandwidth: Bandwidth::parse(object)?,
            ips: object.strings("ips")?,
            mac: text("mac")?,
            infiniband_guid: text("infinibandGUID")?,
            device_id: text("deviceID")?,
            device_info_file: text("CNIDeviceInfoFile")?,
        })
    }

    /// The arguments by capability.
    ///
    /// # Errors
    /// Never: text and numbers can be told in JSON.
    pub fn capability_args(&self) -> Result<RawObject, Error> {
        let mut args = RawObject::default();
        if !self.port_mappings.is_empty() {
            args.set("portMappings", &self.port_mappings)?;
        }
        if let Some(bandwidth) = &self.bandwidth {
            args.set("bandwidth", bandwidth)?;
        }
        if !self.ips.is_empty() {
            args.set("ips", &self.ips)?;
        }
        for (key, text) in [
            ("mac", &self.mac),
            ("infinibandGUID", &self.infiniband_guid),
            ("deviceID", &self.device_id),
            ("CNIDeviceInfoFile", &self.device_info_file),
        ] {
            if !text.is_empty() {
                args.set(key, text)?;
            }
        }
        Ok(args)
    }
}

impl PortMapping {
    /// Reads `portMappings` of `object`.
    pub(crate) fn parse_all(object: &Object<'_>) -> Result<Vec<Self>, FieldError> {
        let present = object.array("portMappings")?.into_iter().filter(|item| !item.is_null());
        present.map(|item| Self::parse(&item)).collect()
    }

    fn parse(item: &Item<'_>) -> Result<Self, FieldError> {
        let object = item.object()?;
        Ok(Self {
            host_port: object.integer("hostPort")?.unwrap_or(0),
            container_port: object.integer("containerPort")?.unwrap_or(0),
            protocol: object.string("protocol")?.unwrap_or_default().to_owned(),
            host_ip: object.string("hostIP")?.unwrap_or_default().to_owned(),
        })
    }
}

impl Bandwidth {
    /// Reads `bandwidth` of `object`.
    pub(crate) fn parse(object: &Object<'_>) -> Result<Option<Self>, FieldError> {
        let Some(object) = object.object("bandwidth")? else {
            return Ok(None);
        };
        let rate = |key| object.integer(key).map(Option::unwrap_or_default);
        Ok(Some(Self {
            ingress_rate: rate("ingressRate")?,
            ingress_burst: rate("ingressBurst")?,
            egress_rate: rate("egressRate")?,
            egress_burst: rate("egressBurst")?,
        }))
    }
}
