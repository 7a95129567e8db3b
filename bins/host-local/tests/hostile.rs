//! Names, paths and files that somebody means ill with.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    ffi::{OsStr, OsString},
    fs::{self, Permissions},
    io::Write,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{PermissionsExt, chown, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::stat::{Mode, SFlag, mknod},
    unistd::{geteuid, mkfifo},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_host-local");
const COMMANDS: [&str; 5] = ["ADD", "CHECK", "DEL", "STATUS", "GC"];
const TOOLS: [&[&str]; 5] = [
    &["list", "storage"],
    &["check", "storage"],
    &["usage", "storage"],
    &["gc", "storage", "--dead"],
    &["release", "10.1.2.2", "storage", "--yes"],
];
/// Nothing takes this long but a call that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn what_a_runtime_calls_things_stays_in_its_place() {
    let host = Host::new();
    for (name, values) in [
        ("CNI_CONTAINERID", [&b"../x"[..], b"a/b", b"..", b"-x", b".x", b"a\nb", b"\xff", b" "].as_slice()),
        ("CNI_IFNAME", &[b"../x", b"a/b", b"..", b".", b"a\nb", b"\xff", b"0123456789abcdef", b"a:b"]),
    ] {
        for (value, command) in values.iter().flat_map(|value| ["ADD", "CHECK", "DEL"].map(|command| (value, command)))
        {
            let (code, message) = host.failure(command, &host.config("storage"), &[(name, OsStr::from_bytes(value))]);
            assert_eq!(code, 4, "{value:?}: {message}");
        }
    }
    assert_eq!(host.files(), [""; 0], "nothing was begun");
    for length in [255, 256] {
        let id = "x".repeat(length);
        host.success("ADD", &host.config("storage"), &[("CNI_CONTAINERID", OsStr::new(&id))]);
        host.success("DEL", &host.config("storage"), &[("CNI_CONTAINERID", OsStr::new(&id))]);
    }
    assert_eq!(host.reserved(), [""; 0]);
}

#[test]
fn the_name_of_a_network_is_one_directory_below_the_data_directory() {
    let host = Host::new();
    for name in ["..", ".", "../x-of-host-local", "a/b", "/x", ".host-local", "-x", "a\nb", "a\0b", "é"] {
        for command in COMMANDS {
            let (code, message) = host.failure(command, &host.config(name), &[]);
            assert_eq!((code, message.as_str()), (7, "invalid characters found in network name"), "{name:?}");
        }
    }
    let long = "x".repeat(256);
    let (code, message) = host.failure("ADD", &host.config(&long), &[]);
    assert!(message.contains(&long[..80]) && message.contains("name too long"), "{code}: {message}");
    assert!(host.files().iter().all(|name| name == ".host-local"), "{:?}", host.files());
    for length in 230..=255 {
        host.success("ADD", &host.config(&long[..length]), &[]);
        host.success("CHECK", &host.config(&long[..length]), &[]);
        host.success("DEL", &host.config(&long[..length]), &[]);
    }
    assert!(!host.path("x").exists() && !host.path("../x-of-host-local").exists());
}

/// Linux passes 128 KiB of a variable, with its name and the zero at its end; a runtime cannot start a program with more.
#[test]
fn the_longest_arguments_that_there_are_get_an_address() {
    let host = Host::new();
    let args =
        |length: usize| "IgnoreUnknown=1;X=".to_owned() + &"x".repeat(length - "CNI_ARGS=IgnoreUnknown=1;X=\0".len());
    host.success("ADD", &host.config("storage"), &[("CNI_ARGS", OsStr::new(&args(128 << 10)))]);
    let unknown = args(128 << 10).replace("IgnoreUnknown=1", "IgnoreUnknown=0");
    let (code, message) = host.failure("ADD", &host.config("storage"), &[("CNI_ARGS", OsStr::new(&unknown))]);
    assert!(code == 4 || code == 999, "{code}");
    assert!(message.starts_with("ARGS: unknown args") && message.len() < 1000, "{message}");
    host.success("DEL", &host.config("storage"), &[]);
    assert_eq!(host.reserved(), [""; 0]);
    let mut over = Command::new(PROGRAM);
    let refused = over.env("CNI_ARGS", args((128 << 10) + 1)).output().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ArgumentListTooLong);
}

