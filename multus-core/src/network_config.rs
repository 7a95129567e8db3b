//! Configurations of networks, checked where somebody else wrote them.

use std::{fs, io, path::Path};

use multus_cni::{
    Dns, Document, Error as CniError, FieldError, Item, NetworkConfigList, NetworkName, Object, RawObject,
    configuration_files,
};
use serde_json::value::RawValue;

use crate::{
    Error,
    error::{malformed, quoted},
};

/// Reads a configuration, of one plugin when it has a `type` and else of a list. Messages call it `label`, and name the key
/// with its place.
pub(crate) fn read(bytes: &[u8], label: &str) -> Result<NetworkConfigList, Error> {
    must_be_small(bytes, label)?;
    read_small(bytes, label)
}

fn read_small(bytes: &[u8], label: &str) -> Result<NetworkConfigList, Error> {
    let document = Document::parse(bytes).map_err(|error| malformed(label, format_args!("must be JSON: {error}")))?;
    let root = document.root(label);
    let view = root.object().map_err(|_| malformed(label, "must be a JSON object"))?;
    refuse_ambiguity(&RawObject::parse(bytes)?, &view)?;
    check_standard_keys(&view)?;
    match view.string("type")?.unwrap_or_default().is_empty() {
        true => check_plugins(&view)?,
        false => refuse_multus(&view)?,
    }
    let name = view.string("name")?.unwrap_or_default();
    name.parse::<NetworkName>().map_err(|error| {
        let problem = format!("{error}: it must be letters, digits, \"_\", \".\" and \"-\", not {}", quoted(name));
        FieldError::new(view.path_of("name"), problem)
    })?;
    Ok(NetworkConfigList::parse_either(bytes)?)
}

/// As [`read`], with `name` for a configuration that has none.
pub(crate) fn read_named(text: &str, name: &str, label: &str) -> Result<NetworkConfigList, Error> {
    must_be_small(text.as_bytes(), label)?;
    let mut object = match RawObject::parse(text.as_bytes()) {
        Ok(object) if object.value("name").is_none_or(|name| name.get() == "\"\"") => object,
        // As it is, or with an error that says where.
        _ => return read_small(text.as_bytes(), label),
    };
    object.set("name", name)?;
    read_small(&object.print(), label)
}

/// More than a network has use for. Its author may write a value in two bytes that takes hundreds while it is looked at.
const MOST_VALUES: usize = 4096;

/// Refuses a document of so many values that they would take the memory of others.
pub(crate) fn must_be_small(bytes: &[u8], label: &str) -> Result<(), Error> {
    match Document::has_more_than(MOST_VALUES, bytes) {
        true => Err(malformed(label, format_args!("has more than {MOST_VALUES} values, and no network needs so many"))),
        false => Ok(()),
    }
}

/// The configuration named `name` among the files of `directory`, in the order of their names.
pub(crate) fn find(directory: &Path, name: &str) -> Result<NetworkConfigList, Error> {
    let files = configuration_files(directory, &["conf", "json", "conflist"])?;
    if files.is_empty() {
        return Err(Error::NoFiles(directory.to_owned()));
    }
    for file in files {
        let bytes = fs::read(&file).map_err(Error::io("reading file", &file))?;
        let parse = match file.extension().is_some_and(|extension| extension == "conflist") {
            true => NetworkConfigList::parse,
            false => NetworkConfigList::parse_single,
        };
        match parse(&bytes) {
            Ok(list) if list.name().as_str() == name => return not_multus(list, &file),
            // Another network, or none that could be asked for.
            Ok(_) | Err(CniError::MissingNetworkName | CniError::InvalidNetworkName(_)) => {}
            Err(error) => return Err(error.within(file.display().to_string()).into()),
        }
    }
    Err(Error::NoSuchFile { name: name.to_owned(), directory: directory.to_owned() })
}

/// The configuration in the file at `path`, or in the first file of that directory, with the plugins that join it.
pub(crate) fn load(path: &Path) -> Result<NetworkConfigList, Error> {
    let metadata = fs::metadata(path).map_err(Error::io("reading file", path))?;
    let list = match metadata.is_dir() {
        false => NetworkConfigList::from_file(path)?,
        true => {
            let first = configuration_files(path, &["conf", "conflist"])?.into_iter().next();
            NetworkConfigList::from_file(&first.ok_or_else(|| Error::NoFiles(path.to_owned()))?)?
        }
    };
    not_multus(list, path)
}

fn not_multus(list: NetworkConfigList, path: &Path) -> Result<NetworkConfigList, Error> {
    if let Some(kind) = list.types().find(|kind| MULTUS.contains(kind)) {
        let source = io::Error::other(format!("its type is {kind:?}, which would call itself without end"));
        return Err(Error::Io { attempt: "delegating to", path: path.to_owned(), source });
    }
    Ok(list)
}

