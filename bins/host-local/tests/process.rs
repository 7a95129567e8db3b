//! The program as a runtime runs it: environment and standard input in; result, exit status and files out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Reply};

const PROGRAM: &str = env!("CARGO_BIN_EXE_host-local");
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn results_are_printed_byte_for_byte() {
    let since_1_0 = r#"{
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
    let before_1_0 = r#"{
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
    let before_0_3 = r#"{
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
    for (version, expected) in [("1.1.0", since_1_0), ("0.4.0", before_1_0), ("0.2.0", before_0_3)] {
        let host = Host::new();
        let routes = json!([{"dst": "0.0.0.0/0"}]);
        let config = host.config(version, json!({"ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": routes}));
        let reply = host.call("ADD", &config).run();
        assert_eq!(reply, Reply { status: Some(0), stdout: expected.to_owned(), stderr: String::new() });
    }
}

#[test]
fn both_families_routes_and_name_servers_are_told_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let resolv_conf = host.directory.path().join("resolv.conf");
        fs::write(&resolv_conf, "nameserver 192.0.2.3\n").unwrap();
        let config = host.config(
            version,
            json!({
                "resolvConf": resolv_conf,
                "ranges": [[{"subnet": "10.1.2.0/24"}, {"subnet": "10.2.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
                "routes": [
                    {"dst": "0.0.0.0/0"},
                    {"dst": "::/0"},
                    {"dst": "192.168.0.0/16", "gw": "1.1.1.1"},
                    {"dst": "2001:db8:2::0/64", "gw": "2001:db8:3::1"},
                ],
            }),
        );
        let reply = host.call("ADD", &config).container("dummy").run();
        let result = reply.result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"], json!({"nameservers": ["192.0.2.3"]}));
        let ipv4_routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "1.1.1.1"}]);
        let ipv6_routes = json!([{"dst": "::/0"}, {"dst": "2001:db8:2::/64", "gw": "2001:db8:3::1"}]);
        if version < "0.3.0" {
            let ip4 = json!({"ip": "10.1.2.2/24", "gateway": "10.1.2.1", "routes": ipv4_routes});
            let ip6 = json!({"ip": "2001:db8:1::2/64", "gateway": "2001:db8:1::1", "routes": ipv6_routes});
            assert_eq!((&result["ip4"], &result["ip6"]), (&ip4, &ip6), "{version}");
        } else {
            let mut ips = json!([
                {"address": "10.1.2.2/24", "gateway": "10.1.2.1"},
                {"address": "2001:db8:1::2/64", "gateway": "2001:db8:1::1"},
            ]);
            if version < "1.0.0" {
                ips[0]["version"] = json!("4");
                ips[1]["version"] = json!("6");
            }
            assert_eq!(result["ips"], ips, "{version}");
            let routes = json!([ipv4_routes[0], ipv6_routes[0], ipv4_routes[1], ipv6_routes[1]]);
            assert_eq!(result["routes"], routes, "{version}");
        }
        assert_eq!(reply.stderr, "", "nothing about a missing last address");
        assert_eq!(host.content("10.1.2.2"), "dummy\r\neth0");
        assert_eq!(host.content("2001:db8:1::2"), "dummy\r\neth0");
        assert_eq!(host.content("last_reserved_ip.0"), "10.1.2.2");
        assert_eq!(host.content("last_reserved_ip.1"), "2001:db8:1::2");
        let reply = host.call("DEL", &config).container("dummy").run();
        assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
        assert_eq!(host.names("storage"), ["last_reserved_ip.0", "last_reserved_ip.1", "lock"], "{version}");
    }
}

#[test]
fn networks_are_apart_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let mut configs = [host.small(version), host.small(version)];
        for (config, name) in configs.iter_mut().zip(["mynet0", "mynet1"]) {
            config["name"] = json!(name);
        }
        for (config, ifname) in configs.iter().zip(["eth0", "eth1"]) {
            let reply = host.call("ADD", config).env("CNI_IFNAME", ifname).run();
            assert_eq!(addresses(&reply.result()), ["10.1.2.2/24"], "{version}");
        }
        host.call("DEL", &configs[0]).run().succeeded();
        assert_eq!(host.reserved("mynet0"), [""; 0]);
        assert_eq!(host.reserved("mynet1"), ["10.1.2.2"]);
        host.call("DEL", &configs[1]).env("CNI_IFNAME", "eth1").run().succeeded();
        assert_eq!(host.reserved("mynet1"), [""; 0], "{version}");
    }
}

