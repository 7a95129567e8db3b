//! A plugin process from the outside: environment and standard input in; output, error object and exit status out.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    os::unix::{ffi::OsStringExt, fs::symlink},
    path::Path,
    sync::{Arc, Mutex},
};

use multus_cni::{
    About, Args, Attachment, Environment, Error, ErrorCode, ErrorObject, Invocation, IpConfig, Pending, Plugin,
    Provisional, Success, Version, serve,
};

const ABOUT: About = About { name: "fake", version: "1.2.3" };
const STDIN: &str = r#"{ "cniVersion":"1.1.0", "name":"serve-test", "big":12345678901234567890123 }"#;
const SUPPORTED: &str = r#"["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#;

/// What each command cannot do without, in the order in which it is reported.
const REQUIRED: [(&str, &[&str]); 5] = [
    ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
    ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
    ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
    ("GC", &["CNI_PATH"]),
    ("STATUS", &["CNI_PATH"]),
];

const VARIABLES: [&str; 5] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"];

#[test]
fn each_command_calls_its_method_alone_with_what_the_runtime_gave() {
    for (command, called) in [
        ("ADD", "add some-container-id eth0 Some(\"/some/netns/path\")"),
        ("CHECK", "check some-container-id eth0 Some(\"/some/netns/path\")"),
        ("DEL", "del some-container-id eth0 Some(\"/some/netns/path\")"),
        ("GC", "gc"),
        ("STATUS", "status"),
    ] {
        let plugin = Fake::default();
        let answer = call(&plugin, &environment(command), STDIN);
        assert_eq!((answer.status, answer.stderr.as_str()), (0, ""), "{}", answer.stdout);
        assert_eq!(plugin.called()[0], called);
        assert_eq!(plugin.called().len(), if command == "ADD" { 2 } else { 1 });

        let invocation = plugin.invocations.lock().unwrap().pop().unwrap();
        assert_eq!(invocation.args, "some;extra;args");
        assert_eq!(invocation.path, [Path::new("/some/cni/path"), Path::new("/another")]);
        assert_eq!(String::from_utf8_lossy(invocation.config.bytes()), STDIN);
        assert_eq!(invocation.config.name().as_str(), "serve-test");
        assert_eq!(invocation.root, Path::new("/"));
        let inherited: Vec<_> = invocation.environment.iter().cloned().collect();
        assert_eq!(inherited, os(&environment(command)));
    }
}

#[test]
fn only_an_add_prints_a_result() {
    let result = r#"{
    "cniVersion": "1.1.0",
    "ips": [
        {
            "address": "10.1.2.3/24"
        }
    ]
}"#;
    for (command, printed) in [("ADD", result), ("CHECK", ""), ("DEL", ""), ("GC", ""), ("STATUS", "")] {
        let answer = call(&Fake::default(), &environment(command), STDIN);
        assert_eq!((answer.status, answer.stdout.as_str()), (0, printed));
    }
}

#[test]
fn the_result_of_an_add_is_kept_and_printed_in_the_version_of_the_configuration() {
    for version in Version::ALL {
        let plugin = Fake::default();
        let answer = call(&plugin, &environment("ADD"), &config(version.as_str()));
        let wanted = success().print(version).unwrap();
        assert_eq!((answer.status, answer.stdout.as_bytes()), (0, &wanted[..]));
        assert_eq!(plugin.called()[1..], ["keep"]);
    }
}

#[test]
fn a_configuration_without_a_version_is_of_0_1_0() {
    for text in [r#"{"name":"n"}"#, r#"{"name":"n","cniVersion":""}"#, r#"{"name":"n","cniVersion":null}"#] {
        let answer = call(&Fake::default(), &environment("ADD"), text);
        assert!(answer.stdout.starts_with("{\n    \"cniVersion\": \"0.1.0\",\n    \"ip4\""), "{}", answer.stdout);
    }
}

#[test]
fn each_missing_variable_is_named_if_the_command_needs_it() {
    for (command, required) in REQUIRED {
        for variable in VARIABLES {
            for absent in [without(&environment(command), variable), with(&environment(command), variable, "")] {
                let plugin = Fake::default();
                let answer = call(&plugin, &absent, STDIN);
                if required.contains(&variable) {
                    refused(&answer, &plugin, 4, &format!("required env variables [{variable}] missing"), "");
                } else {
                    assert_eq!(answer.status, 0, "{command} without {variable}: {}", answer.stdout);
                }
            }
        }
    }
}

