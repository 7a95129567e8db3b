//! The daemon under a default seccomp profile, with the capabilities of the manifest.

#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking, and says where; this program uses a part of others' files"
)]

#[path = "deploy/capabilities.rs"]
mod capabilities;
#[path = "deploy/files.rs"]
mod files;
#[path = "deploy/manifests.rs"]
mod manifests;
#[path = "daemon/node.rs"]
mod node;

use std::{
    env, fs,
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, ExitCode},
};

use seccompiler::{BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};
use testkit::{Case, Lab, run_when};

/// Of podman and CRI-O.
const PROFILE: &str = "/usr/share/containers/seccomp.json";
const CONFINED: &str = "confined";
const EPERM: i64 = 1;
const ENOSYS: i64 = 38;

fn main() -> ExitCode {
    if capabilities::is_announcer() {
        return capabilities::announce();
    }
    let arguments: Vec<String> = env::args().collect();
    if Path::new(&arguments[0]).file_name().is_some_and(|name| name == CONFINED) {
        return confine(&arguments[1], &arguments[2..]);
    }
    let needed = match Path::new(PROFILE).is_file() {
        true => Ok(()),
        false => Err(format!("no {PROFILE}: install the package golang-github-containers-common, as podman does")),
    };
    // What the profile does not allow is refused by containerd as not permitted, and by podman as not there.
    let cases: [Case; 2] = [
        ("the_default_seccomp_profile_is_enough", |lab| is_enough(lab, EPERM)),
        ("the_default_seccomp_profile_of_podman_is_enough", |lab| is_enough(lab, ENOSYS)),
    ];
    run_when(&cases, needed)
}

fn is_enough(lab: &Lab, refusal: i64) {
    let confined = lab.path(CONFINED);
    symlink(env::current_exe().unwrap(), &confined).unwrap();
    let (node, _) = capabilities::attach_and_detach(lab, &[confined.into_os_string(), refusal.to_string().into()]);
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "it is confined: {status}");
}

/// Becomes `words` under the profile.
fn confine(refusal: &str, words: &[String]) -> ExitCode {
    let profile: Value = serde_json::from_slice(&fs::read(PROFILE).unwrap()).unwrap();
    let rules: Vec<Value> = profile["syscalls"].as_array().unwrap().iter().flat_map(allowed).collect();
    // Those of other architectures have no number here.
    let known: Vec<Value> = rules.into_iter().filter(|rule| compiled(json!([rule]), EPERM).is_some()).collect();
    assert!(known.len() > 250, "{}", known.len());
    apply_filter(&compiled(json!(known), refusal.parse().unwrap()).unwrap()).unwrap();
    panic!("{}", Command::new(&words[0]).args(&words[1..]).exec());
}

/// The system calls that a rule of the profile allows a container with the manifest's capabilities.
fn allowed(rule: &Value) -> Vec<Value> {
    let granted = capabilities::granted();
    let is_granted = |name: &Value| granted.iter().any(|one| name.as_str() == Some(&format!("CAP_{one}")));
    let has = |list: &Value, holds: &dyn Fn(&Value) -> bool| list.as_array().is_some_and(|list| list.iter().any(holds));
    let includes = &rule["includes"];
    let is_for_others = includes["caps"].is_array() && !has(&includes["caps"], &is_granted)
        || includes["arches"].is_array() && !has(&includes["arches"], &|name| *name == docker_architecture());
    if rule["action"] != "SCMP_ACT_ALLOW" || is_for_others || has(&rule["excludes"]["caps"], &is_granted) {
        return Vec::new();
    }
    let argument = |argument: &Value| {
        let operation = match argument["op"].as_str().unwrap() {
            "SCMP_CMP_EQ" => "eq",
            "SCMP_CMP_NE" => "ne",
            other => panic!("{other}"),
        };
        json!({"index": argument["index"], "type": "qword", "op": operation, "val": argument["value"]})
    };
    let arguments: Vec<Value> = rule["args"].as_array().into_iter().flatten().map(argument).collect();
    let call = |name: &Value| match arguments.is_empty() {
        true => json!({"syscall": name}),
        false => json!({"syscall": name, "args": arguments}),
    };
    rule["names"].as_array().unwrap().iter().map(call).collect()
}

fn compiled(rules: Value, refusal: i64) -> Option<BpfProgram> {
    let filter = json!({"mismatch_action": {"errno": refusal}, "match_action": "allow", "filter": rules});
    let architecture: TargetArch = env::consts::ARCH.try_into().unwrap();
    compile_from_json(json!({"all": filter}).to_string().as_bytes(), architecture).ok()?.remove("all")
}

fn docker_architecture() -> &'static str {
    match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