#[test]
fn a_second_add_of_an_attachment_is_refused_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let config = host.small(version);
        let add = |container| host.call("ADD", &config).container(container).run();
        let duplicate = "failed to allocate for range 0: 10.1.2.2 has been allocated to c1, duplicate allocation is \
                         not allowed";
        assert_eq!(addresses(&add("c1").result()), ["10.1.2.2/24"]);
        assert_eq!(add("c1").error(), (999, duplicate.to_owned(), String::new()));
        assert_eq!(addresses(&add("c2").result()), ["10.1.2.3/24"]);
        assert_eq!(add("c1").error().1, duplicate);
        for (container, left) in [("c1", &["10.1.2.3"][..]), ("c2", &[])] {
            host.call("DEL", &config).container(container).run().succeeded();
            assert_eq!(host.reserved("storage"), left, "{version}");
        }
    }
}

#[test]
fn records_of_the_container_alone_are_released_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let config = host.small(version);
        host.call("ADD", &config).run().succeeded();
        fs::write(host.path("storage/10.1.2.2"), "c1").unwrap();
        if version >= "0.4.0" {
            host.call("CHECK", &config).run().succeeded();
        }
        host.call("DEL", &config).run().succeeded();
        assert_eq!(host.reserved("storage"), [""; 0], "{version}");
    }
}

#[test]
fn releasing_an_unknown_container_succeeds_in_every_version() {
    for version in VERSIONS {
        let host = Host::new();
        let config = host.small(version);
        host.call("DEL", &config).run().succeeded();
        assert!(!host.path("").exists(), "nothing is made for it");
        host.call("ADD", &config).run().succeeded();
        host.call("DEL", &config).container("unknown").without("CNI_NETNS").run().succeeded();
        host.call("DEL", &config).env("CNI_IFNAME", "net7").run().succeeded();
        assert_eq!(host.reserved("storage"), ["10.1.2.2"], "{version}");
    }
}

#[test]
fn requested_addresses_are_given_in_every_version() {
    let two_sets = json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.3.0/24"}]]});
    let both_families =
        json!({"ranges": [[{"subnet": "172.16.1.0/24"}, {"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/48"}]]});
    let cases = [
        (json!({"subnet": "10.1.2.0/24"}), json!(["10.1.2.88"]), Ok(&["10.1.2.88/24"][..])),
        (two_sets.clone(), json!(["10.1.2.88", "10.1.3.77"]), Ok(&["10.1.2.88/24", "10.1.3.77/24"])),
        (both_families, json!(["10.1.2.88", "2001:db8:1::999"]), Ok(&["10.1.2.88/24", "2001:db8:1::999/48"])),
        (two_sets, json!(["10.1.2.88", "10.1.2.77"]), Err("failed to allocate all requested IPs: 10.1.2.")),
    ];
    for version in VERSIONS {
        for (ipam, ips, expected) in &cases {
            let host = Host::new();
            let mut config = host.config(version, ipam.clone());
            config["args"] = json!({"cni": {"ips": ips}});
            let reply = host.call("ADD", &config).run();
            let ranges = ipam["ranges"].to_string();
            let two_of_a_family = ranges.contains("10.1.3.0");
            if version < "0.3.0" && two_of_a_family {
                let text = format!("CNI version {version} does not support more than 1 address per family");
                assert_eq!(reply.error(), (999, text, String::new()));
                assert!(!host.path("").exists());
                continue;
            }
            match expected {
                Ok(expected) => assert_eq!(addresses(&reply.result()), *expected, "{version}"),
                Err(prefix) => {
                    let (code, message, _) = reply.error();
                    assert!(code == 999 && message.starts_with(prefix), "{version}: {message}");
                    assert_eq!(host.reserved("storage"), [""; 0]);
                }
            }
        }
    }
}

