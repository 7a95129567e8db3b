//! Plugins that are executed where the host's root is not this process's own.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::ExitCode,
};

use multus_cni::{ExecutedPlugin, Invocation, NetworkConfig, Plugin};
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";

fn main() -> ExitCode {
    let needed = match Path::new(BUSYBOX).exists() {
        true => Ok(()),
        false => Err(format!("{BUSYBOX} is missing; Debian's package busybox-static has it")),
    };
    testkit::run_without_lab(
        &[
            ("a_plugin_runs_in_the_hosts_root", a_plugin_runs_in_the_hosts_root),
            ("links_of_the_host_are_followed_there", links_of_the_host_are_followed_there),
            ("a_root_that_is_not_there_is_named", a_root_that_is_not_there_is_named),
        ],
        needed,
    )
}

fn a_plugin_runs_in_the_hosts_root() {
    let host = host();
    write(&host, "opt/cni/bin/noop", "[ \"$CNI_PATH\" = /opt/cni/bin ] && pwd > /cwd && echo $0 > /seen");
    let invocation = invocation(host.path());
    ExecutedPlugin::find("noop", &invocation).unwrap().status(&invocation).unwrap();
    let noted = |name: &str| fs::read_to_string(host.path().join(name)).unwrap();
    assert_eq!((noted("seen").as_str(), noted("cwd").as_str()), ("/opt/cni/bin/noop\n", "/\n"));
    assert!(!Path::new("/seen").exists(), "this process's own root is left alone");
}

fn links_of_the_host_are_followed_there() {
    let host = host();
    write(&host, "usr/lib/cni/noop", "echo $0 > /seen");
    symlink("/usr/lib/cni/noop", host.path().join("opt/cni/bin/noop")).unwrap();
    let invocation = invocation(host.path());
    ExecutedPlugin::find("noop", &invocation).unwrap().status(&invocation).unwrap();
    assert!(host.path().join("seen").exists());
}

fn a_root_that_is_not_there_is_named() {
    let error = ExecutedPlugin::new("/opt/cni/bin/noop").status(&invocation(Path::new("/nowhere"))).unwrap_err();
    let message = "netplugin failed with no error message: fork/exec /opt/cni/bin/noop in the root /nowhere: no such \
                   file or directory";
    assert_eq!(error.to_string(), message);
}

/// A host's root, with a shell and nothing else.
fn host() -> TempDir {
    let host = tempfile::tempdir().unwrap();
    for directory in ["bin", "opt/cni/bin", "usr/lib/cni"] {
        fs::create_dir_all(host.path().join(directory)).unwrap();
    }
    fs::copy(BUSYBOX, host.path().join("bin/sh")).unwrap();
    host
}

fn write(host: &TempDir, file: &str, body: &str) {
    let file = host.path().join(file);
    fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
}

fn invocation(root: &Path) -> Invocation {
    let config = br#"{"cniVersion":"1.1.0","name":"host"}"#;
    let mut invocation = Invocation::new(NetworkConfig::parse(config).unwrap());
    invocation.path = vec!["/opt/cni/bin".into()];
    invocation.root = root.to_owned();
    invocation
}
