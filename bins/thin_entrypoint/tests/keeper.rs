//! The configuration on a node as the runtime and other programs see it: real files, and a keeper that waits for changes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    io::{PipeWriter, Read, pipe},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use thin_entrypoint::{
    Error, Generated, Keeper, Kubeconfig, Master, Source, Standing, Template, Thick, Thin, install, uninstall,
};

const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"#;
const OURS: &str = "00-multus.conf";
/// Less than a keeper that is told nothing would need.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_configuration_of_the_shim_is_upstreams_to_the_byte() {
    let node = Node::with_flannel();
    let mut keeper = node.daemon(json!({}));
    assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Written);
    let expected = concat!(
        r#"{"capabilities":{"portMappings":true},"cniVersion":"0.3.1","logLevel":"verbose","logToStderr":true,"#,
        r#""name":"multus-cni-network","clusterNetwork":"MASTER","type":"multus-shim"}"#
    );
    let master = node.path("10-flannel.conflist");
    assert_eq!(node.read(OURS), expected.replace("MASTER", master.to_str().unwrap()));
    assert_eq!(fs::metadata(node.path(OURS)).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Kept);
}

#[test]
fn every_option_of_the_shim_has_its_place() {
    let node = Node::with_flannel();
    let config = r#"{
        "BinDir": "/b", "capabilities": {"bandwidth": true, "ips": false}, "cniVersion": "0.3.1", "logFile": "/l",
        "logLevel": "debug", "logToStderr": true, "logOptions": {"maxAge": 5, "maxSize": 1e2}, "name": "ignored",
        "namespaceIsolation": true, "globalNamespaces": "a,b", "type": "ignored", "cniDir": "/c",
        "auxiliaryCNIChainName": "vendor", "daemonSocketDir": "/s", "overrideNetworkName": true,
        "daemonWaitSeconds": 30, "daemonSpoolDir": "/p", "clusterNetwork": "ignored"
    }"#;
    let generated = Thick::parse(config.as_bytes()).unwrap().generate(&node.master()).unwrap();
    let expected = concat!(
        r#"{"binDir":"/b","capabilities":{"bandwidth":true,"ips":false,"portMappings":true},"cniVersion":"0.3.1","logFile":"/l","#,
        r#""logLevel":"debug","logToStderr":true,"logOptions":{"maxAge": 5, "maxSize": 1e2},"name":"multus-cni-network","#,
        r#""clusterNetwork":"MASTER","namespaceIsolation":true,"globalNamespaces":"a,b","type":"multus-shim","cniDir":"/c","#,
        r#""auxiliaryCNIChainName":"vendor","daemonSocketDir":"/s","overrideNetworkName":true,"daemonWaitSeconds":30,"#,
        r#""daemonSpoolDir":"/p"}"#
    );
    let master = node.path("10-flannel.conflist");
    assert_eq!(text(&generated), expected.replace("MASTER", master.to_str().unwrap()));
}

