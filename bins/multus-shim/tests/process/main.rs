//! The program as a runtime runs it, with a daemon at the other end that does what daemons do.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod daemon;

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use multus_shim::{Request, Spool};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{Call, Reply};

use daemon::{Daemon, http};

const PROGRAM: &str = env!("CARGO_BIN_EXE_multus-shim");
const RESULT: &str = r#"{"Result":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","mac":"aa:bb:cc:dd:ee:ff","sandbox":"/n"}],
    "ips":[{"interface":0,"address":"10.1.2.3/24","gateway":"10.1.2.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.2.1"}],"dns":{}}}"#;
const WORKING: [&str; 5] = ["ADD", "DEL", "CHECK", "STATUS", "GC"];

/// A node: directories for socket, spool and log.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn config(&self, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "multus-cni-network", "type": "multus-shim", "daemonSocketDir": self.path(),
            "cniDir": self.path().join("multus"), "logFile": self.log_file(), "logLevel": "debug",
        })
    }

    /// With the least patience there is.
    fn impatient(&self) -> Value {
        let mut config = self.config("1.1.0");
        config["daemonWaitSeconds"] = json!(1);
        config
    }

    fn call(command: &str, config: &Value) -> Call {
        Call::new(PROGRAM, command, Path::new("/run/netns/absent")).config(config)
    }

    fn spool(&self) -> Spool {
        Spool::new(self.path().join("multus/spool"))
    }

    fn spooled(&self) -> Vec<Request> {
        let entries = self.spool().entries().unwrap();
        entries.into_iter().map(|entry| self.spool().read(entry).unwrap().unwrap()).collect()
    }

    fn log_file(&self) -> PathBuf {
        self.path().join("log/shim.log")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for_log(&self, words: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.log().contains(words) {
            assert!(Instant::now() < deadline, "{words:?} is not in the log: {}", self.log());
            thread::yield_now();
        }
    }
}

fn works(_target: &str, request: &Value) -> Option<Vec<u8>> {
    let adds = request["env"]["CNI_COMMAND"] == "ADD";
    Some(http(200, if adds { RESULT } else { "" }))
}

#[test]
fn results_are_printed_in_the_version_of_the_configuration() {
    let node = Node::new();
    let _daemon = Daemon::ready(node.path(), works);
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = Node::call("ADD", &node.config(version)).run().result();
        assert_eq!(result["cniVersion"], version);
        let address = if version < "0.3.0" { &result["ip4"]["ip"] } else { &result["ips"][0]["address"] };
        assert_eq!(address, "10.1.2.3/24", "{version}");
    }
    let mut config = node.config("1.0.0");
    config.as_object_mut().unwrap().remove("cniVersion");
    assert_eq!(Node::call("ADD", &config).run().result()["ip4"]["gateway"], "10.1.2.1", "none is 0.1.0");
}

#[test]
fn every_command_reaches_the_daemon_and_prints_nothing() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), works);
    for command in ["DEL", "CHECK", "STATUS", "GC"] {
        let reply = Node::call(command, &node.config("1.1.0")).run();
        assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() }, "{command}");
    }
    let expected = ["/healthz", "/cni DEL", "/readyz", "/cni CHECK", "/readyz", "/cni STATUS", "/readyz", "/cni GC"];
    assert_eq!(daemon.calls(), expected);
    assert_eq!(daemon.received()[0].1, Value::Null, "what upstream's daemon is used to");
}

