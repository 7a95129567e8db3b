//! Attachments in this process, against the real kernel: every key, every mode, and what is left when something fails.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{net::Ipv4Addr, process::ExitCode, thread, time::Duration};

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{Attachment, Error, Invocation, NetworkConfig, Pending, Plugin, Registry, Success, shortened};
use multus_net::{Connection, MacvlanSpec, Namespace};
use serde_json::{Value, json};
use testkit::{Lab, Netns, ping, run};

fn main() -> ExitCode {
    run(&[
        ("each_mode_is_the_kernels", each_mode_is_the_kernels),
        ("source_mode_receives_from_its_list", source_mode_receives_from_its_list),
        ("a_thousand_source_macs_are_all_there_may_be", a_thousand_source_macs_are_all_there_may_be),
        ("mtu_is_the_masters_or_less", mtu_is_the_masters_or_less),
        ("mac_comes_from_the_runtime_then_args_then_config", mac_comes_from_the_runtime_then_args_then_config),
        ("unusable_macs_are_refused", unusable_macs_are_refused),
        ("broadcast_keys_reach_the_kernel", broadcast_keys_reach_the_kernel),
        ("flags_reach_the_kernel", flags_reach_the_kernel),
        ("a_master_inside_the_sandbox", a_master_inside_the_sandbox),
        ("a_master_by_its_alternative_name", a_master_by_its_alternative_name),
        ("a_missing_master_is_named_with_those_there_are", a_missing_master_is_named_with_those_there_are),
        ("the_master_of_the_default_route", the_master_of_the_default_route),
        ("the_first_next_hop_of_a_multipath_default", the_first_next_hop_of_a_multipath_default),
        ("the_master_of_an_ipv6_default_route", the_master_of_an_ipv6_default_route),
        ("a_default_route_to_nowhere_is_none", a_default_route_to_nowhere_is_none),
        ("layer_two_is_up_and_announces", layer_two_is_up_and_announces),
        ("a_link_with_ipv4_alone_announces_that", a_link_with_ipv4_alone_announces_that),
        ("the_neighbours_hear_of_new_addresses", the_neighbours_hear_of_new_addresses),
        ("layer_three_has_addresses_routes_and_announces", layer_three_has_addresses_routes_and_announces),
        ("ipv6_is_usable_at_once_and_settles_by_itself", ipv6_is_usable_at_once_and_settles_by_itself),
        ("optimistic_dad_can_be_turned_off", optimistic_dad_can_be_turned_off),
        ("an_optimistic_duplicate_is_found_by_check", an_optimistic_duplicate_is_found_by_check),
        ("route_attributes_are_programmed", route_attributes_are_programmed),
        ("old_versions_program_whole_routes", old_versions_program_whole_routes),
        (
            "old_versions_have_no_routes_of_a_family_without_an_address",
            old_versions_have_no_routes_of_a_family_without_an_address,
        ),
        ("two_containers_reach_each_other", two_containers_reach_each_other),
        ("the_hosts_names_do_not_matter_inside", the_hosts_names_do_not_matter_inside),
        ("a_taken_name_leaves_everything_as_it_was", a_taken_name_leaves_everything_as_it_was),
        ("a_dropped_result_leaves_nothing", a_dropped_result_leaves_nothing),
        ("an_undone_result_leaves_nothing", an_undone_result_leaves_nothing),
        ("a_second_passthru_link_is_explained", a_second_passthru_link_is_explained),
        ("a_macs_double_is_explained_and_undone", a_macs_double_is_explained_and_undone),
        ("a_bridged_master_is_explained", a_bridged_master_is_explained),
        ("del_takes_link_and_address_and_can_be_repeated", del_takes_link_and_address_and_can_be_repeated),
        ("links_that_go_together_take_one_wait", links_that_go_together_take_one_wait),
        ("what_does_not_go_together_goes_one_by_one", what_does_not_go_together_goes_one_by_one),
        ("del_needs_neither_namespace_nor_master", del_needs_neither_namespace_nor_master),
        ("del_of_a_broken_configuration_still_deletes", del_of_a_broken_configuration_still_deletes),
        ("no_address_is_free_while_a_link_has_it", no_address_is_free_while_a_link_has_it),
        ("an_add_under_way_is_neither_replaced_nor_deleted", an_add_under_way_is_neither_replaced_nor_deleted),
        ("the_link_of_an_add_that_died_is_replaced", the_link_of_an_add_that_died_is_replaced),
        ("a_foreign_link_is_not_replaced", a_foreign_link_is_not_replaced),
        ("a_renamed_link_is_undone_and_a_foreign_one_is_not", a_renamed_link_is_undone_and_a_foreign_one_is_not),
        (
            "check_without_a_master_does_not_follow_the_default_route",
            check_without_a_master_does_not_follow_the_default_route,
        ),
        ("check_finds_what_was_changed", check_finds_what_was_changed),
        ("check_knows_other_tables_and_single_addresses", check_knows_other_tables_and_single_addresses),
        ("gc_and_status_reach_the_ipam", gc_and_status_reach_the_ipam),
        ("it_works_from_a_pool_of_threads", it_works_from_a_pool_of_threads),
    ])
}

fn each_mode_is_the_kernels(lab: &Lab) {
    for (index, mode) in ["bridge", "private", "vepa", "passthru", ""].into_iter().enumerate() {
        let sandbox = lab.container(&format!("c{index}"));
        let config = json!({"mode": mode, "ipam": {}});
        attach(lab, &sandbox, &config).unwrap();
        let shown = &sandbox.link("net1").unwrap()["linkinfo"]["info_data"]["mode"];
        assert_eq!(shown, if mode.is_empty() { "bridge" } else { mode });
        detach(lab, &sandbox, &config).unwrap();
        assert_eq!(sandbox.links(), ["lo"]);
    }
    let error = attach(lab, &lab.container("bad"), &json!({"mode": "Bridge"})).unwrap_err();
    assert!(error.to_string().starts_with("unknown macvlan mode: \"Bridge\"; the modes are private,"), "{error}");
}