#[test]
fn all_missing_variables_are_named_in_order() {
    for (command, required) in REQUIRED {
        let plugin = Fake::default();
        let answer = call(&plugin, &with(&[], "CNI_COMMAND", command), STDIN);
        refused(&answer, &plugin, 4, &format!("required env variables [{}] missing", required.join(",")), "");
    }
    let given = without(&without(&without(&environment("ADD"), "CNI_PATH"), "CNI_NETNS"), "CNI_IFNAME");
    let plugin = Fake::default();
    let answer = call(&plugin, &given, STDIN);
    refused(&answer, &plugin, 4, "required env variables [CNI_NETNS,CNI_IFNAME,CNI_PATH] missing", "");
}

#[test]
fn a_del_without_a_namespace_has_none() {
    for given in [without(&environment("DEL"), "CNI_NETNS"), with(&environment("DEL"), "CNI_NETNS", "")] {
        let plugin = Fake::default();
        assert_eq!(call(&plugin, &given, STDIN).status, 0);
        assert_eq!(plugin.called(), ["del some-container-id eth0 None"]);
    }
}

#[test]
fn a_bad_container_id_is_refused_with_the_id_as_details() {
    for command in ["ADD", "CHECK", "DEL"] {
        for id in ["some-%%container-id", "1234%%%", "-a", ".a", "_a", "a/b", "../a", "a b", "a\n", "ä"] {
            let plugin = Fake::default();
            let answer = call(&plugin, &with(&environment(command), "CNI_CONTAINERID", id), STDIN);
            refused(&answer, &plugin, 4, "invalid characters in containerID", id);
        }
    }
}

#[test]
fn container_ids_of_letters_digits_and_three_signs_pass_at_any_length() {
    let long = "a".repeat(4096);
    for id in ["a", "0", "Az09_.-", "1--", "a..", &long] {
        let plugin = Fake::default();
        let answer = call(&plugin, &with(&environment("DEL"), "CNI_CONTAINERID", id), STDIN);
        assert_eq!(answer.status, 0, "{}", answer.stdout);
        assert_eq!(plugin.called(), [format!("del {id} eth0 Some(\"/some/netns/path\")")]);
    }
}

#[test]
fn a_bad_interface_name_is_refused_with_its_rule() {
    let rule = "interface name should be less than 16 characters";
    let characters = "interface name contains / or : or whitespace characters";
    for command in ["ADD", "CHECK", "DEL"] {
        for (name, message, details) in [
            ("1234567890123456", "interface name is too long", rule),
            ("/23456789 123456", "interface name is too long", rule),
            ("ääääääää", "interface name is too long", rule),
            (".", "interface name is . or ..", ""),
            ("..", "interface name is . or ..", ""),
            ("test/test", characters, ""),
            ("test:test", characters, ""),
            ("test test", characters, ""),
            ("\t", characters, ""),
            ("a\n", characters, ""),
            ("a\u{a0}b", characters, ""),
            ("a\u{2003}b", characters, ""),
            ("a\u{85}b", characters, ""),
        ] {
            let plugin = Fake::default();
            let answer = call(&plugin, &with(&environment(command), "CNI_IFNAME", name), STDIN);
            refused(&answer, &plugin, 4, message, details);
        }
    }
}

#[test]
fn interface_names_of_up_to_fifteen_bytes_pass() {
    for name in ["a", "123456789012345", "...", "eth0.100", "net-1_2@x", "äöü"] {
        let plugin = Fake::default();
        let answer = call(&plugin, &with(&environment("DEL"), "CNI_IFNAME", name), STDIN);
        assert_eq!(answer.status, 0, "{}", answer.stdout);
        assert_eq!(plugin.called(), [format!("del some-container-id {name} Some(\"/some/netns/path\")")]);
    }
}

#[test]
fn an_interface_name_that_is_not_text_is_refused_rather_than_replaced_by_another() {
    for command in ["ADD", "CHECK", "DEL"] {
        let mut given = os(&without(&environment(command), "CNI_IFNAME"));
        given.push(("CNI_IFNAME".into(), OsString::from_vec(b"e\xff".to_vec())));
        let plugin = Fake::default();
        let answer = answer(&plugin, given, &mut STDIN.as_bytes());
        assert_eq!((answer.status, plugin.called().len()), (1, 0), "{:?}", plugin.called());
        assert_eq!(answer.object().code, 4);
    }
}