#[test]
fn the_daemon_gets_the_whole_environment_and_the_bytes_of_the_configuration() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), works);
    let config = format!(
        "\n{{ \"name\":\"n\",\"unknown\" : 1.50, \"unknown\":2,\"CNIVersion\":\"1.0.0\", \"x\":\"\u{e9}\", \"daemonSocketDir\":{}}} ",
        json!(node.path())
    );
    let call = Node::call("ADD", &Value::Null).stdin(config.clone()).env("EMPTY", "").env("ODD", "a=b;\"\n\u{1f600}");
    call.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p").env("LONG", &"x".repeat(100_000)).run().succeeded();
    let (target, request) = daemon.received().pop().unwrap();
    assert_eq!(target, "/cni");
    assert_eq!(request.as_object().unwrap().keys().collect::<Vec<_>>(), ["config", "env"]);
    let mut variables = request["env"].as_object().unwrap().clone();
    assert!(
        variables.remove("LONG").unwrap().as_str().unwrap().len() == 100_000 && variables.remove("CNI_PATH").is_some()
    );
    let expected = json!({
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/run/netns/absent",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=p", "EMPTY": "", "ODD": "a=b;\"\n\u{1f600}",
    });
    assert_eq!(Value::Object(variables), expected);
    assert_eq!(STANDARD.decode(request["config"].as_str().unwrap()).unwrap(), config.as_bytes());
}

#[test]
fn variables_that_are_not_text_only_matter_where_they_name_the_sandbox() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), works);
    let run = |name: &str| {
        let path = node.path().join("config");
        fs::write(&path, node.config("1.0.0").to_string()).unwrap();
        let mut command = Command::new(PROGRAM);
        command.env_clear().stdin(File::open(path).unwrap());
        for (name, value) in
            [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")]
        {
            command.env(name, value);
        }
        command.env(name, OsStr::from_bytes(b"/n/\xff")).output().unwrap()
    };
    assert!(run("OTHER").status.success());
    assert_eq!(daemon.received().pop().unwrap().1["env"]["OTHER"], "/n/\u{fffd}");
    for name in ["CNI_NETNS", "CNI_ARGS", "CNI_IFNAME", "CNI_CONTAINERID"] {
        let output = run(name);
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), &object["code"]), (Some(1), &json!(4)), "{name}: {object}");
    }
    assert_eq!(daemon.calls(), ["/healthz", "/cni DEL"]);
}

#[test]
fn error_objects_pass_through_unchanged() {
    let node = Node::new();
    let body = r#"{"code":50,"msg":"no more <addresses>","details":"in 10.1.2.0/24"}"#;
    let _daemon = Daemon::ready(node.path(), move |_, _| Some(http(400, body)));
    for command in WORKING {
        let error = Node::call(command, &node.config("1.1.0")).run().error();
        assert_eq!(error, (50, "no more <addresses>".to_owned(), "in 10.1.2.0/24".to_owned()), "{command}");
    }
    assert_eq!(node.spooled(), [], "a daemon that fails is not away");
}

#[test]
fn errors_in_words_are_told_without_the_configuration() {
    let node = Node::new();
    let _daemon = Daemon::ready(node.path(), |_, _| Some(http(400, "pod default/p: no such network\n")));
    let mut config = node.config("1.1.0");
    config["delegates"] = json!([{"password": "s3cret"}]);
    for command in WORKING {
        let reply = Node::call(command, &config).run();
        let words = "CNI request failed with status 400: 'pod default/p: no such network'";
        assert_eq!(reply.error(), (999, words.to_owned(), String::new()), "{command}");
        assert!(!format!("{reply:?}{}", node.log()).contains("s3cret"));
    }
    assert_eq!(node.spooled(), []);
}

#[test]
fn a_daemon_without_readyz_is_as_good_and_as_quick() {
    let node = Node::new();
    let daemon = Daemon::start(node.path(), |target, request| match target {
        "/readyz" => Some(http(404, "404 page not found\n")),
        "/healthz" => Some(http(200, "")),
        _ => works(target, request),
    });
    Node::call("ADD", &node.config("0.3.1")).run().succeeded();
    assert_eq!(daemon.calls(), ["/readyz", "/healthz", "/cni ADD"]);
}

/// What a double of upstream's daemon answers to a call, and what the runtime hears of it: nothing, or code and words.
type Exchange = (&'static str, fn(&str) -> Option<(u64, &'static str)>);

