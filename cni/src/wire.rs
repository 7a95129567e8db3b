//! Results in every version of the specification: the one place where the old ones live.
//!
//! Three families share a shape: 0.1.0 and 0.2.0; 0.3.0, 0.3.1 and 0.4.0; 1.0.0 and 1.1.0. The order of the keys is the
//! Go library's, since callers compare bytes: alphabetical in the last family, fixed in the others.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    Cidr, Dns, Error, FieldError, Interface, IpConfig, Item, Object, Route, Success, Version,
    json::{self, go_json},
    parse_ip, shortened,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Before03,
    Before10,
    Since10,
}

impl Family {
    fn of(version: Version) -> Self {
        match version {
            Version::V0_1_0 | Version::V0_2_0 => Self::Before03,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => Self::Before10,
            Version::V1_0_0 | Version::V1_1_0 => Self::Since10,
        }
    }

    fn members(self) -> &'static str {
        match self {
            Self::Before03 => " 0.1.0 0.2.0",
            Self::Before10 => "0.3.0 0.3.1 0.4.0",
            Self::Since10 => "1.0.0 1.1.0",
        }
    }
}

pub(crate) fn print(success: &Success, version: Version) -> Result<Vec<u8>, Error> {
    if !success.is_printable(version) {
        return Err(Error::NoAddressToConvert);
    }
    Ok(go_json(&Document::new(success, version)))
}

/// The result on one line. What a version cannot tell is left out, even all of it.
pub(crate) fn raw(success: &Success, version: Version) -> Result<Box<RawValue>, Error> {
    to_raw_value(&Document::new(success, version)).map_err(|error| Error::MalformedResult(error.to_string()))
}

