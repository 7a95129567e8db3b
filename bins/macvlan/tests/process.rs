//! The program as a runtime sees it: bytes, codes, exit status, and what it makes in the kernel and on disk.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, net::Ipv4Addr, os::unix::fs::PermissionsExt, path::Path, process::ExitCode};

use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, Reply, ping, run};

const MACVLAN: &str = env!("CARGO_BIN_EXE_macvlan");
const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn main() -> ExitCode {
    run(&[
        ("results_of_every_version_to_the_byte", results_of_every_version_to_the_byte),
        ("the_first_attachment_anybody_tries", the_first_attachment_anybody_tries),
        ("add_check_del_in_every_version", add_check_del_in_every_version),
        ("a_link_without_addresses_in_every_version", a_link_without_addresses_in_every_version),
        ("version_and_introduction", version_and_introduction),
        ("bad_input_has_its_code_and_changes_nothing", bad_input_has_its_code_and_changes_nothing),
        ("its_own_namespace_is_refused_before_anything_is_done", its_own_namespace_is_refused_before_anything_is_done),
        ("an_executed_ipam_gets_what_the_runtime_gave", an_executed_ipam_gets_what_the_runtime_gave),
        ("a_failed_ipams_words_are_passed_on", a_failed_ipams_words_are_passed_on),
        ("a_read_only_proc_sys_does_not_matter", a_read_only_proc_sys_does_not_matter),
        ("only_addresses_and_routes_of_an_ipam_count", only_addresses_and_routes_of_an_ipam_count),
        ("built_in_plugins_can_be_turned_off", built_in_plugins_can_be_turned_off),
        ("macvlan_is_no_ipam", macvlan_is_no_ipam),
        ("status_and_gc_answer_for_the_ipam", status_and_gc_answer_for_the_ipam),
        ("del_reports_the_ipam_and_deletes_the_link", del_reports_the_ipam_and_deletes_the_link),
        ("any_bytes_get_an_error_object", any_bytes_get_an_error_object),
    ])
}

fn results_of_every_version_to_the_byte(lab: &Lab) {
    for version in VERSIONS {
        let sandbox = lab.container(version);
        let config = json!({
            "cniVersion": version, "name": version, "type": "macvlan", "master": "ens32",
            "dns": {"nameservers": ["9.9.9.9"]},
            "ipam": {
                "type": "host-local", "dataDir": lab.data_dir(),
                "ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]],
                "routes": [
                    {"dst": "0.0.0.0/0"}, {"dst": "::/0"},
                    {"dst": "192.168.0.0/16", "gw": "10.1.2.5", "mtu": 1300, "priority": 77, "table": 100, "scope": 0},
                ],
            },
        });
        let reply = Call::new(MACVLAN, "ADD", sandbox.path()).config(&config).run_in(&lab.host);
        reply.succeeded();
        let mac = sandbox.link("eth0").unwrap()["address"].as_str().unwrap().to_owned();
        let expected = match version {
            "0.1.0" | "0.2.0" => BEFORE_0_3,
            "0.3.0" | "0.3.1" | "0.4.0" => BEFORE_1_0,
            _ => SINCE_1_0,
        };
        let expected = expected
            .trim()
            .replace("VERSION", version)
            .replace("MAC", &mac)
            .replace("SANDBOX", sandbox.path().to_str().unwrap());
        assert_eq!(reply.stdout, expected);
        assert_eq!(reply.stderr, "");
    }
}

fn the_first_attachment_anybody_tries(lab: &Lab) {
    let config = format!(
        r#"{{"cniVersion":"0.3.0","name":"macvlan-conf","type":"macvlan","master":"ens32","mode":"bridge",
            "ipam":{{"type":"host-local","dataDir":{:?},"subnet":"192.168.1.0/24","rangeStart":"192.168.1.200",
                    "rangeEnd":"192.168.1.216","routes":[{{"dst":"0.0.0.0/0"}}],"gateway":"192.168.1.1"}}}}"#,
        lab.data_dir()
    );
    let (first, second) = (lab.container("c1"), lab.container("c2"));
    for (sandbox, name, address) in [(&first, "c1", "192.168.1.200/24"), (&second, "c2", "192.168.1.201/24")] {
        let call = Call::new(MACVLAN, "ADD", sandbox.path()).container(name).stdin(config.clone());
        assert_eq!(call.run_in(&lab.host).result()["ips"][0]["address"], address);
        assert_eq!(sandbox.addresses("eth0"), [address]);
    }
    let file = lab.data_dir().join("macvlan-conf/192.168.1.200");
    assert_eq!(fs::read(file).unwrap(), b"c1\r\neth0");
    ping(&first, Ipv4Addr::new(192, 168, 1, 201)).unwrap();
    ping(&second, Ipv4Addr::new(192, 168, 1, 200)).unwrap();
    let call = Call::new(MACVLAN, "DEL", first.path()).stdin(config);
    assert_eq!(call.run_in(&lab.host), Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
    assert_eq!(lab.reserved("macvlan-conf"), ["192.168.1.201"]);
}

