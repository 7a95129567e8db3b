//! A node of a Kubernetes cluster for tests: a kubelet's calls to containerd, the shim, the daemon, and the kernel.
//!
//! The cluster is a real one, or else the API server double; both are used over HTTPS alone. Of the kubelet there is
//! what concerns a sandbox: [`Node::run`], [`Node::stop`] and [`Node::remove`] are its calls to the container runtime. The
//! runtime and everything that it starts live in namespaces of the test program, and end with it.
//!
//! [`Containerd`] and [`Podman`] are runtimes by themselves, whose networks are macvlan's.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed, and says so where tests speak"
)]

mod cluster;
mod containerd;
mod cri;
mod daemon;
mod forward;
mod image;
mod kubeconfig;
mod node;
mod podman;
mod sandbox;
mod settings;

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use tokio::runtime;

pub use cluster::{Cluster, Pod};
pub use containerd::Containerd;
pub use node::Node;
pub use podman::{Podman, adopt, end};
pub use sandbox::Sandbox;
pub use settings::{PODMAN_PRIVATE, PRIVATE, needed, podman_needed};

/// Waits for at most a minute until `holds`.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn wait(what: &str, holds: impl Fn() -> bool) {
    assert!(within(Duration::from_secs(60), holds), "waited in vain for {what}");
}

/// Whether `holds` becomes true in time.
fn within(time: Duration, holds: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !holds() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// A runtime with a thread of its own, which ends with the test program.
fn tokio() -> runtime::Handle {
    let tokio = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = tokio.handle().clone();
    thread::spawn(move || tokio.block_on(std::future::pending::<()>()));
    handle
}

/// What it prints; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
