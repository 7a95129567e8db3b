//! What can go wrong between a runtime and the daemon.

use std::{path::PathBuf, time::Duration};

use multus_cni::{ErrorCode, ErrorObject, FieldError};

use crate::{HttpError, SpoolError};

/// A failure of the shim, or of the daemon behind it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the configuration is malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// A variable that cannot be told in JSON.
    #[error("{0} is not UTF-8, and multus-daemon takes nothing else")]
    NotText(&'static str),
    /// The daemon was not ready in time.
    #[error(
        "multus-daemon not ready on {} after {} s: {obstacle}; see the kube-multus-ds pod of this node",
        .socket.display(), .waited.as_secs()
    )]
    NotReady {
        /// Its socket.
        socket: PathBuf,
        /// How long it was waited for.
        waited: Duration,
        /// What the last try ended with.
        obstacle: String,
        /// Whether it was a STATUS that asked.
        status: bool,
    },
    /// The daemon was there, and then there was no answer.
    #[error("no answer of multus-daemon on {}: {source}; see the kube-multus-ds pod of this node", .socket.display())]
    NoAnswer {
        /// Its socket.
        socket: PathBuf,
        /// What came instead.
        source: HttpError,
    },
    /// The daemon failed with an error object, which goes on as it is.
    #[error("{0}")]
    Object(ErrorObject),
    /// The daemon failed with words.
    #[error("CNI request failed with status {status}: '{body}'")]
    Text {
        /// The HTTP status.
        status: u16,
        /// The words.
        body: String,
    },
    /// The daemon said that the ADD succeeded, but not with what.
    #[error("multus-daemon gave no result that can be read: {0}")]
    NoResult(String),
    /// The daemon is away and the DEL cannot be kept for it.
    #[error("multus-daemon is away ({obstacle}), and the DEL cannot be kept for it: {source}")]
    NotKept {
        /// What the try to reach it ended with.
        obstacle: String,
        /// Why the request could not be kept.
        source: SpoolError,
    },
}

impl Error {
    /// The code of the error object.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotText(_) => ErrorCode::InvalidEnvironment,
            // It asks whether an ADD could be served: no.
            Self::NotReady { status: true, .. } => ErrorCode::NotAvailable,
            Self::NotKept { .. } => ErrorCode::Io,
            Self::Object(object) => ErrorCode::from(object.code),
            Self::Field(_)
            | Self::NotReady { status: false, .. }
            | Self::NoAnswer { .. }
            | Self::Text { .. }
            | Self::NoResult(_) => ErrorCode::Internal,
        }
    }
}

impl From<Error> for multus_cni::Error {
    fn from(error: Error) -> Self {
        if let Error::Object(object) = error {
            return Self::Plugin { object, source: None };
        }
        Self::from_plugin(error.code(), error)
    }
}