#[test]
fn an_address_may_be_requested_by_argument_and_by_the_runtime() {
    let host = Host::new();
    let mut config = host.small("1.1.0");
    let reply = host.call("ADD", &config).env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p;IP=10.1.2.9/8").run();
    assert_eq!(addresses(&reply.result()), ["10.1.2.9/24"]);
    config["runtimeConfig"] = json!({"ips": ["10.1.2.200/24"]});
    assert_eq!(addresses(&host.call("ADD", &config).container("c2").run().result()), ["10.1.2.200/24"]);
    config["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.7.7.0/24"}]]});
    let reply = host.call("ADD", &config).container("c3").run();
    assert_eq!(addresses(&reply.result()), ["10.7.7.2/24", "10.1.2.2/24"]);
    // The place in the list, ranges of the runtime first, is the number of the file.
    assert_eq!(host.content("last_reserved_ip.0"), "10.7.7.2");
    assert_eq!(host.content("last_reserved_ip.1"), "10.1.2.2");
}

#[test]
fn the_versions_are_told_without_reading_anything() {
    let versions = r#"["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]"#;
    let line = format!("{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":{versions}}}\n");
    let mut child = Command::new(PROGRAM)
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    // Standard input stays open, so reading it would never end.
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), child.wait().unwrap().code()), (line.as_str(), Some(0)));
}

#[test]
fn without_a_command_it_introduces_itself_on_standard_error() {
    let expected = format!(
        "CNI host-local plugin v{}\nCNI protocol versions supported: {}\n",
        env!("CARGO_PKG_VERSION"),
        VERSIONS.join(", ")
    );
    for command in [None, Some("")] {
        let call = Call::new(PROGRAM, command.unwrap_or_default(), Path::new("/run/netns/c1"));
        let call = if command.is_none() { call.without("CNI_COMMAND") } else { call };
        assert_eq!(call.run(), Reply { status: Some(0), stdout: String::new(), stderr: expected.clone() });
    }
}

