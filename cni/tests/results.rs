//! Results in every version: what is printed, what is read, and what a version cannot tell.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::IpAddr;

use multus_cni::{
    Args, Cidr, Dns, ErrorCode, Interface, IpConfig, MacAddress, NetworkConfig, NetworkConfigList, Route, Success,
    Version,
};
use proptest::{
    collection::vec,
    option,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

const BEFORE_0_3: [Version; 2] = [Version::V0_1_0, Version::V0_2_0];
const BEFORE_1_0: [Version; 3] = [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0];
const SINCE_1_0: [Version; 2] = [Version::V1_0_0, Version::V1_1_0];

const INTERFACE_SINCE_1_0: &str = r#"{
    "cniVersion": "1.1.0",
    "dns": {
        "nameservers": [
            "9.9.9.9"
        ]
    },
    "interfaces": [
        {
            "mac": "a6:f4:8b:e9:a9:c7",
            "name": "eth0",
            "sandbox": "/var/run/netns/c1"
        }
    ],
    "ips": [
        {
            "address": "10.1.2.2/24",
            "gateway": "10.1.2.1",
            "interface": 0
        },
        {
            "address": "2001:db8:1::2/64",
            "gateway": "2001:db8:1::1",
            "interface": 0
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "::/0"
        },
        {
            "dst": "192.168.0.0/16",
            "gw": "10.1.2.5",
            "mtu": 1300,
            "priority": 77,
            "scope": 0,
            "table": 100
        }
    ]
}"#;

const INTERFACE_BEFORE_1_0: &str = r#"{
    "cniVersion": "0.4.0",
    "interfaces": [
        {
            "name": "eth0",
            "mac": "06:fd:1f:45:bf:45",
            "sandbox": "/var/run/netns/c1"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 0,
            "address": "10.1.2.4/24",
            "gateway": "10.1.2.1"
        },
        {
            "version": "6",
            "interface": 0,
            "address": "2001:db8:1::4/64",
            "gateway": "2001:db8:1::1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        },
        {
            "dst": "192.168.0.0/16",
            "gw": "10.1.2.5",
            "mtu": 1300,
            "priority": 77,
            "table": 100,
            "scope": 0
        }
    ],
    "dns": {
        "nameservers": [
            "9.9.9.9"
        ]
    }
}"#;

const INTERFACE_BEFORE_0_3: &str = r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.1.2.6/24",
        "gateway": "10.1.2.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            },
            {
                "dst": "192.168.0.0/16",
                "gw": "10.1.2.5"
            }
        ]
    },
    "ip6": {
        "ip": "2001:db8:1::6/64",
        "gateway": "2001:db8:1::1",
        "routes": [
            {
                "dst": "::/0"
            }
        ]
    },
    "dns": {
        "nameservers": [
            "9.9.9.9"
        ]
    }
}"#;

const ADDRESS_SINCE_1_0: &str = r#"{
    "cniVersion": "1.1.0",
    "ips": [
        {
            "address": "10.1.2.2/24",
            "gateway": "10.1.2.1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        }
    ]
}"#;

const ADDRESS_BEFORE_1_0: &str = r#"{
    "cniVersion": "0.4.0",
    "ips": [
        {
            "version": "4",
            "address": "10.1.2.2/24",
            "gateway": "10.1.2.1"
        }
    ],
    "routes": [
        {
            "dst": "0.0.0.0/0"
        }
    ],
    "dns": {}
}"#;

const ADDRESS_BEFORE_0_3: &str = r#"{
    "cniVersion": "0.2.0",
    "ip4": {
        "ip": "10.1.2.2/24",
        "gateway": "10.1.2.1",
        "routes": [
            {
                "dst": "0.0.0.0/0"
            }
        ]
    },
    "dns": {}
}"#;

#[test]
fn an_interface_with_addresses_prints_as_the_original_plugin_prints_it() {
    let since_1_0 = with_interface("a6:f4:8b:e9:a9:c7", "2", &["0.0.0.0/0", "::/0"]);
    let before_1_0 = with_interface("06:fd:1f:45:bf:45", "4", &["0.0.0.0/0"]);
    let before_0_3 = with_interface("06:fd:1f:45:bf:45", "6", &["0.0.0.0/0", "::/0"]);
    for (version, captured) in captured_interfaces() {
        let success = match version {
            Version::V0_1_0 | Version::V0_2_0 => &before_0_3,
            Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => &before_1_0,
            Version::V1_0_0 | Version::V1_1_0 => &since_1_0,
        };
        assert_eq!(printed(success, version), captured);
    }
}

#[test]
fn an_address_alone_prints_as_the_original_plugin_prints_it() {
    let success = Success {
        ips: vec![IpConfig { interface: None, ..address("10.1.2.2/24", "10.1.2.1") }],
        routes: vec![route("0.0.0.0/0")],
        ..Success::default()
    };
    for (version, captured) in captured_addresses() {
        assert_eq!(printed(&success, version), captured);
        assert_eq!(read(&captured, version), success);
    }
}

#[test]
fn captured_results_are_read_and_printed_again_without_a_change() {
    for (version, captured) in captured_interfaces().into_iter().chain(captured_addresses()) {
        assert_eq!(printed(&read(&captured, version), version), captured);
    }
}

