//! The program as its container runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_thin_entrypoint");
const MASTER: &str = r#"{"cniVersion":"0.3.1","name":"cbr0","type":"bridge","capabilities":{"ips":true}}"#;

#[test]
fn everything_is_put_there_and_stays_after_a_signal() {
    let pod = Pod::new();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let running = pod.start(&["--namespace-isolation=true", "--multus-log-level", "VERBOSE"]);
        let program = pod.path("bin/multus");
        assert_eq!(fs::read(&program).unwrap(), b"the program");
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        let config = pod.config().unwrap();
        assert_eq!(config["type"], "multus");
        assert_eq!(config["namespaceIsolation"], true);
        assert_eq!(config["logLevel"], "verbose");
        assert_eq!(config["cniConf"], json!(pod.path("networks")));
        assert_eq!(config["kubeconfig"], "/etc/cni/net.d/multus.d/multus.kubeconfig");
        assert_eq!(config["delegates"][0], serde_json::from_str::<Value>(MASTER).unwrap());
        assert!(pod.path("networks").is_dir());
        let kubeconfig: Value =
            serde_json::from_slice(&fs::read(pod.path("net.d/multus.d/multus.kubeconfig")).unwrap()).unwrap();
        assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "https://10.96.0.1:443");
        assert_eq!(kubeconfig["users"][0]["user"]["token"], "secret");
        let log = running.end(signal);
        assert!(!log.contains("secret"), "{log}");
        assert!(pod.config().is_some() && program.exists());
        fs::remove_file(pod.path("net.d/00-multus.conf")).unwrap();
    }
}

#[test]
fn every_flag_reaches_what_it_is_for() {
    let pod = Pod::new();
    let plugins = json!([
        {"type": "a", "capabilities": {"ips": true, "mac": true}}, {"type": "b", "capabilities": {"mac": false}},
    ]);
    let mut master = json!({"cniVersion": "0.3.1", "name": "other", "plugins": plugins});
    fs::write(pod.path("net.d/20-other.conflist"), master.to_string()).unwrap();
    let arguments = [
        "--multus-master-cni-file-name=20-other.conflist",
        "--cni-version=0.4.0",
        "--force-cni-version",
        "--namespace-isolation",
        "--global-namespaces=default,lab",
        "--multus-log-to-stderr=false",
        "--multus-log-level=Error",
        "--multus-log-file=/var/log/multus.log",
        "--override-network-name",
        "--readiness-indicator-file=/run/ready",
        "--additional-bin-dir=/opt/more",
        "--multus-kubeconfig-file-host=/on/the/host/kubeconfig",
        "--skip-tls-verify",
    ];
    let mut command = pod.command(&arguments);
    command.env("KUBERNETES_SERVICE_PROTOCOL", "http").env("KUBERNETES_SERVICE_HOST", "2001:db8::1");
    let mut running = Running::of(command);
    running.wait_for("00-multus.conf\" is written");
    master["cniVersion"] = json!("0.4.0");
    let expected = json!({
        "cniVersion": "0.4.0", "name": "other", "type": "multus", "capabilities": {"ips": true, "mac": false},
        "namespaceIsolation": true, "globalNamespaces": "default,lab", "logToStderr": false, "logLevel": "error",
        "logFile": "/var/log/multus.log", "binDir": "/opt/more", "cniConf": pod.path("networks"),
        "readinessindicatorfile": "/run/ready", "kubeconfig": "/on/the/host/kubeconfig", "delegates": [master],
    });
    assert_eq!(pod.config().unwrap(), expected);
    let kubeconfig: Value =
        serde_json::from_slice(&fs::read(pod.path("net.d/multus.d/multus.kubeconfig")).unwrap()).unwrap();
    let cluster = json!({"server": "http://[2001:db8::1]:443", "insecure-skip-tls-verify": true});
    assert_eq!(kubeconfig["clusters"][0]["cluster"], cluster);
    assert_eq!(kubeconfig["current-context"], "multus-context");
    running.end(Signal::SIGTERM);
}

#[test]
fn a_configuration_of_ones_own_is_put_there_as_it_is() {
    let pod = Pod::new();
    let own = pod.path("70-own.conf");
    let content = "{ \"cniVersion\":\"0.3.1\", \"name\":\"own\", \"type\":\"multus\" }\n";
    fs::write(&own, content).unwrap();
    let mut running = pod.run(&["--multus-conf-file", own.to_str().unwrap()]);
    running.wait_for("70-own.conf\" is written");
    assert_eq!(fs::read_to_string(pod.path("net.d/70-own.conf")).unwrap(), content);
    assert!(pod.path("bin/multus").exists() && pod.path("net.d/multus.d/multus.kubeconfig").exists());
    running.end(Signal::SIGTERM);
    assert_eq!(pod.config(), None);
}

#[test]
fn it_waits_for_a_master_and_says_so() {
    let pod = Pod::new();
    fs::remove_file(pod.path("net.d/10-cbr0.conf")).unwrap();
    let mut running = pod.run(&[]);
    running.wait_for("there is no master configuration in");
    fs::write(pod.path("net.d/10-cbr0.conf"), MASTER).unwrap();
    running.wait_for("00-multus.conf\" is written");
    assert!(pod.config().is_some());
    // Who takes it away is told of.
    fs::rename(pod.path("net.d/00-multus.conf"), pod.path("net.d/00-multus.conf.cilium_bak")).unwrap();
    running.wait_for("was renamed to \"00-multus.conf.cilium_bak\" by somebody else; it is restored");
    running.wait_for("00-multus.conf\" is written");
    running.end(Signal::SIGTERM);
}

