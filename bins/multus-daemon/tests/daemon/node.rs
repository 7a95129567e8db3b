//! A node with an API server, a daemon, and pods that are to run there.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{Read, Write},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use multus_cni::{Attachment, Error, Invocation, NetworkConfig, Pending, Plugin, Success};
use multus_shim::{Response, Shim, Spool, post};
use nix::{
    fcntl::OFlag,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testkit::{Lab, Netns};
use testkit_kubernetes::ApiServer;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_multus-daemon");
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the daemon's log, when a test has failed.
const LAST_LINES: usize = 1000;

pub(crate) struct Node<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) api: ApiServer,
    /// What starts the daemon: the words before its own.
    pub(crate) wrapper: Vec<OsString>,
    /// All that the daemon's environment has.
    pub(crate) environment: BTreeMap<&'static str, String>,
    daemon: Option<Child>,
}

impl<'a> Node<'a> {
    /// With a daemon that is ready.
    pub(crate) fn new(lab: &'a Lab) -> Self {
        let mut node = Self::without_daemon(lab, json!({}));
        node.start();
        node
    }

    /// `options` are put into the daemon's configuration.
    pub(crate) fn without_daemon(lab: &'a Lab, options: Value) -> Self {
        let api = lab.host.within(ApiServer::start);
        fs::write(lab.path("kubeconfig"), api.kubeconfig()).unwrap();
        let mut config = json!({
            "socketDir": lab.path("run"), "cniDir": lab.path("multus"), "binDir": lab.path("bin"),
            "kubeconfig": lab.path("kubeconfig"), "logLevel": "verbose", "logToStderr": true,
            "cniConfigDir": lab.path("net.d"),
        });
        fs::create_dir(lab.path("net.d")).unwrap();
        config.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        fs::write(lab.path("daemon-config.json"), config.to_string()).unwrap();
        let environment = [("MULTUS_NODE_NAME", "node1"), ("PATH", "/usr/bin:/bin")];
        let environment = environment.map(|(name, value)| (name, value.to_owned())).into();
        let node = Self { lab, api, wrapper: Vec::new(), environment, daemon: None };
        node.network("macvlan-conf", &macvlan(lab, "macvlan-conf", "192.168.1.0/24"));
        node.network("slow", &json!({"cniVersion": "1.0.0", "name": "slow", "type": "slow"}));
        node.slow_plugin();
        node
    }

    /// A plugin whose ADD goes on when it is told to.
    fn slow_plugin(&self) {
        let (bin, begun, gate) = (self.lab.path("bin"), self.lab.path("begun"), self.lab.path("gate"));
        fs::create_dir_all(&bin).unwrap();
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!(
            "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\ntouch {}\nread word < {}\necho '{{\"cniVersion\":\"1.0.0\"}}'\n",
            begun.display(),
            gate.display(),
        );
        fs::write(bin.join("slow"), script).unwrap();
        fs::set_permissions(bin.join("slow"), fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Returns when the slow plugin is in the middle of an ADD.
    pub(crate) fn wait_until_begun(&self) {
        wait("the slow plugin to begin", || self.lab.path("begun").exists());
        fs::remove_file(self.lab.path("begun")).unwrap();
    }

    /// Lets the slow plugin go on.
    pub(crate) fn release(&self) {
        File::options().write(true).open(self.lab.path("gate")).unwrap().write_all(b"go\n").unwrap();
    }

    pub(crate) fn network(&self, name: &str, config: &Value) {
        self.api.put(json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": "test", "name": name}, "spec": {"config": config.to_string()},
        }));
    }

    /// A pod with a sandbox of the same name.
    pub(crate) fn pod(&self, name: &str, networks: &str) -> Netns {
        self.announce(name, networks);
        self.lab.container(name)
    }

