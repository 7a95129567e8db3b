//! Pods of a node: the time that a container runtime waits for multus-shim, and what multus-daemon takes, over an API server
//! on the same machine.
//!
//!     pods MULTUS_DAEMON PLUGIN_DIRECTORY [ROUNDS]
//!
//! The cluster network is the Go plugins' bridge with portmap where they are installed, as with flannel, and once more a
//! macvlan of ours; each pod has some macvlan networks besides. A burst starts and ends a hundred pods at once.

#![allow(clippy::print_stdout, reason = "a report is what this is for")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement that fails has no result")]
#![allow(clippy::as_conversions, reason = "shares of a count")]

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{Lab, Netns, enter_private_namespaces, go_plugins};
use testkit_kubernetes::ApiServer;

const NETWORKS: [usize; 3] = [0, 1, 4];
const BURST: usize = 100;

fn main() {
    let mut arguments = env::args().skip(1);
    let daemon = PathBuf::from(arguments.next().expect("the daemon to measure"));
    let plugins = PathBuf::from(arguments.next().expect("the directory of the shim to measure"));
    let rounds = arguments.next().map_or(30, |rounds| rounds.parse().expect("a number of rounds"));
    enter_private_namespaces().unwrap();
    let clusters = match go_plugins() {
        Ok(go) => vec![(Cluster::Bridge(go), "bridge + portmap, executed"), (Cluster::Macvlan, "macvlan, built in")],
        Err(reason) => {
            println!("without the Go plugins: {reason}");
            vec![(Cluster::Macvlan, "macvlan, built in")]
        }
    };
    println!("{rounds} rounds, times in ms");
    for (cluster, name) in clusters {
        println!("\ncluster network: {name}");
        println!("{:<32} {:>8} {:>8} {:>8} {:>8}", "", "ADD p50", "ADD p99", "DEL p50", "DEL p99");
        let lab = Lab::new();
        let mut node = Node::new(&lab, &cluster, &plugins);
        node.start(&daemon);
        let idle = node.memory("VmRSS");
        for networks in NETWORKS {
            let (mut add, mut del) = (Vec::new(), Vec::new());
            let pod = node.pod(&format!("n{networks}"), networks);
            for _ in 0..rounds {
                add.push(node.timed("ADD", &pod));
                del.push(node.timed("DEL", &pod));
                // What the kernel still has to clean up after a DEL is nobody else's burden.
                thread::sleep(Duration::from_millis(20));
            }
            println!(
                "{:<32} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
                format!("a pod with {networks} networks besides"),
                milliseconds(share(&add, 0.5)),
                milliseconds(share(&add, 0.99)),
                milliseconds(share(&del, 0.5)),
                milliseconds(share(&del, 0.99)),
            );
        }
        node.burst(idle);
    }
}

enum Cluster {
    Bridge(PathBuf),
    Macvlan,
}

struct Node<'a> {
    lab: &'a Lab,
    api: ApiServer,
    shim: PathBuf,
    config: String,
    daemon: Option<Child>,
}

