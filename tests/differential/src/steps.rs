//! Sequences of commands.

use serde_json::{Value, json};
use testkit::Choices;

use crate::{
    config::{link, network, wishes},
    hostile::{spoiled, variable},
};

/// One command. In its configuration `@DATA` stands for the directory of reservations, and `"@PREVIOUS"` for the result of
/// the attachment's last ADD.
#[derive(Clone, Debug)]
pub struct Step {
    pub command: &'static str,
    pub container: String,
    pub ifname: &'static str,
    /// `CNI_ARGS`
    pub args: Option<String>,
    pub config: String,
    /// Another variable than these, or another value.
    pub variable: Option<(&'static str, Option<&'static str>)>,
}

/// Commands of an IPAM plugin, all about one network.
#[must_use]
pub fn ipam(choices: &mut Choices) -> Vec<Step> {
    let network = network(choices);
    let count = 6 + choices.below(14);
    (0..count).map(|_| step(choices, network.clone())).collect()
}

/// Commands of macvlan.
#[must_use]
pub fn attachments(choices: &mut Choices) -> Vec<Step> {
    let mut network = network(choices);
    link(choices, &mut network);
    let count = 3 + choices.below(5);
    (0..count).map(|_| step(choices, network.clone())).collect()
}

fn step(choices: &mut Choices, mut config: Value) -> Step {
    let command = choices.pick(&["ADD", "ADD", "ADD", "ADD", "ADD", "DEL", "DEL", "DEL", "CHECK", "CHECK"]);
    let args = if command == "ADD" { wishes(choices, &mut config) } else { None };
    if command == "CHECK" || (command == "DEL" && choices.chance(50)) {
        config["prevResult"] = json!("@PREVIOUS");
    }
    let text = match choices.chance(15) {
        true => spoiled(choices, &config),
        false => config.to_string(),
    };
    Step {
        command,
        container: format!("c{}", choices.below(4)),
        ifname: if choices.chance(80) { "eth0" } else { "net1" },
        args,
        config: text,
        variable: choices.chance(3).then(|| variable(choices)),
    }
}
