//! Whole files: read when they are files, and replaced in one step.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::Error;

/// The content of `path`; `None` when there is no such file. A pipe or device is refused: it might never end.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let content = fs::metadata(path).and_then(|file| {
        if file.is_file() { fs::read(path) } else { Err(io::Error::other("it is not a regular file")) }
    });
    absent_is_none(content).map_err(failed("cannot read", path))
}

/// The names in `directory`, sorted; none when there is no such directory. Names that are not text are nobody's here.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let list = |entries: fs::ReadDir| entries.map(|entry| Ok(entry?.file_name().into_string().ok())).collect();
    let names: io::Result<Vec<Option<String>>> = fs::read_dir(directory).and_then(list);
    let names = absent_is_none(names).map_err(failed("cannot read", directory))?;
    let mut names: Vec<String> = names.unwrap_or_default().into_iter().flatten().collect();
    names.sort();
    Ok(names)
}

/// Makes `path` hold `content`, or leaves it as it was; its directory is made when it is missing. Whoever may write the
/// same file at the same time must take turns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let temporary = temporary(path);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content).and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
            // Or the next one does.
            let _left = fs::remove_file(&temporary);
        })
    };
    write().map_err(failed("cannot write", path))
}

/// Removes `path`, and what a killed [`replace`] may have left beside it.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let _harmless = fs::remove_file(temporary(path));
    absent_is_none(fs::remove_file(path)).map(drop).map_err(failed("cannot remove", path))
}

/// Whoever lists the directory passes over names that begin with a dot.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}"))
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        // There is no file of a name that no file can have.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => Ok(None),
        other => other.map(Some),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { attempt, path: path.to_owned(), source }
}
