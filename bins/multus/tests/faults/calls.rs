//! What happens to the process's own system calls.

use testkit::{Exchange, Fault, Lab, SystemCall, sample};

use crate::node::Node;

const COMMANDS: [&str; 3] = ["ADD", "DEL", "CHECK"];

pub(crate) fn errors(lab: &Lab) {
    each(&Node::new(lab), "errors", 20, Fault::errors);
}

pub(crate) fn errors_beside_an_executed_plugin(lab: &Lab) {
    // Each call, with the next of its errors in turn: the Go plugins are slow.
    let some = |calls: &[SystemCall]| Fault::errors(calls).into_iter().step_by(5).collect();
    each(&Node::with_bridge(lab), "errors beside an executed plugin", 8, some);
}

pub(crate) fn replies(lab: &Lab) {
    each(&Node::new(lab), "odd replies", 10, |calls| {
        let all = |exchange: &Exchange| [exchange.refusals(), exchange.nonsense(), exchange.harmless()].concat();
        Exchange::all(calls).iter().flat_map(all).collect()
    });
}

pub(crate) fn nobody_listens(lab: &Lab) {
    let node = Node::new(lab);
    let reply = node.call("ADD").run_with_full_stdout(&lab.host);
    assert!(reply.status == Some(1) && reply.stderr.contains("Error writing error JSON to stdout: "), "{reply:?}");
    node.is_empty("a full disk");
    node.is_gone_after_del("a full disk");
}

pub(crate) fn deaths(lab: &Lab) {
    let node = Node::new(lab);
    for command in ["ADD", "DEL"] {
        let all: Vec<Fault> = node.system_calls(command).iter().map(Fault::death).collect();
        let count = all.len();
        let chosen = sample(all, 15);
        for fault in &chosen {
            node.outlives(command, fault);
        }
        eprintln!("died at {} of {count} system calls of {command}", chosen.len());
    }
}

fn each(node: &Node<'_>, what: &str, most: usize, faults: impl Fn(&[SystemCall]) -> Vec<Fault>) {
    for command in COMMANDS {
        let all = faults(&node.system_calls(command));
        let count = all.len();
        assert!(count > 50, "only {count}");
        let chosen = sample(all, most);
        for fault in &chosen {
            node.survives(command, fault);
        }
        eprintln!("{} of {count} {what} in {command}", chosen.len());
    }
}
