//! The conversation with the kernel, and what comes of it when something is wrong.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    io::ErrorKind,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use multus_net::{Connection, Error, MacvlanMode, MacvlanSpec, Namespace, RouteSpec, sysctl};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use testkit::{Lab, Netns, linux, run};

const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    run(&[
        ("refusals_carry_the_kernels_own_words", refusals_carry_the_kernels_own_words),
        ("what_is_not_there_is_none_or_not_found", what_is_not_there_is_none_or_not_found),
        ("dumps_are_whole_while_links_come_and_go", dumps_are_whole_while_links_come_and_go),
        ("only_the_kernel_is_listened_to", only_the_kernel_is_listened_to),
        ("a_link_of_many_names_can_be_read_and_deleted", a_link_of_many_names_can_be_read_and_deleted),
        ("a_link_is_born_in_the_other_namespace", a_link_is_born_in_the_other_namespace),
        ("a_link_can_be_renamed_while_it_runs_since_linux_6_2", a_link_can_be_renamed_while_it_runs_since_linux_6_2),
        ("work_inside_does_not_move_the_caller", work_inside_does_not_move_the_caller),
        ("a_panic_inside_is_an_error", a_panic_inside_is_an_error),
        ("only_namespaces_are_opened", only_namespaces_are_opened),
        ("the_same_namespace_is_known_by_any_path", the_same_namespace_is_known_by_any_path),
        ("sysctls_are_those_of_the_namespace", sysctls_are_those_of_the_namespace),
        ("waiting_for_addresses_ends_in_time", waiting_for_addresses_ends_in_time),
        ("routes_are_read_as_they_are", routes_are_read_as_they_are),
        ("a_gateway_of_another_family_is_refused", a_gateway_of_another_family_is_refused),
    ])
}

fn refusals_carry_the_kernels_own_words(lab: &Lab) {
    let mut host = connect(&lab.host);
    let index = host.link_by_name("ens32").unwrap().unwrap().index;
    let address = "10.0.0.1/24".parse().unwrap();
    host.add_address(index, address, false).unwrap();
    let error = host.add_address(index, address, false).unwrap_err();
    assert!(error.already_exists());
    let words = if linux() >= (6, 12) { ": ipv4: Address already assigned" } else { "" };
    assert_eq!(error.to_string(), format!("file exists{words}"));
    let error = host.add_route(&route("192.168.0.0/16", "172.31.0.1", index)).unwrap_err();
    assert_eq!(error.to_string(), "network is unreachable: Nexthop has invalid gateway");
    let error = host.add_route(&route("192.168.0.1/16", "10.0.0.2", index)).unwrap_err();
    assert!(error.to_string().starts_with("invalid argument: "), "{error}");
    lab.host.ip("link set ens32 down");
    let error = host.rename_link(index, "lo").unwrap_err();
    assert_eq!(error.to_string(), "file exists");
}

fn what_is_not_there_is_none_or_not_found(lab: &Lab) {
    let mut host = connect(&lab.host);
    assert_eq!(host.link_by_name("ens23").unwrap(), None);
    assert_eq!(host.link_by_name("").unwrap(), None);
    assert_eq!(host.link_by_name(&"x".repeat(100_000)).unwrap(), None);
    assert_eq!(host.link_by_index(4711).unwrap(), None);
    assert!(host.delete_link(4711).unwrap_err().is_not_found());
    let error = Namespace::open(Path::new("/nowhere")).unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.to_string(), "failed to Statfs \"/nowhere\": no such file or directory");
}

