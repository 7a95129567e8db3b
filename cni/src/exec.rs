//! Plugins that are executables, and how to run them.

mod change_root;
mod conversation;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{self, ErrorKind, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Output, Stdio},
    thread,
    time::Duration,
};

use change_root::change_root;
use conversation::converse;
use nix::libc;

use crate::{
    Attachment, Command, Error, ErrorObject, FieldError, Invocation, Object, Pending, Plugin, Success, Version,
    json::{self, go_quoted},
    os_error_text,
};

/// The kubelet gives a sandbox up after four minutes at the latest; nobody hears what comes later, and who comes next waits.
const TIME_LIMIT: Duration = Duration::from_secs(240);
/// Of what is quoted in a message, in bytes: it ends up in an event of the pod.
const QUOTE_LIMIT: usize = 1000;

/// A plugin in a file. It inherits the invocation's environment, with the `CNI_` variables of the call, and gets the
/// configuration's bytes on standard input, unchanged. What it writes to standard error goes to this process's. Where the
/// host's root is not this process's own, it is run in the host's (chroot(2), which takes `CAP_SYS_CHROOT`). It leads a
/// process group, all of which is killed when it takes longer than four minutes.
#[derive(Clone, Debug)]
pub struct ExecutedPlugin {
    file: PathBuf,
    time_limit: Duration,
}

impl ExecutedPlugin {
    /// The plugin in the host's file `file`.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), time_limit: TIME_LIMIT }
    }

    /// The same plugin with another limit to how long each of its calls may take.
    #[must_use]
    pub fn with_time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// The first regular file named `kind` in the invocation's path.
    ///
    /// # Errors
    /// [`Error::PluginNotFound`], also when `kind` is empty or has a `/`.
    pub fn find(kind: &str, invocation: &Invocation) -> Result<Self, Error> {
        let missing = |text: String| Err(Error::PluginNotFound(text));
        let directories = &invocation.path;
        if kind.is_empty() {
            return missing("no plugin name provided".to_owned());
        }
        if kind.contains('/') {
            return missing(format!("invalid plugin name: {kind}"));
        }
        if directories.is_empty() {
            return missing("no paths provided".to_owned());
        }
        let mut obstacle = String::new();
        for file in directories.iter().map(|directory| directory.join(kind)) {
            match fs::metadata(invocation.on_host(&file)) {
                Ok(found) if found.is_file() => return Ok(Self::new(file)),
                Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                    obstacle = format!(": {}: {}", file.display(), os_error_text(&error));
                }
                Ok(_) | Err(_) => {}
            }
        }
        let searched: Vec<_> = directories.iter().map(|path| path.to_string_lossy()).collect();
        let kind = go_quoted(kind.as_bytes());
        missing(format!("failed to find plugin {kind} in path [{}]{obstacle}", searched.join(" ")))
    }

    fn run(
        &self,
        command: Command,
        attachment: Option<&Attachment>,
        invocation: &Invocation,
    ) -> Result<Vec<u8>, Error> {
        let environment = delegate_environment(command, attachment, invocation);
        self.call(invocation, &environment, invocation.config.bytes())
    }

    fn call(
        &self,
        invocation: &Invocation,
        environment: &BTreeMap<OsString, OsString>,
        stdin: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let root = Some(invocation.root.as_path()).filter(|_| !invocation.is_on_host());
        let output = execute(&self.file, root, environment, stdin, self.time_limit).map_err(|error| {
            let file = self.file.display();
            let place = root.map(|root| format!(" in the root {}", root.display())).unwrap_or_default();
            let text = os_error_text(&error);
            // A file that may not be executed has another error.
            let may_not = root.is_some() && error.raw_os_error() == Some(libc::EPERM);
            let remedy = if may_not { "; changing the root takes the capability SYS_CHROOT" } else { "" };
            silent_failure(&format!("fork/exec {file}{place}: {text}{remedy}"))
        })?;
        // What a plugin says on the side is for the operator, whether it failed or not.
        let _unwritable = io::stderr().write_all(&output.stderr);
        if output.status.success() { Ok(output.stdout) } else { Err(failure(&output)) }
    }
}

