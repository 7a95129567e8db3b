//! The cluster network's configuration file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use multus_cni::{Document, FieldError, Item, RawObject, Version, configuration_files};
use serde_json::value::RawValue;

use crate::{Error, file};

/// How the names of generated configurations begin.
const OWN_PREFIX: &str = "00-multus";

/// What a configuration file of the cluster network says: that of a single plugin, or a list.
#[derive(Clone, Debug)]
pub struct Master {
    path: PathBuf,
    content: RawObject,
    version: String,
    name: String,
    capabilities: BTreeMap<String, bool>,
}

impl Master {
    /// The file `name` in `directory`, or else the first `.conf` or `.conflist` by name that is not ours; `None` when it is
    /// not there.
    ///
    /// # Errors
    /// When the directory cannot be read, or `name` is one of ours.
    pub fn find(directory: &Path, name: Option<&str>) -> Result<Option<PathBuf>, Error> {
        if let Some(name) = name {
            let path = directory.join(name);
            if name.starts_with(OWN_PREFIX) {
                let problem = "it is what is generated from a master, and cannot be one".to_owned();
                return Err(Error::Master { path, problem });
            }
            return Ok(path.exists().then_some(path));
        }
        let files = configuration_files(directory, &["conf", "conflist"]);
        let files = files.map_err(|error| Error::Master { path: directory.to_owned(), problem: error.to_string() })?;
        let is_foreign = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with(OWN_PREFIX) && !name.starts_with('.')
        };
        Ok(files.into_iter().find(is_foreign))
    }

    /// Reads the file `path`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is malformed, or configures the meta-plugin itself.
    pub fn read(path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = file::read(path)? else {
            return Ok(None);
        };
        Self::parse(path, &bytes).map(Some).map_err(|problem| Error::Master { path: path.to_owned(), problem })
    }

    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, String> {
        let document = Document::parse(bytes)?;
        let view = document.root("").object().map_err(|_| "it must be a JSON object".to_owned())?;
        let told = |error: FieldError| error.to_string();
        let text = |key| view.string(key).map(|text| text.unwrap_or_default().to_owned()).map_err(told);
        let mut plugins = vec![view.clone()];
        if view.item("plugins").is_some() {
            let listed = view.array("plugins").map_err(told)?;
            plugins = listed.iter().map(Item::object).collect::<Result<_, _>>().map_err(told)?;
        }
        if plugins.is_empty() {
            return Err("\"plugins\" must have at least one element".to_owned());
        }
        for plugin in &plugins {
            match plugin.string("type").map_err(told)?.unwrap_or_default() {
                "" => return Err(format!("{:?} is missing; it names the plugin", plugin.path_of("type"))),
                kind @ ("multus" | "multus-shim") => {
                    let path = plugin.path_of("type");
                    return Err(format!("{path:?} is {kind:?}, which would call itself for ever"));
                }
                _ => {}
            }
        }
        let content = RawObject::parse(bytes).map_err(|error| error.to_string())?;
        let capabilities = capabilities(&content)?;
        Ok(Self { path: path.to_owned(), version: text("cniVersion")?, name: text("name")?, content, capabilities })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `cniVersion`; may be empty.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// `cniVersion`, as one that is known; an empty one is the oldest.
    pub(crate) fn known_version(&self) -> Result<Version, Error> {
        let problem = || format!("\"cniVersion\" is {:?}; {}", self.version, versions());
        Version::parse(&self.version).map_err(|_| Error::Master { path: self.path.clone(), problem: problem() })
    }

    /// `name`; may be empty.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the plugins say of each capability; of several the last.
    #[must_use]
    pub fn capabilities(&self) -> &BTreeMap<String, bool> {
        &self.capabilities
    }

    /// The whole configuration, with its keys sorted and its values as they are written.
    #[must_use]
    pub fn content(&self) -> &RawObject {
        &self.content
    }

    /// With another `cniVersion`.
    ///
    /// # Errors
    /// None that is known.
    pub fn with_version(mut self, version: &str) -> Result<Self, Error> {
        let changed = self.content.set("cniVersion", version);
        changed.map_err(|error| Error::Master { path: self.path.clone(), problem: error.to_string() })?;
        Ok(Self { version: version.to_owned(), ..self })
    }
}

/// Which versions there are, for messages.
pub(crate) fn versions() -> String {
    format!("it must be one of {}", Version::ALL.map(Version::as_str).join(", "))
}

/// Those of each plugin of the list, or of the only plugin.
fn capabilities(content: &RawObject) -> Result<BTreeMap<String, bool>, String> {
    let plugins: Vec<RawObject> = match content.value("plugins") {
        Some(list) => serde_json::from_str(list.get()).map_err(|error| error.to_string())?,
        None => vec![content.clone()],
    };
    let mut all = BTreeMap::new();
    for plugin in plugins {
        all.extend(switches(&plugin, "capabilities")?);
    }
    Ok(all)
}

/// The object of booleans at `key`, with its keys as they are written; empty when absent.
pub(crate) fn switches(object: &RawObject, key: &str) -> Result<BTreeMap<String, bool>, String> {
    let found = object.value(key).map_or("{}", RawValue::get);
    let switches: Result<BTreeMap<String, Option<bool>>, _> = serde_json::from_str(found);
    let switches = switches.map_err(|_| format!("{key:?} must be an object of booleans"))?;
    Ok(switches.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
}
