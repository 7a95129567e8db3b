//! Calls of plugin programs, as a runtime makes them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

use crate::{Netns, Running};

/// One call of a plugin program.
#[derive(Clone, Debug)]
pub struct Call {
    program: PathBuf,
    wrapper: Vec<String>,
    environment: BTreeMap<String, String>,
    stdin: Vec<u8>,
}

impl Call {
    /// `command` for the interface `eth0` of the container `c1`, with the namespace at `netns`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, command: &str, netns: &Path) -> Self {
        let program = program.into();
        let path = program.parent().unwrap().to_str().unwrap().to_owned();
        let call = Self { program, wrapper: Vec::new(), environment: BTreeMap::new(), stdin: Vec::new() };
        call.env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "c1")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", netns.to_str().unwrap())
            .env("CNI_PATH", &path)
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Self {
        self.environment.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Leaves a variable out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.environment.remove(key);
        self
    }

    /// For another container.
    #[must_use]
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// Through another program, which gets these words and then the plugin's path.
    #[must_use]
    pub fn through(self, words: &[&str]) -> Self {
        Self { wrapper: words.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// The configuration.
    #[must_use]
    pub fn config(self, config: &Value) -> Self {
        self.stdin(config.to_string())
    }

    /// The bytes on standard input.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Runs it in the caller's namespace.
    #[must_use]
    pub fn run(&self) -> Reply {
        self.run_with_stdout(Stdio::piped())
    }

    /// Runs it in `host`.
    #[must_use]
    pub fn run_in(&self, host: &Netns) -> Reply {
        host.within(|| self.run())
    }

    /// Runs it in `host` with its standard output on a device that is full.
    #[must_use]
    pub fn run_with_full_stdout(&self, host: &Netns) -> Reply {
        host.within(|| self.run_with_stdout(File::options().write(true).open("/dev/full").unwrap().into()))
    }

    /// Starts it in the caller's namespace.
    #[must_use]
    pub fn start(&self) -> Running {
        self.start_into(Stdio::piped())
    }

    fn run_with_stdout(&self, stdout: Stdio) -> Reply {
        self.start_into(stdout).reply()
    }

    /// Starts it in the caller's namespace; it has still to get its configuration.
    pub(crate) fn begin(&self) -> Begun<'_> {
        Begun { child: self.spawn(Stdio::piped()), stdin: &self.stdin }
    }

    pub(crate) fn start_into(&self, stdout: Stdio) -> Running {
        Begun { child: self.spawn(stdout), stdin: &self.stdin }.go_on()
    }

    fn spawn(&self, stdout: Stdio) -> Child {
        let mut words = self.wrapper.iter().map(String::as_str).chain(self.program.to_str());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_clear().envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// A program that has been started and waits for its configuration.
pub(crate) struct Begun<'a> {
    child: Child,
    stdin: &'a [u8],
}

impl Begun<'_> {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it answers in the end.
    pub(crate) fn reply(self) -> Reply {
        self.go_on().reply()
    }

    fn go_on(mut self) -> Running {
        // A plugin that refuses its environment does not read.
        let _closed = self.child.stdin.take().unwrap().write_all(self.stdin);
        Running(self.child)
    }
}

/// What a plugin program answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The exit status; none after a signal.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Reply {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The result of a call that must have succeeded.
    #[track_caller]
    #[must_use]
    pub fn result(&self) -> Value {
        self.succeeded();
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Asserts that the call succeeded.
    #[track_caller]
    pub fn succeeded(&self) {
        assert_eq!(self.status, Some(0), "{}{}", self.stdout, self.stderr);
    }

    /// Code, message and details of a call that must have failed as the protocol has it.
    #[track_caller]
    #[must_use]
    pub fn error(&self) -> (u64, String, String) {
        assert_eq!(self.status, Some(1), "{}{}", self.stdout, self.stderr);
        let object: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        (object["code"].as_u64().unwrap(), text("msg"), text("details"))
    }
}

/// The directory of the Go plugins, where Debian's package `containernetworking-plugins` puts them.
///
/// # Errors
/// That it is not there.
pub fn go_plugins() -> Result<PathBuf, String> {
    let directory = PathBuf::from("/usr/lib/cni");
    let complete = ["macvlan", "host-local"].iter().all(|plugin| directory.join(plugin).is_file());
    complete.then_some(directory).ok_or_else(|| {
        "no Go plugins in /usr/lib/cni: install the package containernetworking-plugins to compare with them".to_owned()
    })
}

/// The program strace(1).
///
/// # Errors
/// That it is not there.
pub fn strace() -> Result<&'static str, String> {
    const STRACE: &str = "/usr/bin/strace";
    let missing = || format!("no {STRACE}: install the package strace to interfere with system calls");
    Path::new(STRACE).is_file().then_some(STRACE).ok_or_else(missing)
}
