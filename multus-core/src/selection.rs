//! A network that a pod asks for.

use std::{fmt, net::IpAddr};

use multus_cni::{InterfaceName, RawObject};

use crate::{Bandwidth, PortMapping};

/// A reference to a network attachment definition, with wishes for the attachment.
#[derive(Clone, Debug)]
pub struct NetworkSelection {
    /// The definition's namespace.
    pub namespace: String,
    /// The definition's name.
    pub name: String,
    /// The wishes.
    pub request: InterfaceRequest,
}

impl fmt::Display for NetworkSelection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Wishes for one attachment.
#[derive(Clone, Debug, Default)]
pub struct InterfaceRequest {
    /// `interface`: its name in the sandbox.
    pub ifname: Option<InterfaceName>,
    /// `ips`: addresses, with or without a prefix length, as written.
    pub ips: Vec<String>,
    /// `mac`: a hardware address of 6, 8 or 20 bytes, as written.
    pub mac: Option<String>,
    /// `infiniband-guid`: as a hardware address.
    pub infiniband_guid: Option<String>,
    /// `portMappings`
    pub port_mappings: Vec<PortMapping>,
    /// `bandwidth`
    pub bandwidth: Option<Bandwidth>,
    /// `deviceID`
    pub device_id: Option<String>,
    /// `cni-args`, every value as written.
    pub cni_args: Option<RawObject>,
    /// `default-route`: gateways. An empty list says the same as none.
    pub default_route: Option<Vec<IpAddr>>,
}