#[derive(Serialize)]
#[serde(untagged)]
enum Document<'a> {
    Before03(before_0_3::Document<'a>),
    Before10(before_1_0::Document<'a>),
    Since10(since_1_0::Document<'a>),
}

impl<'a> Document<'a> {
    fn new(success: &'a Success, version: Version) -> Self {
        match Family::of(version) {
            Family::Before03 => Self::Before03(before_0_3::Document::new(success, version)),
            Family::Before10 => Self::Before10(before_1_0::Document::new(success, version)),
            Family::Since10 => Self::Since10(since_1_0::Document::new(success, version)),
        }
    }
}

pub(crate) fn parse(bytes: &[u8], assumed: Version) -> Result<Success, Error> {
    let malformed = |error| Error::MalformedResult(format!("failed to unmarshal raw result: {error}"));
    let value = json::parse(bytes).map_err(malformed)?;
    let empty = serde_json::Map::new();
    let entries = match value.as_object() {
        Some(entries) => entries,
        None if value.is_null() => &empty,
        None => return Err(malformed("a result is a JSON object".to_owned())),
    };
    let object = Object::root(entries);
    let version = match object.string("cniVersion")? {
        None | Some("") => assumed,
        Some(text) => Version::parse(text)
            .map_err(|_| Error::MalformedResult(format!("unsupported CNI result version {:?}", shortened(text))))?,
    };
    read(&object, Family::of(version))
}

pub(crate) fn from_previous(object: &Object<'_>, version: Version) -> Result<Success, Error> {
    let unusable = |error: String| Error::MalformedResult(format!("could not parse prevResult: {error}"));
    let family = Family::of(version);
    if let Some(text) = object.string("cniVersion").map_err(|error| unusable(error.to_string()))? {
        // An empty string is the oldest version here, unlike an absent one.
        let same_family = Version::parse(text).is_ok_and(|named| Family::of(named) == family);
        if !same_family {
            let members = family.members();
            return Err(unusable(format!(
                "result type supports [{members}] but unmarshalled CNIVersion is {:?}",
                shortened(text)
            )));
        }
    }
    read(object, family).map_err(|error| unusable(error.to_string()))
}

fn read(object: &Object<'_>, family: Family) -> Result<Success, Error> {
    let mut success = Success::default();
    if let Some(object) = object.object("dns")? {
        success.dns = dns(&object)?;
    }
    if family == Family::Before03 {
        for key in ["ip4", "ip6"] {
            if let Some(object) = object.object(key)? {
                let address = required_cidr(&object, "ip")?;
                success.ips.push(IpConfig { address, gateway: ip(&object, "gateway")?, interface: None });
                success.routes.extend(routes(&object)?);
            }
        }
        return Ok(success);
    }
    for item in present(object.array("interfaces")?) {
        success.interfaces.push(interface(&item.object()?)?);
    }
    for item in present(object.array("ips")?) {
        let object = item.object()?;
        success.ips.push(IpConfig {
            address: required_cidr(&object, "address")?,
            gateway: ip(&object, "gateway")?,
            interface: object.integer("interface")?,
        });
    }
    success.routes = routes(object)?;
    Ok(success)
}

fn interface(object: &Object<'_>) -> Result<Interface, FieldError> {
    let text = |key| object.string(key).map(|text| text.unwrap_or_default().to_owned());
    Ok(Interface {
        name: text("name")?,
        mac: text("mac")?,
        mtu: object.integer("mtu")?.filter(|mtu| *mtu > 0),
        sandbox: text("sandbox")?,
        socket_path: text("socketPath")?,
        pci_id: text("pciID")?,
    })
}

fn routes(object: &Object<'_>) -> Result<Vec<Route>, Error> {
    present(object.array("routes")?).map(|item| route(&item.object()?)).collect()
}

pub(crate) fn route(object: &Object<'_>) -> Result<Route, Error> {
    Ok(Route {
        dst: required_cidr(object, "dst")?,
        gw: ip(object, "gw")?,
        mtu: object.integer("mtu")?.unwrap_or(0),
        advmss: object.integer("advmss")?.unwrap_or(0),
        priority: object.integer("priority")?.unwrap_or(0),
        table: object.integer("table")?,
        scope: object.integer("scope")?,
    })
}

pub(crate) fn dns(object: &Object<'_>) -> Result<Dns, FieldError> {
    Ok(Dns {
        nameservers: object.strings("nameservers")?,
        domain: object.string("domain")?.unwrap_or_default().to_owned(),
        search: object.strings("search")?,
        options: object.strings("options")?,
    })
}

fn required_cidr(object: &Object<'_>, key: &str) -> Result<Cidr, FieldError> {
    let text = object.string(key)?.unwrap_or_default();
    let cidr: Result<Cidr, String> = text.parse();
    cidr.map(Cidr::to_canonical).map_err(|error| {
        FieldError::new(object.path_of(key), format_args!("must be an address with a prefix length: {error}"))
    })
}

fn ip(object: &Object<'_>, key: &str) -> Result<Option<IpAddr>, FieldError> {
    match object.string(key)? {
        None | Some("") => Ok(None),
        Some(text) => parse_ip(text).map(Some).ok_or_else(|| {
            FieldError::new(object.path_of(key), format_args!("invalid IP address: {}", shortened(text)))
        }),
    }
}

fn present(items: Vec<Item<'_>>) -> impl Iterator<Item = Item<'_>> {
    items.into_iter().filter(|item| !item.is_null())
}

/// An IPv4-mapped IPv6 address is the IPv4 address, as everywhere in Go.
fn canonical(ip: Option<IpAddr>) -> Option<IpAddr> {
    ip.map(|ip| ip.to_canonical())
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

mod since_1_0 {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Document<'a> {
        cni_version: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        dns: Option<DnsDocument<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        interfaces: Vec<InterfaceDocument<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ips: Vec<IpDocument>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<RouteDocument>,
    }

    #[derive(Serialize)]
    struct DnsDocument<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        domain: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        nameservers: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        options: &'a [String],
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        search: &'a [String],
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct InterfaceDocument<'a> {
        #[serde(skip_serializing_if = "str::is_empty")]
        mac: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        mtu: Option<u32>,
        name: &'a str,
        #[serde(rename = "pciID", skip_serializing_if = "str::is_empty")]
        pci_id: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        sandbox: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        socket_path: &'a str,
    }

    #[derive(Serialize)]
    struct IpDocument {
        address: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gateway: Option<IpAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        interface: Option<i64>,
    }

    #[derive(Serialize)]
    struct RouteDocument {
        #[serde(skip_serializing_if = "is_zero")]
        advmss: u32,
        dst: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gw: Option<IpAddr>,
        #[serde(skip_serializing_if = "is_zero")]
        mtu: u32,
        #[serde(skip_serializing_if = "is_zero")]
        priority: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        table: Option<u32>,
    }

    impl<'a> Document<'a> {
        pub(super) fn new(success: &'a Success, version: Version) -> Self {
            let Success { interfaces, ips, routes, dns } = success;
            let Dns { nameservers, domain, search, options } = dns;
            Self {
                cni_version: version.as_str(),
                dns: (!dns.is_empty()).then_some(DnsDocument { domain, nameservers, options, search }),
                interfaces: interfaces
                    .iter()
                    .map(|link| InterfaceDocument {
                        mac: &link.mac,
                        mtu: link.mtu.filter(|mtu| *mtu > 0),
                        name: &link.name,
                        pci_id: &link.pci_id,
                        sandbox: &link.sandbox,
                        socket_path: &link.socket_path,
                    })
                    .collect(),
                ips: ips
                    .iter()
                    .map(|ip| IpDocument {
                        address: ip.address.to_string(),
                        gateway: canonical(ip.gateway),
                        interface: ip.interface,
                    })
                    .collect(),
                routes: routes
                    .iter()
                    .map(|route| RouteDocument {
                        advmss: route.advmss,
                        dst: route.dst.to_string(),
                        gw: canonical(route.gw),
                        mtu: route.mtu,
                        priority: route.priority,
                        scope: route.scope,
                        table: route.table,
                    })
                    .collect(),
            }
        }
    }
}

/// What both older families print alike.
#[derive(Serialize)]
struct OldDns<'a> {
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    nameservers: &'a [String],
    #[serde(skip_serializing_if = "str::is_empty")]
    domain: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    search: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    options: &'a [String],
}

impl<'a> OldDns<'a> {
    fn new(Dns { nameservers, domain, search, options }: &'a Dns) -> Self {
        Self { nameservers, domain, search, options }
    }
}

mod before_1_0 {
    use super::*;

    #[derive(Serialize)]
    pub(super) struct Document<'a> {
        #[serde(rename = "cniVersion")]
        cni_version: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        interfaces: Vec<InterfaceDocument<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ips: Vec<IpDocument>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<RouteDocument>,
        dns: OldDns<'a>,
    }

    #[derive(Serialize)]
    struct InterfaceDocument<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        mac: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        sandbox: &'a str,
    }

    #[derive(Serialize)]
    struct IpDocument {
        version: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        interface: Option<i64>,
        address: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gateway: Option<IpAddr>,
    }

    #[derive(Serialize)]
    struct RouteDocument {
        dst: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gw: Option<IpAddr>,
        #[serde(skip_serializing_if = "is_zero")]
        mtu: u32,
        #[serde(skip_serializing_if = "is_zero")]
        advmss: u32,
        #[serde(skip_serializing_if = "is_zero")]
        priority: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        table: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<u8>,
    }

    impl<'a> Document<'a> {
        pub(super) fn new(success: &'a Success, version: Version) -> Self {
            Self {
                cni_version: version.as_str(),
                interfaces: success
                    .interfaces
                    .iter()
                    .map(|link| InterfaceDocument { name: &link.name, mac: &link.mac, sandbox: &link.sandbox })
                    .collect(),
                ips: success
                    .ips
                    .iter()
                    .map(|ip| IpDocument {
                        version: if ip.address.address().is_ipv4() { "4" } else { "6" },
                        interface: ip.interface,
                        address: ip.address.to_string(),
                        gateway: canonical(ip.gateway),
                    })
                    .collect(),
                routes: success
                    .routes
                    .iter()
                    .map(|route| RouteDocument {
                        dst: route.dst.to_string(),
                        gw: canonical(route.gw),
                        mtu: route.mtu,
                        advmss: route.advmss,
                        priority: route.priority,
                        table: route.table,
                        scope: route.scope,
                    })
                    .collect(),
                dns: OldDns::new(&success.dns),
            }
        }
    }
}

