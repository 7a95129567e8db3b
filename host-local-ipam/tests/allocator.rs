//! Which address is given, and what remains of an attempt that failed: in memory and on disk alike.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says where"
)]

use std::{fs, net::IpAddr, os::unix::fs::symlink, path::PathBuf};

use host_local_ipam::{
    Allocation, DiskStore, Error, MemoryStore, Range, RangeSet, Request, Reservations, Stage, Store, allocate, collect,
    is_exhausted,
};
use multus_cni::{AttachmentId, NetworkName};
use tempfile::TempDir;

#[test]
fn the_first_address_of_a_fresh_set_is_its_first_that_is_no_gateway() {
    for (ranges, expected) in [
        (&["10.0.0.0/29"][..], "10.0.0.2/29"),
        (&["10.0.0.0/30"], "10.0.0.2/30"),
        (&["2001:db8:1::/64"], "2001:db8:1::2/64"),
        (&["10.0.0.0/30", "10.0.1.0/30"], "10.0.0.2/30"),
        (&["192.168.1.0/24 192.168.1.0-192.168.1.3", "192.168.2.0/24 192.168.2.0-192.168.2.3"], "192.168.1.0/24"),
        (&["10.1.2.0/29 10.1.2.0-10.1.2.7 via 10.9.9.9"], "10.1.2.0/29"),
        (&["10.1.2.0/24 10.1.2.40-10.1.2.50 via 10.1.2.40"], "10.1.2.41/24"),
        (&["10.1.2.0/24 10.1.2.40-10.1.2.50 via 2001:db8::1"], "10.1.2.40/24"),
    ] {
        on_both_stores(|reservations| {
            assert_eq!(add(reservations, "c1", &[set(ranges)]).unwrap(), [expected], "{ranges:?}");
        });
    }
}

#[test]
fn the_next_address_is_the_one_after_the_last_reserved() {
    for (ranges, used, last, expected) in [
        (&["10.0.0.0/29"][..], &["10.0.0.2"][..], None, "10.0.0.3"),
        (&["10.0.0.0/29"], &[], Some("10.0.0.5"), "10.0.0.6"),
        (&["10.0.0.0/29"], &["10.0.0.4", "10.0.0.5"], Some("10.0.0.3"), "10.0.0.6"),
        (&["10.0.0.0/29"], &["10.0.0.6"], Some("10.0.0.5"), "10.0.0.2"),
        (&["10.0.0.0/29"], &["10.0.0.2"], Some("10.0.0.128"), "10.0.0.3"),
        (&["10.0.0.0/29"], &[], Some("2001:db8::5"), "10.0.0.2"),
        (&["10.0.0.0/29"], &["10.0.0.2", "10.0.0.4", "10.0.0.5", "10.0.0.6"], Some("10.0.0.3"), "10.0.0.3"),
        (&["10.0.0.0/30", "10.0.1.0/30"], &[], Some("10.0.0.2"), "10.0.1.2"),
        (&["10.0.0.0/30", "10.0.1.0/30", "10.0.2.0/30"], &[], Some("10.0.2.2"), "10.0.0.2"),
        (&["10.0.1.0/30", "10.0.0.0/30"], &[], Some("10.0.1.2"), "10.0.0.2"),
        (
            &["192.168.1.0/24 192.168.1.0-192.168.1.3", "192.168.2.0/24 192.168.2.0-192.168.2.3"],
            &[],
            Some("192.168.1.3"),
            "192.168.2.0",
        ),
        // The gateway was never given out, but may be what the file says.
        (&["10.0.0.0/29"], &[], Some("10.0.0.1"), "10.0.0.2"),
        // Of another range than the one whose gateway it is, an address may be given.
        (
            &["10.0.0.0/28 10.0.0.8-10.0.0.9 via 10.0.0.2", "10.0.0.0/28 10.0.0.2-10.0.0.3 via 10.0.0.9"],
            &[],
            Some("10.0.0.9"),
            "10.0.0.2",
        ),
        (&["2001:db8::/125"], &[], Some("2001:db8::7"), "2001:db8::2"),
        (&["2001:db8::/112"], &[], Some("2001:db8::ff"), "2001:db8::100"),
        // Four significant bytes do not make it an IPv4 address.
        (&["::a01:200/120"], &[], Some("::a01:201"), "::a01:202"),
        (&["255.255.255.248/29 255.255.255.254-255.255.255.255"], &[], Some("255.255.255.255"), "255.255.255.254"),
    ] {
        on_both_stores(|reservations| {
            for address in used {
                assert!(reservations.reserve(ip(address), &owner("other"), Stage::Finished).unwrap());
            }
            if let Some(last) = last {
                reservations.set_last_reserved(0, ip(last)).unwrap();
            }
            let given = allocated(reservations, "c1", &[set(ranges)], &[]).unwrap();
            assert_eq!(given[0].address.address(), ip(expected), "{ranges:?}, {used:?} used, last {last:?}");
            assert_eq!(reservations.last_reserved(0), Some(ip(expected)));
        });
    }
}