#[test]
fn a_container_id_that_is_not_text_is_refused_and_a_namespace_path_passes_as_it_is() {
    let mut given = os(&without(&environment("ADD"), "CNI_CONTAINERID"));
    given.push(("CNI_CONTAINERID".into(), OsString::from_vec(b"c\xff".to_vec())));
    let plugin = Fake::default();
    let refused_id = answer(&plugin, given, &mut STDIN.as_bytes());
    refused(&refused_id, &plugin, 4, "invalid characters in containerID", "c\u{fffd}");

    let netns = OsString::from_vec(b"/run/\xff".to_vec());
    let mut given = os(&without(&environment("ADD"), "CNI_NETNS"));
    given.push(("CNI_NETNS".into(), netns));
    assert_eq!(answer(&plugin, given, &mut STDIN.as_bytes()).status, 0);
    assert_eq!(plugin.called()[0], "add some-container-id eth0 Some(\"/run/\\xFF\")");
}

#[test]
fn a_bad_value_is_reported_before_missing_variables() {
    for (variable, value, message) in [
        ("CNI_CONTAINERID", "%", "invalid characters in containerID"),
        ("CNI_IFNAME", "..", "interface name is . or .."),
    ] {
        for command in ["ADD", "CHECK", "DEL"] {
            let given = with(&with(&[], "CNI_COMMAND", command), variable, value);
            let object = call(&Fake::default(), &given, STDIN).object();
            assert_eq!((object.code, object.msg.as_str()), (4, message));
        }
    }
}

#[test]
fn a_bad_container_id_is_reported_before_a_bad_interface_name() {
    let given = with(&with(&environment("ADD"), "CNI_CONTAINERID", "%"), "CNI_IFNAME", "..");
    assert_eq!(call(&Fake::default(), &given, STDIN).object().msg, "invalid characters in containerID");
}

#[test]
fn values_that_the_command_does_not_need_are_not_looked_at() {
    for command in ["GC", "STATUS"] {
        let given = with(&with(&environment(command), "CNI_CONTAINERID", "%"), "CNI_IFNAME", "..");
        let answer = call(&Fake::default(), &given, STDIN);
        assert_eq!(answer.status, 0, "{}", answer.stdout);
    }
}

#[test]
fn the_environment_is_checked_before_standard_input_is_read() {
    for given in [without(&environment("ADD"), "CNI_PATH"), with(&environment("DEL"), "CNI_CONTAINERID", "%")] {
        assert_eq!(answer(&Fake::default(), os(&given), &mut Untouchable).object().code, 4);
    }
}

#[test]
fn version_is_answered_without_reading_standard_input() {
    let minimal = with(&[], "CNI_COMMAND", "VERSION");
    let odd = with(&with(&environment("VERSION"), "CNI_CONTAINERID", "%"), "CNI_IFNAME", "..");
    for given in [minimal, environment("VERSION"), odd] {
        let plugin = Fake::default();
        let answer = answer(&plugin, os(&given), &mut Untouchable);
        assert_eq!((answer.status, answer.stderr.as_str()), (0, ""));
        assert_eq!(
            answer.stdout,
            concat!(
                r#"{"cniVersion":"1.1.0","supportedVersions":"#,
                r#"["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#,
                "\n"
            )
        );
        assert!(plugin.called().is_empty());
    }
}

#[test]
fn without_a_command_the_plugin_introduces_itself_on_standard_error() {
    for given in [vec![], without(&environment("ADD"), "CNI_COMMAND"), environment("")] {
        let plugin = Fake::default();
        let answer = answer(&plugin, os(&given), &mut Untouchable);
        assert_eq!((answer.status, answer.stdout.as_str()), (0, ""));
        assert_eq!(
            answer.stderr,
            "CNI fake plugin v1.2.3\n\
             CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
        );
        assert!(plugin.called().is_empty());
    }
}

#[test]
fn an_unknown_command_is_refused_whatever_else_is_missing() {
    for command in ["NOPE", "add", "Version", " ADD", "ADD\n"] {
        for given in [environment(command), with(&[], "CNI_COMMAND", command)] {
            let plugin = Fake::default();
            let answer = call(&plugin, &given, STDIN);
            refused(&answer, &plugin, 4, &format!("unknown CNI_COMMAND: {command}"), "");
        }
    }
}