#[test]
fn the_configuration_of_multus_is_upstreams_to_the_byte() {
    let node = Node::with_flannel();
    let thin = Thin {
        cni_conf: "/host/etc/cni/multus/net.d".to_owned(),
        kubeconfig: "/etc/cni/net.d/multus.d/multus.kubeconfig".to_owned(),
        ..Thin::default()
    };
    let generated = thin.generate(&node.master()).unwrap();
    assert_eq!(generated.file_name, "00-multus.conf");
    let plugin = |delegate: &str| {
        let keys = concat!(
            r#""type":"multus","capabilities":{"portMappings":true},"cniConf":"/host/etc/cni/multus/net.d","#,
            r#""kubeconfig":"/etc/cni/net.d/multus.d/multus.kubeconfig","delegates":["#
        );
        format!("{keys}{delegate}]")
    };
    let delegate = |version: &str| {
        let plugins = FLANNEL.split_once("\"plugins\": ").unwrap().1.rsplit_once('}').unwrap().0.trim();
        format!(r#"{{"cniVersion":"{version}","name":"cbr0","plugins":{plugins}}}"#)
    };
    let head = r#"{"cniVersion":"0.3.1","name":"multus-cni-network","#;
    assert_eq!(text(&generated), format!("{head}{}}}", plugin(&delegate("0.3.1"))));

    // From 1.0.0 on it is a list.
    let thin = Thin { version: "1.0.0".to_owned(), force_version: true, override_network_name: true, ..thin };
    let generated = thin.generate(&node.master()).unwrap();
    assert_eq!(generated.file_name, "00-multus.conflist");
    let head = r#"{"cniVersion":"1.0.0","name":"cbr0","plugins":[{"#;
    assert_eq!(text(&generated), format!("{head}{}}}]}}", plugin(&delegate("1.0.0"))));

    let thin = Thin {
        namespace_isolation: true,
        global_namespaces: "default,lab".to_owned(),
        quiet: true,
        log_level: "Debug".to_owned(),
        log_file: "/l".to_owned(),
        bin_dir: "/b".to_owned(),
        readiness_indicator_file: "/r".to_owned(),
        ..Thin::default()
    };
    let options = concat!(
        r#""namespaceIsolation":true,"globalNamespaces":"default,lab","logToStderr":false,"logLevel":"debug","#,
        r#""logFile":"/l","binDir":"/b","readinessindicatorfile":"/r","delegates":["#
    );
    assert!(text(&thin.generate(&node.master()).unwrap()).contains(options));
}

#[test]
fn what_cannot_be_served_is_refused_by_name_and_leaves_no_file() {
    let node = Node::new();
    for (master, problem) in [
        ("", "unexpected end of JSON input"),
        ("[]", "it must be a JSON object"),
        (r#"{"cniVersion":"1.0.0","name":"a"}"#, r#""type" is missing; it names the plugin"#),
        (r#"{"cniVersion":"1.0.0","name":"a","plugins":[]}"#, r#""plugins" must have at least one element"#),
        (r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"a"},{}]}"#, r#""plugins[1].type" is missing"#),
        (r#"{"cniVersion":"1.0.0","name":"a","type":"multus"}"#, r#""type" is "multus", which would call itself"#),
        (r#"{"cniVersion":"1.0.0","name":5,"type":"a"}"#, r#""name" must be a string, not 5"#),
        (r#"{"cniVersion":"9.0.0","name":"a","type":"a"}"#, "9.0.0"),
        (
            r#"{"cniVersion":"0.3.1","name":"a","type":"a"}"#,
            "delegate cni version is 0.3.1 while top level cni version is 0.4.0",
        ),
    ] {
        fs::write(node.path("10-a.conf"), master).unwrap();
        let error = node.daemon(json!({"cniVersion": "0.4.0"})).refresh(Instant::now()).unwrap_err().to_string();
        assert!(error.contains("10-a.conf") && error.contains(problem), "{error}");
        assert_eq!(node.names(), ["10-a.conf"]);
    }
    fs::write(node.path("10-a.conf"), r#"{"cniVersion":"1.0.0","name":"a","type":"a"}"#).unwrap();
    let strict = Thin { version: "0.4.0".to_owned(), ..Thin::default() };
    let error = node.keeper(strict).refresh(Instant::now()).unwrap_err().to_string();
    assert!(error.ends_with(r#""cniVersion" is "1.0.0", but "0.4.0" is asked for"#), "{error}");
    let refused = |config: Value| Keeper::from_daemon_config(config.to_string().as_bytes()).unwrap_err().to_string();
    assert_eq!(refused(json!({"cniVersion": 5})), r#"configuration: "cniVersion" must be a string, not 5"#);
    assert!(refused(json!({"cniVersion": "9"})).contains("\"cniVersion\""));
    assert!(refused(json!({"cniConfigDir": []})).contains("\"cniConfigDir\" must be a string"));
    assert!(refused(json!({"capabilities": {"a": 1}})).contains("\"capabilities\" must be an object of booleans"));
    let own = node.daemon(json!({"multusMasterCNI": OURS})).refresh(Instant::now()).unwrap_err().to_string();
    assert!(own.contains("it is what is generated from a master"), "{own}");
}

#[test]
fn who_reads_meanwhile_finds_the_old_content_or_the_new() {
    let node = Node::new();
    // Long enough for a write in place to be seen.
    let master = |round: usize| {
        let capabilities: serde_json::Map<String, Value> =
            (0..2000).map(|index| (format!("capability{index}-{round}"), json!(true))).collect();
        json!({"cniVersion": "0.3.1", "name": "a", "type": "a", "capabilities": capabilities}).to_string()
    };
    let replace = |round: usize| {
        fs::write(node.path("new"), master(round)).unwrap();
        fs::rename(node.path("new"), node.path("10-a.conf")).unwrap();
    };
    replace(0);
    let mut keeper = node.daemon(json!({}));
    keeper.refresh(Instant::now()).unwrap();
    let is_done = AtomicBool::new(false);
    let is_done = &is_done;
    let node = &node;
    thread::scope(|scope| {
        let reader = || {
            let mut seen = BTreeSet::new();
            while !is_done.load(Ordering::Relaxed) {
                let config: Value = serde_json::from_str(&node.read(OURS)).unwrap();
                let capabilities = config["capabilities"].as_object().unwrap();
                assert_eq!(capabilities.len(), 2000);
                let round = capabilities.keys().next().unwrap().rsplit_once('-').unwrap().1.to_owned();
                assert!(capabilities.keys().all(|name| name.ends_with(&format!("-{round}"))));
                seen.insert(round);
            }
            seen.len()
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for round in 1..100 {
            replace(round);
            assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Written);
        }
        is_done.store(true, Ordering::Relaxed);
        let seen: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(seen > 2, "the readers saw nothing change: {seen}");
    });
}

#[test]
fn a_master_may_come_late_change_break_and_go() {
    let node = Node::new();
    let kept = node.start(node.daemon(json!({})));
    fs::write(node.path("10-flannel.conflist"), FLANNEL).unwrap();
    node.wait_for("the first configuration", |config| config["capabilities"] == json!({"portMappings": true}));

    let bandwidth = FLANNEL.replace("portMappings", "bandwidth");
    fs::write(node.path("10-flannel.conflist"), bandwidth).unwrap();
    node.wait_for("the new capability alone", |config| config["capabilities"] == json!({"bandwidth": true}));

    // What is not usable changes nothing, and what was there is still restored.
    let before = node.read(OURS);
    for content in ["", "{\"name\":"] {
        fs::write(node.path("10-flannel.conflist"), content).unwrap();
        fs::remove_file(node.path(OURS)).unwrap();
        node.wait_for("what was there", |_| true);
        assert_eq!(node.read(OURS), before);
    }
    fs::remove_file(node.path("10-flannel.conflist")).unwrap();
    fs::write(node.path("20-calico.conf"), r#"{"cniVersion":"0.3.1","name":"k8s","type":"calico"}"#).unwrap();
    let is_calico = |config: &Value| config["clusterNetwork"].as_str().unwrap().ends_with("20-calico.conf");
    node.wait_for("the other master", is_calico);
    // As the runtime itself would, the first by name is taken.
    fs::write(node.path("05-first.conf"), r#"{"cniVersion":"0.3.1","name":"first","type":"a"}"#).unwrap();
    node.wait_for("the first by name", |config| config["clusterNetwork"].as_str().unwrap().ends_with("05-first.conf"));
    kept.stop();
    // What was written stays.
    assert!(node.path(OURS).exists());
}

#[test]
fn what_somebody_renames_changes_or_removes_is_restored() {
    let node = Node::with_flannel();
    let kept = node.start(node.daemon(json!({})));
    node.wait_for("the configuration", |_| true);
    let before = node.read(OURS);
    // As Cilium does.
    fs::rename(node.path(OURS), node.path("00-multus.conf.cilium_bak")).unwrap();
    node.wait_for("it again", |_| true);
    assert_eq!(node.read(OURS), before);
    assert_eq!(node.names(), ["00-multus.conf", "00-multus.conf.cilium_bak", "10-flannel.conflist"]);

    // Now there is a pause first, but it comes.
    let begin = Instant::now();
    fs::remove_file(node.path(OURS)).unwrap();
    node.wait_for("it again", |_| true);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    fs::write(node.path(OURS), "").unwrap();
    eventually("the content again", || node.read(OURS) == before);
    kept.stop();
}

#[test]
fn a_quarrel_is_not_fought_at_full_speed() {
    let node = Node::with_flannel();
    let mut keeper = node.daemon(json!({}));
    let now = Instant::now();
    let mut after = |seconds| {
        fs::remove_file(node.path(OURS)).unwrap_or_default();
        keeper.refresh(now + Duration::from_secs(seconds)).unwrap()
    };
    assert_eq!(after(0), Standing::Written);
    assert_eq!(after(0), Standing::Written);
    assert_eq!(after(0), Standing::Paused(Duration::from_secs(1)));
    assert_eq!(after(1), Standing::Written);
    assert_eq!(after(1), Standing::Paused(Duration::from_secs(2)));
    assert!(!node.path(OURS).exists());
    assert_eq!(after(500), Standing::Written);
}

#[test]
fn nothing_is_written_before_the_readiness_indicator_is_there() {
    let node = Node::with_flannel();
    let indicator = node.directory.path().join("ready");
    let mut keeper = node.daemon(json!({"readinessindicatorfile": indicator}));
    let error = keeper.refresh(Instant::now()).unwrap_err();
    assert!(matches!(&error, Error::Absent(what) if what.contains("ready")), "{error}");
    assert!(!node.path(OURS).exists());
    let kept = node.start(keeper);
    fs::write(&indicator, "").unwrap();
    node.wait_for("the configuration", |_| true);
    kept.stop();
}

#[test]
fn the_master_may_be_named_and_be_elsewhere() {
    let node = Node::with_flannel();
    let elsewhere = node.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for (name, network) in [("10-first.conf", "first"), ("00-multus-old.conf", "old"), ("20-second.conf", "second")] {
        let master = json!({"cniVersion": "0.3.1", "name": network, "type": "a"});
        fs::write(elsewhere.join(name), master.to_string()).unwrap();
    }
    for (keys, expected) in [
        (json!({}), elsewhere.join("10-first.conf")),
        (json!({"multusMasterCNI": "20-second.conf"}), elsewhere.join("20-second.conf")),
        (json!({"multusAutoconfigDir": ""}), node.path("10-flannel.conflist")),
    ] {
        let mut all = json!({"multusAutoconfigDir": elsewhere});
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        node.daemon(all).refresh(Instant::now()).unwrap();
        let written: Value = serde_json::from_str(&node.read(OURS)).unwrap();
        assert_eq!(written["clusterNetwork"], json!(expected));
    }
}

#[test]
fn capabilities_are_those_that_any_plugin_declares() {
    let node = Node::new();
    let written = |master: Value| {
        fs::write(node.path("10-a.conflist"), master.to_string()).unwrap();
        node.daemon(json!({})).refresh(Instant::now()).unwrap();
        serde_json::from_str::<Value>(&node.read(OURS)).unwrap()["capabilities"].clone()
    };
    let list = |plugins: Value| json!({"cniVersion": "0.3.1", "name": "a", "plugins": plugins});
    let plugins = json!([
        {"type": "a", "capabilities": {"portMappings": true, "mac": false}}, {"type": "b", "capabilities": {"ips": true}},
        {"type": "c"},
    ]);
    assert_eq!(written(list(plugins)), json!({"ips": true, "portMappings": true}));
    assert_eq!(written(list(json!([{"type": "a", "capabilities": {"mac": false}}]))), Value::Null);
    let single = json!({"cniVersion": "0.3.1", "name": "a", "type": "a", "capabilities": {"mac": true}});
    assert_eq!(written(single), json!({"mac": true}));
}

#[test]
fn a_configuration_of_the_users_own_is_kept_too() {
    let node = Node::with_flannel();
    let own = node.directory.path().join("70-own.conf");
    let content = r#"{"cniVersion":"0.3.1","name":"own","type":"multus-shim"}"#;
    fs::write(&own, content).unwrap();
    let kept = node.start(node.daemon(json!({"multusConfigFile": own})));
    eventually("the copy", || fs::read_to_string(node.path("70-own.conf")).is_ok_and(|found| found == content));
    let content = content.replace("own", "new");
    fs::write(&own, &content).unwrap();
    eventually("the new copy", || fs::read_to_string(node.path("70-own.conf")).is_ok_and(|found| found == content));
    kept.stop();
    assert!(!node.path(OURS).exists());
}

#[test]
fn a_forced_version_is_written_into_the_master() {
    let node = Node::with_flannel();
    let mut keeper = node.daemon(json!({"cniVersion": "1.0.0", "forceCNIVersion": true}));
    assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Written);
    let master: Value = serde_json::from_str(&node.read("10-flannel.conflist")).unwrap();
    let mut expected: Value = serde_json::from_str(FLANNEL).unwrap();
    expected["cniVersion"] = json!("1.0.0");
    assert_eq!(master, expected);
    assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Kept);
}

#[test]
fn a_renamed_master_is_remembered_and_gets_its_name_back() {
    let node = Node::with_flannel();
    for _ in 0..2 {
        // The second is a restart.
        let mut keeper = node.keeper(Thin::default()).renaming_master(true);
        keeper.refresh(Instant::now()).unwrap();
        assert_eq!(node.names(), ["00-multus.conf", "10-flannel.conflist.old"]);
        assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Kept);
    }
    // The cluster network's program writes it again.
    fs::write(node.path("10-flannel.conflist"), FLANNEL.replace("0.3.1", "1.0.0")).unwrap();
    let mut keeper = node.keeper(Thin::default()).renaming_master(true);
    assert_eq!(keeper.refresh(Instant::now()).unwrap(), Standing::Written);
    assert_eq!(node.names(), ["00-multus.conflist", "10-flannel.conflist.old"]);
    keeper.remove().unwrap();
    assert_eq!(node.names(), ["10-flannel.conflist"]);
}

#[test]
fn new_credentials_make_a_new_kubeconfig() {
    let node = Node::with_flannel();
    let account = node.directory.path().join("account");
    fs::create_dir(&account).unwrap();
    fs::write(account.join("token"), "first\n").unwrap();
    fs::write(account.join("ca.crt"), "authority").unwrap();
    let kubeconfig = Kubeconfig::new(&node.conf_dir(), "", "2001:db8::1", "6443", &account);
    let kept = node.start(node.keeper(Thin::default()).with_kubeconfig(kubeconfig));
    let path = node.path("multus.d/multus.kubeconfig");
    let has = |token: &str| {
        let config: Option<Value> = fs::read(&path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap());
        config.filter(|config| config["users"][0]["user"]["token"] == token)
    };
    eventually("a kubeconfig", || has("first").is_some());
    let config = has("first").unwrap();
    assert_eq!(config["clusters"][0]["cluster"]["server"], "https://[2001:db8::1]:6443");
    assert_eq!(config["clusters"][0]["cluster"]["certificate-authority-data"], "YXV0aG9yaXR5");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // As the kubelet does: a link is replaced.
    fs::write(account.join("new"), "second").unwrap();
    fs::rename(account.join("new"), account.join("token")).unwrap();
    eventually("the new token", || has("second").is_some());
    fs::remove_file(&path).unwrap();
    eventually("it again", || has("second").is_some());
    kept.stop();
}

#[test]
fn a_running_program_is_replaced() {
    let node = Node::new();
    let (source, bin) = (node.directory.path().join("cat"), node.directory.path().join("bin"));
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/cat", &source).unwrap();
    install(&source, &bin).unwrap();
    let installed = bin.join("cat");
    let mut running = Command::new(&installed).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // It has begun when it answers.
    std::io::Write::write_all(running.stdin.as_mut().unwrap(), b"a").unwrap();
    running.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let busy = fs::OpenOptions::new().write(true).open(&installed).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::ExecutableFileBusy);

    fs::write(&source, "#!/bin/sh\necho new\n").unwrap();
    fs::set_permissions(&source, fs::Permissions::from_mode(0o751)).unwrap();
    // One that was killed left this.
    fs::write(bin.join(".cat.new"), "half").unwrap();
    install(&source, &bin).unwrap();
    assert_eq!(Command::new(&installed).output().unwrap().stdout, b"new\n");
    assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    assert!(running.try_wait().unwrap().is_none());
    drop(running.stdin.take());
    assert!(running.wait().unwrap().success());

    let error = install(&node.directory.path().join("missing"), &bin).unwrap_err().to_string();
    assert!(error.starts_with("cannot read") && error.contains("missing"), "{error}");
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
}

#[test]
fn uninstall_leaves_nothing_of_ours_and_everything_else() {
    let node = Node::with_flannel();
    let bin = node.directory.path().join("bin");
    for path in [
        node.path(OURS),
        node.path("00-multus.conflist"),
        node.path("multus.d/multus.kubeconfig"),
        bin.join("multus"),
        bin.join("bridge"),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    let removed = uninstall(&node.conf_dir(), &bin, &["multus", "passthru"]).unwrap();
    assert_eq!(removed.len(), 4);
    assert_eq!(removed[0], node.path(OURS));
    assert_eq!(node.names(), ["10-flannel.conflist"]);
    assert!(bin.join("bridge").exists() && !bin.join("multus").exists());
    assert!(uninstall(&node.conf_dir(), &bin, &["multus", "passthru"]).unwrap().is_empty());
}

/// A node with a directory that the runtime reads.
struct Node {
    directory: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir(node.conf_dir()).unwrap();
        node
    }

    fn with_flannel() -> Self {
        let node = Self::new();
        fs::write(node.path("10-flannel.conflist"), FLANNEL).unwrap();
        node
    }

    fn conf_dir(&self) -> PathBuf {
        self.directory.path().join("net.d")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.conf_dir().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.conf_dir()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn master(&self) -> Master {
        Master::read(&Master::find(&self.conf_dir(), None).unwrap().unwrap()).unwrap().unwrap()
    }

    /// As the stock daemon's, with these keys besides.
    fn daemon(&self, keys: Value) -> Keeper {
        let mut config = json!({
            "cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true, "chrootDir": "/hostroot",
            "cniConfigDir": self.conf_dir(), "multusAutoconfigDir": self.conf_dir(), "multusConfigFile": "auto",
        });
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        Keeper::from_daemon_config(config.to_string().as_bytes()).unwrap()
    }

    fn keeper(&self, thin: Thin) -> Keeper {
        let source = Source::Generated {
            directory: self.conf_dir(),
            file: None,
            force_version: String::new(),
            template: Box::new(thin),
        };
        Keeper::new(&self.conf_dir(), source)
    }

    fn start(&self, mut keeper: Keeper) -> Kept {
        let (reader, stop) = pipe().unwrap();
        Kept { stop, thread: thread::spawn(move || keeper.keep(reader.as_fd()).unwrap()) }
    }

    /// Waits until our configuration is there, whole, and is `as_wanted`.
    #[track_caller]
    fn wait_for(&self, what: &str, as_wanted: impl Fn(&Value) -> bool) {
        eventually(what, || {
            let content = fs::read(self.path(OURS)).ok();
            content.is_some_and(|content| as_wanted(&serde_json::from_slice(&content).unwrap()))
        });
    }
}

/// A keeper at work.
struct Kept {
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

impl Kept {
    fn stop(self) {
        drop(self.stop);
        self.thread.join().unwrap();
    }
}

#[track_caller]
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::yield_now();
    }
}

fn text(generated: &Generated) -> String {
    String::from_utf8(generated.content.clone()).unwrap()
}
