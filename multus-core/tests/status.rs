//! What is reported to Kubernetes: network-status, events, and the routes that the interfaces have in the end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking, and says where")]

use multus_cni::{NetworkConfigList, Success, Version};
use multus_core::{DefaultRoute, DefaultRoutes, Delegate, DeviceInfo, Event, NetworkStatus};

const BRIDGE: &str = r#"{"cniVersion":"0.4.0",
    "interfaces":[{"name":"cni0","mac":"aa:aa:aa:aa:aa:aa"},{"name":"veth1","mac":"bb:bb:bb:bb:bb:bb"},
                  {"name":"eth0","mac":"7e:57:6a:9b:6b:b5","sandbox":"/n"}],
    "ips":[{"version":"4","interface":2,"address":"10.244.1.4/24","gateway":"10.244.1.1"}],
    "routes":[{"dst":"10.244.0.0/16"},{"dst":"0.0.0.0/0","gw":"10.244.1.1"}]}"#;
const MACVLAN: &str = r#"{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mac":"36:b3:c5:29:ad:b8","sandbox":"/n","mtu":1400}],
    "ips":[{"interface":0,"address":"10.1.1.101/24"},{"address":"2001:db8::5/64"}],"dns":{"search":["x"],"nameservers":["10.1.1.1"]}}"#;

#[test]
fn the_annotation_is_that_of_multus_to_the_letter() {
    let info = DeviceInfo::parse(br#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.0","extra":1}}"#)
        .unwrap();
    let mut statuses = NetworkStatus::of(&success(BRIDGE), "cbr0", true, None);
    statuses.extend(NetworkStatus::of(&success(MACVLAN), "default/macvlan-conf-1", false, Some(&info)));
    assert_eq!(
        NetworkStatus::print(&statuses),
        r#"[{
    "name": "cbr0",
    "interface": "eth0",
    "ips": [
        "10.244.1.4"
    ],
    "mac": "7e:57:6a:9b:6b:b5",
    "default": true,
    "dns": {},
    "gateway": [
        "10.244.1.1"
    ]
},{
    "name": "default/macvlan-conf-1",
    "interface": "net1",
    "ips": [
        "10.1.1.101",
        "2001:db8::5"
    ],
    "mac": "36:b3:c5:29:ad:b8",
    "mtu": 1400,
    "dns": {
        "nameservers": [
            "10.1.1.1"
        ],
        "search": [
            "x"
        ]
    },
    "device-info": {
        "type": "pci",
        "version": "1.1.0",
        "pci": {
            "pci-address": "0000:03:02.0"
        }
    }
}]"#
    );
    assert_eq!(NetworkStatus::print(&[]), "[]");
}

#[test]
fn every_field_of_dns_and_of_a_device_is_told() {
    let dns = r#"{"nameservers":["10.1.1.1"],"domain":"a.b","search":["c.d"],"options":["ndots:2"]}"#;
    let text = format!(r#"{{"cniVersion":"1.0.0","interfaces":[{{"name":"a","sandbox":"/n"}}],"dns":{dns}}}"#);
    let print = |info: Option<&DeviceInfo>| {
        let printed = NetworkStatus::print(&NetworkStatus::of(&success(&text), "n", false, info));
        let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
        (value[0]["dns"].to_string(), value[0]["device-info"].clone())
    };
    let told: serde_json::Value = serde_json::from_str(&print(None).0).unwrap();
    assert_eq!(told, serde_json::from_str::<serde_json::Value>(dns).unwrap());
    for info in [
        r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"a","vhost-net":"b","rdma-device":"c","pf-pci-address":"d",
            "representor-device":"e"}}"#,
        r#"{"type":"vdpa","version":"1.1.0","vdpa":{"parent-device":"a","driver":"vhost","path":"b","pci-address":"c",
            "pf-pci-address":"d","representor-device":"e"}}"#,
        r#"{"type":"vhost-user","version":"1.1.0","vhost-user":{"mode":"client","path":"a"}}"#,
        r#"{"type":"memif","version":"1.1.0","memif":{"role":"master","path":"a","mode":"ip"}}"#,
    ] {
        let parsed = DeviceInfo::parse(info.as_bytes()).unwrap();
        assert_eq!(print(Some(&parsed)).1, serde_json::from_str::<serde_json::Value>(info).unwrap());
    }
}

#[test]
fn a_result_without_interfaces_has_no_status() {
    for text in [
        r#"{"cniVersion":"0.2.0","ip4":{"ip":"1.1.1.2/24"}}"#,
        r#"{"cniVersion":"1.0.0","ips":[{"address":"1.1.1.2/24"}]}"#,
        r#"{"cniVersion":"1.0.0","interfaces":[{"name":"br0"},{"name":"br1"}]}"#,
    ] {
        assert_eq!(NetworkStatus::of(&success(text), "n", true, None), []);
    }
}