#[test]
fn an_unknown_command_is_reported_after_the_configuration_was_validated() {
    for (text, code) in [("{", 6), ("[]", 6), ("{}", 7), (r#"{"name":"te%%st"}"#, 7)] {
        assert_eq!(call(&Fake::default(), &environment("NOPE"), text).object().code, code);
    }
    let unreadable = answer(&Fake::default(), os(&environment("NOPE")), &mut Unreadable).object();
    assert_eq!(unreadable.code, 5);
}

#[test]
fn an_unknown_command_is_reported_before_the_version_is_looked_at() {
    for version in ["0.5.0", "adsfsadf"] {
        let object = call(&Fake::default(), &environment("NOPE"), &config(version)).object();
        assert_eq!((object.code, object.msg.as_str()), (4, "unknown CNI_COMMAND: NOPE"));
    }
}

#[test]
fn unreadable_standard_input_has_code_5() {
    for (command, _) in REQUIRED {
        let plugin = Fake::default();
        let answer = answer(&plugin, os(&environment(command)), &mut Unreadable);
        refused(&answer, &plugin, 5, "error reading from stdin: banana", "");
    }
}

#[test]
fn standard_input_is_read_to_its_end() {
    let plugin = Fake::default();
    let answer = answer(&plugin, os(&environment("ADD")), &mut ByteByByte(STDIN.as_bytes()));
    assert_eq!(answer.status, 0, "{}", answer.stdout);
    assert_eq!(plugin.invocations.lock().unwrap()[0].config.bytes(), STDIN.as_bytes());
}

#[test]
fn standard_input_without_end_is_not_read_without_end() {
    let padded = |length: usize| STDIN.to_owned() + &" ".repeat(length - STDIN.len());
    assert_eq!(call(&Fake::default(), &environment("ADD"), &padded(16 << 20)).status, 0);
    assert_eq!(call(&Fake::default(), &environment("ADD"), &padded((16 << 20) + 1)).object().code, 5);
    let plugin = Fake::default();
    let answer = answer(&plugin, os(&environment("ADD")), &mut io::repeat(b' '));
    assert_eq!((answer.object().code, plugin.called()), (5, Vec::new()));
    assert!(
        answer.object().msg.ends_with("the network configuration is longer than 16777216 bytes"),
        "{}",
        answer.stdout
    );
}

#[test]
fn a_malformed_configuration_has_code_6() {
    for (command, _) in REQUIRED {
        for (text, message) in [
            ("", "error unmarshall network config: unexpected end of JSON input"),
            ("{", "error unmarshall network config: unexpected end of JSON input"),
            ("{{{", "error unmarshall network config: "),
            ("[]", "error unmarshall network config: "),
            ("\"name\"", "error unmarshall network config: "),
            ("{\"name\":\"n\"}{", "error unmarshall network config: "),
            ("{\"name\":5}", "error unmarshall network config: "),
        ] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), text);
            let object = answer.object();
            assert_eq!((answer.status, object.code, object.details.as_str()), (1, 6, ""), "{text}");
            assert!(object.msg.starts_with(message), "{text}: {}", object.msg);
            assert!(plugin.called().is_empty());
        }
    }
}

#[test]
fn a_configuration_needs_a_valid_network_name() {
    for (command, _) in REQUIRED {
        for (text, message, details) in [
            ("null", "missing network name", ""),
            ("{}", "missing network name", ""),
            (r#"{"name":""}"#, "missing network name", ""),
            (r#"{"name":null}"#, "missing network name", ""),
            (r#"{"name":"te%%st"}"#, "invalid characters found in network name", "te%%st"),
            (r#"{"name":"-n"}"#, "invalid characters found in network name", "-n"),
            (r#"{"name":"../n"}"#, "invalid characters found in network name", "../n"),
        ] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), text);
            refused(&answer, &plugin, 7, message, details);
        }
    }
}

#[test]
fn the_name_is_checked_before_the_version() {
    for (command, _) in REQUIRED {
        let text = r#"{"cniVersion":"adsfsadf","name":"te%%st"}"#;
        assert_eq!(call(&Fake::default(), &environment(command), text).object().code, 7);
    }
}

#[test]
fn a_version_nobody_speaks_is_refused_with_those_that_are_spoken() {
    for command in ["ADD", "DEL"] {
        for version in ["0.5.0", "1.0", "9.8.7", "1.1.0 ", "v1.0.0", "adsfsadf", "1.2.3.4"] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), &config(version));
            let details = format!("config is \"{version}\", plugin supports {SUPPORTED}");
            refused(&answer, &plugin, 1, "incompatible CNI versions", &details);
        }
    }
    for (command, version) in [("CHECK", "0.5.0"), ("CHECK", "1.0"), ("GC", "1.1"), ("STATUS", "1.1")] {
        let plugin = Fake::default();
        let answer = call(&plugin, &environment(command), &config(version));
        let details = format!("config is \"{version}\", plugin supports {SUPPORTED}");
        refused(&answer, &plugin, 1, "incompatible CNI versions", &details);
    }
}