fn add_check_del_in_every_version(lab: &Lab) {
    for version in VERSIONS {
        let sandbox = lab.container(version);
        let mut config = network(lab, version);
        let result = call(lab, &sandbox, "ADD", &config).result();
        config["prevResult"] = result;
        let checked = call(lab, &sandbox, "CHECK", &config);
        if version < "0.4.0" {
            assert_eq!(checked.error(), (1, "config version does not allow CHECK".into(), String::new()));
        } else {
            assert_eq!(checked, Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
        }
        for _ in 0..2 {
            call(lab, &sandbox, "DEL", &config).succeeded();
            assert_eq!(sandbox.links(), ["lo"]);
        }
        assert!(lab.reserved("net").is_empty());
    }
}

fn a_link_without_addresses_in_every_version(lab: &Lab) {
    for version in VERSIONS {
        let sandbox = lab.container(version);
        let mut config = network(lab, version);
        config["ipam"] = json!({});
        let reply = call(lab, &sandbox, "ADD", &config);
        if version < "0.3.0" {
            // It cannot be told, so it is not made.
            assert_eq!(reply.error(), (999, "cannot convert: no valid IP addresses".into(), String::new()));
            assert_eq!(sandbox.links(), ["lo"]);
            continue;
        }
        let result = reply.result();
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        assert_eq!(result["ips"], json!(null));
        assert_eq!(sandbox.links(), ["eth0", "lo"]);
        call(lab, &sandbox, "DEL", &config).succeeded();
        assert_eq!(sandbox.links(), ["lo"]);
    }
}

fn version_and_introduction(lab: &Lab) {
    let call = Call::new(MACVLAN, "VERSION", &lab.path("c1"));
    let versions = VERSIONS.map(|version| format!("\"{version}\"")).join(",");
    let line = format!("{{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[{versions}]}}\n");
    assert_eq!(call.run(), Reply { status: Some(0), stdout: line, stderr: String::new() });
    let introduction = format!(
        "CNI macvlan plugin v{}\nCNI protocol versions supported: {}\n",
        env!("CARGO_PKG_VERSION"),
        VERSIONS.join(", ")
    );
    let alone = call.without("CNI_COMMAND").run();
    assert_eq!(alone, Reply { status: Some(0), stdout: String::new(), stderr: introduction });
}

fn bad_input_has_its_code_and_changes_nothing(lab: &Lab) {
    let sandbox = lab.container("c1");
    let with = |key: &str, value: Value| {
        let mut config = network(lab, "1.0.0");
        config[key] = value;
        config.to_string()
    };
    let range = |key: &str, value: &str| {
        let mut config = network(lab, "1.0.0");
        config["ipam"]["ranges"][0][0][key] = json!(value);
        config.to_string()
    };
    let good = network(lab, "1.0.0").to_string();
    let add = || Call::new(MACVLAN, "ADD", sandbox.path());
    for (call, code, text) in [
        (add().stdin(""), 6, "error unmarshall network config: unexpected end of JSON input"),
        (add().stdin("{{{"), 6, "error unmarshall network config: "),
        (add().stdin("{}"), 7, "missing network name"),
        (add().stdin(with("name", json!("../x"))), 7, "invalid characters found in network name"),
        (add().stdin(with("cniVersion", json!("0.5.0"))), 1, "incompatible CNI versions"),
        (add().stdin(with("cniVersion", json!(1))), 6, "decoding version from network config: json: cannot unmarshal"),
        (add().stdin(with("type", json!(4))), 999, "failed to load netconf: \"type\" must be a string, not 4"),
        (add().stdin(with("mode", json!("x"))), 999, "unknown macvlan mode: \"x\"; the modes are"),
        (add().stdin(with("mode", json!(4))), 999, "failed to load netconf: \"mode\" must be a string, not 4"),
        (add().stdin(with("master", json!("ens23"))), 999, "master \"ens23\" not found; interfaces here: ens32, lo"),
        (add().stdin(with("mtu", json!(9000))), 999, "invalid MTU 9000, must be [0, master MTU(1500)]"),
        (add().stdin(with("mac", json!("x"))), 999, "invalid args x for MAC addr: address x: invalid MAC address"),
        (add().stdin(with("ipam", json!([]))), 999, "failed to load netconf: \"ipam\" must be an object, not []"),
        (add().stdin(with("ipam", json!({"type": "host-local"}))), 999, "no IP ranges specified"),
        (add().stdin(with("ipam", json!({"type": "../x"}))), 999, "invalid plugin name: ../x"),
        (
            add().stdin(with("dns", json!({"search": "x"}))),
            999,
            "failed to load netconf: \"dns.search\" must be an array",
        ),
        (add().stdin(with("builtin", json!("x"))), 999, "\"builtin\" must be an array, not \"x\""),
        (add().stdin(range("subnet", "10.1.2.3/24")), 999, "invalid range set 0: Network has host bits set."),
        (add().stdin(range("gateway", "x")), 999, "\"ipam.ranges[0][0].gateway\" invalid IP address: x"),
        (add().stdin(good.clone()).env("CNI_ARGS", "IP=10.1.2.9"), 999, "ARGS: unknown args [\"IP=10.1.2.9\"]"),
        (add().stdin(good.clone()).env("CNI_ARGS", "x"), 999, "ARGS: invalid pair \"x\""),
        (
            add().stdin(good.clone()).env("CNI_NETNS", "/nowhere"),
            999,
            "failed to open netns \"/nowhere\": failed to Statfs \"/nowhere\": no such file or directory",
        ),
        (
            add().stdin(good.clone()).env("CNI_NETNS", "/proc/self/status"),
            999,
            "failed to open netns \"/proc/self/status\": unknown FS magic on \"/proc/self/status\": 9fa0",
        ),
        (
            add().stdin(good.clone()).env("CNI_NETNS", "/etc/passwd"),
            999,
            "failed to open netns \"/etc/passwd\": unknown FS magic on \"/etc/passwd\": ",
        ),
        (
            add().stdin(good.clone()).env("CNI_IFNAME", "a/b"),
            4,
            "interface name contains / or : or whitespace characters",
        ),
        (add().stdin(good.clone()).container("a b"), 4, "invalid characters in containerID"),
        (
            add().stdin(good.clone()).without("CNI_IFNAME").without("CNI_PATH"),
            4,
            "required env variables [CNI_IFNAME,CNI_PATH] missing",
        ),
        (add().stdin(good.clone()).env("CNI_COMMAND", "add"), 4, "unknown CNI_COMMAND: add"),
    ] {
        let (found_code, found_text, _) = call.run_in(&lab.host).error();
        assert_eq!(found_code, code, "{found_text}");
        assert!(found_text.starts_with(text), "{found_text}\n{text}");
        assert_eq!(sandbox.links(), ["lo"], "{found_text}");
        assert_eq!(lab.host.links(), ["ens32", "lo", "wire"], "{found_text}");
        assert!(lab.reserved("net").is_empty(), "{found_text}");
    }
}

fn its_own_namespace_is_refused_before_anything_is_done(lab: &Lab) {
    let own = lab.host.path();
    for command in ["ADD", "DEL"] {
        let call = Call::new(MACVLAN, command, own).env("CNI_IFNAME", "ens32").config(&network(lab, "1.0.0"));
        let (code, text, details) = call.run_in(&lab.host).error();
        assert_eq!((code, text.as_str()), (8, "plugin's netns and netns from CNI_NETNS should not be the same"));
        assert!(details.starts_with(own.to_str().unwrap()), "{details}");
        assert_eq!(lab.host.links(), ["ens32", "lo", "wire"]);
    }
    let call = Call::new(MACVLAN, "ADD", own).env("CNI_NETNS_OVERRIDE", "true").config(&network(lab, "1.0.0"));
    call.run_in(&lab.host).succeeded();
    assert_eq!(lab.host.links(), ["ens32", "eth0", "lo", "wire"]);
}

fn an_executed_ipam_gets_what_the_runtime_gave(lab: &Lab) {
    let sandbox = lab.container("c1");
    let (stdin, environment) = (lab.path("stdin"), lab.path("environment"));
    let script = format!(
        "#!/bin/sh\nexport -p > {}\ncat > {}\nreadlink /proc/self/ns/net > {}\n\
         echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.9.0.5/24\"}}]}}'\necho noted >&2\n",
        environment.display(),
        stdin.display(),
        lab.path("netns").display()
    );
    let directory = ipam(lab, "custom", &script);
    let config = r#"{"name":"net", "cniVersion":"1.0.0","master":"ens32","big":12345678901234567890,  "ipam":{"type":"custom"}}"#;
    let add = Call::new(MACVLAN, "ADD", sandbox.path()).env("CNI_PATH", &format!("/nowhere:{directory}"));
    let reply = add
        .env("CNI_ARGS", "IgnoreUnknown=1;K=v")
        .env("PATH", "/usr/bin:/bin")
        .env("EXTRA", "x")
        .stdin(config)
        .run_in(&lab.host);
    assert_eq!(reply.result()["ips"][0], json!({"address": "10.9.0.5/24", "interface": 0}));
    assert_eq!(reply.stderr, "noted\n");
    assert_eq!(fs::read_to_string(stdin).unwrap(), config);
    let environment = fs::read_to_string(environment).unwrap();
    let netns = format!("CNI_NETNS='{}'", sandbox.path().display());
    for variable in ["CNI_COMMAND='ADD'", "CNI_ARGS='IgnoreUnknown=1;K=v'", "CNI_CONTAINERID='c1'", "EXTRA='x'", &netns]
    {
        assert!(environment.contains(variable), "{environment}");
    }
    let host = lab.host.within(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_eq!(fs::read_to_string(lab.path("netns")).unwrap().trim(), host.to_str().unwrap());
}

fn a_failed_ipams_words_are_passed_on(lab: &Lab) {
    let sandbox = lab.container("c1");
    let directory = ipam(lab, "custom", "#!/bin/sh\necho noted $CNI_COMMAND >&2\necho '{\"code\":7}'\nexit 1\n");
    let config = json!({"name": "net", "cniVersion": "1.0.0", "master": "ens32", "ipam": {"type": "custom"}});
    let reply = Call::new(MACVLAN, "ADD", sandbox.path()).env("CNI_PATH", &directory).config(&config).run_in(&lab.host);
    assert_eq!(reply.error(), (7, String::new(), String::new()));
    assert_eq!(reply.stderr, "noted ADD\nnoted DEL\n");
}

fn a_read_only_proc_sys_does_not_matter(lab: &Lab) {
    let sandbox = lab.container("c1");
    let script = lab.path("macvlan-without-sysctls");
    let commands = "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec";
    write_script(&script, &format!("#!/bin/sh\nexec unshare -m sh -c '{commands} {MACVLAN}'\n"));
    let mut config = network(lab, "1.0.0");
    config["ipam"]["ranges"] = json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "2001:db8:1::/64"}]]);
    let call = Call::new(script, "ADD", sandbox.path()).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").config(&config);
    call.run_in(&lab.host).succeeded();
    assert_eq!(sandbox.addresses("eth0"), ["10.1.2.2/24", "2001:db8:1::2/64"]);
    assert_eq!(sandbox.sysctl("net/ipv6/conf/eth0/keep_addr_on_down"), "0");
    // That one goes by netlink.
    assert_eq!(sandbox.sysctl("net/ipv4/conf/eth0/arp_notify"), "1");
}

