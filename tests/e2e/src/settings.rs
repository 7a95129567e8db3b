//! What the tests are told, and what they need.

use std::{env, path::Path, sync::OnceLock};

use testkit::are_current;

use crate::kubeconfig::Access;

/// Directories that the programs on a node share with everybody on the machine, wherever their own are.
pub const PRIVATE: [&str; 2] = ["/run", "/var/lib/cni"];

/// The same for podman, which keeps what it knows of images in a directory of its own.
pub const PODMAN_PRIVATE: [&str; 3] = ["/run", "/var/lib/cni", "/var/lib/containers"];

pub(crate) const GO_PLUGINS: &str = "/usr/lib/cni";
pub(crate) const BUSYBOX: &str = "/bin/busybox";

static SETTINGS: OnceLock<Settings> = OnceLock::new();

pub(crate) struct Settings {
    /// Of `E2E_KUBECONFIG`.
    pub(crate) access: Option<Access>,
    /// `E2E_NAMESPACE`: what the names of namespaces begin with.
    pub(crate) namespace: String,
    /// `E2E_NODE`
    pub(crate) node: Option<String>,
}

/// Reads `E2E_KUBECONFIG`, `E2E_NAMESPACE` and `E2E_NODE`, and looks whether all programs are there.
///
/// # Errors
/// What is missing, and how to get it.
pub fn needed() -> Result<(), String> {
    are_installed(&[
        ("/usr/bin/containerd", "containerd"),
        ("/usr/bin/ctr", "containerd"),
        ("/usr/sbin/runc", "runc"),
        ("/usr/sbin/iptables", "iptables"),
        (BUSYBOX, "busybox-static"),
        ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ])?;
    are_current(&["multus-daemon", "multus-shim", "passthru", "macvlan", "host-local"])?;
    let value = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let access = value("E2E_KUBECONFIG").map(|path| Access::read(Path::new(&path))).transpose()?;
    let namespace = value("E2E_NAMESPACE").unwrap_or_else(|| "multus-e2e".to_owned());
    SETTINGS.get_or_init(|| Settings { access, namespace, node: value("E2E_NODE") });
    Ok(())
}

/// Looks whether what podman's cases need is there.
///
/// # Errors
/// What is missing, and how to get it.
pub fn podman_needed() -> Result<(), String> {
    are_installed(&[("/usr/bin/podman", "podman"), ("/usr/sbin/runc", "runc"), (BUSYBOX, "busybox-static")])?;
    are_current(&["macvlan", "host-local"])
}

pub(crate) fn settings() -> &'static Settings {
    SETTINGS.get().unwrap()
}

/// Each is a program and its package.
fn are_installed(programs: &[(&str, &str)]) -> Result<(), String> {
    let missing = programs.iter().find(|(program, _)| !Path::new(program).is_file());
    missing.map_or(Ok(()), |(program, package)| {
        Err(format!("no {program}: install the package {package} to test with a container runtime"))
    })
}