mod before_0_3 {
    use super::*;

    #[derive(Serialize)]
    pub(super) struct Document<'a> {
        #[serde(rename = "cniVersion")]
        cni_version: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip4: Option<IpDocument>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip6: Option<IpDocument>,
        dns: OldDns<'a>,
    }

    #[derive(Serialize)]
    struct IpDocument {
        ip: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gateway: Option<IpAddr>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        routes: Vec<RouteDocument>,
    }

    #[derive(Serialize)]
    struct RouteDocument {
        dst: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        gw: Option<IpAddr>,
    }

    impl<'a> Document<'a> {
        pub(super) fn new(success: &'a Success, version: Version) -> Self {
            Self {
                cni_version: version.as_str(),
                ip4: first_of_family(success, true),
                ip6: first_of_family(success, false),
                dns: OldDns::new(&success.dns),
            }
        }
    }

    fn first_of_family(success: &Success, ipv4: bool) -> Option<IpDocument> {
        let of_family = |cidr: &Cidr| cidr.address().is_ipv4() == ipv4;
        let ip = success.ips.iter().find(|ip| of_family(&ip.address))?;
        let routes = success.routes.iter().filter(|route| of_family(&route.dst));
        Some(IpDocument {
            ip: ip.address.to_string(),
            gateway: canonical(ip.gateway),
            routes: routes.map(|route| RouteDocument { dst: route.dst.to_string(), gw: canonical(route.gw) }).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_mapped_addresses_are_ipv4() {
        let text = br#"{"ips":[{"address":"::ffff:10.1.2.3/120"}],"routes":[{"dst":"::ffff:10.0.0.0/104"}]}"#;
        let result = parse(text, Version::LATEST).unwrap();
        assert_eq!(result.ips[0].address.to_string(), "10.1.2.3/24");
        assert_eq!(result.routes[0].dst.to_string(), "10.0.0.0/8");
        let wider = parse(br#"{"routes":[{"dst":"::ffff:10.0.0.0/95"}]}"#, Version::LATEST).unwrap();
        assert!(wider.routes[0].dst.address().is_ipv6());
    }

    #[test]
    fn route_numbers_are_those_of_the_kernel() {
        let read = |key: &str, number: &str| {
            let text = format!(r#"{{"routes":[{{"dst":"10.0.0.0/8","{key}":{number}}}]}}"#);
            parse(text.as_bytes(), Version::LATEST)
        };
        for key in ["mtu", "advmss", "priority", "table"] {
            assert!(read(key, "4294967295").is_ok());
            for number in ["-1", "4294967296", "1.5", "\"1\""] {
                let error = read(key, number).unwrap_err().to_string();
                assert!(error.starts_with(&format!("\"routes[0].{key}\" must be a whole number")), "{error}");
            }
        }
        assert!(read("scope", "255").is_ok() && read("scope", "256").is_err());
    }
}