fn dumps_are_whole_while_links_come_and_go(lab: &Lab) {
    for number in 0..40 {
        lab.host.ip(&format!("link add stays{number} link ens32 type macvlan"));
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut host = connect(&lab.host);
            let parent = host.link_by_name("ens32").unwrap().unwrap().index;
            while !done.load(Ordering::Relaxed) {
                host.create_macvlan(&spec("goes", parent), None).unwrap();
                let index = host.link_by_name("goes").unwrap().unwrap().index;
                host.delete_link(index).unwrap();
            }
        });
        let mut host = connect(&lab.host);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            match host.links() {
                Ok(links) => assert_eq!(links.iter().filter(|link| link.name.starts_with("stays")).count(), 40),
                // It says so, rather than telling half.
                Err(error) => assert!(matches!(error, Error::UnusableReply { .. }), "{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

fn only_the_kernel_is_listened_to(lab: &Lab) {
    let sandbox = lab.container("c1");
    sandbox.ip("link add net1 type veth peer name other");
    let mut inside = connect(&sandbox);
    // Whoever administers the sandbox answers before the kernel can: "no such device", to each of the first requests.
    sandbox.within(|| {
        let mut refused = 0;
        let forger = Socket::new(NETLINK_ROUTE).unwrap();
        for sequence_number in 1..=3_u32 {
            let mut forged = Vec::new();
            forged.extend([36_u32.to_ne_bytes(), [2, 0, 0, 0], sequence_number.to_ne_bytes(), [0; 4]].concat());
            forged.extend([(-19_i32).to_ne_bytes(), [16, 0, 0, 0], [0; 4], [0; 4], [0; 4]].concat());
            for port in netlink_ports() {
                let sent = forger.send_to(&forged, &SocketAddr::new(port, 0), 0);
                refused += u32::from(sent.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
            }
        }
        assert!(refused >= 3, "{refused}");
    });
    let link = inside.link_by_name("net1").unwrap().unwrap();
    inside.delete_link(link.index).unwrap();
    assert_eq!(sandbox.links(), ["lo"]);
}

/// The ports of the netlink sockets in the calling thread's namespace.
fn netlink_ports() -> Vec<u32> {
    let table = fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
    let ports = table.lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap());
    let ports: Vec<u32> = ports.filter(|port| *port != 0).collect();
    assert!(!ports.is_empty());
    ports
}

fn a_link_of_many_names_can_be_read_and_deleted(lab: &Lab) {
    let sandbox = lab.container("c1");
    for number in 0..20 {
        sandbox.ip(&format!("link add other{number} type veth peer name peer{number}"));
    }
    sandbox.ip("link add net1 type veth peer name other");
    let line =
        |link: &str, number: u32| format!("link property add dev {link} altname {link}{}{number}\n", "x".repeat(110));
    let lines =
        ["net1", "other3", "other9"].into_iter().flat_map(|link| (0..300).map(move |number| line(link, number)));
    fs::write(lab.path("names"), lines.collect::<String>()).unwrap();
    sandbox.ip(&format!("-batch {}", lab.path("names").display()));
    let mut inside = connect(&sandbox);
    for _ in 0..2 {
        assert_eq!(inside.links().unwrap().len(), 43);
    }
    assert_eq!(inside.link_by_name("net1").unwrap().unwrap().alternative_names.len(), 300);
    inside.delete_link_by_name("net1").unwrap();
    assert!(inside.delete_link_by_name("net1").unwrap_err().is_not_found());
    assert_eq!(inside.links().unwrap().len(), 41);
}

fn a_link_is_born_in_the_other_namespace(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut host = connect(&lab.host);
    let parent = host.link_by_name("ens32").unwrap().unwrap();
    host.create_macvlan(&spec("net1", parent.index), Some(&open(&sandbox))).unwrap();
    assert_eq!(lab.host.links(), ["ens32", "lo", "wire"]);
    let link = connect(&sandbox).link_by_name("net1").unwrap().unwrap();
    let shown = sandbox.link("net1").unwrap();
    assert_eq!(shown["linkinfo"]["info_data"]["mode"], "vepa");
    assert_eq!(shown["ifindex"], link.index);
    assert_eq!(shown["address"], link.mac.unwrap().to_string());
    assert_eq!(link.parent, Some(parent.index));
    assert!(link.parent_namespace_id.is_some() && !link.is_up);
    assert_eq!(link.macvlan.unwrap().mode, Some(MacvlanMode::Vepa));
}

fn a_link_can_be_renamed_while_it_runs_since_linux_6_2(lab: &Lab) {
    let mut host = connect(&lab.host);
    let index = host.link_by_name("ens32").unwrap().unwrap().index;
    if linux() < (6, 2) {
        assert_eq!(host.rename_link(index, "ens33").unwrap_err().to_string(), "device or resource busy");
        lab.host.ip("link set ens32 down");
    }
    host.rename_link(index, "ens33").unwrap();
    assert_eq!(lab.host.links(), ["ens33", "lo", "wire"]);
}

fn work_inside_does_not_move_the_caller(lab: &Lab) {
    let sandbox = open(&lab.container("c1"));
    lab.host.within(|| {
        let before = Namespace::current().unwrap();
        let inside = sandbox.enter(Namespace::current).unwrap();
        assert!(inside.is_same_as(&sandbox).unwrap());
        assert!(Namespace::current().unwrap().is_same_as(&before).unwrap());
        let mut connection = sandbox.connect(TIMEOUT).unwrap();
        assert_eq!(connection.links().unwrap().len(), 1);
        assert!(Namespace::current().unwrap().is_same_as(&before).unwrap());
    });
}

fn a_panic_inside_is_an_error(lab: &Lab) {
    let sandbox = open(&lab.container("c1"));
    let panicking = || -> Result<(), Error> { std::panic::resume_unwind(Box::new("out of luck")) };
    let error = sandbox.enter(panicking).unwrap_err();
    assert_eq!(error.to_string(), "internal error inside the namespace: out of luck");
}

fn only_namespaces_are_opened(lab: &Lab) {
    fs::write(lab.path("file"), "").unwrap();
    for path in [lab.path("file"), "/proc/self/status".into(), "/proc".into()] {
        let error = Namespace::open(&path).unwrap_err();
        assert!(error.to_string().starts_with(&format!("unknown FS magic on {path:?}: ")), "{error}");
    }
    // A namespace of another kind.
    let error = Namespace::open(Path::new("/proc/self/ns/uts")).unwrap().connect(TIMEOUT).unwrap_err();
    assert_eq!(error.to_string(), "setns /proc/self/ns/uts: invalid argument; it is a namespace of another kind");
}

fn the_same_namespace_is_known_by_any_path(lab: &Lab) {
    let (first, second) = (lab.container("c1"), lab.container("c2"));
    assert!(!open(&first).is_same_as(&open(&second)).unwrap());
    first.within(|| assert!(Namespace::current().unwrap().is_same_as(&open(&first)).unwrap()));
}

fn sysctls_are_those_of_the_namespace(lab: &Lab) {
    let sandbox = lab.container("c1");
    let key = "net/ipv4/conf/all/arp_notify";
    open(&sandbox).enter(|| sysctl::write(key, "1")).unwrap();
    assert_eq!(sandbox.sysctl(key), "1");
    assert_eq!(lab.host.sysctl(key), "0");
    assert_eq!(open(&sandbox).enter(|| sysctl::read(key)).unwrap(), "1");
    let error = sysctl::write("net/ipv4/conf/nothing/arp_notify", "1").unwrap_err();
    assert_eq!(error.to_string(), "net/ipv4/conf/nothing/arp_notify: no such file or directory");
}

fn waiting_for_addresses_ends_in_time(lab: &Lab) {
    lab.host.within(|| sysctl::write("net/ipv6/conf/ens32/dad_transmits", "100").unwrap());
    let mut host = connect(&lab.host);
    let index = host.link_by_name("ens32").unwrap().unwrap().index;
    host.add_address(index, "2001:db8::1/64".parse().unwrap(), false).unwrap();
    let start = Instant::now();
    let addresses = host.settled_addresses(index, Duration::from_millis(200)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(200));
    let ours = addresses.iter().find(|address| address.cidr.to_string() == "2001:db8::1/64").unwrap();
    assert!(ours.is_tentative && !ours.is_optimistic && !ours.is_duplicate);
}

fn a_gateway_of_another_family_is_refused(lab: &Lab) {
    lab.host.ip("address add 10.0.0.1/24 dev ens32");
    let mut host = connect(&lab.host);
    let index = host.link_by_name("ens32").unwrap().unwrap().index;
    // The first four bytes are 10.0.0.2, and nothing at all.
    for (destination, gateway) in [("10.1.0.0/16", "a00:2::"), ("0.0.0.0/0", "::"), ("2001:db8::/32", "10.0.0.2")] {
        let error = host.add_route(&route(destination, gateway, index)).unwrap_err().to_string();
        assert_eq!(error, "invalid argument: gateway and destination are not of the same IP family");
    }
    assert_eq!(lab.host.ip("route show via 10.0.0.2"), "");
}

fn routes_are_read_as_they_are(lab: &Lab) {
    lab.host.ip("address add 10.0.0.1/24 dev ens32");
    lab.host.ip("route add 10.1.0.0/16 via 10.0.0.2 metric 7 table 1000");
    lab.host.ip("route add default nexthop via 10.0.0.3 nexthop via 10.0.0.4");
    lab.host.ip("route add blackhole 10.2.0.0/16");
    lab.host.ip("-6 route add 2001:db8::/32 dev ens32");
    let mut host = connect(&lab.host);
    let index = host.link_by_name("ens32").unwrap().unwrap().index;
    let routes = host.routes().unwrap();
    let to = |text: &str| routes.iter().find(|route| route.destination.to_string() == text).unwrap().clone();
    let ip = |text: &str| Some(text.parse().unwrap());
    let in_table = to("10.1.0.0/16");
    assert_eq!((in_table.table, in_table.priority, in_table.gateway), (1000, 7, ip("10.0.0.2")));
    let default = to("0.0.0.0/0");
    assert_eq!((default.table, default.gateway, default.output), (254, ip("10.0.0.3"), Some(index)));
    let nowhere = to("10.2.0.0/16");
    assert_eq!((nowhere.is_unicast, nowhere.output), (false, None));
    assert!(to("2001:db8::/32").is_unicast);
}

fn connect(netns: &Netns) -> Connection {
    open(netns).connect(TIMEOUT).unwrap()
}

fn open(netns: &Netns) -> Namespace {
    Namespace::open(netns.path()).unwrap()
}

fn spec(name: &str, parent: u32) -> MacvlanSpec<'_> {
    MacvlanSpec {
        name,
        parent,
        mtu: None,
        mac: None,
        group: 0,
        mode: MacvlanMode::Vepa,
        broadcast_queue_length: None,
        broadcast_cutoff: None,
        no_promiscuous: false,
        no_destination: false,
        source_macs: &[],
    }
}

fn route(destination: &str, gateway: &str, output: u32) -> RouteSpec {
    RouteSpec {
        destination: destination.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
        output,
        priority: None,
        table: None,
        scope: 0,
        mtu: None,
        advmss: None,
    }
}
