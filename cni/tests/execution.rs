//! Plugins that are executables: how they are found, what they are given, and what becomes of what they say.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, OpenOptions, Permissions},
    io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use multus_cni::{
    Attachment, Builtin, Environment, Error, ErrorCode, ErrorObject, ExecutedPlugin, Invocation, NetworkConfig,
    NetworkConfigList, Pending, Plugin, Registry, Success,
};
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use tempfile::TempDir;

const CONFIG: &str = r#"{ "cniVersion":"1.0.0", "name":"execution-test", "big":12345678901234567890123 }"#;

/// A script's way to note down each command it gets.
const NOTE: &str = "echo \"$CNI_COMMAND\" >> \"$0.commands\"\n";

#[test]
fn each_method_runs_the_plugin_once_with_its_command() {
    for (command, run) in commands() {
        let plugin = Script::new(NOTE.to_owned() + "echo '{}'");
        run(&plugin.plugin(), &invocation(CONFIG)).unwrap();
        assert_eq!(plugin.commands(), [command]);
    }
}

#[test]
fn standard_input_is_the_configuration_byte_for_byte() {
    for text in [CONFIG.to_owned(), format!("\n\t{CONFIG}\r\n"), r#"{"name":"a","NAME":"b","x":"é\u00e9"}"#.to_owned()]
    {
        for (_, run) in commands() {
            let plugin = Script::new("cat > \"$0.stdin\"; echo '{}'");
            run(&plugin.plugin(), &invocation(&text)).unwrap();
            assert_eq!(plugin.noted("stdin"), text);
        }
    }
}

#[test]
fn the_environment_is_inherited_with_the_variables_of_the_call_in_place_of_others() {
    for (command, run) in commands() {
        let plugin = Script::new("cat /proc/$$/environ > \"$0.environment\"; echo '{}'");
        let mut invocation = invocation(CONFIG);
        invocation.args = "KEY1=VALUE1;KEY2=VALUE2".to_owned();
        invocation.path = vec!["/first".into(), "/second".into()];
        invocation.environment = variables(&[
            ("PATH", &std::env::var("PATH").unwrap()),
            ("KEPT", "first"),
            ("KEPT", "last"),
            ("EMPTY", ""),
            ("CNI_COMMAND", "NOPE"),
            ("CNI_COMMAND", "VERSION"),
            ("CNI_CONTAINERID", "latent"),
            ("CNI_NETNS", "latent"),
            ("CNI_IFNAME", "latent"),
            ("CNI_ARGS", "latent"),
            ("CNI_PATH", "latent"),
            ("CNI_NETNS_OVERRIDE", "1"),
        ]);
        run(&plugin.plugin(), &invocation).unwrap();

        let environment = plugin.noted("environment");
        let entries: Vec<(&str, &str)> =
            environment.split_terminator('\0').map(|entry| entry.split_once('=').unwrap()).collect();
        let values: BTreeMap<&str, &str> = entries.iter().copied().collect();
        assert_eq!(values.len(), entries.len(), "something is there twice: {entries:?}");
        for (name, value) in [
            ("KEPT", "last"),
            ("EMPTY", ""),
            ("CNI_COMMAND", command),
            ("CNI_ARGS", "KEY1=VALUE1;KEY2=VALUE2"),
            ("CNI_PATH", "/first:/second"),
            ("CNI_NETNS_OVERRIDE", "1"),
        ] {
            assert_eq!(values.get(name), Some(&value), "{command}: {name}");
        }
        if matches!(command, "ADD" | "DEL" | "CHECK") {
            for (name, value) in
                [("CNI_CONTAINERID", "container-1"), ("CNI_NETNS", "/run/netns/c1"), ("CNI_IFNAME", "eth0")]
            {
                assert_eq!(values.get(name), Some(&value), "{command}: {name}");
            }
        }
    }
}

#[test]
fn a_del_without_a_namespace_does_not_inherit_one() {
    let plugin = Script::new("printf '<%s>' \"$CNI_NETNS\" > \"$0.netns\"");
    let mut invocation = invocation(CONFIG);
    invocation.environment = variables(&[("CNI_NETNS", "/run/netns/other")]);
    let attachment = Attachment { netns: None, ..attachment() };
    plugin.plugin().del(&attachment, &invocation).unwrap();
    assert_eq!(plugin.noted("netns"), "<>");
}

#[test]
fn nothing_of_this_process_is_inherited_but_what_the_invocation_holds() {
    let plugin = Script::new("cat /proc/$$/environ > \"$0.environment\"");
    plugin.plugin().status(&Invocation::new(NetworkConfig::parse(CONFIG).unwrap())).unwrap();
    let environment = plugin.noted("environment");
    let names: Vec<&str> = environment.split_terminator('\0').map(|entry| entry.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["CNI_ARGS", "CNI_COMMAND", "CNI_PATH"]);
}

#[test]
fn the_first_regular_file_in_the_path_is_taken() {
    let directory = tempfile::tempdir().unwrap();
    let [missing, first, second, third] = ["missing", "1", "2", "3"].map(|name| directory.path().join(name));
    for directory in [&first, &second, &third] {
        fs::create_dir(directory).unwrap();
    }
    // A directory of that name is no plugin; a link to a file is one.
    fs::create_dir(first.join("noop")).unwrap();
    write_script(&directory.path().join("target"), &says("second"));
    symlink(directory.path().join("target"), second.join("noop")).unwrap();
    write_script(&third.join("noop"), &says("third"));

    for (path, said) in [
        (vec![&missing, &first, &second, &third], "second"),
        (vec![&third, &second], "third"),
        (vec![&second, &third], "second"),
    ] {
        let mut invocation = invocation(CONFIG);
        invocation.path = path.into_iter().cloned().collect();
        let plugin = ExecutedPlugin::find("noop", &invocation).unwrap();
        assert_eq!(plugin.status(&invocation).unwrap_err().to_string(), said);
    }
}

#[test]
fn the_path_is_searched_where_the_root_of_the_host_is_mounted() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("some/plugins")).unwrap();
    write_script(&root.path().join("some/plugins/noop"), "");
    let mut invocation = invocation(CONFIG);
    invocation.path = vec!["/some/plugins".into()];
    assert!(ExecutedPlugin::find("noop", &invocation).is_err());
    invocation.root = root.path().to_owned();
    assert!(ExecutedPlugin::find("noop", &invocation).is_ok());
}