#[test]
fn a_version_that_is_no_string_has_code_6() {
    for (command, _) in REQUIRED {
        for (version, kind) in [("1", "1"), ("[]", "[]"), ("true", "true"), ("{}", "{}")] {
            let plugin = Fake::default();
            let text = format!("{{\"name\":\"n\",\"cniVersion\":{version}}}");
            let answer = call(&plugin, &environment(command), &text);
            let object = answer.object();
            assert_eq!((answer.status, object.code), (1, 6));
            let prefix = "decoding version from network config: json: cannot unmarshal ";
            assert!(object.msg.starts_with(prefix) && object.msg.contains(kind), "{}", object.msg);
            assert!(plugin.called().is_empty());
        }
    }
}

#[test]
fn a_command_newer_than_the_version_of_the_configuration_is_refused() {
    for (command, allowed_since) in [("CHECK", Version::V0_4_0), ("GC", Version::V1_1_0), ("STATUS", Version::V1_1_0)] {
        for version in Version::ALL {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), &config(version.as_str()));
            if version < allowed_since {
                refused(&answer, &plugin, 1, &format!("config version does not allow {command}"), "");
            } else {
                assert_eq!((answer.status, plugin.called().len()), (0, 1), "{}", answer.stdout);
            }
        }
        for version in ["", "0.3", "0"] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), &config(version));
            refused(&answer, &plugin, 1, &format!("config version does not allow {command}"), "");
        }
        for version in ["1.1.1", "1.2.0", "2", "9.8.7"] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), &config(version));
            refused(&answer, &plugin, 1, &format!("plugin version does not allow {command}"), "");
        }
    }
}

