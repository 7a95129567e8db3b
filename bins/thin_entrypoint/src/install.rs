//! Programs on the host.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{Error, Kubeconfig, file, template::Generated};

/// Puts a copy of the file `program`, with its permissions, into `directory`, in place of one of the same name. Processes
/// that run the old one go on with it, and no call finds the program missing or half there.
///
/// # Errors
/// [`Error::File`]; then what was there stays.
pub fn install(program: &Path, directory: &Path) -> Result<(), Error> {
    let read = |error| Error::file("read", program)(error);
    let mut source = File::open(program).map_err(read)?;
    let metadata = source.metadata().map_err(read)?;
    let name = program.file_name().filter(|_| metadata.is_file());
    let name = name.ok_or_else(|| read(io::Error::other("it is not a regular file")))?;
    let mode = metadata.permissions().mode() & 0o7777;
    file::replace_with(&directory.join(name), mode, |copy| io::copy(&mut source, copy).map(drop))
}

/// Takes the generated configuration out of `conf_dir` first, so that the runtime uses the cluster network's own again, then
/// the kubeconfig, and the files called `programs` out of `bin_dir`. Returns what was there.
///
/// # Errors
/// The first failure; the rest was removed all the same.
pub fn uninstall(conf_dir: &Path, bin_dir: &Path, programs: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let kubeconfig = conf_dir.join(Kubeconfig::FILE);
    let configurations = Generated::FILE_NAMES.iter().map(|name| conf_dir.join(name));
    let programs = programs.iter().map(|name| bin_dir.join(name));
    let mut removed = Vec::new();
    let mut failure = None;
    for path in configurations.chain([kubeconfig.clone()]).chain(programs) {
        match file::remove(&path) {
            Ok(true) => removed.push(path),
            Ok(false) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    // Unless it holds something that is not ours.
    let _in_use = kubeconfig.parent().map(fs::remove_dir);
    failure.map_or(Ok(removed), Err)
}
