//! Whether a sandbox lives, against real namespaces, processes and cgroups: a reservation is garbage only when there is
//! nothing left of its sandbox, and when that can be told.
//!
//! The cases run at the same time and see each other's namespaces: each has addresses of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs::{self, File, FileTimes},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    time::{Duration, SystemTime},
};

use host_local_ipam::{Boot, DiskStore, Stage, Store};
use multus_cni::AttachmentId;
use serde_json::Value;
use testkit::{Case, Lab, Netns};

const PROGRAM: &str = env!("CARGO_BIN_EXE_host-local");

const CASES: &[Case] = &[
    ("a_bound_namespace_with_the_address_is_a_sandbox_until_it_is_unbound", bound_namespace),
    ("a_process_in_a_namespace_with_the_address_keeps_the_sandbox_alive", namespace_of_a_process),
    ("a_process_in_a_cgroup_of_the_container_keeps_the_sandbox_alive", cgroup),
    ("only_what_is_certainly_dead_is_freed", only_the_dead),
    ("in_another_pid_namespace_nothing_is_known", other_pid_namespace),
    ("without_the_rights_to_look_nothing_is_known", without_rights),
];

fn main() -> ExitCode {
    testkit::run_when(CASES, sees_everything())
}

/// In a container, or as somebody else than root, the program knows of nothing that it is gone, which is a case of its own.
fn sees_everything() -> Result<(), String> {
    let is_first = fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == 0xefff_fffc);
    let is_root = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.contains("4294967295"))
        && fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_first && is_root {
        Ok(())
    } else {
        Err("not root of the machine itself, so not all of it can be seen".to_owned())
    }
}

fn bound_namespace(lab: &Lab) {
    let host = Host::new(lab);
    host.reserve("10.71.2.2", "sandbox-of-71");
    host.reserve("2001:db8:71::2", "sandbox-of-71");
    assert_eq!(host.life("10.71.2.2"), "gone");
    // A name as mountinfo has to escape it, and not where runtimes put theirs.
    let container = lab.container("c 71\\x");
    container.ip("link add net1 type veth peer name net2");
    container.ip("address add 10.71.2.2/24 dev net1");
    container.ip("-6 address add 2001:db8:71::2/64 dev net1");
    // Nothing is up yet, as while an ADD is at work.
    let place = container.path().display();
    assert_eq!(host.why("10.71.2.2"), format!("the network namespace at {place} has the address"));
    assert_eq!(host.life("10.71.2.2"), "lives");
    assert_eq!(host.life("2001:db8:71::2"), "lives");
    container.ip("link set net1 up");
    assert_eq!(host.life("10.71.2.2"), "lives");
    host.run(&["gc", "--dead", "--yes"]);
    assert_eq!(host.reserved(), ["10.71.2.2", "2001:db8:71::2"]);
    container.remove_path();
    drop(container);
    assert_eq!((host.life("10.71.2.2"), host.life("2001:db8:71::2")), ("gone".to_owned(), "gone".to_owned()));
}

fn namespace_of_a_process(lab: &Lab) {
    let host = Host::new(lab);
    host.reserve("10.72.2.2", "sandbox-of-72");
    let container = lab.container("c72");
    container.ip("link set lo up");
    container.ip("address add 10.72.2.2/32 dev lo");
    let process = Process::start_in(&container);
    container.remove_path();
    drop(container);
    assert_eq!(host.life("10.72.2.2"), "lives");
    assert_eq!(host.why("10.72.2.2"), format!("the network namespace of process {} has the address", process.0.id()));
    drop(process);
    assert_eq!(host.life("10.72.2.2"), "gone");
}