impl<'a> Node<'a> {
    fn new(lab: &'a Lab, cluster: &Cluster, plugins: &Path) -> Self {
        let api = lab.host.within(ApiServer::start);
        fs::write(lab.path("kubeconfig"), api.kubeconfig()).unwrap();
        let host_local = |subnet: &str| json!({"type": "host-local", "dataDir": lab.data_dir(), "subnet": subnet});
        let macvlan = |name: &str, subnet: &str| {
            let ipam = host_local(subnet);
            json!({"cniVersion": "1.0.0", "name": name, "type": "macvlan", "master": "ens32", "ipam": ipam})
        };
        for network in 1..=4 {
            let name = format!("macvlan-{network}");
            let config = macvlan(&name, &format!("192.168.{network}.0/24")).to_string();
            api.put(json!({
                "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
                "metadata": {"namespace": "bench", "name": name}, "spec": {"config": config},
            }));
        }
        fs::create_dir(lab.path("bin")).unwrap();
        let delegate = match cluster {
            Cluster::Macvlan => macvlan("cbr0", "10.244.0.0/24"),
            Cluster::Bridge(go) => {
                for plugin in ["bridge", "portmap", "host-local"] {
                    symlink(go.join(plugin), lab.path("bin").join(plugin)).unwrap();
                }
                let bridge = json!({
                    "type": "bridge", "bridge": "cni0", "isGateway": true, "isDefaultGateway": true,
                    "ipam": host_local("10.244.0.0/24"),
                });
                let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
                json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [bridge, portmap]})
            }
        };
        let config = json!({
            "cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus-shim", "delegates": [delegate],
            "daemonSocketDir": lab.path("run"), "cniDir": lab.path("multus"),
        });
        let options = json!({
            "socketDir": lab.path("run"), "cniDir": lab.path("multus"), "binDir": lab.path("bin"),
            "cniConfigDir": lab.path("net.d"), "kubeconfig": lab.path("kubeconfig"), "logLevel": "error",
        });
        fs::write(lab.path("daemon-config.json"), options.to_string()).unwrap();
        Self { lab, api, shim: plugins.join("multus-shim"), config: config.to_string(), daemon: None }
    }

    fn start(&mut self, program: &Path) {
        let mut command = Command::new(program);
        command.arg("-config").arg(self.lab.path("daemon-config.json")).env_clear();
        command.env("MULTUS_NODE_NAME", "node1").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        self.daemon = Some(self.lab.host.within(|| command.spawn().unwrap()));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.is_ready(program) {
            assert!(Instant::now() < deadline, "the daemon does not become ready");
            thread::sleep(Duration::from_millis(20));
        }
        // Its copies of the API's objects are settling.
        thread::sleep(Duration::from_secs(1));
    }

    fn is_ready(&self, program: &Path) -> bool {
        let mut command = Command::new(program);
        command.args(["healthcheck", "-ready", "-config"]).arg(self.lab.path("daemon-config.json"));
        command.stderr(Stdio::null()).status().unwrap().success()
    }

    /// Of the daemon, in KiB.
    fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.as_ref().unwrap().id())).unwrap();
        let line = status.lines().find_map(|found| found.strip_prefix(&format!("{line}:"))).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    fn pod(&self, name: &str, networks: usize) -> Netns {
        let networks: Vec<String> = (1..=networks).map(|number| format!("macvlan-{number}")).collect();
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "node1"},
            "metadata": {
                "namespace": "bench", "name": name, "uid": format!("uid-{name}"),
                "annotations": {"k8s.v1.cni.cncf.io/networks": networks.join(",")},
            },
        }));
        self.lab.container(name)
    }

    fn call(&self, command: &str, pod: &Netns) -> Output {
        let name = name(pod);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let mut process = Command::new(&self.shim);
        process.env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", &name).env("CNI_IFNAME", "eth0");
        process.env("CNI_NETNS", pod.path()).env("CNI_ARGS", args).env("CNI_PATH", "/opt/cni/bin");
        let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(self.config.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command} {name}: {output:?}");
        output
    }

    fn timed(&self, command: &str, pod: &Netns) -> Duration {
        let start = Instant::now();
        self.call(command, pod);
        start.elapsed()
    }

    fn burst(&self, idle: u64) {
        let pods: Vec<Netns> = (0..BURST).map(|number| self.pod(&format!("burst-{number}"), 2)).collect();
        let all = |command: &str| {
            let start = Instant::now();
            let outputs: Vec<Output> = thread::scope(|scope| {
                let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| self.call(command, pod))).collect();
                calls.into_iter().map(|call| call.join().unwrap()).collect()
            });
            (start.elapsed(), outputs)
        };
        let (add, _) = all("ADD");
        let addresses: BTreeSet<String> =
            (1..=2).flat_map(|network| self.lab.reserved(&format!("macvlan-{network}"))).collect();
        assert_eq!(addresses.len(), 2 * BURST, "an address was given twice or not at all");
        let (del, _) = all("DEL");
        println!(
            "{BURST} pods with 2 networks at once: ADD {:.0} ms, DEL {:.0} ms, all of them",
            milliseconds(add),
            milliseconds(del)
        );
        let (now, peak) = (self.memory("VmRSS"), self.memory("VmHWM"));
        println!("multus-daemon: {idle} KiB resident idle, {peak} KiB at the peak, {now} KiB afterwards");
        let own = self.memory("RssAnon");
        println!("of these {own} KiB are its own, the rest is its file");
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ended = daemon.kill();
            let _reaped = daemon.wait();
        }
        // It wakes its listener by a connection, which only arrives from there.
        self.lab.host.within(|| self.api.stop());
    }
}

fn name(pod: &Netns) -> String {
    pod.path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The value that `share` of all values do not exceed.
fn share<T: PartialOrd + Copy>(values: &[T], share: f64) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index within the values")]
    let index = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[index]
}