#[test]
fn a_result_is_read_by_the_version_it_names_whatever_was_asked_for() {
    for (_, captured) in captured_interfaces() {
        let readings = Version::ALL.map(|asked| read(&captured, asked));
        for reading in &readings {
            assert_eq!(*reading, readings[0]);
            assert_eq!(reading.ips.len(), 2);
        }
    }
}

#[test]
fn a_result_without_a_version_has_the_one_asked_for() {
    for (version, captured) in captured_interfaces() {
        let named = format!("    \"cniVersion\": \"{version}\",\n");
        for unnamed in ["", "    \"cniVersion\": \"\",\n", "    \"cniVersion\": null,\n"] {
            let text = captured.replace(&named, unnamed);
            assert_ne!(text, captured);
            assert_eq!(read(&text, version), read(&captured, version));
        }
    }
}

#[test]
fn a_result_of_an_unknown_version_is_refused() {
    for text in ["1.2.0", "9.9.9", "1.0", "v1.0.0", "0.4567.0"] {
        let error = Success::parse(json!({"cniVersion": text}).to_string().as_bytes(), Version::V1_0_0).unwrap_err();
        assert_eq!(error.to_string(), format!("unsupported CNI result version \"{text}\""));
    }
}

#[test]
fn what_is_no_result_is_refused_with_a_reason() {
    for (text, wanted) in [
        ("", "failed to unmarshal raw result: unexpected end of JSON input"),
        ("{\"ips\":", "failed to unmarshal raw result: unexpected end of JSON input"),
        ("oops", "failed to unmarshal raw result: "),
        ("{}{}", "failed to unmarshal raw result: "),
        ("[]", "failed to unmarshal raw result: "),
        ("5", "failed to unmarshal raw result: "),
        ("{\"cniVersion\":1}", "\"cniVersion\" must be a string, not 1"),
        ("{\"ips\":{}}", "\"ips\" must be an array, not {}"),
        ("{\"ips\":[{\"address\":5}]}", "\"ips[0].address\" must be a string, not 5"),
        ("{\"ips\":[{\"address\":\"10.0.0.1/24\",\"interface\":0.5}]}", "\"ips[0].interface\" must be a whole number"),
        ("{\"routes\":[{\"dst\":\"10.0.0.0/8\",\"scope\":256}]}", "\"routes[0].scope\" must be a whole number"),
        ("{\"routes\":[{\"dst\":\"10.0.0.0/8\",\"mtu\":-1}]}", "\"routes[0].mtu\" must be a whole number"),
        ("{\"interfaces\":[{\"name\":1}]}", "\"interfaces[0].name\" must be a string, not 1"),
        ("{\"dns\":{\"search\":\"example.org\"}}", "\"dns.search\" must be an array"),
    ] {
        let error = Success::parse(text.as_bytes(), Version::V1_1_0).unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{text}: {error}");
        assert_eq!(error.code(), ErrorCode::Internal);
    }
}

#[test]
fn bad_addresses_are_quoted_in_the_message() {
    for (text, wanted) in [
        (json!({"ips": [{"address": "1.2.3/45"}]}), "invalid CIDR address: 1.2.3/45"),
        (json!({"ips": [{"address": "1.2.3.4/99"}]}), "invalid CIDR address: 1.2.3.4/99"),
        (json!({"ips": [{}]}), "invalid CIDR address: "),
        (json!({"routes": [{"dst": "1.2.3.0/24", "gw": "1.2.3.x"}]}), "invalid IP address: 1.2.3.x"),
        (json!({"routes": [{"gw": "1.2.3.4"}]}), "invalid CIDR address: "),
        (json!({"ips": [{"address": "1.2.3.4/24", "gateway": "1.2.3"}]}), "invalid IP address: 1.2.3"),
    ] {
        let error = Success::parse(text.to_string().as_bytes(), Version::V1_1_0).unwrap_err();
        assert!(error.to_string().ends_with(wanted), "{text}: {error}");
    }
}

#[test]
fn null_counts_as_absent_everywhere() {
    assert_eq!(read("null", Version::V1_1_0), Success::default());
    let text = r#"{"interfaces":[null],"ips":[null],"routes":[null],"dns":null}"#;
    assert_eq!(read(text, Version::V1_1_0), Success::default());
    let text = r#"{"ip4":null,"ip6":null,"dns":{"domain":null,"search":null}}"#;
    assert_eq!(read(text, Version::V0_2_0), Success::default());
    let text = r#"{"routes":[{"dst":"10.0.0.0/8","gw":null,"mtu":null,"table":null,"scope":null}]}"#;
    assert_eq!(read(text, Version::V1_1_0).routes, [route("10.0.0.0/8")]);
}

#[test]
fn keys_are_read_in_any_letter_case() {
    let text = r#"{"CNIVersion":"1.0.0","IPs":[{"Address":"10.1.2.3/24","Interface":1}],"DNS":{"Domain":"d"}}"#;
    let success = read(text, Version::V0_1_0);
    let ip = IpConfig { interface: Some(1), gateway: None, ..address("10.1.2.3/24", "10.1.2.1") };
    assert_eq!(success.ips, [ip]);
    assert_eq!(success.dns.domain, "d");
}

