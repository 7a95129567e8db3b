//! Configurations as operators write them, and as they should not.

use serde_json::{Map, Value, json};

use testkit::Choices;

const SUBNETS: [&str; 10] = [
    "10.1.2.0/29",
    "10.1.3.0/28",
    "10.1.4.0/30",
    "2001:db8::/125",
    "2001:db8:1::/64",
    "10.2.0.0/16",
    "10.1.2.0/24",
    "2001:db8:2::/127",
    "10.0.0.0/8",
    "192.168.1.0/24",
];
/// Overlapping, too small, with host bits, or none at all.
const ODD_SUBNETS: [&str; 19] = [
    "10.1.2.4/30",
    "10.1.2.3/29",
    "10.1.2.0/31",
    "10.1.2.1/32",
    "0.0.0.0/0",
    "::/0",
    "::/96",
    "::ffff:10.1.2.0/120",
    "10.1.2.0/029",
    "10.1.02.0/24",
    "10.1.2.0",
    "10.1.2.0/33",
    "10.1.2.0/-1",
    "10.1.2.0/255.255.255.0",
    " 10.1.2.0/24",
    "",
    "2001:DB8:0::/64",
    "fe80::%eth0/64",
    "255.255.255.248/29",
];
pub(crate) const ADDRESSES: [&str; 24] = [
    "10.1.2.0",
    "10.1.2.1",
    "10.1.2.2",
    "10.1.2.3",
    "10.1.2.5",
    "10.1.2.6",
    "10.1.2.7",
    "10.1.3.4",
    "10.1.3.9",
    "10.1.3.14",
    "10.1.4.2",
    "10.9.9.9",
    "2001:db8::1",
    "2001:db8::3",
    "2001:db8::7",
    "2001:db8:1::ffff",
    "::ffff:10.1.2.3",
    "2001:DB8::0004",
    "10.1.2.03",
    "10.1.2",
    "::",
    "0.0.0.0",
    "not an address",
    "",
];
const DESTINATIONS: [&str; 10] = [
    "0.0.0.0/0",
    "::/0",
    "192.168.0.0/16",
    "2001:db8:9::/48",
    "10.5.5.5/32",
    "10.5.5.5/8",
    "10.1.2.0/33",
    "::ffff:10.0.0.0/104",
    "",
    "default",
];
const VERSIONS: [&str; 6] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"];
const ODD_VERSIONS: [&str; 8] = ["1.1.0", "0.5.0", "2.0.0", "", "1.0", "x", "0.3.1 ", "1.0.0.0"];
pub(crate) const MACS: [&str; 9] = [
    "02:00:00:00:00:01",
    "02:00:00:00:00:02",
    "02-00-00-00-00-03",
    "0200.0000.0004",
    "01:00:00:00:00:01",
    "00:00:00:00:00:00",
    "02:00:00:00:00",
    "x",
    "",
];

/// The network that the steps of a sequence are about: mostly valid.
pub(crate) fn network(choices: &mut Choices) -> Value {
    let version = match choices.chance(92) {
        true => choices.pick(&VERSIONS),
        false => choices.pick(&ODD_VERSIONS),
    };
    json!({"cniVersion": version, "name": "net", "type": "macvlan", "ipam": ipam(choices)})
}

fn ipam(choices: &mut Choices) -> Value {
    let mut ipam = if choices.chance(70) { good_ranges(choices) } else { any_ranges(choices) };
    ipam.insert("type".to_owned(), json!("host-local"));
    ipam.insert("dataDir".to_owned(), json!("@DATA"));
    if choices.chance(40) {
        let routes = (0..choices.below(4)).map(|_| route(choices));
        ipam.insert("routes".to_owned(), routes.collect());
    }
    if choices.chance(5) {
        ipam.insert("resolvConf".to_owned(), json!(choices.pick(&["/nonexistent", "/etc/hostname", ""])));
    }
    Value::Object(ipam)
}