#[test]
fn a_bad_environment_is_refused_and_nothing_is_touched() {
    let all = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let long = "interface name should be less than 16 characters";
    for (command, set, unset, expected) in [
        (
            "ADD",
            None,
            &all[..],
            (4, "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing", ""),
        ),
        ("CHECK", None, &["CNI_NETNS", "CNI_PATH"], (4, "required env variables [CNI_NETNS,CNI_PATH] missing", "")),
        ("DEL", None, &all, (4, "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing", "")),
        ("GC", None, &all, (4, "required env variables [CNI_PATH] missing", "")),
        ("STATUS", None, &all, (4, "required env variables [CNI_PATH] missing", "")),
        ("ADD", Some(("CNI_IFNAME", "")), &[], (4, "required env variables [CNI_IFNAME] missing", "")),
        // A bad value is told of before a missing one.
        ("ADD", Some(("CNI_CONTAINERID", "../c")), &["CNI_PATH"], (4, "invalid characters in containerID", "../c")),
        ("ADD", Some(("CNI_CONTAINERID", "c1\n")), &[], (4, "invalid characters in containerID", "c1\n")),
        ("ADD", Some(("CNI_CONTAINERID", "-c")), &[], (4, "invalid characters in containerID", "-c")),
        ("DEL", Some(("CNI_CONTAINERID", "c 1")), &[], (4, "invalid characters in containerID", "c 1")),
        ("ADD", Some(("CNI_IFNAME", "a234567890123456")), &[], (4, "interface name is too long", long)),
        ("ADD", Some(("CNI_IFNAME", "..")), &[], (4, "interface name is . or ..", "")),
        ("CHECK", Some(("CNI_IFNAME", "a/b")), &[], (4, "interface name contains / or : or whitespace characters", "")),
        ("FROB", None, &all, (4, "unknown CNI_COMMAND: FROB", "")),
        ("add", None, &[], (4, "unknown CNI_COMMAND: add", "")),
        ("ADD", Some(("CNI_ARGS", "FOO=bar")), &[], (999, r#"ARGS: unknown args ["FOO=bar"]"#, "")),
        ("ADD", Some(("CNI_ARGS", "IP=10.1.2.9;")), &[], (999, r#"ARGS: invalid pair """#, "")),
        (
            "ADD",
            Some(("CNI_ARGS", "IP=zz")),
            &[],
            (999, r#"ARGS: error parsing value of pair "IP=zz": invalid IP address zz"#, ""),
        ),
        ("CHECK", Some(("CNI_ARGS", "ip=10.1.2.9")), &[], (999, r#"ARGS: unknown args ["ip=10.1.2.9"]"#, "")),
    ] {
        let host = Host::new();
        let mut call = host.call(command, &host.small("1.1.0"));
        if let Some((key, value)) = set {
            call = call.env(key, value);
        }
        for key in unset {
            call = call.without(key);
        }
        let (code, message, details) = expected;
        assert_eq!(call.run().error(), (code, message.to_owned(), details.to_owned()), "{command} {set:?}");
        assert!(!host.path("").exists(), "{command} {set:?}");
    }
}

#[test]
fn a_bad_configuration_is_refused_and_nothing_is_touched() {
    let host = Host::new();
    let good = host.small("1.1.0");
    let with = |pointer: &str, value: Value| {
        let mut config = good.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        config.to_string()
    };
    let unknown = r#"config is "0.5.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;
    let ends = "error unmarshall network config: unexpected end of JSON input";
    let missing = "/nonexistent/resolv.conf";
    for (command, stdin, code, message, details) in [
        ("ADD", String::new(), 6, ends, ""),
        ("FROB", String::new(), 6, ends, ""),
        ("ADD", "{\"name\":".to_owned(), 6, ends, ""),
        ("ADD", "[]".to_owned(), 6, "error unmarshall network config: ", ""),
        ("ADD", format!("{good} x"), 6, "error unmarshall network config: ", ""),
        ("ADD", with("/name", json!(5)), 6, "error unmarshall network config: ", ""),
        ("ADD", "null".to_owned(), 7, "missing network name", ""),
        ("GC", with("/name", json!("")), 7, "missing network name", ""),
        ("DEL", with("/name", json!("../x")), 7, "invalid characters found in network name", "../x"),
        ("ADD", with("/cniVersion", json!("0.5.0")), 1, "incompatible CNI versions", unknown),
        ("DEL", with("/cniVersion", json!("0.5.0")), 1, "incompatible CNI versions", unknown),
        ("ADD", with("/cniVersion", json!(1)), 6, "decoding version from network config: json: cannot unmarshal ", ""),
        ("CHECK", with("/cniVersion", json!("0.3.1")), 1, "config version does not allow CHECK", ""),
        ("CHECK", with("/cniVersion", json!("2.0.0")), 1, "plugin version does not allow CHECK", ""),
        ("GC", with("/cniVersion", json!("1.0.0")), 1, "config version does not allow GC", ""),
        ("STATUS", with("/cniVersion", json!("1.0.0")), 1, "config version does not allow STATUS", ""),
        ("ADD", with("/ipam", Value::Null), 999, "IPAM config missing 'ipam' key", ""),
        ("ADD", with("/ipam/subnet", json!("10.1.2.9/24")), 999, "invalid range set 0: Network has host bits set.", ""),
        ("CHECK", with("/ipam/subnet", json!("10.1.2.0/31")), 999, "invalid range set 0: Network 10.1.2.0/31 too", ""),
        ("ADD", with("/ipam/ranges", json!([[{"subnet": "10.1.0.0/16"}]])), 999, "range set 0 overlaps with 1", ""),
        (
            "ADD",
            with("/args", json!({"cni": {"ips": [null]}})),
            999,
            "\"args.cni.ips[0]\" must be a string, not null",
            "",
        ),
        ("ADD", with("/ipam/routes", json!([null])), 999, "\"ipam.routes[0]\" must be an object, not null", ""),
        ("ADD", with("/args", json!({"cni": {"ips": ["zz"]}})), 999, "invalid IP address zz", ""),
        (
            "ADD",
            with("/ipam/resolvConf", json!(missing)),
            999,
            "open /nonexistent/resolv.conf: no such file or dir",
            "",
        ),
    ] {
        let reply = host.call(command, &good).stdin(stdin.clone()).run();
        let (found_code, found_message, found_details) = reply.error();
        assert_eq!((found_code, found_details.as_str()), (code, details), "{command} {stdin}: {found_message}");
        assert!(found_message.starts_with(message), "{command} {stdin}: {found_message}");
        assert!(!reply.stdout.ends_with('\n'));
        assert!(!host.path("").exists(), "{command} {stdin}");
    }
}

#[test]
fn an_error_is_printed_byte_for_byte() {
    let host = Host::new();
    let reply = host.call("ADD", &host.small("0.5.0")).stdin(r#"{"name":"a&b"}"#).run();
    let expected = "{\n    \"code\": 7,\n    \"msg\": \"invalid characters found in network name\",\n    \
                    \"details\": \"a\\u0026b\"\n}";
    assert_eq!(reply, Reply { status: Some(1), stdout: expected.to_owned(), stderr: String::new() });
    let reply = host.call("FROB", &host.small("1.1.0")).run();
    assert_eq!(reply.stdout, "{\n    \"code\": 4,\n    \"msg\": \"unknown CNI_COMMAND: FROB\"\n}");
}

#[test]
fn its_own_namespace_is_refused_before_anything_is_done() {
    let host = Host::new();
    let config = host.small("1.1.0");
    let message = "plugin's netns and netns from CNI_NETNS should not be the same";
    let own = |command| host.call(command, &config).env("CNI_NETNS", "/proc/self/ns/net");
    let (code, text, _) = own("ADD").run().error();
    assert_eq!((code, text.as_str()), (8, message));
    assert!(!host.path("").exists());
    own("ADD").env("CNI_NETNS_OVERRIDE", "True").run().succeeded();
    let (code, text, _) = own("DEL").run().error();
    assert_eq!((code, text.as_str()), (8, message));
    assert_eq!(host.reserved("storage"), ["10.1.2.2"]);
    own("CHECK").run().succeeded();
    own("DEL").env("CNI_NETNS_OVERRIDE", "1").run().succeeded();
    assert_eq!(host.reserved("storage"), [""; 0]);
}

#[test]
fn a_check_finds_the_reservation_or_says_so() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let host = Host::new();
        let mut config = host.small(version);
        let unknown = (999, "host-local: Failed to find address added by container c1".to_owned(), String::new());
        let check = |config: &Value| host.call("CHECK", config).run();
        assert_eq!(check(&config).error(), unknown);
        assert!(!host.path("").exists(), "nothing is made for it");
        let result = host.call("ADD", &config).run().result();
        assert_eq!(check(&config), Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
        config["prevResult"] = result;
        check(&config).succeeded();
        assert_eq!(host.call("CHECK", &config).env("CNI_IFNAME", "net1").run().error(), unknown);
        // The reservation is there, but of another address than the runtime was told.
        config["prevResult"]["ips"][0]["address"] = json!("10.1.2.77/24");
        let (code, message, _) = check(&config).error();
        assert_eq!(code, 999);
        assert_eq!(message, "host-local: address 10.1.2.77 is not reserved for container c1, interface eth0");
        // An address of somebody else's range is not this plugin's affair.
        config["prevResult"]["ips"][0]["address"] = json!("10.66.2.77/24");
        check(&config).succeeded();
        host.call("DEL", &config).run().succeeded();
        assert_eq!(check(&config).error(), unknown);
    }
}

#[test]
fn what_was_reserved_can_be_released_whatever_became_of_the_configuration() {
    let host = Host::new();
    let good = host.small("1.1.0");
    for (place, value, args) in [
        ("/ipam/subnet", json!("10.1.2.9/24"), ""),
        ("/ipam/subnet", json!("192.168.0.0/24"), ""),
        ("/ipam/subnet", Value::Null, ""),
        ("/ipam/ranges", json!([[]]), ""),
        ("/ipam/ranges", json!("nonsense"), ""),
        ("/ipam/resolvConf", json!("/nonexistent"), ""),
        ("/ipam/routes", json!([{"dst": "nowhere"}]), ""),
        ("/args", json!({"cni": {"ips": ["zz"]}}), ""),
        ("/prevResult", json!("nonsense"), ""),
        ("/cniVersion", json!("0.2.0"), ""),
        ("/name", json!("storage"), "FOO=bar"),
        ("/name", json!("storage"), "IP=zz;"),
    ] {
        host.call("ADD", &good).run().succeeded();
        let mut config = good.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        config.pointer_mut(parent).unwrap()[key] = value;
        let reply = host.call("DEL", &config).env("CNI_ARGS", args).run();
        assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() }, "{config}");
        assert_eq!(host.reserved("storage"), [""; 0], "{config}");
    }
}

#[test]
fn a_release_ends_all_addresses_of_the_attachment_and_no_others() {
    let host = Host::new();
    let config = host.small("1.1.0");
    for (ifname, request) in [("eth0", "IP=10.1.2.9"), ("eth0", "IP=10.1.2.10"), ("net1", "IP=10.1.2.11")] {
        host.call("ADD", &config).env("CNI_IFNAME", ifname).env("CNI_ARGS", request).run().succeeded();
    }
    host.call("ADD", &config).container("c10").run().succeeded();
    host.call("DEL", &config).run().succeeded();
    assert_eq!(host.reserved("storage"), ["10.1.2.11", "10.1.2.12"]);
    assert_eq!(host.content("last_reserved_ip.0"), "10.1.2.12");
}

#[test]
fn the_status_is_50_when_a_set_has_no_address_left() {
    let host = Host::new();
    let ranges = json!([[{"subnet": "10.1.2.0/30"}], [{"subnet": "2001:db8::/64"}]]);
    let config = host.config("1.1.0", json!({"ranges": ranges}));
    let status = || host.call("STATUS", &config).without("CNI_CONTAINERID").without("CNI_IFNAME").run();
    let ready = Reply { status: Some(0), stdout: String::new(), stderr: String::new() };
    assert_eq!(status(), ready);
    assert!(!host.path("").exists(), "nothing is made for it");
    host.call("ADD", &config).run().succeeded();
    let full = "no IP addresses available in range set: 10.1.2.1-10.1.2.2";
    assert_eq!(status().error(), (50, full.to_owned(), String::new()));
    let refused = host.call("ADD", &config).container("c2").run().error();
    assert_eq!(refused, (999, format!("failed to allocate for range 0: {full}"), String::new()));
    host.call("DEL", &config).run().succeeded();
    assert_eq!(status(), ready);
}

#[test]
fn garbage_is_what_the_list_does_not_name() {
    let host = Host::new();
    let mut config = host.small("1.1.0");
    let gc = |config: &Value| {
        let reply = host.call("GC", config).without("CNI_CONTAINERID").without("CNI_IFNAME").run();
        assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
    };
    config["cni.dev/valid-attachments"] = json!([]);
    gc(&config);
    assert!(!host.path("").exists(), "nothing is made for it");
    for container in ["c1", "c2", "c3"] {
        host.call("ADD", &config).container(container).run().succeeded();
    }
    fs::write(host.path("storage/10.1.2.50"), "old1").unwrap();
    fs::write(host.path("storage/10.1.2.51"), "old2").unwrap();
    fs::write(host.path("storage/notes"), "old2").unwrap();
    for absent in [None, Some(Value::Null)] {
        let mut config = host.small("1.1.0");
        if let Some(value) = absent {
            config["cni.dev/valid-attachments"] = value;
        }
        gc(&config);
        assert_eq!(host.reserved("storage").len(), 5, "nothing is known, so nothing is garbage");
    }
    config["cni.dev/valid-attachments"] = json!([
        {"containerID": "c2", "ifname": "eth0"},
        {"containerID": "c3", "ifname": "net1"},
        {"containerID": "old1", "ifname": "eth0"},
    ]);
    gc(&config);
    assert_eq!(host.reserved("storage"), ["10.1.2.3", "10.1.2.50"]);
    config["ipam"]["subnet"] = json!("not a subnet");
    config["cni.dev/valid-attachments"] = json!([]);
    gc(&config);
    assert_eq!(host.names("storage"), ["last_reserved_ip.0", "lock", "notes"]);
    config["cni.dev/valid-attachments"] = json!("all");
    assert_eq!(host.call("GC", &config).run().error().0, 999);
}

#[test]
fn files_have_the_bytes_and_modes_of_the_go_plugin() {
    let host = Host::new();
    let config =
        host.config("1.1.0", json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]}));
    let mut child = Command::new("sh")
        .args(["-c", "umask 022; exec \"$0\"", PROGRAM])
        .env_clear()
        .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_NETNS", "/run/netns/c1"), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(host.path("")), 0o755);
    assert_eq!(mode(host.path("storage")), 0o755);
    for (name, expected, content) in [
        ("10.1.2.2", 0o600, &b"\x63\x31\x0d\x0a\x65\x74\x68\x30"[..]),
        ("2001:db8:1::2", 0o600, b"c1\r\neth0"),
        ("last_reserved_ip.0", 0o600, b"10.1.2.2"),
        ("last_reserved_ip.1", 0o600, b"2001:db8:1::2"),
        ("lock", 0o750, b""),
    ] {
        let path = host.path("storage").join(name);
        assert_eq!(fs::read(&path).unwrap(), content, "{name}");
        assert_eq!(mode(path), expected, "{name}");
    }
    assert_eq!(host.names("storage").len(), 5, "and nothing else");
}

#[test]
fn processes_at_the_same_time_get_different_addresses() {
    let host = Host::new();
    let config = host.config("1.1.0", json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]}));
    let add_twenty = |worker: usize| {
        let add =
            |turn: usize| addresses(&host.call("ADD", &config).container(&format!("c{worker}-{turn}")).run().result());
        (0..20).flat_map(add).collect::<Vec<String>>()
    };
    let given: Vec<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|worker| scope.spawn(move || add_twenty(worker))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(given.len(), 2 * 8 * 20);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), given.len(), "{given:?}");
    assert_eq!(host.reserved("storage").len(), given.len());
    thread::scope(|scope| {
        for worker in 0..8 {
            let (host, config) = (&host, &config);
            scope.spawn(move || {
                for turn in 0..20 {
                    host.call("DEL", config).container(&format!("c{worker}-{turn}")).run().succeeded();
                }
            });
        }
    });
    assert_eq!(host.reserved("storage"), [""; 0]);
}

