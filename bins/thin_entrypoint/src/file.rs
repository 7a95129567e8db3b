//! Files that are there whole, or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::Error;

/// Makes `path`, whose directory exists, hold `content`.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    replace_with(path, mode, |file| file.write_all(content))
}

/// Makes `path`, whose directory exists, hold what `write` writes.
pub(crate) fn replace_with(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), Error> {
    let replace = || {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        // One at a time, also among processes of different containers; a killed one lets go.
        let turn = File::open(directory)?;
        turn.lock()?;
        // No runtime reads files of this ending, nor ones that begin with a dot.
        let temporary = directory.join(format!(".{}.new", name.to_string_lossy()));
        absent_is_fine(fs::remove_file(&temporary))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = write(&mut file)
            .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
            // Else a power cut could leave the new name with nothing in it.
            .and_then(|()| file.sync_all());
        drop(file);
        written.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
    };
    replace().map_err(Error::file("write", path))
}

/// Removes `path`; whether it was there.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(Error::file("remove", path)),
    }
}

/// The content of `path`; `None` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        content => content.map(Some).map_err(Error::file("read", path)),
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
