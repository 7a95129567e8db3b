//! Replies of the kernel's that are others, or none.

use std::thread;

use testkit::{Exchange, Fault, Lab, sample, survives};

use crate::Network;

pub(crate) fn refusals(lab: &Lab) {
    each(lab, "refusals", Exchange::refusals);
}

pub(crate) fn nonsense(lab: &Lab) {
    each(lab, "replies without a sense", Exchange::nonsense);
}

pub(crate) fn harmless(lab: &Lab) {
    each(lab, "messages before the reply", Exchange::harmless);
}

/// Of each command, in a short run.
const SAMPLE: usize = 12;

fn each(lab: &Lab, what: &str, faults: impl Fn(&Exchange) -> Vec<Fault>) {
    let network = Network::dual_stack(lab);
    for command in ["ADD", "DEL", "CHECK"] {
        let exchanges = network.exchanges(command);
        let all: Vec<Fault> = exchanges.iter().flat_map(&faults).collect();
        let (requests, count) = (exchanges.len(), all.len());
        let chosen = sample(all, SAMPLE);
        for fault in &chosen {
            survives(&network, command, fault);
        }
        eprintln!("{} of {count} {what} in {requests} requests of {command}", chosen.len());
    }
}

/// Each takes ten seconds, so all at the same time.
pub(crate) fn silence(lab: &Lab) {
    let network = Network::dual_stack(lab);
    let of = |command: &'static str| {
        let faults = |exchange: &Exchange| [exchange.unheard_of(), exchange.unanswered()];
        network.exchanges(command).iter().flat_map(faults).map(move |fault| (command, fault)).collect()
    };
    let all: Vec<(&str, Fault)> =
        ["ADD", "DEL", "CHECK"].into_iter().flat_map(|command| -> Vec<_> { of(command) }).collect();
    let count = all.len();
    let chosen = sample(all, 4);
    thread::scope(|scope| {
        for (command, fault) in &chosen {
            scope.spawn(move || survives(&Network::dual_stack(&Lab::new()), command, fault));
        }
    });
    eprintln!("{} of {count} replies that do not come", chosen.len());
}