#[test]
fn an_add_killed_at_any_instant_leaves_a_whole_reservation_or_none() {
    const KILLS: u32 = 200;
    let host = Host::new();
    let ranges = json!([[{"subnet": "10.1.0.0/22"}], [{"subnet": "2001:db8::/64"}]]);
    let config = host.config("1.1.0", json!({"ranges": ranges}));
    let whole = Killable::start(&host, &config, "whole").run_to_the_end();
    let mut killed = 0;
    for kill in 0..KILLS {
        let container = format!("k{kill}");
        let before = host.reserved("storage").len();
        let add = Killable::start(&host, &config, &container);
        // Every tenth once its first address is there, the others at instants from the first to after the last.
        let delay = whole * kill * 3 / (KILLS * 2);
        let ripe = |elapsed| if kill % 10 == 9 { host.reserved("storage").len() > before } else { elapsed >= delay };
        killed += u32::from(add.kill_when(ripe));
        for (address, content) in host.contents("storage") {
            let (id, ifname) = content.split_once("\r\n").unwrap_or_default();
            assert!(ifname == "eth0" && (id == "whole" || id.starts_with('k')), "{address}: {content:?}");
        }
    }
    assert!(killed > 0 && host.reserved("storage").len() > 2, "{killed} of {KILLS} killed: too early or too late");
    for kill in 0..KILLS {
        host.call("DEL", &config).container(&format!("k{kill}")).run().succeeded();
    }
    assert_eq!(host.reserved("storage"), ["10.1.0.2", "2001:db8::2"], "those of the ADD that was not killed");
    host.call("DEL", &config).container("whole").run().succeeded();
    assert_eq!(host.reserved("storage"), [""; 0]);
    // Nothing that a kill left stands in the way.
    host.call("ADD", &config).run().succeeded();
}