#[test]
fn upstreams_daemons_are_understood_in_every_command_and_answer() {
    const WORDS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 61\r\n\
                         Connection: close\r\n\r\n[c1:/n:eth0:args::/bin]: ERRORED: error configuring pod [a/b]\n";
    // Content-Type is whatever was sniffed.
    const OBJECT: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                          {\"code\":50,\"msg\":\"no\",\"details\":\"d\"}";
    const RESULT_ONLY: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
                               {\"Result\":{\"cniVersion\":\"1.1.0\",\"ips\":[{\"address\":\"10.1.2.3/24\"}],\"dns\":{}}}";
    let exchanges: [Exchange; 6] = [
        (RESULT_ONLY, |_| None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", |command| {
            (command == "ADD").then_some((999, "multus-daemon gave no result that can be read: "))
        }),
        (WORDS, |_| Some((999, "CNI request failed with status 400: '[c1:/n:eth0:args::/bin]: ERRORED: error"))),
        (OBJECT, |_| Some((50, "no"))),
        // As when its process ends: a DEL is kept.
        ("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Result\":{", |command| {
            (command != "DEL").then_some((999, "no answer of multus-daemon on "))
        }),
        ("", |command| (command != "DEL").then_some((999, "no answer of multus-daemon on "))),
    ];
    for has_readyz in [false, true] {
        for (answer, expected) in exchanges {
            for command in WORKING {
                let node = Node::new();
                let daemon = Daemon::start(node.path(), move |target, _| match target {
                    "/readyz" if !has_readyz => Some(http(404, "404 page not found\n")),
                    "/readyz" | "/healthz" => Some(http(200, "")),
                    _ => Some(answer.into()),
                });
                let reply = Node::call(command, &node.impatient()).run();
                match expected(command) {
                    None => reply.succeeded(),
                    Some((code, words)) => {
                        let (got_code, got_words, _) = reply.error();
                        assert!(got_code == code && got_words.starts_with(words), "{command} {answer:?}: {reply:?}");
                    }
                }
                let probes: &[&str] = match (command, has_readyz) {
                    ("DEL", _) => &["/healthz"],
                    (_, false) => &["/readyz", "/healthz"],
                    (_, true) => &["/readyz"],
                };
                let calls = daemon.calls();
                assert_eq!(calls[..probes.len()], *probes, "{command}");
                assert_eq!(calls[probes.len()], format!("/cni {command}"));
                let is_cut = !answer.contains("close");
                assert_eq!(node.spooled().len(), usize::from(command == "DEL" && is_cut), "{command} {answer:?}");
            }
        }
    }
}

#[test]
fn a_daemon_that_shuts_down_still_cleans_up_and_takes_nothing_new() {
    let node = Node::new();
    let daemon = Daemon::start(node.path(), |target, request| match target {
        "/readyz" => Some(http(500, "")),
        "/healthz" => Some(http(200, "")),
        _ => works(target, request),
    });
    Node::call("DEL", &node.impatient()).run().succeeded();
    assert_eq!(daemon.calls(), ["/healthz", "/cni DEL"]);
    let (code, words, _) = Node::call("ADD", &node.impatient()).run().error();
    assert_eq!((code, words.contains("after 1 s: /readyz answers with status 500; see")), (999, true), "{words}");
    assert!(!daemon.calls().contains(&"/cni ADD".to_owned()));
}

#[test]
fn answers_may_come_in_chunks_or_end_with_the_connection() {
    let node = Node::new();
    let (start, end) = RESULT.split_at(100);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let chunked =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n", chunk(start), chunk(end));
    for answer in [chunked, format!("HTTP/1.0 200 OK\r\n\r\n{RESULT}")] {
        let _daemon = Daemon::ready(node.path(), move |_, _| Some(answer.clone().into_bytes()));
        let result = Node::call("ADD", &node.config("1.0.0")).run().result();
        assert_eq!(result["ips"][0]["address"], "10.1.2.3/24");
    }
}

#[test]
fn an_absent_daemon_is_waited_for_and_then_named_with_where_to_look() {
    let node = Node::new();
    for (command, code) in [("ADD", 999), ("CHECK", 999), ("GC", 999), ("STATUS", 50)] {
        let started = Instant::now();
        let error = Node::call(command, &node.impatient()).run().error();
        assert!(started.elapsed() > Duration::from_millis(800), "{command}");
        let words = format!(
            "multus-daemon not ready on {}/multus.sock after 1 s: cannot connect: no such file or directory; \
             see the kube-multus-ds pod of this node",
            node.path().display()
        );
        assert_eq!(error, (code, words, String::new()), "{command}");
    }
    File::create(node.path().join("multus.sock")).unwrap();
    let (_, words, _) = Node::call("ADD", &node.impatient()).run().error();
    assert!(words.contains("cannot connect: connection refused"), "{words}");
}

#[test]
fn a_daemon_that_comes_late_is_found() {
    let node = Node::new();
    thread::scope(|scope| {
        let reply = scope.spawn(|| Node::call("ADD", &node.config("1.0.0")).run());
        node.wait_for_log("waiting for multus-daemon: cannot connect");
        let _daemon = Daemon::ready(node.path(), works);
        reply.join().unwrap().succeeded();
    });
}

#[test]
fn a_daemon_that_restarts_between_probe_and_request_is_waited_for() {
    let node = Node::new();
    let (socket, away) = (node.path().join("multus.sock"), node.path().join("away"));
    let probes = AtomicUsize::new(0);
    let leaves = {
        let (socket, away) = (socket.clone(), away.clone());
        move |target: &str, request: &Value| {
            if target == "/readyz" && probes.fetch_add(1, Ordering::SeqCst) == 0 {
                fs::rename(&socket, &away).unwrap();
            }
            if target == "/cni" { works(target, request) } else { Some(http(200, "")) }
        }
    };
    let daemon = Daemon::start(node.path(), leaves);
    thread::scope(|scope| {
        let reply = scope.spawn(|| Node::call("ADD", &node.config("1.0.0")).run());
        node.wait_for_log("waiting for multus-daemon");
        fs::rename(&away, &socket).unwrap();
        reply.join().unwrap().succeeded();
    });
    assert_eq!(daemon.calls().iter().filter(|call| *call == "/cni ADD").count(), 1);
}

#[test]
fn a_silent_daemon_does_not_hold_anybody_for_ever() {
    let node = Node::new();
    let _daemon = Daemon::start(node.path(), |_, _| None);
    let (code, words, _) = Node::call("ADD", &node.impatient()).run().error();
    assert_eq!((code, words.contains("after 1 s: no complete answer in time; see")), (999, true), "{words}");
    Node::call("DEL", &node.impatient()).run().succeeded();
    assert_eq!(node.spooled().len(), 1);
}

#[test]
fn a_slow_daemon_gets_the_time_it_needs() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), |target, request| {
        thread::sleep(Duration::from_millis(1500));
        works(target, request)
    });
    Node::call("ADD", &node.impatient()).run().succeeded();
    Node::call("DEL", &node.impatient()).run().succeeded();
    assert_eq!(
        daemon.calls(),
        ["/readyz", "/cni ADD", "/healthz", "/cni DEL"],
        "the wait is for the daemon, not its work"
    );
}

