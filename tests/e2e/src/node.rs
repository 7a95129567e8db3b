//! A node, and what its kubelet does with sandboxes.

use std::{
    fmt::{self, Debug, Formatter},
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use testkit::{Lab, program};

use crate::{
    cluster::{Cluster, Pod},
    containerd::Containerd,
    cri::PodSandboxMetadata,
    daemon::Daemon,
    sandbox::Sandbox,
    settings::{GO_PLUGINS, settings},
    tokio, within,
};

/// A daemon tries what is in its spool at its start, and again half a minute or a minute later.
const CLEAN_UP: Duration = Duration::from_secs(90);

/// A node of a cluster, on the lab's host.
pub struct Node<'a> {
    lab: &'a Lab,
    /// The cluster.
    pub cluster: Cluster,
    containerd: Containerd,
    daemon: Mutex<Daemon>,
}

impl<'a> Node<'a> {
    /// A node where everything runs. A daemon that is away is waited for so long.
    #[must_use]
    pub fn new(lab: &'a Lab, patience: Duration) -> Self {
        let tokio = tokio();
        let cluster = Cluster::new(lab, tokio.clone(), settings());
        write_programs(lab);
        write_cluster_network(lab);
        let daemon = Mutex::new(Daemon::configure(lab, cluster.access(), patience));
        let containerd = Containerd::start(lab, tokio);
        let node = Self { lab, cluster, containerd, daemon };
        node.start_daemon();
        node.containerd.wait_for_network("multus-cni-network");
        node
    }

    /// Starts the daemon again.
    pub fn start_daemon(&self) {
        self.daemon.lock().unwrap().start(self.lab, &self.cluster.node);
    }

    /// Kills the daemon with SIGKILL, whatever it is doing.
    pub fn kill_daemon(&self) {
        self.daemon.lock().unwrap().kill();
    }

    /// Starts the sandbox of a pod.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn run(&self, pod: &Pod) -> Result<Sandbox, String> {
        self.run_with_port(pod, None)
    }

    /// Starts the sandbox of a pod, with a port of the host for one of its own.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn run_with_port(&self, pod: &Pod, port: Option<(i32, i32)>) -> Result<Sandbox, String> {
        let metadata = PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: self.cluster.namespace.clone(),
            attempt: 0,
        };
        self.containerd.run(metadata, port)
    }

    /// Stops a sandbox.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn stop(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.containerd.stop(sandbox)
    }

    /// Removes a sandbox that is stopped.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn remove(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.containerd.remove(sandbox)
    }

    /// Stops and removes what the runtime has of the pod, as after a start that failed.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn clean_up(&self, pod: &Pod) -> Result<(), String> {
        self.containerd.clean_up(&pod.uid)
    }

    /// A macvlan network on the host's parent link, with addresses of the node's own store.
    #[must_use]
    pub fn macvlan(&self, name: &str, ipam: &Value) -> Value {
        let mut config = json!({
            "cniVersion": "0.3.1", "name": name, "type": "macvlan", "master": "ens32", "mode": "bridge",
            "ipam": {"type": "host-local", "dataDir": self.lab.data_dir()},
        });
        config["ipam"].as_object_mut().unwrap().extend(ipam.as_object().unwrap().clone());
        config
    }

    /// Adds a plugin `slow`, whose ADD never ends. The returned file is there once it has begun.
    #[must_use]
    pub fn slow_plugin(&self) -> PathBuf {
        let begun = self.lab.path("begun");
        let script =
            format!("#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\ntouch {}\nexec sleep 1000\n", begun.display());
        let path = self.lab.path("bin").join("slow");
        fs::write(&path, script).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        begun
    }

    /// What `iptables` prints in the host's network.
    #[must_use]
    pub fn iptables(&self, arguments: &str) -> String {
        let output = self.lab.host.output(Command::new("iptables").args(arguments.split(' ')));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is left of any sandbox: links on the host, reserved addresses, files. Empty when nothing is.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let own = ["cbr0", "ens32", "lo", "wire"];
        let links = self.lab.host.links().into_iter().filter(|link| !own.contains(&link.as_str()));
        let multus = self.lab.path("multus");
        let results = files(&multus.join("results"));
        let is_scratch =
            |path: &PathBuf| path.is_file() && !path.file_name().unwrap().to_str().unwrap().starts_with('.');
        let scratch = files(&multus).into_iter().filter(is_scratch);
        let spool = files(&multus.join("spool")).into_iter().filter(|path| path.extension().is_some());
        let paths = results.into_iter().chain(scratch).chain(spool).map(|path| path.display().to_string());
        links.chain(self.reserved()).chain(paths).collect()
    }

    /// The reserved addresses of all networks, sorted.
    #[must_use]
    pub fn reserved(&self) -> Vec<String> {
        let networks = files(&self.lab.data_dir()).into_iter().flat_map(|network| files(&network));
        let names = networks.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        let mut addresses: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        addresses.sort();
        addresses
    }

    /// Waits until nothing is left of any sandbox.
    #[track_caller]
    pub fn wait_until_clean(&self) {
        let _in_time = within(CLEAN_UP, || self.left_over().is_empty());
        assert_eq!(self.left_over(), [""; 0]);
    }

    /// Waits until these addresses are reserved and no others; they are sorted.
    #[track_caller]
    pub fn wait_until_reserved(&self, addresses: &[String]) {
        let _in_time = within(CLEAN_UP, || self.reserved() == addresses);
        assert_eq!(self.reserved(), addresses);
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            for log in ["daemon.log", "containerd.log"] {
                eprintln!("== {log}\n{}", fs::read_to_string(self.lab.path(log)).unwrap_or_default());
            }
        }
    }
}

impl Debug for Node<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Node").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// The plugins of the distribution, and those that the daemon's image brings.
fn write_programs(lab: &Lab) {
    let bin = lab.path("bin");
    fs::create_dir(&bin).unwrap();
    for plugin in ["bridge", "host-local", "loopback", "portmap"] {
        symlink(Path::new(GO_PLUGINS).join(plugin), bin.join(plugin)).unwrap();
    }
    let mut install = Command::new(program("multus-daemon"));
    install.arg("install").arg("-dest-dir").arg(&bin).arg("-source-dir").arg(program("."));
    let output = install.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As flannel has it made: a bridge with the node's part of the cluster's addresses.
fn write_cluster_network(lab: &Lab) {
    let bridge = json!({
        "type": "bridge", "bridge": "cbr0", "hairpinMode": true, "isDefaultGateway": true, "mtu": 1450,
        "ipam": {
            "type": "host-local", "dataDir": lab.data_dir(), "ranges": [[{"subnet": "10.244.1.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    });
    let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    let config = json!({"cniVersion": "0.3.1", "name": "cbr0", "plugins": [bridge, portmap]});
    fs::create_dir(lab.path("net.d")).unwrap();
    fs::write(lab.path("net.d/10-flannel.conflist"), config.to_string()).unwrap();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}
