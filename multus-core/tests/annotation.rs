//! Both grammars of the annotations, and what is said of text that is in neither.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

use multus_core::{NetworkSelection, parse_default_network, parse_networks};
use proptest::prelude::*;

#[test]
fn the_short_form_is_a_list_of_names() {
    for (text, expected) in [
        ("", &[][..]),
        ("net1", &["ns/net1"][..]),
        ("default/net1", &["default/net1"]),
        ("net1@my_interface", &["ns/net1@my_interface"]),
        ("default/net1@my_interface", &["default/net1@my_interface"]),
        ("net1,net2", &["ns/net1", "ns/net2"]),
        (" net1 ,\tother/net2@eth1\n", &["ns/net1", "other/net2@eth1"]),
        ("/net1", &["ns/net1"]),
        ("net1@", &["ns/net1"]),
        ("0-a@A.b-c_d", &["ns/0-a@A.b-c_d"]),
        ("net1@123456789012345", &["ns/net1@123456789012345"]),
    ] {
        let networks = parse_networks(text, "ns").unwrap();
        assert_eq!(networks.iter().map(short).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn what_is_wrong_in_the_short_form_is_named_with_its_place() {
    for (text, place, problem) in [
        ("net1,a/b/c", 1, "there is more than one \"/\""),
        ("a@b@c", 0, "there is more than one \"@\""),
        ("a@b/c", 0, "a namespace has lower case letters"),
        ("Net1", 0, "a name has lower case letters"),
        ("net_1", 0, "a name has lower case letters"),
        ("-net1", 0, "a name has lower case letters"),
        ("a.b", 0, "with \".\" it needs the JSON form"),
        ("NS/net1", 0, "a namespace has lower case letters"),
        ("net1,,net2", 1, "the name is missing"),
        ("net1,", 1, "the name is missing"),
        ("   ", 0, "the name is missing"),
        ("net1@a b", 0, "white"),
        ("net1@a:b", 0, "contains / or :"),
        ("net1@1234567890123456", 0, "interface name is too long"),
        ("net1@..", 0, "interface name is . or .."),
    ] {
        let error = parse_networks(text, "ns").unwrap_err().to_string();
        let start = format!("\"networks[{place}]\" must be [namespace/]name[@interface], not ");
        assert!(error.starts_with(&start) && error.contains(problem), "{text:?}: {error}");
    }
}

#[test]
fn the_json_form_has_every_field() {
    let text = r#"[{"name":"a.b","namespace":"lab","interface":"lab0","ips":["10.1.1.11/24","2001:db8::1"],
        "mac":"C2-11-22-33-44-66","infiniband-guid":"24:8a:07:03:00:8d:ae:2e","deviceID":"0000:03:02.0",
        "portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"10.0.0.1"},null],
        "bandwidth":{"ingressRate":1,"ingressBurst":2,"egressRate":3,"egressBurst":4},
        "cni-args":{"big":12345678901234567890123},"default-route":["10.1.1.1","::ffff:10.1.1.2"],"ipRequest":5},
        {"NAME":"b","interfaceRequest":"old0","default-route":[],"ips":null},{"name":"c","interface":"","namespace":""},
        {"name":"d","interface":"new0","interfaceRequest":"old0"}]"#;
    let networks = parse_networks(text, "ns").unwrap();
    assert_eq!(networks.iter().map(short).collect::<Vec<_>>(), ["lab/a.b@lab0", "ns/b@old0", "ns/c", "ns/d@new0"]);
    let request = &networks[0].request;
    assert_eq!(request.ips, ["10.1.1.11/24", "2001:db8::1"]);
    assert_eq!(request.mac.as_deref(), Some("C2-11-22-33-44-66"));
    assert_eq!(request.infiniband_guid.as_deref(), Some("24:8a:07:03:00:8d:ae:2e"));
    assert_eq!(request.device_id.as_deref(), Some("0000:03:02.0"));
    assert_eq!((request.port_mappings.len(), request.port_mappings[0].host_port), (1, 8080));
    assert_eq!(
        (request.port_mappings[0].protocol.as_str(), request.port_mappings[0].host_ip.as_str()),
        ("TCP", "10.0.0.1")
    );
    let bandwidth = request.bandwidth.unwrap();
    assert_eq!((bandwidth.ingress_rate, bandwidth.ingress_burst), (1, 2));
    assert_eq!((bandwidth.egress_rate, bandwidth.egress_burst), (3, 4));
    assert_eq!(request.cni_args.as_ref().unwrap().value("big").unwrap().get(), "12345678901234567890123");
    let gateways: Vec<String> = request.default_route.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(gateways, ["10.1.1.1", "10.1.1.2"]);
    assert_eq!(networks[1].request.default_route, Some(vec![]));
    assert_eq!(networks[2].request.default_route, None);
    assert!(parse_networks("[]", "ns").unwrap().is_empty());
}

#[test]
fn what_is_wrong_in_the_json_form_is_named_with_network_and_field() {
    for (element, error) in [
        ("null", r#""networks[1]" must be an object, not null"#),
        (r#""net1""#, r#""networks[1]" must be an object, not "net1""#),
        ("{}", r#""networks[1].name" is missing"#),
        (r#"{"name":""}"#, r#""networks[1].name" is missing"#),
        (r#"{"name":5}"#, r#""networks[1].name" must be a string, not 5"#),
        (r#"{"name":"../../secrets"}"#, r#""networks[1].name" must be a name: lower case"#),
        (r#"{"name":"a","namespace":"A"}"#, r#""networks[1].namespace" must be a namespace: lower case"#),
        (
            r#"{"name":"a","mac":"x"}"#,
            r#"network "ns/a": "networks[1].mac" must be a hardware address such as 02:00:00:00:00:01, not "x""#,
        ),
        (
            r#"{"name":"a","infiniband-guid":"x"}"#,
            r#"network "ns/a": "networks[1].infiniband-guid" must be a hardware"#,
        ),
        (r#"{"name":"a","ips":["10.0.0.1/33"]}"#, r#"network "ns/a": "networks[1].ips[0]" must be an address such as"#),
        (
            r#"{"name":"a","ips":["10.0.0.1",null]}"#,
            r#"network "ns/a": "networks[1].ips[1]" must be a string, not null"#,
        ),
        (r#"{"name":"a","ips":"10.0.0.1"}"#, r#"network "ns/a": "networks[1].ips" must be an array"#),
        (
            r#"{"name":"a","interface":"a/b"}"#,
            r#"network "ns/a": "networks[1].interface" must be a name for an interface"#,
        ),
        (
            r#"{"name":"a","interfaceRequest":"a b"}"#,
            r#"network "ns/a": "networks[1].interfaceRequest" must be a name"#,
        ),
        (
            r#"{"name":"a","default-route":["10.0.0.1/24"]}"#,
            r#"network "ns/a": "networks[1].default-route[0]" must be"#,
        ),
        (
            r#"{"name":"a","default-route":"10.0.0.1"}"#,
            r#"network "ns/a": "networks[1].default-route" must be an array"#,
        ),
        (
            r#"{"name":"a","bandwidth":{"ingressRate":"1"}}"#,
            r#"network "ns/a": "networks[1].bandwidth.ingressRate" must be"#,
        ),
        (r#"{"name":"a","portMappings":{}}"#, r#"network "ns/a": "networks[1].portMappings" must be an array"#),
        (r#"{"name":"a","cni-args":[1]}"#, r#"network "ns/a": "networks[1].cni-args" must be an object"#),
        (r#"{"name":"a","deviceID":1}"#, r#"network "ns/a": "networks[1].deviceID" must be a string, not 1"#),
    ] {
        let found = parse_networks(&format!(r#"[{{"name":"ok"}},{element}]"#), "ns").unwrap_err().to_string();
        assert!(found.starts_with(error), "{element}: {found}");
    }
    for text in ["[adsfasdfasdfasf]", "{", "[{\"name\":\"a\"}", r#"{"name":"a"}"#, r#""net1""#, "net1,net[2"] {
        let error = parse_networks(text, "ns").unwrap_err().to_string();
        let start = "annotation k8s.v1.cni.cncf.io/networks: failed to parse pod Network Attachment Selection Annotation \
                     JSON format: ";
        assert!(error.starts_with(start), "{text}: {error}");
    }
}

#[test]
fn a_long_value_is_cut() {
    let error = parse_networks(&"A".repeat(100_000), "ns").unwrap_err().to_string();
    assert!(error.len() < 300, "{error}");
    for name in ["É".repeat(100_000), "a".repeat(254), "a.".repeat(126) + "bb"] {
        let error = parse_networks(&format!(r#"[{{"name":"{name}"}}]"#), "ns").unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }
    assert!(parse_networks(&"a".repeat(253), "ns").is_ok());
}

#[test]
fn the_default_network_is_one() {
    assert_eq!(short(&parse_default_network("net1@pub0", "kube-system").unwrap()), "kube-system/net1@pub0");
    assert_eq!(short(&parse_default_network(r#"[{"name":"net1","namespace":"lab"}]"#, "x").unwrap()), "lab/net1");
    let error = parse_default_network(r#"[{"name":"a","mac":"x"}]"#, "ns").unwrap_err().to_string();
    assert!(error.starts_with(r#"network "ns/a": "default-network[0].mac" must be"#), "{error}");
}

/// Values of a field, good and bad.
fn field() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "name",
        "namespace",
        "interface",
        "ips",
        "mac",
        "portMappings",
        "bandwidth",
        "cni-args",
        "default-route",
        "deviceID",
    ]);
    let value = prop::sample::select(vec![
        "null",
        "5",
        "\"a\"",
        "[]",
        "{}",
        "[null]",
        "[\"10.0.0.1\"]",
        "{\"a\":[]}",
        "\"02:00:00:00:00:01\"",
        "[{}]",
        "\"\\u0000\"",
    ]);
    (key, value).prop_map(|(key, value)| format!("\"{key}\":{value}"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _either = parse_networks(&text, "ns");
        let _either = parse_default_network(&text, "ns");
    }

    #[test]
    fn no_text_of_its_characters_makes_it_panic(text in r#"[\[\]{}":,/@ a-cA.\\-]{0,40}"#) {
        let _either = parse_networks(&text, "ns");
        let _either = parse_default_network(&text, "ns");
    }

    #[test]
    fn no_element_makes_it_panic(elements in prop::collection::vec(prop::collection::vec(field(), 0..6), 0..4)) {
        let objects: Vec<String> = elements.iter().map(|fields| format!("{{{}}}", fields.join(","))).collect();
        let text = format!("[{}]", objects.join(","));
        // Whatever is read has names that Kubernetes could have given.
        for network in parse_networks(&text, "ns").unwrap_or_default() {
            prop_assert!(!network.name.is_empty() && !network.namespace.is_empty());
            prop_assert!(network.to_string().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte)));
        }
    }

    #[test]
    fn the_short_form_is_read_as_it_was_written(
        networks in prop::collection::vec(("[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?", "[a-z]{1,9}", "[A-Za-z0-9_.-]{0,10}[a-z]"), 1..5),
    ) {
        let items: Vec<String> = networks.iter().map(|(name, space, ifname)| format!("{space}/{name}@{ifname}")).collect();
        let read = parse_networks(&items.join(" , "), "ns").unwrap();
        prop_assert_eq!(read.iter().map(short).collect::<Vec<_>>(), items.clone());
        let json = |(name, space, ifname): &(String, String, String)| {
            serde_json::json!({"name": name, "namespace": space, "interface": ifname})
        };
        let text = serde_json::Value::Array(networks.iter().map(json).collect()).to_string();
        let read = parse_networks(&text, "ns").unwrap();
        prop_assert_eq!(read.iter().map(short).collect::<Vec<_>>(), items);
    }
}

/// The selection in the short form.
fn short(network: &NetworkSelection) -> String {
    let ifname = network.request.ifname.as_ref().map(|ifname| format!("@{ifname}"));
    format!("{network}{}", ifname.unwrap_or_default())
}
