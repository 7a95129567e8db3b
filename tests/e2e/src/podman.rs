//! podman, with everything of its own, and the plugins of the workspace as its plugins.

use std::{
    fmt::{self, Debug, Formatter},
    fs,
    io::ErrorKind,
    net::IpAddr,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};
use serde_json::Value;
use testkit::{Lab, Netns, cgroup, program};

use crate::image::{IMAGE, archive};

/// Where libcni and host-local keep what they know, for podman as for everybody.
const CNI: &str = "/var/lib/cni";
/// What outlives a network's last reservation, as with the Go plugin, and ours beside it.
const KEPT: [&str; 5] = ["lock", "last_reserved_ip.0", "last_reserved_ip.1", "index", "attachments"];

/// A podman whose containers are on the lab's host.
pub struct Podman<'a> {
    lab: &'a Lab,
    /// What the names of this host's networks end with, since all keep their reservations in one place.
    ending: String,
}

impl<'a> Podman<'a> {
    /// It has the image of the containers.
    #[must_use]
    pub fn new(lab: &'a Lab) -> Self {
        let bin = lab.path("bin");
        fs::create_dir(&bin).unwrap();
        for plugin in ["macvlan", "host-local"] {
            symlink(program(plugin), bin.join(plugin)).unwrap();
        }
        let [net, root, run_root, tmp] = ["net.d", "root", "run-root", "tmp"].map(|name| lab.path(name));
        // Without CAP_SYS_RESOURCE no limit can be raised. The machine's locks in shared memory are not for us.
        let containers = format!(
            r#"[containers]
base_hosts_file = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
runtime = "runc"
tmp_dir = {tmp:?}
[network]
cni_plugin_dirs = [{bin:?}]
network_backend = "cni"
network_config_dir = {net:?}
"#
        );
        let storage = format!("[storage]\ndriver = \"vfs\"\ngraphroot = {root:?}\nrunroot = {run_root:?}\n");
        fs::write(lab.path("containers.conf"), containers).unwrap();
        fs::write(lab.path("storage.conf"), storage).unwrap();
        let ending = name(lab.path("net.d").parent().unwrap()).trim_start_matches(".tmp").to_owned();
        let this = Self { lab, ending };
        this.does(&format!("load --quiet --input {}", archive(lab).display()));
        this
    }

    /// Has podman make a macvlan network on the host's parent link, and returns its name.
    #[must_use]
    pub fn network(&self, name: &str, subnets: &[&str]) -> String {
        let name = format!("{name}-{}", self.ending);
        let subnets: String = subnets.iter().map(|subnet| format!(" --subnet {subnet}")).collect();
        self.does(&format!("network create --driver macvlan --opt parent=ens32{subnets} {name}"));
        name
    }

    /// Starts a container; `options` are those of `podman run`, separated by spaces.
    ///
    /// # Errors
    /// What podman says.
    pub fn run(&self, name: &str, options: &str) -> Result<(), String> {
        let cgroup = cgroup();
        self.tries(&format!("run --detach --name {name} --cgroup-parent {cgroup} {options} {IMAGE}")).map(drop)
    }

    /// What podman prints, which must succeed.
    #[track_caller]
    pub fn does(&self, arguments: &str) -> String {
        self.tries(arguments).unwrap_or_else(|error| panic!("podman {arguments}: {error}"))
    }

    /// What podman prints; its arguments are separated by spaces.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn tries(&self, arguments: &str) -> Result<String, String> {
        let mut command = Command::new("podman");
        command
            .args(arguments.split(' '))
            .env("CONTAINERS_CONF", self.lab.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.lab.path("storage.conf"));
        let output = self.lab.host.output(&mut command);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// What podman knows of a container.
    #[must_use]
    pub fn inspect(&self, container: &str) -> Value {
        let mut found: Value = serde_json::from_str(&self.does(&format!("container inspect {container}"))).unwrap();
        found[0].take()
    }

    /// The network of a container that runs.
    #[must_use]
    pub fn netns(&self, container: &str) -> Netns {
        Netns::open(self.inspect(container)["NetworkSettings"]["SandboxKey"].as_str().unwrap().into())
    }

    /// The process of a container, or its `Pid` or `ConmonPid`.
    #[must_use]
    pub fn process(&self, container: &str, key: &str) -> Pid {
        Pid::from_raw(self.inspect(container)["State"][key].as_i64().unwrap().try_into().unwrap())
    }