#[test]
fn each_address_is_given_once_around_the_set() {
    for (ranges, last, expected) in [
        (&["192.168.1.0/29"][..], None, "2 3 4 5 6"),
        (&["192.168.1.0/29"], Some("192.168.1.6"), "2 3 4 5 6"),
        (&["192.168.1.0/29"], Some("192.168.1.3"), "4 5 6 2 3"),
        (&["192.168.1.0/29 192.168.1.0-192.168.1.7 via 10.9.9.9"], None, "0 1 2 3 4 5 6 7"),
        (&["192.168.1.0/29 192.168.1.3-192.168.1.3"], None, "3"),
        (&["192.168.1.0/29 192.168.1.3-192.168.1.3 via 192.168.1.3"], None, ""),
        (&["192.168.1.0/29 192.168.1.3-192.168.1.5 via 192.168.1.5"], Some("192.168.1.4"), "3 4"),
        (&["192.168.1.8/30", "192.168.1.0/29 192.168.1.4-192.168.1.5"], Some("192.168.1.4"), "5 10 4"),
    ] {
        on_both_stores(|reservations| {
            if let Some(last) = last {
                reservations.set_last_reserved(0, ip(last)).unwrap();
            }
            let sets = [set(ranges)];
            let mut given = Vec::new();
            while given.len() < 20 {
                match allocated(reservations, &format!("c{}", given.len()), &sets, &[]) {
                    Ok(allocations) => given.push(allocations[0].address.address().to_string()),
                    Err(error) => {
                        assert_eq!(error.to_string(), exhausted(0, &sets[0]));
                        break;
                    }
                }
            }
            let hosts: Vec<&str> = given.iter().map(|address| address.strip_prefix("192.168.1.").unwrap()).collect();
            assert_eq!(hosts.join(" "), expected, "{ranges:?} after {last:?}");
        });
    }
}

#[test]
fn the_sixth_pod_of_a_29_finds_no_address() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.1.2.0/29"])];
        for (container, expected) in ["c1", "c2", "c3", "c4", "c5"].iter().zip(2..) {
            assert_eq!(add(reservations, container, &sets).unwrap(), [format!("10.1.2.{expected}/29")]);
        }
        let refused = add(reservations, "c6", &sets).unwrap_err();
        assert_eq!(
            refused,
            "failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6"
        );
        assert_eq!(reservations.last_reserved(0), Some(ip("10.1.2.6")));
        reservations.release_all(&owner("c3")).unwrap();
        assert_eq!(add(reservations, "c6", &sets).unwrap(), ["10.1.2.4/29"]);
    });
}

#[test]
fn ipv6_stays_ipv6_wherever_it_lies() {
    on_both_stores(|reservations| {
        let sets = [set(&["::a01:200/120"])];
        for (container, expected) in [("c1", "::a01:202/120"), ("c2", "::a01:203/120")] {
            let given = allocated(reservations, container, &sets, &[]).unwrap();
            assert_eq!(given[0].address, expected.parse().unwrap());
            assert!(given[0].address.address().is_ipv6());
        }
    });
}

#[test]
fn a_released_address_is_the_last_to_be_given_again() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        for expected in [2, 3, 4, 5, 6, 2] {
            assert_eq!(add(reservations, "c1", &sets).unwrap(), [format!("10.0.0.{expected}/29")]);
            reservations.release_all(&owner("c1")).unwrap();
        }
    });
}

#[test]
fn a_full_set_says_so() {
    for ranges in [&["192.168.1.0/30"][..], &["192.168.1.0/29"], &["192.168.1.0/30", "192.168.2.0/30"]] {
        on_both_stores(|reservations| {
            let set = set(ranges);
            fill(reservations, &set);
            assert_eq!(add(reservations, "late", std::slice::from_ref(&set)).unwrap_err(), exhausted(0, &set));
        });
    }
}

#[test]
fn each_set_gives_an_address_with_its_prefix_and_gateway() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.1.2.0/24", "10.2.2.0/24"]), set(&["2001:db8:1::/64 via 2001:db8:1::ff"])];
        let given = allocated(reservations, "c1", &sets, &[]).unwrap();
        let texts: Vec<String> = given.iter().map(|one| format!("{} via {}", one.address, one.gateway)).collect();
        assert_eq!(texts, ["10.1.2.2/24 via 10.1.2.1", "2001:db8:1::1/64 via 2001:db8:1::ff"]);
        assert_eq!(reservations.last_reserved(0), Some(ip("10.1.2.2")));
        assert_eq!(reservations.last_reserved(1), Some(ip("2001:db8:1::1")));
        assert_eq!(reservations.last_reserved(2), None);
        assert_eq!(held(reservations, "c1"), ["10.1.2.2", "2001:db8:1::1"]);
    });
}