impl Plugin for ExecutedPlugin {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        let (plugin, attachment, invocation) = (self.clone(), attachment.clone(), invocation.clone());
        let added = plugin
            .run(Command::Add, Some(&attachment), &invocation)
            .and_then(|stdout| Success::parse(&stdout, invocation.config.version()?));
        match added {
            Ok(success) => Ok(Pending::new(success, move || plugin.del(&attachment, &invocation))),
            Err(error) => {
                // The specification asks for it: a failed ADD may have left something. Its own error is the one to tell.
                let _untold = plugin.del(&attachment, &invocation);
                Err(error)
            }
        }
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.run(Command::Del, Some(attachment), invocation).map(drop)
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.run(Command::Check, Some(attachment), invocation).map(drop)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Error> {
        self.run(Command::Status, None, invocation).map(drop)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Error> {
        self.run(Command::Gc, None, invocation).map(drop)
    }

    fn versions(&self, invocation: &Invocation) -> Result<Vec<String>, Error> {
        let mut environment = delegate_environment(Command::Version, None, invocation);
        // Plugins from before there was a VERSION ask for these before they say that they do not know it.
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            environment.insert(name.into(), "dummy".into());
        }
        let stdin = format!("{{\"cniVersion\":\"{}\"}}", Version::LATEST);
        match self.call(invocation, &environment, stdin.as_bytes()) {
            Ok(stdout) => {
                versions(&stdout).map_err(|error| Error::MalformedResult(format!("answer to VERSION: {error}")))
            }
            Err(Error::Plugin { object, .. }) if object.msg == "unknown CNI_COMMAND: VERSION" => {
                Ok(vec![Version::V0_1_0.to_string()])
            }
            Err(error) => Err(error),
        }
    }
}

fn delegate_environment(
    command: Command,
    attachment: Option<&Attachment>,
    invocation: &Invocation,
) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = invocation.environment.iter().cloned().collect();
    let mut set = |key: &str, value: OsString| environment.insert(key.into(), value);
    set("CNI_COMMAND", command.as_str().into());
    set("CNI_ARGS", invocation.args.clone().into());
    let path: Vec<_> = invocation.path.iter().map(|directory| directory.as_os_str()).collect();
    set("CNI_PATH", path.join(":".as_ref()));
    if let Some(attachment) = attachment {
        set("CNI_CONTAINERID", attachment.container_id.as_str().into());
        set("CNI_IFNAME", attachment.ifname.as_str().into());
        set("CNI_NETNS", attachment.netns.clone().unwrap_or_default().into());
    }
    environment
}

fn execute(
    file: &Path,
    root: Option<&Path>,
    environment: &BTreeMap<OsString, OsString>,
    stdin: &[u8],
    time: Duration,
) -> io::Result<Output> {
    let mut command = std::process::Command::new(file);
    command.env_clear().envs(environment).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    root.map_or(Ok(()), |root| change_root(&mut command, root))?;
    converse(start(command.process_group(0))?, stdin, time)
}

/// Starts the program. While somebody still writes the file, the kernel says "text file busy"; that passes.
fn start(command: &mut std::process::Command) -> io::Result<Child> {
    let mut pause = Duration::from_millis(10);
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && pause < Duration::from_secs(4) => {
                thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

fn versions(stdout: &[u8]) -> Result<Vec<String>, String> {
    let value = json::parse(stdout)?;
    let answer = Object::root(value.as_object().ok_or("it must be a JSON object")?);
    let supported = answer.strings("supportedVersions").map_err(|error| error.to_string())?;
    match answer.string("cniVersion").map_err(|error| error.to_string())? {
        _ if !supported.is_empty() => Ok(supported),
        // That version had no list yet.
        Some("0.2.0") => Ok(vec!["0.1.0".to_owned(), "0.2.0".to_owned()]),
        _ => Err("no supportedVersions".to_owned()),
    }
}

/// What a plugin said before it failed: an error object on standard output, or else words on standard error.
fn failure(output: &Output) -> Error {
    if !output.stdout.is_empty() {
        match error_object(&output.stdout) {
            // No error but a result, say, of a plugin that was killed before it could end.
            Ok(ErrorObject { code: 0, msg, .. }) if msg.is_empty() => {}
            Ok(object) => return Error::Plugin { object, source: None },
            Err(error) => {
                return Error::Execution(format!(
                    "netplugin failed but error parsing its diagnostic message {}: {error}",
                    quoted(&output.stdout)
                ));
            }
        }
    }
    if output.stderr.is_empty() {
        return silent_failure(&output.status.to_string());
    }
    Error::Execution(format!("netplugin failed: {}", quoted(&output.stderr)))
}

fn quoted(output: &[u8]) -> String {
    match output.get(..QUOTE_LIMIT) {
        Some(beginning) if output.len() > QUOTE_LIMIT => format!("{}…", go_quoted(beginning)),
        _ => go_quoted(output),
    }
}

fn error_object(stdout: &[u8]) -> Result<ErrorObject, String> {
    let value = json::parse(stdout)?;
    if value.is_null() {
        return Ok(ErrorObject::default());
    }
    let entries = value.as_object().ok_or("an error is a JSON object")?;
    let object = Object::root(entries);
    let read = || -> Result<ErrorObject, FieldError> {
        Ok(ErrorObject {
            code: object.integer("code")?.unwrap_or_default(),
            msg: object.string("msg")?.unwrap_or_default().to_owned(),
            details: object.string("details")?.unwrap_or_default().to_owned(),
        })
    };
    read().map_err(|error| error.to_string())
}

fn silent_failure(what: &str) -> Error {
    // The Go tools print "exit status 1" where Rust has "exit status: 1".
    Error::Execution(format!(
        "netplugin failed with no error message: {}",
        what.replace("exit status: ", "exit status ")
    ))
}
