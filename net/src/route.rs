//! Routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multus_cni::Cidr;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol, RouteScope, RouteType},
};
use nix::libc;
use rtnetlink::RouteMessageBuilder;

use crate::{
    Connection, Error,
    attributes::{attributes, ip, u16_at, u32_at},
    connection::Action,
};

/// A unicast route to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// The destination.
    pub destination: Cidr,
    /// The next hop; absent for a network that is on the link.
    pub gateway: Option<IpAddr>,
    /// The index of the link it leaves by.
    pub output: u32,
    /// The metric; the kernel's choice when absent.
    pub priority: Option<u32>,
    /// The routing table; main when absent.
    pub table: Option<u32>,
    /// The scope, as in `/etc/iproute2/rt_scopes`.
    pub scope: u8,
    /// Path MTU in bytes; the link's when absent.
    pub mtu: Option<u32>,
    /// TCP maximum segment size to advertise, in bytes; derived from the MTU when absent.
    pub advmss: Option<u32>,
}

/// A route, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteEntry {
    /// The destination; `0.0.0.0/0` or `::/0` for a default route.
    pub destination: Cidr,
    /// The next hop, of the first of several.
    pub gateway: Option<IpAddr>,
    /// The index of the link it leaves by, of the first of several next hops; absent for a route that leads nowhere.
    pub output: Option<u32>,
    /// The routing table; 254 is main.
    pub table: u32,
    /// The metric; 0 when there is none.
    pub priority: u32,
    /// Whether it forwards at all, rather than discarding or refusing.
    pub is_unicast: bool,
}

impl RouteEntry {
    /// The routing table of routes that name none (`RT_TABLE_MAIN`).
    pub const MAIN_TABLE: u32 = 254;

    /// Reads the body of an `RTM_NEWROUTE` message: a `struct rtmsg`, then `RTA_` attributes.
    fn read(body: &[u8]) -> Option<Self> {
        const AF_INET: u8 = 2;
        let (family, prefix, table, kind) = (*body.first()?, *body.get(1)?, *body.get(4)?, *body.get(7)?);
        if u32_at(body, 8)? & libc::RTM_F_CLONED != 0 {
            return None;
        }
        let mut destination = match family {
            AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (mut gateway, mut output, mut table, mut priority) = (None, None, u32::from(table), 0);
        for (kind, value) in attributes(body.get(12..)?) {
            match kind {
                libc::RTA_DST => destination = ip(value)?,
                libc::RTA_GATEWAY => gateway = ip(value),
                libc::RTA_OIF => output = u32_at(value, 0),
                libc::RTA_TABLE => table = u32_at(value, 0)?,
                libc::RTA_PRIORITY => priority = u32_at(value, 0)?,
                libc::RTA_MULTIPATH => {
                    // The first of several: a struct rtnexthop with its length, its link, and attributes of its own.
                    output = u32_at(value, 4);
                    let length = usize::from(u16_at(value, 0)?);
                    let hop = value.get(8..length).unwrap_or_default();
                    gateway = attributes(hop).find(|(kind, _)| *kind == libc::RTA_GATEWAY).and_then(|(_, via)| ip(via));
                }
                _ => {}
            }
        }
        Some(Self {
            destination: Cidr::new(destination, prefix)?,
            gateway,
            output,
            table,
            priority,
            is_unicast: kind == libc::RTN_UNICAST,
        })
    }
}

impl Connection {
    /// Adds a route, with protocol `boot`. Where the prefix has one already, the kernel decides: IPv4 has both, IPv6 makes
    /// one route of several next hops.
    ///
    /// # Errors
    /// `ENETUNREACH` when the gateway is not on the link, `EINVAL` for a destination with host bits, or for a gateway of
    /// another family, and others.
    pub fn add_route(&mut self, spec: &RouteSpec) -> Result<(), Error> {
        // The kernel would take the first four bytes of an IPv6 gateway for an IPv4 one.
        if spec.gateway.is_some_and(|gateway| gateway.is_ipv4() != spec.destination.address().is_ipv4()) {
            return Err(Error::Refused {
                request: "RTM_NEWROUTE",
                errno: libc::EINVAL,
                explanation: Some("gateway and destination are not of the same IP family".to_owned()),
            });
        }
        let mut message = match spec.destination.address() {
            IpAddr::V4(ip) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(ip, spec.destination.prefix()).build()
            }
            IpAddr::V6(ip) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(ip, spec.destination.prefix()).build()
            }
        };
        message.header.protocol = RouteProtocol::Boot;
        message.header.scope = RouteScope::from(spec.scope);
        message.header.kind = RouteType::Unicast;
        let attributes = &mut message.attributes;
        if let Some(gateway) = spec.gateway {
            attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        attributes.push(RouteAttribute::Oif(spec.output));
        if let Some(priority) = spec.priority {
            attributes.push(RouteAttribute::Priority(priority));
        }
        let mut metrics = Vec::new();
        metrics.extend(spec.mtu.map(RouteMetric::Mtu));
        metrics.extend(spec.advmss.map(RouteMetric::Advmss));
        if !metrics.is_empty() {
            attributes.push(RouteAttribute::Metrics(metrics));
        }
        match u8::try_from(spec.table.unwrap_or(RouteEntry::MAIN_TABLE)) {
            Ok(table) => message.header.table = table,
            Err(_) => {
                message.header.table = RouteHeader::RT_TABLE_UNSPEC;
                attributes.extend(spec.table.map(RouteAttribute::Table));
            }
        }
        self.request("RTM_NEWROUTE", RouteNetlinkMessage::NewRoute(message), Action::Append, |_| {})
    }

    /// Deletes a route, as [`routes`](Self::routes) tells of it.
    ///
    /// # Errors
    /// `ESRCH` when it is gone, and others.
    pub fn delete_route(&mut self, route: &RouteEntry) -> Result<(), Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = match route.destination.address() {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = route.destination.prefix();
        // Of any scope and protocol.
        message.header.scope = RouteScope::NoWhere;
        let attributes = &mut message.attributes;
        if !route.destination.is_default() {
            attributes.push(RouteAttribute::Destination(route.destination.address().into()));
        }
        attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        attributes.extend(route.output.map(RouteAttribute::Oif));
        attributes.push(RouteAttribute::Table(route.table));
        if route.priority > 0 {
            attributes.push(RouteAttribute::Priority(route.priority));
        }
        self.request("RTM_DELROUTE", RouteNetlinkMessage::DelRoute(message), Action::Change, |_| {})
    }

    /// All routes of all tables, IPv4 before IPv6, without those the kernel cached. Slow where there are thousands.
    ///
    /// # Errors
    /// When the kernel does not answer, or they change too fast to be listed.
    pub fn routes(&mut self) -> Result<Vec<RouteEntry>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            routes.extend(self.dump("RTM_GETROUTE", &RouteNetlinkMessage::GetRoute(message), RouteEntry::read)?);
        }
        Ok(routes)
    }
}