fn source_mode_receives_from_its_list(lab: &Lab) {
    let sandbox = lab.container("c1");
    let macs = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
    let mut config =
        json!({"cniVersion": "1.0.0", "mode": "source", "sourceMacs": macs, "flags": ["nodst"], "ipam": {}});
    if testkit::linux() < (5, 13) {
        let error = attach(lab, &sandbox, &config).unwrap_err();
        assert!(error.to_string().contains("the flag \"nodst\" takes Linux 5.13"), "{error}");
        config["flags"] = json!([]);
    }
    let added = attach(lab, &sandbox, &config).unwrap();
    let text = sandbox.ip("-d link show dev net1");
    assert!(text.contains("mode source"), "{text}");
    for mac in macs {
        assert!(text.contains(mac), "{text}");
    }
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap();
    sandbox.ip("link set dev net1 type macvlan macaddr del 02:00:00:00:00:02");
    let error = check(lab, &sandbox, &with_previous(&config, &added)).unwrap_err();
    assert_eq!(error.to_string(), "interface net1 does not have the configured source MACs");
    let error = attach(lab, &lab.container("c2"), &json!({"sourceMacs": macs, "ipam": {}})).unwrap_err();
    assert!(error.to_string().contains("\"sourceMacs\" is for \"mode\":\"source\""), "{error}");
}

fn a_thousand_source_macs_are_all_there_may_be(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mac = |number: u16| format!("02:00:00:00:{:02x}:{:02x}", number >> 8, number & 0xff);
    let config = |count: u16| {
        let macs: Vec<String> = (0..count).map(mac).collect();
        json!({"cniVersion": "1.0.0", "mode": "source", "sourceMacs": macs, "ipam": {}})
    };
    let added = attach(lab, &sandbox, &config(1000)).unwrap();
    check(lab, &sandbox, &with_previous(&config(1000), &added)).unwrap();
    let error = attach(lab, &lab.container("c2"), &config(1001)).unwrap_err();
    assert_eq!(error.to_string(), "failed to load netconf: \"sourceMacs\" must have at most 1000 entries");
}

fn mtu_is_the_masters_or_less(lab: &Lab) {
    lab.host.ip("link set ens32 mtu 1400");
    for (given, expected) in [(json!(null), 1400), (json!(0), 1400), (json!(1300), 1300), (json!(1400), 1400)] {
        let sandbox = lab.container(&format!("c{given}"));
        attach(lab, &sandbox, &json!({"mtu": given, "ipam": {}})).unwrap();
        assert_eq!(sandbox.link("net1").unwrap()["mtu"], expected);
    }
    let sandbox = lab.container("bad");
    for (given, text) in [
        (json!(1401), "invalid MTU 1401, must be [0, master MTU(1400)]"),
        (json!(-1), "invalid MTU -1, must be [0, master MTU(1400)]"),
        (json!("1400"), "failed to load netconf: \"mtu\" must be a whole number"),
        (json!(20), "failed to create macvlan: invalid argument"),
    ] {
        let error = attach(lab, &sandbox, &json!({"mtu": given, "ipam": {}})).unwrap_err();
        assert!(error.to_string().starts_with(text), "{error}");
        assert_eq!(sandbox.links(), ["lo"]);
    }
}

fn mac_comes_from_the_runtime_then_args_then_config(lab: &Lab) {
    let runtime = json!({"mac": "02:00:00:00:00:01"});
    for (index, (runtime, args, config, expected)) in [
        (&runtime, "MAC=02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:01"),
        (&json!({"mac": ""}), "MAC=02:00:00:00:00:02", "02:00:00:00:00:03", "02:00:00:00:00:02"),
        (&json!(null), "IgnoreUnknown=true;MAC=0200.0000.0004;K=v", "02:00:00:00:00:03", "02:00:00:00:00:04"),
        (&json!(null), "MAC=", "02-00-00-00-00-0A", "02:00:00:00:00:0a"),
    ]
    .into_iter()
    .enumerate()
    {
        let sandbox = lab.container(&format!("c{index}"));
        // A runtime that spells the key in its own way.
        let config = json!({"RuntimeConfig": runtime, "mac": config, "capabilities": {"mac": true}, "ipam": {}});
        let mut invocation = invocation(lab, &config);
        invocation.args = args.to_owned();
        let attachment = attachment(&sandbox);
        let added = lab.host.within(|| plugin().add(&attachment, &invocation)).unwrap().keep();
        assert_eq!(sandbox.link("net1").unwrap()["address"], expected);
        assert_eq!(added.interfaces[0].mac, expected);
    }
}

fn unusable_macs_are_refused(lab: &Lab) {
    let sandbox = lab.container("c1");
    for (mac, problem) in [
        ("zz", "invalid MAC address"),
        ("02:00:00:00:00:01:02:03", "not an Ethernet address, which has 6 bytes"),
        ("01:00:5e:00:00:01", "cannot assign requested address: it is a multicast address"),
    ] {
        let error = attach(lab, &sandbox, &json!({"mac": mac, "ipam": {}})).unwrap_err();
        assert_eq!(error.to_string(), format!("invalid args {mac} for MAC addr: address {mac}: {problem}"));
    }
    assert_eq!(sandbox.links(), ["lo"]);
}

fn broadcast_keys_reach_the_kernel(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &json!({"bcqueuelen": 2000, "bclim": -1, "ipam": {}})).unwrap();
    // Linux before 5.11 takes no offence at it.
    let known = if testkit::linux() >= (5, 11) { json!(2000) } else { Value::Null };
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_data"]["bcqueuelen"], known);
    // Debian 12's ip(8) does not know the cutoff yet, nor does Linux before 6.4, which takes no offence at it.
    let known = (testkit::linux() >= (6, 4)).then_some(-1);
    let link = sandbox.within(|| Connection::open(Duration::from_secs(5)).unwrap().link_by_name("net1").unwrap());
    assert_eq!(link.unwrap().macvlan.unwrap().broadcast_cutoff, known);
    for (key, value) in [("bcqueuelen", json!(-1)), ("bcqueuelen", json!(1.5)), ("bclim", json!("x"))] {
        let error =
            attach(lab, &lab.container(&format!("{key}{value}").replace('"', "")), &json!({key: value})).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("failed to load netconf: \"{key}\" must be a whole")),
            "{error}"
        );
    }
}