#[test]
fn an_add_whose_result_nobody_gets_reserves_nothing() {
    let host = Host::new();
    let config = host.config("1.1.0", json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8::/64"}]]}));
    host.call("ADD", &config).container("other").run().succeeded();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = command(&host, "c1").stdin(Stdio::piped()).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("Error writing error JSON to stdout: "), "{stderr}");
    assert_eq!(host.reserved("storage"), ["10.1.2.2", "2001:db8::2"]);
    // The same ADD again is no duplicate.
    assert_eq!(addresses(&host.call("ADD", &config).run().result()), ["10.1.2.4/24", "2001:db8::4/64"]);
}

#[test]
fn an_add_whose_reader_is_gone_reserves_nothing() {
    let host = Host::new();
    let config = host.small("1.1.0");
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let mut child = command(&host, "c1").stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "no signal");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("Error writing error JSON to stdout: "), "{stderr}");
    assert_eq!(host.reserved("storage"), [""; 0]);
}

#[test]
fn standard_streams_that_are_closed_harm_no_file() {
    let host = Host::new();
    let config = host.small("1.1.0");
    let reply = host.call("ADD", &config).through(&["sh", "-c", "exec \"$0\" >&- 2>&-"]).run();
    assert_eq!((reply.status, reply.stdout.as_str()), (Some(0), ""));
    assert_eq!(host.reserved("storage"), ["10.1.2.2"]);
    assert_eq!(host.content("10.1.2.2"), "c1\r\neth0");
    assert_eq!(host.content("last_reserved_ip.0"), "10.1.2.2");
    for lock in ["storage/lock", ".host-local/storage.attachments"] {
        assert_eq!(fs::read_to_string(host.path(lock)).unwrap(), "", "{lock}");
    }
    let reply = host.call("CHECK", &config).through(&["sh", "-c", "exec \"$0\" <&-"]).run();
    assert_eq!(reply.error().0, 6, "an empty configuration");
}