#[test]
fn a_range_from_its_broadcast_address_on_has_no_address_and_harms_nobody() {
    let subnet = "10.0.0.0/29".parse().unwrap();
    if let Ok(range) = Range::within(subnet, Some(ip("10.0.0.7")), None, None) {
        on_both_stores(|reservations| {
            let set = RangeSet::new(vec![range]).unwrap();
            assert_eq!(add(reservations, "c1", std::slice::from_ref(&set)).unwrap_err(), exhausted(0, &set));
            assert!(reservations.reserve(ip("10.0.0.2"), &owner("other"), Stage::Finished).unwrap());
            assert_eq!(add(reservations, "c1", std::slice::from_ref(&set)).unwrap_err(), exhausted(0, &set));
        });
    }
}

#[test]
fn an_attachment_gets_one_address_of_a_set() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        add(reservations, "c1", &sets).unwrap();
        assert_eq!(
            add(reservations, "c1", &sets).unwrap_err(),
            "failed to allocate for range 0: 10.0.0.2 has been allocated to c1, duplicate allocation is not allowed"
        );
        assert_eq!(add(reservations, "c2", &sets).unwrap(), ["10.0.0.3/29"]);
        assert!(add(reservations, "c1", &sets).is_err());
        let net1 = AttachmentId { ifname: "net1".to_owned(), ..owner("c1") };
        let second =
            allocate(reservations, &Request { owner: &net1, sets: &sets, wanted: &[], stage: Stage::Finished })
                .unwrap();
        assert_eq!(second[0].address.to_string(), "10.0.0.4/29");
        // An address of another set does not matter.
        assert_eq!(add(reservations, "c1", &[set(&["10.0.1.0/29"])]).unwrap(), ["10.0.1.2/29"]);
        reservations.release_all(&owner("c1")).unwrap();
        assert_eq!(held(reservations, "c1"), [""; 0]);
        assert_eq!(reservations.held_by(&net1).unwrap(), [ip("10.0.0.4")]);
    });
}

#[test]
fn the_duplicate_that_is_named_is_the_first_in_the_order_of_the_text() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/24"])];
        for wanted in ["10.0.0.9", "10.0.0.10"] {
            allocated(reservations, "c1", &sets, &[wanted]).unwrap();
        }
        let refused = add(reservations, "c1", &sets).unwrap_err();
        assert!(refused.contains(": 10.0.0.10 has been allocated to c1"), "{refused}");
    });
}

#[test]
fn a_wanted_address_is_given() {
    for (sets, wanted, expected) in [
        (&[&["10.1.2.0/24"][..]][..], &["10.1.2.88"][..], &["10.1.2.88/24"][..]),
        (&[&["10.1.2.0/24"], &["10.1.3.0/24"]], &["10.1.2.88", "10.1.3.77"], &["10.1.2.88/24", "10.1.3.77/24"]),
        (&[&["10.1.2.0/24"], &["10.1.3.0/24"]], &["10.1.3.77", "10.1.2.88"], &["10.1.2.88/24", "10.1.3.77/24"]),
        (&[&["10.1.2.0/24"], &["10.1.3.0/24"]], &["10.1.3.77"], &["10.1.2.2/24", "10.1.3.77/24"]),
        (
            &[&["172.16.1.0/24", "10.1.2.0/24"], &["2001:db8:1::/48"]],
            &["10.1.2.88", "2001:db8:1::999"],
            &["10.1.2.88/24", "2001:db8:1::999/48"],
        ),
        (&[&["10.1.2.0/24"]], &["10.1.2.88", "10.1.2.88"], &["10.1.2.88/24"]),
        (&[&["10.1.2.0/24"]], &[], &["10.1.2.2/24"]),
    ] {
        on_both_stores(|reservations| {
            let sets: Vec<RangeSet> = sets.iter().map(|ranges| set(ranges)).collect();
            let given = allocated(reservations, "c1", &sets, wanted).unwrap();
            let addresses: Vec<String> = given.iter().map(|one| one.address.to_string()).collect();
            assert_eq!(addresses, expected, "{wanted:?}");
            for (index, allocation) in given.iter().enumerate() {
                assert_eq!(reservations.last_reserved(index), Some(allocation.address.address()), "{wanted:?}");
            }
        });
    }
}

