//! containerd, with everything of its own.

use std::{
    env::consts::ARCH,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use serde_json::json;
use testkit::Lab;
use tokio::runtime::Handle;

use crate::{
    cri::{ImageSpec, ImageStatusRequest, ImageStatusResponse, Runtime, StatusRequest, StatusResponse},
    settings::BUSYBOX,
    wait,
};

const PAUSE: &str = "localhost/pause:1";

/// A containerd in the network of the lab's host.
pub(crate) struct Containerd {
    pub(crate) runtime: Runtime,
    process: Child,
}

impl Containerd {
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
sandbox_image = "{PAUSE}"
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
        let image = pause_image(lab);
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

    fn has_image(&self) -> bool {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: PAUSE.to_owned() }) };
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

/// An archive, as `docker save` makes it, with a program that sleeps.
fn pause_image(lab: &Lab) -> PathBuf {
    let (image, root) = (lab.path("image"), lab.path("image-root"));
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir(&image).unwrap();
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    run(busybox("tar").arg("-cf").arg(image.join("layer.tar")).arg("-C").arg(&root).arg("."));
    let sum = run(busybox("sha256sum").arg(image.join("layer.tar")));
    let architecture = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": {"Entrypoint": [BUSYBOX, "sleep", "2147483647"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sum.split(' ').next().unwrap())]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]);
    fs::write(image.join("config.json"), config.to_string()).unwrap();
    fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = lab.path("image.tar");
    run(busybox("tar").arg("-cf").arg(&archive).arg("-C").arg(&image).args([
        "manifest.json",
        "config.json",
        "layer.tar",
    ]));
    archive
}

fn busybox(applet: &str) -> Command {
    let mut command = Command::new(BUSYBOX);
    command.arg(applet);
    command
}

/// What it prints; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
