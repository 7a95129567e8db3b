//! The plugins of a list, one after the other: what each is told, and what is left when one of them fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    env,
    fs::{self, Permissions},
    io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};

use multus_cni::{
    Attachment, AttachmentRequest, CachedAttachment, Chain, Error, ErrorCode, Invocation, IpConfig, NetworkConfigList,
    Pending, Plugin, Provisional, RawObject, Registry, ResultCache, Success, Version,
};
use serde_json::{Value, json};
use tempfile::TempDir;

#[test]
fn each_plugin_gets_its_own_object_and_the_result_of_the_one_before() {
    for version in Version::ALL {
        let node = Node::new(|_| Ok(()));
        node.executable(
            "executed",
            r#"cat > "$0.stdin"; echo '{"ips":[{"address":"10.0.0.2/8"}],"ip4":{"ip":"10.0.0.2/8"}}'"#,
        );
        let list = list(&format!(
            r#"{{"name":"net","cniVersion":"{version}","plugins":[
                {{"type":"first","big":12345678901234567890123}},{{"type":"executed","name":"x"}},{{"type":"last"}}]}}"#
        ));
        let result = node.chain.add(&list, &request()).unwrap().keep();

        assert_eq!(node.calls(), ["ADD first", "ADD last", "keep first", "keep last"]);
        assert_eq!(
            String::from_utf8_lossy(&node.config("ADD first")),
            format!(r#"{{"big":12345678901234567890123,"cniVersion":"{version}","name":"net","type":"first"}}"#)
        );
        let with_previous = |kind: &str, address: &str| {
            let previous = success(address).print(version).unwrap();
            let previous: Value = serde_json::from_slice(&previous).unwrap();
            json!({"cniVersion": version.as_str(), "name": "net", "type": kind, "prevResult": previous})
        };
        let executed: Value = serde_json::from_str(&node.noted("executed", "stdin")).unwrap();
        assert_eq!(executed, with_previous("executed", "10.0.0.1/8"), "{version}");
        let last: Value = serde_json::from_slice(&node.config("ADD last")).unwrap();
        assert_eq!(last, with_previous("last", "10.0.0.2/8"), "{version}");

        assert_eq!(result, success("10.0.0.1/8"));
        let cached = node.cached().unwrap();
        assert_eq!(cached.result().unwrap(), Some(result));
        assert_eq!(cached.config, list.bytes());
    }
}

