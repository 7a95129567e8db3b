//! Who attaches sandboxes, and with which programs.

use std::path::Path;

use serde_json::{Value, json};
use testkit::{Call, Choices, Lab, go_plugins, program};

/// The network of macvlan and host-local, whose range is too small for all that ask.
pub(crate) const LAN: &str = "lan";

/// What a worker calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Runtime {
    /// The shim, for two macvlan networks.
    Multus,
    /// A macvlan program.
    Macvlan,
    /// A host-local program, for a sandbox that there is not.
    HostLocal,
}

impl Runtime {
    /// How many sandboxes a worker has at most.
    pub(crate) fn slots(self) -> usize {
        match self {
            Self::Multus => 3,
            Self::Macvlan => 5,
            Self::HostLocal => 8,
        }
    }

    /// In which time after its start a call is killed, in microseconds: about as long as it takes.
    pub(crate) fn life(self) -> usize {
        match self {
            Self::Multus => 40_000,
            Self::Macvlan => 16_000,
            Self::HostLocal => 8_000,
        }
    }

    /// The networks of a sandbox, each with its interface.
    pub(crate) fn networks(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Multus => &[("cbr0", "eth0"), ("macvlan-conf", "net1")],
            Self::Macvlan | Self::HostLocal => &[(LAN, "eth0")],
        }
    }

    pub(crate) fn has_sandbox(self) -> bool {
        self != Self::HostLocal
    }

    /// A call of ours or of the Go plugin.
    pub(crate) fn call(self, command: &str, netns: &Path, is_go: bool) -> Call {
        let name = match self {
            Self::Multus => "multus-shim",
            Self::Macvlan => "macvlan",
            Self::HostLocal => "host-local",
        };
        let is_go = is_go && self != Self::Multus;
        let program = if is_go { go_plugins().unwrap().join(name) } else { program(name) };
        // It leads a process group then, so that the plugin that it executes dies with it.
        Call::new(program, command, netns).through(&["/usr/bin/setsid"])
    }
}

/// Which operation is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Add,
    Check,
    Del,
    /// DEL when the sandbox's namespace has gone.
    DelWithoutNamespace,
    /// Never a DEL.
    Lose,
    Gc,
}

impl Operation {
    pub(crate) fn any(choices: &mut Choices) -> Self {
        match choices.below(100) {
            0..45 => Self::Add,
            45..60 => Self::Check,
            60..84 => Self::Del,
            84..90 => Self::DelWithoutNamespace,
            90..95 => Self::Lose,
            _ => Self::Gc,
        }
    }
}

/// The configuration of the network.
pub(crate) fn lan(lab: &Lab) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": LAN, "type": "macvlan", "master": "ens32",
        "ipam": {
            "type": "host-local", "dataDir": lab.data_dir(),
            "ranges": [[{"subnet": "10.9.0.0/24", "rangeEnd": "10.9.0.33"}]],
        },
    })
}