fn cgroup(lab: &Lab) {
    let host = Host::new(lab);
    host.reserve("10.73.2.2", "8f3a73");
    host.reserve("10.73.2.3", "8f3a74");
    let cgroups = lab.path("cgroups");
    fs::create_dir(&cgroups).unwrap();
    let mounted = Command::new("mount").args(["-t", "cgroup2", "none"]).arg(&cgroups).status().unwrap();
    assert!(mounted.success());
    // One of its own for each run: nobody else takes it away when a test fails.
    let cgroup = cgroups.join(format!("cri-containerd-8f3a73-{}.scope", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    let process = Process::start_in(&lab.host);
    fs::write(cgroup.join("cgroup.procs"), process.0.id().to_string()).unwrap();
    assert_eq!(host.why("10.73.2.2"), format!("process {} is of the container", process.0.id()));
    assert_eq!((host.life("10.73.2.2"), host.life("10.73.2.3")), ("lives".to_owned(), "gone".to_owned()));
    drop(process);
    assert_eq!(host.life("10.73.2.2"), "gone");
    fs::remove_dir(&cgroup).unwrap();
}

fn only_the_dead(lab: &Lab) {
    let host = Host::new(lab);
    let container = lab.container("c74");
    container.ip("link set lo up");
    container.ip("address add 10.74.2.2/32 dev lo");
    host.reserve("10.74.2.2", "living-of-74");
    host.reserve("10.74.2.3", "dead-of-74");
    host.reserve("10.74.2.4", "busy-of-74");
    // Its sandbox may be about to come.
    host.reserve("10.74.2.5", "young-of-74");
    host.make_old("10.74.2.5", Duration::ZERO);
    let boot = Boot::current(Path::new(Boot::MACHINE_ID)).unwrap().unwrap();
    assert!(boot.machine.is_some(), "a machine without an ID cannot tell its earlier boots from those of others");
    let earlier = DiskStore::in_boot(&host.data_dir, Some(Boot { id: !boot.id, ..boot }));
    let elsewhere = DiskStore::in_boot(&host.data_dir, Some(Boot { machine: Some(1), id: 1 }));
    for (store, address, container) in
        [(&earlier, "10.74.2.6", "earlier-of-74"), (&elsewhere, "10.74.2.7", "far-of-74")]
    {
        let mut reservations = store.lock(&"storage".parse().unwrap()).unwrap();
        assert!(reservations.reserve(address.parse().unwrap(), &attachment(container), Stage::Finished).unwrap());
    }
    host.make_old("10.74.2.7", OLD);
    let store = DiskStore::new(&host.data_dir);
    let busy = store.lock_attachment(&"storage".parse().unwrap(), &attachment("busy-of-74")).unwrap();

    let (stdout, stderr) = host.run(&["gc", "--dead"]);
    let gone = "no process is of the container and no network namespace has the address";
    let expected = format!(
        "would free 10.74.2.3 of storage (dead-of-74 net1): {gone}\n\
         would free 10.74.2.6 of storage (earlier-of-74 net1): reserved before this machine started\n"
    );
    assert_eq!(stdout, expected);
    let doubts = "sandbox lives: 2; reserved by another machine (1); reserved too short a time ago (1)\n";
    assert!(stderr.contains(doubts), "{stderr}");
    assert_eq!(host.reserved().len(), 6);
    assert_eq!(host.why("10.74.2.7"), "reserved by another machine");
    let (checked, _) = host.run(&["check"]);
    assert_eq!(checked.matches("the sandbox of ").count(), 2, "{checked}");

    let (stdout, _) = host.run(&["gc", "--dead", "--yes"]);
    assert_eq!(stdout, expected.replace("would free", "freed"));
    assert_eq!(host.reserved(), ["10.74.2.2", "10.74.2.4", "10.74.2.5", "10.74.2.7"]);
    drop(busy);
    assert_eq!(
        host.run(&["gc", "--dead", "--yes"]).0,
        format!("freed 10.74.2.4 of storage (busy-of-74 net1): {gone}\n")
    );
}

fn other_pid_namespace(lab: &Lab) {
    let host = Host::new(lab);
    host.reserve("10.75.2.2", "dead-of-75");
    assert_eq!(host.life("10.75.2.2"), "gone");
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--mount-proc", PROGRAM, "--data-dir"])
        .arg(&host.data_dir)
        .args(["gc", "--dead", "--yes"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert_eq!(
        said,
        "host-local: not known whether the sandbox lives: 1; only processes of this PID namespace can be seen; run \
         host-local on the host itself (1)\n"
    );
    assert_eq!(host.reserved(), ["10.75.2.2"]);
}

fn without_rights(lab: &Lab) {
    let host = Host::new(lab);
    host.reserve("10.76.2.2", "dead-of-76");
    assert_eq!(host.life("10.76.2.2"), "gone");
    // All that is needed to read the store, but not to look into others' processes.
    let nobody = 65534;
    let program = lab.path("program");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let storage = host.data_dir.join("storage");
    for path in [&host.data_dir, &storage, &storage.join("10.76.2.2"), &storage.join("lock")] {
        chown(path, Some(nobody), Some(nobody)).unwrap();
    }
    let ours = host.data_dir.join(".host-local");
    assert!(!ours.exists() || chown(&ours, Some(nobody), Some(nobody)).is_ok());
    let mut command = Command::new(&program);
    command.uid(nobody).gid(nobody).arg("--data-dir").arg(&host.data_dir).args(["gc", "--dead", "--yes"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{said}");
    assert!(said.contains("cannot look into /proc/") && said.ends_with("run host-local as root (1)\n"), "{said}");
    assert_eq!(host.reserved(), ["10.76.2.2"]);
    // Where not even that may be read, it says so.
    chown(storage.join("lock"), Some(0), Some(0)).unwrap();
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.ends_with("permission denied; run host-local as root\n"), "{said}");
}

/// Older than any sandbox takes to come.
const OLD: Duration = Duration::from_secs(600);

/// The reservations of the network `storage`.
struct Host<'a> {
    lab: &'a Lab,
    data_dir: PathBuf,
}

impl<'a> Host<'a> {
    fn new(lab: &'a Lab) -> Self {
        fs::create_dir_all(lab.data_dir().join("storage")).unwrap();
        Self { lab, data_dir: lab.data_dir() }
    }

    /// An old reservation, as the Go plugin makes it.
    fn reserve(&self, address: &str, container: &str) {
        fs::write(self.data_dir.join("storage").join(address), format!("{container}\r\nnet1")).unwrap();
        self.make_old(address, OLD);
    }

    fn make_old(&self, address: &str, age: Duration) {
        let file = File::open(self.data_dir.join("storage").join(address)).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - age)).unwrap();
    }

    /// What it says on standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new(PROGRAM);
        let output = self.lab.host.output(command.arg("--data-dir").arg(&self.data_dir).args(arguments));
        assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    fn line(&self, address: &str) -> Value {
        let lines: Value = serde_json::from_str(&self.run(&["list", "-o", "json"]).0).unwrap();
        lines.as_array().unwrap().iter().find(|line| line["address"] == address).unwrap().clone()
    }

    fn life(&self, address: &str) -> String {
        self.line(address)["sandbox"].as_str().unwrap().to_owned()
    }

    fn why(&self, address: &str) -> String {
        self.line(address)["why"].as_str().unwrap().to_owned()
    }

    fn reserved(&self) -> Vec<String> {
        self.lab.reserved("storage")
    }
}

/// A process that does nothing until it is dropped.
struct Process(Child);

impl Process {
    fn start_in(netns: &Netns) -> Self {
        let start = || Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        Self(netns.within(start))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn attachment(container: &str) -> AttachmentId {
    AttachmentId { container_id: container.to_owned(), ifname: "net1".to_owned() }
}