#[test]
fn an_interface_index_of_zero_is_kept_and_a_missing_one_stays_missing() {
    let text = r#"{"ips":[{"address":"10.1.2.3/24","interface":0},{"address":"10.1.2.4/24"}]}"#;
    for version in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
        let success = read(text, version);
        assert_eq!((success.ips[0].interface, success.ips[1].interface), (Some(0), None));
        let printed = value(&success, version);
        assert_eq!(printed["ips"][0]["interface"], json!(0));
        assert_eq!(printed["ips"][1].get("interface"), None);
    }
}

#[test]
fn host_bits_of_addresses_and_destinations_stay_as_written() {
    let text = r#"{"ips":[{"address":"10.1.2.3/16"}],"routes":[{"dst":"10.1.2.3/16"},{"dst":"2001:db8::1/32"}]}"#;
    for version in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
        let printed = value(&read(text, version), version);
        assert_eq!(printed["ips"][0]["address"], "10.1.2.3/16");
        assert_eq!(printed["routes"], json!([{"dst": "10.1.2.3/16"}, {"dst": "2001:db8::1/32"}]));
    }
}

#[test]
fn a_route_keeps_all_its_attributes_since_0_3() {
    let mut all = route("1.2.3.0/24");
    all.gw = Some("1.2.3.1".parse().unwrap());
    (all.mtu, all.advmss, all.priority, all.table, all.scope) = (1500, 1340, 100, Some(50), Some(253));
    let zero = Route { table: Some(0), scope: Some(0), ..route("1.2.4.0/24") };
    let success = Success { routes: vec![all, zero], ..Success::default() };
    for version in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
        assert_eq!(
            value(&success, version)["routes"],
            json!([
                {"dst": "1.2.3.0/24", "gw": "1.2.3.1", "mtu": 1500, "advmss": 1340, "priority": 100, "table": 50,
                 "scope": 253},
                {"dst": "1.2.4.0/24", "table": 0, "scope": 0}
            ])
        );
        assert_eq!(read(&printed(&success, version), version), success);
    }
}

#[test]
fn the_keys_of_a_full_result_stand_in_the_order_of_their_version() {
    let success = full();
    assert_eq!(
        printed(&success, Version::V1_1_0),
        r#"{
    "cniVersion": "1.1.0",
    "dns": {
        "domain": "d",
        "nameservers": [
            "n"
        ],
        "options": [
            "o"
        ],
        "search": [
            "s"
        ]
    },
    "interfaces": [
        {
            "mac": "m",
            "mtu": 1400,
            "name": "i",
            "pciID": "p",
            "sandbox": "b",
            "socketPath": "k"
        }
    ],
    "ips": [
        {
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1",
            "interface": 0
        }
    ],
    "routes": [
        {
            "advmss": 2,
            "dst": "10.0.0.0/8",
            "gw": "10.1.2.1",
            "mtu": 1,
            "priority": 3,
            "scope": 5,
            "table": 4
        }
    ]
}"#
    );
    assert_eq!(
        printed(&success, Version::V0_3_1),
        r#"{
    "cniVersion": "0.3.1",
    "interfaces": [
        {
            "name": "i",
            "mac": "m",
            "sandbox": "b"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 0,
            "address": "10.1.2.3/24",
            "gateway": "10.1.2.1"
        }
    ],
    "routes": [
        {
            "dst": "10.0.0.0/8",
            "gw": "10.1.2.1",
            "mtu": 1,
            "advmss": 2,
            "priority": 3,
            "table": 4,
            "scope": 5
        }
    ],
    "dns": {
        "nameservers": [
            "n"
        ],
        "domain": "d",
        "search": [
            "s"
        ],
        "options": [
            "o"
        ]
    }
}"#
    );
}

#[test]
fn an_empty_result_has_an_empty_dns_only_in_old_versions() {
    for version in BEFORE_1_0 {
        assert_eq!(
            printed(&Success::default(), version),
            format!("{{\n    \"cniVersion\": \"{version}\",\n    \"dns\": {{}}\n}}")
        );
    }
    for version in SINCE_1_0 {
        assert_eq!(printed(&Success::default(), version), format!("{{\n    \"cniVersion\": \"{version}\"\n}}"));
    }
}

#[test]
fn a_name_is_printed_even_when_empty_and_all_else_of_an_interface_only_when_set() {
    let success = Success { interfaces: vec![Interface::default()], ..Success::default() };
    for version in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
        assert_eq!(value(&success, version)["interfaces"], json!([{"name": ""}]));
    }
}

#[test]
fn an_mtu_of_zero_is_not_printed() {
    let interfaces = vec![Interface { mtu: Some(0), ..Interface::default() }];
    let success = Success { interfaces, ..Success::default() };
    assert_eq!(value(&success, Version::V1_1_0)["interfaces"], json!([{"name": ""}]));
}

