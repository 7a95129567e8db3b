//! Hardware addresses of any kind of link, as text.

/// Whether `text` is a hardware address of 6, 8 or 20 bytes, in one of the notations of
/// [`MacAddress`](multus_cni::MacAddress).
pub(crate) fn is_hardware_address(text: &str) -> bool {
    let (separator, digits) = match text.as_bytes().get(2) {
        Some(b':') => (':', 2),
        Some(b'-') => ('-', 2),
        _ => ('.', 4),
    };
    let mut groups = 0;
    let well_formed = text.split(separator).all(|group| {
        groups += 1;
        group.len() == digits && group.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    well_formed && matches!(groups * digits, 12 | 16 | 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lengths_in_three_notations() {
        for text in [
            "c2:11:22:AA:44:55",
            "c2-11-22-aa-44-55",
            "c211.22aa.4455",
            "00:11:22:33:44:55:66:77",
            "0011.2233.4455.6677",
            &["00"; 20].join(":"),
            &["0000"; 10].join("."),
        ] {
            assert!(is_hardware_address(text), "{text}");
        }
        for text in [
            "",
            "c2",
            "c2:11:22:aa:44",
            "c2:11:22:aa:44:5",
            "c2:11-22:aa:44:55",
            "+2:11:22:aa:44:55",
            "c211.22aa.445",
            "c21122aa4455",
            &["00"; 7].join(":"),
            "c2:11:22:aa:44:55:",
            "é:11:22:33:44:55",
        ] {
            assert!(!is_hardware_address(text), "{text}");
        }
    }
}
