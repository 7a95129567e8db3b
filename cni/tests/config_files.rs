//! Lists in files and directories, and what is changed in a list without changing anything else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use multus_cni::{Error, NetworkConfigList, RawObject, configuration_files};
use tempfile::TempDir;

#[test]
fn a_network_is_found_by_name_whatever_its_file_is_called() {
    let directory = Directory::new();
    directory.put("10-a.conf", r#"{"name":"a","cniVersion":"0.3.1","type":"plugin-a"}"#);
    directory.put("20-b.json", r#"{"name":"b","type":"plugin-b"}"#);
    directory.put("30-c.conflist", r#"{"name":"c","plugins":[{"type":"plugin-c"}]}"#);
    directory.put("40-d.txt", r#"{"name":"d","type":"plugin-d"}"#);
    directory.put("05-nameless.conf", r#"{"type":"plugin-x"}"#);
    directory.put("nested/e.conf", r#"{"name":"e","type":"plugin-e"}"#);
    fs::create_dir(directory.path("00-directory.conflist")).unwrap();
    symlink(directory.path("40-d.txt"), directory.path("50-link.conf")).unwrap();
    for name in ["a", "b", "c", "d"] {
        let list = directory.find(name).unwrap();
        assert_eq!(list.types().collect::<Vec<_>>(), [format!("plugin-{name}")]);
    }
    assert_eq!(directory.find("a").unwrap().bytes(), fs::read(directory.path("10-a.conf")).unwrap());
    let error = directory.find("e").unwrap_err();
    assert!(matches!(error, Error::NetworkNotFound { .. }));
    assert_eq!(error.to_string(), format!("no net configuration with name \"e\" in {}", directory.path("").display()));
    assert!(NetworkConfigList::from_directory(&directory.path("absent"), &"a".parse().unwrap()).is_err());
}

#[test]
fn a_list_comes_before_a_single_plugin_and_the_first_file_before_the_others() {
    let directory = Directory::new();
    directory.put("00.conf", r#"{"name":"n","type":"single"}"#);
    directory.put("20.conflist", r#"{"name":"n","plugins":[{"type":"second"}]}"#);
    directory.put("10.conflist", r#"{"name":"n","plugins":[{"type":"first"}]}"#);
    assert_eq!(directory.find("n").unwrap().types().collect::<Vec<_>>(), ["first"]);
    let files = configuration_files(&directory.path(""), &["conf", "conflist"]).unwrap();
    assert_eq!(files, ["00.conf", "10.conflist", "20.conflist"].map(|name| directory.path(name)));
}

#[test]
fn a_malformed_file_on_the_way_is_named() {
    for (name, content, problem) in [
        ("10.conflist", "{", "unexpected end of JSON input"),
        ("10.conflist", r#"{"plugins":[{"type":"a"}]}"#, "no name"),
        ("10.conflist", r#"{"name":"x","plugins":[]}"#, "no plugins in list"),
        ("10.conflist", r#"{"name":"x"}"#, "no plugins in list"),
        ("10.conflist", r#"{"name":"x","plugins":[{"type":"a"},{}]}"#, "missing 'type'"),
        (
            "10.conflist",
            r#"{"name":"x","loadOnlyInlinedPlugins":"maybe","plugins":[{"type":"a"}]}"#,
            "invalid value \"maybe\" for loadOnlyInlinedPlugins",
        ),
        ("10.conf", r#"{"name":"x"}"#, "missing 'type'"),
        (
            "10.json",
            r#"{"name":"x","type":"a","capabilities":{"mac":1}}"#,
            "\"capabilities\" must be an object of names that are true or false",
        ),
    ] {
        let directory = Directory::new();
        directory.put(name, content);
        directory.put("20.conf", r#"{"name":"n","type":"a"}"#);
        let error = directory.find("n").unwrap_err().to_string();
        let path = directory.path(name);
        assert_eq!(error, format!("{}: error parsing configuration list: {problem}", path.display()));
    }
}

#[test]
fn the_plugins_of_the_sub_directory_follow_unless_only_those_inside_are_wanted() {
    let chained = |inlined: &str, files: &[(&str, &str)]| {
        let directory = Directory::new();
        directory.put("10.conflist", &format!(r#"{{"name":"n","cniVersions":["0.4.0","1.0.0"]{inlined}}}"#));
        for (name, content) in files {
            directory.put(name, content);
        }
        let list = directory.find("n")?;
        // What was put together is complete: it is what the cache stores.
        let again = NetworkConfigList::parse(list.bytes()).unwrap();
        assert!(again.types().eq(list.types()) && again.version() == "1.0.0");
        Ok::<_, Error>(list.types().map(str::to_owned).collect::<Vec<_>>())
    };
    let a = r#","plugins":[{"type":"a"}]"#;
    let more = [("n/20.conf", r#"{"type":"c"}"#), ("n/10.conf", r#"{"type":"b"}"#), ("n/x.json", "{")];
    let no_plugins = |result: Result<_, Error>| result.unwrap_err().to_string().ends_with("no plugins in list");

    assert_eq!(chained(a, &more).unwrap(), ["a", "b", "c"]);
    assert_eq!(chained("", &more).unwrap(), ["b", "c"]);
    assert_eq!(chained(a, &[]).unwrap(), ["a"]);
    assert!(no_plugins(chained("", &[])));
    for only in [r#","loadOnlyInlinedPlugins":true"#, r#","loadOnlyInlinedPlugins":"True""#] {
        assert_eq!(chained(&format!("{only}{a}"), &more).unwrap(), ["a"]);
        assert!(no_plugins(chained(only, &more)));
    }
    let error = chained(a, &[("n/10.conf", r#"{"type":""}"#)]).unwrap_err().to_string();
    assert!(error.ends_with("n/10.conf: error parsing configuration list: missing 'type'"), "{error}");
}

#[test]
fn a_list_that_was_put_together_keeps_every_value_as_written() {
    let directory = Directory::new();
    directory.put(
        "10.conflist",
        r#"{ "name":"n", "x":1.50, "disableCheck":"true", "plugins":[{"type":"a","big":12345678901234567890123}] }"#,
    );
    directory.put("n/10.conf", r#"{"type":"b", "Name":"own", "small":1e-7}"#);
    let list = directory.find("n").unwrap();
    assert_eq!(
        String::from_utf8_lossy(list.bytes()),
        r#"{"disableCheck":"true","loadOnlyInlinedPlugins":true,"name":"n","plugins":[{"big":12345678901234567890123,"type":"a"},{"Name":"own","small":1e-7,"type":"b"}],"x":1.50}"#
    );
    assert!(list.disable_check());
}

#[test]
fn a_list_from_bytes_has_no_sub_directory() {
    let bytes = br#"{"name":"n","plugins":[{"type":"a"}]}"#;
    assert_eq!(NetworkConfigList::parse(bytes).unwrap().bytes(), bytes);
    assert!(NetworkConfigList::parse(br#"{"name":"n"}"#).is_err());
}

#[test]
fn a_list_and_a_single_plugin_are_told_apart_by_the_type() {
    let read = |text: &str| NetworkConfigList::parse_either(text.as_bytes());
    let single = read(r#"{"name":"n","cniVersion":"0.4.0","type":"a","plugins":[{"type":"b"}]}"#).unwrap();
    assert_eq!((single.types().collect::<Vec<_>>(), single.version()), (vec!["a"], "0.4.0"));
    let list = read(r#"{"name":"n","cniVersion":"0.4.0","type":"","plugins":[{"type":"b"}]}"#).unwrap();
    assert_eq!(list.types().collect::<Vec<_>>(), ["b"]);
    assert!(matches!(read(r#"{"type":"a"}"#), Err(Error::MissingNetworkName)));
    assert!(read("null").is_err() && read("[]").is_err() && read("").is_err());
}

#[test]
fn cni_args_are_merged_into_every_plugin() {
    let arguments = RawObject::parse(br#"{"b":2.50,"c":[1]}"#).unwrap();
    let list = br#"{"name":"n","plugins":[{"type":"x"},{"type":"y","Args":{"own":1,"CNI":{"a":1.0,"b":1,"B":0}}},{"type":"z","args":null}]}"#;
    let list = NetworkConfigList::parse(list).unwrap().with_cni_args(&arguments).unwrap();
    let plugin = |index| String::from_utf8(list.plugin(index, &[]).unwrap().bytes().to_owned()).unwrap();
    let x = r#"{"args":{"cni":{"b":2.50,"c":[1]}},"cniVersion":"","name":"n","type":"x"}"#;
    assert_eq!(plugin(0), x);
    assert_eq!(
        plugin(1),
        r#"{"args":{"cni":{"B":0,"a":1.0,"b":2.50,"c":[1]},"own":1},"cniVersion":"","name":"n","type":"y"}"#
    );
    assert_eq!(plugin(2), x.replace("\"x\"", "\"z\""));
    // They are in what the cache stores, too.
    assert_eq!(NetworkConfigList::parse(list.bytes()).unwrap().plugin(0, &[]).unwrap().bytes(), x.as_bytes());

    let single = NetworkConfigList::parse_single(br#"{"name":"n","type":"x"}"#).unwrap();
    let single = single.with_cni_args(&arguments).unwrap();
    assert_eq!(single.bytes(), br#"{"args":{"cni":{"b":2.50,"c":[1]}},"name":"n","type":"x"}"#);

    for (args, place) in [("5", "\"args\" must be an object"), (r#"{"cni":[]}"#, "\"args.cni\" must be an object")] {
        let text = format!(r#"{{"name":"n","type":"x","args":{args}}}"#);
        let error = NetworkConfigList::parse_either(text.as_bytes()).unwrap().with_cni_args(&arguments).unwrap_err();
        assert!(error.to_string().ends_with(place), "{error}");
    }
}

#[test]
fn keys_can_be_set_in_every_plugin() {
    let set = |text: &str| {
        let list = NetworkConfigList::parse_either(text.as_bytes()).unwrap();
        let set = |plugin: &mut RawObject| {
            plugin.set("deviceID", "0000:03:02.0")?;
            plugin.set("pciBusID", "0000:03:02.0")
        };
        String::from_utf8(list.edited(set).unwrap().bytes().to_owned()).unwrap()
    };
    assert_eq!(
        set(r#"{"name":"n","type":"x","DeviceId":"old"}"#),
        r#"{"deviceID":"0000:03:02.0","name":"n","pciBusID":"0000:03:02.0","type":"x"}"#
    );
    assert_eq!(
        set(r#"{"name":"n","Plugins":[{"type":"x"}],"other":1.0}"#),
        r#"{"name":"n","other":1.0,"plugins":[{"deviceID":"0000:03:02.0","pciBusID":"0000:03:02.0","type":"x"}]}"#
    );
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn find(&self, name: &str) -> Result<NetworkConfigList, Error> {
        NetworkConfigList::from_directory(&self.path(""), &name.parse().unwrap())
    }
}
