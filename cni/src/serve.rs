//! A plugin as a process: environment and standard input in, result or error object out.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{Attachment, Command, Environment, Error, InterfaceName, Invocation, NetworkConfig, Plugin, Version};

/// A configuration has less than 1.5 MB where it is an object of the API, and the result of a plugin before it is added.
const STDIN_LIMIT: u64 = 16 << 20;

/// Who a plugin is, for those who run it without `CNI_COMMAND`.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The plugin's `type`.
    pub name: &'static str,
    /// The program's version.
    pub version: &'static str,
}

/// Serves one call and returns the exit status: 0, or 1 with an error object on `stdout`.
///
/// The program passes in its environment, standard input and outputs. An ADD whose result cannot be written is undone.
pub fn serve(
    plugin: &dyn Plugin,
    about: About,
    environment: Environment,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> u8 {
    let Err(error) = dispatch(plugin, about, environment, stdin, stdout, stderr) else {
        return 0;
    };
    if let Err(unwritable) = stdout.write_all(&error.object().print()).and_then(|()| stdout.flush()) {
        let _nowhere_left = writeln!(stderr, "Error writing error JSON to stdout: {unwritable}; it was: {error}");
    }
    1
}

fn dispatch(
    plugin: &dyn Plugin,
    about: About,
    environment: Environment,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> Result<(), Error> {
    let Some(word) = environment.value("CNI_COMMAND").map(text) else {
        let _nobody_reads = write!(stderr, "{}", introduction(about));
        return Ok(());
    };
    let command = Command::parse(&word);
    let attachment = attachment(command.as_ref().ok(), &environment)?;
    if let Ok(Command::Version) = command {
        return stdout.write_all(versions().as_bytes()).and_then(|()| stdout.flush()).map_err(Error::Stdout);
    }

    let mut bytes = Vec::with_capacity(8 * 1024);
    stdin.take(STDIN_LIMIT + 1).read_to_end(&mut bytes).map_err(Error::Stdin)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > STDIN_LIMIT) {
        let problem = format!("the network configuration is longer than {STDIN_LIMIT} bytes");
        return Err(Error::Stdin(io::Error::other(problem)));
    }
    let config = NetworkConfig::parse(bytes)?;
    let command = command?;
    let version = Version::negotiate(config.version_text()?, command)?;

    let mut invocation = Invocation::new(config);
    invocation.args = environment.value("CNI_ARGS").map(text).unwrap_or_default();
    invocation.path =
        environment.value("CNI_PATH").map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    invocation.environment = environment;

    match (command, attachment) {
        (Command::Add, Some(attachment)) => {
            refuse_own_netns(&attachment, &invocation)?;
            let pending = plugin.add(&attachment, &invocation)?;
            let printed = pending
                .success()
                .print(version)
                .and_then(|result| stdout.write_all(&result).and_then(|()| stdout.flush()).map_err(Error::Stdout));
            match printed {
                Ok(()) => drop(pending.keep()),
                Err(error) => {
                    if let Err(remains) = pending.undo() {
                        let _nobody_reads = writeln!(stderr, "undoing the ADD failed: {remains}");
                    }
                    return Err(error);
                }
            }
            Ok(())
        }
        (Command::Del, Some(attachment)) => {
            refuse_own_netns(&attachment, &invocation)?;
            plugin.del(&attachment, &invocation)
        }
        (Command::Check, Some(attachment)) => plugin.check(&attachment, &invocation),
        (Command::Gc, _) => plugin.gc(&invocation),
        (Command::Status, _) => plugin.status(&invocation),
        // VERSION is answered above, and the other three have an attachment or have failed for want of one.
        (Command::Version | Command::Add | Command::Del | Command::Check, _) => Ok(()),
    }
}

/// Reads the variables that `command` requires, in the order in which the Go library visits them: a bad value is
/// reported before a missing one.
fn attachment(command: Option<&Command>, environment: &Environment) -> Result<Option<Attachment>, Error> {
    let required: &[&str] = match command {
        Some(Command::Add | Command::Check) => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"],
        Some(Command::Del) => &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
        Some(Command::Gc | Command::Status) => &["CNI_PATH"],
        Some(Command::Version) | None => &[],
    };
    let value = |name| environment.value(name).filter(|_| required.contains(&name)).map(text);
    let container_id = value("CNI_CONTAINERID").map(|id| id.parse()).transpose()?;
    let ifname = value("CNI_IFNAME").map(|name| interface_name(&name, environment)).transpose()?;
    let missing: Vec<&str> = required.iter().copied().filter(|name| environment.value(name).is_none()).collect();
    if !missing.is_empty() {
        return Err(Error::MissingEnvironment(missing));
    }
    Ok(container_id.zip(ifname).map(|(container_id, ifname)| Attachment {
        container_id,
        ifname,
        netns: environment.value("CNI_NETNS").map(PathBuf::from),
    }))
}

/// An interface cannot have a name that is not text, and must not get a similar one instead.
fn interface_name(name: &str, environment: &Environment) -> Result<InterfaceName, Error> {
    if environment.value("CNI_IFNAME").is_some_and(|name| name.to_str().is_none()) {
        let problem = "interface name is not UTF-8";
        return Err(Error::InvalidInterfaceName { problem, details: name.to_owned() });
    }
    name.parse()
}

/// Fails where the attachment's namespace is that of this very process: acting on it would give the host a container's
/// interface, or delete one of its own. `CNI_NETNS_OVERRIDE` allows it.
///
/// # Errors
/// [`Error::NetnsIsOwn`].
pub fn refuse_own_netns(attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
    let overridden = invocation.environment.value("CNI_NETNS_OVERRIDE").map(text).unwrap_or_default();
    if overridden == "1" || overridden.eq_ignore_ascii_case("true") {
        return Ok(());
    }
    let Some(netns) = &attachment.netns else {
        return Ok(());
    };
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let own = identity(Path::new("/proc/thread-self/ns/net"));
    if own.is_some() && own == identity(&invocation.on_host(netns)) {
        return Err(Error::NetnsIsOwn(netns.display().to_string()));
    }
    Ok(())
}

fn introduction(about: About) -> String {
    let versions: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
    format!("CNI {} plugin v{}\nCNI protocol versions supported: {}\n", about.name, about.version, versions.join(", "))
}

fn versions() -> String {
    let versions: Vec<String> = Version::ALL.iter().map(|version| format!("\"{version}\"")).collect();
    format!("{{\"cniVersion\":\"{}\",\"supportedVersions\":[{}]}}\n", Version::LATEST, versions.join(","))
}

fn text(value: &OsStr) -> String {
    value.to_string_lossy().into_owned()
}
