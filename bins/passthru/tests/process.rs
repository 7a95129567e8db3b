//! The program as a runtime or a chain runs it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Call, Reply};

const PASSTHRU: &str = env!("CARGO_BIN_EXE_passthru");
const NOTHING: Reply = Reply { status: Some(0), stdout: String::new(), stderr: String::new() };

fn call(command: &str, config: &Value) -> Reply {
    Call::new(PASSTHRU, command, Path::new("/run/netns/none")).config(config).run()
}

#[test]
fn add_without_a_previous_result_has_an_empty_one_of_the_configured_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let result = call("ADD", &json!({"cniVersion": version, "name": "chain", "type": "passthru"})).result();
        assert_eq!(result["cniVersion"], version);
        let told = ["interfaces", "ips", "routes"].iter().filter(|key| !result[**key].is_null()).count();
        assert_eq!(told, 0, "{result}");
    }
}

#[test]
fn add_hands_the_previous_result_on() {
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/none"}],
        "ips": [{"interface": 0, "address": "10.1.2.3/24", "gateway": "10.1.2.1"}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.1.2.1"]},
    });
    let config = json!({"cniVersion": "1.0.0", "name": "chain", "type": "passthru", "prevResult": previous});
    assert_eq!(call("ADD", &config).result(), previous);
    let config = json!({"cniVersion": "1.0.0", "name": "chain", "type": "passthru", "prevResult": {"ips": 5}});
    let (code, message, _) = call("ADD", &config).error();
    assert!(code != 0 && message.contains("ips"), "{code} {message}");
}

#[test]
fn the_other_commands_succeed_and_say_nothing() {
    let mut config = json!({"cniVersion": "1.1.0", "name": "chain", "type": "passthru"});
    for command in ["DEL", "STATUS", "GC"] {
        assert_eq!(call(command, &config), NOTHING, "{command}");
    }
    config["prevResult"] = json!({"cniVersion": "1.1.0"});
    assert_eq!(call("CHECK", &config), NOTHING);
}