#[test]
fn the_configuration_goes_in_the_end_if_that_is_asked_for() {
    let pod = Pod::new();
    let running = pod.start(&["--cleanup-config-on-exit", "--rename-conf-file"]);
    assert!(!pod.path("net.d/10-cbr0.conf").exists());
    running.end(Signal::SIGTERM);
    assert_eq!(pod.config(), None);
    // Or the node would have no network at all.
    assert_eq!(fs::read_to_string(pod.path("net.d/10-cbr0.conf")).unwrap(), MASTER);
}

#[test]
fn without_watching_it_only_writes() {
    let pod = Pod::new();
    let running = pod.start(&["--skip-config-watch", "--skip-multus-binary-copy"]);
    assert!(!pod.path("bin/multus").exists());
    running.end(Signal::SIGTERM);
    assert!(pod.config().is_some());
}

#[test]
fn uninstall_takes_everything_away() {
    let pod = Pod::new();
    pod.start(&["--rename-conf-file"]).end(Signal::SIGTERM);
    let output = pod.command(&["--rename-conf-file"]).arg("uninstall").output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let names = |directory| {
        let entries = fs::read_dir(pod.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<String>>()
    };
    assert_eq!(names("net.d"), ["10-cbr0.conf"]);
    assert_eq!(names("bin"), [""; 0]);
}

#[test]
fn what_is_missing_or_wrong_is_an_error_that_names_it() {
    let pod = Pod::new();
    for (arguments, problem) in [
        (&["--cni-conf-dir", "/nowhere"][..], "--cni-conf-dir: \"/nowhere\" does not exist"),
        (&["--cni-bin-dir=/nowhere"], "--cni-bin-dir: \"/nowhere\" does not exist"),
        (&["--multus-bin-file=/nowhere"], "--multus-bin-file: \"/nowhere\" does not exist"),
        (&["--multus-conf-file=/nowhere"], "--multus-conf-file: \"/nowhere\" does not exist"),
        (&["--multus-log-level=loud"], "log level \"loud\" is none of panic, error, verbose, debug"),
        (&["--cni-version=9"], "CNI version is \"9\"; it must be one of 0.1.0"),
        (&["--namespace-isolation=maybe"], "--namespace-isolation=maybe must be true or false"),
        (&["--colour"], "there is no flag --colour; --help lists them"),
        (&["word"], "word"),
    ] {
        let output = pod.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output).contains(problem), "{arguments:?}: {}", text(&output));
    }
    let output = pod.command(&[]).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
    assert!(text(&output).contains("KUBERNETES_SERVICE_HOST is not set"), "{}", text(&output));
    assert_eq!(pod.config(), None);
}

#[test]
fn help_and_version_need_nothing() {
    let run = |flag| Command::new(PROGRAM).arg(flag).env_clear().output().unwrap();
    for flag in ["--help", "-h"] {
        assert!(run(flag).status.success());
        assert!(run(flag).stdout.starts_with(b"thin_entrypoint: "));
    }
    assert_eq!(run("--version").stdout, format!("thin_entrypoint {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

/// What the program finds in its container.
struct Pod {
    directory: TempDir,
}

impl Pod {
    fn new() -> Self {
        let pod = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["bin", "net.d", "account"] {
            fs::create_dir(pod.path(name)).unwrap();
        }
        for (name, content) in [
            ("multus", "the program"),
            ("net.d/10-cbr0.conf", MASTER),
            ("account/token", "secret"),
            ("account/ca.crt", "authority"),
        ] {
            fs::write(pod.path(name), content).unwrap();
        }
        fs::set_permissions(pod.path("multus"), fs::Permissions::from_mode(0o755)).unwrap();
        pod
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self) -> Option<Value> {
        let bytes = fs::read(self.path("net.d/00-multus.conf")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// With `arguments` after those that say where everything is.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        for (flag, name) in [
            ("--cni-bin-dir", "bin"),
            ("--cni-conf-dir", "net.d"),
            ("--multus-autoconfig-dir", "net.d"),
            ("--multus-bin-file", "multus"),
            ("--multus-cni-conf-dir", "networks"),
            ("--service-account-dir", "account"),
        ] {
            command.arg(flag).arg(self.path(name));
        }
        command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("KUBERNETES_SERVICE_PORT", "443");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Running {
        Running::of(self.command(arguments))
    }

    /// Returns when the configuration is written.
    fn start(&self, arguments: &[&str]) -> Running {
        let mut running = self.run(arguments);
        running.wait_for("00-multus.conf\" is written");
        running
    }
}

struct Running {
    program: Child,
    log: BufReader<File>,
    read: String,
}

impl Running {
    fn of(mut command: Command) -> Self {
        let mut program = command.spawn().unwrap();
        let log = BufReader::new(File::from(std::os::fd::OwnedFd::from(program.stderr.take().unwrap())));
        Self { program, log, read: String::new() }
    }

    /// Reads the log until a line has `text`.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        loop {
            let begin = self.read.len();
            let length = self.log.read_line(&mut self.read).unwrap();
            assert!(length > 0, "it ended: {}", self.read);
            if self.read[begin..].contains(text) {
                return;
            }
        }
    }

    /// Ends it, as the kubelet does, and returns all that it logged.
    #[track_caller]
    fn end(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(self.program.id().try_into().unwrap()), signal).unwrap();
        let status = self.program.wait().unwrap();
        std::io::Read::read_to_string(&mut self.log, &mut self.read).unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.read);
        std::mem::take(&mut self.read)
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
