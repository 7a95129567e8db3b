//! What keeps the tool from doing what it was asked.

use std::{io, path::PathBuf};

use host_local_ipam::StoreError;
use multus_cni::os_error_text;

/// Each is a sentence that names the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}; `host-local --help` lists the commands and their options")]
    Usage(String),
    #[error("{0}{remedy}", remedy = remedy(&.0.source))]
    Store(#[from] StoreError),
    #[error("cannot read {path:?}: {}{remedy}", os_error_text(.source), remedy = remedy(.source))]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the result: {}", os_error_text(.0))]
    Write(io::Error),
    #[error("{path:?} is no {wanted}: {problem}")]
    Content { path: PathBuf, wanted: &'static str, problem: String },
    #[error("{0}")]
    Refused(String),
}

fn remedy(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "; run host-local as root"
    } else if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) {
        "; give the right path, see `host-local --help`"
    } else {
        ""
    }
}
