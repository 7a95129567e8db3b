//! What can go wrong between us and the kernel.

use std::{fmt, io, path::PathBuf, time::Duration};

use multus_cni::os_error_text;
use nix::errno::Errno;

/// A failure of a request to the kernel, or of entering a namespace.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused. Displays as the kernel's words alone: the caller knows what it asked for.
    #[error("{}{}", errno_text(*.errno), Explanation(.explanation))]
    Refused {
        /// The request, such as `RTM_NEWLINK`.
        request: &'static str,
        /// The error number, as in errno(3).
        errno: i32,
        /// The kernel's extended acknowledgement, where it gave one.
        explanation: Option<String>,
    },
    /// No reply came in time.
    #[error("no reply from the kernel to {request} within {} s", .timeout.as_secs())]
    NoReply {
        /// The request.
        request: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// A reply came that makes no sense, or a dump that changed under way too often.
    #[error("no usable reply from the kernel to {request}: {problem}")]
    UnusableReply {
        /// The request.
        request: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The netlink socket itself failed.
    #[error("netlink socket: {attempt}: {}", os_error_text(.source))]
    Socket {
        /// What was attempted on it.
        attempt: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The file of a network namespace could not be examined; mostly it does not exist.
    #[error("failed to Statfs {path:?}: {}", os_error_text(.source))]
    NamespaceUnreachable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file exists, and is no namespace.
    #[error("unknown FS magic on {path:?}: {magic:x}")]
    NotANamespace {
        /// The file.
        path: PathBuf,
        /// The magic number of the file system it is on.
        magic: i64,
    },
    /// The namespace could not be opened or entered.
    #[error("{attempt} {path}: {}{}", os_error_text(.source), remedy(.attempt, .source))]
    Namespace {
        /// `open`, `stat`, `setns`, or `start a thread in`.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file under `/proc/sys` could not be read or written.
    #[error("{key}: {}", os_error_text(.source))]
    Sysctl {
        /// The key, such as `net/ipv4/conf/eth0/arp_notify`.
        key: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The work inside a namespace panicked.
    #[error("internal error inside the namespace: {0}")]
    Panicked(String),
}

impl Error {
    /// The error number, where the kernel gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Socket { source, .. }
            | Self::NamespaceUnreachable { source, .. }
            | Self::Namespace { source, .. }
            | Self::Sysctl { source, .. } => source.raw_os_error(),
            Self::NoReply { .. } | Self::UnusableReply { .. } | Self::NotANamespace { .. } | Self::Panicked(_) => None,
        }
    }

    /// Whether a request may have been carried out all the same: its answer never came, or cannot be used.
    #[must_use]
    pub fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoReply { .. } | Self::UnusableReply { .. } | Self::Socket { .. })
    }

    /// Whether what was asked for does not exist: a link, a namespace.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        let errno = self.errno().map(Errno::from_raw);
        matches!(errno, Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO))
    }

    /// Whether what was to be made exists already.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.errno().map(Errno::from_raw) == Some(Errno::EEXIST)
    }
}

/// The words for an error number, as the C library has them, in lower case: `file exists`.
#[must_use]
pub fn errno_text(errno: i32) -> String {
    os_error_text(&io::Error::from_raw_os_error(errno))
}

/// What the kernel's words mean for whoever enters a namespace.
fn remedy(attempt: &str, source: &io::Error) -> &'static str {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) if attempt == "setns" => "; entering a network namespace takes the capability SYS_ADMIN",
        Some(Errno::EINVAL) if attempt == "setns" => "; it is a namespace of another kind",
        _ => "",
    }
}

struct Explanation<'a>(&'a Option<String>);

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |text| write!(formatter, ": {text}"))
    }
}