#[test]
fn a_daemon_that_dies_over_a_request_is_said_to_and_its_del_is_kept() {
    for last_words in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Result\":{"] {
        let node = Node::new();
        let _daemon = Daemon::ready(node.path(), move |_, _| Some(last_words.as_bytes().to_owned()));
        let (code, words, _) = Node::call("ADD", &node.config("1.0.0")).run().error();
        let expected = format!("the connection was closed after {} bytes of the answer; see", last_words.len());
        assert_eq!((code, words.contains(&expected)), (999, true), "{words}");
        Node::call("DEL", &node.config("1.0.0")).run().succeeded();
        assert_eq!(node.spooled().len(), 1);
    }
}

#[test]
fn an_answer_that_is_none_is_one_error() {
    let huge = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5 << 20));
    let answers = [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "malformed answer"),
        ("\0\u{1}\u{ff}\n\n\n".to_owned(), "malformed answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n".to_owned(), r#"Content-Length is "many""#),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".to_owned(), "invalid chunk size"),
        (huge, "longer than 4194304 bytes"),
    ];
    for (answer, fault) in answers {
        let node = Node::new();
        let _daemon = Daemon::ready(node.path(), move |_, _| Some(answer.clone().into_bytes()));
        for command in ["ADD", "DEL"] {
            let reply = Node::call(command, &node.config("1.0.0")).run();
            let (code, words, _) = reply.error();
            assert_eq!((code, words.contains(fault), reply.stderr.as_str()), (999, true, ""), "{words}");
        }
        assert_eq!(node.spooled(), [], "whoever answers is not away");
    }
}

