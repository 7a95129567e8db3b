//! What a runtime asks of a plugin.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use crate::{ContainerId, Error, InterfaceName, NetworkConfig, host_path};

/// What to do, as `CNI_COMMAND` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach a container.
    Del,
    /// Verify an attachment.
    Check,
    /// Free what belongs to no attachment of a list.
    Gc,
    /// Tell whether ADD could be served.
    Status,
    /// Tell the versions spoken.
    Version,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version];

    /// The word in `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The command of that name, in capital letters.
    ///
    /// # Errors
    /// [`Error::UnknownCommand`].
    pub fn parse(word: &str) -> Result<Self, Error> {
        let known = Self::ALL.into_iter().find(|command| command.as_str() == word);
        known.ok_or_else(|| Error::UnknownCommand(word.to_owned()))
    }
}

/// Environment variables as a process got them, passed on to executed plugins.
#[derive(Clone, Debug, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// The value of `name`, unless unset or empty. The last one wins.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.set(name).filter(|value| !value.is_empty())
    }

    /// The value of `name`, which may be empty, unless unset.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&OsStr> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
    }

    /// All variables.
    pub fn iter(&self) -> impl Iterator<Item = &(OsString, OsString)> {
        self.0.iter()
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// One interface of one container: what ADD, DEL and CHECK are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The runtime's name of the container.
    pub container_id: ContainerId,
    /// The interface to make inside.
    pub ifname: InterfaceName,
    /// The path of the sandbox's network namespace, exactly as the runtime gave it. DEL may come without.
    pub netns: Option<PathBuf>,
}

impl Attachment {
    /// What tells this attachment from all others of its network.
    #[must_use]
    pub fn id(&self) -> AttachmentId {
        AttachmentId { container_id: self.container_id.to_string(), ifname: self.ifname.to_string() }
    }

    /// The namespace path as text, as results carry it; empty when there is none.
    #[must_use]
    pub fn sandbox(&self) -> String {
        self.netns.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The identity of an attachment within its network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachmentId {
    /// The container's ID.
    pub container_id: String,
    /// The interface's name.
    pub ifname: String,
}

impl AttachmentId {
    /// A number for the attachment that is the same in every process and every build (FNV-1a), unlike that of
    /// [`Hash`](std::hash::Hash). Two attachments may have the same.
    #[must_use]
    pub fn stable_hash(&self) -> u64 {
        Self::stable_hash_of(&self.container_id, &self.ifname)
    }

    /// [`stable_hash`](Self::stable_hash) of the attachment with these names.
    #[must_use]
    pub fn stable_hash_of(container_id: &str, ifname: &str) -> u64 {
        stable_hash(&[container_id.as_bytes(), b"\0", ifname.as_bytes(), b"\0"].concat())
    }
}

/// FNV-1a.
pub(crate) fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The circumstances of a call: configuration, arguments, and where to find plugins and the host's files.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Invocation {
    /// The network configuration.
    pub config: NetworkConfig,
    /// `CNI_ARGS` as given; each plugin reads the keys it knows, see [`Args`](crate::Args).
    pub args: String,
    /// Directories with plugin executables, `CNI_PATH`.
    pub path: Vec<PathBuf>,
    /// What executed plugins inherit.
    pub environment: Environment,
    /// Where the host's file system is mounted; `/` unless this process runs in a container.
    pub root: PathBuf,
}

impl Invocation {
    /// A call with `config` and nothing else: no arguments, no plugin path, no environment, the host's root at `/`.
    #[must_use]
    pub fn new(config: NetworkConfig) -> Self {
        Self {
            config,
            args: String::new(),
            path: Vec::new(),
            environment: Environment::default(),
            root: PathBuf::from("/"),
        }
    }

    /// Where this process finds the host's file `path`. A relative path is left alone. Symbolic links are followed as on the
    /// host: where `/var/run` is one to `/run`, `/var/run/x` is in the `run` under [`root`](Self::root).
    #[must_use]
    pub fn on_host(&self, path: &Path) -> PathBuf {
        if self.is_on_host() || path.is_relative() { path.to_owned() } else { host_path::resolve(&self.root, path) }
    }

    /// Whether this process's root is the host's.
    #[must_use]
    pub fn is_on_host(&self) -> bool {
        self.root == Path::new("/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stable_hash_never_changes() {
        let hash = |container_id: &str, ifname: &str| {
            AttachmentId { container_id: container_id.to_owned(), ifname: ifname.to_owned() }.stable_hash()
        };
        assert_eq!(hash("c1", "eth0"), 0xa35a_d96f_1967_7b26);
        assert_ne!(hash("c1e", "th0"), hash("c1", "eth0"));
    }
}
