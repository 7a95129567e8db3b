//! Capabilities: the daemon with those of the manifest, in a mount namespace as a container has it.

use std::{
    env,
    ffi::OsString,
    fs,
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::ExitCode,
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde_json::json;
use testkit::{Lab, Netns};

use crate::{files::text, manifests::daemon_set, node::Node};

/// The host's root is at `$0`, and a container's own `/proc/sys` is read-only.
const CONTAINER: &str = "set -e
mount --rbind / \"$0\"
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec \"$@\"";

const ANNOUNCER: &str = "announcer";

pub(crate) fn four_capabilities_are_enough(lab: &Lab) {
    attach_and_detach(lab, &[]);
}

/// With the manifest's capabilities, by a daemon that is started by `words` and its own.
pub(crate) fn attach_and_detach<'a>(lab: &'a Lab, words: &[OsString]) -> (Node<'a>, Netns) {
    let (node, sandbox) = start(lab, &granted(), words);
    node.add(&sandbox).unwrap();
    assert_eq!(sandbox.links(), ["eth0", "lo", "net1"]);
    // The host's /proc/sys, since the container's cannot be written.
    assert_eq!(sandbox.sysctl("net/ipv4/conf/net1/arp_notify"), "1");
    assert_eq!(sandbox.addresses("net1"), ["192.168.1.2/24"]);
    node.check(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
    (node, sandbox)
}

pub(crate) fn without_sys_admin_no_sandbox_is_entered(lab: &Lab) {
    let error = failure_without(lab, "SYS_ADMIN");
    assert!(error.contains("setns ") && error.contains("operation not permitted"), "{error}");
}

pub(crate) fn without_net_admin_no_link_is_made(lab: &Lab) {
    let error = failure_without(lab, "NET_ADMIN");
    assert!(error.contains("failed to create macvlan: ") && error.contains("operation not permitted"), "{error}");
}

pub(crate) fn without_sys_chroot_no_plugin_is_executed(lab: &Lab) {
    let error = failure_without(lab, "SYS_CHROOT");
    assert!(error.contains("changing the root takes the capability SYS_CHROOT"), "{error}");
}

pub(crate) fn without_net_raw_no_plugin_announces(lab: &Lab) {
    let error = failure_without(lab, "NET_RAW");
    assert!(error.contains("cannot announce: EPERM"), "{error}");
}

pub(crate) fn executed_plugins_find_the_hosts_programs(lab: &Lab) {
    let root = lab.path("hostroot");
    fs::create_dir(&root).unwrap();
    let mut node = Node::without_daemon(lab, json!({"chrootDir": root}));
    let script = "#!/bin/sh\n[ $CNI_COMMAND = ADD ] || exit 0\nip -V >&2 && echo '{\"cniVersion\":\"1.0.0\"}'\n";
    fs::write(lab.path("bin/caller"), script).unwrap();
    fs::set_permissions(lab.path("bin/caller"), Permissions::from_mode(0o755)).unwrap();
    node.network("caller", &json!({"cniVersion": "1.0.0", "name": "caller", "type": "caller"}));
    let containerfile = text("deploy/Containerfile");
    let path = containerfile.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let words = ["unshare", "--mount", "sh", "-c", CONTAINER, root.to_str().unwrap(), "/usr/bin/env", path];
    node.wrapper = words.iter().map(Into::into).collect();
    let sandbox = node.pod("web-0", "caller");
    node.start();
    node.add(&sandbox).unwrap();
    node.del(&sandbox).unwrap();
    node.is_empty(&[&sandbox]);
}

fn failure_without(lab: &Lab, capability: &str) -> String {
    let mut capabilities = granted();
    let before = capabilities.len();
    capabilities.retain(|one| one != capability);
    assert_eq!(capabilities.len(), before - 1);
    let (node, sandbox) = start(lab, &capabilities, &[]);
    let error = node.add(&sandbox).unwrap_err().to_string();
    assert_eq!(node.reserved(), [""; 0], "what a failed ADD had made is undone");
    error
}

/// Those that the manifest adds to none.
pub(crate) fn granted() -> Vec<String> {
    let pod = daemon_set("deploy/thick", "").spec.unwrap().template.spec.unwrap();
    let context = pod.containers[0].security_context.clone().unwrap();
    assert_eq!((context.privileged, context.run_as_user, pod.host_pid), (None, Some(0), None));
    let capabilities = context.capabilities.unwrap();
    assert_eq!(capabilities.drop.unwrap(), ["ALL"]);
    capabilities.add.unwrap()
}

/// A daemon with these capabilities, and a pod that wants macvlan and an executed plugin that announces addresses.
fn start<'a>(lab: &'a Lab, capabilities: &[String], by: &[OsString]) -> (Node<'a>, Netns) {
    let root = lab.path("hostroot");
    fs::create_dir(&root).unwrap();
    let mut node = Node::without_daemon(lab, json!({"chrootDir": root}));
    symlink(env::current_exe().unwrap(), lab.path("bin").join(ANNOUNCER)).unwrap();
    node.network(ANNOUNCER, &json!({"cniVersion": "1.0.0", "name": ANNOUNCER, "type": ANNOUNCER}));
    let sandbox = node.pod("web-0", &format!("macvlan-conf,{ANNOUNCER}"));
    let names: Vec<String> = capabilities.iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
    let set = format!("-all{}", names.concat());
    let words =
        ["unshare", "--mount", "sh", "-c", CONTAINER, root.to_str().unwrap(), "setpriv", "--bounding-set", &set];
    node.wrapper = words.iter().map(Into::into).collect();
    node.wrapper.extend(["--inh-caps=-all", "--"].map(Into::into));
    node.wrapper.extend_from_slice(by);
    node.start();
    // All of these, and no other.
    let status = fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    assert_eq!(
        u64::from_str_radix(effective, 16).unwrap(),
        capabilities.iter().map(|name| bit(name)).sum::<u64>(),
        "{status}"
    );
    (node, sandbox)
}

/// See capabilities(7).
fn bit(capability: &str) -> u64 {
    match capability {
        "NET_ADMIN" => 1 << 12,
        "NET_RAW" => 1 << 13,
        "SYS_CHROOT" => 1 << 18,
        "SYS_ADMIN" => 1 << 21,
        other => panic!("{other}"),
    }
}

/// Whether this program was called as the plugin.
pub(crate) fn is_announcer() -> bool {
    env::args_os().next().is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == ANNOUNCER))
}

/// A plugin that needs a raw socket, as those that tell the neighbours of an address.
pub(crate) fn announce() -> ExitCode {
    if env::var("CNI_COMMAND").is_ok_and(|command| command == "ADD") {
        if let Err(error) = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None) {
            println!("{}", json!({"cniVersion": "1.0.0", "code": 100, "msg": format!("cannot announce: {error}")}));
            return ExitCode::FAILURE;
        }
        println!("{}", json!({"cniVersion": "1.0.0"}));
    }
    ExitCode::SUCCESS
}
