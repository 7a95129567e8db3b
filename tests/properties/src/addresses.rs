//! Addresses in text.

use multus_cni::{Cidr, MacAddress, parse_ip};

use crate::message;

/// What is read is printed so that it is read as the same.
pub fn addresses(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Cidr>() {
        Ok(cidr) => {
            assert_eq!(cidr.to_string().parse(), Ok(cidr));
            assert!(cidr.contains(cidr.address()) && cidr.contains(cidr.network()) && cidr.contains(cidr.last()));
            assert!(cidr.network() <= cidr.address() && cidr.address() <= cidr.last());
            assert_eq!(Cidr::new(cidr.address(), cidr.prefix()), Some(cidr));
        }
        Err(error) => message::check_length(&error),
    }
    match text.parse::<MacAddress>() {
        Ok(mac) => assert_eq!(mac.to_string().parse::<MacAddress>().unwrap(), mac),
        Err(error) => message::check_length(&error),
    }
    if let Some(address) = parse_ip(&text) {
        assert_eq!(parse_ip(&address.to_string()), Some(address));
        assert_eq!(address, address.to_canonical());
    }
}