#[test]
fn an_ipv4_mapped_gateway_is_printed_as_ipv4() {
    let mapped: IpAddr = "::ffff:10.1.2.1".parse().unwrap();
    let ips = vec![IpConfig { gateway: Some(mapped), ..address("10.1.2.3/24", "10.1.2.1") }];
    let routes = vec![Route { gw: Some(mapped), ..route("0.0.0.0/0") }];
    let success = Success { ips, routes, ..Success::default() };
    for version in SINCE_1_0 {
        let printed = value(&success, version);
        assert_eq!(printed["ips"][0]["gateway"], "10.1.2.1");
        assert_eq!(printed["routes"][0]["gw"], "10.1.2.1");
    }
}

#[test]
fn html_and_line_separators_are_escaped() {
    let success = Success {
        dns: Dns { domain: "<a>&\u{2028}\u{2029}\"\\é".to_owned(), ..Dns::default() },
        ..Success::default()
    };
    for version in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
        let printed = printed(&success, version);
        assert!(printed.contains(r#""domain": "\u003ca\u003e\u0026\u2028\u2029\"\\é""#), "{printed}");
        assert_eq!(read(&printed, version), success);
    }
}

#[test]
fn versions_of_one_family_differ_in_nothing_but_the_version() {
    for family in [&BEFORE_0_3[..], &BEFORE_1_0, &SINCE_1_0] {
        for (one, other) in family.iter().zip(family.iter().skip(1)) {
            let text = printed(&full(), *one);
            assert_eq!(text.replace(one.as_str(), other.as_str()), printed(&full(), *other));
        }
    }
}

#[test]
fn an_old_result_read_and_printed_as_a_newer_one_and_back_is_the_same() {
    for gateway in [None, Some("10.1.2.9")] {
        let mut routes = json!([{"dst": "10.0.0.0/8"}]);
        if let Some(gateway) = gateway {
            routes[0]["gw"] = json!(gateway);
        }
        let old = json!({
            "cniVersion": "0.2.0",
            "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": routes},
            "ip6": {"ip": "2001:db8::3/64", "routes": [{"dst": "::/0"}]},
            "dns": {"nameservers": ["10.1.2.1"], "domain": "d", "search": ["s"], "options": ["o"]}
        });
        let success = read(&old.to_string(), Version::V0_2_0);
        for newer in BEFORE_1_0.into_iter().chain(SINCE_1_0) {
            let through = read(&printed(&success, newer), newer);
            assert_eq!(value(&through, Version::V0_2_0), old);
        }
    }
}

#[test]
fn an_old_result_becomes_addresses_without_interfaces_and_the_routes_of_both_families() {
    let text = r#"{"ip6":{"ip":"2001:db8::3/64","routes":[{"dst":"::/0"}]},"ip4":{"ip":"10.1.2.3/24",
        "gateway":"10.1.2.1","routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.9"}]}}"#;
    let success = read(text, Version::V0_1_0);
    assert_eq!(
        value(&success, Version::V1_0_0),
        json!({
            "cniVersion": "1.0.0",
            "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1"}, {"address": "2001:db8::3/64"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.2.9"}, {"dst": "::/0"}]
        })
    );
}

#[test]
fn before_0_3_only_the_first_address_of_each_family_is_told() {
    let success = Success {
        interfaces: vec![Interface { name: "eth0".to_owned(), ..Interface::default() }],
        ips: ["10.0.0.1/8", "10.0.0.2/8", "2001:db8::1/64", "2001:db8::2/64"]
            .map(|text| IpConfig { gateway: None, ..address(text, "10.0.0.1") })
            .to_vec(),
        ..Success::default()
    };
    for version in BEFORE_0_3 {
        assert_eq!(
            value(&success, version),
            json!({"cniVersion": version.as_str(), "ip4": {"ip": "10.0.0.1/8"}, "ip6": {"ip": "2001:db8::1/64"},
                   "dns": {}})
        );
    }
}

#[test]
fn before_0_3_routes_of_a_family_without_an_address_are_dropped() {
    let success = Success {
        ips: vec![address("2001:db8::1/64", "2001:db8::9")],
        routes: vec![route("0.0.0.0/0"), Route { table: Some(5), mtu: 1400, ..route("::/0") }],
        ..Success::default()
    };
    for version in BEFORE_0_3 {
        let ip6 = json!({"ip": "2001:db8::1/64", "gateway": "2001:db8::9", "routes": [{"dst": "::/0"}]});
        assert_eq!(value(&success, version), json!({"cniVersion": version.as_str(), "ip6": ip6, "dns": {}}));
    }
}

#[test]
fn before_0_3_a_result_without_an_address_cannot_be_told() {
    let success = Success { ips: Vec::new(), ..full() };
    for version in Version::ALL {
        let printed = success.print(version);
        assert_eq!(printed.is_ok(), success.is_printable(version));
        assert_eq!(printed.is_ok(), !BEFORE_0_3.contains(&version));
        if let Err(error) = printed {
            assert_eq!(error.to_string(), "cannot convert: no valid IP addresses");
            assert_eq!(error.code(), ErrorCode::Internal);
        }
    }
}