#[test]
fn an_only_interface_has_all_addresses_and_a_name_if_it_is_in_the_sandbox() {
    let text = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"a","mac":"m"}],
        "ips":[{"interface":7,"address":"10.0.0.1/24"},{"address":"::ffff:10.0.0.2/120"}]}"#;
    let statuses = NetworkStatus::of(&success(text), "n", true, None);
    assert_eq!(statuses.len(), 1);
    assert_eq!((statuses[0].interface.as_str(), statuses[0].mac.as_str(), statuses[0].default), ("", "", true));
    let ips: Vec<String> = statuses[0].ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn addresses_go_to_their_interface_and_else_to_the_last() {
    let of = |ips: &str, is_master: bool| {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","interfaces":[{{"name":"host"}},{{"name":"a","sandbox":"/n"}},
            {{"name":"b","sandbox":"/n"}},{{"name":"host2"}}],"ips":[{ips}]}}"#
        );
        let statuses = NetworkStatus::of(&success(&text), "n", is_master, None);
        let show = |status: &NetworkStatus| {
            let ips: Vec<String> = status.ips.iter().map(ToString::to_string).collect();
            format!("{}{}={}", status.interface, if status.default { "*" } else { "" }, ips.join("+"))
        };
        statuses.iter().map(show).collect::<Vec<_>>().join(" ")
    };
    let ip = |index: &str, number: u8, gateway: &str| format!(r#"{{{index}"address":"10.0.0.{number}/24"{gateway}}}"#);
    let gateway = r#","gateway":"10.0.0.254""#;
    assert_eq!(of("", true), "a*= b=");
    assert_eq!(of("", false), "a= b=");
    let two = [ip(r#""interface":1,"#, 1, ""), ip(r#""interface":2,"#, 2, gateway)].join(",");
    assert_eq!(of(&two, true), "a=10.0.0.1 b*=10.0.0.2");
    assert_eq!(of(&two, false), "a=10.0.0.1 b=10.0.0.2");
    assert_eq!(of(&ip("", 3, gateway), true), "a*= b=10.0.0.3");
    // Of a link of the host, of none there is, and of none there can be.
    for index in ["0", "9", "-1"] {
        let place = format!(r#""interface":{index},"#);
        assert!(!of(&ip(&place, 1, ""), true).contains("10.0.0.1"));
    }
    assert_eq!(of(&ip(r#""interface":0,"#, 1, gateway), true), "a= b=");
}

#[test]
fn the_gateway_is_the_one_that_the_kernel_uses() {
    let of = |ips: &str, routes: &str| {
        let text = format!(
            r#"{{"cniVersion":"1.0.0","interfaces":[{{"name":"a","sandbox":"/n"}}],"ips":[{ips}],"routes":[{routes}]}}"#
        );
        NetworkStatus::of(&success(&text), "n", false, None)
            .remove(0)
            .gateway
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let with_gateway = r#"{"address":"192.168.1.200/24","gateway":"192.168.1.1"}"#;
    let dual = format!(r#"{with_gateway},{{"address":"2001:db8::5/64","gateway":"2001:db8::1"}}"#);
    let default = r#"{"dst":"0.0.0.0/0"}"#;
    assert_eq!(of(with_gateway, ""), [""; 0]);
    assert_eq!(of(with_gateway, r#"{"dst":"10.0.0.0/8","gw":"192.168.1.9"}"#), [""; 0]);
    assert_eq!(of(with_gateway, default), ["192.168.1.1"]);
    assert_eq!(of(with_gateway, r#"{"dst":"0.0.0.0/0","gw":"192.168.1.9"}"#), ["192.168.1.9"]);
    assert_eq!(of(&dual, r#"{"dst":"::/0"},{"dst":"0.0.0.0/0"}"#), ["2001:db8::1", "192.168.1.1"]);
    assert_eq!(of(r#"{"address":"192.168.1.200/24"}"#, default), [""; 0]);
    assert_eq!(of(with_gateway, r#"{"dst":"0.0.0.0/1","gw":"192.168.1.9"}"#), [""; 0]);
}

#[test]
fn one_default_route_of_a_family_is_left() {
    let (v4, v6) = ("10.1.1.254", "2001:db8::fe");
    let v4_there = DefaultRoute::Replace(v4.parse().unwrap());
    let v6_there = DefaultRoute::Replace(v6.parse().unwrap());
    let (keep, remove) = (DefaultRoute::Keep, DefaultRoute::Remove);
    for (asked, expected) in [
        (&[None, None][..], &[(keep, keep), (keep, keep)][..]),
        (&[None, Some(&[v4][..])], &[(remove, keep), (v4_there, keep)]),
        (&[None, Some(&[v6])], &[(keep, remove), (keep, v6_there)]),
        (&[None, Some(&[v4, v6])], &[(remove, remove), (v4_there, v6_there)]),
        (&[None, Some(&[v4]), Some(&[v6])], &[(remove, remove), (v4_there, remove), (remove, v6_there)]),
        (&[Some(&[v4]), None], &[(v4_there, keep), (remove, keep)]),
        // An empty list asks for nothing.
        (&[None, Some(&[])], &[(keep, keep), (keep, keep)]),
        (&[Some(&[]), Some(&[v4])], &[(remove, keep), (v4_there, keep)]),
    ] {
        let decided = DefaultRoutes::decide(&delegates(asked)).unwrap();
        assert_eq!(decided.iter().map(|routes| (routes.ipv4, routes.ipv6)).collect::<Vec<_>>(), expected, "{asked:?}");
    }
    for asked in [&[Some(&[v4, "10.1.1.1"][..])][..], &[Some(&[v6]), Some(&[v4, "2001:db8::1"])]] {
        let error = DefaultRoutes::decide(&delegates(asked)).unwrap_err().to_string();
        assert!(error.starts_with("multus does not support ECMP for default-route: IPv"), "{error}");
    }
}

#[test]
fn the_result_gets_the_routes_that_are_left() {
    let routes = r#"[{"dst":"0.0.0.0/0","gw":"1.1.1.1"},{"dst":"::/0","gw":"::1"},{"dst":"0::0/0","gw":"::2"},
        {"dst":"0.0.0.0/0","gw":"1.1.1.2"},{"dst":"10.0.0.0/8"},{"dst":"0.0.0.0/1"}]"#;
    let replaced = DefaultRoute::Replace("9.9.9.9".parse().unwrap());
    let replaced6 = DefaultRoute::Replace("2001:db8::9".parse().unwrap());
    for (ipv4, ipv6, expected) in [
        (DefaultRoute::Keep, DefaultRoute::Keep, "1.1.1.1 ::1 ::2 1.1.1.2 - -"),
        (DefaultRoute::Remove, DefaultRoute::Keep, "::1 ::2 - -"),
        (DefaultRoute::Keep, DefaultRoute::Remove, "1.1.1.1 1.1.1.2 - -"),
        (replaced, DefaultRoute::Remove, "- - 9.9.9.9"),
        (replaced, replaced6, "- - 9.9.9.9 2001:db8::9"),
    ] {
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let mut success = success(&format!(r#"{{"cniVersion":"{version}","routes":{routes}}}"#));
            DefaultRoutes { ipv4, ipv6 }.apply(&mut success);
            let left: Vec<String> =
                success.routes.iter().map(|route| route.gw.map_or("-".to_owned(), |gw| gw.to_string())).collect();
            assert_eq!(left.join(" "), expected);
        }
    }
    let old = r#"{"cniVersion":"0.2.0","ip6":{"ip":"2001:db8::5/64","routes":[{"dst":"::/0","gw":"::1"}]}}"#;
    let mut old = success(old);
    DefaultRoutes { ipv4: DefaultRoute::Keep, ipv6: replaced6 }.apply(&mut old);
    let printed: serde_json::Value = serde_json::from_slice(&old.print(Version::V0_2_0).unwrap()).unwrap();
    assert_eq!(printed["ip6"]["routes"], serde_json::json!([{"dst": "::/0", "gw": "2001:db8::9"}]));
}

#[test]
fn an_interface_is_announced_with_its_addresses() {
    let message =
        |text: &str, network: &str| Event::added_interface("net1", &success(text), network).map(|event| event.message);
    assert_eq!(message(BRIDGE, "cbr0").unwrap(), "Add net1 [10.244.1.4/24] from cbr0");
    assert_eq!(message(MACVLAN, "test/a").unwrap(), "Add net1 [10.1.1.101/24 2001:db8::5/64] from test/a");
    assert_eq!(message(r#"{"cniVersion":"0.2.0","ip4":{"ip":"1.1.1.2/24"}}"#, "").unwrap(), "Add net1 [1.1.1.2/24]");
    assert_eq!(message(r#"{"cniVersion":"1.0.0","interfaces":[{"name":"a"}]}"#, "n").unwrap(), "Add net1 [] from n");
    assert_eq!(message(r#"{"cniVersion":"1.0.0"}"#, "n"), None);
}

fn success(text: &str) -> Success {
    Success::parse(text.as_bytes(), Version::LATEST).unwrap()
}

fn delegates(asked: &[Option<&[&str]>]) -> Vec<Delegate> {
    let delegate = |gateways: &Option<&[&str]>| {
        let mut delegate = Delegate::new(NetworkConfigList::parse_either(br#"{"name":"n","type":"t"}"#).unwrap());
        delegate.request.default_route = gateways.map(|all| all.iter().map(|text| text.parse().unwrap()).collect());
        delegate
    };
    asked.iter().map(delegate).collect()
}
