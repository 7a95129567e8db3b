//! Whoever may define networks, against the programs: a definition chooses which plugins of the `binDir` run, and with what,
//! and never which other program does.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says where"
)]

#[path = "daemon/node.rs"]
#[allow(dead_code, reason = "this program uses a part of it")]
mod node;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::ExitCode,
    thread,
};

use node::Node;
use serde_json::{Value, json};
use testkit::{Call, Lab, Netns, are_current, program, run_when};

const REFUSED: &str = "which is for the runtime alone to call";
const TWICE: &str = "is there twice";
const NESTED: &str = "a plugin of a network calls Multus";

fn main() -> ExitCode {
    run_when(
        &[
            (
                "a_network_runs_no_program_of_its_authors_through_the_daemon",
                a_network_runs_no_program_of_its_authors_through_the_daemon,
            ),
            (
                "a_network_runs_no_program_of_its_authors_through_the_thin_program",
                a_network_runs_no_program_of_its_authors_through_the_thin_program,
            ),
            ("neither_pods_nor_networks_take_the_daemons_memory", neither_pods_nor_networks_take_the_daemons_memory),
        ],
        are_current(&["multus", "multus-shim"]),
    )
}

/// A definition of which Multus is the plugin, the IPAM, or what the plugin executes; what is said of it; and the arguments
/// of the pod, by which definitions are written anew.
struct Attack {
    name: &'static str,
    config: String,
    said: &'static str,
    cni_args: Value,
}

