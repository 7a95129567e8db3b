//! Addresses of links.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use multus_cni::Cidr;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressFlags, AddressHeaderFlags, AddressMessage},
};
use nix::libc;
use rtnetlink::AddressMessageBuilder;

use crate::{
    Connection, Error,
    attributes::{attributes, ip, u32_at},
    connection::Action,
};

/// An address of a link, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Address {
    /// The address with the prefix length of its network.
    pub cidr: Cidr,
    /// The kernel does not yet know whether a neighbour has it too (RFC 4862).
    pub is_tentative: bool,
    /// It may be used while tentative (RFC 4429).
    pub is_optimistic: bool,
    /// A neighbour has it too; it is not in use.
    pub is_duplicate: bool,
}

impl Connection {
    /// Gives a link an address; IPv4 with the broadcast address of its network, where that has one.
    ///
    /// With `optimistic` an IPv6 address may be used at once, while the kernel still asks the neighbours about it. The
    /// kernel heeds it when the link's `optimistic_dad` is set, and else ignores it.
    ///
    /// # Errors
    /// `EEXIST` when the link has the address, and others.
    pub fn add_address(&mut self, index: u32, cidr: Cidr, optimistic: bool) -> Result<(), Error> {
        let message = match cidr.address() {
            IpAddr::V4(ip) => {
                AddressMessageBuilder::<std::net::Ipv4Addr>::new().index(index).address(ip, cidr.prefix()).build()
            }
            IpAddr::V6(ip) => {
                let builder = AddressMessageBuilder::<std::net::Ipv6Addr>::new();
                let mut message = builder.index(index).address(ip, cidr.prefix()).build();
                if optimistic {
                    message.header.flags |= AddressHeaderFlags::Optimistic;
                }
                message
            }
        };
        self.request("RTM_NEWADDR", RouteNetlinkMessage::NewAddress(message), Action::Create, |_| {})
    }

    /// The addresses of a link, of both families, link-local ones included.
    ///
    /// # Errors
    /// When the kernel does not answer, or they change too fast to be listed.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Error> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let message = RouteNetlinkMessage::GetAddress(message);
        // Kernels before 4.20 do not filter.
        self.dump("RTM_GETADDR", &message, |body| Address::read(body).filter(|_| u32_at(body, 4) == Some(index)))
    }

    /// Waits until no IPv6 address of a link is tentative any more, for at most `patience`; asks every 50 ms.
    ///
    /// Returns the addresses as they are then: the caller looks for those that are still tentative, or duplicates.
    ///
    /// # Errors
    /// Those of [`addresses`](Self::addresses).
    pub fn settled_addresses(&mut self, index: u32, patience: Duration) -> Result<Vec<Address>, Error> {
        let deadline = Instant::now() + patience.min(Duration::from_secs(3600));
        loop {
            let addresses = self.addresses(index)?;
            let waiting = addresses.iter().any(|address| address.is_tentative && !address.is_duplicate);
            let failed = addresses.iter().any(|address| address.is_duplicate);
            if !waiting || failed || Instant::now() >= deadline {
                return Ok(addresses);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Address {
    /// Reads the body of an `RTM_NEWADDR` message: a `struct ifaddrmsg`, then `IFA_` attributes.
    fn read(body: &[u8]) -> Option<Self> {
        let (prefix, short_flags) = (*body.get(1)?, *body.get(2)?);
        let (mut local, mut peer, mut flags) = (None, None, u32::from(short_flags));
        for (kind, value) in attributes(body.get(8..)?) {
            match kind {
                libc::IFA_LOCAL => local = ip(value),
                libc::IFA_ADDRESS => peer = ip(value),
                libc::IFA_FLAGS => flags = u32_at(value, 0)?,
                _ => {}
            }
        }
        let flags = AddressFlags::from_bits_retain(flags);
        Some(Self {
            cidr: Cidr::new(local.or(peer)?, prefix)?,
            is_tentative: flags.contains(AddressFlags::Tentative),
            is_optimistic: flags.contains(AddressFlags::Optimistic),
            is_duplicate: flags.contains(AddressFlags::Dadfailed),
        })
    }
}