#[test]
fn a_plugin_that_is_not_found_is_named_with_the_places_searched() {
    let directory = tempfile::tempdir().unwrap();
    let present = directory.path().to_str().unwrap();
    for (kind, path, message) in [
        ("noop", vec!["/nowhere"], "failed to find plugin \"noop\" in path [/nowhere]".to_owned()),
        ("noop", vec!["/nowhere", present], format!("failed to find plugin \"noop\" in path [/nowhere {present}]")),
        ("..", vec![present], format!("failed to find plugin \"..\" in path [{present}]")),
        ("", vec![present], "no plugin name provided".to_owned()),
        ("../noop", vec![present], "invalid plugin name: ../noop".to_owned()),
        ("/bin/sh", vec![present], "invalid plugin name: /bin/sh".to_owned()),
        ("noop", vec![], "no paths provided".to_owned()),
    ] {
        let mut invocation = invocation(CONFIG);
        invocation.path = path.into_iter().map(PathBuf::from).collect();
        for error in [
            ExecutedPlugin::find(kind, &invocation).map(drop).unwrap_err(),
            Registry::new().find(kind, &invocation).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), message);
            assert_eq!(error.code(), ErrorCode::Internal);
        }
    }
}

#[test]
fn a_bad_plugin_name_is_reported_before_a_missing_path() {
    let invocation = invocation(CONFIG);
    for (kind, message) in [("", "no plugin name provided"), ("a/b", "invalid plugin name: a/b")] {
        assert_eq!(ExecutedPlugin::find(kind, &invocation).unwrap_err().to_string(), message);
    }
}

#[test]
fn a_file_that_cannot_be_executed_is_found_and_fails_with_the_reason() {
    let plugin = Script::new("exit 0");
    fs::set_permissions(&plugin.file, Permissions::from_mode(0o644)).unwrap();
    let mut invocation = invocation(CONFIG);
    invocation.path = vec![plugin.directory.path().to_owned()];
    let error = ExecutedPlugin::find("plugin", &invocation).unwrap().status(&invocation).unwrap_err();
    let file = plugin.file.display();
    let message = format!("netplugin failed with no error message: fork/exec {file}: permission denied");
    assert_eq!(error.to_string(), message);
    assert_eq!(error.object().code, 0);
}