#[test]
fn a_failed_add_leaves_the_store_as_it_was() {
    let host = Host::new();
    let mut config = host.small("1.1.0");
    fs::create_dir_all(host.path("storage/last_reserved_ip.0")).unwrap();
    let (code, message, _) = host.call("ADD", &config).run().error();
    assert_eq!(code, 999);
    assert!(
        message.starts_with("failed to allocate for range 0: ") && message.ends_with(": is a directory"),
        "{message}"
    );
    assert_eq!(host.reserved("storage"), [""; 0]);
    fs::write(host.directory.path().join("file"), "").unwrap();
    config["ipam"]["dataDir"] = json!(host.directory.path().join("file"));
    for command in ["ADD", "DEL", "CHECK", "STATUS"] {
        let (code, message, _) = host.call(command, &config).run().error();
        assert!(code == 999 && message.ends_with(": not a directory"), "{command}: {message}");
    }
}

#[test]
fn a_relative_data_directory_is_under_the_working_directory() {
    let host = Host::new();
    let mut config = host.small("1.1.0");
    config["ipam"]["dataDir"] = json!("relative/networks");
    let mut child = command(&host, "c1")
        .current_dir(host.directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(host.directory.path().join("relative/networks/storage/10.1.2.2").is_file());
}

/// A data directory that does not exist yet, and calls that use it.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A path in the data directory.
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("networks").join(name)
    }

    /// A configuration of the network `storage` with these keys in `ipam`.
    fn config(&self, version: &str, mut ipam: Value) -> Value {
        ipam["type"] = json!("host-local");
        ipam["dataDir"] = json!(self.path(""));
        json!({"cniVersion": version, "name": "storage", "type": "macvlan", "master": "ens32", "ipam": ipam})
    }

    fn small(&self, version: &str) -> Value {
        self.config(version, json!({"subnet": "10.1.2.0/24"}))
    }

    fn call(&self, command: &str, config: &Value) -> Call {
        Call::new(PROGRAM, command, &self.directory.path().join("netns")).config(config)
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path("storage").join(name)).unwrap()
    }

    /// The names of a network's files, sorted; none when there is no directory.
    fn names(&self, network: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(network)).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn reserved(&self, network: &str) -> Vec<String> {
        self.names(network).into_iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }

    fn contents(&self, network: &str) -> Vec<(String, String)> {
        let content = |name: String| {
            let text = fs::read_to_string(self.path(network).join(&name)).unwrap();
            (name, text)
        };
        self.reserved(network).into_iter().map(content).collect()
    }
}