#[test]
fn a_wanted_address_that_cannot_be_given_changes_nothing() {
    for (sets, wanted, expected) in [
        (
            &[&["192.168.1.0/29"][..]][..],
            &["192.168.1.5"][..],
            "failed to allocate for range 0: requested IP address 192.168.1.5 is not available in range set \
             192.168.1.1-192.168.1.6: reserved for container other, interface eth0",
        ),
        (
            &[&["192.168.1.0/29"]],
            &["192.168.1.1"],
            "failed to allocate for range 0: requested ip 192.168.1.1 is subnet's gateway",
        ),
        (
            &[&["192.168.1.0/29 192.168.1.2-192.168.1.4"]],
            &["192.168.1.6"],
            "failed to allocate all requested IPs: 192.168.1.6",
        ),
        (
            &[&["192.168.1.0/29 192.168.1.3-192.168.1.6"]],
            &["192.168.1.2"],
            "failed to allocate all requested IPs: 192.168.1.2",
        ),
        (
            &[&["192.168.1.0/29"]],
            &["10.9.9.9", "2001:db8::9"],
            "failed to allocate all requested IPs: 10.9.9.9 2001:db8::9",
        ),
        (
            &[&["192.168.1.0/29"], &["10.1.3.0/24"]],
            &["192.168.1.3", "192.168.1.4"],
            "failed to allocate all requested IPs: 192.168.1.4",
        ),
        (
            &[&["10.1.3.0/24"], &["192.168.1.0/29"]],
            &["192.168.1.5", "10.1.3.9"],
            "failed to allocate for range 1: requested IP address 192.168.1.5 is not available in range set \
             192.168.1.1-192.168.1.6: reserved for container other, interface eth0",
        ),
    ] {
        on_both_stores(|reservations| {
            let sets: Vec<RangeSet> = sets.iter().map(|ranges| set(ranges)).collect();
            assert!(reservations.reserve(ip("192.168.1.5"), &owner("other"), Stage::Finished).unwrap());
            let before = reservations.all().unwrap();
            let refused = allocated(reservations, "c1", &sets, wanted).unwrap_err();
            assert_eq!(refused.to_string(), expected);
            assert_eq!(reservations.all().unwrap(), before, "{wanted:?}");
        });
    }
}

#[test]
fn wanted_addresses_outside_of_every_range_do_not_move_the_round_on() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        allocated(reservations, "c1", &sets, &["10.9.9.9"]).unwrap_err();
        assert_eq!(reservations.last_reserved(0), None);
        assert_eq!(add(reservations, "c1", &sets).unwrap(), ["10.0.0.2/29"]);
    });
}

#[test]
fn the_round_goes_on_after_a_wanted_address() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        allocated(reservations, "c1", &sets, &["10.0.0.5"]).unwrap();
        assert_eq!(add(reservations, "c2", &sets).unwrap(), ["10.0.0.6/29"]);
    });
}

#[test]
fn an_attachment_may_collect_wanted_addresses() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        for wanted in ["10.0.0.5", "10.0.0.3"] {
            allocated(reservations, "c1", &sets, &[wanted]).unwrap();
        }
        assert_eq!(held(reservations, "c1"), ["10.0.0.3", "10.0.0.5"]);
        // Wanting what it has is refused, and it keeps it.
        allocated(reservations, "c1", &sets, &["10.0.0.5"]).unwrap_err();
        assert_eq!(held(reservations, "c1"), ["10.0.0.3", "10.0.0.5"]);
    });
}

#[test]
fn a_set_that_is_full_takes_back_what_the_others_gave() {
    on_both_stores(|reservations| {
        let full = set(&["10.1.3.0/30"]);
        fill(reservations, &full);
        let before = reservations.all().unwrap();
        let sets = [set(&["10.1.2.0/24"]), set(&["2001:db8::/64"]), full];
        assert_eq!(add(reservations, "c1", &sets).unwrap_err(), exhausted(2, &sets[2]));
        assert_eq!(reservations.all().unwrap(), before);
    });
}

#[test]
fn an_older_reservation_of_the_same_attachment_survives_its_failed_add() {
    on_both_stores(|reservations| {
        let (first, second) = (set(&["10.1.2.0/24"]), set(&["10.1.3.0/24"]));
        assert_eq!(add(reservations, "c1", std::slice::from_ref(&second)).unwrap(), ["10.1.3.2/24"]);
        assert_eq!(
            add(reservations, "c1", &[first, second.clone()]).unwrap_err(),
            "failed to allocate for range 1: 10.1.3.2 has been allocated to c1, duplicate allocation is not allowed"
        );
        assert_eq!(held(reservations, "c1"), ["10.1.3.2"]);
        assert_eq!(add(reservations, "c2", &[second]).unwrap(), ["10.1.3.3/24"]);
    });
}

