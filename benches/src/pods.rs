//! Pods of a node: the time that a container runtime waits for multus-shim, and what multus-daemon takes, over an API server
//! on the same machine.
//!
//! The cluster network is the Go plugins' bridge with portmap where they are installed, as with flannel, and once more a
//! macvlan of ours; each pod has some macvlan networks besides. A burst starts and ends a hundred pods at once.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use testkit::{Lab, Netns, go_plugins};
use testkit_kubernetes::ApiServer;

use crate::{
    report::Report,
    statistics::{median_ratio, milliseconds, share},
};

const ROUNDS: usize = 30;
/// Besides the cluster network.
const NETWORKS: [usize; 4] = [0, 1, 3, 4];
/// The places there of one attachment and of four.
const ONE: usize = 0;
const FOUR: usize = 2;
const BURST: usize = 100;
/// `connectionLimit`.
const LIMITS: [u8; 6] = [1, 2, 4, 8, 16, 32];
/// The daemon's own.
const LIMIT: u8 = 16;

/// Adds the tables.
pub(crate) fn measure(daemon: &Path, plugins: &Path, report: &mut Report) {
    report.heading("Pods");
    report.paragraph(&format!(
        "What a runtime waits for `multus-shim`, with `multus-daemon` behind it and an API server on the same machine, \
         {ROUNDS} rounds. Each pod has macvlan networks besides the cluster network."
    ));
    let clusters = match go_plugins() {
        Ok(go) => {
            vec![(Cluster::Bridge(go), "bridge + portmap (Go), executed"), (Cluster::Macvlan, "macvlan, built in")]
        }
        Err(reason) => {
            report.paragraph(&format!("Not measured: {reason}."));
            vec![(Cluster::Macvlan, "macvlan, built in")]
        }
    };
    let (mut rows, mut ratios, mut bursts, mut memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (cluster, name) in clusters {
        let lab = Lab::new();
        let mut node = Node::new(&lab, &cluster, plugins, LIMIT);
        node.start(daemon);
        let idle = node.memory("VmRSS");
        let pods = NETWORKS.map(|networks| node.pod(&format!("n{networks}"), networks));
        let mut add: [Vec<f64>; NETWORKS.len()] = Default::default();
        let mut del = add.clone();
        for _ in 0..ROUNDS {
            for ((pod, add), del) in pods.iter().zip(&mut add).zip(&mut del) {
                add.push(node.timed("ADD", pod));
                del.push(node.timed("DEL", pod));
                // What the kernel still has to clean up after a DEL is nobody else's burden.
                thread::sleep(Duration::from_millis(20));
            }
        }
        for ((networks, add), del) in NETWORKS.iter().zip(&add).zip(&del) {
            let cells = [(add, 0.5), (add, 0.99), (del, 0.5), (del, 0.99)].map(|(times, of)| share(times, of));
            let cells = cells.map(|time| format!("{time:.1}"));
            rows.push([vec![format!("{name}; {networks} besides")], cells.into()].concat());
        }
        // Three besides the cluster network are four attachments; none is one.
        if let Cluster::Macvlan = cluster {
            ratios = vec![
                vec!["ADD".to_owned(), format!("{:.2}", median_ratio(&add[FOUR], &add[ONE]))],
                vec!["DEL".to_owned(), format!("{:.2}", median_ratio(&del[FOUR], &del[ONE]))],
            ];
        }
        for (command, all, times) in node.burst() {
            let (p50, p99) = (share(&times, 0.5), share(&times, 0.99));
            let cells = [all, p50, p99].map(|time| format!("{time:.0}"));
            bursts.push([vec![format!("{command}, {name}")], cells.into(), vec![format!("{:.2}", p99 / p50)]].concat());
        }
        let kib = [idle, node.memory("VmHWM"), node.memory("VmRSS"), node.memory("RssAnon")];
        memory.push([vec![name.to_owned()], kib.map(|kib| kib.to_string()).into()].concat());
    }
    report.table(&["cluster network", "ADD p50 ms", "ADD p99 ms", "DEL p50 ms", "DEL p99 ms"], &rows);
    report
        .paragraph("Several attachments of one pod, all macvlan and built in: four against one, the ratio in a round.");
    report.table(&["", "four / one"], &ratios);
    report.paragraph(&format!("{BURST} pods with 2 networks besides, all at once through one daemon:"));
    report.table(&["", "all of them ms", "p50 ms", "p99 ms", "p99 / p50"], &bursts);
    report.paragraph(
        "The kernel changes links one at a time (RTNL). The same burst, all macvlan and built in, with so many operations under \
         way at once (`connectionLimit`):",
    );
    report
        .table(&["at once", "ADD, all ms", "ADD p99 / p50", "DEL, all ms", "DEL p99 / p50"], &limits(daemon, plugins));
    report.paragraph("Memory of `multus-daemon` in KiB; its own is what is not its file:");
    report.table(&["", "idle", "peak in the burst", "afterwards", "of these its own"], &memory);
}

/// A row for each limit: the best of three bursts.
fn limits(daemon: &Path, plugins: &Path) -> Vec<Vec<String>> {
    let row = |limit: u8| {
        let lab = Lab::new();
        let mut node = Node::new(&lab, &Cluster::Macvlan, plugins, limit);
        node.start(daemon);
        let bursts: Vec<_> = (0..3).map(|_| node.burst()).collect();
        let cells = [0, 1].map(|command| {
            let best =
                bursts.iter().map(|burst| &burst[command]).min_by(|one, other| one.1.total_cmp(&other.1)).unwrap();
            let (_, all, times) = best;
            vec![format!("{all:.0}"), format!("{:.2}", share(times, 0.99) / share(times, 0.5))]
        });
        [vec![limit.to_string()], cells.concat()].concat()
    };
    LIMITS.map(row).into()
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
    fn new(lab: &'a Lab, cluster: &Cluster, plugins: &Path, limit: u8) -> Self {
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
            "connectionLimit": limit,
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

    /// In milliseconds.
    fn timed(&self, command: &str, pod: &Netns) -> f64 {
        let start = Instant::now();
        self.call(command, pod);
        milliseconds(start.elapsed())
    }

    /// The command, how long all of them took together, and each.
    fn burst(&self) -> [(&'static str, f64, Vec<f64>); 2] {
        let pods: Vec<Netns> = (0..BURST).map(|number| self.pod(&format!("burst-{number}"), 2)).collect();
        let all = |command: &'static str| {
            let start = Instant::now();
            let times: Vec<f64> = thread::scope(|scope| {
                let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| self.timed(command, pod))).collect();
                calls.into_iter().map(|call| call.join().unwrap()).collect()
            });
            (command, milliseconds(start.elapsed()), times)
        };
        let add = all("ADD");
        let addresses: BTreeSet<String> =
            (1..=2).flat_map(|network| self.lab.reserved(&format!("macvlan-{network}"))).collect();
        assert_eq!(addresses.len(), 2 * BURST, "an address was given twice or not at all");
        [add, all("DEL")]
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
