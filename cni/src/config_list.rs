//! A list of plugin configurations, as runtimes and network attachments have it.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{Error, NetworkConfig, NetworkName, Object, json, version::numbers};

/// A network configuration list: plugins that run one after the other. Each plugin's object is kept as written.
#[derive(Clone, Debug)]
pub struct NetworkConfigList {
    name: NetworkName,
    version: String,
    disable_check: bool,
    disable_gc: bool,
    plugins: Vec<Box<RawValue>>,
}

impl NetworkConfigList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`Error::MalformedConfigList`] when it is not JSON, has no `name` or no plugins, when a plugin has no `type`,
    /// or when a key is of a wrong type; the errors of [`NetworkName`] for a bad name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = Error::MalformedConfigList;
        let value = json::parse(bytes).map_err(malformed)?;
        let entries = value.as_object().ok_or_else(|| malformed("it must be a JSON object".to_owned()))?;
        let list = Object::root(entries);
        let field = |error: crate::FieldError| malformed(error.to_string());

        let name = list.string("name").map_err(field)?.ok_or_else(|| malformed("no name".to_owned()))?;
        let plugins = raw_plugins(bytes).map_err(malformed)?;
        if plugins.is_empty() {
            return Err(malformed("no plugins in list".to_owned()));
        }
        for plugin in list.array("plugins").map_err(field)? {
            let kind = plugin.object().and_then(|object| object.string("type").map(Option::unwrap_or_default));
            if kind.map_err(field)?.is_empty() {
                return Err(Error::MalformedConfigList("missing 'type'".to_owned()));
            }
        }
        Ok(Self {
            name: name.parse()?,
            version: chosen_version(&list)?,
            disable_check: switch(&list, "disableCheck")?,
            disable_gc: switch(&list, "disableGC")?,
            plugins,
        })
    }

    /// The network's name.
    #[must_use]
    pub fn name(&self) -> &NetworkName {
        &self.name
    }

    /// The version for every plugin: the newest this implementation speaks among `cniVersion` and `cniVersions`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Whether CHECK is to succeed without asking the plugins.
    #[must_use]
    pub fn disable_check(&self) -> bool {
        self.disable_check
    }

    /// Whether GC is to do nothing.
    #[must_use]
    pub fn disable_gc(&self) -> bool {
        self.disable_gc
    }

    /// How many plugins there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.plugins.len()
    }

    /// Whether there are none; never true of a list that was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// The configuration to run the plugin at `index` with: its own object, every value as written, with the list's
    /// `name` and `cniVersion` and the keys of `injected`, such as `prevResult`.
    ///
    /// # Errors
    /// Those of [`NetworkConfig::parse`]; [`Error::MalformedConfigList`] when there is no such plugin.
    pub fn plugin(&self, index: usize, injected: &[(&str, &RawValue)]) -> Result<NetworkConfig, Error> {
        let malformed = |error: String| Error::MalformedConfigList(error);
        let plugin = self.plugins.get(index).ok_or_else(|| malformed(format!("no plugin {index}")))?;
        let raw = |value: &dyn AsRef<str>| serde_json::value::to_raw_value(value.as_ref());
        let compose = || -> serde_json::Result<Vec<u8>> {
            let mut entries: BTreeMap<String, Box<RawValue>> = serde_json::from_str(plugin.get())?;
            let mut set = |key: &str, value: Box<RawValue>| {
                // The last spelling would win, and that may be the user's.
                entries.retain(|spelling, _| json::folded(spelling) != json::folded(key));
                entries.insert(key.to_owned(), value);
            };
            set("name", raw(&self.name.as_str())?);
            set("cniVersion", raw(&self.version)?);
            for (key, value) in injected {
                set(key, (*value).to_owned());
            }
            serde_json::to_vec(&entries)
        };
        NetworkConfig::parse(compose().map_err(|error| malformed(error.to_string()))?)
    }
}

/// The plugin objects as written: what passes through typed or untyped values would lose digits.
fn raw_plugins(bytes: &[u8]) -> Result<Vec<Box<RawValue>>, String> {
    let text = String::from_utf8_lossy(bytes);
    let RawPlugins(plugins) = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let read = |plugins: Box<RawValue>| serde_json::from_str(plugins.get());
    let plugins = plugins.map(read).transpose().map_err(|_| "\"plugins\" must be an array of objects".to_owned())?;
    Ok(plugins.unwrap_or_default())
}

/// The last value of `plugins` in a list, however that is spelled, unless it is null.
struct RawPlugins(Option<Box<RawValue>>);

impl<'de> Deserialize<'de> for RawPlugins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawPluginsVisitor)
    }
}

struct RawPluginsVisitor;

impl<'de> Visitor<'de> for RawPluginsVisitor {
    type Value = RawPlugins;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawPlugins, A::Error> {
        let mut plugins = None;
        while let Some((key, value)) = entries.next_entry::<String, Box<RawValue>>()? {
            if json::folded(&key) == "plugins" && value.get() != "null" {
                plugins = Some(value);
            }
        }
        Ok(RawPlugins(plugins))
    }
}