#[test]
fn what_cannot_be_remembered_is_not_reserved() {
    for index in 0..3 {
        let disk = Disk::new();
        fs::create_dir(disk.path(&format!("last_reserved_ip.{index}"))).unwrap();
        let mut reservations = disk.lock();
        assert!(reservations.reserve(ip("10.1.2.2"), &owner("other"), Stage::Finished).unwrap());
        let sets = [set(&["10.1.2.0/24"]), set(&["10.1.3.0/24"]), set(&["2001:db8::/64"])];
        let error = allocated(&mut *reservations, "c1", &sets, &[]).unwrap_err();
        assert!(matches!(&error, Error::Allocation { set, .. } if *set == index), "{error:?}");
        let place = disk.path(&format!("last_reserved_ip.{index}"));
        assert_eq!(
            error.to_string(),
            format!("failed to allocate for range {index}: write {}: is a directory", place.display())
        );
        assert_eq!(disk.reserved(), ["10.1.2.2"]);
        assert_eq!(disk.content("10.1.2.2"), "other\r\neth0");
    }
}

#[test]
fn a_reservation_is_a_file_with_container_and_interface() {
    let disk = Disk::new();
    let sets = [set(&["10.1.2.0/24"]), set(&["2001:DB8:1::/64"])];
    add(&mut *disk.lock(), "c1", &sets).unwrap();
    assert_eq!(
        disk.names(),
        ["10.1.2.2", "2001:db8:1::2", "last_reserved_ip.0", "last_reserved_ip.1", "lock"],
        "and nothing else"
    );
    for (name, content) in [
        ("10.1.2.2", "c1\r\neth0"),
        ("2001:db8:1::2", "c1\r\neth0"),
        ("last_reserved_ip.0", "10.1.2.2"),
        ("last_reserved_ip.1", "2001:db8:1::2"),
        ("lock", ""),
    ] {
        assert_eq!(disk.content(name), content, "{name}");
    }
}

#[test]
fn the_last_reserved_address_is_written_over_what_others_have_written_meanwhile() {
    let disk = Disk::new();
    let remember = |address| disk.lock().set_last_reserved(0, ip(address)).unwrap();
    remember("10.1.2.2");
    remember("10.1.2.3");
    // As the Go plugin does, in the same file.
    fs::write(disk.path("last_reserved_ip.0"), "10.1.2.14").unwrap();
    remember("10.1.2.5");
    assert_eq!(disk.content("last_reserved_ip.0"), "10.1.2.5");
    // As another process of ours does, with another file.
    fs::write(disk.path("other"), "10.1.2.6").unwrap();
    fs::rename(disk.path("other"), disk.path("last_reserved_ip.0")).unwrap();
    remember("10.1.2.7");
    assert_eq!(disk.content("last_reserved_ip.0"), "10.1.2.7");
}

#[test]
fn the_last_reserved_address_is_read_to_the_letter() {
    for (content, expected) in [
        ("10.0.0.3", "10.0.0.4/29"),
        ("::ffff:10.0.0.3", "10.0.0.4/29"),
        ("10.0.0.3\n", "10.0.0.2/29"),
        (" 10.0.0.3", "10.0.0.2/29"),
        ("10.0.0.03", "10.0.0.2/29"),
        ("", "10.0.0.2/29"),
        ("nonsense", "10.0.0.2/29"),
    ] {
        let disk = Disk::new();
        fs::write(disk.path("last_reserved_ip.0"), content).unwrap();
        assert_eq!(add(&mut *disk.lock(), "c1", &[set(&["10.0.0.0/29"])]).unwrap(), [expected], "{content:?}");
        assert_eq!(disk.content("last_reserved_ip.0"), expected.trim_end_matches("/29"));
    }
}

#[test]
fn space_around_a_container_id_does_not_count() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/29"])];
        assert_eq!(add(reservations, " dummy\n ", &sets).unwrap(), ["10.0.0.2/29"]);
        let recorded: Vec<String> =
            reservations.all().unwrap().into_iter().map(|reservation| reservation.owner.container_id).collect();
        assert_eq!(recorded, ["dummy"]);
        assert_eq!(held(reservations, " dummy\n "), ["10.0.0.2"]);
        reservations.release_all(&owner(" dummy\n ")).unwrap();
        assert_eq!(reservations.all().unwrap(), []);
    });
}

#[test]
fn a_record_without_an_interface_belongs_to_every_interface_of_its_container() {
    for content in ["c1", "c1\n", " c1 \r\n"] {
        let disk = Disk::new();
        fs::write(disk.path("10.0.0.4"), content).unwrap();
        let mut reservations = disk.lock();
        assert_eq!(held(&mut *reservations, "c1"), ["10.0.0.4"], "{content:?}");
        assert_eq!(
            add(&mut *reservations, "c1", &[set(&["10.0.0.0/29"])]).unwrap_err(),
            "failed to allocate for range 0: 10.0.0.4 has been allocated to c1, duplicate allocation is not allowed"
        );
        reservations.release_all(&owner("c2")).unwrap();
        assert_eq!(disk.reserved(), ["10.0.0.4"]);
        reservations.release_all(&AttachmentId { ifname: "net1".to_owned(), ..owner("c1") }).unwrap();
        assert_eq!(disk.reserved(), [""; 0], "{content:?}");
    }
}