    /// A pod that has no sandbox yet.
    pub(crate) fn announce(&self, name: &str, networks: &str) {
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node1"},
            "metadata": {
                "namespace": "test", "name": name, "uid": format!("uid-{name}"),
                "annotations": {"k8s.v1.cni.cncf.io/networks": networks},
            },
        }));
    }

    /// Starts the daemon, and returns when it is ready.
    pub(crate) fn start(&mut self) {
        self.spawn();
        wait("the daemon to be ready", || self.probe("/readyz") == Some(200));
    }

    pub(crate) fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.lab.path("log")).unwrap();
        let mut words = self.wrapper.iter().map(OsString::as_os_str).chain([PROGRAM.as_ref()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg("-config").arg(self.lab.path("daemon-config.json")).env_clear();
        command.envs(&self.environment).stdout(Stdio::null()).stderr(log);
        let child = self.lab.host.within(|| command.spawn().unwrap());
        assert!(self.daemon.replace(child).is_none(), "a daemon is there");
    }

    pub(crate) fn id(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    /// What the daemon has in memory besides what it maps from files, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.of_status("RssAnon:")
    }

    /// The most that the daemon ever had in memory, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    fn of_status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id().try_into().unwrap()), signal).unwrap();
    }

    /// Returns when the daemon has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.daemon.take().unwrap().wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.lab.path("run").join("multus.sock")
    }

    pub(crate) fn spool(&self) -> Spool {
        Spool::new(self.lab.path("multus").join("spool"))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.lab.path("log")).unwrap_or_default()
    }

    pub(crate) fn post(&self, target: &str, body: &[u8]) -> Option<Response> {
        post(&self.socket(), target, body, Instant::now() + PATIENCE).ok()
    }

    pub(crate) fn probe(&self, target: &str) -> Option<u16> {
        self.post(target, b"null").map(|response| response.status)
    }

    /// As the configuration that the runtime has.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus-shim",
            "daemonSocketDir": self.lab.path("run"), "cniDir": self.lab.path("multus"), "daemonWaitSeconds": 30,
            "delegates": [macvlan(self.lab, "cbr0", "10.1.0.0/24")],
        })
    }

    /// A request as upstream's shim sends it.
    pub(crate) fn request(&self, command: &str, sandbox: &Netns) -> Value {
        let invocation = self.invocation(command, sandbox);
        let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
        let variables = invocation.environment.iter().map(|(name, value)| (text(name), Value::from(text(value))));
        let env: serde_json::Map<String, Value> = variables.collect();
        json!({"env": env, "config": BASE64_STANDARD.encode(self.config().to_string())})
    }

    /// Asks for one network, `plugged`, as a controller for dynamic networks does.
    pub(crate) fn delegate(&self, command: &str, sandbox: &Netns, ifname: &str, wishes: &Value) -> (u16, String) {
        let mut network = macvlan(self.lab, "plugged", "192.168.7.0/24");
        network["capabilities"] = json!({"ips": true, "mac": true});
        self.delegate_to(&network, command, sandbox, ifname, wishes)
    }

    /// The same for another network.
    pub(crate) fn delegate_to(
        &self,
        network: &Value,
        command: &str,
        sandbox: &Netns,
        ifname: &str,
        wishes: &Value,
    ) -> (u16, String) {
        let mut request = self.request(command, sandbox);
        request["env"]["CNI_IFNAME"] = json!(ifname);
        request["config"] = json!(BASE64_STANDARD.encode(network.to_string()));
        request["interfaceAttributes"] = wishes.clone();
        let response = self.post("/delegate", request.to_string().as_bytes()).unwrap();
        (response.status, String::from_utf8(response.body).unwrap())
    }

    fn invocation(&self, command: &str, sandbox: &Netns) -> Invocation {
        let name = name(sandbox);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let netns = sandbox.path().to_str().unwrap();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &name),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", &args),
            ("CNI_PATH", "/nowhere"),
        ];
        let mut invocation = Invocation::new(NetworkConfig::parse(self.config().to_string()).unwrap());
        invocation.environment = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        invocation
    }

    pub(crate) fn add(&self, sandbox: &Netns) -> Result<Success, Error> {
        let shim = Shim::new(SystemTime::now);
        shim.add(&attachment(sandbox), &self.invocation("ADD", sandbox)).map(Pending::keep)
    }

    pub(crate) fn del(&self, sandbox: &Netns) -> Result<(), Error> {
        Shim::new(SystemTime::now).del(&attachment(sandbox), &self.invocation("DEL", sandbox))
    }

    pub(crate) fn check(&self, sandbox: &Netns) -> Result<(), Error> {
        Shim::new(SystemTime::now).check(&attachment(sandbox), &self.invocation("CHECK", sandbox))
    }

    pub(crate) fn status(&self, sandbox: &Netns) -> Result<(), Error> {
        Shim::new(SystemTime::now).status(&self.invocation("STATUS", sandbox))
    }

    /// What the API says of the pod's networks.
    pub(crate) fn network_status(&self, pod: &str) -> Value {
        let pod = self.api.object("pods", "test", pod).unwrap();
        let status = pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str().unwrap_or("[]");
        serde_json::from_str(status).unwrap()
    }

    /// The addresses that are reserved in both networks.
    pub(crate) fn reserved(&self) -> Vec<String> {
        ["cbr0", "macvlan-conf"].iter().flat_map(|network| self.lab.reserved(network)).collect()
    }

    /// Nothing is left of any attachment: no link, no address, no file.
    #[track_caller]
    pub(crate) fn is_empty(&self, sandboxes: &[&Netns]) {
        for sandbox in sandboxes {
            assert_eq!(sandbox.links(), ["lo"], "{}", self.log());
            assert!(!self.lab.path("multus").join(name(sandbox)).exists());
        }
        assert_eq!(self.reserved(), [""; 0], "{}", self.log());
        let results = fs::read_dir(self.lab.path("multus").join("results")).into_iter().flatten();
        assert_eq!(results.count(), 0);
    }

    /// Sends bytes to the daemon, and reads to the end; what broke off is as it came.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let _refused = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
        // A slow plugin whose daemon was killed still waits for its gate.
        let _nobody_waits =
            File::options().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(self.lab.path("gate"));
        // It wakes its listener by a connection, which only arrives from there.
        self.lab.host.within(|| self.api.stop());
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
}

/// Waits until `holds`.
#[track_caller]
pub(crate) fn wait(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn head(target: &str, length: usize) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: dummy\r\nContent-Length: {length}\r\n\r\n")
}

fn macvlan(lab: &Lab, name: &str, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.1.0", "name": name, "type": "macvlan", "master": "ens32", "mode": "bridge",
        "ipam": {"type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]},
    })
}

fn name(sandbox: &Netns) -> String {
    Path::new(sandbox.path()).file_name().unwrap().to_str().unwrap().to_owned()
}

fn attachment(sandbox: &Netns) -> Attachment {
    Attachment {
        container_id: name(sandbox).parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: Some(sandbox.path().to_owned()),
    }
}