fn flags_reach_the_kernel(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &json!({"mode": "passthru", "flags": ["nopromisc"], "ipam": {}})).unwrap();
    assert!(sandbox.ip("-d link show dev net1").contains("nopromisc"));
    assert_eq!(lab.host.link("ens32").unwrap()["promiscuity"], 0);
    let error = attach(lab, &lab.container("c2"), &json!({"flags": ["promisc"]})).unwrap_err();
    assert!(
        error.to_string().ends_with(r#""flags" must be a list of "nopromisc" and "nodst", not "promisc""#),
        "{error}"
    );
}

fn a_master_inside_the_sandbox(lab: &Lab) {
    let sandbox = lab.container("c1");
    sandbox.ip("link add eth1 type veth peer name eth1p");
    sandbox.ip("link set eth1 up");
    let config = json!({"cniVersion": "1.0.0", "master": "eth1", "linkInContainer": true});
    let added = attach(lab, &sandbox, &config).unwrap();
    let link = sandbox.link("net1").unwrap();
    assert_eq!((&link["link"], &link["linkinfo"]["info_kind"]), (&json!("eth1"), &json!("macvlan")));
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap();
    let error = attach(lab, &sandbox, &json!({"master": "ens32", "linkInContainer": true})).unwrap_err();
    let text = r#"master "ens32" not found in the sandbox; interfaces here: eth1, eth1p, lo, net1 (Link not found)"#;
    assert_eq!(error.to_string(), text);
}

fn a_master_by_its_alternative_name(lab: &Lab) {
    lab.host.ip("link property add dev ens32 altname enp-of-a-name-beyond-fifteen");
    lab.host.ip("link property add dev ens32 altname short");
    for name in ["enp-of-a-name-beyond-fifteen", "short"] {
        attach(lab, &lab.container(name), &json!({"master": name, "ipam": {}})).unwrap();
    }
}

fn a_missing_master_is_named_with_those_there_are(lab: &Lab) {
    let sandbox = lab.container("c1");
    let long = "x".repeat(200);
    for name in ["ens23", "enp-of-a-name-beyond-fifteen", "ens32\0", long.as_str()] {
        let error = attach(lab, &sandbox, &json!({"master": name})).unwrap_err();
        let name = shortened(name);
        let text = format!("master {name:?} not found; interfaces here: ens32, lo, wire (Link not found)");
        assert_eq!(error.to_string(), text);
    }
    assert!(lab.reserved("net").is_empty());
}

fn the_master_of_the_default_route(lab: &Lab) {
    let sandbox = lab.container("c1");
    let error = attach(lab, &sandbox, &json!({"master": null})).unwrap_err();
    assert_eq!(error.to_string(), "no default route interface found; name the interface in \"master\"");
    lab.host.ip("address add 192.0.0.1/24 dev ens32");
    lab.host.ip("route add default via 192.0.0.254 table 100");
    attach(lab, &sandbox, &json!({"master": ""})).unwrap_err();
    lab.host.ip("route add default via 192.0.0.254");
    attach(lab, &sandbox, &json!({"master": ""})).unwrap();
    assert_eq!(sandbox.link("net1").unwrap()["link_index"], lab.host.link("ens32").unwrap()["ifindex"]);
}

fn the_first_next_hop_of_a_multipath_default(lab: &Lab) {
    lab.add_parent("ens33", "wire2");
    lab.host.ip("address add 192.0.0.1/24 dev ens32");
    lab.host.ip("address add 192.0.1.1/24 dev ens33");
    lab.host.ip("route add default nexthop via 192.0.1.254 nexthop via 192.0.0.254");
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &json!({"master": ""})).unwrap();
    assert_eq!(sandbox.link("net1").unwrap()["link_index"], lab.host.link("ens33").unwrap()["ifindex"]);
}

fn the_master_of_an_ipv6_default_route(lab: &Lab) {
    lab.host.ip("-6 address add 2001:db8::1/64 dev ens32 nodad");
    lab.host.ip("-6 route add default via 2001:db8::fe");
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &json!({"master": ""})).unwrap();
    assert_eq!(sandbox.link("net1").unwrap()["link_index"], lab.host.link("ens32").unwrap()["ifindex"]);
}

fn a_default_route_to_nowhere_is_none(lab: &Lab) {
    lab.host.ip("route add blackhole default");
    lab.host.ip("-6 route add unreachable default dev lo");
    let error = attach(lab, &lab.container("c1"), &json!({"master": ""})).unwrap_err();
    assert!(error.to_string().starts_with("no default route interface found"), "{error}");
}

fn layer_two_is_up_and_announces(lab: &Lab) {
    let sandbox = lab.container("c1");
    let added = attach(lab, &sandbox, &json!({"cniVersion": "1.0.0", "ipam": {}})).unwrap();
    let link = sandbox.link("net1").unwrap();
    // Its operational state follows by itself, in the kernel's own time.
    assert!(link["flags"].as_array().unwrap().contains(&json!("UP")), "{link}");
    assert_eq!(sandbox.addresses("net1"), [""; 0]);
    assert_eq!(sandbox.sysctl("net/ipv4/conf/net1/arp_notify"), "1");
    assert_eq!(sandbox.sysctl("net/ipv6/conf/net1/ndisc_notify"), "1");
    let expected = json!({"mac": link["address"], "name": "net1", "sandbox": sandbox.path()});
    let printed: Value = serde_json::from_slice(&added.print(multus_cni::Version::LATEST).unwrap()).unwrap();
    assert_eq!(printed, json!({"cniVersion": "1.1.0", "interfaces": [expected]}));

    let old = lab.container("c2");
    let error = attach(lab, &old, &json!({"cniVersion": "0.2.0", "ipam": {}})).unwrap_err();
    assert_eq!(error.to_string(), "cannot convert: no valid IP addresses");
    assert_eq!(old.links(), ["lo"]);
}