fn chosen_version(list: &Object<'_>) -> Result<String, Error> {
    let field = |error: crate::FieldError| Error::MalformedConfigList(error.to_string());
    let single = list.string("cniVersion").map_err(field)?.unwrap_or_default().to_owned();
    let mut offered = list.strings("cniVersions").map_err(field)?;
    if offered.is_empty() {
        return Ok(single);
    }
    if !single.is_empty() {
        offered.push(single.clone());
    }
    let newest = numbers(crate::Version::LATEST.as_str())?;
    let mut chosen = None;
    for version in offered {
        let parts = numbers(&version)?;
        if parts <= newest && chosen.as_ref().is_none_or(|(best, _)| parts > *best) {
            chosen = Some((parts, version));
        }
    }
    Ok(chosen.map_or(single, |(_, version)| version))
}

/// A boolean, or the word for one.
fn switch(list: &Object<'_>, key: &str) -> Result<bool, Error> {
    let Some(item) = list.item(key) else {
        return Ok(false);
    };
    if let Ok(value) = item.boolean() {
        return Ok(value);
    }
    let text = item.string().map(str::to_ascii_lowercase);
    match text.as_deref() {
        Ok("true") => Ok(true),
        Ok("false") => Ok(false),
        Ok(other) => Err(Error::MalformedConfigList(format!("invalid value {other:?} for {key}"))),
        Err(_) => Err(Error::MalformedConfigList(format!("{key:?} must be true or false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        NetworkConfigList::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn a_plugin_gets_what_was_written_and_what_is_injected() {
        let list = br#"{"name":"n1","cniVersion":"1.1.0","plugins":[
            {"z":1,"big":12345678901234567890123,"type":"a","capabilities":{"mac":true}},{"type":"b"}]}"#;
        let list = NetworkConfigList::parse(list).unwrap();
        assert_eq!((list.len(), list.version()), (2, "1.1.0"));
        let runtime = serde_json::value::to_raw_value(&serde_json::json!({"mac": "aa"})).unwrap();
        let config = list.plugin(0, &[("runtimeConfig", &runtime)]).unwrap();
        assert_eq!(
            String::from_utf8_lossy(config.bytes()),
            r#"{"big":12345678901234567890123,"capabilities":{"mac":true},"cniVersion":"1.1.0","name":"n1","runtimeConfig":{"mac":"aa"},"type":"a","z":1}"#
        );
        assert!(list.plugin(2, &[]).is_err());
    }

    #[test]
    fn what_is_injected_wins_over_any_spelling() {
        let list = br#"{"name":"n1","cniVersion":"1.1.0","plugins":[
            {"type":"a","cniversion":"0.1.0","NAME":"x","runtimeconfig":{}}]}"#;
        let runtime = serde_json::value::to_raw_value(&serde_json::json!({"mac": "aa"})).unwrap();
        let config = NetworkConfigList::parse(list).unwrap().plugin(0, &[("runtimeConfig", &runtime)]).unwrap();
        assert_eq!(
            String::from_utf8_lossy(config.bytes()),
            r#"{"cniVersion":"1.1.0","name":"n1","runtimeConfig":{"mac":"aa"},"type":"a"}"#
        );
    }

    #[test]
    fn the_newest_version_spoken_is_chosen() {
        let version = |keys: &str| {
            let text = format!(r#"{{"name":"n",{keys}"plugins":[{{"type":"a"}}]}}"#);
            NetworkConfigList::parse(text.as_bytes()).map(|list| list.version().to_owned())
        };
        assert_eq!(version("").unwrap(), "");
        assert_eq!(version(r#""cniVersion":"1.2.3","#).unwrap(), "1.2.3");
        assert_eq!(version(r#""cniVersions":["0.3.1","1.0.0","99.0.0"],"#).unwrap(), "1.0.0");
        assert_eq!(version(r#""cniVersion":"1.1.0","cniVersions":["0.3.1"],"#).unwrap(), "1.1.0");
        assert!(version(r#""cniVersions":["broken"],"#).is_err());
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(refused("{}"), "error parsing configuration list: no name");
        assert_eq!(refused(r#"{"name":"n"}"#), "error parsing configuration list: no plugins in list");
        assert_eq!(refused(r#"{"name":"n","plugins":[]}"#), "error parsing configuration list: no plugins in list");
        assert_eq!(refused(r#"{"name":"n","plugins":[{}]}"#), "error parsing configuration list: missing 'type'");
        assert!(
            refused(r#"{"name":"n","disableGC":"Perhaps","plugins":[{"type":"a"}]}"#)
                .ends_with(r#"invalid value "perhaps" for disableGC"#)
        );
        let list = br#"{"name":"n","disableCheck":"TRUE","plugins":[{"type":"a"}]}"#;
        assert!(NetworkConfigList::parse(list).unwrap().disable_check());
    }
}