#[test]
fn a_json_error_on_standard_output_passes_with_code_message_and_details() {
    for (said, code, message, details) in [
        (r#"{"code":7,"msg":"some message","details":"some details"}"#, 7, "some message", "some details"),
        (r#"{"cniVersion":"1.0.0","code":100,"msg":"m"}"#, 100, "m", ""),
        (r#"{"Code":11,"MSG":"m","Details":"d"}"#, 11, "m", "d"),
    ] {
        for (command, run) in commands() {
            // What is on standard error does not matter then.
            let plugin = Script::new(format!("printf '%s' '{said}'; echo aside >&2; exit 1"));
            let error = run(&plugin.plugin(), &invocation(CONFIG)).unwrap_err();
            let wanted = ErrorObject { code, msg: message.to_owned(), details: details.to_owned() };
            assert_eq!(error.object(), wanted, "{command}: {said}");
            let text = if details.is_empty() { message.to_owned() } else { format!("{message}; {details}") };
            assert_eq!(error.to_string(), text);
        }
    }
}

#[test]
fn null_in_a_json_error_counts_as_absent() {
    for (said, code, message) in
        [(r#"{"code":50,"msg":null,"details":null}"#, 50, ""), (r#"{"code":null,"msg":"m"}"#, 0, "m")]
    {
        let plugin = Script::new(format!("printf '%s' '{said}'; exit 1"));
        let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
        assert_eq!(error.object(), ErrorObject { code, msg: message.to_owned(), details: String::new() }, "{said}");
    }
}

#[test]
fn an_array_on_standard_output_is_no_json_error() {
    for said in [r#"[7,"m","d"]"#, "[]"] {
        let plugin = Script::new(format!("printf '%s' '{said}'; exit 1"));
        let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
        assert_eq!(error.object().code, 0, "{said}");
        let prefix = format!("netplugin failed but error parsing its diagnostic message {said:?}: ");
        assert!(error.to_string().starts_with(&prefix), "{said}: {error}");
    }
}

#[test]
fn other_text_on_standard_output_is_quoted() {
    for (said, quoted) in [
        ("oops\\n", r#""oops\n""#),
        ("say \\042hello\\042", r#""say \"hello\"""#),
        ("{}{}", r#""{}{}""#),
        ("{\\042code\\042:\\042x\\042}", r#""{\"code\":\"x\"}""#),
    ] {
        let plugin = Script::new(format!("printf '{said}'; echo aside >&2; exit 1"));
        let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
        let prefix = format!("netplugin failed but error parsing its diagnostic message {quoted}: ");
        let message = error.to_string();
        assert!(message.starts_with(&prefix) && message.len() > prefix.len(), "{message}");
        assert_eq!((error.object().code, error.object().msg, error.object().details), (0, message, String::new()));
    }
}

#[test]
fn text_on_standard_error_alone_is_quoted() {
    for (said, quoted) in [
        ("some stderr message", r#""some stderr message""#),
        ("two\\nlines\\n", r#""two\nlines\n""#),
        ("a \\042tab\\042:\\t\\\\", r#""a \"tab\":\t\\""#),
        ("caf\\303\\251", "\"café\""),
    ] {
        for (_, run) in commands() {
            let plugin = Script::new(format!("printf '{said}' >&2; exit 1"));
            let error = run(&plugin.plugin(), &invocation(CONFIG)).unwrap_err();
            assert_eq!(error.to_string(), format!("netplugin failed: {quoted}"));
            assert_eq!(error.object().code, 0);
        }
    }
}

#[test]
fn a_failed_plugins_megabytes_do_not_fill_the_message() {
    for (size, place) in [(3_000_000, ""), (3000, ">&2")] {
        let plugin = Script::new(format!("head -c {size} /dev/zero | tr '\\0' x {place}; exit 1"));
        let message = plugin.plugin().status(&invocation(CONFIG)).unwrap_err().to_string();
        assert!(message.contains("xxxxx\"…") && message.len() < 1200, "{} bytes", message.len());
    }
}

#[test]
fn control_characters_and_stray_bytes_are_quoted_as_in_go() {
    for (said, quoted) in [
        ("control\\001", r#""control\x01""#),
        ("nul\\000", r#""nul\x00""#),
        ("vertical\\013", r#""vertical\v""#),
        ("delete\\177", r#""delete\x7f""#),
        ("byte\\377", r#""byte\xff""#),
    ] {
        let plugin = Script::new(format!("printf '{said}' >&2; exit 1"));
        let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
        assert_eq!(error.to_string(), format!("netplugin failed: {quoted}"));
    }
}

#[test]
fn a_silent_failure_tells_the_exit_status() {
    for status in [1, 3, 255] {
        let plugin = Script::new(format!("exit {status}"));
        for (_, run) in commands() {
            let error = run(&plugin.plugin(), &invocation(CONFIG)).unwrap_err();
            let message = format!("netplugin failed with no error message: exit status {status}");
            assert_eq!(error.to_string(), message);
            assert_eq!(error.object(), ErrorObject { code: 0, msg: message, details: String::new() });
        }
    }
}

#[test]
fn a_killed_plugin_is_a_failure() {
    let plugin = Script::new("kill -9 $$");
    let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
    assert!(error.to_string().starts_with("netplugin failed with no error message: signal: "), "{error}");
}

#[test]
fn a_result_is_no_error_message() {
    for told in [r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}"#, "{}", "null"] {
        let plugin = Script::new(format!("echo '{told}'; kill -9 $$"));
        for (_, run) in commands() {
            let error = run(&plugin.plugin(), &invocation(CONFIG)).unwrap_err();
            assert!(error.to_string().starts_with("netplugin failed with no error message: signal: "), "{error}");
        }
        let plugin = Script::new(format!("echo '{told}'; echo words >&2; exit 1"));
        let error = plugin.plugin().status(&invocation(CONFIG)).unwrap_err();
        assert_eq!(error.to_string(), r#"netplugin failed: "words\n""#);
    }
}

#[test]
fn a_missing_file_is_a_failure() {
    let error = ExecutedPlugin::new("/nowhere/noop").status(&invocation(CONFIG)).unwrap_err();
    let prefix = "netplugin failed with no error message: fork/exec /nowhere/noop: ";
    assert!(error.to_string().starts_with(prefix), "{error}");
}

#[test]
fn what_a_plugin_prints_with_other_commands_than_add_does_not_matter() {
    let plugin = Script::new("echo oops");
    for (command, run) in commands() {
        assert_eq!(run(&plugin.plugin(), &invocation(CONFIG)).is_ok(), command != "ADD");
    }
}

#[test]
fn a_big_configuration_and_a_big_output_neither_block_nor_fail() {
    let config = format!(r#"{{"cniVersion":"1.0.0","name":"n","padding":"{}"}}"#, "x".repeat(1 << 20));
    let answer = r#"echo '{"ips":[{"address":"10.1.2.3/24"}]}'"#;
    let much = "head -c 1048576 /dev/zero | tr '\\0' ' '";
    for (body, reads) in [
        (answer.to_owned(), false),
        (format!("exec 0<&-; {answer}"), false),
        (format!("cat > \"$0.stdin\"; {answer}"), true),
        (format!("{much}; {answer}; cat > \"$0.stdin\""), true),
        (format!("{much}; {answer}"), false),
        (format!("head -c 5 > /dev/null; {answer}"), false),
    ] {
        let plugin = Script::new(body);
        let (executed, invocation) = (plugin.plugin(), invocation(&config));
        let success = within_a_minute(move || executed.add(&attachment(), &invocation).map(Pending::keep)).unwrap();
        assert_eq!(success.ips[0].address.to_string(), "10.1.2.3/24");
        if reads {
            assert!(plugin.noted("stdin") == config, "the plugin read something else");
        }
    }
}

#[test]
fn a_plugin_that_prints_without_end_is_ended() {
    let printed = |length: usize| {
        let answer = r#"{"ips":[{"address":"10.1.2.3/24"}]}"#;
        let rest = length - answer.len();
        let plugin = Script::new(format!(
            "[ $CNI_COMMAND = ADD ] || exit 0\nprintf '%s' '{answer}'; head -c {rest} /dev/zero | tr '\\0' ' '"
        ));
        within_a_minute(move || plugin.plugin().add(&attachment(), &invocation(CONFIG)).map(Pending::keep))
    };
    assert_eq!(printed(4 << 20).unwrap().ips[0].address.to_string(), "10.1.2.3/24");
    let error = printed((4 << 20) + 1).unwrap_err().to_string();
    assert!(error.ends_with("it wrote more than 4194304 bytes to standard output"), "{error}");
    let plugin = Script::new("[ $CNI_COMMAND = ADD ] || exit 0\nexec yes");
    let added = within_a_minute(move || plugin.plugin().add(&attachment(), &invocation(CONFIG)).map(drop));
    let error = added.unwrap_err().to_string();
    assert!(error.ends_with("it wrote more than 4194304 bytes to standard output"), "{error}");
}

#[test]
fn a_plugin_that_hangs_is_ended_with_what_it_has_started_and_its_words_are_told() {
    let plugin = Script::new("exec 3> \"$0.alive\"; echo waiting for the switch >&2; sleep 1000 & wait");
    let alive = plugin.file.with_extension("alive");
    mkfifo(&alive, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let executed = plugin.plugin().with_time_limit(Duration::from_secs(2));
    let error = within_a_minute(move || {
        // Ends when nobody can write to it any more.
        let all_ended = thread::spawn(|| fs::read(alive));
        let error = executed.status(&invocation(CONFIG)).unwrap_err();
        all_ended.join().unwrap().unwrap();
        error.to_string()
    });
    let words = r#": it did not end within 2s, and was killed; it said "waiting for the switch\n""#;
    assert!(error.ends_with(words), "{error}");
}

#[test]
fn a_plugin_that_ends_is_not_waited_for_because_of_what_it_leaves_behind() {
    let plugin = Script::new(r#"sleep 1000 & echo $! > "$0.left"; echo '{"ips":[{"address":"10.1.2.3/24"}]}'"#);
    let executed = plugin.plugin();
    let added = within_a_minute(move || executed.add(&attachment(), &invocation(CONFIG)).map(Pending::keep));
    assert_eq!(added.unwrap().ips[0].address.to_string(), "10.1.2.3/24");
    // It is none of our business.
    kill(Pid::from_raw(plugin.noted("left").trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn of_what_a_plugin_says_on_the_side_the_first_part_is_kept_and_less_is_quoted() {
    let plugin = Script::new("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1");
    let status = within_a_minute(move || plugin.plugin().status(&invocation(CONFIG)));
    let error = status.unwrap_err().to_string();
    assert_eq!(error, format!("netplugin failed: \"{}\"…", "x".repeat(1000)));
}

#[test]
fn a_result_without_a_version_has_that_of_the_configuration() {
    let since_0_3 = r#"{"ips":[{"address":"10.1.2.3/24"}]}"#;
    let before_0_3 = r#"{"ip4":{"ip":"10.1.2.3/24"}}"#;
    for (version, said) in [
        (Some("1.1.0"), since_0_3),
        (Some("0.4.0"), since_0_3),
        (Some("0.2.0"), before_0_3),
        (Some(""), before_0_3),
        (None, before_0_3),
    ] {
        let version = version.map(|version| format!(r#","cniVersion":"{version}""#)).unwrap_or_default();
        for unnamed in ["{\"cniVersion\":\"\",", "{"] {
            let said = said.replacen('{', unnamed, 1);
            let plugin = Script::new(format!("echo '{said}'"));
            let pending = plugin.plugin().add(&attachment(), &invocation(&format!(r#"{{"name":"n"{version}}}"#)));
            let success = pending.unwrap().keep();
            assert_eq!(success.ips.len(), 1, "{said} with {version}");
            assert_eq!(success.ips[0].address.to_string(), "10.1.2.3/24");
        }
    }
}

#[test]
fn a_result_of_another_version_than_the_configuration_is_read_by_its_own() {
    let plugin = Script::new(r#"echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.1.2.3/24"},"dns":{"domain":"d"}}'"#);
    let success = plugin.plugin().add(&attachment(), &invocation(CONFIG)).unwrap().keep();
    assert_eq!((success.ips.len(), success.dns.domain.as_str()), (1, "d"));
}

#[test]
fn null_is_an_empty_result() {
    let plugin = Script::new("echo null");
    assert_eq!(plugin.plugin().add(&attachment(), &invocation(CONFIG)).unwrap().keep(), Success::default());
}

#[test]
fn an_add_that_failed_in_any_way_is_followed_by_a_del_and_its_own_error_is_told() {
    for (said, message) in [
        (r#"{"cniVersion":"9.9.9"}"#, "unsupported CNI result version \"9.9.9\""),
        ("", "failed to unmarshal raw result: unexpected end of JSON input"),
        ("oops", "failed to unmarshal raw result: "),
        ("[]", "failed to unmarshal raw result: "),
        (r#"{"ips":[{"address":"1.2.3/45"}]}"#, "\"ips[0].address\" must be an address with a prefix length: "),
    ] {
        let plugin = Script::new(format!("{NOTE}[ $CNI_COMMAND = DEL ] || printf '%s' '{said}'"));
        let error = plugin.plugin().add(&attachment(), &invocation(CONFIG)).unwrap_err();
        assert!(error.to_string().starts_with(message), "{error}");
        assert_eq!(plugin.commands(), ["ADD", "DEL"]);
    }
    let failing = r#"echo '{"code":11,"msg":"from '$CNI_COMMAND'"}'; exit 1"#;
    let plugin = Script::new(NOTE.to_owned() + failing);
    let error = plugin.plugin().add(&attachment(), &invocation(CONFIG)).unwrap_err();
    assert_eq!((error.object().code, error.to_string().as_str()), (11, "from ADD"));
    assert_eq!(plugin.commands(), ["ADD", "DEL"]);
}

#[test]
fn other_failed_commands_are_not_followed_by_anything() {
    for (command, run) in commands().into_iter().filter(|(command, _)| *command != "ADD") {
        let plugin = Script::new(NOTE.to_owned() + "exit 1");
        run(&plugin.plugin(), &invocation(CONFIG)).unwrap_err();
        assert_eq!(plugin.commands(), [command]);
    }
}

#[test]
fn undoing_an_add_runs_del_with_the_same_attachment_and_configuration() {
    let note = "echo \"$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS $(cat)\" >> \"$0.commands\"\n";
    let mut invocation = invocation(CONFIG);
    invocation.args = "A=1".to_owned();
    let ends: [(fn(Pending), bool); 3] =
        [(|pending| pending.undo().unwrap(), true), (drop, true), (|pending| drop(pending.keep()), false)];
    for (end, undone) in ends {
        let plugin = Script::new(note.to_owned() + "echo '{}'");
        end(plugin.plugin().add(&attachment(), &invocation).unwrap());
        let line = |command| format!("{command} container-1 eth0 /run/netns/c1 A=1 {CONFIG}");
        let wanted = if undone { vec![line("ADD"), line("DEL")] } else { vec![line("ADD")] };
        assert_eq!(plugin.commands(), wanted);
    }
}

#[test]
fn a_failure_to_undo_is_told() {
    let plugin = Script::new(r#"[ $CNI_COMMAND = ADD ] || { echo '{"code":5,"msg":"it sticks"}'; exit 1; }; echo {}"#);
    let pending = plugin.plugin().add(&attachment(), &invocation(CONFIG)).unwrap();
    let error = pending.undo().unwrap_err();
    assert_eq!((error.object().code, error.to_string().as_str()), (5, "it sticks"));
}

#[test]
fn a_plugin_that_is_being_written_is_waited_for() {
    let plugin = Script::new(NOTE);
    let written = OpenOptions::new().append(true).open(&plugin.file).unwrap();
    let busy = std::process::Command::new(&plugin.file).spawn().unwrap_err();
    assert_eq!(busy.kind(), io::ErrorKind::ExecutableFileBusy, "the kernel would run it all the same");
    let begin = Instant::now();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(written);
    });
    plugin.plugin().status(&invocation(CONFIG)).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert_eq!(plugin.commands(), ["STATUS"]);
    writer.join().unwrap();
}

#[test]
fn a_built_in_plugin_is_preferred_to_an_executable() {
    let directory = plugins();
    let registry = Registry::new().with("noop", BuiltIn("built in"));
    assert_eq!(found(&registry, "noop", &directory, CONFIG), "built in");
    assert_eq!(found(&registry, "other", &directory, CONFIG), "other executed");
    assert_eq!(found(&Registry::new(), "noop", &directory, CONFIG), "noop executed");
}

#[test]
fn a_built_in_plugin_needs_no_path() {
    let registry = Registry::new().with("noop", BuiltIn("built in"));
    let plugin = registry.find("noop", &invocation(CONFIG)).unwrap();
    assert_eq!(plugin.status(&invocation(CONFIG)).unwrap_err().to_string(), "built in");
}

#[test]
fn the_last_plugin_registered_for_a_type_counts() {
    let registry = Registry::new().with("noop", BuiltIn("first")).with("noop", BuiltIn("second"));
    assert_eq!(found(&registry, "noop", &plugins(), CONFIG), "second");
}

#[test]
fn the_configuration_says_which_built_in_plugins_are_used() {
    let directory = plugins();
    let registry = Registry::new().with("noop", BuiltIn("noop built in")).with("other", BuiltIn("other built in"));
    for (key, noop, other) in [
        ("", "noop built in", "other built in"),
        (r#","builtin":null"#, "noop built in", "other built in"),
        (r#","builtin":[]"#, "noop executed", "other executed"),
        (r#","builtin":["noop"]"#, "noop built in", "other executed"),
        (r#","BuiltIn":["noop","other","unheard-of"]"#, "noop built in", "other built in"),
        (r#","builtin":["Noop"]"#, "noop executed", "other executed"),
    ] {
        let config = format!(r#"{{"name":"n"{key}}}"#);
        assert_eq!(found(&registry, "noop", &directory, &config), noop, "{key}");
        assert_eq!(found(&registry, "other", &directory, &config), other, "{key}");
    }
}

#[test]
fn the_environment_says_which_built_in_plugins_are_used_where_the_configuration_does_not() {
    let directory = plugins();
    for (variables, noop, other) in [
        (variables(&[]), "noop built in", "other built in"),
        (variables(&[("CNI_BUILTIN", "")]), "noop executed", "other executed"),
        (variables(&[("CNI_BUILTIN", " , ")]), "noop executed", "other executed"),
        (variables(&[("CNI_BUILTIN", "noop")]), "noop built in", "other executed"),
        (variables(&[("CNI_BUILTIN", "some, other ,")]), "noop executed", "other built in"),
        (variables(&[("CNI_BUILTIN", "noop"), ("CNI_BUILTIN", "other")]), "noop executed", "other built in"),
    ] {
        let registry = Registry::new()
            .with("noop", BuiltIn("noop built in"))
            .with("other", BuiltIn("other built in"))
            .allow(Builtin::from_environment(&variables));
        assert_eq!(found(&registry, "noop", &directory, CONFIG), noop, "{variables:?}");
        assert_eq!(found(&registry, "other", &directory, CONFIG), other, "{variables:?}");
        let configured = r#"{"name":"n","builtin":["noop"]}"#;
        assert_eq!(found(&registry, "noop", &directory, configured), "noop built in");
        assert_eq!(found(&registry, "other", &directory, configured), "other executed");
    }
}

#[test]
fn a_built_in_plugin_that_is_not_allowed_must_be_found_in_the_path() {
    let registry = Registry::new().with("noop", BuiltIn("built in")).allow(Builtin::Only(Vec::new()));
    let mut invocation = invocation(CONFIG);
    invocation.path = vec!["/nowhere".into()];
    let error = registry.find("noop", &invocation).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "failed to find plugin \"noop\" in path [/nowhere]");
}

#[test]
fn a_list_of_built_in_plugins_must_be_a_list_of_strings() {
    let registry = Registry::new().with("noop", BuiltIn("built in"));
    for (value, place) in [("\"noop\"", "\"builtin\" "), ("false", "\"builtin\" "), ("[1]", "\"builtin[0]\" ")] {
        let config = format!(r#"{{"name":"n","builtin":{value}}}"#);
        let error = registry.find("noop", &invocation(&config)).map(drop).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Internal);
        assert!(error.to_string().starts_with(place), "{error}");
    }
}

#[test]
fn the_plugins_of_a_list_that_are_checked_are_those_that_run() {
    // Of several spellings of a key the last one counts.
    for (first, last) in [("Plugins", "plugins"), ("plugins", "Plugins"), ("plugins", "plugins")] {
        let text = format!(r#"{{"name":"n","{first}":[{{"type":"first"}}],"{last}":[{{"type":"last"}}]}}"#);
        let list = NetworkConfigList::parse(text.as_bytes()).unwrap();
        let config = list.plugin(0, &[]).unwrap();
        assert_eq!(config.view().string("type").unwrap(), Some("last"), "{text}");

        let text = format!(r#"{{"name":"n","{first}":[{{}}],"{last}":[{{"type":"last"}}]}}"#);
        let list = NetworkConfigList::parse(text.as_bytes()).unwrap();
        assert_eq!(list.plugin(0, &[]).unwrap().view().string("type").unwrap(), Some("last"), "{text}");
    }
}

/// A plugin of this process; its STATUS fails with its name, to tell it from others.
struct BuiltIn(&'static str);

impl Plugin for BuiltIn {
    fn add(&self, _: &Attachment, _: &Invocation) -> Result<Pending, Error> {
        Ok(Pending::new(Success::default(), || Ok(())))
    }

    fn del(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Invocation) -> Result<(), Error> {
        Err(Error::from_plugin(ErrorCode::NotAvailable, io::Error::other(self.0)))
    }

    fn gc(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }
}

/// A plugin in a directory of its own. What it notes it writes to files beside itself, `$0.something`.
struct Script {
    directory: TempDir,
    file: PathBuf,
}

impl Script {
    fn new(body: impl AsRef<str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("plugin");
        write_script(&file, body.as_ref());
        Self { directory, file }
    }

    fn plugin(&self) -> ExecutedPlugin {
        ExecutedPlugin::new(&self.file)
    }

    fn noted(&self, what: &str) -> String {
        fs::read_to_string(self.file.with_extension(what)).unwrap()
    }

    fn commands(&self) -> Vec<String> {
        self.noted("commands").lines().map(str::to_owned).collect()
    }
}

fn write_script(file: &Path, body: &str) {
    fs::write(file, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(file, Permissions::from_mode(0o755)).unwrap();
}

/// The body of a plugin that fails with a message.
fn says(message: &str) -> String {
    format!("echo '{{\"code\":50,\"msg\":\"{message}\"}}'; exit 1")
}

/// A directory with two executables.
fn plugins() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for kind in ["noop", "other"] {
        write_script(&directory.path().join(kind), &says(&format!("{kind} executed")));
    }
    directory
}

/// What the plugin that `registry` finds says of itself.
fn found(registry: &Registry, kind: &str, directory: &TempDir, config: &str) -> String {
    let mut invocation = invocation(config);
    invocation.path = vec![directory.path().to_owned()];
    registry.find(kind, &invocation).unwrap().status(&invocation).unwrap_err().to_string()
}

type Run = fn(&ExecutedPlugin, &Invocation) -> Result<(), Error>;

fn commands() -> [(&'static str, Run); 5] {
    [
        ("ADD", |plugin, invocation| plugin.add(&attachment(), invocation).map(|pending| drop(pending.keep()))),
        ("DEL", |plugin, invocation| plugin.del(&attachment(), invocation)),
        ("CHECK", |plugin, invocation| plugin.check(&attachment(), invocation)),
        ("GC", |plugin, invocation| plugin.gc(invocation)),
        ("STATUS", |plugin, invocation| plugin.status(invocation)),
    ]
}

fn attachment() -> Attachment {
    Attachment {
        container_id: "container-1".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        netns: Some("/run/netns/c1".into()),
    }
}

fn invocation(config: &str) -> Invocation {
    let mut invocation = Invocation::new(NetworkConfig::parse(config).unwrap());
    invocation.environment = variables(&[("PATH", &std::env::var("PATH").unwrap())]);
    invocation
}

fn variables(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

/// The value of `work`, which must not take longer.
fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let _detached = thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it blocks or panicked")
}