#[test]
fn an_add_whose_result_cannot_be_read_is_undone() {
    let bodies =
        ["", "[]", "{", "{}", r#"{"Result":null}"#, r#"{"Result":5}"#, r#"{"Result":{"ips":[{"address":"x"}]}}"#];
    for body in bodies {
        let node = Node::new();
        let daemon = Daemon::ready(node.path(), move |_, _| Some(http(200, body)));
        let (code, words, _) = Node::call("ADD", &node.config("1.0.0")).run().error();
        assert_eq!(
            (code, words.starts_with("multus-daemon gave no result that can be read: ")),
            (999, true),
            "{words}"
        );
        assert_eq!(daemon.calls(), ["/readyz", "/cni ADD", "/healthz", "/cni DEL"], "{body}");
    }
}

#[test]
fn an_add_whose_result_nobody_gets_is_undone() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), works);
    let config = node.path().join("config");
    fs::write(&config, node.config("1.0.0").to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    for (name, value) in [("COMMAND", "ADD"), ("CONTAINERID", "c1"), ("IFNAME", "eth0"), ("PATH", "/"), ("NETNS", "/n")]
    {
        command.env(format!("CNI_{name}"), value);
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = command.stdin(File::open(config).unwrap()).stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(daemon.calls(), ["/readyz", "/cni ADD", "/healthz", "/cni DEL"]);
    let received = daemon.received();
    let (add, mut del) = (received[1].1.clone(), received[3].1.clone());
    del["env"]["CNI_COMMAND"] = json!("ADD");
    assert_eq!(add, del);
}

#[test]
fn a_del_is_kept_for_a_daemon_that_is_away() {
    let node = Node::new();
    let mut expected = Vec::new();
    for number in 0..12 {
        let container = format!("c{number}");
        let call = Node::call("DEL", &node.config("0.3.1")).container(&container).env("OTHER", "x");
        let started = Instant::now();
        let reply = call.run();
        assert_eq!(reply, Reply { status: Some(0), stdout: String::new(), stderr: String::new() });
        assert!(started.elapsed() < Duration::from_secs(20), "one try is enough");
        call.run().succeeded();
        expected.push(container);
    }
    let spooled = node.spooled();
    let containers: Vec<&str> = spooled.iter().map(|request| request.environment["CNI_CONTAINERID"].as_str()).collect();
    assert_eq!(containers, expected, "each once, in order");
    assert_eq!(spooled[0].config, node.config("0.3.1").to_string().as_bytes());
    let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "OTHER"];
    assert_eq!(spooled[0].environment.keys().collect::<Vec<_>>(), names);
    assert!(
        node.log().contains("[error] DEL c0 eth0: multus-daemon is away (cannot connect: no such file or directory)")
    );
    let mode = fs::metadata(node.path().join("multus/spool")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_kept_is_what_the_daemon_would_have_got() {
    let node = Node::new();
    Node::call("DEL", &node.config("1.0.0")).run().succeeded();
    let daemon = Daemon::ready(node.path(), works);
    Node::call("DEL", &node.config("1.0.0")).run().succeeded();
    let kept: Value = serde_json::from_slice(&node.spooled()[0].print()).unwrap();
    assert_eq!(kept, daemon.received().pop().unwrap().1);
}

#[test]
fn a_daemon_that_returns_while_a_del_is_being_kept_gets_it_at_once() {
    let node = Node::new();
    let probes = AtomicUsize::new(0);
    let failing = Arc::new(AtomicUsize::new(0));
    let daemon = Daemon::start(node.path(), {
        let failing = Arc::clone(&failing);
        move |target, request| match target {
            // Of every two probes the first finds nobody.
            "/healthz" if probes.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) => Some(Vec::new()),
            "/healthz" => Some(http(200, "")),
            _ if failing.load(Ordering::SeqCst) == 1 => Some(http(400, "busy")),
            _ => works(target, request),
        }
    });
    Node::call("DEL", &node.config("1.0.0")).run().succeeded();
    assert_eq!(daemon.calls(), ["/healthz", "/healthz", "/cni DEL"]);
    assert_eq!(node.spooled(), []);
    failing.store(1, Ordering::SeqCst);
    assert_eq!(Node::call("DEL", &node.config("1.0.0")).run().error().1, "CNI request failed with status 400: 'busy'");
    assert_eq!(node.spooled(), [], "the runtime asks again");
}

#[test]
fn a_del_that_can_neither_be_run_nor_kept_fails() {
    let node = Node::new();
    let mut config = node.config("1.0.0");
    config["daemonSpoolDir"] = json!("/proc/self/spool");
    let (code, words, _) = Node::call("DEL", &config).run().error();
    let expected = "multus-daemon is away (cannot connect: no such file or directory), and the DEL cannot be kept for it: \
                    cannot create /proc/self/spool: ";
    assert_eq!((code, words.starts_with(expected)), (5, true), "{words}");
}

#[test]
fn a_del_killed_at_any_instant_is_kept_whole_or_not_at_all() {
    let node = Node::new();
    let config = node.path().join("config");
    fs::write(&config, node.config("1.0.0").to_string()).unwrap();
    let mut kept = 0;
    for round in 0..60_u64 {
        let mut command = Command::new(PROGRAM);
        let container = format!("c{round}");
        for (name, value) in [("COMMAND", "DEL"), ("CONTAINERID", &*container), ("IFNAME", "eth0"), ("PATH", "/")] {
            command.env(format!("CNI_{name}"), value);
        }
        let mut child = command.stdin(File::open(&config).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(round * 200));
        child.kill().unwrap();
        let succeeded = child.wait().unwrap().success();
        let spooled = node.spooled();
        assert!(spooled.len() > kept || !succeeded);
        kept = spooled.len();
    }
    Node::call("DEL", &node.config("1.0.0")).run().succeeded();
    assert_eq!(node.spooled().len(), kept + 1);
}

#[test]
fn fifty_shims_at_once_lose_nothing() {
    let node = Node::new();
    let all = |command: &str| {
        thread::scope(|scope| {
            for number in 0..50 {
                let call = Node::call(command, &node.config("1.0.0")).container(&format!("c{number}"));
                scope.spawn(move || call.run().succeeded());
            }
        });
    };
    let containers = |requests: Vec<String>| {
        let mut requests = requests;
        requests.sort();
        requests.dedup();
        requests.len()
    };
    {
        let daemon = Daemon::ready(node.path(), works);
        all("ADD");
        let calls = daemon.received().into_iter().filter(|(target, _)| target == "/cni");
        assert_eq!(containers(calls.map(|(_, request)| request["env"]["CNI_CONTAINERID"].to_string()).collect()), 50);
    }
    all("DEL");
    let spooled = node.spooled();
    assert_eq!(spooled.len(), 50);
    assert_eq!(containers(spooled.iter().map(|request| request.environment["CNI_CONTAINERID"].clone()).collect()), 50);
    let malformed = |line: &str| !line.contains("Z [") || !line.contains(" eth0: ");
    assert_eq!(node.log().lines().find(|line| malformed(line)), None, "lines of several processes do not mix");
}

#[test]
fn the_log_has_what_its_level_asks_for() {
    let levels = [("panic", 0), ("", 0), ("error", 1), ("Verbose", 2)];
    for (level, lines) in levels {
        let node = Node::new();
        let mut config = node.impatient();
        config["logLevel"] = json!(level);
        config["logToStderr"] = json!(true);
        let reply = Node::call("DEL", &config).run();
        assert_eq!((node.log().lines().count(), reply.stderr), (lines, node.log()), "{level}");
    }
}

#[test]
fn an_unusable_log_stops_nobody() {
    let node = Node::new();
    let _daemon = Daemon::ready(node.path(), works);
    let mut config = node.config("1.0.0");
    config["logFile"] = json!("/proc/self/log");
    config["logLevel"] = json!("loud");
    let reply = Node::call("ADD", &config).run();
    assert!(
        reply.stderr.contains(r#""logLevel" "loud" is none of panic"#)
            && reply.stderr.contains("cannot log to /proc/self/log")
    );
    reply.succeeded();
}

#[test]
fn bad_input_reaches_no_daemon() {
    let node = Node::new();
    let daemon = Daemon::ready(node.path(), works);
    let config = node.config("1.1.0");
    let call = |command: &str| Node::call(command, &config);
    let with = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        Node::call("DEL", &config)
    };
    let refused = [
        (call("ADD").without("CNI_NETNS"), 4, "required env variables [CNI_NETNS] missing"),
        (
            call("DEL").without("CNI_PATH").without("CNI_IFNAME"),
            4,
            "required env variables [CNI_IFNAME,CNI_PATH] missing",
        ),
        (call("STATUS").without("CNI_PATH"), 4, "required env variables [CNI_PATH] missing"),
        (call("ADD").container("../c"), 4, "invalid characters in containerID"),
        (call("MOVE"), 4, "unknown CNI_COMMAND: MOVE"),
        (call("ADD").stdin("{\"name\":\"n\""), 6, "error unmarshall network config: unexpected end of JSON input"),
        (call("ADD").stdin("{}"), 7, "missing network name"),
        (Node::call("STATUS", &node.config("1.0.0")), 1, "config version does not allow STATUS"),
        (Node::call("ADD", &node.config("9.0.0")), 1, "incompatible CNI versions"),
        (
            call("ADD").env("CNI_NETNS", "/proc/self/ns/net"),
            8,
            "plugin's netns and netns from CNI_NETNS should not be the same",
        ),
        (with("logLevel", json!(5)), 999, "\"logLevel\" must be a string, not 5"),
        (with("daemonWaitSeconds", json!(0)), 999, "\"daemonWaitSeconds\" must be at least 1"),
    ];
    for (call, code, words) in refused {
        let (got_code, got_words, _) = call.run().error();
        assert_eq!((got_code, got_words.to_lowercase()), (code, words.to_lowercase()));
    }
    assert_eq!(daemon.calls(), [""; 0]);
}

#[test]
fn it_tells_its_versions_without_a_daemon() {
    let versions = Node::call("VERSION", &json!({"cniVersion": "1.0.0"})).run().result();
    assert_eq!(versions["supportedVersions"], json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let introduced = Node::call("", &Value::Null).run();
    assert!(introduced.stderr.starts_with("CNI multus-shim plugin v"), "{introduced:?}");
    introduced.succeeded();
    for flag in ["--version", "-v"] {
        let output = Command::new(PROGRAM).arg(flag).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.stdout, format!("multus-shim {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
        assert!(output.status.success());
    }
}
