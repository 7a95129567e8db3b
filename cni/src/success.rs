//! The result of an ADD, as version 1.1.0 has it.

use std::net::IpAddr;

use crate::{Cidr, Error, FieldError, MacAddress, Object, Version, wire};

/// What an ADD made: interfaces, addresses, routes, name servers.
///
/// Always the newest version in memory; [`print`](Self::print) and [`parse`](Self::parse) are the only places where
/// older ones exist. See the [specification](https://github.com/containernetworking/cni/blob/main/SPEC.md#add-success).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// Links made, in order of their creation.
    pub interfaces: Vec<Interface>,
    /// Addresses given, in the order of the range sets.
    pub ips: Vec<IpConfig>,
    /// Routes asked for.
    pub routes: Vec<Route>,
    /// Name service.
    pub dns: Dns,
}

impl Success {
    /// The bytes a plugin prints for a configuration of `version`: indented by four spaces, without a final newline.
    ///
    /// # Errors
    /// [`Error::NoAddressToConvert`] for versions before 0.3.0, which cannot tell of an attachment without an address.
    pub fn print(&self, version: Version) -> Result<Vec<u8>, Error> {
        wire::print(self, version)
    }

    /// Whether [`print`](Self::print) can succeed: plan with it before making what cannot be told.
    #[must_use]
    pub fn is_printable(&self, version: Version) -> bool {
        version >= Version::V0_3_0 || !self.ips.is_empty()
    }

    /// Reads the result of a plugin that was given a configuration of `version`, which is also assumed where the
    /// result names none.
    ///
    /// # Errors
    /// When `bytes` is not an object, names a version nobody knows, or has fields of wrong types.
    pub fn parse(bytes: &[u8], version: Version) -> Result<Self, Error> {
        wire::parse(bytes, version)
    }

    /// Reads a `prevResult`, which must be of the same family of versions as its configuration.
    ///
    /// # Errors
    /// When it is of another family, or has fields of wrong types.
    pub fn from_previous(object: &Object<'_>, version: Version) -> Result<Self, Error> {
        wire::from_previous(object, version)
    }
}

/// A link in a result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name inside the sandbox.
    pub name: String,
    /// Its hardware address in text; empty when there is none. Text, since other plugins report other link types.
    pub mac: String,
    /// Its MTU in bytes, where the plugin tells.
    pub mtu: Option<u32>,
    /// The path of the network namespace it is in; empty for the host's.
    pub sandbox: String,
    /// A socket to the interface's owner.
    pub socket_path: String,
    /// The PCI address of the device behind it.
    pub pci_id: String,
}

impl Interface {
    /// A link named `name` with `mac` in the namespace `sandbox`.
    #[must_use]
    pub fn new(name: &str, mac: MacAddress, sandbox: &str) -> Self {
        Self { name: name.to_owned(), mac: mac.to_string(), sandbox: sandbox.to_owned(), ..Self::default() }
    }
}

/// An address in a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpConfig {
    /// The address with the prefix length of its network.
    pub address: Cidr,
    /// The next hop for routes that name none.
    pub gateway: Option<IpAddr>,
    /// The place in [`Success::interfaces`] of the link that bears the address.
    pub interface: Option<i64>,
}

/// A route in a result or a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub dst: Cidr,
    /// The next hop; absent means the gateway of the address of the same family.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes; 0 when not given.
    pub mtu: u32,
    /// TCP maximum segment size to advertise, in bytes; 0 when not given.
    pub advmss: u32,
    /// The metric: the lower wins; 0 when not given.
    pub priority: u32,
    /// The routing table; absent means main (254).
    pub table: Option<u32>,
    /// The scope, as in `/etc/iproute2/rt_scopes`; absent means global (0).
    pub scope: Option<u8>,
}

impl Route {
    /// A route to `dst` with nothing else said.
    #[must_use]
    pub fn new(dst: Cidr) -> Self {
        Self { dst, gw: None, mtu: 0, advmss: 0, priority: 0, table: None, scope: None }
    }

    /// Reads a route object, the same in results and in IPAM configurations.
    ///
    /// # Errors
    /// When `dst` is missing or no CIDR, or another field is of a wrong type.
    pub fn parse(object: &Object<'_>) -> Result<Self, Error> {
        wire::route(object)
    }
}

/// Name service settings, as in resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub nameservers: Vec<String>,
    /// The local domain.
    pub domain: String,
    /// Domains to search.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

impl Dns {
    /// Reads a `dns` object, the same in results and in configurations.
    ///
    /// # Errors
    /// When a field is of a wrong type.
    pub fn parse(object: &Object<'_>) -> Result<Self, FieldError> {
        wire::dns(object)
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
