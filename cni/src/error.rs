//! Every failure of the protocol, and the error object it becomes on standard output.

use std::{error::Error as StdError, io, path::PathBuf};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::{
    json::{FieldError, go_json},
    shortened,
};

/// A failure on its way to the runtime.
///
/// [`code`](Self::code) gives the number of the [CNI error object]; [`object`](Self::object) the whole of it.
///
/// [CNI error object]: https://github.com/containernetworking/cni/blob/main/SPEC.md#error
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime left out environment variables that the command needs.
    #[error("required env variables [{}] missing", .0.join(","))]
    MissingEnvironment(Vec<&'static str>),
    /// `CNI_COMMAND` is none of ADD, DEL, CHECK, GC, STATUS, VERSION.
    #[error("unknown CNI_COMMAND: {}", shortened(.0))]
    UnknownCommand(String),
    /// An empty container ID.
    #[error("missing containerID")]
    MissingContainerId,
    /// A container ID with characters outside `[a-zA-Z0-9_.-]`, or not starting with a letter or digit.
    #[error("invalid characters in containerID")]
    InvalidContainerId(String),
    /// An interface name the kernel would refuse.
    #[error("{problem}")]
    InvalidInterfaceName {
        /// What is wrong with it.
        problem: &'static str,
        /// The rule, or the name.
        details: String,
    },
    /// Standard input could not be read.
    #[error("error reading from stdin: {0}")]
    Stdin(#[source] io::Error),
    /// The configuration is not JSON, or not an object.
    #[error("error unmarshall network config: {0}")]
    MalformedConfig(String),
    /// The configuration list is not usable.
    #[error("error parsing configuration list: {0}")]
    MalformedConfigList(String),
    /// The configuration has no `name`.
    #[error("missing network name")]
    MissingNetworkName,
    /// A network name with characters outside `[a-zA-Z0-9_.-]`, or not starting with a letter or digit.
    #[error("invalid characters found in network name")]
    InvalidNetworkName(String),
    /// `cniVersion` is not a string, or not a version where one must be compared.
    #[error("{0}")]
    MalformedVersion(String),
    /// `cniVersion` is not one of the versions this implementation speaks.
    #[error("incompatible CNI versions")]
    IncompatibleVersion(String),
    /// The command is newer than the configuration's version, or the version newer than this implementation.
    #[error("{who} version does not allow {command}")]
    CommandNotInVersion {
        /// `config` or `plugin`: whose version is too old.
        who: &'static str,
        /// The command refused.
        command: &'static str,
    },
    /// `CNI_NETNS` is the namespace this process runs in: acting would hit the host.
    #[error("plugin's netns and netns from CNI_NETNS should not be the same")]
    NetnsIsOwn(String),
    /// `CNI_ARGS` is malformed or has keys nobody here knows.
    #[error("ARGS: {0}")]
    Args(String),
    /// A configuration key with a value of the wrong type or range.
    #[error("{0}")]
    Field(#[from] FieldError),
    /// A result that is not a CNI result.
    #[error("{0}")]
    MalformedResult(String),
    /// The result cannot be told in the version the configuration asks for.
    #[error("cannot convert: no valid IP addresses")]
    NoAddressToConvert,
    /// The result could not be written to standard output; what the ADD had made is undone.
    #[error("cannot write the result to stdout: {0}")]
    Stdout(#[source] io::Error),
    /// CHECK of a list whose version is older than the command.
    #[error("configuration version {:?} does not support the CHECK command", shortened(.0))]
    CheckNotSupported(String),
    /// A plugin that does not speak the version of its list.
    #[error("plugin {kind} does not support config version {version:?}")]
    VersionNotSpoken {
        /// The plugin's type.
        kind: String,
        /// The list's version.
        version: String,
    },
    /// No file of a directory configures the network.
    #[error("no net configuration with name {name:?} in {}", .directory.display())]
    NetworkNotFound {
        /// The network's name.
        name: String,
        /// Where it was searched.
        directory: PathBuf,
    },
    /// A file or directory that could not be read or written.
    #[error("{attempt} {}: {}", .path.display(), os_error_text(.source))]
    File {
        /// What was attempted: `cannot read`.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file of the result cache that tells of no attachment, or not of the one that it is named after.
    #[error("cached result {}: {problem}; delete the file if nothing else uses it", .path.display())]
    MalformedCache {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An error with the words that say what it belongs to; it keeps its code.
    #[error("{what}: {source}")]
    Context {
        /// What was being done, or where the error is.
        what: String,
        /// The error.
        source: Box<Self>,
    },
    /// Several errors, of which the first gives the code.
    #[error("{}", joined(.0))]
    Several(Vec<Self>),
    /// The failure of an ADD of which something remains, since undoing it failed as well: its DEL is needed.
    #[error(transparent)]
    NotUndone(Box<Self>),
    /// A plugin that is neither built in nor found in the plugin path.
    #[error("{0}")]
    PluginNotFound(String),
    /// A plugin that could not be started, or that failed without an error object.
    #[error("{0}")]
    Execution(String),
    /// An error object, from a plugin in this process or an executed one.
    #[error("{object}")]
    Plugin {
        /// What the plugin said.
        object: ErrorObject,
        /// The typed error of a plugin in this process.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },
}

impl Error {
    /// The failure of a plugin in this process, with its code from the CNI list.
    #[must_use]
    pub fn from_plugin(code: ErrorCode, error: impl StdError + Send + Sync + 'static) -> Self {
        let object = ErrorObject { code: code.number(), msg: error.to_string(), details: String::new() };
        Self::Plugin { object, source: Some(Box::new(error)) }
    }

    /// The same error with words before it.
    #[must_use]
    pub fn within(self, what: impl Into<String>) -> Self {
        Self::Context { what: what.into(), source: Box::new(self) }
    }

    /// Success when there were no errors, else all of them as one.
    ///
    /// # Errors
    /// The only one, or [`Error::Several`].
    pub fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }

    /// Whether something remains of the ADD that failed by this.
    #[must_use]
    pub fn remains(&self) -> bool {
        if let Self::Several(errors) = self {
            return errors.iter().any(Self::remains);
        }
        let inner = if let Self::Context { source, .. } = self { Some(source) } else { None };
        matches!(self, Self::NotUndone(_)) || inner.is_some_and(|inner| inner.remains())
    }

    /// Whether a configuration was refused for its name alone.
    pub(crate) fn is_of_name(&self) -> bool {
        matches!(self, Self::MissingNetworkName | Self::InvalidNetworkName(_))
            || matches!(self, Self::Context { source, .. } if source.is_of_name())
    }

    /// The code of the error object.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::MissingEnvironment(_)
            | Self::UnknownCommand(_)
            | Self::InvalidContainerId(_)
            | Self::InvalidInterfaceName { .. } => ErrorCode::InvalidEnvironment,
            Self::MissingContainerId => ErrorCode::UnknownContainer,
            Self::Stdin(_) | Self::Stdout(_) => ErrorCode::Io,
            Self::MalformedConfig(_) | Self::MalformedConfigList(_) | Self::MalformedVersion(_) => ErrorCode::Decoding,
            Self::MissingNetworkName | Self::InvalidNetworkName(_) => ErrorCode::InvalidConfig,
            Self::IncompatibleVersion(_) | Self::CommandNotInVersion { .. } => ErrorCode::IncompatibleVersion,
            Self::NetnsIsOwn(_) => ErrorCode::InvalidNetns,
            Self::Args(_)
            | Self::Field(_)
            | Self::MalformedResult(_)
            | Self::NoAddressToConvert
            | Self::CheckNotSupported(_)
            | Self::VersionNotSpoken { .. }
            | Self::NetworkNotFound { .. }
            | Self::File { .. }
            | Self::MalformedCache { .. }
            | Self::PluginNotFound(_) => ErrorCode::Internal,
            Self::Context { source, .. } | Self::NotUndone(source) => source.code(),
            Self::Several(errors) => errors.first().map_or(ErrorCode::Internal, Self::code),
            // What libcni gives for a delegate that died without a word.
            Self::Execution(_) => ErrorCode::Other(0),
            Self::Plugin { object, .. } => ErrorCode::from(object.code),
        }
    }

    /// The error object a plugin prints.
    #[must_use]
    pub fn object(&self) -> ErrorObject {
        if let Self::Plugin { object, .. } = self {
            return object.clone();
        }
        if let Self::NotUndone(error) = self {
            return error.object();
        }
        ErrorObject { code: self.code().number(), msg: self.to_string(), details: self.details() }
    }

    fn details(&self) -> String {
        if let Self::InvalidContainerId(given) | Self::InvalidNetworkName(given) = self {
            shortened(given).into_owned()
        } else if let Self::InvalidInterfaceName { details, .. } = self {
            details.clone()
        } else if let Self::IncompatibleVersion(given) = self {
            let known: Vec<String> = crate::Version::ALL.iter().map(|v| format!("\"{v}\"")).collect();
            format!("config is \"{}\", plugin supports [{}]", shortened(given), known.join(" "))
        } else if let Self::NetnsIsOwn(path) = self {
            format!(
                "{path} is the network namespace this plugin itself runs in; nothing was changed; \
                 CNI_NETNS must name the sandbox"
            )
        } else if let Self::Context { source, .. } = self {
            source.details()
        } else {
            String::new()
        }
    }
}

fn joined(errors: &[Error]) -> String {
    errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

/// The code of an error object; 1 to 99 belong to the CNI specification, 100 and above to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorCode {
    /// 1: the versions of configuration and plugin do not meet.
    IncompatibleVersion,
    /// 2: a field of the configuration is not supported.
    UnsupportedField,
    /// 3: the container is unknown or does not exist.
    UnknownContainer,
    /// 4: a necessary environment variable is missing or invalid.
    InvalidEnvironment,
    /// 5: input or output failed.
    Io,
    /// 6: content could not be decoded.
    Decoding,
    /// 7: the network configuration is invalid.
    InvalidConfig,
    /// 8: the network namespace is invalid.
    InvalidNetns,
    /// 11: a transient condition; the runtime should try again later.
    TryAgainLater,
    /// 50: STATUS: the plugin cannot serve ADD.
    NotAvailable,
    /// 51: STATUS: as 50, and existing containers may have limited connectivity.
    LimitedConnectivity,
    /// 999: everything without a code of its own.
    Internal,
    /// A code of somebody else's plugin.
    Other(u32),
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::InvalidNetns => 8,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Internal => 999,
            Self::Other(number) => number,
        }
    }
}

impl From<u32> for ErrorCode {
    fn from(number: u32) -> Self {
        match number {
            1 => Self::IncompatibleVersion,
            2 => Self::UnsupportedField,
            3 => Self::UnknownContainer,
            4 => Self::InvalidEnvironment,
            5 => Self::Io,
            6 => Self::Decoding,
            7 => Self::InvalidConfig,
            8 => Self::InvalidNetns,
            11 => Self::TryAgainLater,
            50 => Self::NotAvailable,
            51 => Self::LimitedConnectivity,
            999 => Self::Internal,
            other => Self::Other(other),
        }
    }
}

/// The error object as printed: code, message, and details where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(default)]
#[error("{msg}{}{details}", if .details.is_empty() { "" } else { "; " })]
pub struct ErrorObject {
    /// The number, see [`ErrorCode`].
    pub code: u32,
    /// One sentence for the user.
    pub msg: String,
    /// More about it; often empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl ErrorObject {
    /// The bytes a plugin prints on standard output.
    #[must_use]
    pub fn print(&self) -> Vec<u8> {
        go_json(self)
    }
}

/// Whether an error says that the process or the machine has run out of something, descriptors or memory: then it says nothing
/// of what could not be read, and whoever takes it for unreadable, or not there, loses it.
#[must_use]
pub fn is_lack(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// The words for an operating system's error as the Go tools print them: `file exists`, without a number.
#[must_use]
pub fn os_error_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}