#[test]
fn a_path_that_is_none_is_named() {
    let host = Host::new();
    let pipe = host.path("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    for (key, path, problem) in [
        ("dataDir", "/a\0b".to_owned(), "must be a path of at most 4095 bytes without NUL"),
        ("dataDir", "/dev/null".to_owned(), "not a directory"),
        ("dataDir", format!("/{}", "x".repeat(256)), "name too long"),
        ("dataDir", format!("/{}", "x/".repeat(1 << 19)), "must be a path of at most 4095 bytes without NUL"),
        ("resolvConf", format!("/{}", "x/".repeat(1 << 19)), "must be a path of at most 4095 bytes without NUL"),
        // With a slash in front, the longest that is asked for, and one that is not.
        ("resolvConf", format!("{:/<4093}zz", "/"), "no such file"),
        ("resolvConf", format!("{:/<4094}zz", "/"), "must be a path of at most 4095 bytes without NUL"),
        ("resolvConf", "/a\0b".to_owned(), "must be a path of at most 4095 bytes without NUL"),
        ("resolvConf", pipe.to_str().unwrap().to_owned(), "it must be a regular file"),
        ("resolvConf", "/dev/zero".to_owned(), "it must be a regular file"),
        ("resolvConf", "..".to_owned(), "it must be a regular file"),
        ("resolvConf", "-x".to_owned(), "no such file"),
    ] {
        let mut config = host.config("storage");
        config["ipam"][key] = json!(path);
        let (_, message) = host.failure("ADD", &config, &[]);
        let shown = path.split('\0').next().unwrap();
        assert!(message.contains(shown.get(..40).unwrap_or(shown)) && message.contains(problem), "{key}: {message}");
        // What can be a path is told whole.
        assert!(message.len() < 1000 || path.len() == 4095, "{}", message.len());
    }
    assert_eq!(host.reserved(), [""; 0]);
}

