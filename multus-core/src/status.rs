//! What a pod's annotation says of its interfaces.

use std::net::IpAddr;

use multus_cni::{Dns, Interface, IpConfig, Success, go_json};
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::DeviceInfo;

/// One interface, as the annotation [`Pod::NETWORK_STATUS`](crate::Pod::NETWORK_STATUS) tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NetworkStatus {
    /// The network: `namespace/name` of its definition, or the `name` in its configuration.
    pub name: String,
    /// The interface's name in the sandbox.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Its addresses, without prefix lengths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// Its hardware address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU in bytes, where the plugin tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether this is the interface the runtime hears of.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub default: bool,
    /// Name service settings.
    #[serde(serialize_with = "serialize_dns")]
    pub dns: Dns,
    /// What is known of the device behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_info: Option<DeviceInfo>,
    /// The gateways of its default routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<IpAddr>,
}

impl NetworkStatus {
    /// The interfaces in the sandbox that `success` tells of, attached to `network`. Its routes are to be those there are
    /// in the end, see [`DefaultRoutes::apply`](crate::DefaultRoutes::apply). `is_master` says that this is the result
    /// the runtime gets.
    #[must_use]
    pub fn of(success: &Success, network: &str, is_master: bool, device_info: Option<&DeviceInfo>) -> Vec<Self> {
        let blank = Self {
            name: network.to_owned(),
            interface: String::new(),
            ips: Vec::new(),
            mac: String::new(),
            mtu: None,
            default: false,
            dns: success.dns.clone(),
            device_info: device_info.cloned(),
            gateway: gateways(success),
        };
        let [only] = success.interfaces.as_slice() else {
            return blank.of_several(success, is_master);
        };
        let named = if only.sandbox.is_empty() { blank } else { blank.with_interface(only) };
        vec![Self { ips: success.ips.iter().map(address).collect(), default: is_master, ..named }]
    }

    /// The value of the annotation.
    #[must_use]
    pub fn print(statuses: &[Self]) -> String {
        let elements: Vec<String> =
            statuses.iter().map(|status| String::from_utf8_lossy(&go_json(status)).into_owned()).collect();
        format!("[{}]", elements.join(","))
    }

    fn of_several(&self, success: &Success, is_master: bool) -> Vec<Self> {
        let index_of = |ip: &IpConfig| ip.interface.and_then(|index| usize::try_from(index).ok());
        let in_sandbox: Vec<(usize, &Interface)> =
            success.interfaces.iter().enumerate().filter(|(_, interface)| !interface.sandbox.is_empty()).collect();
        let first = in_sandbox.first().map(|(index, _)| *index);
        let last = in_sandbox.last().map(|(index, _)| *index);
        let with_gateway = success.ips.iter().filter(|ip| ip.gateway.is_some()).find_map(index_of);
        let default = is_master.then(|| with_gateway.or(first)).flatten();
        let status = |(index, interface): (usize, &Interface)| {
            let is_of =
                |ip: &&IpConfig| if ip.interface.is_some() { index_of(ip) == Some(index) } else { last == Some(index) };
            Self {
                ips: success.ips.iter().filter(is_of).map(address).collect(),
                default: default == Some(index),
                ..self.clone().with_interface(interface)
            }
        };
        in_sandbox.into_iter().map(status).collect()
    }

    fn with_interface(self, interface: &Interface) -> Self {
        Self { interface: interface.name.clone(), mac: interface.mac.clone(), mtu: interface.mtu, ..self }
    }
}

/// Of every default route; one without a gateway of its own goes through that of the first address of its family, as
/// plugins program it. One that has none at all needs none.
fn gateways(success: &Success) -> Vec<IpAddr> {
    let of_address =
        |ipv4: bool| success.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == ipv4);
    let default = success.routes.iter().filter(|route| route.dst.is_default());
    let gateway = default.filter_map(|route| route.gw.or_else(|| of_address(route.dst.address().is_ipv4())));
    gateway.map(|gateway| gateway.to_canonical()).collect()
}

fn address(ip: &IpConfig) -> IpAddr {
    ip.address.address().to_canonical()
}

fn serialize_dns<S: Serializer>(dns: &Dns, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    if !dns.nameservers.is_empty() {
        map.serialize_entry("nameservers", &dns.nameservers)?;
    }
    if !dns.domain.is_empty() {
        map.serialize_entry("domain", &dns.domain)?;
    }
    if !dns.search.is_empty() {
        map.serialize_entry("search", &dns.search)?;
    }
    if !dns.options.is_empty() {
        map.serialize_entry("options", &dns.options)?;
    }
    map.end()
}