/// The addresses in a result of any version.
fn addresses(result: &Value) -> Vec<String> {
    let new = result["ips"].as_array().into_iter().flatten().map(|ip| &ip["address"]);
    let old = ["ip4", "ip6"].into_iter().map(|key| &result[key]["ip"]);
    new.chain(old).filter_map(Value::as_str).map(str::to_owned).collect()
}

fn command(host: &Host, container: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .env_clear()
        .envs([("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", container), ("CNI_IFNAME", "eth0")])
        .envs([("CNI_PATH", "/opt/cni/bin")])
        .env("CNI_NETNS", host.directory.path().join("netns"));
    command
}

/// An ADD that has read all of its configuration but the end.
struct Killable(Child);

impl Killable {
    fn start(host: &Host, config: &Value, container: &str) -> Self {
        let mut child = command(host, container).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // More than a pipe holds, so the program is up and reading when it is written.
        let text = format!("{config}{}", " ".repeat(256 * 1024));
        child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
        Self(child)
    }

    fn run_to_the_end(mut self) -> Duration {
        let start = Instant::now();
        assert!(self.0.wait().unwrap().success());
        start.elapsed()
    }

    /// Ends its input, and kills it when the time since is `ripe`; whether it had not ended by itself.
    fn kill_when(mut self, ripe: impl Fn(Duration) -> bool) -> bool {
        drop(self.0.stdin.take());
        let start = Instant::now();
        while !ripe(start.elapsed()) && self.0.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        self.0.kill().unwrap();
        self.0.wait().unwrap().signal().is_some()
    }
}