#[test]
fn a_previous_result_is_read_in_the_family_of_its_configuration() {
    for (version, captured) in captured_interfaces() {
        let previous: Value = serde_json::from_str(&captured).unwrap();
        for (configured, of_family) in Version::ALL.map(|other| (other, family(other) == family(version))) {
            let result = previous_result(Some(configured.as_str()), &previous);
            match result {
                Ok(success) => {
                    assert!(of_family, "{version} under {configured}");
                    assert_eq!(success, Some(read(&captured, version)));
                }
                Err(error) => {
                    assert!(!of_family, "{version} under {configured}: {error}");
                    let members = family_members(configured);
                    assert_eq!(
                        error,
                        format!(
                            "could not parse prevResult: result type supports [{members}] but unmarshalled CNIVersion \
                             is \"{version}\""
                        )
                    );
                }
            }
        }
    }
}

#[test]
fn a_previous_result_of_an_unknown_version_is_refused() {
    for named in ["5678.456", "1.2.0", "1.0"] {
        assert_eq!(
            previous_result(Some("1.1.0"), &json!({"cniVersion": named})).unwrap_err(),
            format!(
                "could not parse prevResult: result type supports [1.0.0 1.1.0] but unmarshalled CNIVersion is \
                 \"{named}\""
            )
        );
    }
}

#[test]
fn a_previous_result_without_a_version_has_that_of_its_configuration() {
    for (version, captured) in captured_interfaces() {
        let mut previous: Value = serde_json::from_str(&captured).unwrap();
        previous.as_object_mut().unwrap().remove("cniVersion");
        let success = previous_result(Some(version.as_str()), &previous).unwrap();
        assert_eq!(success, Some(read(&captured, version)));
    }
}

#[test]
fn a_previous_result_with_an_empty_version_is_of_the_oldest_family() {
    let previous = json!({"cniVersion": "", "ip4": {"ip": "10.1.2.3/24"}});
    for version in Version::ALL {
        let result = previous_result(Some(version.as_str()), &previous);
        if BEFORE_0_3.contains(&version) {
            assert_eq!(result.unwrap().unwrap().ips[0].address.to_string(), "10.1.2.3/24");
        } else {
            let wanted =
                format!("result type supports [{}] but unmarshalled CNIVersion is \"\"", family_members(version));
            assert_eq!(result.unwrap_err(), format!("could not parse prevResult: {wanted}"));
        }
    }
}

#[test]
fn a_configuration_without_a_version_has_a_previous_result_of_the_oldest_family() {
    let previous = json!({"ip4": {"ip": "10.1.2.3/24"}, "ips": [{"address": "10.9.9.9/24"}]});
    for configured in [None, Some("")] {
        let success = previous_result(configured, &previous).unwrap().unwrap();
        let addresses: Vec<String> = success.ips.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(addresses, ["10.1.2.3/24"]);
    }
}

