//! Files that are there whole, or not at all, with errors that name them.

use std::{fs::File, io, path::Path};

use multus_cni::WholeFile;

use crate::Error;

/// Makes `path`, whose directory exists, hold `content`.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    file(path, mode).replace(content).map_err(Error::file("write", path))
}

/// Makes `path`, whose directory exists, hold what `write` writes.
pub(crate) fn replace_with(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    file(path, mode).replace_with(write).map_err(Error::file("write", path))
}

/// Removes `path`; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    WholeFile::new(path).remove().map_err(Error::file("remove", path))
}

/// The content of `path`; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    WholeFile::new(path).read().map_err(Error::file("read", path))
}

/// Of one node there may be several containers, as an old one ends.
fn file(path: &Path, mode: u32) -> WholeFile<'_> {
    WholeFile::new(path).with_mode(mode).durable().in_turn()
}
