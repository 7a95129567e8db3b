//! A list of plugin configurations, as runtimes and network attachments have it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;

use crate::{Error, FieldError, NetworkConfig, NetworkName, Object, RawObject, json, shortened, version::numbers};

/// A network configuration list: plugins that run one after the other. Each plugin's object is kept as written.
///
/// The configuration of a single plugin is a list too, of one.
#[derive(Clone, Debug)]
pub struct NetworkConfigList {
    bytes: Vec<u8>,
    name: NetworkName,
    version: String,
    disable_check: bool,
    disable_gc: bool,
    pub(crate) only_inlined: bool,
    single: bool,
    plugins: Vec<ListedPlugin>,
}

impl NetworkConfigList {
    /// Reads a list.
    ///
    /// # Errors
    /// [`Error::MalformedConfigList`] when it is not JSON, has no `name` or no plugins, when a plugin has no `type`,
    /// or when a key is of a wrong type; the errors of [`NetworkName`] for a bad name.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse_inlined(bytes)?.with_any_plugin()
    }

    /// Reads the configuration of a single plugin.
    ///
    /// # Errors
    /// [`Error::MalformedConfigList`] when it is not JSON, has no `type`, or when a key is of a wrong type; the errors of
    /// [`NetworkName`] for a missing or bad name.
    pub fn parse_single(bytes: &[u8]) -> Result<Self, Error> {
        let value = json::parse(bytes).map_err(Error::MalformedConfigList)?;
        let config = document(&value)?;
        let plugin = ListedPlugin::read(&config, RawObject::parse(bytes)?)?;
        Ok(Self {
            bytes: bytes.to_owned(),
            name: plugin.name.parse()?,
            version: config.string("cniVersion").map_err(field)?.unwrap_or_default().to_owned(),
            disable_check: false,
            disable_gc: false,
            only_inlined: true,
            single: true,
            plugins: vec![plugin],
        })
    }

    /// Reads either, as network attachments and the result cache hold them: what has a `type` configures a single plugin.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse) and [`parse_single`](Self::parse_single).
    pub fn parse_either(bytes: &[u8]) -> Result<Self, Error> {
        let value = json::parse(bytes).map_err(Error::MalformedConfigList)?;
        let kind = document(&value)?.string("type").map_err(field)?;
        if kind.is_some_and(|kind| !kind.is_empty()) { Self::parse_single(bytes) } else { Self::parse(bytes) }
    }

    /// A list that may have no plugins yet: those of a directory may follow.
    pub(crate) fn parse_inlined(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = Error::MalformedConfigList;
        let value = json::parse(bytes).map_err(malformed)?;
        let list = document(&value)?;

        let name = list.string("name").map_err(field)?.ok_or_else(|| malformed("no name".to_owned()))?;
        let only_inlined = switch(&list, "loadOnlyInlinedPlugins")?;
        let mut document = RawObject::parse(bytes)?;
        let raw: Vec<RawObject> = serde_json::from_str(document.value("plugins").map_or("[]", RawValue::get))
            .map_err(|_| malformed("\"plugins\" must be an array of objects".to_owned()))?;
        if raw.is_empty() && (only_inlined || list.item("plugins").is_some()) {
            return Err(malformed("no plugins in list".to_owned()));
        }
        let viewed = list.array("plugins").map_err(field)?;
        let read = |(item, raw): (crate::Item<'_>, RawObject)| ListedPlugin::read(&item.object().map_err(field)?, raw);
        let plugins = viewed.into_iter().zip(raw).map(read).collect::<Result<_, _>>()?;
        let mut bytes = bytes.to_owned();
        if list.item("type").is_some() {
            // Whoever reads it again, to delete what it has made, would take it for the configuration of a single plugin.
            document.set("type", "")?;
            bytes = document.print();
        }
        Ok(Self {
            bytes,
            name: name.parse()?,
            version: chosen_version(&list)?,
            disable_check: switch(&list, "disableCheck")?,
            disable_gc: switch(&list, "disableGC")?,
            only_inlined,
            single: false,
            plugins,
        })
    }

    pub(crate) fn with_any_plugin(self) -> Result<Self, Error> {
        if self.is_empty() { Err(Error::MalformedConfigList("no plugins in list".to_owned())) } else { Ok(self) }
    }

    /// The list, or the configuration of the single plugin, with all that was added to it: DEL needs nothing else.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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

    /// Whether this is the configuration of a single plugin.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.single
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

    /// The types of the plugins, in order.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.plugins.iter().map(|plugin| plugin.kind.as_str())
    }

    /// The capabilities that any plugin has switched on.
    #[must_use]
    pub fn capabilities(&self) -> BTreeSet<&str> {
        self.plugins.iter().flat_map(|plugin| &plugin.capabilities).map(String::as_str).collect()
    }

    /// The configuration to run the plugin at `index` with: its own object, every value as written, with the list's
    /// `name` and `cniVersion` and the keys of `injected`, such as `prevResult`.
    ///
    /// # Errors
    /// Those of [`NetworkConfig::parse`]; [`Error::MalformedConfigList`] when there is no such plugin.
    pub fn plugin(&self, index: usize, injected: &[(&str, &RawValue)]) -> Result<NetworkConfig, Error> {
        let plugin = self.plugins.get(index);
        let plugin = plugin.ok_or_else(|| Error::MalformedConfigList(format!("no plugin {index}")))?;
        let mut object = plugin.object.clone();
        object.set("name", self.name.as_str())?;
        object.set("cniVersion", &self.version)?;
        for (key, value) in injected {
            object.set(key, *value)?;
        }
        NetworkConfig::parse(object.print())
    }

    /// Those of `arguments`, by capability, that the plugin at `index` declares itself capable of.
    #[must_use]
    pub fn runtime_config(&self, index: usize, arguments: &RawObject) -> RawObject {
        self.plugins.get(index).map(|plugin| arguments.only(&plugin.capabilities)).unwrap_or_default()
    }

    /// The list with every plugin's object changed by `edit`.
    ///
    /// # Errors
    /// Those of `edit`, and [`Error::MalformedConfigList`] for what is no plugin any more.
    pub fn edited(mut self, edit: impl Fn(&mut RawObject) -> Result<(), Error>) -> Result<Self, Error> {
        for plugin in &mut self.plugins {
            edit(&mut plugin.object)?;
        }
        self.rewritten(|_| Ok(()))
    }

    /// The list with `arguments`, the `cni-args` of a network selection, merged into `args.cni` of every plugin.
    ///
    /// # Errors
    /// [`Error::Field`] when `args` or `args.cni` is there and no object.
    pub fn with_cni_args(self, arguments: &RawObject) -> Result<Self, Error> {
        self.edited(|plugin| {
            let mut args = plugin.object("args")?;
            let mut cni = args.object("cni").map_err(|_| FieldError::new("args.cni", "must be an object"))?;
            cni.merge(arguments);
            args.set("cni", &cni)?;
            plugin.set("args", &args)
        })
    }

    /// The list with the plugins that `objects` configure at its end. Read again, it is complete as it is.
    pub(crate) fn with_plugins(mut self, objects: Vec<ListedPlugin>) -> Result<Self, Error> {
        if objects.is_empty() {
            return Ok(self);
        }
        self.plugins.extend(objects);
        self.rewritten(|document| document.set("loadOnlyInlinedPlugins", &true))
    }

    fn rewritten(self, edit: impl Fn(&mut RawObject) -> Result<(), Error>) -> Result<Self, Error> {
        let objects: Vec<&RawObject> = self.plugins.iter().map(|plugin| &plugin.object).collect();
        if let (true, [only]) = (self.single, objects.as_slice()) {
            return Self::parse_single(&only.print());
        }
        let mut document = RawObject::parse(&self.bytes)?;
        document.set("plugins", &objects)?;
        edit(&mut document)?;
        Self::parse(&document.print())
    }

    /// Says of an error which plugin it is of, where there are several to choose from.
    pub(crate) fn failed(&self, index: usize, command: &str, error: Error) -> Error {
        let Some(plugin) = self.plugins.get(index).filter(|_| !self.single) else {
            return error;
        };
        let name = if plugin.name.is_empty() { String::new() } else { format!(" name={:?}", plugin.name) };
        error.within(format!("plugin type={:?}{name} failed ({command})", plugin.kind))
    }
}