/// One or two sets that fit together, and are soon full.
fn good_ranges(choices: &mut Choices) -> Map<String, Value> {
    let ipv4 = [
        json!([{"subnet": "10.1.2.0/29"}]),
        json!([{"subnet": "10.1.2.0/30"}, {"subnet": "10.1.3.0/29", "rangeStart": "10.1.3.3", "gateway": "10.1.3.4"}]),
        json!([{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.2", "rangeEnd": "10.1.2.4", "gateway": "10.9.9.9"}]),
        json!([{"subnet": "10.1.2.0/24"}, {"subnet": "10.1.3.0/24"}]),
        json!([{"subnet": "10.0.0.0/8", "rangeStart": "10.1.2.253", "rangeEnd": "10.1.3.10"}]),
    ];
    let ipv6 = [
        json!([{"subnet": "2001:db8::/125"}]),
        json!([{"subnet": "2001:DB8::/64", "rangeEnd": "2001:db8::0005", "gateway": "2001:db8::3"}]),
        json!([{"subnet": "2001:db8::/126"}, {"subnet": "2001:db8:1::/64"}]),
    ];
    let (ipv4, ipv6) = (choices.pick(&ipv4), choices.pick(&ipv6));
    let ranges = match choices.below(5) {
        0 | 1 => json!([ipv4]),
        2 => json!([ipv6]),
        3 => json!([ipv4, ipv6]),
        _ => json!([ipv6, ipv4]),
    };
    // Either form.
    match ranges.pointer("/0/0").filter(|_| {
        ranges.as_array().is_some_and(|sets| sets.len() == 1) && ranges[0].as_array().is_some_and(|set| set.len() == 1)
    }) {
        Some(only) if choices.chance(40) => only.as_object().cloned().unwrap(),
        _ => Map::from_iter([("ranges".to_owned(), ranges)]),
    }
}

fn any_ranges(choices: &mut Choices) -> Map<String, Value> {
    let mut ipam = Map::new();
    if choices.chance(30) {
        ipam.extend(range(choices));
    }
    if choices.chance(75) || !ipam.contains_key("subnet") {
        let sets = (0..1 + choices.below(2)).map(|_| range_set(choices));
        ipam.insert("ranges".to_owned(), sets.collect());
    }
    ipam
}

fn range_set(choices: &mut Choices) -> Value {
    (0..1 + choices.below(3) / 2).map(|_| Value::Object(range(choices))).collect()
}

fn range(choices: &mut Choices) -> Map<String, Value> {
    let subnet = match choices.chance(93) {
        true => choices.pick(&SUBNETS),
        false => choices.pick(&ODD_SUBNETS),
    };
    let mut range = Map::new();
    range.insert("subnet".to_owned(), json!(subnet));
    for key in ["rangeStart", "rangeEnd", "gateway"] {
        if choices.chance(12) {
            range.insert(key.to_owned(), json!(choices.pick(&ADDRESSES)));
        }
    }
    range
}

fn route(choices: &mut Choices) -> Value {
    let mut route = Map::new();
    let destinations = if choices.chance(90) { &DESTINATIONS[..5] } else { &DESTINATIONS[..] };
    route.insert("dst".to_owned(), json!(choices.pick(destinations)));
    if choices.chance(30) {
        route.insert("gw".to_owned(), json!(choices.pick(&ADDRESSES)));
    }
    Value::Object(route)
}

/// What a runtime or a pod asks for besides, in any of the places for it; the text is for `CNI_ARGS`.
pub(crate) fn wishes(choices: &mut Choices, config: &mut Value) -> Option<String> {
    if choices.chance(15) {
        config["args"] = json!({"cni": {"ips": addresses(choices)}});
    }
    if choices.chance(12) {
        config["runtimeConfig"] = json!({"ips": addresses(choices)});
        config["capabilities"] = json!({"ips": true});
    }
    if choices.chance(3) {
        config["runtimeConfig"]["ipRanges"] = json!([range_set(choices)]);
    }
    let args =
        ["IP=10.1.2.3", "IP=2001:db8::3", "IgnoreUnknown=1;IP=10.1.3.4", "IP=x", "FOO=bar", "IgnoreUnknown=1;FOO=bar"];
    let odd = ["IP=", ";", "IP=10.1.2.3;", "IgnoreUnknown=yes", "=", "IP=10.1.2.3=4", "ip=10.1.2.3;IgnoreUnknown=true"];
    match choices.below(100) {
        0..10 => Some(choices.pick(&args).to_owned()),
        10..13 => Some(choices.pick(&odd).to_owned()),
        _ => None,
    }
}

fn addresses(choices: &mut Choices) -> Value {
    let count = if choices.chance(80) { 1 } else { choices.below(4) };
    let address = |choices: &mut Choices| {
        let text = choices.pick(&ADDRESSES);
        match choices.chance(30) {
            true => json!(format!("{text}/24")),
            false => json!(text),
        }
    };
    (0..count).map(|_| address(choices)).collect()
}

/// The keys of macvlan.
pub(crate) fn link(choices: &mut Choices, config: &mut Value) {
    if !choices.chance(20) {
        config["master"] = json!(match choices.chance(93) {
            true => choices.pick(&["ens32", "ens33"]),
            false => choices.pick(&["ens23", "lo", "", "a/b", "longer-than-any-name", "wire", "eth0", "é"]),
        });
    }
    if choices.chance(70) {
        config["mode"] = json!(match choices.chance(94) {
            true => choices.pick(&["bridge", "private", "vepa", "passthru", ""]),
            false => choices.pick(&["Bridge", "other", "l2", "bridge "]),
        });
    }
    if choices.chance(30) {
        config["mtu"] = json!(choices.pick(&[0, 1400, 1500, 1501, 9000, 68, 1280, -1, 67, 2_147_483_648_i64]));
    }
    for place in ["/mac", "/runtimeConfig/mac", "/args/cni/mac"] {
        if choices.chance(12) {
            let mac = if choices.chance(80) { choices.pick(&MACS[..4]) } else { choices.pick(&MACS) };
            match place {
                "/mac" => config["mac"] = json!(mac),
                "/runtimeConfig/mac" => {
                    config["runtimeConfig"]["mac"] = json!(mac);
                    config["capabilities"]["mac"] = json!(true);
                }
                _ => config["args"]["cni"]["mac"] = json!(mac),
            }
        }
    }
    if choices.chance(5) {
        config["linkInContainer"] = json!(choices.chance(50));
    }
    if choices.chance(10) {
        config["dns"] = json!({"nameservers": ["9.9.9.9"], "domain": "<x>", "search": ["a"], "options": []});
    }
    match choices.below(100) {
        0..8 => drop(config.as_object_mut().unwrap().remove("ipam")),
        8..10 => config["ipam"] = json!({}),
        10..12 => config["ipam"]["type"] = json!(choices.pick(&["missing", "a/b", "../host-local", "Host-Local"])),
        _ => {}
    }
}