    /// As a machine does that loses its power, and then starts: no process, no mount and none of the files for one boot.
    pub fn reboot(&self, containers: &[&str]) {
        for container in containers {
            let inspected = self.inspect(container);
            let network = inspected["NetworkSettings"]["SandboxKey"].as_str().unwrap();
            // Whoever watches a container would clean up behind it.
            let processes = ["ConmonPid", "Pid"].map(|key| self.process(container, key));
            processes.into_iter().for_each(end);
            umount2(network, MntFlags::MNT_DETACH).unwrap();
            fs::remove_file(network).unwrap();
            fs::remove_dir_all(Path::new("/run/runc").join(inspected["Id"].as_str().unwrap())).unwrap();
        }
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let places = mounts.lines().map(|line| line.split(' ').nth(1).unwrap());
        for place in places.filter(|place| Path::new(place).starts_with(self.lab.path("root"))) {
            umount2(place, MntFlags::MNT_DETACH).unwrap();
        }
        for directory in ["tmp", "run-root"] {
            fs::remove_dir_all(self.lab.path(directory)).unwrap();
        }
    }

    /// The reserved addresses of a network, sorted.
    #[must_use]
    pub fn reserved(&self, network: &str) -> Vec<String> {
        let names = files(&Path::new(CNI).join("networks").join(network)).into_iter().map(|path| name(&path));
        let mut addresses: Vec<_> = names.filter(|name| name.parse::<IpAddr>().is_ok()).collect();
        addresses.sort();
        addresses
    }

    /// What is left of any container: links on the host, reserved addresses, files, locks, and what our own tool finds wrong.
    #[must_use]
    pub fn left_over(&self) -> Vec<String> {
        let own = ["ens32", "lo", "wire"];
        let links = self.lab.host.links().into_iter().filter(|link| !own.contains(&link.as_str()));
        let paths = tree(Path::new(CNI)).into_iter().filter(|path| path.to_str().unwrap().contains(&self.ending));
        let (kept, left): (Vec<_>, Vec<_>) = paths.partition(|path| KEPT.contains(&ending(path).as_str()));
        let locks = fs::read_to_string("/proc/locks").unwrap();
        let is_locked = |path: &PathBuf| {
            let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
            locks.lines().any(|line| line.contains(&inode))
        };
        let locked = kept.iter().filter(|path| is_locked(path)).map(|path| format!("{} is locked", path.display()));
        let left = left.iter().map(|path| path.display().to_string());
        links.chain(left).chain(locked).chain(self.problems()).collect()
    }

    /// What `host-local check` finds.
    fn problems(&self) -> Vec<String> {
        let networks = files(&Path::new(CNI).join("networks")).into_iter().map(|path| name(&path));
        let config = self.lab.path("net.d");
        let check = |network: String| self.host_local(&["check", &network, "--config", config.to_str().unwrap()]).err();
        networks.filter(|network| network.ends_with(&self.ending)).filter_map(check).collect()
    }

    /// What `host-local` prints as the tool that it is for people.
    ///
    /// # Errors
    /// The same when it fails.
    pub fn host_local(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.lab.host.output(Command::new(program("host-local")).args(arguments));
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        if output.status.success() { Ok(text) } else { Err(text) }
    }
}

impl Debug for Podman<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Podman").field("ending", &self.ending).finish_non_exhaustive()
    }
}

/// Kills a process whose parent is the first of all, which is the test program, or has been killed.
pub fn end(process: Pid) {
    kill(process, Signal::SIGKILL).unwrap();
    waitpid(process, None).unwrap();
}

/// Mourns a process whose parent has been killed, whenever it ends.
pub fn adopt(process: Pid) {
    thread::spawn(move || waitpid(process, None).unwrap());
}

/// All files below a directory.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let below = |path: PathBuf| if path.is_dir() { tree(&path) } else { vec![path] };
    files(directory).into_iter().flat_map(below).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("{}: {error}", directory.display()),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Of a file of ours what it is, of others the name.
fn ending(path: &Path) -> String {
    let is_ours = path.parent().is_some_and(|parent| parent.ends_with(".host-local"));
    let whole = if is_ours { path.extension() } else { path.file_name() };
    whole.unwrap().to_str().unwrap().to_owned()
}
