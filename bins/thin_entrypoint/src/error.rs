//! What can fail.

use std::{
    io,
    path::{Path, PathBuf},
};

use multus_cni::os_error_text;

/// A failure to put something in its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written or removed.
    #[error("cannot {attempt} {path:?}: {}", os_error_text(.source))]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The cluster network's configuration cannot be used.
    #[error("master configuration {path:?}: {problem}")]
    Master {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that is waited for is not there.
    #[error("there is no {0} yet; waiting for it")]
    Absent(String),
    /// The options from which a configuration is made are wrong.
    #[error("configuration: {0}")]
    Options(String),
    /// The kernel refuses what waiting needs.
    #[error("cannot wait for changes: {0}")]
    Wait(#[source] io::Error),
}

impl Error {
    pub(crate) fn file(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { attempt, path, source }
    }
}