fn a_link_with_ipv4_alone_announces_that(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &ipv4_only()).unwrap();
    assert_eq!(sandbox.sysctl("net/ipv4/conf/net1/arp_notify"), "1");
    assert_eq!(sandbox.sysctl("net/ipv6/conf/net1/ndisc_notify"), "0");
}

fn the_neighbours_hear_of_new_addresses(lab: &Lab) {
    let neighbour = &lab.host;
    // One that believes what it is told.
    let believe = |key: &str| neighbour.within(|| std::fs::write(format!("/proc/sys/net/{key}"), "1").unwrap());
    believe("ipv4/conf/wire/arp_accept");
    let mut families = vec![("-4", "10.1.2.2")];
    // Before, Linux does not believe what it is told of IPv6 addresses that it has not asked for.
    if testkit::linux() >= (5, 19) {
        ["ipv6/conf/wire/accept_untracked_na", "ipv6/conf/wire/forwarding"].into_iter().for_each(believe);
        families.push(("-6", "2001:db8:1::2"));
    }
    neighbour.ip("address add 10.1.2.1/24 dev wire");
    neighbour.ip("address add 2001:db8:1::1/64 dev wire nodad");
    let sandbox = lab.container("c1");
    let mac = attach(lab, &sandbox, &dual_stack()).unwrap().interfaces[0].mac.clone();
    for (family, address) in families {
        let heard = || neighbour.ip(&format!("{family} neigh show {address} dev wire"));
        for _ in 0..100 {
            if heard().contains(&mac) {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert!(heard().contains(&mac), "{address}: {}", neighbour.ip("neigh show"));
    }
}

fn layer_three_has_addresses_routes_and_announces(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = dual_stack();
    config["dns"] = json!({"nameservers": ["9.9.9.9"], "search": ["a", "b"]});
    let added = attach(lab, &sandbox, &config).unwrap();
    assert_eq!(sandbox.addresses("net1"), ["10.1.2.2/24", "2001:db8:1::2/64"]);
    assert_eq!(sandbox.ip_json("address show dev net1")[0]["addr_info"][0]["broadcast"], "10.1.2.255");
    let routes = sandbox.ip_json("route show");
    assert_eq!(routes[0]["gateway"], "10.1.2.1");
    assert_eq!((&routes[0]["dst"], &routes[0]["protocol"]), (&json!("default"), &json!("boot")));
    assert!(sandbox.ip("-6 route show default").contains("via 2001:db8:1::1 dev net1"));
    assert_eq!(sandbox.sysctl("net/ipv4/conf/net1/arp_notify"), "1");
    assert_eq!(sandbox.sysctl("net/ipv6/conf/net1/ndisc_notify"), "1");
    assert_eq!(sandbox.sysctl("net/ipv6/conf/net1/keep_addr_on_down"), "1");
    assert_eq!(lab.reserved("net"), ["10.1.2.2", "2001:db8:1::2"]);
    assert_eq!(added.dns.search, ["a", "b"]);
    assert!(added.ips.iter().all(|ip| ip.interface == Some(0)));
    sandbox.ip("link set net1 down");
    assert_eq!(sandbox.addresses("net1"), ["10.1.2.2/24", "2001:db8:1::2/64"]);
}

fn ipv6_is_usable_at_once_and_settles_by_itself(lab: &Lab) {
    let sandbox = lab.container("c1");
    // As a runtime may have it.
    sandbox.within(|| std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
    attach(lab, &sandbox, &dual_stack()).unwrap();
    let ipv6 = || {
        let all = sandbox.ip_json("-6 address show dev net1 scope global");
        all[0]["addr_info"].as_array().and_then(|info| info.first().cloned()).unwrap_or_default()
    };
    assert_eq!(ipv6()["optimistic"], true);
    let mut waits = 0;
    while ipv6()["tentative"] == true {
        assert!(waits < 100, "{}", ipv6());
        thread::sleep(Duration::from_millis(50));
        waits += 1;
    }
    assert_eq!(ipv6()["dadfailed"], json!(null));
}

fn optimistic_dad_can_be_turned_off(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = dual_stack();
    config["optimisticDAD"] = json!(false);
    attach(lab, &sandbox, &config).unwrap();
    let text = sandbox.ip("-6 address show dev net1");
    assert!(text.contains("2001:db8:1::2/64") && !text.contains("tentative"), "{text}");
}

fn an_optimistic_duplicate_is_found_by_check(lab: &Lab) {
    let (first, second) = (lab.container("c1"), lab.container("c2"));
    let config = |name: &str| {
        let mut config = dual_stack();
        config["name"] = json!(name);
        config["ipam"]["ranges"] = json!([[{"subnet": "2001:db8:1::/64"}]]);
        config["ipam"]["routes"] = json!([]);
        config
    };
    attach(lab, &first, &config("one")).unwrap();
    wait_until_settled(&first);
    // Another network with the same range, on the same wire.
    let added = attach(lab, &second, &config("two")).unwrap();
    wait_until_settled(&second);
    let error = check(lab, &second, &with_previous(&config("two"), &added)).unwrap_err();
    let text = "addr 2001:db8:1::2/64 on interface net1 is in DADFAILED state: a neighbour has it too";
    assert_eq!(error.to_string(), text);
}

fn route_attributes_are_programmed(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = dual_stack();
    config["ipam"]["routes"] = json!([
        {"dst": "192.168.0.0/16", "gw": "10.1.2.5", "mtu": 1300, "advmss": 1260, "priority": 77, "table": 5000},
        {"dst": "10.9.0.0/16", "scope": 200},
        {"dst": "2001:db8:9::/48", "mtu": 1280, "priority": 5},
    ]);
    attach(lab, &sandbox, &config).unwrap();
    let in_table = sandbox.ip("route show table 5000");
    assert_eq!(in_table.trim(), "192.168.0.0/16 via 10.1.2.5 dev net1 metric 77 mtu 1300 advmss 1260");
    let in_main = sandbox.ip("route show 10.9.0.0/16");
    assert_eq!(in_main.trim(), "10.9.0.0/16 via 10.1.2.1 dev net1 scope site");
    let ipv6 = sandbox.ip("-6 route show 2001:db8:9::/48");
    assert!(ipv6.contains("via 2001:db8:1::1 dev net1 metric 5 mtu 1280"), "{ipv6}");

    let other = lab.container("c2");
    config["ipam"]["routes"] = json!([{"dst": "192.168.0.0/16", "gw": "172.31.0.1"}]);
    let error = attach(lab, &other, &config).unwrap_err();
    let text = "failed to add route '{192.168.0.0 ffff0000} via 172.31.0.1 dev net1 metric 0 (Scope: universe, Table: 0)': \
                network is unreachable: Nexthop has invalid gateway";
    assert_eq!(error.to_string(), text);
    assert_eq!(other.links(), ["lo"]);
    assert_eq!(lab.reserved("net"), ["10.1.2.2", "2001:db8:1::2"]);
}

fn old_versions_program_whole_routes(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = ipv4_only();
    config["cniVersion"] = json!("0.2.0");
    config["ipam"]["routes"] = json!([{"dst": "192.168.0.0/16", "priority": 77, "table": 100}]);
    attach(lab, &sandbox, &config).unwrap();
    let in_table = sandbox.ip("route show table 100");
    assert_eq!(in_table.trim(), "192.168.0.0/16 via 10.1.2.1 dev net1 metric 77");
}

fn old_versions_have_no_routes_of_a_family_without_an_address(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = ipv4_only();
    config["cniVersion"] = json!("0.2.0");
    config["ipam"]["routes"] = json!([{"dst": "::/0"}, {"dst": "192.168.0.0/16"}, {"dst": "::/0"}]);
    attach(lab, &sandbox, &config).unwrap();
    assert_eq!(sandbox.ip("-6 route show default"), "");
    assert_eq!(sandbox.ip("route show 192.168.0.0/16").trim(), "192.168.0.0/16 via 10.1.2.1 dev net1");
}

fn two_containers_reach_each_other(lab: &Lab) {
    let (first, second) = (lab.container("c1"), lab.container("c2"));
    attach(lab, &first, &ipv4_only()).unwrap();
    attach(lab, &second, &ipv4_only()).unwrap();
    ping(&first, Ipv4Addr::new(10, 1, 2, 3)).unwrap();
    ping(&second, Ipv4Addr::new(10, 1, 2, 2)).unwrap();
}

fn the_hosts_names_do_not_matter_inside(lab: &Lab) {
    let sandbox = lab.container("c1");
    lab.add_parent("net1", "wire2");
    attach(lab, &sandbox, &ipv4_only()).unwrap();
    assert_eq!(sandbox.link("net1").unwrap()["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(lab.host.link("net1").unwrap()["linkinfo"]["info_kind"], "veth");
}

fn a_taken_name_leaves_everything_as_it_was(lab: &Lab) {
    let sandbox = lab.container("c1");
    sandbox.ip("link add net1 type veth peer name other");
    let error = attach(lab, &sandbox, &ipv4_only()).unwrap_err();
    assert!(error.to_string().starts_with("failed to rename macvlan to \"net1\": file exists"), "{error}");
    assert_eq!(sandbox.links(), ["lo", "net1", "other"]);
    assert!(lab.reserved("net").is_empty());
}

fn a_dropped_result_leaves_nothing(lab: &Lab) {
    let sandbox = lab.container("c1");
    drop(pending(lab, &sandbox, &dual_stack()));
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
}

fn an_undone_result_leaves_nothing(lab: &Lab) {
    let sandbox = lab.container("c1");
    pending(lab, &sandbox, &dual_stack()).undo().unwrap();
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
}

fn a_second_passthru_link_is_explained(lab: &Lab) {
    // The link lives as long as its sandbox.
    let first = lab.container("c1");
    attach(lab, &first, &json!({"mode": "passthru", "ipam": {}})).unwrap();
    let refused =
        |name: &str, mode: &str| attach(lab, &lab.container(name), &json!({"mode": mode})).unwrap_err().to_string();
    let text = r#"failed to create macvlan: invalid argument (mode passthru needs "ens32" for itself"#;
    assert!(refused("c2", "passthru").starts_with(text));
    let flagged = json!({"mode": "source", "flags": ["nodst"]});
    let error = attach(lab, &lab.container("c4"), &flagged).unwrap_err().to_string();
    assert!(error.contains(r#"(the flag "nodst" takes Linux 5.13; is there a passthru link on "ens32""#), "{error}");
    assert!(
        refused("c3", "bridge")
            .starts_with(r#"failed to create macvlan: invalid argument (is there a passthru link on "ens32""#)
    );
    assert!(lab.reserved("net").is_empty());
}

fn a_macs_double_is_explained_and_undone(lab: &Lab) {
    let mut config = ipv4_only();
    config["mac"] = json!("02:00:00:00:00:01");
    let (first, sandbox) = (lab.container("c1"), lab.container("c2"));
    attach(lab, &first, &config).unwrap();
    let error = attach(lab, &sandbox, &config).unwrap_err();
    let text = "failed to set \"net1\" UP: address already in use \
                (another link on \"ens32\", or that itself, has the MAC address 02:00:00:00:00:01)";
    assert_eq!(error.to_string(), text);
    assert_eq!(sandbox.links(), ["lo"]);
    assert_eq!(lab.reserved("net"), ["10.1.2.2"]);
}

fn a_bridged_master_is_explained(lab: &Lab) {
    lab.host.ip("link add br0 type bridge");
    lab.host.ip("link set ens32 master br0");
    let error = attach(lab, &lab.container("c1"), &ipv4_only()).unwrap_err();
    let text =
        r#"failed to create macvlan: device or resource busy (\"ens32\" is in use by a bridge"#.replace('\\', "");
    assert!(error.to_string().starts_with(&text), "{error}");
}

fn del_takes_link_and_address_and_can_be_repeated(lab: &Lab) {
    let sandbox = lab.container("c1");
    detach(lab, &sandbox, &dual_stack()).unwrap();
    assert!(!lab.data_dir().exists());
    attach(lab, &sandbox, &dual_stack()).unwrap();
    for _ in 0..2 {
        detach(lab, &sandbox, &dual_stack()).unwrap();
        assert_eq!(sandbox.links(), ["lo"]);
        assert!(lab.reserved("net").is_empty());
    }
}

fn links_that_go_together_take_one_wait(lab: &Lab) {
    let (sandbox, other) = (lab.container("c1"), lab.container("c2"));
    let named = |sandbox: &Netns, name: &str| Attachment { ifname: name.parse().unwrap(), ..attachment(sandbox) };
    let attached = [named(&sandbox, "net1"), named(&sandbox, "net2"), named(&sandbox, "net3"), named(&other, "net1")];
    let calls = attached.map(|attachment| (attachment, invocation(lab, &ipv4_only())));
    lab.host.within(|| {
        for (attachment, invocation) in &calls {
            plugin().add(attachment, invocation).unwrap().keep();
        }
        sandbox.ip("link add veth0 type veth peer name veth1");
        plugin().prepare_del(&calls);
        // Of one sandbox there is only one, which waits no longer in its own DEL.
        assert_eq!(sandbox.links(), ["lo", "veth0", "veth1"]);
        assert_eq!(other.links(), ["lo", "net1"]);
        assert_eq!(lab.reserved("net").len(), 4, "addresses are free when their DEL has come");
        for (attachment, invocation) in &calls {
            plugin().del(attachment, invocation).unwrap();
        }
    });
    assert_eq!(other.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
}

fn what_does_not_go_together_goes_one_by_one(lab: &Lab) {
    let sandbox = lab.container("c1");
    let named = |name: &str| Attachment { ifname: name.parse().unwrap(), ..attachment(&sandbox) };
    let calls = [named("net1"), named("net2")].map(|attachment| (attachment, invocation(lab, &ipv4_only())));
    lab.host.within(|| {
        for (attachment, invocation) in &calls {
            plugin().add(attachment, invocation).unwrap().keep();
        }
        // The kernel deletes no group that lo belongs to.
        sandbox.ip("link set lo group 1819700839");
        plugin().prepare_del(&calls);
        assert_eq!(sandbox.links(), ["lo", "net1", "net2"]);
        for (attachment, invocation) in &calls {
            plugin().del(attachment, invocation).unwrap();
        }
    });
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());
}

fn del_needs_neither_namespace_nor_master(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &ipv4_only()).unwrap();
    sandbox.remove_path();
    let mut gone = ipv4_only();
    gone["master"] = json!("gone");
    detach(lab, &sandbox, &gone).unwrap();
    assert!(lab.reserved("net").is_empty());

    let other = lab.container("c2");
    attach(lab, &other, &ipv4_only()).unwrap();
    let mut without = attachment(&other);
    without.netns = None;
    lab.host.within(|| plugin().del(&without, &invocation(lab, &ipv4_only()))).unwrap();
    assert!(lab.reserved("net").is_empty());
    assert_eq!(other.links(), ["lo", "net1"]);

    without.netns = Some(lab.data_dir());
    let error = lab.host.within(|| plugin().del(&without, &invocation(lab, &ipv4_only()))).unwrap_err();
    assert!(error.to_string().starts_with("unknown FS magic on \""), "{error}");
}

fn del_of_a_broken_configuration_still_deletes(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &ipv4_only()).unwrap();
    let mut broken = ipv4_only();
    broken["mtu"] = json!("broken");
    broken["ipam"]["ranges"] = json!([[{"subnet": "placeholder"}]]);
    detach(lab, &sandbox, &broken).unwrap();
    assert_eq!(sandbox.links(), ["lo"]);
    assert!(lab.reserved("net").is_empty());

    attach(lab, &sandbox, &ipv4_only()).unwrap();
    let mut unknown = ipv4_only();
    unknown["ipam"]["type"] = json!("no-such-ipam");
    let error = detach(lab, &sandbox, &unknown).unwrap_err();
    assert!(error.to_string().starts_with("failed to find plugin \"no-such-ipam\" in path ["), "{error}");
    assert_eq!(sandbox.links(), ["lo"]);
}

fn no_address_is_free_while_a_link_has_it(lab: &Lab) {
    let sandbox = lab.container("c1");
    attach(lab, &sandbox, &ipv4_only()).unwrap();
    let network = lab.data_dir().join("net");
    thread::scope(|scope| {
        let held = std::fs::File::open(network.join("lock")).unwrap();
        held.lock().unwrap();
        let detaching = scope.spawn(|| detach(lab, &sandbox, &ipv4_only()));
        // The release waits for the lock. The link does not.
        for _ in 0..100 {
            if sandbox.links() == ["lo"] {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(sandbox.links(), ["lo"]);
        assert_eq!(lab.reserved("net"), ["10.1.2.2"]);
        drop(held);
        detaching.join().unwrap().unwrap();
    });
    assert!(lab.reserved("net").is_empty());
}

fn an_add_under_way_is_neither_replaced_nor_deleted(lab: &Lab) {
    // Long enough for the other to do what it must not.
    let moment = Duration::from_millis(200);
    let sandbox = lab.container("c1");
    let first = pending(lab, &sandbox, &ipv4_only());
    let mac = sandbox.link("net1").unwrap()["address"].clone();
    thread::scope(|scope| {
        let second = scope.spawn(|| attach(lab, &sandbox, &ipv4_only()).unwrap_err());
        thread::sleep(moment);
        assert!(!second.is_finished());
        first.keep();
        let error = second.join().unwrap();
        assert!(error.to_string().contains("10.1.2.2 has been allocated to c1, duplicate allocation"), "{error}");
    });
    assert_eq!(sandbox.link("net1").unwrap()["address"], mac);
    assert_eq!(lab.reserved("net"), ["10.1.2.2"]);

    let other = lab.container("c2");
    let first = pending(lab, &other, &ipv4_only());
    thread::scope(|scope| {
        let deletion = scope.spawn(|| detach(lab, &other, &ipv4_only()));
        thread::sleep(moment);
        assert!(!deletion.is_finished());
        assert_eq!(other.addresses("net1"), ["10.1.2.3/24"]);
        first.keep();
        deletion.join().unwrap().unwrap();
    });
    assert_eq!(other.links(), ["lo"]);
    assert_eq!(lab.reserved("net"), ["10.1.2.2"]);
}

fn the_link_of_an_add_that_died_is_replaced(lab: &Lab) {
    for keys in [ipv4_only(), json!({"ipam": {}})] {
        let sandbox = lab.container(if keys["ipam"]["type"].is_null() { "c2" } else { "c1" });
        // What a process leaves that was killed between making the link and setting it up.
        lab.host.within(|| {
            let mut host = Connection::open(Duration::from_secs(5)).unwrap();
            let spec = MacvlanSpec {
                name: "net1",
                parent: host.link_by_name("ens32").unwrap().unwrap().index,
                group: UNFINISHED,
                ..MacvlanSpec::default()
            };
            host.create_macvlan(&spec, Some(&Namespace::open(sandbox.path()).unwrap())).unwrap();
        });
        let index = sandbox.link("net1").unwrap()["ifindex"].clone();
        attach(lab, &sandbox, &keys).unwrap();
        let link = sandbox.link("net1").unwrap();
        assert_ne!(link["ifindex"], index);
        assert_eq!((&link["group"], &link["linkinfo"]["info_data"]["mode"]), (&json!("default"), &json!("bridge")));
        // Delivered, it stays.
        let error = attach(lab, &sandbox, &keys).unwrap_err();
        assert!(error.to_string().contains("file exists"), "{error}");
        assert_eq!(sandbox.link("net1").unwrap()["ifindex"], link["ifindex"]);
    }
}

fn a_foreign_link_is_not_replaced(lab: &Lab) {
    let sandbox = lab.container("c1");
    sandbox.ip("link add net1 type veth peer name other");
    sandbox.ip(&format!("link set net1 group {UNFINISHED}"));
    let error = attach(lab, &sandbox, &ipv4_only()).unwrap_err();
    assert!(error.to_string().contains("file exists"), "{error}");
    assert_eq!(sandbox.links(), ["lo", "net1", "other"]);
    assert!(lab.reserved("net").is_empty());
}

fn a_renamed_link_is_undone_and_a_foreign_one_is_not(lab: &Lab) {
    let sandbox = lab.container("c1");
    let added = pending(lab, &sandbox, &ipv4_only());
    // Whoever administers the sandbox is free to.
    sandbox.ip("link set net1 down");
    sandbox.ip("link set net1 name mine");
    sandbox.ip("link add net1 type veth peer name other");
    added.undo().unwrap();
    assert_eq!(sandbox.links(), ["lo", "net1", "other"]);
    assert!(lab.reserved("net").is_empty());
}

fn check_without_a_master_does_not_follow_the_default_route(lab: &Lab) {
    lab.add_parent("ens33", "wire2");
    lab.host.ip("address add 192.0.0.1/24 dev ens32");
    lab.host.ip("address add 192.0.1.1/24 dev ens33");
    lab.host.ip("route add default via 192.0.0.254");
    let sandbox = lab.container("c1");
    let mut config = ipv4_only();
    config["master"] = json!("");
    let added = attach(lab, &sandbox, &config).unwrap();
    lab.host.ip("route replace default via 192.0.1.254");
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap();
}

fn check_finds_what_was_changed(lab: &Lab) {
    let sandbox = lab.container("c1");
    lab.add_parent("ens33", "wire2");
    let config = ipv4_only();
    let added = attach(lab, &sandbox, &config).unwrap();
    let good = with_previous(&config, &added);
    check(lab, &sandbox, &good).unwrap();

    let refused = |config: &Value| check(lab, &sandbox, config).unwrap_err().to_string();
    assert_eq!(refused(&config), "required prevResult missing");
    let changed = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        refused(&config)
    };
    assert_eq!(changed("mode", json!("vepa")), "container macvlan mode bridge does not match expected value: vepa");
    let text = r#"interface net1 has another parent than the configured master "ens33""#;
    assert_eq!(changed("master", json!("ens33")), text);
    assert!(changed("master", json!("ens34")).starts_with("master \"ens34\" not found"));
    assert!(changed("mtu", json!(9000)).starts_with("invalid MTU 9000"));

    let mut elsewhere = good.clone();
    elsewhere["prevResult"]["interfaces"][0]["sandbox"] = json!("/elsewhere");
    let netns = sandbox.path().display();
    assert!(
        refused(&elsewhere).starts_with(&format!("sandbox in prevResult  doesn't match configured netns: {netns}"))
    );
    let mut other_mac = good.clone();
    other_mac["prevResult"]["interfaces"][0]["mac"] = json!("02:00:00:00:00:01");
    let mac = &added.interfaces[0].mac;
    let text = format!("interface net1 Mac 02:00:00:00:00:01 doesn't match container Mac: {mac}");
    assert_eq!(refused(&other_mac), text);
    let mut newer = good.clone();
    newer["cniVersion"] = json!("0.4.0");
    assert!(refused(&newer).starts_with("could not parse prevResult: result type supports [0.3.0 0.3.1 0.4.0]"));

    sandbox.ip("route del default");
    let text = "Expected Route {Dst:{IP:0.0.0.0 Mask:00000000} GW:<nil> MTU:0 AdvMSS:0 Priority:0 Table:<nil> Scope:<nil>} \
                not found in routing table";
    assert_eq!(refused(&good), text);
    sandbox.ip("link set net1 down");
    assert_eq!(refused(&good), "Failed to find Gateway 10.1.2.1 for interface net1: the link is down");
    sandbox.ip("address flush dev net1");
    assert_eq!(refused(&good), "Failed to match addr 10.1.2.2/24 on interface net1");
    sandbox.ip("link del net1");
    assert_eq!(refused(&good), "container Interface name in prevResult: net1 not found");
    sandbox.ip("link add net1 type veth peer name other");
    assert_eq!(refused(&good), "error: Container interface net1 not of type macvlan");
    std::fs::remove_file(lab.data_dir().join("net/10.1.2.2")).unwrap();
    assert_eq!(refused(&good), "host-local: Failed to find address added by container c1");
}

fn check_knows_other_tables_and_single_addresses(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = ipv4_only();
    config["ipam"]["routes"] = json!([{"dst": "192.168.0.0/16", "table": 100}]);
    let mut added = attach(lab, &sandbox, &config).unwrap();
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap();
    sandbox.ip("address add 172.16.0.1/32 dev net1");
    let mut single = added.ips[0].clone();
    single.address = "172.16.0.1/32".parse().unwrap();
    added.ips.push(single);
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap();
    sandbox.ip("route flush table 100");
    check(lab, &sandbox, &with_previous(&config, &added)).unwrap_err();
}

fn gc_and_status_reach_the_ipam(lab: &Lab) {
    let (first, second) = (lab.container("c1"), lab.container("c2"));
    let mut config = ipv4_only();
    config["ipam"]["ranges"] = json!([[{"subnet": "10.1.2.0/29", "rangeEnd": "10.1.2.3"}]]);
    let status = |config: &Value| lab.host.within(|| plugin().status(&invocation(lab, config)));
    let collect = |config: &Value| lab.host.within(|| plugin().gc(&invocation(lab, config)));
    status(&config).unwrap();
    let mut malformed = config.clone();
    malformed["mode"] = json!("x");
    assert!(status(&malformed).unwrap_err().to_string().starts_with("unknown macvlan mode: \"x\""));
    attach(lab, &first, &config).unwrap();
    attach(lab, &second, &config).unwrap();
    let error = status(&config).unwrap_err();
    assert_eq!(error.code().number(), 50);
    assert_eq!(error.to_string(), "no IP addresses available in range set: 10.1.2.1-10.1.2.3");
    collect(&config).unwrap();
    assert_eq!(lab.reserved("net"), ["10.1.2.2", "10.1.2.3"]);
    config["cni.dev/valid-attachments"] = json!([{"containerID": "c2", "ifname": "net1"}]);
    collect(&config).unwrap();
    assert_eq!(lab.reserved("net"), ["10.1.2.3"]);
    status(&config).unwrap();
}

fn it_works_from_a_pool_of_threads(lab: &Lab) {
    let plugin = plugin();
    let sandboxes: Vec<Netns> = (0..8).map(|index| lab.container(&format!("c{index}"))).collect();
    thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(|| {
                lab.host.within(|| {
                    plugin.add(&attachment(sandbox), &invocation(lab, &ipv4_only())).unwrap().keep();
                    // The thread is where it was.
                    assert_eq!(Connection::open(Duration::from_secs(5)).unwrap().links().unwrap().len(), 3);
                });
            });
        }
    });
    let mut addresses: Vec<String> = sandboxes.iter().flat_map(|sandbox| sandbox.addresses("net1")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 8);
}

/// One of the groups of links whose ADD is not finished.
const UNFINISHED: u32 = 0x6d6b_0000;

fn plugin() -> Macvlan {
    Macvlan::new(Registry::new().with("host-local", HostLocal::new()))
}

fn attachment(sandbox: &Netns) -> Attachment {
    let container_id = sandbox.path().file_name().unwrap().to_str().unwrap();
    Attachment {
        container_id: container_id.replace(['"', '-'], "").parse().unwrap(),
        ifname: "net1".parse().unwrap(),
        netns: Some(sandbox.path().to_owned()),
    }
}

/// `keys` over a network called `net` on `ens32`, with its reservations in the lab.
fn invocation(lab: &Lab, keys: &Value) -> Invocation {
    let mut config = json!({"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "ens32"});
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    if config["ipam"]["type"].is_string() {
        config["ipam"]["dataDir"] = json!(lab.data_dir());
    }
    let mut invocation = Invocation::new(NetworkConfig::parse(config.to_string()).unwrap());
    invocation.path = vec![lab.path("no-plugins-here")];
    invocation
}

fn pending(lab: &Lab, sandbox: &Netns, keys: &Value) -> Pending {
    lab.host.within(|| plugin().add(&attachment(sandbox), &invocation(lab, keys))).unwrap()
}

fn attach(lab: &Lab, sandbox: &Netns, keys: &Value) -> Result<Success, Error> {
    lab.host.within(|| plugin().add(&attachment(sandbox), &invocation(lab, keys))).map(Pending::keep)
}

fn detach(lab: &Lab, sandbox: &Netns, keys: &Value) -> Result<(), Error> {
    lab.host.within(|| plugin().del(&attachment(sandbox), &invocation(lab, keys)))
}

fn check(lab: &Lab, sandbox: &Netns, keys: &Value) -> Result<(), Error> {
    lab.host.within(|| plugin().check(&attachment(sandbox), &invocation(lab, keys)))
}

fn with_previous(keys: &Value, success: &Success) -> Value {
    let mut keys = keys.clone();
    keys["prevResult"] = serde_json::from_slice(&success.print(multus_cni::Version::LATEST).unwrap()).unwrap();
    keys
}

fn ipv4_only() -> Value {
    json!({"ipam": {
        "type": "host-local", "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
    }})
}

fn dual_stack() -> Value {
    json!({"ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }})
}

fn wait_until_settled(sandbox: &Netns) {
    for _ in 0..100 {
        let all = sandbox.ip_json("-6 address show dev net1 scope global");
        let address = &all[0]["addr_info"][0];
        if address["tentative"] != true || address["dadfailed"] == true {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("still tentative: {}", sandbox.ip("-6 address show dev net1"));
}