/// The types that every configuration's keys must have. Values that may be secret are not repeated in messages.
pub(crate) fn check_standard_keys(view: &Object<'_>) -> Result<(), FieldError> {
    for key in ["cniVersion", "name", "type"] {
        view.string(key)?;
    }
    if let Some(capabilities) = view.item("capabilities") {
        object(&capabilities)?.items().filter(|item| !item.is_null()).try_for_each(|item| item.boolean().map(drop))?;
    }
    if let Some(ipam) = view.item("ipam") {
        object(&ipam)?.string("type")?;
    }
    if let Some(dns) = view.item("dns") {
        Dns::parse(&object(&dns)?)?;
    }
    Ok(())
}

/// As [`Item::object`], for what may hold secrets: the value is not repeated in the message.
pub(crate) fn object<'a>(item: &Item<'a>) -> Result<Object<'a>, FieldError> {
    item.object().map_err(|_| FieldError::new(item.path(), "must be an object"))
}

/// As [`Item::array`], for what may hold secrets.
pub(crate) fn array<'a>(item: &Item<'a>) -> Result<Vec<Item<'a>>, FieldError> {
    item.array().map_err(|_| FieldError::new(item.path(), "must be a list"))
}

fn check_plugins(view: &Object<'_>) -> Result<(), FieldError> {
    let missing = |path, problem| Err(FieldError::new(path, problem));
    let Some(plugins) = view.item("plugins") else {
        return missing(view.path_of("type"), "is missing: delegate must have the 'type' or 'plugin' field");
    };
    let elements = array(&plugins)?;
    if elements.is_empty() {
        return missing(plugins.path().to_owned(), "is empty: a plugin delegate must have the 'type' field");
    }
    for element in elements {
        let plugin = object(&element)?;
        if plugin.string("type")?.unwrap_or_default().is_empty() {
            return missing(plugin.path_of("type"), "is missing: a plugin delegate must have the 'type' field");
        }
        check_standard_keys(&plugin)?;
        refuse_multus(&plugin)?;
    }
    Ok(())
}

/// Multus takes everything from its configuration: from which directory plugins are executed, and by whose rights the API is
/// asked. That is not for the author of a network to say, neither as the network's plugin nor as that plugin's IPAM.
fn refuse_multus(plugin: &Object<'_>) -> Result<(), FieldError> {
    let ipam = plugin.object("ipam")?;
    for object in [Some(plugin), ipam.as_ref()].into_iter().flatten() {
        if let Some(kind) = object.string("type")?.filter(|kind| MULTUS.contains(kind)) {
            let problem = format!("must not be {kind:?}, which is for the runtime alone to call");
            return Err(FieldError::new(object.path_of("type"), problem));
        }
    }
    Ok(())
}

/// What is looked at here must be what a plugin sees, which may print a key's spellings in another order, or merge their
/// objects as Go does.
fn refuse_ambiguity(config: &RawObject, view: &Object<'_>) -> Result<(), FieldError> {
    keys_are_there_once(config, view)?;
    // What is no list of objects is refused for that.
    let plugins = config.value("plugins").map_or("[]", RawValue::get);
    let plugins: Vec<RawObject> = serde_json::from_str(plugins).unwrap_or_default();
    let views = view.array("plugins").unwrap_or_default();
    plugins.iter().zip(views).try_for_each(|(plugin, item)| keys_are_there_once(plugin, &item.object()?))
}

fn keys_are_there_once(object: &RawObject, view: &Object<'_>) -> Result<(), FieldError> {
    let once = |object: &RawObject, view: &Object<'_>, key: &str| match object.spellings(key) {
        0 | 1 => Ok(()),
        _ => Err(FieldError::new(view.path_of(key), "is there twice: leave one, whatever the case of its letters")),
    };
    for key in ["name", "type", "ipam", "plugins"] {
        once(object, view, key)?;
    }
    match (object.object("ipam"), view.object("ipam")) {
        (Ok(ipam), Ok(Some(view))) => once(&ipam, &view, "type"),
        // None, or what is refused for being no object.
        _ => Ok(()),
    }
}

