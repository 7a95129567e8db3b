//! What the plugin reads from its configuration, and what it refuses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{net::IpAddr, path::PathBuf};

use host_local_ipam::{Config, Range, RangeSet};
use multus_cni::{Invocation, NetworkConfig};

#[test]
fn the_keys_of_a_single_range_make_one_set() {
    let ipam = r#"{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.20","gateway":"10.1.2.30"}"#;
    let config = parse("1.1.0", ipam, "", "").unwrap();
    let range = Range::within(
        "10.1.2.0/24".parse().unwrap(),
        Some(ip("10.1.2.9")),
        Some(ip("10.1.2.20")),
        Some(ip("10.1.2.30")),
    );
    assert_eq!(config.sets, [RangeSet::new(vec![range.unwrap()]).unwrap()]);
    assert!(config.routes.is_empty() && config.resolv_conf.is_none() && config.wanted.is_empty());
}

#[test]
fn ranges_are_read_in_their_order() {
    for (ipam, extra, expected) in [
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24","rangeStart":"10.1.2.9","rangeEnd":"10.1.2.20",
                "gateway":"10.1.2.30"},{"subnet":"10.1.4.0/24"}],[{"subnet":"11.1.2.0/24","rangeStart":"11.1.2.9",
                "rangeEnd":"11.1.2.20","gateway":"11.1.2.30"}]]}"#,
            "",
            &["10.1.2.9-10.1.2.20,10.1.4.1-10.1.4.254", "11.1.2.9-11.1.2.20"][..],
        ),
        (
            r#"{"subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.4.0/24"}]]}"#,
            r#","runtimeConfig":{"irrelevant":["10.1.2.0/24"],"ipRanges":[[{"subnet":"11.1.2.0/24"}]]}"#,
            &["11.1.2.1-11.1.2.254", "10.1.2.1-10.1.2.254", "10.1.4.1-10.1.4.254"],
        ),
        // Keys match in any letter case, and null is as good as absent.
        (
            r#"{"SUBNET":"10.1.2.0/24","rangestart":"10.1.2.9","rangeEnd":null,"gateway":"","ranges":null}"#,
            r#","runtimeConfig":null,"args":null"#,
            &["10.1.2.9-10.1.2.254"],
        ),
        (r#"{"subnet":"10.1.2.0/24"}"#, r#","runtimeConfig":{"ipRanges":null}"#, &["10.1.2.1-10.1.2.254"]),
        // Without "subnet" the other keys of the single range do not count, however wrong.
        (
            r#"{"rangeStart":"10.9.9.9","gateway":"10.9.9.1","ranges":[[{"subnet":"10.1.2.0/24"}]]}"#,
            "",
            &["10.1.2.1-10.1.2.254"],
        ),
        // Windows of one subnet, in one set or in two.
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24","rangeEnd":"10.1.2.99"},{"subnet":"10.1.2.0/24",
                "rangeStart":"10.1.2.100","rangeEnd":"10.1.2.120"}],[{"subnet":"10.1.2.0/24",
                "rangeStart":"10.1.2.121"}]]}"#,
            "",
            &["10.1.2.1-10.1.2.99,10.1.2.100-10.1.2.120", "10.1.2.121-10.1.2.254"],
        ),
        // The network's own address and the broadcast address, where they are asked for.
        (r#"{"subnet":"10.1.2.0/29","rangeStart":"10.1.2.0","rangeEnd":"10.1.2.7"}"#, "", &["10.1.2.0-10.1.2.7"]),
        (r#"{"subnet":"10.1.2.0/024"}"#, "", &["10.1.2.1-10.1.2.254"]),
        (r#"{"subnet":"2001:DB8:1::/64"}"#, "", &["2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff"]),
        (r#"{"subnet":"10.1.2.0/24","rangeStart":"::ffff:10.1.2.77"}"#, "", &["10.1.2.77-10.1.2.254"]),
    ] {
        let config = parse("1.1.0", ipam, extra, "").unwrap();
        let sets: Vec<String> = config.sets.iter().map(ToString::to_string).collect();
        assert_eq!(sets, expected, "{ipam}");
    }
}

#[test]
fn a_bare_subnet_has_its_first_address_as_gateway() {
    let ipam = r#"{"ranges":[[{"subnet":"10.1.4.0/24"}],[{"subnet":"2001:db8::/64"}]]}"#;
    let config = parse("1.1.0", ipam, "", "").unwrap();
    let ends = |set: &RangeSet| {
        let range = set.ranges()[0];
        (range.first(), range.last(), range.gateway())
    };
    assert_eq!(ends(&config.sets[0]), (ip("10.1.4.1"), ip("10.1.4.254"), ip("10.1.4.1")));
    assert_eq!(ends(&config.sets[1]), (ip("2001:db8::1"), ip("2001:db8::ffff:ffff:ffff:ffff"), ip("2001:db8::1")));
}

#[test]
fn a_gateway_may_be_anywhere() {
    for gateway in ["10.1.2.254", "10.9.9.9", "2001:db8::1", "10.1.2.0", "10.1.2.255"] {
        let config = parse("1.1.0", &format!(r#"{{"subnet":"10.1.2.0/24","gateway":"{gateway}"}}"#), "", "").unwrap();
        assert_eq!(config.sets[0].ranges()[0].gateway(), ip(gateway));
    }
}

#[test]
fn addresses_are_wanted_in_arguments_then_by_the_operator_then_by_the_runtime() {
    let operator = r#","args":{"cni":{"ips":["10.1.2.88","10.1.2.89/24","2001:db8::1","2001:db8::2/64"]}}"#;
    let runtime = r#","runtimeConfig":{"ips":["192.168.0.1","192.168.0.5/24","2001:db8::1/64"]}"#;
    for (extra, args, expected) in [
        (String::new(), "IP=10.1.2.10", &["10.1.2.10"][..]),
        (String::new(), "IP=10.1.2.11/24", &["10.1.2.11"]),
        (String::new(), "IP=2001:DB8::1/64", &["2001:db8::1"]),
        (String::new(), "IP=::ffff:10.1.2.77", &["10.1.2.77"]),
        (String::new(), "IP=::ffff:10.1.2.77/120", &["10.1.2.77"]),
        (String::new(), "IP=", &[]),
        (String::new(), "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.2.10", &["10.1.2.10"]),
        (String::new(), "IgnoreUnknown=true;ip=10.1.2.10", &[]),
        (operator.to_owned(), "IP=10.1.2.10", &["10.1.2.10", "10.1.2.88", "10.1.2.89", "2001:db8::1", "2001:db8::2"]),
        (runtime.to_owned(), "", &["192.168.0.1", "192.168.0.5", "2001:db8::1"]),
        (
            format!("{runtime}{operator}"),
            "IP=10.1.2.10",
            &[
                "10.1.2.10",
                "10.1.2.88",
                "10.1.2.89",
                "2001:db8::1",
                "2001:db8::2",
                "192.168.0.1",
                "192.168.0.5",
                "2001:db8::1",
            ],
        ),
        (r#","args":{"cni":null},"runtimeConfig":{"ips":null}"#.to_owned(), "", &[]),
        (r#","args":{"cni":{"ips":null}},"runtimeConfig":{"ips":[]}"#.to_owned(), "", &[]),
        (r#","args":{"other":{"ips":["10.1.2.9"]}}"#.to_owned(), "", &[]),
        (r#","args":{"cni":{"ips":["::ffff:10.1.2.77","10.1.2.5/0"]}}"#.to_owned(), "", &["10.1.2.77", "10.1.2.5"]),
    ] {
        let config = parse("1.1.0", r#"{"subnet":"10.1.2.0/24"}"#, &extra, args).unwrap();
        let wanted: Vec<String> = config.wanted.iter().map(ToString::to_string).collect();
        assert_eq!(wanted, expected, "{args:?} with {extra}");
    }
}

#[test]
fn malformed_requests_are_named() {
    for (extra, args, expected) in [
        ("", "IP=zz", r#"ARGS: error parsing value of pair "IP=zz": invalid IP address zz"#),
        ("", "IP=10.1.2.010", r#"ARGS: error parsing value of pair "IP=10.1.2.010": invalid IP address 10.1.2.010"#),
        (
            "",
            "IP=fe80::1%eth0",
            r#"ARGS: error parsing value of pair "IP=fe80::1%eth0": invalid IP address fe80::1%eth0"#,
        ),
        ("", "IP=10.1.2.5/33", r#"ARGS: error parsing value of pair "IP=10.1.2.5/33": invalid IP address 10.1.2.5/33"#),
        ("", "ip=10.1.2.10", r#"ARGS: unknown args ["ip=10.1.2.10"]"#),
        ("", "IP=10.1.2.10;", r#"ARGS: invalid pair """#),
        ("", "IP=10.1.2.10=", r#"ARGS: invalid pair "IP=10.1.2.10=""#),
        ("", "FOO=bar;K=v", r#"ARGS: unknown args ["FOO=bar" "K=v"]"#),
        (
            "",
            "IgnoreUnknown=yes",
            r#"ARGS: error parsing value of pair "IgnoreUnknown=yes": boolean unmarshal error: invalid input yes"#,
        ),
        (r#","args":{"cni":{"ips":["zz"]}}"#, "", r#"invalid IP address zz in "args.cni.ips[0]""#),
        (
            r#","runtimeConfig":{"ips":["10.1.2.9","1.2.3"]}"#,
            "",
            r#"invalid IP address 1.2.3 in "runtimeConfig.ips[1]""#,
        ),
        (r#","args":{"cni":{"ips":[""]}}"#, "", r#"invalid IP address  in "args.cni.ips[0]""#),
        (r#","args":{"cni":{"ips":[null]}}"#, "", r#""args.cni.ips[0]" must be a string, not null"#),
        (r#","runtimeConfig":{"ips":[null]}"#, "", r#""runtimeConfig.ips[0]" must be a string, not null"#),
        (r#","args":{"cni":{"ips":"10.1.2.9"}}"#, "", r#""args.cni.ips" must be an array, not "10.1.2.9""#),
        (r#","args":{"cni":5}"#, "", r#""args.cni" must be an object, not 5"#),
        (r#","args":[]"#, "", r#""args" must be an object, not []"#),
        (r#","runtimeConfig":"x""#, "", r#""runtimeConfig" must be an object, not "x""#),
    ] {
        let refused = parse("1.1.0", r#"{"subnet":"10.1.2.0/24"}"#, extra, args).unwrap_err();
        assert_eq!(refused, expected, "{args:?} with {extra}");
    }
}

#[test]
fn unusable_ranges_are_named_with_their_set() {
    let no_ranges = r#"no IP ranges specified: give "ipam.ranges" or "ipam.subnet""#;
    let no_subnet = r#"invalid range set 0: IP <nil> not v4 nor v6: a range needs a "subnet""#;
    let host_bits = |prefix, network| {
        let text = "invalid range set 0: Network has host bits set. For a subnet mask of length";
        format!("{text} {prefix} the network address is {network}")
    };
    for (ipam, expected) in [
        ("null", "IPAM config missing 'ipam' key"),
        ("{}", no_ranges),
        (r#"{"ranges":[]}"#, no_ranges),
        (r#"{"ranges":null}"#, no_ranges),
        (r#"{"rangeStart":"10.1.2.9","gateway":"10.1.2.1"}"#, no_ranges),
        (r#"{"ranges":[[]]}"#, "invalid range set 0: empty range set"),
        (r#"{"ranges":[null]}"#, "invalid range set 0: empty range set"),
        (
            r#"{"subnet":"10.1.2.0/24","ranges":[[{"subnet":"10.1.3.0/24"}],[]]}"#,
            "invalid range set 2: empty range set",
        ),
        (r#"{"ranges":[[{}]]}"#, no_subnet),
        (r#"{"ranges":[[{"rangeStart":"10.1.2.9"}]]}"#, no_subnet),
        (r#"{"subnet":""}"#, r#""ipam.subnet" must be a network: invalid CIDR address: "#),
        (r#"{"subnet":null}"#, r#""ipam.subnet" must be a network: invalid CIDR address: "#),
        (
            r#"{"ranges":[[{"subnet":null}]]}"#,
            r#""ipam.ranges[0][0].subnet" must be a network: invalid CIDR address: "#,
        ),
        (r#"{"subnet":"10.1.2.0"}"#, r#""ipam.subnet" must be a network: invalid CIDR address: 10.1.2.0"#),
        (r#"{"subnet":"10.1.2.0/33"}"#, r#""ipam.subnet" must be a network: invalid CIDR address: 10.1.2.0/33"#),
        (r#"{"subnet":"10.01.2.0/24"}"#, r#""ipam.subnet" must be a network: invalid CIDR address: 10.01.2.0/24"#),
        (r#"{"subnet":5}"#, r#""ipam.subnet" must be a string, not 5"#),
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24","rangeStart":"x"}]]}"#,
            r#""ipam.ranges[0][0].rangeStart" invalid IP address: x"#,
        ),
        (r#"{"subnet":"10.1.2.0/24","rangeEnd":"10.1.2.09"}"#, r#""ipam.rangeEnd" invalid IP address: 10.1.2.09"#),
        (
            r#"{"subnet":"2001:db8::/64","gateway":"fe80::1%eth0"}"#,
            r#""ipam.gateway" invalid IP address: fe80::1%eth0"#,
        ),
        (r#"{"rangeStart":"10.1.2"}"#, r#""ipam.rangeStart" invalid IP address: 10.1.2"#),
        (r#"{"type":[0]}"#, r#""ipam.type" must be a string, not an array"#),
        (r#"{"ranges":{}}"#, r#""ipam.ranges" must be an array, not {}"#),
        (r#"{"ranges":[{}]}"#, r#""ipam.ranges[0]" must be an array, not {}"#),
        (r#"{"ranges":[["10.1.2.0/24"]]}"#, r#""ipam.ranges[0][0]" must be an object, not "10.1.2.0/24""#),
        ("[]", r#""ipam" must be an object, not []"#),
        (r#"{"subnet":"10.1.2.0/24","name":5}"#, r#""ipam.name" must be a string, not 5"#),
        (r#"{"subnet":"10.1.2.0/24","resolvConf":5}"#, r#""ipam.resolvConf" must be a string, not 5"#),
        (r#"{"subnet":"192.0.2.0/31"}"#, "invalid range set 0: Network 192.0.2.0/31 too small to allocate from"),
        (r#"{"subnet":"192.0.2.1/32"}"#, "invalid range set 0: Network 192.0.2.1/32 too small to allocate from"),
        (r#"{"subnet":"2001:db8::/127"}"#, "invalid range set 0: Network 2001:db8::/127 too small to allocate from"),
        (r#"{"subnet":"2001:db8::1/128"}"#, "invalid range set 0: Network 2001:db8::1/128 too small to allocate from"),
        (r#"{"subnet":"::ffff:10.1.2.0/120"}"#, "invalid range set 0: IPNet IP and Mask version mismatch"),
        (r#"{"subnet":"192.0.2.12/24"}"#, &host_bits(24, "192.0.2.0")),
        (r#"{"subnet":"192.168.127.0/23"}"#, &host_bits(23, "192.168.126.0")),
        (r#"{"subnet":"2001:DB8:1::24:19ff:fee1:c44a/64"}"#, &host_bits(64, "2001:db8:1::")),
        (r#"{"subnet":"2001:DB8:24:19ff::/63"}"#, &host_bits(63, "2001:db8:24:19fe::")),
        (
            r#"{"subnet":"192.0.2.0/24","rangeStart":"192.0.3.0"}"#,
            "invalid range set 0: RangeStart 192.0.3.0 not in network 192.0.2.0/24",
        ),
        (
            r#"{"subnet":"192.0.2.0/24","rangeEnd":"192.0.4.0"}"#,
            "invalid range set 0: RangeEnd 192.0.4.0 not in network 192.0.2.0/24",
        ),
        (
            r#"{"subnet":"192.0.2.0/24","rangeStart":"192.0.2.50","rangeEnd":"192.0.2.40"}"#,
            "invalid range set 0: RangeStart 192.0.2.50 not in network 192.0.2.0/24",
        ),
        (
            r#"{"subnet":"192.0.2.0/24","rangeEnd":"192.0.2.0"}"#,
            "invalid range set 0: RangeEnd 192.0.2.0 not in network 192.0.2.0/24",
        ),
        (
            r#"{"subnet":"192.0.2.0/24","rangeStart":"2001:db8::1"}"#,
            "invalid range set 0: RangeStart 2001:db8::1 not in network 192.0.2.0/24",
        ),
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24"},{"subnet":"2001:db8::/64"}]]}"#,
            "invalid range set 0: mixed address families",
        ),
        (
            r#"{"ranges":[[{"subnet":"10.1.0.0/22"},{"subnet":"10.1.2.0/24"}]]}"#,
            "invalid range set 0: subnets 10.1.0.1-10.1.3.254 and 10.1.2.1-10.1.2.254 overlap",
        ),
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24"},{"subnet":"10.2.2.0/24"}],[{"subnet":"10.1.2.0/24"}]]}"#,
            "range set 0 overlaps with 1",
        ),
        (
            r#"{"subnet":"10.1.0.0/16","ranges":[[{"subnet":"2001:db8::/64"}],[{"subnet":"10.1.2.0/24"}]]}"#,
            "range set 0 overlaps with 2",
        ),
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24","rangeEnd":"10.1.2.9"}],[{"subnet":"10.1.2.0/24",
                "rangeStart":"10.1.2.9"}]]}"#,
            "range set 0 overlaps with 1",
        ),
        // The first set that is wrong is told of, and what is wrong within sets before what is between them.
        (
            r#"{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.3.0/31"}],[]]}"#,
            "invalid range set 2: Network 10.1.3.0/31 too small to allocate from",
        ),
    ] {
        assert_eq!(parse("1.1.0", ipam, "", "").unwrap_err(), expected, "{ipam}");
    }
}

#[test]
fn the_configuration_needs_an_ipam_object() {
    let config = NetworkConfig::parse(r#"{"cniVersion":"1.1.0","name":"storage"}"#).unwrap();
    let refused = Config::parse(&Invocation::new(config)).unwrap_err();
    assert_eq!(refused.to_string(), "IPAM config missing 'ipam' key");
}

#[test]
fn ranges_of_the_runtime_count_first_in_messages() {
    let extra = r#","runtimeConfig":{"ipRanges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.3.0/31"}]]}"#;
    assert_eq!(
        parse("1.1.0", r#"{"subnet":"10.1.4.1/24"}"#, extra, "").unwrap_err(),
        "invalid range set 1: Network 10.1.3.0/31 too small to allocate from"
    );
    let extra = r#","runtimeConfig":{"ipRanges":[[{"subnet":"10.1.2.0/24"}]]}"#;
    assert_eq!(
        parse("1.1.0", r#"{"ranges":[[{"subnet":"10.1.4.0/24"}],[{"subnet":"10.1.2.0/25"}]]}"#, extra, "").unwrap_err(),
        "range set 0 overlaps with 2"
    );
}

#[test]
fn old_versions_know_one_address_of_each_family() {
    let two_ipv4 = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.3.0/24"}]]}"#;
    let two_ipv6 = r#"{"ranges":[[{"subnet":"2001:db8:1::/64"}],[{"subnet":"2001:db8:2::/64"}]]}"#;
    let overlapping = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"10.1.2.0/24"}]]}"#;
    let one_of_each = r#"{"ranges":[[{"subnet":"10.1.2.0/24"}],[{"subnet":"2001:db8::/64"}]]}"#;
    for version in ["", "0.1.0", "0.2.0"] {
        for ipam in [two_ipv4, two_ipv6, overlapping] {
            assert_eq!(
                parse(version, ipam, "", "").unwrap_err(),
                format!("CNI version {version} does not support more than 1 address per family")
            );
        }
        assert_eq!(parse(version, one_of_each, "", "").unwrap().sets.len(), 2, "{version:?}");
    }
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        for ipam in [two_ipv4, two_ipv6, one_of_each] {
            assert_eq!(parse(version, ipam, "", "").unwrap().sets.len(), 2, "{version:?}");
        }
    }
}

#[test]
fn routes_and_resolv_conf_are_read() {
    let ipam = r#"{"subnet":"10.1.2.0/24","resolvConf":"/etc/pods/resolv.conf","routes":[{"dst":"0.0.0.0/0"},
        {"dst":"10.9.1.3/16","gw":"10.1.2.7","mtu":1400,"advmss":1360,"priority":5,"table":0,"scope":253},
        {"dst":"2001:db8::/32","gw":""}]}"#;
    let config = parse("1.1.0", ipam, "", "").unwrap();
    assert_eq!(config.resolv_conf, Some(PathBuf::from("/etc/pods/resolv.conf")));
    let destinations: Vec<String> = config.routes.iter().map(|route| route.dst.to_string()).collect();
    assert_eq!(destinations, ["0.0.0.0/0", "10.9.1.3/16", "2001:db8::/32"]);
    let route = &config.routes[1];
    assert_eq!((route.gw, route.mtu, route.advmss, route.priority), (Some(ip("10.1.2.7")), 1400, 1360, 5));
    assert_eq!((route.table, route.scope), (Some(0), Some(253)));
    assert_eq!((config.routes[0].gw, config.routes[0].table), (None, None));
    assert_eq!(config.routes[2].gw, None);
    for none in [r#""""#, "null"] {
        let ipam = format!(r#"{{"subnet":"10.1.2.0/24","resolvConf":{none},"routes":null}}"#);
        let config = parse("1.1.0", &ipam, "", "").unwrap();
        assert!(config.resolv_conf.is_none() && config.routes.is_empty());
    }
    for (routes, expected) in [
        (r#"{"dst":"0.0.0.0/0"}"#, r#""ipam.routes" must be an array, not an object"#),
        (
            r#"[{"dst":"here"}]"#,
            r#""ipam.routes[0].dst" must be an address with a prefix length: invalid CIDR address: here"#,
        ),
        (r#"[{"dst":"0.0.0.0/0","gw":"there"}]"#, r#""ipam.routes[0].gw" invalid IP address: there"#),
        (r#"["0.0.0.0/0"]"#, r#""ipam.routes[0]" must be an object, not "0.0.0.0/0""#),
    ] {
        let ipam = format!(r#"{{"subnet":"10.1.2.0/24","routes":{routes}}}"#);
        assert_eq!(parse("1.1.0", &ipam, "", "").unwrap_err(), expected);
    }
}

#[test]
fn the_data_directory_is_found_whatever_else_is_wrong() {
    let default = "/var/lib/cni/networks";
    for (rest, expected) in [
        ("", Ok(default)),
        (r#","ipam":null"#, Ok(default)),
        (r#","ipam":{}"#, Ok(default)),
        (r#","ipam":{"dataDir":""}"#, Ok(default)),
        (r#","ipam":{"dataDir":null}"#, Ok(default)),
        (r#","ipam":{"datadir":"/run/networks","ranges":7,"subnet":"x"},"cniVersion":"9""#, Ok("/run/networks")),
        (r#","ipam":{"dataDir":"relative/networks"}"#, Ok("relative/networks")),
        (r#","ipam":{"dataDir":5}"#, Err(r#""ipam.dataDir" must be a string, not 5"#)),
        (r#","ipam":[]"#, Err(r#""ipam" must be an object, not []"#)),
    ] {
        let config = NetworkConfig::parse(format!(r#"{{"name":"storage"{rest}}}"#)).unwrap();
        let found = Config::data_dir(&config).map_err(|error| error.to_string());
        assert_eq!(found, expected.map(PathBuf::from).map_err(str::to_owned), "{rest}");
    }
}

/// Reads a configuration of `version` with these `ipam`, `extra` keys beside it, and `CNI_ARGS`.
fn parse(version: &str, ipam: &str, extra: &str, args: &str) -> Result<Config, String> {
    let text = format!(r#"{{"cniVersion":"{version}","name":"storage","type":"macvlan","ipam":{ipam}{extra}}}"#);
    let mut invocation = Invocation::new(NetworkConfig::parse(text).unwrap());
    invocation.args = args.to_owned();
    Config::parse(&invocation).map_err(|error| error.to_string())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