#[test]
fn a_version_that_cannot_be_compared_has_code_6() {
    for command in ["CHECK", "GC", "STATUS"] {
        for (version, message) in [
            ("x", r#"failed to convert major version part "x": strconv.Atoi: parsing "x": invalid syntax"#),
            ("adsfsadf", r#"failed to convert major version part "adsfsadf": strconv.Atoi: parsing "adsfsadf": "#),
            ("1.x", r#"failed to convert minor version part "x": strconv.Atoi: parsing "x": invalid syntax"#),
            ("1.1.x", r#"failed to convert micro version part "x": strconv.Atoi: parsing "x": invalid syntax"#),
            ("0.", r#"failed to convert minor version part "": strconv.Atoi: parsing "": invalid syntax"#),
            ("..", r#"failed to convert major version part "": strconv.Atoi: parsing "": invalid syntax"#),
            ("1.1.0.0", r#"invalid version "1.1.0.0": too many parts"#),
            ("1.2.3.4.5", r#"invalid version "1.2.3.4.5": too many parts"#),
        ] {
            let plugin = Fake::default();
            let answer = call(&plugin, &environment(command), &config(version));
            let object = answer.object();
            assert_eq!((answer.status, object.code, object.details.as_str()), (1, 6, ""));
            assert!(object.msg.starts_with(message), "{}", object.msg);
            assert!(plugin.called().is_empty());
        }
    }
}

#[test]
fn an_error_with_a_code_passes_unchanged() {
    let objects = [
        ErrorObject { code: 1234, msg: "some message".to_owned(), details: "some details".to_owned() },
        ErrorObject { code: 0, msg: "from a delegate".to_owned(), details: String::new() },
        ErrorObject { code: 50, msg: "not now".to_owned(), details: String::new() },
    ];
    for object in objects {
        for (command, _) in REQUIRED {
            let object = object.clone();
            let wanted = object.clone();
            let plugin = Fake::failing(move || Error::Plugin { object: object.clone(), source: None });
            let answer = call(&plugin, &environment(command), STDIN);
            assert_eq!((answer.status, answer.object()), (1, wanted));
            assert_eq!(plugin.called().len(), 1);
        }
    }
}

#[test]
fn the_typed_error_of_a_plugin_has_the_code_it_was_given() {
    let plugin = Fake::failing(|| Error::from_plugin(ErrorCode::TryAgainLater, io::Error::other("potato")));
    let object = call(&plugin, &environment("ADD"), STDIN).object();
    assert_eq!(object, ErrorObject { code: 11, msg: "potato".to_owned(), details: String::new() });
}

#[test]
fn every_other_error_of_a_plugin_has_code_999() {
    let plugin = Fake::failing(|| Args::parse("FOO=bar", &[]).unwrap_err());
    for (command, _) in REQUIRED {
        let object = call(&plugin, &environment(command), STDIN).object();
        let msg = "ARGS: unknown args [\"FOO=bar\"]".to_owned();
        assert_eq!(object, ErrorObject { code: 999, msg, details: String::new() });
    }
}

#[test]
fn an_error_object_is_printed_to_the_byte() {
    let plugin = Fake::default();
    for (given, text, wanted) in [
        (
            with(&environment("ADD"), "CNI_CONTAINERID", "a<b>&\"c\""),
            STDIN,
            "{\n    \"code\": 4,\n    \"msg\": \"invalid characters in containerID\",\n    \
             \"details\": \"a\\u003cb\\u003e\\u0026\\\"c\\\"\"\n}",
        ),
        (
            environment("<\u{2028}>"),
            STDIN,
            "{\n    \"code\": 4,\n    \"msg\": \"unknown CNI_COMMAND: \\u003c\\u2028\\u003e\"\n}",
        ),
        (environment("ADD"), "{}", "{\n    \"code\": 7,\n    \"msg\": \"missing network name\"\n}"),
    ] {
        let answer = call(&plugin, &given, text);
        assert_eq!((answer.status, answer.stdout.as_str(), answer.stderr.as_str()), (1, wanted, ""));
    }
}

#[test]
fn a_result_that_the_version_cannot_tell_undoes_the_add() {
    for version in ["0.1.0", "0.2.0"] {
        let plugin = Fake { success: Success::default(), ..Fake::default() };
        let answer = call(&plugin, &environment("ADD"), &config(version));
        assert_eq!(answer.status, 1);
        let msg = "cannot convert: no valid IP addresses".to_owned();
        assert_eq!(answer.object(), ErrorObject { code: 999, msg, details: String::new() });
        assert_eq!(plugin.called()[1..], ["undo"]);
    }
}

#[test]
fn a_result_that_cannot_be_written_undoes_the_add() {
    for room in [0, 1, 20] {
        let plugin = Fake::default();
        let mut stderr = Vec::new();
        let given = Environment::from_iter(os(&environment("ADD")));
        let status = serve(&plugin, ABOUT, given, &mut STDIN.as_bytes(), &mut Room(room), &mut stderr);
        assert_eq!((status, &plugin.called()[1..]), (1, &["undo".to_owned()][..]));
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(stderr.contains("Error writing error JSON to stdout: no room"), "{stderr}");
        assert!(stderr.ends_with('\n'), "{stderr}");
    }
}

#[test]
fn a_result_that_cannot_be_flushed_undoes_the_add() {
    let plugin = Fake::default();
    let mut stdout = Unflushable;
    let given = Environment::from_iter(os(&environment("ADD")));
    let status = serve(&plugin, ABOUT, given, &mut STDIN.as_bytes(), &mut stdout, &mut io::sink());
    assert_eq!((status, &plugin.called()[1..]), (1, &["undo".to_owned()][..]));
}

#[test]
fn an_output_that_recovers_gets_the_error_object_with_code_5() {
    let plugin = Fake::default();
    let mut stdout = Recovering(None);
    let given = Environment::from_iter(os(&environment("ADD")));
    let status = serve(&plugin, ABOUT, given, &mut STDIN.as_bytes(), &mut stdout, &mut io::sink());
    let object: ErrorObject = serde_json::from_slice(&stdout.0.unwrap()).unwrap();
    assert_eq!((status, object.code), (1, 5));
    assert_eq!(object.msg, "cannot write the result to stdout: not yet");
    assert_eq!(plugin.called()[1..], ["undo"]);
}

#[test]
fn a_failure_to_undo_is_told_on_standard_error_and_the_first_error_on_standard_output() {
    let plugin = Fake { success: Success::default(), undo_fails: true, ..Fake::default() };
    let answer = call(&plugin, &environment("ADD"), &config("0.2.0"));
    assert_eq!(answer.stderr, "undoing the ADD failed: it sticks\n");
    assert_eq!(answer.object().msg, "cannot convert: no valid IP addresses");
    assert_eq!(plugin.called()[1..], ["undo"]);
}

#[test]
fn an_error_object_that_cannot_be_written_is_told_on_standard_error() {
    let plugin = Fake::default();
    let mut stderr = Vec::new();
    let given = Environment::from_iter(os(&environment("ADD")));
    let status = serve(&plugin, ABOUT, given, &mut "{}".as_bytes(), &mut Room(0), &mut stderr);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status, 1);
    assert!(stderr.contains("Error writing error JSON to stdout: no room"), "{stderr}");
    assert!(stderr.contains("missing network name"), "{stderr}");
}

#[test]
fn versions_that_cannot_be_written_are_a_failure() {
    let mut stderr = Vec::new();
    let given = Environment::from_iter(os(&environment("VERSION")));
    let status = serve(&Fake::default(), ABOUT, given, &mut Untouchable, &mut Room(0), &mut stderr);
    assert_eq!(status, 1);
    assert!(!stderr.is_empty());
}

#[test]
fn the_namespace_of_the_process_itself_is_refused_before_anything_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("netns");
    symlink("/proc/self/ns/net", &link).unwrap();
    for netns in ["/proc/self/ns/net", "/proc/thread-self/ns/net", link.to_str().unwrap()] {
        for command in ["ADD", "DEL"] {
            let plugin = Fake::default();
            let answer = call(&plugin, &with(&environment(command), "CNI_NETNS", netns), STDIN);
            let object = answer.object();
            assert_eq!((answer.status, object.code), (1, 8));
            assert_eq!(object.msg, "plugin's netns and netns from CNI_NETNS should not be the same");
            assert!(object.details.contains(netns), "{}", object.details);
            assert_eq!(plugin.called(), <[&str; 0]>::default());
        }
    }
}

#[test]
fn the_version_is_looked_at_before_the_namespace() {
    let given = with(&environment("ADD"), "CNI_NETNS", "/proc/self/ns/net");
    assert_eq!(call(&Fake::default(), &given, &config("0.5.0")).object().code, 1);
}

#[test]
fn the_namespace_of_the_process_itself_is_allowed_when_the_runtime_insists() {
    for (insistence, allowed) in [
        ("1", true),
        ("true", true),
        ("TRUE", true),
        ("True", true),
        ("", false),
        ("0", false),
        ("false", false),
        ("yes", false),
        ("1 ", false),
    ] {
        for command in ["ADD", "DEL"] {
            let given = with(&environment(command), "CNI_NETNS", "/proc/self/ns/net");
            let plugin = Fake::default();
            let answer = call(&plugin, &with(&given, "CNI_NETNS_OVERRIDE", insistence), STDIN);
            assert_eq!(answer.status == 0, allowed, "{insistence:?}: {}", answer.stdout);
            assert_eq!(!plugin.called().is_empty(), allowed);
        }
    }
}

#[test]
fn a_check_may_look_at_the_namespace_of_the_process_itself() {
    let plugin = Fake::default();
    let given = with(&environment("CHECK"), "CNI_NETNS", "/proc/self/ns/net");
    assert_eq!(call(&plugin, &given, STDIN).status, 0);
    assert_eq!(plugin.called().len(), 1);
}

/// A plugin that writes down what is asked of it.
struct Fake {
    calls: Arc<Mutex<Vec<String>>>,
    invocations: Mutex<Vec<Invocation>>,
    success: Success,
    failure: Option<Box<dyn Fn() -> Error + Send + Sync>>,
    undo_fails: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            calls: Arc::default(),
            invocations: Mutex::default(),
            success: success(),
            failure: None,
            undo_fails: false,
        }
    }
}

impl Fake {
    fn failing(failure: impl Fn() -> Error + Send + Sync + 'static) -> Self {
        Self { failure: Some(Box::new(failure)), ..Self::default() }
    }

    fn called(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn asked(&self, what: &str, attachment: Option<&Attachment>, invocation: &Invocation) -> Result<(), Error> {
        let mut call = what.to_owned();
        if let Some(Attachment { container_id, ifname, netns }) = attachment {
            call = format!("{what} {container_id} {ifname} {netns:?}");
        }
        self.calls.lock().unwrap().push(call);
        self.invocations.lock().unwrap().push(invocation.clone());
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure()))
    }
}

impl Plugin for Fake {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        self.asked("add", Some(attachment), invocation)?;
        let made = Made { calls: Arc::clone(&self.calls), undo_fails: self.undo_fails };
        Ok(Pending::new(self.success.clone(), made))
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.asked("del", Some(attachment), invocation)
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.asked("check", Some(attachment), invocation)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), Error> {
        self.asked("status", None, invocation)
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), Error> {
        self.asked("gc", None, invocation)
    }
}

struct Made {
    calls: Arc<Mutex<Vec<String>>>,
    undo_fails: bool,
}

impl Provisional for Made {
    fn keep(self: Box<Self>) {
        self.calls.lock().unwrap().push("keep".to_owned());
    }

    fn undo(self: Box<Self>) -> Result<(), Error> {
        self.calls.lock().unwrap().push("undo".to_owned());
        let failure = || Error::from_plugin(ErrorCode::Internal, io::Error::other("it sticks"));
        if self.undo_fails { Err(failure()) } else { Ok(()) }
    }
}

/// Standard input that nobody may read.
struct Untouchable;

impl Read for Untouchable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        panic!("standard input was read");
    }
}

