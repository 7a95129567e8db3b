//! Ranges of addresses, and sets of ranges.

use std::{fmt, net::IpAddr};

use multus_cni::Cidr;

/// What is wrong with a range, or with a set of ranges.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeError {
    /// A range without a subnet.
    #[error("IP <nil> not v4 nor v6: a range needs a \"subnet\"")]
    NoSubnet,
    /// A subnet without room for a network address, a gateway and another.
    #[error("Network {0} too small to allocate from")]
    TooSmall(Cidr),
    /// An IPv4 address written as IPv6.
    #[error("IPNet IP and Mask version mismatch")]
    MappedIpv4,
    /// A subnet that is an address within a network.
    #[error("Network has host bits set. For a subnet mask of length {prefix} the network address is {network}")]
    HostBits {
        /// The prefix length.
        prefix: u8,
        /// What was meant, probably.
        network: IpAddr,
    },
    /// The first address lies outside, or behind the last.
    #[error("RangeStart {start} not in network {subnet}")]
    StartOutside {
        /// The first address.
        start: IpAddr,
        /// The subnet.
        subnet: Cidr,
    },
    /// The last address lies outside, or before the first.
    #[error("RangeEnd {end} not in network {subnet}")]
    EndOutside {
        /// The last address.
        end: IpAddr,
        /// The subnet.
        subnet: Cidr,
    },
    /// A set without ranges.
    #[error("empty range set")]
    EmptySet,
    /// A set with ranges of both families.
    #[error("mixed address families")]
    MixedFamilies,
    /// Two ranges of a set share addresses.
    #[error("subnets {0} and {1} overlap")]
    Overlap(String, String),
}

/// The addresses from one to another of a subnet, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    subnet: Cidr,
    first: IpAddr,
    last: IpAddr,
    gateway: IpAddr,
}

impl Range {
    /// All addresses of `subnet` but the network's own and, for IPv4, the broadcast address. The gateway is the first.
    ///
    /// # Errors
    /// When `subnet` has host bits, or a prefix longer than all but two bits.
    pub fn new(subnet: Cidr) -> Result<Self, RangeError> {
        Self::within(subnet, None, None, None)
    }

    /// The addresses from `first` to `last` of `subnet`; absent ones as [`new`](Self::new) has them. A gateway may be
    /// anywhere.
    ///
    /// # Errors
    /// Those of `new`, and when `first` or `last` lie outside of `subnet`, or in the wrong order.
    pub fn within(
        subnet: Cidr,
        first: Option<IpAddr>,
        last: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeError> {
        let bits = if subnet.address().is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > bits - 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.address().to_canonical() != subnet.address() {
            return Err(RangeError::MappedIpv4);
        }
        if subnet.network() != subnet.address() {
            return Err(RangeError::HostBits { prefix: subnet.prefix(), network: subnet.network() });
        }
        let second = successor(subnet.network());
        let start = first.unwrap_or(second);
        let end = match (last, subnet.address().is_ipv4()) {
            (Some(last), _) => last,
            // The broadcast address is for everybody.
            (None, true) => predecessor(subnet.last()),
            (None, false) => subnet.last(),
        };
        if first.is_some() && (!subnet.contains(start) || start.is_ipv4() == end.is_ipv4() && start > end) {
            return Err(RangeError::StartOutside { start, subnet });
        }
        if !subnet.contains(end) || end < start {
            return Err(RangeError::EndOutside { end, subnet });
        }
        Ok(Self { subnet, first: start, last: end, gateway: gateway.unwrap_or(second) })
    }

    /// The subnet whose prefix length goes with each address.
    #[must_use]
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// The first address.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    #[must_use]
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The gateway, which is never given out from this range.
    #[must_use]
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// How many addresses there are from the first to the last.
    #[must_use]
    pub fn size(&self) -> u128 {
        let number = |address| match address {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            IpAddr::V6(ip) => ip.to_bits(),
        };
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Whether `address` lies between the first and the last.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && self.first <= address && address <= self.last
    }

    /// Whether there is an address in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first.is_ipv4() == other.first.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Range {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// Ranges of one family that together give one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeSet(Vec<Range>);

impl RangeSet {
    /// A set of these ranges, in this order.
    ///
    /// # Errors
    /// When there are none, when they are of both families, or when two of them overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self, RangeError> {
        let first = ranges.first().ok_or(RangeError::EmptySet)?;
        if ranges.iter().any(|range| range.first.is_ipv4() != first.first.is_ipv4()) {
            return Err(RangeError::MixedFamilies);
        }
        for (index, range) in ranges.iter().enumerate() {
            if let Some(other) = ranges.iter().skip(index + 1).find(|other| range.overlaps(other)) {
                return Err(RangeError::Overlap(range.to_string(), other.to_string()));
            }
        }
        Ok(Self(ranges))
    }

    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The range that contains `address`.
    #[must_use]
    pub fn containing(&self, address: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(address))
    }

    /// Whether its addresses are IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.0.iter().all(|range| range.first.is_ipv4())
    }

    /// Whether there is an address in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().any(|range| other.0.iter().any(|foreign| range.overlaps(foreign)))
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        formatter.write_str(&ranges.join(","))
    }
}

/// The address after `address`; the last one has none, and is returned as it is.
pub(crate) fn successor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().saturating_add(1).into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().saturating_add(1).into()),
    }
}

