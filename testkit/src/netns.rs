//! Network namespaces of a test's own.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::{getgid, getuid},
};
use serde_json::Value;

/// Moves the program, which must not have threads yet, to where it may make namespaces and mounts that nobody else sees,
/// and where there is no network but what it makes.
///
/// # Errors
/// Why that cannot be had.
pub fn enter_private_namespaces() -> Result<(), String> {
    let (uid, gid) = (getuid(), getgid());
    if !uid.is_root() {
        unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| format!("no user namespace: {error}"))?;
        let map = |file, text: String| fs::write(file, text).map_err(|error| format!("{file}: {error}"));
        map("/proc/self/setgroups", "deny".to_owned())?;
        map("/proc/self/uid_map", format!("0 {uid} 1"))?;
        map("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).map_err(|error| format!("no namespaces: {error}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|error| format!("no private mounts: {error}"))
}

/// A network namespace with a path, as a container runtime makes it.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
    is_own: bool,
}

impl Netns {
    /// Makes a namespace and binds it to the new file `path`; its loopback stays down, as runtimes leave it.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        File::create(&path).unwrap();
        let target = path.clone();
        let bound = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(Some("/proc/thread-self/ns/net"), &target, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        });
        bound.join().unwrap().unwrap();
        let file = File::open(&path).unwrap();
        Self { path, file, is_own: true }
    }

    /// The namespace that somebody else has bound to `path`.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let file = File::open(&path).unwrap();
        Self { path, file, is_own: false }
    }

    /// The path of the namespace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unbinds the namespace from its path and removes that, as a runtime does in the end.
    pub fn remove_path(&self) {
        self.unbind();
        fs::remove_file(&self.path).unwrap();
    }

    /// Unbinds the namespace from its path; the file stays.
    pub fn unbind(&self) {
        nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }

    /// Does `work` on a thread inside the namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside the namespace.
    #[must_use]
    pub fn output(&self, command: &mut Command) -> Output {
        self.within(|| command.output().unwrap())
    }

    /// Runs `ip` inside the namespace, with `arguments` separated by spaces.
    pub fn ip(&self, arguments: &str) -> String {
        let output = self.output(Command::new("ip").args(arguments.split(' ')));
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What `ip -j -d` says inside the namespace.
    #[must_use]
    pub fn ip_json(&self, arguments: &str) -> Value {
        let text = self.ip(&format!("-j -d {arguments}"));
        if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
    }

    /// The link `name`, if there is one.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<Value> {
        let links = self.ip_json("link show");
        links.as_array().unwrap().iter().find(|link| link["ifname"] == name).cloned()
    }

    /// The names of all links, sorted.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let links = self.ip_json("link show");
        let mut names: Vec<String> =
            links.as_array().unwrap().iter().filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The addresses of the link `name` that are not link-local, as `address/prefix`, sorted.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<String> {
        let links = self.ip_json(&format!("address show dev {name}"));
        let all = links.as_array().unwrap().iter().flat_map(|link| link["addr_info"].as_array().unwrap().clone());
        let text = |info: Value| format!("{}/{}", info["local"].as_str().unwrap(), info["prefixlen"]);
        let mut texts: Vec<String> = all.filter(|info| info["scope"] == "global").map(text).collect();
        texts.sort();
        texts
    }

    /// The value of a key under `/proc/sys`, as the namespace has it.
    #[must_use]
    pub fn sysctl(&self, key: &str) -> String {
        self.within(|| fs::read_to_string(format!("/proc/sys/{key}")).unwrap().trim().to_owned())
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.is_own {
            // Or its directory could not be removed. It may be unbound already.
            let _unbound = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}
