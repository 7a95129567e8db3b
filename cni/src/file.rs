//! Files and directories, with errors that name them.

use std::{fs, io, path::Path};

use crate::{Error, WholeFile, whole_file::absent_is_none};

/// The content of `path`; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    WholeFile::new(path).read().map_err(failed("cannot read", path))
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

/// Makes `path` hold `content`; its directory is made when it is missing.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    WholeFile::new(path).in_directory(0o700).replace(content).map_err(failed("cannot write", path))
}

/// Removes `path`.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    WholeFile::new(path).remove().map(drop).map_err(failed("cannot remove", path))
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { attempt, path: path.to_owned(), source }
}
