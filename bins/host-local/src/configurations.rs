//! The ranges of networks, from their configurations.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use host_local_ipam::{Config, RangeSet};
use multus_cni::{Error, Invocation, NetworkConfig, NetworkConfigList, NetworkName};

use crate::failure::Failure;

/// The range sets of each network that host-local gives addresses of.
#[derive(Default)]
pub(crate) struct Configurations {
    pub(crate) sets: BTreeMap<NetworkName, Vec<RangeSet>>,
    /// Files of a directory that could not be used, a sentence each.
    pub(crate) unusable: Vec<String>,
}

/// Where runtimes look for configurations.
const DEFAULT: &str = "/etc/cni/net.d";

impl Configurations {
    /// Reads a file, or those of a directory that runtimes would read. The default directory may be absent.
    pub(crate) fn read(given: Option<&Path>) -> Result<Self, Failure> {
        let mut all = Self::default();
        let path = given.unwrap_or(Path::new(DEFAULT));
        let unread = |path: &Path| {
            let path = path.to_owned();
            move |source| Failure::Read { path, source }
        };
        if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
            all.add(path)?;
            return Ok(all);
        }
        let entries = match fs::read_dir(path) {
            Err(error) if given.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(all),
            other => other.map_err(unread(path))?,
        };
        let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut paths = paths.map_err(unread(path))?;
        paths.retain(|path| {
            path.extension().is_some_and(|ending| ["conf", "conflist", "json"].iter().any(|one| ending == *one))
        });
        paths.retain(|path| path.is_file());
        paths.sort();
        for path in paths {
            if let Err(failure) = all.add(&path) {
                all.unusable.push(failure.to_string());
            }
        }
        Ok(all)
    }

    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let bytes = fs::read(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
        let malformed = |error: &dyn std::fmt::Display| Failure::Content {
            path: path.to_owned(),
            wanted: "usable network configuration",
            problem: error.to_string(),
        };
        for config in plugins(bytes).map_err(|error| malformed(&error))? {
            if config.ipam_type().map_err(|error| malformed(&error))? == Some("host-local") {
                let network = config.name().clone();
                let parsed = Config::parse(&Invocation::new(config)).map_err(|error| malformed(&error))?;
                self.sets.entry(network).or_default().extend(parsed.sets);
            }
        }
        Ok(())
    }
}

/// The configurations of a list's plugins, or the one that is no list.
fn plugins(bytes: Vec<u8>) -> Result<Vec<NetworkConfig>, Error> {
    let config = NetworkConfig::parse(bytes)?;
    if config.view().item("plugins").is_none() {
        return Ok(vec![config]);
    }
    let list = NetworkConfigList::parse(config.bytes())?;
    (0..list.len()).map(|index| list.plugin(index, &[])).collect()
}