fn attacks(lab: &Lab) -> Vec<Attack> {
    let inner = json!([{"cniVersion": "1.0.0", "name": "x", "type": "run"}]);
    let [bin, cni] = ["evil", "evil-cni"].map(|name| lab.path(name).display().to_string());
    let keys = format!(
        r#""cniVersion":"1.0.0","name":"n","binDir":"{bin}","cniDir":"{cni}","delegates":{inner},"daemonWaitSeconds":1,"master":"ens32""#
    );
    let attack = |name, types: &str, said, cni_args| {
        // In the order in which they are written, which counts where a key is there twice.
        let config = match types.strip_prefix('[') {
            Some(plugin) => format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{{{plugin},{keys}}}]}}"#),
            None => format!("{{{types},{keys}}}"),
        };
        Attack { name, config, said, cni_args }
    };
    let args = || json!({"a": "b"});
    let own = r#""type":"macvlan","ipam":{"type":"multus"}"#;
    vec![
        attack("plugin", r#""type":"multus""#, REFUSED, Value::Null),
        attack("shim", r#""type":"multus-shim""#, REFUSED, Value::Null),
        attack("list", r#"["type":"multus""#, REFUSED, Value::Null),
        attack("ipam", own, REFUSED, Value::Null),
        attack("ipam-of-list", &format!("[{own}"), REFUSED, args()),
        // Whoever looks sees the last one; printed by their names, it is the first.
        attack("spelled", r#""type":"multus","TYPE":"macvlan""#, TWICE, args()),
        attack("spelled-in-list", r#"["type":"multus","TYPE":"macvlan""#, TWICE, args()),
        attack("ipam-spelled", &format!(r#"{own},"IPAM":{{"type":"host-local"}}"#), TWICE, Value::Null),
        // Go's decoder makes one object of both.
        attack("ipam-merged", &format!(r#"{own},"ipam":{{}}"#), TWICE, Value::Null),
        attack("ipam-of-list-merged", &format!(r#"[{own},"ipam":{{}}"#), TWICE, Value::Null),
        // As flannel executes its `delegate`.
        attack("executed", r#""type":"delegating""#, NESTED, Value::Null),
        attack("shim-executed", r#""type":"delegating-to-shim""#, NESTED, Value::Null),
        // A file of the administrator's, of which a definition has the name.
        Attack { name: "multus-cni-network", config: String::new(), said: "would call itself", cni_args: Value::Null },
    ]
}

/// A node whose `binDir` has all that an administrator may have there, and whose users have a directory of their own.
fn node<'a>(lab: &'a Lab, attacks: &[Attack]) -> Node<'a> {
    let conf_dir = lab.path("conf");
    let node = Node::without_daemon(lab, json!({"confDir": conf_dir}));
    for name in ["multus", "multus-shim"] {
        symlink(program(name), lab.path("bin").join(name)).unwrap();
    }
    let executed = |path: &Path, script: &str| {
        fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    };
    executed(&lab.path("bin/delegating"), "exec \"${0%/*}/multus\"");
    executed(&lab.path("bin/delegating-to-shim"), "exec \"${0%/*}/multus-shim\"");
    fs::create_dir(lab.path("evil")).unwrap();
    let run = lab.path("run-by-the-author");
    executed(&lab.path("evil/run"), &format!("touch {}\necho '{{\"cniVersion\":\"1.0.0\"}}'", run.display()));
    fs::create_dir(&conf_dir).unwrap();
    fs::write(conf_dir.join("00-multus.conf"), node.config().to_string().replace("multus-shim", "multus")).unwrap();
    for attack in attacks {
        let mut definition = json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": "test", "name": attack.name}, "spec": {"config": attack.config},
        });
        if attack.config.is_empty() {
            definition["spec"] = json!({});
        }
        node.api.put(definition);
    }
    node
}

/// `call` gives what is said of a failure, and else nothing.
fn is_refused(lab: &Lab, attacks: &[Attack], node: &Node<'_>, call: impl Fn(&str, &Netns) -> String) {
    let mut failures = Vec::new();
    for attack in attacks {
        let element = json!([{"name": attack.name, "cni-args": attack.cni_args}]);
        let sandbox = node.pod(&format!("pod-{}", attack.name), &element.to_string());
        // As a runtime does after an ADD that failed.
        let [said, del] = ["ADD", "DEL"].map(|command| call(command, &sandbox));
        let is_run = fs::remove_file(lab.path("run-by-the-author")).is_ok();
        if is_run || !said.contains(attack.said) || !del.is_empty() {
            failures.push(format!("{}: the author's program ran: {is_run}; {said:?}, {del:?}", attack.name));
        } else {
            node.is_empty(&[&sandbox]);
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    // Whoever comes next is served.
    let sandbox = node.pod("web-0", "macvlan-conf");
    assert_eq!(call("ADD", &sandbox), "");
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    assert_eq!(call("DEL", &sandbox), "");
    node.is_empty(&[&sandbox]);
}

fn a_network_runs_no_program_of_its_authors_through_the_daemon(lab: &Lab) {
    let attacks = attacks(lab);
    let mut node = node(lab, &attacks);
    node.start();
    is_refused(lab, &attacks, &node, |command, sandbox| {
        let done = if command == "ADD" { node.add(sandbox).map(drop) } else { node.del(sandbox) };
        done.err().map(|error| error.to_string()).unwrap_or_default()
    });
}

fn a_network_runs_no_program_of_its_authors_through_the_thin_program(lab: &Lab) {
    let attacks = attacks(lab);
    let node = node(lab, &attacks);
    let mut config = node.config();
    let [bin, conf, kubeconfig] = ["bin", "conf", "kubeconfig"].map(|name| lab.path(name));
    let keys = json!({"type": "multus", "binDir": bin, "confDir": conf, "kubeconfig": kubeconfig});
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    is_refused(lab, &attacks, &node, |command, sandbox| {
        let name = sandbox.path().file_name().unwrap().to_str().unwrap();
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=test;K8S_POD_NAME={name};K8S_POD_UID=uid-{name}");
        let call = Call::new(program("multus"), command, sandbox.path()).container(name).env("CNI_ARGS", &args);
        let reply = call.env("PATH", "/usr/bin:/bin").config(&config).run_in(&lab.host);
        if reply.status == Some(0) { String::new() } else { reply.error().1 }
    });
}

/// What has few bytes in the API, and hundreds of times as many where it is read carelessly, for eight pods at once.
fn neither_pods_nor_networks_take_the_daemons_memory(lab: &Lab) {
    let node = Node::new(lab);
    let objects = format!(r#"[{}0]"#, r#"{"":0},"#.repeat(40_000));
    let define = |name: &str, config: String| {
        node.api.put(json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"namespace": "test", "name": name}, "spec": {"config": config},
        }));
    };
    define("objects", format!(r#"{{"cniVersion":"1.0.0","name":"n","type":"macvlan","x":{objects}}}"#));
    let plugins = vec![r#"{"type":"passthru"}"#; 1000].join(",");
    define("plugins", format!(r#"{{"cniVersion":"1.0.0","name":"n","plugins":[{plugins}]}}"#));
    let args = "x".repeat(60_000);
    let wishes = [
        ("objects", "objects".to_owned(), "values"),
        ("wish", format!(r#"[{{"name":"macvlan-conf","x":{objects}}}]"#), "values"),
        ("args", format!(r#"[{{"name":"plugins","cni-args":{{"a":"{args}"}}}}]"#), "bytes together"),
        ("names", "a,".repeat(120_000), "120001 networks"),
        ("elements", format!("[{}0]", "0,".repeat(120_000)), "120001 networks"),
    ];
    let before = node.peak();
    for (name, networks, said) in &wishes {
        let pods: Vec<_> = (0..8).map(|number| node.pod(&format!("{name}-{number}"), networks)).collect();
        thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| {
                    let error = node.add(pod).unwrap_err().to_string();
                    assert!(error.contains(said) && error.len() < 1000, "{error}");
                });
            }
        });
    }
    let grown = node.peak() - before;
    assert!(grown < 64 << 10, "by {grown} KiB");
    let sandbox = node.pod("web-0", "macvlan-conf");
    node.add(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}