const MULTUS: [&str; 2] = ["multus", "multus-shim"];

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        read(text.as_bytes(), "spec.config").unwrap_err().to_string()
    }

    #[test]
    fn a_configuration_without_a_name_gets_one() {
        let named = |text: &str| {
            let list = read_named(text, "net1", "spec.config").unwrap();
            (list.name().to_string(), String::from_utf8(list.bytes().to_vec()).unwrap())
        };
        assert_eq!(named(r#"{"type":"mynet"}"#), ("net1".into(), r#"{"name":"net1","type":"mynet"}"#.into()));
        assert_eq!(named(r#"{"name":"", "type":"a"}"#).0, "net1");
        assert_eq!(named(r#"{"name":null,"type":"a"}"#).0, "net1");
        let own = r#"{ "NAME":"own",  "type":"a", "x":1, "X":2 }"#;
        assert_eq!(named(own), ("own".into(), own.into()));
    }

    #[test]
    fn one_plugin_or_a_list_is_told_by_type() {
        let types = |text: &str| {
            let list = read(text.as_bytes(), "").unwrap();
            (list.is_single(), list.types().map(str::to_owned).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(types(r#"{"name":"n","type":"a","plugins":5}"#), (true, "a".to_owned()));
        assert_eq!(types(r#"{"name":"n","type":"","plugins":[{"type":"a"},{"type":"b"}]}"#), (false, "a b".to_owned()));
    }

    #[test]
    fn what_is_malformed_is_named_without_its_content() {
        assert_eq!(refused("{"), r#""spec.config" must be JSON: unexpected end of JSON input"#);
        assert_eq!(refused("\"secret\""), r#""spec.config" must be a JSON object"#);
        assert_eq!(
            refused(r#"{"name":"n"}"#),
            r#""spec.config.type" is missing: delegate must have the 'type' or 'plugin' field"#
        );
        assert_eq!(
            refused(r#"{"name":"n","plugins":[]}"#),
            r#""spec.config.plugins" is empty: a plugin delegate must have the 'type' field"#
        );
        assert_eq!(
            refused(r#"{"name":"n","plugins":[{"type":"a"},{"typo":"b"}]}"#),
            r#""spec.config.plugins[1].type" is missing: a plugin delegate must have the 'type' field"#
        );
        assert_eq!(refused(r#"{"name":"n","plugins":"secret"}"#), r#""spec.config.plugins" must be a list"#);
        assert_eq!(refused(r#"{"name":"n","plugins":["secret"]}"#), r#""spec.config.plugins[0]" must be an object"#);
        assert_eq!(refused(r#"{"name":"n","type":"a","ipam":"secret"}"#), r#""spec.config.ipam" must be an object"#);
        assert_eq!(
            refused(r#"{"name":"n","type":"a","capabilities":{"mac":1}}"#),
            r#""spec.config.capabilities.mac" must be true or false, not 1"#
        );
        assert_eq!(refused(r#"{"name":"n","type":"a","dns":"secret"}"#), r#""spec.config.dns" must be an object"#);
        for (config, path) in [
            (r#"{"name":"n","type":"multus","binDir":"/evil"}"#, "spec.config.type"),
            (r#"{"name":"n","Type":"multus-shim"}"#, "spec.config.type"),
            (r#"{"name":"n","type":"macvlan","ipam":{"type":"multus"}}"#, "spec.config.ipam.type"),
            (r#"{"name":"n","plugins":[{"type":"a"},{"type":"multus"}]}"#, "spec.config.plugins[1].type"),
            (r#"{"name":"n","plugins":[{"type":"a","ipam":{"type":"multus"}}]}"#, "spec.config.plugins[0].ipam.type"),
        ] {
            let start = format!("\"{path}\" must not be \"multus");
            assert!(refused(config).starts_with(&start), "{}", refused(config));
        }
        for (config, path) in [
            (r#"{"name":"n","type":"multus","Type":"a"}"#, "spec.config.type"),
            (r#"{"name":"n","name":"n","type":"a"}"#, "spec.config.name"),
            (r#"{"name":"n","type":"a","ipam":{"type":"multus"},"IPAM":null}"#, "spec.config.ipam"),
            (r#"{"name":"n","type":"a","ipam":{"type":"multus","TYPE":"a"}}"#, "spec.config.ipam.type"),
            (r#"{"name":"n","plugins":[{"type":"multus"}],"pluginſ":[{"type":"a"}]}"#, "spec.config.plugins"),
            (
                r#"{"name":"n","plugins":[{"type":"a"},{"type":"a","ipam":{},"ipam":{}}]}"#,
                "spec.config.plugins[1].ipam",
            ),
        ] {
            assert!(refused(config).starts_with(&format!("\"{path}\" is there twice")), "{}", refused(config));
        }
        let start = r#""spec.config.name" invalid characters found in network name: it must be letters, digits"#;
        assert!(refused(r#"{"name":"../x","type":"a"}"#).starts_with(start));
        assert!(refused(r#"{"type":"a"}"#).starts_with(r#""spec.config.name" missing network name"#));
    }
}