/// Standard input that cannot be read.
struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("banana"))
    }
}

/// Standard input that comes byte by byte.
struct ByteByByte(&'static [u8]);

impl Read for ByteByByte {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = usize::from(!buffer.is_empty());
        self.0.read(buffer.get_mut(..count).unwrap())
    }
}

/// Standard output with room for so many bytes.
struct Room(usize);

impl Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = bytes.len().min(self.0);
        self.0 -= written;
        if written == 0 { Err(io::Error::other("no room")) } else { Ok(written) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output that loses everything when it is flushed.
struct Unflushable;

impl Write for Unflushable {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(io::Error::other("lost"))
    }
}

/// Standard output that fails once.
struct Recovering(Option<Vec<u8>>);

impl Write for Recovering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            None => {
                self.0 = Some(Vec::new());
                Err(io::Error::other("not yet"))
            }
            Some(written) => written.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a plugin process leaves behind.
struct Answer {
    status: u8,
    stdout: String,
    stderr: String,
}

impl Answer {
    /// The error object, which must be all there is on standard output.
    fn object(&self) -> ErrorObject {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {:?}", self.stdout))
    }
}

/// Checks that the call failed with exactly this error object and that the plugin never heard of it.
fn refused(answer: &Answer, plugin: &Fake, code: u32, message: &str, details: &str) {
    let wanted = ErrorObject { code, msg: message.to_owned(), details: details.to_owned() };
    assert_eq!((answer.status, answer.object(), answer.stderr.as_str()), (1, wanted, ""));
    assert!(plugin.called().is_empty(), "{:?}", plugin.called());
}

