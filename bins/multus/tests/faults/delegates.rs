//! A plugin of the middle network that does whatever a program can do.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::{Value, json};
use testkit::{Lab, Subject, is_gone_after_del};

use crate::node::Node;

/// Shell commands, and what is said of them; nothing of those that do no harm.
type Behaviour<'a> = (&'a str, &'a str);

/// Some 5 MB.
const MEGABYTES: &str = "head -c 3000000 /dev/zero | tr '\\0' x";

pub(crate) fn adds(lab: &Lab) {
    let result = r#"echo '{"cniVersion":"1.0.0"}'"#;
    let long = format!(r#"printf '{{"cniVersion":"1.0.0","dns":{{"domain":"'; {MEGABYTES}; printf '"}}}}'"#);
    let (long_nonsense, long_failure) = (MEGABYTES.to_owned(), format!("{MEGABYTES}; exit 1"));
    let long_words = format!("{MEGABYTES} >&2; exit 1");
    let behaviours: [Behaviour<'_>; 13] = [
        (result, ""),
        (&long, ""),
        ("kill -KILL $$", "signal: 9 (SIGKILL)"),
        ("kill -SEGV $$", "signal: 11 (SIGSEGV)"),
        ("exit 0", "unexpected end of JSON input"),
        ("exit 1", "exit status 1"),
        ("printf '\\377\\376\\000{'", "failed to unmarshal raw result"),
        ("printf '\\377\\376\\000{'; exit 1", "error parsing its diagnostic message"),
        (r#"echo '{"cniVersion":"1.0.0","ips":[{}]}'"#, "ips[0].address"),
        (r#"echo '{"code":11,"msg":"try again"}'; exit 1"#, "try again"),
        (&long_nonsense, "failed to unmarshal raw result"),
        (&long_failure, "error parsing its diagnostic message"),
        (&long_words, "netplugin failed"),
    ];
    let odd = Odd::new(lab);
    for (commands, text) in behaviours {
        odd.does("ADD", commands);
        let reply = odd.node.run("ADD", None);
        if text.is_empty() {
            reply.succeeded();
        } else {
            let (_, message, _) = reply.error();
            assert!(message.contains(text), "{commands}: {message}");
            assert!(message.len() < 1500, "{commands}: {} characters", message.len());
            odd.node.is_empty(commands);
            assert_eq!(odd.calls(), ["ADD", "DEL"], "{commands}");
        }
        is_gone_after_del(&odd.node, commands);
    }
    eprintln!("{} ways to answer an ADD", behaviours.len());
}

pub(crate) fn dels(lab: &Lab) {
    let (long_failure, long_words) = (format!("{MEGABYTES}; exit 1"), format!("{MEGABYTES} >&2; exit 1"));
    let behaviours: [Behaviour<'_>; 7] = [
        ("kill -KILL $$", "signal: 9 (SIGKILL)"),
        ("exit 1", "exit status 1"),
        ("printf '\\377\\376\\000{'; exit 1", "error parsing its diagnostic message"),
        (r#"echo '{"code":11,"msg":"try again"}'; exit 1"#, "try again"),
        ("echo nonsense", ""),
        (&long_failure, "error parsing its diagnostic message"),
        (&long_words, "netplugin failed"),
    ];
    let odd = Odd::new(lab);
    for (commands, text) in behaviours {
        odd.does("DEL", commands);
        odd.node.run("ADD", None).succeeded();
        let reply = odd.node.run("DEL", None);
        if text.is_empty() {
            reply.succeeded();
        } else {
            let (_, message, _) = reply.error();
            assert!(message.contains(text), "{commands}: {message}");
            assert!(message.len() < 1500, "{commands}: {} characters", message.len());
            assert_eq!(odd.node.sandbox.links(), ["lo"], "{commands}: the others go all the same");
        }
        odd.does("DEL", "exit 0");
        is_gone_after_del(&odd.node, commands);
    }
    eprintln!("{} ways to answer a DEL", behaviours.len());
}

/// What a runtime does then: it kills the plugin that it has started, and calls DEL.
pub(crate) fn hangs(lab: &Lab) {
    let odd = Odd::new(lab);
    let pipe = lab.path("hangs");
    mkfifo(&pipe, Mode::from_bits_truncate(0o600)).unwrap();
    for command in ["ADD", "DEL"] {
        odd.does(command, &format!("echo $$ > {}; exec sleep 1000", pipe.display()));
        if command == "DEL" {
            odd.node.run("ADD", None).succeeded();
        }
        let running = lab.host.within(|| odd.node.call(command).start());
        let mut process = String::new();
        File::open(&pipe).unwrap().read_to_string(&mut process).unwrap();
        let _killed = running.kill();
        kill(Pid::from_raw(process.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
        odd.does("DEL", "exit 0");
        is_gone_after_del(&odd.node, command);
        odd.does("ADD", r#"echo '{"cniVersion":"1.0.0"}'"#);
    }
    eprintln!("a plugin that hangs in ADD and in DEL");
}

/// The node whose network `first` has a plugin of its own.
struct Odd<'a> {
    node: Node<'a>,
}

impl<'a> Odd<'a> {
    fn new(lab: &'a Lab) -> Self {
        let delegate: Value = json!({"cniVersion": "1.0.0", "name": "first", "type": "odd"});
        let directory = lab.path("bin");
        fs::create_dir(&directory).unwrap();
        let script = format!("#!/bin/sh\necho $CNI_COMMAND >> {0}/calls\n. {0}/$CNI_COMMAND\n", directory.display());
        fs::write(directory.join("odd"), script).unwrap();
        fs::set_permissions(directory.join("odd"), fs::Permissions::from_mode(0o755)).unwrap();
        let odd = Self { node: Node::new(lab).replacing(1, delegate) };
        odd.does("DEL", "exit 0");
        odd.does("ADD", r#"echo '{"cniVersion":"1.0.0"}'"#);
        odd
    }

    /// From now on.
    fn does(&self, command: &str, commands: &str) {
        let directory = self.node.lab.path("bin");
        fs::write(directory.join(command), commands).unwrap();
        let _none = fs::remove_file(directory.join("calls"));
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.node.lab.path("bin/calls")).unwrap();
        calls.lines().map(str::to_owned).collect()
    }
}
