//! The program as its container runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use multus_core::{
    Cluster, PodReference,
    kubernetes::{Access, ApiCluster, Limits, Reporter},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tempfile::TempDir;
use testkit_kubernetes::ApiServer;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kubeconfig_generator");

#[test]
fn the_kubeconfig_works_is_where_it_is_wanted_and_goes_with_the_program() {
    let node = Node::new();
    node.server.sign_certificates(Duration::from_secs(600));
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = node.start(&[]);
        running.wait_for("is written");
        let mode = fs::metadata(node.kubeconfig()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(node.kubeconfig()).unwrap();
        assert!(text.contains("multus-client-current.pem") && !text.contains(ApiServer::TOKEN), "{text}");
        assert_eq!(node.user(), "system:multus:node-1");
        assert!(running.end(signal).success());
        assert!(!node.kubeconfig().exists());
    }
    // The second one found a certificate that is valid.
    assert_eq!(node.server.count("create", "certificatesigningrequests"), 1);
    assert_eq!(node.server.objects("certificatesigningrequests")[0]["spec"]["expirationSeconds"], 7200);
}

#[test]
fn a_certificate_is_renewed_by_itself() {
    let node = Node::new();
    // The signer dates it back by five minutes, so that four fifths are over in three seconds.
    node.server.sign_certificates(Duration::from_secs(79));
    let mut running = node.start(&[]);
    running.wait_for("is written");
    let pem = || fs::read_to_string(node.path("certs/multus-client-current.pem")).unwrap();
    let first = pem();
    running.wait_for("is written");
    assert_ne!(pem(), first);
    assert_eq!(node.user(), "system:multus:node-1");
    let log = node.server.log();
    let creations: Vec<_> =
        log.iter().filter(|asked| asked.verb == "create").map(|asked| asked.user.as_str()).collect();
    assert_eq!(creations[..2], ["", "system:multus:node-1"]);
    assert!(running.end(Signal::SIGTERM).success());
}

#[test]
fn a_clock_that_is_ahead_makes_no_flood_of_requests() {
    let node = Node::new();
    // Over when it is there, as for a node whose clock is ten minutes ahead of the server's.
    node.server.sign_certificates(Duration::ZERO);
    let mut running = node.start(&[]);
    running.wait_for("is written");
    running.wait_for("is this node's clock right?");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(node.server.count("create", "certificatesigningrequests"), 2);
    assert!(running.end(Signal::SIGTERM).success());
}

#[test]
fn a_signal_ends_it_also_while_nobody_approves() {
    let node = Node::new();
    let running = node.start(&[]);
    node.server.wait_for(1, "create", "certificatesigningrequests");
    let begun = Instant::now();
    assert!(running.end(Signal::SIGTERM).success());
    assert!(begun.elapsed() < Duration::from_secs(5) && !node.kubeconfig().exists());
}

#[test]
fn what_is_missing_or_wrong_is_an_error_that_names_it() {
    let node = Node::new();
    let refused = |command: &mut Command| {
        let Output { status, stderr, .. } = command.output().unwrap();
        assert_eq!(status.code(), Some(1));
        String::from_utf8(stderr).unwrap()
    };
    assert!(refused(node.command(&[]).env_remove("MULTUS_NODE_NAME")).contains("MULTUS_NODE_NAME is not set"));
    assert!(refused(node.command(&[]).env("MULTUS_NODE_NAME", "../x")).contains("node \"../x\" is no name"));
    assert!(refused(&mut node.command(&["--kubeconfg=/x"])).contains("there is no flag --kubeconfg"));
    assert!(refused(&mut node.command(&["--cert-duration", "1d"])).contains("such as 10m, 24h or 1h30m, not \"1d\""));
    assert!(refused(&mut node.command(&["--bootstrap-config", "/nowhere/x"])).contains("kubeconfig \"/nowhere/x\""));
    node.server.deny("create", "certificatesigningrequests");
    assert!(refused(&mut node.command(&[])).contains("403 Forbidden"));
}

#[test]
fn help_and_version_need_nothing() {
    for (flag, text) in [("--help", "--cert-duration"), ("-h", "--certdir"), ("--version", "kubeconfig_generator 0.")] {
        let output = Command::new(PROGRAM).arg(flag).env_clear().output().unwrap();
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains(text), "{flag}");
    }
}

/// A node's directory, with a bootstrap kubeconfig for the server.
struct Node {
    directory: TempDir,
    server: ApiServer,
}

impl Node {
    fn new() -> Self {
        let node = Self { directory: TempDir::new().unwrap(), server: ApiServer::start() };
        fs::write(node.path("bootstrap"), node.server.kubeconfig()).unwrap();
        node.server.put(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": "web", "name": "nginx-0" },
        }));
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.path("run/elsewhere.kubeconfig")
    }

    /// Who the server says comes with the kubeconfig.
    fn user(&self) -> String {
        let access = Access::from_kubeconfig(&self.kubeconfig()).unwrap();
        let reporter = Reporter { component: String::new(), node: String::new(), now: std::time::SystemTime::now };
        let cluster = ApiCluster::new(&access, Limits::default(), reporter).unwrap();
        let pod = PodReference { namespace: "web".to_owned(), name: "nginx-0".to_owned(), uid: String::new() };
        assert!(cluster.pod(&pod).unwrap().is_some());
        self.server.log().pop().unwrap().user
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.env_clear().env("MULTUS_NODE_NAME", "node-1");
        command.arg("--certdir").arg(self.path("certs")).arg("--bootstrap-config").arg(self.path("bootstrap"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cert-duration=2h").args(arguments);
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut child = self.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Running { child, log }
    }
}

struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "it ended before {text:?}");
        }
    }

    fn end(mut self, signal: Signal) -> std::process::ExitStatus {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
