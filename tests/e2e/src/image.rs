//! The image of sandboxes and containers. There is nothing to pull: it is made of busybox.

use std::{env::consts::ARCH, fs, path::PathBuf, process::Command};

use serde_json::json;
use testkit::Lab;

use crate::{run, settings::BUSYBOX};

pub(crate) const IMAGE: &str = "localhost/pause:1";

/// An archive, as `docker save` makes it, with a program that sleeps.
pub(crate) fn archive(lab: &Lab) -> PathBuf {
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
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
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