#[test]
fn a_record_without_an_interface_goes_only_when_there_is_none_with_it() {
    let disk = Disk::new();
    fs::write(disk.path("10.0.0.4"), "c1").unwrap();
    fs::write(disk.path("10.0.0.5"), "c1\r\neth0").unwrap();
    let mut reservations = disk.lock();
    reservations.release_all(&owner("c1")).unwrap();
    assert_eq!(disk.reserved(), ["10.0.0.4"]);
    reservations.release_all(&owner("c1")).unwrap();
    assert_eq!(disk.reserved(), [""; 0]);
    reservations.release_all(&owner("c1")).unwrap();
}

#[test]
fn an_empty_file_reserves_nothing() {
    for wanted in [&[][..], &["10.0.0.2"]] {
        let disk = Disk::new();
        fs::write(disk.path("10.0.0.2"), "").unwrap();
        let given = allocated(&mut *disk.lock(), "c1", &[set(&["10.0.0.0/29"])], wanted).unwrap();
        assert_eq!(given[0].address.to_string(), "10.0.0.2/29");
        assert_eq!(disk.content("10.0.0.2"), "c1\r\neth0");
    }
}

#[test]
fn a_range_full_of_empty_files_is_all_free() {
    let disk = Disk::new();
    let sets = [set(&["10.0.0.0/29"])];
    for host in 2..=6 {
        fs::write(disk.path(&format!("10.0.0.{host}")), "").unwrap();
    }
    let mut reservations = disk.lock();
    assert!(!is_exhausted(&mut *reservations, &sets[0]).unwrap());
    for host in 2..=6 {
        assert_eq!(add(&mut *reservations, &format!("c{host}"), &sets).unwrap(), [format!("10.0.0.{host}/29")]);
    }
    assert!(is_exhausted(&mut *reservations, &sets[0]).unwrap());
}

