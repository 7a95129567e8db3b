//! The file that `resolvConf` names, see resolv.conf(5).

use multus_cni::Dns;

/// Reads name service settings. Lines add up, except that the last `domain` wins; everything else is skipped.
pub(crate) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let keyword = words.next().unwrap_or_default();
        match keyword.as_str() {
            "nameserver" => dns.nameservers.extend(words.next()),
            "domain" => dns.domain = words.next().unwrap_or(dns.domain),
            "search" => dns.search.extend(words),
            "options" => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_add_up_and_comments_do_not_count() {
        let dns = parse(
            "# generated\n;nameserver 9.9.9.9\n\tnameserver 192.0.2.1\n\t nameserver 2001:db8::1 # not more\n\
             domain a.example\ndomain b.example\nsearch one two\nsearch three\noptions ndots:5\noptions edns0\n\
             nameserver\nsortlist 1.2.3.4\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(dns.domain, "b.example");
        assert_eq!(dns.search, ["one", "two", "three"]);
        assert_eq!(dns.options, ["ndots:5", "edns0"]);
        assert!(parse("").is_empty());
    }
}
