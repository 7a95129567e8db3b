//! containerd, with everything of its own.

use std::{
    fmt::{self, Debug, Formatter},
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use testkit::{Lab, cgroup, program};
use tokio::runtime::Handle;

use crate::{
    cri::{
        ImageSpec, ImageStatusRequest, ImageStatusResponse, LinuxPodSandboxConfig, ListPodSandboxRequest,
        ListPodSandboxResponse, PodSandboxConfig, PodSandboxId, PodSandboxMetadata, PodSandboxStatusRequest,
        PodSandboxStatusResponse, PortMapping, RunPodSandboxRequest, Runtime, StatusRequest, StatusResponse,
    },
    image::{IMAGE, archive},
    run,
    sandbox::Sandbox,
    settings::GO_PLUGINS,
    tokio, wait,
};

/// A containerd in the network of the lab's host.
pub struct Containerd {
    runtime: Runtime,
    process: Child,
}

impl Containerd {
    /// With `network` as that of all sandboxes, and with the plugins of the workspace.
    #[must_use]
    pub fn with_network(lab: &Lab, network: &Value) -> Self {
        let (bin, net) = (lab.path("bin"), lab.path("net.d"));
        fs::create_dir(&bin).unwrap();
        // It is used for every sandbox.
        symlink(Path::new(GO_PLUGINS).join("loopback"), bin.join("loopback")).unwrap();
        for plugin in ["macvlan", "host-local"] {
            symlink(program(plugin), bin.join(plugin)).unwrap();
        }
        fs::create_dir(&net).unwrap();
        fs::write(net.join("10-network.conflist"), network.to_string()).unwrap();
        let this = Self::start(lab, tokio());
        this.wait_for_network(network["name"].as_str().unwrap());
        this
    }

    /// With the configurations in `net.d` and the plugins in `bin` of the lab. It has the image of the sandboxes.
    pub(crate) fn start(lab: &Lab, tokio: Handle) -> Self {
        let [root, state, net, bin, socket] =
            ["containerd-root", "containerd-state", "net.d", "bin", "containerd.sock"].map(|name| lab.path(name));
        let config = format!(
            r#"version = 2
root = {root:?}
state = {state:?}
disabled_plugins = [
    "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = {socket:?}
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
disable_apparmor = true
disable_tcp_service = true
# Without CAP_SYS_RESOURCE the score of a sandbox cannot be lowered.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
conf_dir = {net:?}
bin_dir = {bin:?}
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#
        );
        fs::write(lab.path("containerd.toml"), config).unwrap();
        let log = File::create(lab.path("containerd.log")).unwrap();
        let mut command = Command::new("containerd");
        command
            .args(["--log-level", "warn", "--config"])
            .arg(lab.path("containerd.toml"))
            .stdout(Stdio::null())
            .stderr(log);
        let process = lab.host.within(|| command.spawn().unwrap());
        let this = Self { runtime: Runtime::new(tokio, &socket), process };
        wait("containerd to listen", || socket.exists());
        let image = archive(lab);
        run(Command::new("ctr")
            .arg("--address")
            .arg(&socket)
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "native"])
            .arg(image));
        wait("containerd to have the image of sandboxes", || this.has_image());
        this
    }

    /// Waits until it has read the configuration of that network as the one to use.
    pub(crate) fn wait_for_network(&self, name: &str) {
        let needle = format!("\"Name\":\"{name}\"");
        wait("containerd to read the configuration of the network", || {
            let status = self.runtime.call("RuntimeService/Status", StatusRequest { verbose: true });
            status.is_ok_and(|status: StatusResponse| {
                status.info.get("cniconfig").is_some_and(|text| text.contains(&needle))
            })
        });
    }

    /// Starts the sandbox `name`, with the network that is configured.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn run_named(&self, name: &str) -> Result<Sandbox, String> {
        let [name, uid, namespace] = [name, name, "test"].map(str::to_owned);
        self.run(PodSandboxMetadata { name, uid, namespace, attempt: 0 }, None)
    }

    pub(crate) fn run(&self, metadata: PodSandboxMetadata, port: Option<(i32, i32)>) -> Result<Sandbox, String> {
        let config = PodSandboxConfig {
            hostname: metadata.name.clone(),
            metadata: Some(metadata),
            port_mappings: port
                .map(|(host_port, container_port)| PortMapping { container_port, host_port })
                .into_iter()
                .collect(),
            linux: Some(LinuxPodSandboxConfig { cgroup_parent: cgroup() }),
        };
        let request = RunPodSandboxRequest { config: Some(config) };
        let PodSandboxId { pod_sandbox_id: id } = self.runtime.call("RuntimeService/RunPodSandbox", request)?;
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
        let status: PodSandboxStatusResponse = self.runtime.call("RuntimeService/PodSandboxStatus", request)?;
        let info: Value = serde_json::from_str(&status.info["info"]).unwrap();
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network").unwrap();
        let netns = network["path"].as_str().unwrap().into();
        Ok(Sandbox { id, netns, ip: status.status.unwrap().network.unwrap().ip })
    }

    /// Stops a sandbox.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn stop(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.end("StopPodSandbox", &sandbox.id)
    }

    /// Removes a sandbox that is stopped.
    ///
    /// # Errors
    /// The runtime's message.
    pub fn remove(&self, sandbox: &Sandbox) -> Result<(), String> {
        self.end("RemovePodSandbox", &sandbox.id)
    }

    /// Stops and removes all sandboxes of the pod with that UID.
    ///
    /// # Errors
    /// The runtime's message.
    pub(crate) fn clean_up(&self, uid: &str) -> Result<(), String> {
        let all: ListPodSandboxResponse =
            self.runtime.call("RuntimeService/ListPodSandbox", ListPodSandboxRequest {})?;
        let is_its = |metadata: &PodSandboxMetadata| metadata.uid == uid;
        for sandbox in all.items.iter().filter(|sandbox| sandbox.metadata.as_ref().is_some_and(is_its)) {
            self.end("StopPodSandbox", &sandbox.id)?;
            self.end("RemovePodSandbox", &sandbox.id)?;
        }
        Ok(())
    }

    /// The files that its CNI client keeps of the attachments to a network of that name.
    #[must_use]
    pub fn results(&self, network: &str) -> Vec<String> {
        let files = fs::read_dir("/var/lib/cni/results").into_iter().flatten();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&format!("{network}-"))).collect()
    }

    fn end(&self, call: &str, id: &str) -> Result<(), String> {
        let id = PodSandboxId { pod_sandbox_id: id.to_owned() };
        self.runtime.call(&format!("RuntimeService/{call}"), id).map(|_: Nothing| ())
    }

    fn has_image(&self) -> bool {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: IMAGE.to_owned() }) };
        let status = self.runtime.call("ImageService/ImageStatus", request);
        status.is_ok_and(|status: ImageStatusResponse| status.image.is_some_and(|image| !image.id.is_empty()))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Debug for Containerd {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Containerd").field("runtime", &self.runtime).finish_non_exhaustive()
    }
}

/// An answer without content.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}