#[test]
fn whatever_has_the_name_of_an_address_takes_it() {
    type Maker = fn(&PathBuf);
    let makers: [(&str, Maker); 5] = [
        ("dangling link", |path| symlink("/nonexistent/target", path).unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("text", |path| fs::write(path, "somebody's notes").unwrap()),
        ("bare line feed", |path| fs::write(path, "c1\neth0").unwrap()),
        ("blank", |path| fs::write(path, "\r\n").unwrap()),
    ];
    for (kind, make) in makers {
        let disk = Disk::new();
        make(&disk.path("10.0.0.2"));
        let mut reservations = disk.lock();
        let sets = [set(&["10.0.0.0/29"])];
        let refused = allocated(&mut *reservations, "c1", &sets, &["10.0.0.2"]).unwrap_err().to_string();
        assert!(refused.contains("requested IP address 10.0.0.2 is not available in range set"), "{kind}: {refused}");
        assert_eq!(add(&mut *reservations, "c1", &sets).unwrap(), ["10.0.0.3/29"], "{kind}");
        reservations.release_all(&owner("c1")).unwrap();
        collect(&mut *reservations, &[]).unwrap();
        assert!(fs::symlink_metadata(disk.path("10.0.0.2")).is_ok(), "{kind} is left alone");
    }
}

#[test]
fn files_of_other_names_are_left_alone() {
    let disk = Disk::new();
    let foreign = ["notes", "10.0.0.3~", "10.0.0.03", "2001:DB8::2", "last_reserved_ip.7", ".hidden", "old/10.0.0.3"];
    fs::create_dir(disk.path("old")).unwrap();
    for name in foreign {
        fs::write(disk.path(name), "c1\r\neth0").unwrap();
    }
    let mut reservations = disk.lock();
    assert_eq!(held(&mut *reservations, "c1"), [""; 0]);
    let sets = [set(&["10.0.0.0/29"]), set(&["2001:db8::/64"])];
    assert_eq!(add(&mut *reservations, "c1", &sets).unwrap(), ["10.0.0.2/29", "2001:db8::2/64"]);
    reservations.release_all(&owner("c1")).unwrap();
    collect(&mut *reservations, &[]).unwrap();
    for name in foreign {
        assert_eq!(disk.content(name), "c1\r\neth0", "{name}");
    }
    assert!(!disk.path("10.0.0.2").exists());
}

#[test]
fn a_reservation_that_changed_hands_is_not_released() {
    on_both_stores(|reservations| {
        reservations.reserve(ip("10.0.0.2"), &owner("c1"), Stage::Finished).unwrap();
        let first = reservations.all().unwrap();
        reservations.release_all(&owner("c1")).unwrap();
        reservations.reserve(ip("10.0.0.2"), &owner("c2"), Stage::Finished).unwrap();
        reservations.release(&first[0]).unwrap();
        assert_eq!(held(reservations, "c2"), ["10.0.0.2"]);
        assert!(!reservations.reserve(ip("10.0.0.2"), &owner("c3"), Stage::Finished).unwrap());
    });
}

#[test]
fn collecting_releases_what_belongs_to_nobody_valid() {
    on_both_stores(|reservations| {
        let sets = [set(&["10.0.0.0/24"]), set(&["2001:db8::/64"])];
        for container in ["c1", "c2", "c3"] {
            add(reservations, container, &sets).unwrap();
        }
        let last = reservations.last_reserved(0);
        let other_interface = AttachmentId { ifname: "net1".to_owned(), ..owner("c3") };
        collect(reservations, &[owner("c2"), other_interface, owner("c9")]).unwrap();
        let left: Vec<String> =
            reservations.all().unwrap().iter().map(|reservation| reservation.address.to_string()).collect();
        assert_eq!(left, ["10.0.0.3", "2001:db8::3"]);
        assert_eq!(reservations.last_reserved(0), last);
        collect(reservations, &[]).unwrap();
        assert_eq!(reservations.all().unwrap(), []);
        assert_eq!(add(reservations, "c4", &sets).unwrap(), ["10.0.0.5/24", "2001:db8::5/64"]);
    });
}

#[test]
fn collecting_spares_old_records_of_valid_containers_and_all_other_files() {
    let disk = Disk::new();
    for (name, content) in
        [("10.0.0.2", "c1"), ("10.0.0.3", "c2"), ("10.0.0.4", "not a record at all"), ("notes", "c2"), ("10.0.0.5", "")]
    {
        fs::write(disk.path(name), content).unwrap();
    }
    fs::write(disk.path("last_reserved_ip.0"), "10.0.0.5").unwrap();
    let net1 = AttachmentId { ifname: "net1".to_owned(), ..owner("c1") };
    collect(&mut *disk.lock(), &[net1]).unwrap();
    assert_eq!(disk.names(), ["10.0.0.2", "10.0.0.4", "10.0.0.5", "last_reserved_ip.0", "lock", "notes"]);
}

#[test]
fn a_set_is_exhausted_when_only_the_gateway_is_left() {
    for ranges in [
        &["10.0.0.0/30"][..],
        &["10.0.0.0/29"],
        &["10.0.0.0/29 10.0.0.3-10.0.0.5 via 10.0.0.4"],
        &["10.0.0.0/29 10.0.0.0-10.0.0.7 via 10.9.9.9"],
        &["10.0.0.0/30", "10.0.1.0/30"],
        &["2001:db8::/125"],
    ] {
        on_both_stores(|reservations| {
            let set = set(ranges);
            assert!(!is_exhausted(reservations, &set).unwrap(), "{ranges:?}");
            let last_owner = fill(reservations, &set);
            assert!(is_exhausted(reservations, &set).unwrap(), "{ranges:?}");
            reservations.release_all(&owner(&last_owner)).unwrap();
            assert!(!is_exhausted(reservations, &set).unwrap(), "{ranges:?}");
        });
    }
    on_both_stores(|reservations| {
        let gateway_only = set(&["10.0.0.0/29 10.0.0.3-10.0.0.3 via 10.0.0.3"]);
        assert!(is_exhausted(reservations, &gateway_only).unwrap());
    });
}

#[test]
fn networks_do_not_know_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let stores: [Box<dyn Store>; 2] = [Box::new(MemoryStore::new()), Box::new(DiskStore::new(directory.path()))];
    let names: [NetworkName; 2] = ["mynet0".parse().unwrap(), "mynet1".parse().unwrap()];
    for store in stores {
        let sets = [set(&["10.1.2.0/24"])];
        for name in &names {
            assert!(store.lock_existing(name).unwrap().is_none());
            assert_eq!(add(&mut *store.lock(name).unwrap(), "c1", &sets).unwrap(), ["10.1.2.2/24"]);
        }
        store.lock_existing(&names[0]).unwrap().unwrap().release_all(&owner("c1")).unwrap();
        assert_eq!(held(&mut *store.lock(&names[0]).unwrap(), "c1"), [""; 0]);
        assert_eq!(held(&mut *store.lock(&names[1]).unwrap(), "c1"), ["10.1.2.2"]);
    }
}

#[test]
fn looking_at_a_network_that_never_was_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = DiskStore::new(directory.path().join("networks"));
    assert!(store.lock_existing(&network()).unwrap().is_none());
    assert!(!directory.path().join("networks").exists());
}

#[test]
fn a_store_that_cannot_be_opened_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let locked = directory.path().join("networks/storage/lock");
    fs::create_dir_all(&locked).unwrap();
    for (data_dir, ending) in [(file, ": not a directory"), (directory.path().join("networks"), ": is a directory")] {
        let store = DiskStore::new(&data_dir);
        for error in [store.lock(&network()).err().unwrap(), store.lock_existing(&network()).err().unwrap()] {
            let text = error.to_string();
            assert!(text.ends_with(ending) && text.contains(data_dir.to_str().unwrap()), "{text}");
        }
    }
}