#[test]
fn arguments_reach_executed_plugins_and_runtime_values_those_that_declare_them() {
    let node = Node::new(|_| Ok(()));
    node.executable("executed", r#"cat > "$0.stdin"; echo "$CNI_ARGS $CNI_PATH $KEPT" > "$0.environment"; echo '{}'"#);
    let list = list(
        r#"{"name":"net","cniVersion":"1.0.0","plugins":[
            {"type":"executed","capabilities":{"portMappings":true,"mac":false,"absent":true,"IPS":true}},
            {"type":"first","runtimeConfig":{"own":1}},{"type":"last","capabilities":{"mac":true},"runtimeConfig":{"own":1}}]}"#,
    );
    assert_eq!(list.capabilities().into_iter().collect::<Vec<_>>(), ["IPS", "absent", "mac", "portMappings"]);
    let mut request = request();
    request.args = vec![("IgnoreUnknown".into(), "true".into()), ("K".into(), String::new()), ("K".into(), "v".into())];
    request.capability_args =
        RawObject::parse(br#"{"portMappings":[{"hostPort":8080.50}],"mac":"02:00:00:00:00:01","ips":["10.0.0.9"]}"#)
            .unwrap();
    node.chain.add(&list, &request).unwrap().keep();

    let kept = env::var("PATH").unwrap();
    let directory = node.directory.path().display();
    assert_eq!(node.noted("executed", "environment"), format!("IgnoreUnknown=true;K=;K=v {directory} {kept}\n"));
    let stdin = node.noted("executed", "stdin");
    assert!(stdin.contains(r#""runtimeConfig":{"portMappings":[{"hostPort":8080.50}]},"#), "{stdin}");
    let first: Value = serde_json::from_slice(&node.config("ADD first")).unwrap();
    assert_eq!(first["runtimeConfig"], json!({"own": 1}));
    let last: Value = serde_json::from_slice(&node.config("ADD last")).unwrap();
    assert_eq!(last["runtimeConfig"], json!({"mac": "02:00:00:00:00:01"}));
    assert_eq!(node.cached().unwrap().request.capability_args.print(), request.capability_args.print());
}

#[test]
fn a_plugin_that_fails_has_all_before_it_undone_and_leaves_no_file() {
    for failing in ["ADD first", "ADD last"] {
        let node = Node::new(move |call| refuse(call, &[failing]));
        node.executable("executed", r#"echo "$CNI_COMMAND" >> "$0.commands"; echo '{}'"#);
        let error = node.chain.add(&three(), &request()).unwrap_err();
        let kind = failing.strip_prefix("ADD ").unwrap();
        assert_eq!(error.to_string(), format!("plugin type=\"{kind}\" failed (add): {failing} is out of luck"));
        assert_eq!(error.code(), ErrorCode::TryAgainLater);
        if failing == "ADD last" {
            assert_eq!(node.calls(), ["ADD first", "ADD last", "undo first"]);
            assert_eq!(node.noted("executed", "commands"), "ADD\nDEL\n");
        }
        assert!(node.files().is_empty());
    }
}

#[test]
fn a_single_plugins_error_is_told_as_it_is() {
    let node = Node::new(|call| refuse(call, &["ADD first", "DEL first"]));
    let single = NetworkConfigList::parse_either(br#"{"name":"net","cniVersion":"1.0.0","type":"first"}"#).unwrap();
    assert_eq!(node.chain.add(&single, &request()).unwrap_err().to_string(), "ADD first is out of luck");
    assert_eq!(node.chain.del(&single, &request()).unwrap_err().to_string(), "DEL first is out of luck");
}

#[test]
fn what_is_not_kept_is_taken_back_from_the_last_to_the_first() {
    type Fate = fn(Pending);
    let fates: [Fate; 3] = [
        |pending| pending.undo().unwrap(),
        drop,
        |pending| {
            let unwinding = AssertUnwindSafe(move || {
                let _pending = pending;
                resume_unwind(Box::new("out of luck"))
            });
            catch_unwind(unwinding).unwrap_err();
        },
    ];
    for fate in fates {
        let node = Node::new(|_| Ok(()));
        fate(node.chain.add(&two(), &request()).unwrap());
        assert_eq!(node.calls(), ["ADD first", "ADD last", "undo last", "undo first"]);
        assert!(node.files().is_empty());
    }
}

#[test]
fn a_plugin_that_panics_has_those_before_it_undone() {
    let node = Node::new(|call| if call == "ADD last" { resume_unwind(Box::new(())) } else { Ok(()) });
    catch_unwind(AssertUnwindSafe(|| drop(node.chain.add(&two(), &request())))).unwrap_err();
    assert_eq!(node.calls(), ["ADD first", "ADD last", "undo first"]);
    assert!(node.files().is_empty());
}

#[test]
fn what_cannot_be_undone_stays_known_for_its_del() {
    let node = Node::new(|call| refuse(call, &["undo last"]));
    let error = node.chain.add(&two(), &request()).unwrap().undo().unwrap_err();
    assert_eq!(error.to_string(), "undo last is out of luck");
    assert_eq!(node.calls(), ["ADD first", "ADD last", "undo last", "undo first"]);
    assert_eq!(node.cached().unwrap().config, two().bytes());
}

#[test]
fn what_cannot_be_undone_is_told_beside_why_it_was_to_be() {
    let node = Node::new(|call| refuse(call, &["ADD last", "undo first"]));
    let error = node.chain.add(&two(), &request()).unwrap_err().to_string();
    let why = r#"plugin type="last" failed (add): ADD last is out of luck"#;
    assert_eq!(error, format!("{why}; taking back what had been added failed: undo first is out of luck"));
    assert!(node.cached().is_some(), "its DEL needs that");
}

#[test]
fn a_plugin_that_could_not_undo_what_it_did_stays_known_for_its_del() {
    let node = Node::new(|call| refuse(call, &["ADD last"]).map_err(|error| Error::NotUndone(Box::new(error))));
    let error = node.chain.add(&two(), &request()).unwrap_err();
    assert!(error.to_string().ends_with("ADD last is out of luck"), "{error}");
    assert_eq!(node.calls(), ["ADD first", "ADD last", "undo first"]);
    assert!(node.cached().is_some());
}

#[test]
fn a_failed_second_add_leaves_what_the_first_one_stored() {
    let node = Node::new(|_| Ok(()));
    node.chain.add(&two(), &request()).unwrap().keep();
    let stored = node.files();
    let failing = node.behaving(|call| refuse(call, &["ADD last"]));
    failing.add(&two(), &request()).unwrap_err();
    assert_eq!(node.files(), stored);
}

#[test]
fn a_plugin_that_is_missing_is_found_out_before_anything_is_done() {
    let node = Node::new(|_| Ok(()));
    let list =
        list(r#"{"name":"net","cniVersion":"1.0.0","plugins":[{"type":"first"},{"type":"nowhere","name":"x"}]}"#);
    let error = node.chain.add(&list, &request()).unwrap_err().to_string();
    let directory = node.directory.path().display();
    assert_eq!(
        error,
        format!(
            "plugin type=\"nowhere\" name=\"x\" failed (add): failed to find plugin \"nowhere\" in path [{directory}]"
        )
    );
    assert!(node.calls().is_empty() && node.files().is_empty());
}

#[test]
fn an_attachment_that_cannot_be_stored_is_not_made() {
    let node = Node::new(|_| Ok(()));
    fs::write(node.directory.path().join("results"), "a file in the way").unwrap();
    let error = node.chain.add(&two(), &request()).unwrap_err().to_string();
    assert!(error.starts_with("failed to set network \"net\" cached result: cannot write /"), "{error}");
    assert!(node.calls().is_empty());
}

#[test]
fn a_version_nobody_speaks_is_refused_before_anything_is_done() {
    let node = Node::new(|_| Ok(()));
    let list = list(r#"{"name":"net","cniVersion":"1.2.3","plugins":[{"type":"first"}]}"#);
    for error in
        [node.chain.add(&list, &request()).map(drop), node.chain.check(&list, &request()), node.chain.status(&list)]
    {
        assert_eq!(error.unwrap_err().code(), ErrorCode::IncompatibleVersion);
    }
    assert!(node.calls().is_empty() && node.files().is_empty());
    // What somebody else may have attached with it is deleted all the same.
    node.chain.del(&list, &request()).unwrap();
    assert_eq!(node.calls(), ["DEL first"]);
}

/// The process that attaches is killed at each step of it; another one deletes.
#[test]
fn an_add_that_is_killed_at_any_step_leaves_what_its_del_needs() {
    if let (Ok(directory), Ok(step)) = (env::var("TO_BE_KILLED_IN"), env::var("TO_BE_KILLED_AT")) {
        let abort = move |call: &str| if call == step { std::process::abort() } else { Ok(()) };
        let pending = chain(Path::new(&directory), &Arc::default(), abort).add(&two(), &request());
        drop(pending.unwrap().keep());
    }
    for step in ["ADD first", "ADD last", "keep first", "keep last"] {
        let node = Node::new(|_| Ok(()));
        let mut killed = Command::new(env::current_exe().unwrap());
        killed.args(["--exact", "an_add_that_is_killed_at_any_step_leaves_what_its_del_needs"]);
        killed.env("TO_BE_KILLED_IN", node.directory.path()).env("TO_BE_KILLED_AT", step);
        assert_eq!(killed.output().unwrap().status.signal(), Some(6));

        let all: Vec<CachedAttachment> = node
            .chain
            .cache
            .attachments(Some(&"c1".parse().unwrap()))
            .unwrap()
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let [cached] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!(cached.config, two().bytes());
        assert_eq!(cached.request.attachment, request().attachment);
        assert_eq!(cached.result().unwrap().is_some(), step.starts_with("keep"), "{step}");
        node.chain.del(&cached.list().unwrap(), &cached.request).unwrap();
        assert_eq!(node.calls(), ["DEL last", "DEL first"]);
        assert!(node.files().is_empty());
    }
}

#[test]
fn del_runs_backwards_with_the_result_of_add_where_the_version_has_that() {
    for version in Version::ALL {
        let node = Node::new(|_| Ok(()));
        let list = two_of(version);
        let result = node.chain.add(&list, &request()).unwrap().keep();
        node.forget_calls();
        let without_netns = AttachmentRequest::new(Attachment { netns: None, ..request().attachment });
        node.chain.del(&list, &without_netns).unwrap();
        assert_eq!(node.calls(), ["DEL last", "DEL first"]);
        for call in ["DEL last", "DEL first"] {
            let config: Value = serde_json::from_slice(&node.config(call)).unwrap();
            let previous: Value = serde_json::from_slice(&result.print(version).unwrap()).unwrap();
            assert_eq!(config.get("prevResult"), (version >= Version::V0_4_0).then_some(&previous), "{version}");
        }
        assert!(node.files().is_empty());
        node.chain.del(&list, &without_netns).unwrap();
    }
}

#[test]
fn del_goes_on_after_a_failure_and_keeps_what_the_next_one_needs() {
    let node = Node::new(|call| refuse(call, &["DEL last", "DEL first"]));
    node.chain.add(&two(), &request()).unwrap().keep();
    node.forget_calls();
    let error = node.chain.del(&two(), &request()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "plugin type=\"last\" failed (delete): DEL last is out of luck; \
         plugin type=\"first\" failed (delete): DEL first is out of luck"
    );
    assert_eq!(error.code(), ErrorCode::TryAgainLater);
    assert_eq!(node.calls(), ["DEL last", "DEL first"]);
    assert!(node.cached().unwrap().result().unwrap().is_some());

    node.behaving(|_| Ok(())).del(&two(), &request()).unwrap();
    assert!(node.files().is_empty());
}

#[test]
fn a_cache_that_cannot_be_read_does_not_keep_an_attachment() {
    for content in ["", "{", "null", "[]", r#"{"kind":"cniCacheV1","result":{"cniVersion":"0.4567.0"}}"#, "\u{0}"] {
        let node = Node::new(|_| Ok(()));
        node.chain.add(&two(), &request()).unwrap().keep();
        let [(name, _)] = node.files().try_into().unwrap();
        fs::write(node.directory.path().join("results").join(&name), content).unwrap();

        let error = node.chain.check(&two(), &request()).unwrap_err().to_string();
        assert!(error.starts_with("failed to get network \"net\" cached result: "), "{error}");
        node.forget_calls();
        node.chain.del(&two(), &request()).unwrap();
        assert_eq!(node.calls(), ["DEL last", "DEL first"]);
        let config: Value = serde_json::from_slice(&node.config("DEL first")).unwrap();
        assert_eq!(config.get("prevResult"), None);
        assert!(node.files().is_empty());
    }
}

#[test]
fn check_gives_every_plugin_the_result_of_add() {
    let node = Node::new(|call| refuse(call, &["CHECK last"]));
    let result = node.chain.add(&two(), &request()).unwrap().keep();
    node.forget_calls();
    assert_eq!(node.chain.check(&two(), &request()).unwrap_err().to_string(), "CHECK last is out of luck");
    assert_eq!(node.calls(), ["CHECK first", "CHECK last"]);
    let previous: Value = serde_json::from_slice(&result.print(Version::V1_1_0).unwrap()).unwrap();
    for call in ["CHECK first", "CHECK last"] {
        let config: Value = serde_json::from_slice(&node.config(call)).unwrap();
        assert_eq!(config["prevResult"], previous);
    }
}

#[test]
fn a_result_of_another_version_is_told_in_that_of_the_list() {
    let node = Node::new(|_| Ok(()));
    node.chain.add(&two_of(Version::V0_3_1), &request()).unwrap().keep();
    node.chain.check(&two_of(Version::V1_0_0), &request()).unwrap();
    let config: Value = serde_json::from_slice(&node.config("CHECK first")).unwrap();
    assert_eq!(config["prevResult"], json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8"}]}));
}

#[test]
fn check_is_refused_before_its_version_and_skipped_on_demand() {
    let node = Node::new(|_| Ok(()));
    let error = node.chain.check(&two_of(Version::V0_3_1), &request()).unwrap_err();
    assert_eq!(error.to_string(), "configuration version \"0.3.1\" does not support the CHECK command");
    let list = list(r#"{"name":"net","cniVersion":"1.0.0","disableCheck":true,"plugins":[{"type":"nowhere"}]}"#);
    node.chain.check(&list, &request()).unwrap();
    assert!(node.calls().is_empty());
}

#[test]
fn status_asks_in_order_until_one_cannot() {
    let node = Node::new(|call| match call {
        "STATUS last" => Err(Error::from_plugin(ErrorCode::NotAvailable, io::Error::other("not yet"))),
        _ => Ok(()),
    });
    let list =
        list(r#"{"name":"net","cniVersion":"1.1.0","plugins":[{"type":"first"},{"type":"last"},{"type":"first"}]}"#);
    let error = node.chain.status(&list).unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (ErrorCode::NotAvailable, "not yet"));
    assert_eq!(node.calls(), ["STATUS first", "STATUS last"]);

    node.forget_calls();
    node.chain.status(&two_of(Version::V1_0_0)).unwrap();
    assert!(node.calls().is_empty());
}

#[test]
fn garbage_is_deleted_as_it_was_added_and_the_plugins_told_what_is_none() {
    let node = Node::new(|_| Ok(()));
    let stale = AttachmentRequest::new(attachment("gone"));
    let old = list(r#"{"name":"net","cniVersion":"1.0.0","plugins":[{"type":"first","old":1.50}]}"#);
    let other = list(r#"{"name":"net-2","cniVersion":"1.1.0","plugins":[{"type":"last"}]}"#);
    node.chain.add(&two(), &request()).unwrap().keep();
    node.chain.add(&old, &stale).unwrap().keep();
    node.chain.add(&other, &stale).unwrap().keep();
    fs::write(node.directory.path().join("results/net-torn-eth0"), "{").unwrap();
    node.forget_calls();

    node.chain.gc(&two(), &[request().attachment.id()]).unwrap();
    assert_eq!(node.calls(), ["DEL first", "GC first", "GC last"]);
    assert!(String::from_utf8(node.config("DEL first")).unwrap().contains(r#""old":1.50,"#));
    let valid = json!([{"containerID": "c1", "ifname": "net1"}]);
    for call in ["GC first", "GC last"] {
        let config: Value = serde_json::from_slice(&node.config(call)).unwrap();
        assert_eq!((&config["cni.dev/valid-attachments"], &config["cni.dev/attachments"]), (&valid, &valid));
    }
    let names: Vec<String> = node.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["net-2-gone-net1", "net-c1-net1", "net-torn-eth0"]);

    // Nothing is valid, and the version has no GC: what is cached goes all the same.
    node.forget_calls();
    node.chain.gc(&two_of(Version::V0_4_0), &[]).unwrap();
    assert_eq!(node.calls(), ["DEL last", "DEL first"]);
}

#[test]
fn collecting_garbage_goes_on_after_failures_and_does_nothing_where_it_is_disabled() {
    let node = Node::new(|call| refuse(call, &["DEL last", "GC first"]));
    let disabled =
        list(r#"{"name":"net","cniVersion":"1.1.0","disableGC":true,"plugins":[{"type":"first"},{"type":"last"}]}"#);
    node.chain.gc(&disabled, &[]).unwrap();
    node.chain.add(&two(), &request()).unwrap().keep();
    node.forget_calls();
    node.chain.gc(&disabled, &[]).unwrap();
    assert!(node.calls().is_empty());

    let error = node.chain.gc(&two(), &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to delete stale attachment c1 net1: plugin type=\"last\" failed (delete): DEL last is out of luck; \
         failed to GC plugin first: GC first is out of luck"
    );
    assert_eq!(node.calls(), ["DEL last", "DEL first", "GC first", "GC last"]);
    assert!(node.cached().is_some());
}

#[test]
fn a_list_is_valid_when_all_its_plugins_are_there_and_speak_its_version() {
    let node = Node::new(|_| Ok(()));
    node.executable(
        "modern",
        r#"cat > "$0.stdin"; echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}'"#,
    );
    node.executable("old", r#"echo '{"cniVersion":"0.2.0"}'"#);
    node.executable("oldest", r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#);
    node.executable("mute", "true");
    let problem = |version: &str, kinds: &[&str]| {
        let plugins: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let list = list(&json!({"name": "net", "cniVersion": version, "plugins": plugins}).to_string());
        node.chain.validate(&list).err().map(|error| error.to_string())
    };
    assert_eq!(problem("1.1.0", &["modern", "first"]), None);
    assert_eq!(node.noted("modern", "stdin"), r#"{"cniVersion":"1.1.0"}"#);
    assert_eq!(problem("0.2.0", &["old", "first"]), None);
    assert_eq!(problem("", &["oldest", "old"]), None);
    assert_eq!(
        problem("0.2.0", &["oldest", "old", "modern"]).unwrap(),
        "plugin oldest does not support config version \"0.2.0\"; \
         plugin modern does not support config version \"0.2.0\""
    );
    assert_eq!(problem("broken", &["first"]).unwrap(), "plugin first does not support config version \"broken\"");
    assert!(problem("1.0.0", &["mute", "nowhere"]).unwrap().contains("; failed to find plugin \"nowhere\" in path ["));
    assert!(node.calls().is_empty());
}

#[test]
fn a_result_without_addresses_passes_in_every_version() {
    for version in Version::ALL {
        let node = Node::new(|_| Ok(()));
        node.executable("executed", "echo '{}'");
        let list = list(&format!(
            r#"{{"name":"net","cniVersion":"{version}","plugins":[{{"type":"executed"}},{{"type":"executed"}}]}}"#
        ));
        assert_eq!(node.chain.add(&list, &request()).unwrap().keep(), Success::default());
        node.chain.del(&list, &request()).unwrap();
    }
}

/// A directory with executables and a result cache, and what the plugins `first` and `last` of this process were asked.
struct Node {
    directory: TempDir,
    calls: Calls,
    chain: Chain,
}

type Calls = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl Node {
    /// `behaviour` says of each call, such as `ADD first` or `undo last`, whether it succeeds.
    fn new(behaviour: impl Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let calls = Calls::default();
        let chain = chain(directory.path(), &calls, behaviour);
        Self { directory, calls, chain }
    }

    /// A chain on the same directory with other plugins.
    fn behaving(&self, behaviour: impl Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static) -> Chain {
        chain(self.directory.path(), &self.calls, behaviour)
    }

    fn executable(&self, kind: &str, body: &str) {
        let file = self.directory.path().join(kind);
        fs::write(&file, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    }

    fn noted(&self, kind: &str, what: &str) -> String {
        fs::read_to_string(self.directory.path().join(kind).with_extension(what)).unwrap()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(call, _)| call.clone()).collect()
    }

    fn forget_calls(&self) {
        self.calls.lock().unwrap().clear();
    }

    /// The configuration that came with a call.
    fn config(&self, call: &str) -> Vec<u8> {
        self.calls.lock().unwrap().iter().find(|(made, _)| made == call).unwrap().1.clone()
    }

    fn cached(&self) -> Option<CachedAttachment> {
        self.chain.cache.read(&"net".parse().unwrap(), &request().attachment).unwrap()
    }

    /// The names and contents of the cache's files.
    fn files(&self) -> Vec<(String, String)> {
        let Ok(entries) = fs::read_dir(self.directory.path().join("results")) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        let file = |path: std::path::PathBuf| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
        };
        let mut files: Vec<_> = paths.map(file).collect();
        files.sort();
        files
    }
}

fn chain(
    directory: &Path,
    calls: &Calls,
    behaviour: impl Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static,
) -> Chain {
    let plugin = |kind| Recorded { kind, calls: Arc::clone(calls), behaviour: behaviour.clone() };
    let registry = Registry::new().with("first", plugin("first")).with("last", plugin("last"));
    let mut chain = Chain::new(registry, ResultCache::new(directory));
    chain.path = vec![directory.to_owned()];
    let path = env::var_os("PATH").unwrap();
    chain.environment = [("PATH".into(), path.clone()), ("KEPT".into(), path)].into_iter().collect();
    chain
}

/// A plugin of this process that notes what it is asked.
#[derive(Clone)]
struct Recorded<B> {
    kind: &'static str,
    calls: Calls,
    behaviour: B,
}

impl<B: Fn(&str) -> Result<(), Error>> Recorded<B> {
    fn called(&self, command: &str, config: &[u8]) -> Result<(), Error> {
        let call = format!("{command} {}", self.kind);
        self.calls.lock().unwrap().push((call.clone(), config.to_owned()));
        (self.behaviour)(&call)
    }
}

impl<B: Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static> Plugin for Recorded<B> {
    fn add(&self, _: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        self.called("ADD", invocation.config.bytes())?;
        Ok(Pending::new(success("10.0.0.1/8"), self.clone()))
    }

    fn del(&self, _: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.called("DEL", invocation.config.bytes())
    }

    fn check(&self, _: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.called("CHECK", invocation.config.bytes())
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Error> {
        self.called("STATUS", invocation.config.bytes())
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Error> {
        self.called("GC", invocation.config.bytes())
    }
}

impl<B: Fn(&str) -> Result<(), Error> + Send> Provisional for Recorded<B> {
    fn keep(self: Box<Self>) {
        self.called("keep", &[]).unwrap();
    }

    fn undo(self: Box<Self>) -> Result<(), Error> {
        self.called("undo", &[])
    }
}

fn refuse(call: &str, failing: &[&str]) -> Result<(), Error> {
    let error = || Error::from_plugin(ErrorCode::TryAgainLater, io::Error::other(format!("{call} is out of luck")));
    if failing.contains(&call) { Err(error()) } else { Ok(()) }
}

fn success(address: &str) -> Success {
    let ip = IpConfig { address: address.parse().unwrap(), gateway: None, interface: None };
    Success { ips: vec![ip], ..Success::default() }
}

fn list(text: &str) -> NetworkConfigList {
    NetworkConfigList::parse(text.as_bytes()).unwrap()
}

fn two_of(version: Version) -> NetworkConfigList {
    list(&format!(r#"{{"name":"net","cniVersion":"{version}","plugins":[{{"type":"first"}},{{"type":"last"}}]}}"#))
}

fn two() -> NetworkConfigList {
    two_of(Version::V1_1_0)
}

fn three() -> NetworkConfigList {
    list(r#"{"name":"net","cniVersion":"1.1.0","plugins":[{"type":"first"},{"type":"executed"},{"type":"last"}]}"#)
}

fn attachment(container_id: &str) -> Attachment {
    Attachment {
        container_id: container_id.parse().unwrap(),
        ifname: "net1".parse().unwrap(),
        netns: Some("/run/netns/c1".into()),
    }
}

fn request() -> AttachmentRequest {
    AttachmentRequest::new(attachment("c1"))
}
