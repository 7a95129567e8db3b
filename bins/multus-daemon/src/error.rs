//! What can go wrong with the daemon itself.

use std::{io, path::PathBuf};

use multus_cni::os_error_text;

use crate::arguments::USAGE;

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error("configuration file {}: {problem}", .path.display())]
    Options { path: PathBuf, problem: String },
    #[error("{attempt} {}: {}", .on, os_error_text(.source))]
    Io { attempt: &'static str, on: String, source: io::Error },
    #[error(transparent)]
    Placement(#[from] thin_entrypoint::Error),
    #[error(transparent)]
    Cluster(#[from] multus_core::kubernetes::Error),
    #[error("not healthy: {0}")]
    Unhealthy(String),
}

impl Error {
    pub(crate) fn io(attempt: &'static str, on: impl ToString) -> impl FnOnce(io::Error) -> Self {
        let on = on.to_string();
        move |source| Self::Io { attempt, on, source }
    }
}