fn only_addresses_and_routes_of_an_ipam_count(lab: &Lab) {
    let sandbox = lab.container("c1");
    let answer = json!({
        "cniVersion": "0.4.0", "interfaces": [{"name": "x"}], "dns": {"domain": "x"},
        "ips": [{"version": "4", "address": "10.9.0.5/24", "interface": 7}, {"version": "4", "address": "10.9.1.5/24"}],
        "routes": [{"dst": "10.8.0.0/16", "gw": "10.9.0.1"}],
    });
    let directory = ipam(lab, "custom", &format!("#!/bin/sh\necho '{answer}'\n"));
    let config = json!({"name": "net", "cniVersion": "1.0.0", "master": "ens32", "ipam": {"type": "custom"}});
    let add = Call::new(MACVLAN, "ADD", sandbox.path()).env("CNI_PATH", &directory).config(&config);
    let result = add.run_in(&lab.host).result();
    assert_eq!(
        result["ips"],
        json!([{"address": "10.9.0.5/24", "interface": 0}, {"address": "10.9.1.5/24", "interface": 0}])
    );
    assert_eq!(result["routes"], json!([{"dst": "10.8.0.0/16", "gw": "10.9.0.1"}]));
    assert_eq!((&result["dns"], result["interfaces"].as_array().unwrap().len()), (&json!(null), 1));
    assert_eq!(sandbox.addresses("eth0"), ["10.9.0.5/24", "10.9.1.5/24"]);
}