/// One plugin of a list.
#[derive(Clone, Debug)]
pub(crate) struct ListedPlugin {
    kind: String,
    name: String,
    capabilities: BTreeSet<String>,
    object: RawObject,
}

impl ListedPlugin {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let value = json::parse(bytes).map_err(Error::MalformedConfigList)?;
        Self::read(&document(&value)?, RawObject::parse(bytes)?)
    }

    fn read(view: &Object<'_>, object: RawObject) -> Result<Self, Error> {
        let text = |key| view.string(key).map(|text| text.unwrap_or_default().to_owned()).map_err(field);
        let kind = text("type")?;
        if kind.is_empty() {
            return Err(Error::MalformedConfigList("missing 'type'".to_owned()));
        }
        // The names of capabilities are told apart by letter case, which the view does not.
        let raw = object.value("capabilities").map_or("{}", RawValue::get);
        let capabilities: BTreeMap<String, Option<bool>> = serde_json::from_str(raw).map_err(|_| {
            field(FieldError::new(view.path_of("capabilities"), "must be an object of names that are true or false"))
        })?;
        let capabilities = capabilities.into_iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| name).collect();
        Ok(Self { kind, name: text("name")?, capabilities, object })
    }
}

fn document(value: &serde_json::Value) -> Result<Object<'_>, Error> {
    let entries = value.as_object().ok_or_else(|| Error::MalformedConfigList("it must be a JSON object".to_owned()))?;
    Ok(Object::root(entries))
}

fn field(error: FieldError) -> Error {
    Error::MalformedConfigList(error.to_string())
}

fn chosen_version(list: &Object<'_>) -> Result<String, Error> {
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
        Ok(other) => Err(Error::MalformedConfigList(format!("invalid value {:?} for {key}", shortened(other)))),
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
    fn a_list_that_has_a_type_is_a_list_when_it_is_read_again() {
        for kind in [r#""macvlan""#, "5", r#""""#] {
            let text =
                format!(r#"{{"name":"n","Type":{kind},"plugins":[{{"type":"a","big":12345678901234567890123}}]}}"#);
            let list = NetworkConfigList::parse(text.as_bytes()).unwrap();
            let again = NetworkConfigList::parse_either(list.bytes()).unwrap();
            assert!(!again.is_single());
            assert_eq!(again.plugin(0, &[]).unwrap().bytes(), list.plugin(0, &[]).unwrap().bytes());
        }
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
