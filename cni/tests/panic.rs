//! What a plugin process says when it is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{env, process::Command};

use multus_cni::print_errors_on_panic;

#[test]
fn a_panic_becomes_an_error_object() {
    if env::var_os("TO_BE_LOST").is_some() {
        print_errors_on_panic();
        panic!("out of luck");
    }
    let mut lost = Command::new(env::current_exe().unwrap());
    lost.args(["--exact", "a_panic_becomes_an_error_object", "--nocapture"]).env("TO_BE_LOST", "1");
    let output = lost.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let object: serde_json::Value = serde_json::from_str(&stdout[stdout.find('{').unwrap()..]).unwrap();
    assert_eq!(object["code"], 999);
    let text = object["msg"].as_str().unwrap();
    assert!(text.starts_with("internal error, please report it: ") && text.contains("out of luck"), "{text}");
}