fn built_in_plugins_can_be_turned_off(lab: &Lab) {
    let sandbox = lab.container("c1");
    let directory = ipam(lab, "host-local", "#!/bin/sh\necho '{\"ips\":[{\"address\":\"10.9.0.5/24\"}]}'\n");
    let mut config = network(lab, "1.0.0");
    let address = |config: &Value, builtin: Option<&str>| {
        let mut add = Call::new(MACVLAN, "ADD", sandbox.path()).env("CNI_PATH", &directory).config(config);
        if let Some(builtin) = builtin {
            add = add.env("CNI_BUILTIN", builtin);
        }
        let result = add.run_in(&lab.host).result();
        sandbox.ip("link del eth0");
        fs::remove_dir_all(lab.data_dir()).ok();
        result["ips"][0]["address"].as_str().unwrap().to_owned()
    };
    assert_eq!(address(&config, None), "10.1.2.2/24");
    assert_eq!(address(&config, Some("")), "10.9.0.5/24");
    assert_eq!(address(&config, Some("other")), "10.9.0.5/24");
    assert_eq!(address(&config, Some("other,host-local")), "10.1.2.2/24");
    config["builtin"] = json!([]);
    assert_eq!(address(&config, None), "10.9.0.5/24");
    config["builtin"] = json!(["host-local"]);
    assert_eq!(address(&config, Some("")), "10.1.2.2/24");
}

