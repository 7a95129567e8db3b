//! The program as people run it: arguments in; text or JSON, exit status and files out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use host_local_ipam::{Boot, DiskStore, Stage, Store};
use multus_cni::AttachmentId;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Reply};

const PROGRAM: &str = env!("CARGO_BIN_EXE_host-local");

#[test]
fn with_a_command_of_cni_it_is_the_plugin_whatever_its_arguments() {
    let run = |environment: &[(&str, &str)], arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.env_clear().envs(environment.iter().copied()).args(arguments).stdin(Stdio::null());
        reply(command)
    };
    for arguments in [&["list"][..], &["--help"], &["gc", "--dead", "--yes"]] {
        let reply = run(&[("CNI_COMMAND", "VERSION")], arguments);
        assert!(reply.stdout.starts_with("{\"cniVersion\":"), "{reply:?}");
    }
    assert!(run(&[], &[]).stderr.starts_with("CNI host-local plugin v"));
    assert!(run(&[("CNI_COMMAND", "")], &["--version"]).stdout.starts_with("host-local 0."));
}

#[test]
fn what_cannot_be_carried_out_ends_with_2_and_a_sentence_that_helps() {
    let host = Host::new();
    host.reserve("storage", "10.1.2.2", "c1", "eth0");
    fs::write(host.path("file"), "[]").unwrap();
    let file = host.path("file").to_str().unwrap().to_owned();
    let looped = host.path("loop");
    symlink(&looped, &looped).unwrap();
    let help = "`host-local --help` lists the commands and their options\n";
    for (arguments, problem) in [
        (&["lst"][..], "unknown command \"lst\""),
        (&["--yes"], "no command given"),
        (&["list", "--yes"], "list has no option --yes"),
        (&["list", "a", "b"], "list has no use for \"b\""),
        (&["list", "../etc"], "\"../etc\" cannot be the name of a network"),
        (&["list", "-o", "yaml"], "unknown output \"yaml\", it is table or json"),
        (&["list", "--colour"], "invalid option '--colour'"),
        (&["gc"], "gc needs either --dead or --valid FILE"),
        (&["gc", "--dead", "--valid", "x"], "gc needs either --dead or --valid FILE"),
        (&["release"], "release needs an address"),
        (&["release", "10.1.2"], "\"10.1.2\" is no IP address"),
        (&["release", "10.1.2.2", "--config", "x"], "release has no option --config"),
        (&["check", "--config"], "missing argument for option '--config'"),
    ] {
        let reply = host.run(arguments);
        let expected = format!("host-local: {problem}; {help}");
        assert_eq!(reply, Reply { status: Some(2), stdout: String::new(), stderr: expected }, "{arguments:?}");
    }
    let data_dir = host.data_dir();
    for (arguments, message) in [
        (&["list", "storag"][..], format!("there is no network storag in {data_dir:?}, but storage\n")),
        (&["release", "10.1.2.3"], "10.1.2.3 is not reserved; `host-local list` tells what is\n".to_owned()),
        (&["usage", "--config", &file], "is no usable network configuration: ".to_owned()),
        (&["check", "--config", "/nonexistent"], "cannot read \"/nonexistent\": no such file or directory".to_owned()),
        (&["gc", "--valid", "/nonexistent"], "give the right path".to_owned()),
        (&["list", "--data-dir", "/nonexistent"], "cannot read \"/nonexistent\"".to_owned()),
        (&["list", "--data-dir", &file], "not a directory".to_owned()),
        (&["list", "--data-dir", looped.to_str().unwrap()], "too many levels of symbolic links".to_owned()),
    ] {
        let reply = host.run(arguments);
        assert_eq!((reply.status, reply.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            reply.stderr.contains(&message) && reply.stderr.starts_with("host-local: "),
            "{arguments:?}: {}",
            reply.stderr
        );
        assert_eq!(reply.stderr.lines().count(), 1, "{}", reply.stderr);
    }
}

#[test]
fn a_list_tells_who_has_which_address_and_since_when() {
    let host = Host::new();
    let boot = Boot::current(Path::new(Boot::MACHINE_ID)).unwrap().unwrap();
    let machine = Some(0x1234);
    let in_boot = |machine, id| DiskStore::in_boot(host.data_dir(), Some(Boot { machine, id }));
    let this = in_boot(boot.machine, boot.id);
    reserve(&this, "storage", "10.1.2.10", "c1", "net1", Stage::Finished);
    reserve(&this, "storage", "10.1.2.9", "c2", "net1", Stage::Unfinished);
    reserve(&in_boot(machine, 7), "storage", "10.1.2.8", "c3", "net1", Stage::Finished);
    host.reserve("storage", "2001:db8::5", "c4", "net1");
    host.write("backup", "10.1.3.2", b"old");
    for name in ["10.1.2.8", "10.1.2.9", "10.1.2.10", "2001:db8::5"] {
        host.age("storage", name, Duration::from_secs(30));
    }
    host.age("backup", "10.1.3.2", Duration::from_secs(3 * 86_400));
    let reply = host.run(&["list", "-o", "json"]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    let lines: Value = serde_json::from_str(&reply.stdout).unwrap();
    let keys = ["network", "address", "containerID", "ifname", "boot", "unfinished"];
    let told: Vec<Value> =
        lines.as_array().unwrap().iter().map(|line| keys.iter().map(|key| line[*key].clone()).collect()).collect();
    assert_eq!(
        Value::from(told),
        json!([
            ["backup", "10.1.3.2", "old", null, "unrecorded", false],
            ["storage", "10.1.2.8", "c3", "net1", "other machine", false],
            ["storage", "10.1.2.9", "c2", "net1", "this boot", true],
            ["storage", "10.1.2.10", "c1", "net1", "this boot", false],
            ["storage", "2001:db8::5", "c4", "net1", "unrecorded", false],
        ])
    );
    let text = host.run(&["list", "storage"]).stdout;
    let rows: Vec<Vec<&str>> =
        text.lines().map(|line| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE", "BOOT", "SANDBOX"]);
    assert_eq!(rows[2][..4], ["storage", "10.1.2.9", "c2", "net1"]);
    assert_eq!(rows[2][5], "this boot, ADD unfinished");
    let seconds: u64 = rows[2][4].strip_suffix('s').unwrap().parse().unwrap();
    assert!((30..90).contains(&seconds), "{text}");
    assert_eq!(rows.len(), 5, "{text}");
    assert!(host.run(&["list", "backup"]).stdout.contains("  3d  "), "days");
}

#[test]
fn where_nothing_was_ever_reserved_all_is_well() {
    let host = Host::new();
    assert_eq!(host.run(&["list"]).stdout, "NETWORK  ADDRESS  CONTAINER  INTERFACE  AGE  BOOT  SANDBOX\n");
    for arguments in [&["list", "-o", "json"][..], &["gc", "--dead", "-o", "json"], &["check", "-o", "json"]] {
        let reply = host.run(arguments);
        assert_eq!((reply.status, reply.stdout.as_str()), (Some(0), "[]\n"), "{arguments:?}");
    }
    assert_eq!(host.run(&["check"]).stderr, "host-local: nothing wrong with 0 reservations in 0 networks\n");
    assert_eq!(fs::read_dir(host.data_dir()).unwrap().count(), 0, "and nothing is made");
}

#[test]
fn a_check_names_file_problem_and_remedy_of_whatever_is_wrong() {
    let host = Host::new();
    let config = host.config("storage", json!({"ranges": [[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.4.0/24"}]]}));
    host.reserve("storage", "10.1.2.2", "c1", "eth0");
    host.reserve("storage", "10.1.4.2", "c1", "eth0");
    host.reserve("other", "10.9.9.2", "c1", "eth0");
    host.reserve("other", "2001:db8::2", "c1", "eth0");
    let reply = host.run(&["check", "--config", &config, "-o", "json"]);
    assert_eq!((reply.status, reply.stdout.as_str()), (Some(0), "[]\n"), "{reply:?}");

    host.write("storage", "10.1.2.3", b"");
    host.write("storage", "10.1.2.4", b"\xff\xfe");
    host.write("storage", "notes", b"c1\r\neth0");
    host.reserve("storage", "10.1.2.5", "c1", "eth0");
    host.reserve("storage", "10.1.9.9", "c5", "eth0");
    host.reserve("other", "10.1.4.2", "c7", "eth0");
    let reply = host.run(&["check", "--config", &config, "-o", "json"]);
    assert_eq!(reply.status, Some(1));
    let findings: Value = serde_json::from_str(&reply.stdout).unwrap();
    let told: Vec<(&str, &str)> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| (finding["kind"].as_str().unwrap(), finding["file"].as_str().unwrap()))
        .map(|(kind, file)| (kind, file.strip_prefix(host.data_dir().to_str().unwrap()).unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("doubled", "/other/10.1.4.2"),
            ("doubled", "/storage/10.1.2.2"),
            ("torn", "/storage/10.1.2.3"),
            ("foreign", "/storage/10.1.2.4"),
            ("doubled", "/storage/10.1.2.5"),
            ("doubled", "/storage/10.1.4.2"),
            ("out-of-range", "/storage/10.1.9.9"),
            ("foreign", "/storage/notes"),
        ]
    );
    let text = host.run(&["check", "storage", "--config", &config]);
    assert_eq!(text.status, Some(1));
    let directory = host.data_dir().join("storage");
    let directory = directory.to_str().unwrap();
    let release =
        |address| format!("host-local release {address} --network storage --data-dir {}", host.data_dir().display());
    let lines: Vec<&str> = text.stdout.lines().collect();
    assert_eq!(lines.len(), 7, "those of the other network are not asked for: {lines:#?}");
    for (line, expected) in [
        (
            0,
            format!(
                "{directory}/10.1.2.2: is not the only address of its kind that c1 eth0 has; remedy: if its interface does not have it: {}",
                release("10.1.2.2")
            ),
        ),
        (
            2,
            format!(
                "{directory}/10.1.2.4: is no reservation, yet keeps the address from being given; remedy: if nobody needs it: rm -r {directory}/10.1.2.4"
            ),
        ),
        (
            4,
            format!(
                "{directory}/10.1.4.2: is reserved in other too; remedy: if the networks share a link, give one other ranges and: {}",
                release("10.1.4.2")
            ),
        ),
        (
            5,
            format!(
                "{directory}/10.1.9.9: is in no range of the configuration, which has 10.1.2.1-10.1.2.254, 10.1.4.1-10.1.4.254; remedy: if its sandbox is gone: {}",
                release("10.1.9.9")
            ),
        ),
    ] {
        assert_eq!(lines[line], expected);
    }
}

#[test]
fn a_check_finds_an_index_that_disagrees_and_its_remedy_works() {
    let host = Host::new();
    let config = host.config("storage", json!({"subnet": "10.1.2.0/24"}));
    for container in ["c1", "c2"] {
        Call::new(PROGRAM, "ADD", Path::new("/run/netns/x"))
            .stdin(fs::read(&config).unwrap())
            .container(container)
            .run()
            .succeeded();
    }
    let check = || host.run(&["check", "--config", &config]);
    assert_eq!(check().status, Some(0), "{:?}", check());
    // An editor that writes in place does not change the directory.
    fs::write(host.data_dir().join("storage/10.1.2.2"), "c9\r\neth0").unwrap();
    let reply = check();
    assert_eq!(reply.status, Some(1), "{reply:?}");
    let directory = host.data_dir().join("storage").display().to_string();
    let remedy = format!("touch {directory}");
    assert_eq!(
        reply.stdout,
        format!(
            "{directory}: the index disagrees with the files about 1 addresses, such as 10.1.2.2; remedy: have it made anew: {remedy}\n"
        )
    );
    assert!(Command::new("sh").args(["-c", &remedy]).status().unwrap().success());
    assert_eq!(check().status, Some(0));
}

#[test]
fn nothing_that_files_say_reaches_a_terminal_as_it_is() {
    let host = Host::new();
    let evil = "x\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\u{7f}\u{0}";
    host.write("storage", "10.1.2.2", format!("{evil}\r\ne\u{1b}[2J").as_bytes());
    host.write("storage", "10.1.2.3", format!("{evil}\r\ne\u{1b}[2J").as_bytes());
    let mut names: Vec<Vec<u8>> = [b"a\x1b[2Jb".to_vec(), b"\xff\xfe".to_vec(), b"line\nbreak".to_vec()].into();
    names.extend([
        b"$(touch pwned)".to_vec(),
        b"'; touch pwned; '".to_vec(),
        b"back\\slash".to_vec(),
        "\u{202e}".into(),
    ]);
    for name in &names {
        fs::write(host.data_dir().join("storage").join(OsStr::from_bytes(name)), "").unwrap();
    }
    let is_safe = |text: &str| text.chars().all(|c| c == '\n' || (' '..='~').contains(&c));
    for arguments in [
        &["list"][..],
        &["list", "-o", "json"],
        &["check"],
        &["check", "-o", "json"],
        &["gc", "--dead"],
        &["gc", "--valid", &host.file("valid", "[]")],
        &["gc", "--valid", &host.file("valid", "[]"), "-o", "json"],
    ] {
        let reply = host.run(arguments);
        assert!(reply.status.is_some_and(|status| status < 2), "{arguments:?}: {reply:?}");
        assert!(is_safe(&reply.stdout) && is_safe(&reply.stderr), "{arguments:?}: {reply:?}");
    }
    let listed: Value = serde_json::from_str(&host.run(&["list", "-o", "json"]).stdout).unwrap();
    assert_eq!(listed[0]["containerID"], evil, "programs get it all");
    // The remedies are for a shell, which must not be led astray either.
    let findings: Value = serde_json::from_str(&host.run(&["check", "-o", "json"]).stdout).unwrap();
    for finding in findings.as_array().unwrap().iter().filter(|finding| finding["kind"] == "foreign") {
        let (_, remedy) = finding["remedy"].as_str().unwrap().split_once(": ").unwrap();
        let ran = Command::new("bash").args(["-c", remedy]).current_dir(host.directory.path()).output().unwrap();
        assert!(ran.status.success(), "{remedy}: {ran:?}");
    }
    let mut left: Vec<_> =
        fs::read_dir(host.data_dir().join("storage")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["10.1.2.2", "10.1.2.3", "lock"]);
    assert!(!host.directory.path().join("pwned").exists());
    assert!(
        host.run(&["release", "10.1.2.2"]).stdout.starts_with("released 10.1.2.2 of storage, which x\\u{1b}]0;title")
    );
}

#[test]
fn whatever_lies_in_the_directory_is_told_and_neither_opened_nor_followed() {
    let host = Host::new();
    let elsewhere = host.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("10.1.5.2"), "c5\r\neth0").unwrap();
    fs::write(elsewhere.join("secret"), "c6\r\neth0").unwrap();
    host.reserve("storage", "10.1.2.2", "c1", "eth0");
    let storage = host.data_dir().join("storage");
    symlink(elsewhere.join("secret"), storage.join("10.1.2.3")).unwrap();
    symlink("nowhere", storage.join("10.1.2.4")).unwrap();
    fs::create_dir(storage.join("10.1.2.5")).unwrap();
    // Whoever opened it would wait for ever.
    assert!(Command::new("mkfifo").arg(storage.join("10.1.2.6")).status().unwrap().success());
    symlink("/dev/zero", storage.join("10.1.2.7")).unwrap();
    // In the data directory itself: what is no network, and one that is kept elsewhere, as the plugins use it.
    symlink("nowhere", host.data_dir().join("dangling")).unwrap();
    symlink(&elsewhere, host.data_dir().join("linked")).unwrap();
    fs::write(host.data_dir().join("file"), "").unwrap();
    fs::create_dir(host.data_dir().join(".hidden")).unwrap();
    let listed: Value = serde_json::from_str(&host.run(&["list", "-o", "json"]).stdout).unwrap();
    let addresses: Vec<&str> =
        listed.as_array().unwrap().iter().map(|line| line["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["10.1.5.2", "10.1.2.2"]);
    let reply = host.run(&["check", "storage"]);
    assert_eq!((reply.status, reply.stdout.lines().count()), (Some(1), 5), "{reply:?}");
    assert!(!reply.stdout.contains("c6"));
    let valid = host.file("valid", "[]");
    assert_eq!(host.run(&["gc", "--valid", &valid, "--yes", "storage"]).status, Some(0));
    for name in ["10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", "10.1.2.7"] {
        assert!(storage.join(name).symlink_metadata().is_ok(), "{name} is not ours to remove");
        let reply = host.run(&["release", name]);
        assert!(reply.status == Some(2) && reply.stderr.contains("is no reservation; remove it by hand"), "{reply:?}");
    }
    assert!(!storage.join("10.1.2.2").exists());
}

#[test]
fn garbage_is_freed_only_when_that_is_meant_and_never_what_is_newer_than_the_list() {
    let host = Host::new();
    for (address, container) in [("10.1.2.2", "c1"), ("10.1.2.3", "c2"), ("10.1.2.4", "c3"), ("10.1.2.5", "c4")] {
        host.reserve("storage", address, container, "eth0");
    }
    host.write("storage", "10.1.2.6", b"c1");
    host.write("storage", "10.1.2.7", b"c9");
    for address in 2..8 {
        host.age("storage", &format!("10.1.2.{address}"), Duration::from_secs(60));
    }
    host.reserve("other", "10.1.3.2", "c2", "eth0");
    host.age("other", "10.1.3.2", Duration::from_secs(60));
    let list = json!([{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c3", "ifname": "net1"}]);
    let valid = host.file("valid", &list.to_string());
    // It cannot be in the list.
    host.reserve("storage", "10.1.2.8", "c8", "eth0");
    host.age_by("storage", "10.1.2.8", SystemTime::now() + Duration::from_secs(1));
    let store = DiskStore::new(host.data_dir());
    let busy = store.lock_attachment(&"storage".parse().unwrap(), &attachment("c4", "eth0")).unwrap();

    let reply = host.run(&["gc", "storage", "--valid", &valid]);
    let expected = "would free 10.1.2.3 of storage (c2 eth0): the list does not name it\n\
        would free 10.1.2.4 of storage (c3 eth0): the list does not name it\n\
        would free 10.1.2.5 of storage (c4 eth0): the list does not name it\n\
        would free 10.1.2.7 of storage (c9): the list does not name it\n";
    assert_eq!((reply.status, reply.stdout.as_str()), (Some(0), expected), "{reply:?}");
    assert_eq!(reply.stderr, "host-local: 4 would be freed, none was; with --yes they are\n");
    assert_eq!(host.reserved("storage").len(), 7);

    // The other form of a list; its age is that of the first.
    let object = host.file("object", &json!({"name": "storage", "cni.dev/valid-attachments": list}).to_string());
    let reply = host.run(&["gc", "storage", "--valid", &object, "--yes"]);
    let expected = "freed 10.1.2.3 of storage (c2 eth0): the list does not name it\n\
        freed 10.1.2.4 of storage (c3 eth0): the list does not name it\n\
        kept 10.1.2.5 of storage (c4 eth0): an ADD or DEL of it is under way\n\
        freed 10.1.2.7 of storage (c9): the list does not name it\n";
    assert_eq!((reply.status, reply.stdout.as_str(), reply.stderr.as_str()), (Some(0), expected, ""));
    assert_eq!(host.reserved("storage"), ["10.1.2.2", "10.1.2.5", "10.1.2.6", "10.1.2.8"]);
    assert_eq!(host.reserved("other"), ["10.1.3.2"]);
    drop(busy);
    let reply = host.run(&["gc", "--valid", &valid, "--yes", "-o", "json"]);
    let freed: Value = serde_json::from_str(&reply.stdout).unwrap();
    let freed: Vec<(&Value, &Value)> =
        freed.as_array().unwrap().iter().map(|line| (&line["address"], &line["freed"])).collect();
    assert_eq!(freed, [(&json!("10.1.3.2"), &json!(true)), (&json!("10.1.2.5"), &json!(true))]);

    for (text, problem) in [
        ("", "EOF"),
        ("{}", "cni.dev/valid-attachments"),
        (r#"[{"containerID": "c1"}]"#, "\"ifname\""),
        (r#"{"cni.dev/valid-attachments": null}"#, "it must be"),
        ("[1]", "it must be"),
    ] {
        let reply = host.run(&["gc", "--valid", &host.file("bad", text), "--yes"]);
        assert!(reply.status == Some(2) && reply.stderr.contains(problem), "{text}: {reply:?}");
    }
    assert_eq!(host.reserved("storage"), ["10.1.2.2", "10.1.2.6", "10.1.2.8"]);
}

#[test]
fn an_address_is_released_of_one_network_and_not_under_an_add() {
    let host = Host::new();
    host.reserve("storage", "10.1.2.2", "c1", "eth0");
    host.reserve("backup", "10.1.2.2", "c2", "eth0");
    let reply = host.run(&["release", "10.1.2.2"]);
    let ambiguous = "host-local: 10.1.2.2 is in several networks: choose one of backup, storage with --network\n";
    assert_eq!((reply.status, reply.stderr.as_str()), (Some(2), ambiguous));
    let reply = host.run(&["release", "10.1.2.2", "--network", "backup"]);
    assert_eq!((reply.status, reply.stdout.as_str()), (Some(0), "released 10.1.2.2 of backup, which c2 eth0 had\n"));
    assert_eq!((host.reserved("backup"), host.reserved("storage")), (vec![], vec!["10.1.2.2".to_owned()]));

    let store = DiskStore::new(host.data_dir());
    let busy = store.lock_attachment(&"storage".parse().unwrap(), &attachment("c1", "eth0")).unwrap();
    let reply = host.run(&["release", "10.1.2.2"]);
    let refused =
        "host-local: 10.1.2.2 of storage (c1 eth0) is not released: an ADD or DEL of it is under way; try again\n";
    assert_eq!((reply.status, reply.stderr.as_str()), (Some(2), refused));
    assert_eq!(
        host.run(&["list"]).stdout.lines().nth(1).unwrap().split("  ").last(),
        Some("lives: an ADD or DEL of it is under way")
    );
    assert_eq!(host.reserved("storage"), ["10.1.2.2"]);
    drop(busy);
    let reply = host.run(&["release", "10.1.2.2", "-o", "json"]);
    let released: Value = serde_json::from_str(&reply.stdout).unwrap();
    assert_eq!(released, json!([{"network": "storage", "address": "10.1.2.2", "containerID": "c1", "ifname": "eth0"}]));

    host.write("storage", "10.1.2.3", b"");
    let reply = host.run(&["release", "10.1.2.3"]);
    assert_eq!(reply.stderr, "host-local: 10.1.2.3 of storage is an empty file, which reserves nothing\n");
}

#[test]
fn usage_counts_what_the_configurations_can_give() {
    let host = Host::new();
    let directory = host.directory.path().join("net.d");
    fs::create_dir(&directory).unwrap();
    let write = |name: &str, config: Value| fs::write(directory.join(name), config.to_string()).unwrap();
    let ipam = |subnet: &str| json!({"type": "host-local", "subnet": subnet});
    let plugins = json!([
        {"type": "macvlan", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.2.0/29"}], [{"subnet": "2001:db8::/64"}]]}},
        {"type": "tuning"},
    ]);
    write("10-storage.conflist", json!({"cniVersion": "1.0.0", "name": "storage", "plugins": plugins}));
    write("20-new.conf", json!({"cniVersion": "1.0.0", "name": "new", "type": "macvlan", "ipam": ipam("10.1.3.0/24")}));
    write("30-dhcp.json", json!({"cniVersion": "1.0.0", "name": "dhcp", "type": "macvlan", "ipam": {"type": "dhcp"}}));
    write("40-bad.conf", json!({"cniVersion": "1.0.0", "name": "bad", "type": "macvlan", "ipam": ipam("nonsense")}));
    write("50-other.yaml", json!("not looked at"));
    host.reserve("storage", "10.1.2.2", "c1", "eth0");
    host.reserve("storage", "10.1.2.3", "c2", "eth0");
    host.reserve("storage", "10.99.9.9", "c3", "eth0");
    let net_d = directory.to_str().unwrap();
    let reply = host.run(&["usage", "--config", net_d]);
    let expected = "NETWORK  RANGE                                  USED  FREE\n\
        new      10.1.3.1-10.1.3.254                    0     253\n\
        storage  10.1.2.1-10.1.2.6                      2     3\n\
        storage  2001:db8::1-2001:db8::ffff:ffff:ffff:ffff  0     18446744073709551614\n";
    let squeezed = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(squeezed(&reply.stdout), squeezed(expected), "{}", reply.stdout);
    assert!(
        reply.status == Some(0) && reply.stderr.contains("40-bad.conf") && reply.stderr.contains("nonsense"),
        "{reply:?}"
    );
    let counted: Value =
        serde_json::from_str(&host.run(&["usage", "storage", "--config", net_d, "-o", "json"]).stdout).unwrap();
    assert_eq!(counted[0], json!({"network": "storage", "range": "10.1.2.1-10.1.2.6", "used": 2, "free": 3}));
    let reply = host.run(&["usage", "dhcp", "--config", net_d]);
    assert!(
        reply.status == Some(2) && reply.stderr.contains("no configuration of network dhcp uses host-local"),
        "{reply:?}"
    );
    let bad = directory.join("40-bad.conf");
    assert_eq!(
        host.run(&["check", "--config", bad.to_str().unwrap()]).status,
        Some(2),
        "a file that is asked for must do"
    );
    assert!(!host.data_dir().join("new").exists(), "nothing is made for it");
}

#[test]
fn whoever_stops_reading_has_seen_enough_and_a_full_disk_is_told() {
    let host = Host::new();
    for address in 2..200 {
        host.reserve("storage", &format!("10.1.2.{address}"), "c1", "eth0");
    }
    for (arguments, status) in [(&["list"][..], 0), (&["check"], 1), (&["--help"], 0)] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = host.command(arguments);
        let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("pipe") && !said.contains("panic"), "{said}");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = host.command(&["list"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), said.as_str()),
        (Some(2), "host-local: cannot write the result: no space left on device\n")
    );
}

#[test]
fn nobody_waits_while_a_result_is_printed() {
    let host = Host::new();
    // More than a pipe holds.
    for address in 0..2000 {
        host.reserve("storage", &format!("10.1.{}.{}", address / 250, address % 250), &"c".repeat(100), "eth0");
    }
    let mut child = host.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    // It has begun to print, and cannot end. An ADD goes on all the same.
    assert!(child.try_wait().unwrap().is_none());
    let config = host.config("storage", json!({"subnet": "10.1.100.0/24"}));
    Call::new(PROGRAM, "ADD", Path::new("/run/netns/x")).stdin(fs::read(&config).unwrap()).run().succeeded();
    assert!(child.try_wait().unwrap().is_none());
    io::copy(&mut stdout, &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A data directory, and files beside it.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("networks")).unwrap();
        Self { directory }
    }

    fn data_dir(&self) -> PathBuf {
        self.path("networks")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().stdin(Stdio::null());
        command.arg("--data-dir").arg(self.data_dir()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Reply {
        reply(self.command(arguments))
    }

    /// A file with this content; its path.
    fn file(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A configuration's file; its path.
    fn config(&self, network: &str, mut ipam: Value) -> String {
        ipam["type"] = json!("host-local");
        ipam["dataDir"] = json!(self.data_dir());
        self.file(
            "config",
            &json!({"cniVersion": "1.0.0", "name": network, "type": "macvlan", "ipam": ipam}).to_string(),
        )
    }

    /// A reservation as the Go plugin makes it.
    fn reserve(&self, network: &str, address: &str, container: &str, ifname: &str) {
        self.write(network, address, format!("{container}\r\n{ifname}").as_bytes());
    }

    fn write(&self, network: &str, name: &str, content: &[u8]) {
        let directory = self.data_dir().join(network);
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        File::create(directory.join(name)).unwrap().write_all(content).unwrap();
    }

    /// Makes a reservation look this old.
    fn age(&self, network: &str, name: &str, age: Duration) {
        self.age_by(network, name, SystemTime::now() - age);
    }

    fn age_by(&self, network: &str, name: &str, modified: SystemTime) {
        let file = File::open(self.data_dir().join(network).join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    }

    fn reserved(&self, network: &str) -> Vec<String> {
        let names = fs::read_dir(self.data_dir().join(network)).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
        names.sort();
        names
    }
}

fn reserve(store: &DiskStore, network: &str, address: &str, container: &str, ifname: &str, stage: Stage) {
    let mut reservations = store.lock(&network.parse().unwrap()).unwrap();
    assert!(reservations.reserve(address.parse().unwrap(), &attachment(container, ifname), stage).unwrap());
}

fn attachment(container: &str, ifname: &str) -> AttachmentId {
    AttachmentId { container_id: container.to_owned(), ifname: ifname.to_owned() }
}

fn reply(mut command: Command) -> Reply {
    let output = command.output().unwrap();
    Reply {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