fn predecessor(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().saturating_sub(1).into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().saturating_sub(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn within(subnet: &str, first: &str, last: &str) -> Result<Range, RangeError> {
        let optional = |text: &str| (!text.is_empty()).then(|| ip(text));
        Range::within(cidr(subnet), optional(first), optional(last), None)
    }

    #[test]
    fn a_subnet_alone_gives_all_its_usable_addresses() {
        for (subnet, range, gateway) in [
            ("192.0.2.0/24", "192.0.2.1-192.0.2.254", "192.0.2.1"),
            ("192.0.2.0/25", "192.0.2.1-192.0.2.126", "192.0.2.1"),
            ("192.0.2.0/30", "192.0.2.1-192.0.2.2", "192.0.2.1"),
            ("2001:DB8:1::/64", "2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff", "2001:db8:1::1"),
            ("0.0.0.0/0", "0.0.0.1-255.255.255.254", "0.0.0.1"),
        ] {
            let made = Range::new(cidr(subnet)).unwrap();
            assert_eq!((made.to_string(), made.gateway()), (range.to_owned(), ip(gateway)), "{subnet}");
        }
    }

    #[test]
    fn a_subnet_must_be_a_network_with_room() {
        let refused = |subnet: &str| Range::new(cidr(subnet)).unwrap_err().to_string();
        for (subnet, prefix, network) in [
            ("192.0.2.12/24", 24, "192.0.2.0"),
            ("192.168.127.0/23", 23, "192.168.126.0"),
            ("2001:DB8:1::24:19ff:fee1:c44a/64", 64, "2001:db8:1::"),
            ("2001:DB8:24:19ff::/63", 63, "2001:db8:24:19fe::"),
        ] {
            let text = "Network has host bits set. For a subnet mask of length";
            assert_eq!(refused(subnet), format!("{text} {prefix} the network address is {network}"));
        }
        assert_eq!(refused("192.0.2.0/31"), "Network 192.0.2.0/31 too small to allocate from");
        assert_eq!(refused("2001:db8::/127"), "Network 2001:db8::/127 too small to allocate from");
        assert_eq!(refused("::ffff:10.1.2.0/120"), "IPNet IP and Mask version mismatch");
    }

    #[test]
    fn the_ends_lie_in_the_subnet_and_in_order() {
        let refused = |first, last| within("192.0.2.0/24", first, last).unwrap_err().to_string();
        assert_eq!(refused("192.0.3.0", ""), "RangeStart 192.0.3.0 not in network 192.0.2.0/24");
        assert_eq!(refused("", "192.0.4.0"), "RangeEnd 192.0.4.0 not in network 192.0.2.0/24");
        assert_eq!(refused("192.0.2.50", "192.0.2.40"), "RangeStart 192.0.2.50 not in network 192.0.2.0/24");
        assert_eq!(refused("2001:db8::1", ""), "RangeStart 2001:db8::1 not in network 192.0.2.0/24");
        let whole = within("10.1.2.0/29", "10.1.2.0", "10.1.2.7").unwrap();
        assert_eq!(whole.to_string(), "10.1.2.0-10.1.2.7");
        let range = within("192.0.2.0/24", "192.0.2.40", "192.0.2.50").unwrap();
        let inside = |text| range.contains(ip(text));
        assert!(!inside("192.0.2.39") && inside("192.0.2.40") && inside("192.0.2.50") && !inside("192.0.2.51"));
        assert!(!inside("10.0.0.45") && !inside("2001:db8::45"));
    }

    #[test]
    fn ranges_overlap_when_they_share_an_address() {
        let overlap = |a: Range, b: Range| {
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        let whole = |subnet| within(subnet, "", "").unwrap();
        assert!(!overlap(whole("10.0.0.0/24"), whole("10.0.1.0/24")));
        assert!(!overlap(whole("0.0.0.0/24"), whole("::/24")));
        assert!(overlap(whole("10.0.0.0/24"), whole("10.0.0.0/24")));
        assert!(overlap(whole("10.0.0.0/20"), whole("10.0.1.0/24")));
        let low = within("10.0.0.0/24", "", "10.0.0.127").unwrap();
        assert!(!overlap(low, within("10.0.0.0/24", "10.0.0.128", "").unwrap()));
        assert!(overlap(low, within("10.0.0.0/24", "10.0.0.127", "").unwrap()));
    }

    #[test]
    fn a_set_is_of_one_family_and_without_overlap() {
        let set =
            |subnets: &[&str]| RangeSet::new(subnets.iter().map(|subnet| within(subnet, "", "").unwrap()).collect());
        assert_eq!(set(&[]).unwrap_err().to_string(), "empty range set");
        assert_eq!(set(&["10.0.0.0/24", "2001:db8::/64"]).unwrap_err().to_string(), "mixed address families");
        assert_eq!(
            set(&["10.1.0.0/22", "10.1.2.0/24"]).unwrap_err().to_string(),
            "subnets 10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap"
        );
        let set = set(&["192.168.0.0/24", "172.16.1.0/24"]).unwrap();
        assert_eq!(set.to_string(), "192.168.0.1-192.168.0.254,172.16.1.1-172.16.1.254");
        assert_eq!(set.containing(ip("192.168.0.55")), set.ranges().first());
        assert_eq!(set.containing(ip("192.168.99.99")), None);
    }
}