#[test]
fn an_absent_previous_result_is_none_and_a_malformed_one_an_error() {
    assert_eq!(NetworkConfig::parse(r#"{"name":"n"}"#).unwrap().previous_result().unwrap(), None);
    assert_eq!(previous_result(Some("1.0.0"), &Value::Null).unwrap(), None);
    for previous in [json!({"ips": 5}), json!({"ips": [{"address": "x"}]}), json!({"cniVersion": 1})] {
        let error = previous_result(Some("1.0.0"), &previous).unwrap_err();
        assert!(error.starts_with("could not parse prevResult: "), "{error}");
    }
    assert!(previous_result(Some("1.0.0"), &json!("text")).is_err());
}

#[test]
fn every_result_survives_printing_but_for_what_the_version_cannot_tell() {
    for_all(&any_success(), |success| {
        for version in Version::ALL {
            let Ok(printed) = success.print(version) else {
                assert!(BEFORE_0_3.contains(&version) && success.ips.is_empty(), "{version}");
                continue;
            };
            // Another version is asked for than the one it names, which is the one to count.
            let reread = Success::parse(&printed, Version::V0_1_0).unwrap();
            assert_eq!(reread, told_in(&success, version), "{version}");
            let reprinted = reread.print(version).unwrap();
            assert_eq!(String::from_utf8_lossy(&reprinted), String::from_utf8_lossy(&printed), "{version}");
        }
    });
}

#[test]
fn every_printed_result_is_plain_json_to_others() {
    for_all(&any_success(), |success| {
        for version in Version::ALL {
            let Ok(printed) = success.print(version) else {
                assert!(success.ips.is_empty());
                continue;
            };
            let document: Value = serde_json::from_slice(&printed).unwrap();
            assert_eq!(document["cniVersion"], version.as_str());
            let text = String::from_utf8(printed).unwrap();
            assert!(!text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) && text.ends_with('}'), "{text}");
        }
    });
}

#[test]
fn no_bytes_make_a_reader_panic() {
    for_all(&vec(any::<u8>(), 0..200), |bytes| read_as_everything(&bytes));
}

#[test]
fn no_json_makes_a_reader_panic() {
    for_all(&any_document(), |document| read_as_everything(document.to_string().as_bytes()));
}

#[test]
fn no_damage_to_a_result_makes_a_reader_panic() {
    let damage = (0..captured_interfaces().len(), any::<usize>(), any::<u8>(), any::<bool>());
    for_all(&damage, |(which, at, byte, truncate)| {
        let mut bytes = captured_interfaces().swap_remove(which).1.into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if truncate {
            bytes.truncate(at);
        }
        read_as_everything(&bytes);
    });
}

#[test]
fn deep_nesting_is_refused_and_not_followed_to_the_end_of_the_stack() {
    for text in ["[".repeat(1_000_000), "{\"ips\":".repeat(1_000_000)] {
        assert!(Success::parse(text.as_bytes(), Version::V1_1_0).is_err());
        assert!(NetworkConfig::parse(text.as_bytes()).is_err());
        assert!(NetworkConfigList::parse(text.as_bytes()).is_err());
    }
}

#[test]
fn arguments_are_read_or_refused_and_never_panic() {
    for_all(&prop_oneof![any_text(), "[ab=;]{0,12}", "(IgnoreUnknown=(1|0|x);?|a=b?;?|c=d;?){0,4}"], |text| {
        let pieces: Vec<&str> = text.split(';').filter(|_| !text.is_empty()).collect();
        let well_formed = pieces.iter().all(|piece| piece.matches('=').count() == 1);
        if let Ok(args) = Args::parse(&text, &["a"]) {
            assert!(well_formed, "{text:?}");
            let last = pieces.iter().rev().find_map(|piece| piece.strip_prefix("a="));
            assert_eq!(args.value("a"), last.filter(|value| !value.is_empty()), "{text:?}");
        } else {
            let known = pieces.iter().all(|piece| piece.starts_with("a="));
            assert!(!well_formed || !known, "{text:?}");
        }
    });
}

#[test]
fn hardware_addresses_are_read_as_printed_and_nothing_panics() {
    for_all(&any::<[u8; 6]>(), |bytes| {
        let printed = MacAddress(bytes).to_string();
        assert_eq!(printed.len(), 17);
        for text in [printed.clone(), printed.to_uppercase(), printed.replace(':', "-")] {
            assert_eq!(text.parse::<MacAddress>(), Ok(MacAddress(bytes)));
        }
    });
    for_all(&prop_oneof![any_text(), "[0-9a-fA-F]{2}([:.-][0-9a-fA-F]{0,4}){0,8}"], |text| {
        if let Ok(address) = text.parse::<MacAddress>() {
            let digits = |text: &str| text.replace([':', '-', '.'], "").to_lowercase();
            assert_eq!(digits(&address.to_string()), digits(&text));
        }
    });
}

#[test]
fn a_cidr_is_an_address_a_slash_and_digits() {
    let address = prop_oneof![
        any::<IpAddr>().prop_map(|address| address.to_string()),
        "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}",
        "(0|1|25[0-9])(\\.(0|01|1|255)){3}",
        "[0-9a-fA-F]{0,4}(:[0-9a-fA-F]{0,5}){1,9}",
        "(::)?(ffff:){0,7}[0-9.]{1,9}",
        "(a:){0,7}(::)?(b:){0,3}(c|10\\.0\\.0\\.1|10\\.0\\.0|::)?(%eth0)?",
        any_text(),
    ];
    let length = prop_oneof![
        any::<u8>().prop_map(|length| length.to_string()),
        (0..=32u8).prop_map(|length| length.to_string()),
        "0{0,4}[0-9]{0,4}",
        "[-+ ]?[0-9]{1,2}( |/8|\\.0)?",
        any_text(),
    ];
    let separator = prop_oneof![8 => Just("/"), 1 => Just(""), 1 => Just("//"), 1 => Just(" /")];
    for_all(&(address, separator, length), |(address, separator, length)| {
        let text = format!("{address}{separator}{length}");
        let parsed = text.parse::<Cidr>();
        assert_eq!(parsed.is_ok(), is_cidr(&text), "{text:?}");
        match parsed {
            Ok(cidr) => {
                assert_eq!(Ok(cidr), cidr.to_string().parse(), "{text:?}");
                let (_, length) = text.split_once('/').unwrap();
                assert_eq!(cidr.prefix().to_string(), digits_without_leading_zeros(length), "{text:?}");
                assert!(cidr.contains(cidr.address()) && cidr.contains(cidr.network()) && cidr.contains(cidr.last()));
            }
            Err(error) => assert_eq!(error, format!("invalid CIDR address: {text}")),
        }
    });
}

/// What is left of a result once it was printed in `version`.
fn told_in(success: &Success, version: Version) -> Success {
    let mut told = success.clone();
    if SINCE_1_0.contains(&version) {
        return told;
    }
    for interface in &mut told.interfaces {
        let Interface { mtu, socket_path, pci_id, .. } = interface;
        (*mtu, *socket_path, *pci_id) = (None, String::new(), String::new());
    }
    if BEFORE_1_0.contains(&version) {
        return told;
    }
    let mut oldest = Success { dns: told.dns, ..Success::default() };
    for ipv4 in [true, false] {
        if let Some(ip) = success.ips.iter().find(|ip| ip.address.address().is_ipv4() == ipv4) {
            oldest.ips.push(IpConfig { interface: None, ..ip.clone() });
            let routes = success.routes.iter().filter(|route| route.dst.address().is_ipv4() == ipv4);
            oldest.routes.extend(routes.map(|told| Route { gw: told.gw, ..Route::new(told.dst) }));
        }
    }
    oldest
}

fn read_as_everything(bytes: &[u8]) {
    for version in Version::ALL {
        if let Ok(success) = Success::parse(bytes, version) {
            for version in Version::ALL {
                assert_eq!(success.print(version).is_ok(), success.is_printable(version));
            }
        }
    }
    if let Ok(config) = NetworkConfig::parse(bytes) {
        assert_eq!(config.bytes(), bytes);
        let _readable = (config.version(), config.ipam_type(), config.previous_result(), config.valid_attachments());
    }
    if let Ok(list) = NetworkConfigList::parse_either(bytes) {
        // What was changed and written again is read again.
        let changed = list.clone().edited(|plugin| plugin.set("key", &1));
        assert!(NetworkConfigList::parse_either(changed.unwrap().bytes()).unwrap().types().eq(list.types()));
        assert!(!list.is_empty());
        for index in 0..list.len() {
            let _readable = list.plugin(index, &[]);
        }
        assert!(list.plugin(list.len(), &[]).is_err());
    }
}

/// Whether `text` is an address, a slash and a prefix length, by the grammar alone.
fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else {
        return false;
    };
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u128 = digits_without_leading_zeros(length).parse().unwrap_or(u128::MAX);
    is_number && ((is_ipv4(address) && length <= 32) || (is_ipv6(address) && length <= 128))
}

