//! Lists in files, and in a directory by the name of the network.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, NetworkConfigList, NetworkName, config_list::ListedPlugin, file};

impl NetworkConfigList {
    /// Reads a file: a `.conflist` with the plugins of its [sub-directory](Self::chained), any other as the configuration
    /// of a single plugin.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and when a file cannot be read; each names the file.
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        let Some(directory) = path.parent().filter(|_| has_extension(path, "conflist")) else {
            return read(path, Self::parse_single);
        };
        let list = read(path, Self::parse_inlined)?.chained(directory)?;
        list.with_any_plugin().map_err(|error| error.within(path.display().to_string()))
    }

    /// The list of the network `name` in `directory`: the first `.conflist` by file name, or else the first `.conf` or
    /// `.json` with a single plugin.
    ///
    /// # Errors
    /// [`Error::NetworkNotFound`]; those of [`from_file`](Self::from_file), also for files that come before the right one.
    pub fn from_directory(directory: &Path, name: &NetworkName) -> Result<Self, Error> {
        let lists = configuration_files(directory, &["conflist"])?;
        for path in lists.into_iter().chain(configuration_files(directory, &["conf", "json"])?) {
            match Self::from_file(&path) {
                Ok(list) if list.name() == name => return Ok(list),
                // Another network, or none that could be asked for.
                Ok(_) => {}
                Err(error) if error.is_of_name() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::NetworkNotFound { name: name.to_string(), directory: directory.to_owned() })
    }

    /// The list with the plugins in `<directory>/<network>/*.conf` after its own, by file name, unless it says
    /// `loadOnlyInlinedPlugins`.
    ///
    /// # Errors
    /// When a file cannot be read or configures no plugin; it names the file.
    pub fn chained(self, directory: &Path) -> Result<Self, Error> {
        if self.only_inlined {
            return Ok(self);
        }
        let files = configuration_files(&directory.join(self.name().as_str()), &["conf"])?;
        let plugins = files.iter().map(|path| read(path, ListedPlugin::parse)).collect::<Result<_, _>>()?;
        self.with_plugins(plugins)
    }
}

/// The files in `directory` with one of `extensions`, by name; none when there is no such directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn configuration_files(directory: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let paths = file::names(directory)?.into_iter().map(|name| directory.join(name));
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|entry| entry.is_dir());
    let wanted = |path: &PathBuf| extensions.iter().any(|extension| has_extension(path, extension));
    Ok(paths.filter(|path| wanted(path) && !is_directory(path)).collect())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn read<T>(path: &Path, parse: impl FnOnce(&[u8]) -> Result<T, Error>) -> Result<T, Error> {
    let bytes = file::read(path)?.ok_or_else(|| Error::File {
        attempt: "cannot read",
        path: path.to_owned(),
        source: std::io::ErrorKind::NotFound.into(),
    })?;
    parse(&bytes).map_err(|error| error.within(path.display().to_string()))
}
