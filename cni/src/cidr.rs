//! Addresses with a prefix length, in the one notation the Go tools accept.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnetwork::IpNetwork;

use crate::shortened;

/// An address with a prefix length, such as `10.1.2.3/24`. Host bits are kept as written.
///
/// Only `address/length` is read: no bare address, no dotted mask, no sign. An IPv4-mapped IPv6 address stays IPv6
/// here, since its prefix length counts 128 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr(IpNetwork);

impl Cidr {
    /// `None` when `prefix` is longer than the address.
    #[must_use]
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        IpNetwork::new(address, prefix).ok().map(Self)
    }

    /// The address, host bits included.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.ip()
    }

    /// The IPv4 network, where this is one of IPv4-mapped IPv6 addresses.
    #[must_use]
    pub fn to_canonical(self) -> Self {
        let prefix = self.prefix().checked_sub(96).filter(|_| self.0.is_ipv6());
        let mapped = prefix.and_then(|prefix| Self::new(self.address().to_canonical(), prefix));
        mapped.filter(|network| network.0.is_ipv4()).unwrap_or(self)
    }

    /// The prefix length in bits.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.0.prefix()
    }

    /// The address without its host bits.
    #[must_use]
    pub fn network(&self) -> IpAddr {
        self.0.network()
    }

    /// The last address of the network: for IPv4 its broadcast address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Whether `address` lies in the network. Never, when the families differ.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(address)
    }

    /// Whether the network is `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.0.prefix() == 0
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.0.ip(), self.0.prefix())
    }
}

impl FromStr for Cidr {
    /// `invalid CIDR address: …`
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            if prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // Leading zeros are fine with Go, however many.
            let prefix = prefix.trim_start_matches('0');
            let prefix = if prefix.is_empty() { 0 } else { prefix.parse().ok()? };
            Self::new(address.parse().ok()?, prefix)
        };
        parse().ok_or_else(|| format!("invalid CIDR address: {}", shortened(text)))
    }
}

/// Reads an address. An IPv4-mapped IPv6 address is the IPv4 address, as everywhere in Go.
#[must_use]
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, printed) in [
            ("10.1.2.3/24", "10.1.2.3/24"),
            ("10.1.2.0/024", "10.1.2.0/24"),
            ("2001:DB8:0:0::1/64", "2001:db8::1/64"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/000", "::/0"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in [
            "",
            "10.0.0.1",
            "10.0.0.1/",
            "10.0.0.1/+24",
            "10.0.0.1/255.255.255.0",
            "10.0.0.01/24",
            "10.0.0.1/33",
            "1.2.3/24",
            "fe80::1%eth0/64",
            "::1/129",
            " 10.0.0.1/24",
            "10.0.0.1/24/24",
            "10.0.0.1/-1",
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap_err(), format!("invalid CIDR address: {text}"));
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(parse_ip("::ffff:10.1.2.77").unwrap().to_string(), "10.1.2.77");
        assert_eq!(parse_ip("fe80::1%1"), None);
    }
}