/// Links, pipes, devices and directories under the names that the store uses itself.
#[test]
fn what_lies_where_the_store_works_is_neither_followed_nor_waited_for() {
    type Plant = (&'static str, fn(&Path, &Path));
    let plant: [Plant; 6] = [
        ("a link", |victim, name| symlink(victim, name).unwrap()),
        ("a link to nowhere", |victim, name| symlink(victim.with_file_name("new"), name).unwrap()),
        ("a second name", |victim, name| fs::hard_link(victim, name).unwrap()),
        ("a pipe", |_, name| mkfifo(name, Mode::S_IRWXU).unwrap()),
        ("a device", |_, name| {
            // /dev/zero never ends. Only root has devices, and not in every container.
            let _no_device = mknod(name, SFlag::S_IFCHR, Mode::S_IRWXU, nix::libc::makedev(1, 5));
        }),
        ("a directory", |_, name| fs::create_dir(name).unwrap()),
    ];
    for name in [
        "storage/lock",
        "storage/10.1.2.2",
        "storage/10.1.2.3",
        "storage/last_reserved_ip.0",
        "storage/.last_reserved_ip",
        "storage/.reservation",
        ".host-local/storage.index",
        ".host-local/storage.new",
        ".host-local/storage.attachments",
    ] {
        for (what, plant) in plant {
            let host = Host::new();
            host.success("ADD", &host.config("storage"), &[]);
            // One that would be written over in place.
            let victim = host.path("victim");
            fs::write(&victim, "10.1.2.2").unwrap();
            let place = host.path("networks").join(name);
            let _absent = fs::remove_file(&place);
            plant(&victim, &place);
            // Of the index nothing is believed any more.
            fs::write(host.path("networks/storage/10.1.2.9"), "c9\r\neth0").unwrap();
            for command in COMMANDS {
                host.answers(command, &host.config("storage"), &[("CNI_CONTAINERID", OsStr::new("c2"))]);
            }
            for tool in TOOLS {
                host.tool(tool);
            }
            let is_kept = fs::read(&victim).is_ok_and(|text| text == b"10.1.2.2");
            assert!(is_kept && !host.path("new").exists(), "{what} as {name}");
        }
    }
}

#[test]
fn a_network_may_be_elsewhere_by_a_link_that_root_has_made() {
    let host = Host::new();
    fs::create_dir_all(host.path("networks")).unwrap();
    fs::create_dir(host.path("disk")).unwrap();
    symlink(host.path("disk"), host.path("networks/storage")).unwrap();
    host.success("ADD", &host.config("storage"), &[]);
    assert!(host.path("disk/10.1.2.2").exists());
    host.success("DEL", &host.config("storage"), &[]);
    assert!(!host.path("disk/10.1.2.2").exists());
    fs::set_permissions(host.path("disk"), Permissions::from_mode(0o777)).unwrap();
    let (_, message) = host.failure("ADD", &host.config("storage"), &[]);
    assert!(message.contains("every user may write to it (mode 0777)"), "{message}");
}

#[test]
fn directories_that_others_write_to_are_refused_with_the_remedy() {
    let host = Host::new();
    host.success("ADD", &host.config("storage"), &[]);
    let set = |name: &str, mode| {
        fs::set_permissions(host.path("networks").join(name), Permissions::from_mode(mode)).unwrap();
    };
    for (name, usual, refused) in
        [("", 0o755, 0o777), ("storage", 0o755, 0o757), ("storage", 0o755, 0o1777), (".host-local", 0o700, 0o702)]
    {
        set(name, refused);
        for command in ["ADD", "CHECK", "DEL"] {
            let (_, message) = host.failure(command, &host.config("storage"), &[]);
            let remedy = format!("run: chmod o-w {}", host.path("networks").join(name).display());
            assert!(message.contains(remedy.trim_end_matches('/')), "{command} {name}: {message}");
        }
        set(name, usual);
    }
    // Of a group that somebody has chosen; and where all may add something, and nobody change what is another's.
    set("storage", 0o775);
    set("", 0o1777);
    host.success("DEL", &host.config("storage"), &[]);
    if geteuid().is_root() {
        chown(host.path("networks/storage"), Some(4711), None).unwrap();
        let (_, message) = host.failure("ADD", &host.config("storage"), &[]);
        assert!(message.contains("it belongs to user 4711"), "{message}");
        // As root's files are, in a user namespace or on a file server that does not know root.
        chown(host.path("networks/storage"), Some(65534), None).unwrap();
        host.success("ADD", &host.config("storage"), &[]);
    }
}

struct Host(TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, name: &str) -> Value {
        let ipam = json!({"type": "host-local", "dataDir": self.path("networks"), "subnet": "10.1.2.0/24"});
        json!({"cniVersion": "1.1.0", "name": name, "ipam": ipam, "cni.dev/valid-attachments": []})
    }

    /// Everything below the data directory.
    fn files(&self) -> Vec<String> {
        names(&self.path("networks"))
    }

    fn reserved(&self) -> Vec<String> {
        names(&self.path("networks/storage")).into_iter().filter(|name| name.starts_with("10.")).collect()
    }

    /// What it answers, which it does in time.
    fn answers(&self, command: &str, config: &Value, environment: &[(&str, &OsStr)]) -> Output {
        let mut program = Command::new(PROGRAM);
        let netns = self.path("netns");
        program.env_clear().env("CNI_NETNS", netns).env("CNI_COMMAND", command);
        program.envs([("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nowhere")]);
        program.envs(environment.iter().copied());
        in_time(program, config.to_string().as_bytes())
    }

    fn tool(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(PROGRAM);
        program.env_clear().args(arguments).arg("--data-dir").arg(self.path("networks"));
        in_time(program, b"")
    }

    #[track_caller]
    fn failure(&self, command: &str, config: &Value, environment: &[(&str, &OsStr)]) -> (u64, String) {
        let output = self.answers(command, config, environment);
        assert_eq!(output.status.code(), Some(1), "{command} {environment:?}: {output:?}");
        let object: Value = serde_json::from_slice(&output.stdout).unwrap();
        (object["code"].as_u64().unwrap(), object["msg"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    fn success(&self, command: &str, config: &Value, environment: &[(&str, &OsStr)]) {
        let output = self.answers(command, config, environment);
        assert!(output.status.success(), "{command}: {output:?}");
    }
}

#[track_caller]
fn in_time(mut program: Command, stdin: &[u8]) -> Output {
    let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let _closed = child.stdin.take().unwrap().write_all(stdin);
    let id = i32::try_from(child.id()).unwrap();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ended_by_itself =
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGKILL);
        panic!("{program:?} hangs");
    })
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names.into_iter().map(|name| String::from_utf8_lossy(&name.into_vec()).into_owned()).collect()
}
