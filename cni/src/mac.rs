//! Ethernet hardware addresses.

use std::{fmt, str::FromStr};

/// A hardware address of six bytes. Reads `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` and `aabb.ccdd.eeff` in either
/// letter case; prints the first in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether this is a group address, which no interface can own.
    #[must_use]
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for MacAddress {
    /// What is wrong, as a clause: `has 8 bytes, …`.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SYNTAX: &str = "invalid MAC address";
        let (separator, digits) = match text.as_bytes().get(2) {
            Some(b':') => (':', 2),
            Some(b'-') => ('-', 2),
            _ if text.as_bytes().get(4) == Some(&b'.') => ('.', 4),
            _ => return Err(SYNTAX),
        };
        let mut bytes = Vec::with_capacity(6);
        for group in text.split(separator) {
            let hex = group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit());
            let value = hex.then(|| u16::from_str_radix(group, 16).ok()).flatten().ok_or(SYNTAX)?;
            let [high, low] = value.to_be_bytes();
            if digits == 4 {
                bytes.push(high);
            }
            bytes.push(low);
        }
        match <[u8; 6]>::try_from(bytes) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(bytes) if matches!(bytes.len(), 8 | 20) => Err("not an Ethernet address, which has 6 bytes"),
            Err(_) => Err(SYNTAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_three_notations_and_prints_one() {
        for text in ["c2:11:22:AA:44:55", "c2-11-22-aa-44-55", "C211.22aa.4455"] {
            assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), "c2:11:22:aa:44:55");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in
            ["", "c2", "c2:11:22:aa:44", "c2:11:22:aa:44:5", "c2:11-22:aa:44:55", "+2:11:22:aa:44:55", "c211.22aa.445"]
        {
            assert_eq!(text.parse::<MacAddress>().unwrap_err(), "invalid MAC address", "{text}");
        }
        assert!("00:11:22:33:44:55:66:77".parse::<MacAddress>().unwrap_err().contains("6 bytes"));
    }
}