#[test]
fn threads_get_different_addresses() {
    let disk = Disk::new();
    let memory = MemoryStore::new();
    let stores: [&dyn Store; 2] = [&disk.store, &memory];
    for store in stores {
        let sets = [set(&["10.0.0.0/24"]), set(&["2001:db8::/64"])];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let sets = &sets;
                scope.spawn(move || {
                    for turn in 0..20 {
                        let container = format!("c{thread}-{turn}");
                        add(&mut *store.lock(&network()).unwrap(), &container, sets).unwrap();
                    }
                });
            }
        });
        let all = store.lock(&network()).unwrap().all().unwrap();
        assert_eq!(all.len(), 2 * 4 * 20, "each ADD found two addresses that nobody had");
    }
}

#[test]
fn a_lock_that_was_removed_while_somebody_waited_for_it_is_none() {
    let disk = Disk::new();
    let held = fs::File::open(disk.path("lock")).unwrap();
    held.lock().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let store = DiskStore::new(disk.directory.path());
            let _reservations = store.lock(&network()).unwrap();
            // It has the one that everybody else finds.
            assert!(fs::File::open(disk.path("lock")).unwrap().try_lock().is_err());
        });
        // Long enough for it to wait.
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::remove_file(disk.path("lock")).unwrap();
        drop(held);
        waiting.join().unwrap();
    });
}

/// A store on disk, and the directory of its only network.
struct Disk {
    directory: TempDir,
    store: DiskStore,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = DiskStore::new(directory.path());
        drop(store.lock(&network()).unwrap());
        Self { directory, store }
    }

    fn lock(&self) -> Box<dyn Reservations + '_> {
        self.store.lock(&network()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("storage").join(name)
    }

    fn content(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn reserved(&self) -> Vec<String> {
        self.names().into_iter().filter(|name| name.parse::<IpAddr>().is_ok()).collect()
    }
}

fn on_both_stores(test: impl Fn(&mut dyn Reservations)) {
    println!("in memory");
    test(&mut *MemoryStore::new().lock(&network()).unwrap());
    println!("on disk");
    test(&mut *Disk::new().lock());
}

fn network() -> NetworkName {
    "storage".parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn owner(container_id: &str) -> AttachmentId {
    AttachmentId { container_id: container_id.to_owned(), ifname: "eth0".to_owned() }
}

/// A set of ranges, each written `subnet [first-last] [via gateway]`.
fn set(ranges: &[&str]) -> RangeSet {
    let range = |text: &&str| {
        let (rest, gateway) = match text.split_once(" via ") {
            Some((rest, gateway)) => (rest, Some(ip(gateway))),
            None => (*text, None),
        };
        let (subnet, window) = match rest.split_once(' ') {
            Some((subnet, window)) => (subnet, window.split_once('-')),
            None => (rest, None),
        };
        let (first, last) = window.map(|(first, last)| (ip(first), ip(last))).unzip();
        Range::within(subnet.parse().unwrap(), first, last, gateway).unwrap()
    };
    RangeSet::new(ranges.iter().map(range).collect()).unwrap()
}

fn allocated(
    reservations: &mut dyn Reservations,
    container_id: &str,
    sets: &[RangeSet],
    wanted: &[&str],
) -> Result<Vec<Allocation>, Error> {
    let wanted: Vec<IpAddr> = wanted.iter().map(|text| ip(text)).collect();
    allocate(reservations, &Request { owner: &owner(container_id), sets, wanted: &wanted, stage: Stage::Finished })
}

/// The addresses given to a container that wants none in particular, or why there are none.
fn add(reservations: &mut dyn Reservations, container_id: &str, sets: &[RangeSet]) -> Result<Vec<String>, String> {
    let given = allocated(reservations, container_id, sets, &[]).map_err(|error| error.to_string())?;
    Ok(given.iter().map(|allocation| allocation.address.to_string()).collect())
}

fn held(reservations: &mut dyn Reservations, container_id: &str) -> Vec<String> {
    reservations.held_by(&owner(container_id)).unwrap().iter().map(ToString::to_string).collect()
}

/// Takes every address of the set, and tells the container that got the last one.
fn fill(reservations: &mut dyn Reservations, set: &RangeSet) -> String {
    let mut last = String::new();
    for number in 0..32 {
        let container = format!("full{number}");
        match add(reservations, &container, std::slice::from_ref(set)) {
            Ok(_) => last = container,
            Err(error) => {
                assert_eq!(error, exhausted(0, set));
                return last;
            }
        }
    }
    panic!("{set} is larger than a test needs");
}

fn exhausted(index: usize, set: &RangeSet) -> String {
    format!("failed to allocate for range {index}: no IP addresses available in range set: {set}")
}