fn macvlan_is_no_ipam(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = network(lab, "1.0.0");
    config["ipam"]["type"] = json!("macvlan");
    let (code, text, _) = call(lab, &sandbox, "ADD", &config).error();
    assert_eq!(code, 999);
    assert_eq!(text, "failed to load netconf: \"ipam.type\" must be an IPAM plugin, which macvlan is not");
    assert_eq!(sandbox.links(), ["lo"]);
}

fn status_and_gc_answer_for_the_ipam(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = network(lab, "1.1.0");
    config["ipam"]["ranges"] = json!([[{"subnet": "10.1.2.0/30"}]]);
    let about = |command: &str, config: &Value| {
        let call = Call::new(MACVLAN, command, sandbox.path()).config(config);
        call.without("CNI_NETNS").without("CNI_IFNAME").without("CNI_CONTAINERID").run_in(&lab.host)
    };
    about("STATUS", &config).succeeded();
    call(lab, &sandbox, "ADD", &config).succeeded();
    let (code, text, _) = about("STATUS", &config).error();
    assert_eq!((code, text.as_str()), (50, "no IP addresses available in range set: 10.1.2.1-10.1.2.2"));
    about("GC", &config).succeeded();
    assert_eq!(lab.reserved("net"), ["10.1.2.2"]);
    config["cni.dev/valid-attachments"] = json!([]);
    about("GC", &config).succeeded();
    assert!(lab.reserved("net").is_empty());
    config["cniVersion"] = json!("1.0.0");
    assert_eq!(about("GC", &config).error().1, "config version does not allow GC");

    let directory =
        ipam(lab, "custom", "#!/bin/sh\necho '{\"code\":51,\"msg\":\"half\",\"details\":\"way\"}'; exit 1\n");
    let config = json!({"name": "net", "cniVersion": "1.1.0", "ipam": {"type": "custom"}});
    let status = Call::new(MACVLAN, "STATUS", sandbox.path()).env("CNI_PATH", &directory).config(&config);
    assert_eq!(status.run_in(&lab.host).error(), (51, "half".into(), "way".into()));
}