fn is_ipv4(text: &str) -> bool {
    let octet = |text: &str| {
        let plain = !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        plain && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().unwrap() <= 255
    };
    text.split('.').count() == 4 && text.split('.').all(octet)
}

fn is_ipv6(text: &str) -> bool {
    // How many groups of 16 bits there are, an IPv4 address at the very end standing for two.
    let groups = |text: &str, at_the_end: bool| {
        let parts: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split(':').collect() };
        let mut count = 0;
        for (index, part) in parts.iter().enumerate() {
            let is_group = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_tail = at_the_end && index + 1 == parts.len() && is_ipv4(part);
            count += match (is_group, is_tail) {
                (true, _) => 1,
                (false, true) => 2,
                (false, false) => return None,
            };
        }
        Some(count)
    };
    match text.split_once("::") {
        None => groups(text, true) == Some(8),
        Some((head, tail)) => groups(head, false).zip(groups(tail, true)).is_some_and(|(head, tail)| head + tail <= 7),
    }
}

fn digits_without_leading_zeros(digits: &str) -> String {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() { "0".to_owned() } else { digits.to_owned() }
}

fn any_success() -> impl Strategy<Value = Success> {
    let interface = (any_text(), any_text(), option::of(1..=u32::MAX), any_text(), any_text(), any_text()).prop_map(
        |(name, mac, mtu, sandbox, socket_path, pci_id)| Interface { name, mac, mtu, sandbox, socket_path, pci_id },
    );
    let ip = (any_cidr(), option::of(any_gateway()), option::of(any::<i64>()))
        .prop_map(|(address, gateway, interface)| IpConfig { address, gateway, interface });
    let number = || prop_oneof![Just(0), any::<u32>()];
    let (table, scope) = (option::of(number()), option::of(any::<u8>()));
    let route = (any_cidr(), option::of(any_gateway()), number(), number(), number(), table, scope).prop_map(
        |(dst, gw, mtu, advmss, priority, table, scope)| Route { dst, gw, mtu, advmss, priority, table, scope },
    );
    let texts = || vec(any_text(), 0..3);
    let dns = (texts(), any_text(), texts(), texts()).prop_map(|(nameservers, domain, search, options)| Dns {
        nameservers,
        domain,
        search,
        options,
    });
    let dns = prop_oneof![Just(Dns::default()), dns];
    (vec(interface, 0..3), vec(ip, 0..4), vec(route, 0..5), dns).prop_map(|(interfaces, ips, routes, dns)| Success {
        interfaces,
        ips,
        routes,
        dns,
    })
}

fn any_cidr() -> impl Strategy<Value = Cidr> {
    (any::<IpAddr>(), any::<u8>()).prop_map(|(address, length)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        Cidr::new(address, length % (bits + 1)).unwrap().to_canonical()
    })
}

fn any_gateway() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|address| address.to_canonical())
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ -~]{0,12}",
        "\\PC{0,6}",
        vec(any::<char>(), 0..6).prop_map(String::from_iter),
        Just("<a href=\"x\">&\u{2028}\u{2029}\u{0}\u{7f}\n</a>".to_owned()),
    ]
}

