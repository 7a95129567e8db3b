//! What happens to the process's own system calls.

use testkit::{
    Exchange, Fault, LACKS, Lab, Subject, is_gone_after_del, is_soak, outlives, sample, survives, system_calls_after,
    system_calls_of,
};

use crate::node::Node;

const COMMANDS: [&str; 3] = ["ADD", "DEL", "CHECK"];

pub(crate) fn errors(lab: &Lab) {
    let node = Node::new(lab);
    each(&node, "errors", 20, |command| Fault::errors(&system_calls_of(&node, command)));
}

pub(crate) fn errors_beside_an_executed_plugin(lab: &Lab) {
    let node = Node::with_bridge(lab);
    // Each call, with the next of its errors in turn: the Go plugins are slow.
    let some = |command: &str| Fault::errors(&system_calls_of(&node, command)).into_iter().step_by(5).collect();
    each(&node, "errors beside an executed plugin", 8, some);
}

pub(crate) fn errors_that_last(lab: &Lab) {
    let node = Node::new(lab);
    each(&node, "errors that last", 20, |command| {
        let calls = system_calls_of(&node, command);
        LACKS.iter().flat_map(|lack| Fault::lasting(&calls, *lack)).collect()
    });
}

/// What is stored of each attachment is all that DEL has to go by.
pub(crate) fn errors_that_last_where_a_file_is_lost(lab: &Lab) {
    let node = Node::forgetful(lab);
    let calls = system_calls_of(&node, "DEL");
    let all: Vec<Fault> = LACKS.iter().flat_map(|lack| Fault::lasting(&calls, *lack)).collect();
    let count = all.len();
    assert!(count > 50, "only {count}");
    let chosen = sample(all, 40);
    for fault in &chosen {
        survives(&node, "DEL", fault);
    }
    eprintln!("{} of {count} errors that last in a DEL that has lost a file", chosen.len());
}

pub(crate) fn errors_in_undoing(lab: &Lab) {
    let node = Node::new(lab);
    let firsts = Fault::errors(&system_calls_of(&node, "ADD"));
    let (mut failing, mut tried, mut count) = (0, 0, 0);
    // All of them would take hours.
    for first in firsts.into_iter().step_by(if is_soak() { 40 } else { 200 }) {
        let seconds = first.and_another(&system_calls_after(&node, &first));
        failing += usize::from(!seconds.is_empty());
        count += seconds.len();
        let chosen = sample(seconds, 3);
        tried += chosen.len();
        for fault in &chosen {
            survives(&node, "ADD", fault);
        }
    }
    assert!(count > 50, "only {count}");
    eprintln!("{tried} of {count} errors after each of {failing} that an ADD fails by");
}

pub(crate) fn replies(lab: &Lab) {
    let node = Node::new(lab);
    each(&node, "odd replies", 10, |command| {
        let all = |exchange: &Exchange| [exchange.refusals(), exchange.nonsense(), exchange.harmless()].concat();
        node.exchanges(command).iter().flat_map(all).collect()
    });
}

pub(crate) fn nobody_listens(lab: &Lab) {
    let node = Node::new(lab);
    let reply = node.call("ADD").run_with_full_stdout(&lab.host);
    assert!(reply.status == Some(1) && reply.stderr.contains("Error writing error JSON to stdout: "), "{reply:?}");
    assert_eq!(node.left(), [""; 0], "a full disk");
    is_gone_after_del(&node, "a full disk");
}

pub(crate) fn deaths(lab: &Lab) {
    let node = Node::new(lab);
    for command in ["ADD", "DEL"] {
        let all: Vec<Fault> = system_calls_of(&node, command).iter().map(Fault::death).collect();
        let count = all.len();
        let chosen = sample(all, 15);
        for fault in &chosen {
            outlives(&node, command, fault);
        }
        eprintln!("died at {} of {count} system calls of {command}", chosen.len());
    }
}

fn each(node: &Node<'_>, what: &str, most: usize, faults: impl Fn(&str) -> Vec<Fault>) {
    for command in COMMANDS {
        let all = faults(command);
        let count = all.len();
        assert!(count > 50, "only {count}");
        let chosen = sample(all, most);
        for fault in &chosen {
            survives(node, command, fault);
        }
        eprintln!("{} of {count} {what} in {command}", chosen.len());
    }
}