fn del_reports_the_ipam_and_deletes_the_link(lab: &Lab) {
    let sandbox = lab.container("c1");
    let mut config = network(lab, "1.0.0");
    call(lab, &sandbox, "ADD", &config).succeeded();
    config["ipam"]["type"] = json!("gone");
    let (code, text, _) = call(lab, &sandbox, "DEL", &config).error();
    assert_eq!(code, 999);
    assert!(text.starts_with("failed to find plugin \"gone\" in path ["), "{text}");
    assert_eq!(sandbox.links(), ["lo"]);

    let directory = ipam(lab, "custom", "#!/bin/sh\necho '{\"code\":11,\"msg\":\"later\"}'; exit 1\n");
    config["ipam"]["type"] = json!("custom");
    let del = Call::new(MACVLAN, "DEL", &lab.data_dir()).env("CNI_PATH", &directory).config(&config);
    let (code, text, _) = del.run_in(&lab.host).error();
    assert_eq!(code, 11);
    assert!(text.starts_with("later; and unknown FS magic on "), "{text}");
}

fn any_bytes_get_an_error_object(lab: &Lab) {
    let sandbox = lab.container("c1");
    let good = network(lab, "1.1.0").to_string().into_bytes();
    let mut seed = 1_u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::try_from(seed >> 8).unwrap() % below
    };
    for _ in 0..300 {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let place = random(bytes.len());
            match random(3) {
                0 => bytes.truncate(place.max(1)),
                1 => bytes[place] = u8::try_from(random(256)).unwrap(),
                _ => {
                    bytes.remove(place);
                }
            }
        }
        let reply = Call::new(MACVLAN, "ADD", sandbox.path()).stdin(bytes.clone()).run_in(&lab.host);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match reply.status {
            Some(0) => {
                Call::new(MACVLAN, "DEL", sandbox.path()).stdin(bytes).run_in(&lab.host).succeeded();
            }
            _ => assert!(reply.error().0 > 0 && !reply.error().1.contains("internal error"), "{text}: {reply:?}"),
        }
        assert_eq!(sandbox.links(), ["lo"], "{text}");
        assert_eq!(lab.host.links(), ["ens32", "lo", "wire"], "{text}");
    }
}

/// A network called `net` with addresses from 10.1.2.0/24.
fn network(lab: &Lab, version: &str) -> Value {
    json!({
        "cniVersion": version, "name": "net", "type": "macvlan", "master": "ens32",
        "ipam": {
            "type": "host-local", "dataDir": lab.data_dir(),
            "ranges": [[{"subnet": "10.1.2.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        },
    })
}

fn call(lab: &Lab, sandbox: &Netns, command: &str, config: &Value) -> Reply {
    Call::new(MACVLAN, command, sandbox.path()).config(config).run_in(&lab.host)
}

/// Writes an IPAM plugin and returns its directory.
fn ipam(lab: &Lab, name: &str, script: &str) -> String {
    let directory = lab.path("plugins");
    fs::create_dir_all(&directory).unwrap();
    write_script(&directory.join(name), script);
    directory.to_str().unwrap().to_owned()
}

fn write_script(file: &Path, script: &str) {
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

const SINCE_1_0: &str = r#"
{
    "cniVersion": "VERSION",
    "dns": {
        "nameservers": [
            "9.9.9.9"
        ]
    },
    "interfaces": [
        {
            "mac": "MAC",
            "name": "eth0",
            "sandbox": "SANDBOX"
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

const BEFORE_1_0: &str = r#"
{
    "cniVersion": "VERSION",
    "interfaces": [
        {
            "name": "eth0",
            "mac": "MAC",
            "sandbox": "SANDBOX"
        }
    ],
    "ips": [
        {
            "version": "4",
            "interface": 0,
            "address": "10.1.2.2/24",
            "gateway": "10.1.2.1"
        },
        {
            "version": "6",
            "interface": 0,
            "address": "2001:db8:1::2/64",
            "gateway": "2001:db8:1::1"
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

const BEFORE_0_3: &str = r#"
{
    "cniVersion": "VERSION",
    "ip4": {
        "ip": "10.1.2.2/24",
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
        "ip": "2001:db8:1::2/64",
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