fn call(plugin: &Fake, environment: &[(String, String)], stdin: &str) -> Answer {
    answer(plugin, os(environment), &mut stdin.as_bytes())
}

fn answer(plugin: &Fake, environment: Vec<(OsString, OsString)>, stdin: &mut dyn Read) -> Answer {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = serve(plugin, ABOUT, Environment::from_iter(environment), stdin, &mut stdout, &mut stderr);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Answer { status, stdout: text(stdout), stderr: text(stderr) }
}

fn environment(command: &str) -> Vec<(String, String)> {
    [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "some-container-id"),
        ("CNI_NETNS", "/some/netns/path"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "some;extra;args"),
        ("CNI_PATH", "/some/cni/path:/another"),
        ("UNRELATED", "kept"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn without(environment: &[(String, String)], name: &str) -> Vec<(String, String)> {
    environment.iter().filter(|(other, _)| other != name).cloned().collect()
}

fn with(environment: &[(String, String)], name: &str, value: &str) -> Vec<(String, String)> {
    let mut environment = without(environment, name);
    environment.push((name.to_owned(), value.to_owned()));
    environment
}

fn os(environment: &[(String, String)]) -> Vec<(OsString, OsString)> {
    environment.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn config(version: &str) -> String {
    format!("{{\"name\":\"serve-test\",\"cniVersion\":\"{version}\"}}")
}

fn success() -> Success {
    let address = "10.1.2.3/24".parse().unwrap();
    Success { ips: vec![IpConfig { address, gateway: None, interface: None }], ..Success::default() }
}