/// JSON with the keys and the kinds of values that are looked for, in places where they may or may not belong.
fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
        any_cidr().prop_map(|cidr| Value::from(cidr.to_string())),
        proptest::sample::select(Version::ALL.to_vec()).prop_map(|version| Value::from(version.as_str())),
    ];
    let key = proptest::sample::select(vec![
        "cniVersion",
        "cniVersions",
        "name",
        "type",
        "plugins",
        "ipam",
        "prevResult",
        "interfaces",
        "ips",
        "ip4",
        "ip6",
        "ip",
        "routes",
        "dns",
        "address",
        "gateway",
        "interface",
        "dst",
        "gw",
        "mtu",
        "table",
        "scope",
        "mac",
        "disableCheck",
        "cni.dev/valid-attachments",
        "containerID",
        "ifname",
        "CNIVERSION",
        "Plugins",
    ]);
    leaf.prop_recursive(5, 64, 8, move |inner| {
        let entries = vec((key.clone(), inner.clone()), 0..8);
        prop_oneof![
            vec(inner, 0..4).prop_map(Value::from),
            entries.prop_map(|entries| entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

fn for_all<S: Strategy>(strategy: &S, check: impl Fn(S::Value)) {
    let config = Config { failure_persistence: None, ..Config::with_cases(512) };
    let result = TestRunner::new(config).run(strategy, |value| {
        check(value);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn captured_interfaces() -> Vec<(Version, String)> {
    in_all_versions(INTERFACE_BEFORE_0_3, INTERFACE_BEFORE_1_0, INTERFACE_SINCE_1_0)
}

fn captured_addresses() -> Vec<(Version, String)> {
    in_all_versions(ADDRESS_BEFORE_0_3, ADDRESS_BEFORE_1_0, ADDRESS_SINCE_1_0)
}

/// Within a family only the version differs.
fn in_all_versions(before_0_3: &str, before_1_0: &str, since_1_0: &str) -> Vec<(Version, String)> {
    let in_version = |version: Version| match version {
        Version::V0_1_0 | Version::V0_2_0 => before_0_3.replace("\"0.2.0\"", &format!("\"{version}\"")),
        Version::V0_3_0 | Version::V0_3_1 | Version::V0_4_0 => {
            before_1_0.replace("\"0.4.0\"", &format!("\"{version}\""))
        }
        Version::V1_0_0 | Version::V1_1_0 => since_1_0.replace("\"1.1.0\"", &format!("\"{version}\"")),
    };
    Version::ALL.map(|version| (version, in_version(version))).to_vec()
}

fn family(version: Version) -> usize {
    usize::from(version >= Version::V0_3_0) + usize::from(version >= Version::V1_0_0)
}

fn family_members(version: Version) -> &'static str {
    [" 0.1.0 0.2.0", "0.3.0 0.3.1 0.4.0", "1.0.0 1.1.0"][family(version)]
}

fn previous_result(configured: Option<&str>, previous: &Value) -> Result<Option<Success>, String> {
    let mut config = json!({"name": "n", "prevResult": previous});
    if let Some(version) = configured {
        config["cniVersion"] = json!(version);
    }
    NetworkConfig::parse(config.to_string()).unwrap().previous_result().map_err(|error| error.to_string())
}

/// The example with the given hardware address, last part of the addresses, and default routes.
fn with_interface(mac: &str, host: &str, default_routes: &[&str]) -> Success {
    let special = Route {
        gw: Some("10.1.2.5".parse().unwrap()),
        mtu: 1300,
        priority: 77,
        table: Some(100),
        scope: Some(0),
        ..route("192.168.0.0/16")
    };
    Success {
        interfaces: vec![Interface::new("eth0", mac.parse().unwrap(), "/var/run/netns/c1")],
        ips: vec![
            address(&format!("10.1.2.{host}/24"), "10.1.2.1"),
            address(&format!("2001:db8:1::{host}/64"), "2001:db8:1::1"),
        ],
        routes: default_routes.iter().map(|dst| route(dst)).chain([special]).collect(),
        dns: Dns { nameservers: vec!["9.9.9.9".to_owned()], ..Dns::default() },
    }
}

/// A result with every field set.
fn full() -> Success {
    let text = str::to_owned;
    Success {
        interfaces: vec![Interface {
            name: text("i"),
            mac: text("m"),
            mtu: Some(1400),
            sandbox: text("b"),
            socket_path: text("k"),
            pci_id: text("p"),
        }],
        ips: vec![address("10.1.2.3/24", "10.1.2.1")],
        routes: vec![Route {
            dst: "10.0.0.0/8".parse().unwrap(),
            gw: Some("10.1.2.1".parse().unwrap()),
            mtu: 1,
            advmss: 2,
            priority: 3,
            table: Some(4),
            scope: Some(5),
        }],
        dns: Dns { nameservers: vec![text("n")], domain: text("d"), search: vec![text("s")], options: vec![text("o")] },
    }
}

fn address(address: &str, gateway: &str) -> IpConfig {
    IpConfig { address: address.parse().unwrap(), gateway: Some(gateway.parse().unwrap()), interface: Some(0) }
}

fn route(dst: &str) -> Route {
    Route::new(dst.parse().unwrap())
}

fn read(text: &str, version: Version) -> Success {
    Success::parse(text.as_bytes(), version).unwrap()
}

fn printed(success: &Success, version: Version) -> String {
    String::from_utf8(success.print(version).unwrap()).unwrap()
}

fn value(success: &Success, version: Version) -> Value {
    serde_json::from_str(&printed(success, version)).unwrap()
}
