//! Errors instead of system calls.

use testkit::{Fault, LACKS, is_soak, sample, survives, system_calls_after, system_calls_of};

use crate::Network;

const COMMANDS: [&str; 3] = ["ADD", "DEL", "CHECK"];
/// Of each command, in a short run.
const SAMPLE: usize = 30;

pub(crate) fn of_system_calls(network: &Network<'_>) {
    for command in COMMANDS {
        let calls = system_calls_of(network, command);
        let faults = Fault::errors(&calls);
        let count = faults.len();
        assert!(count > 60, "only {count}");
        let chosen = sample(faults, SAMPLE);
        for fault in &chosen {
            survives(network, command, fault);
        }
        let (name, calls) = (network.name, calls.len());
        eprintln!("{name}: {} of {count} errors in {calls} system calls of {command}", chosen.len());
    }
}

pub(crate) fn that_last(network: &Network<'_>) {
    for command in COMMANDS {
        let calls = system_calls_of(network, command);
        let faults: Vec<Fault> = LACKS.iter().flat_map(|lack| Fault::lasting(&calls, *lack)).collect();
        let count = faults.len();
        assert!(count > 30, "only {count}");
        let chosen = sample(faults, SAMPLE);
        for fault in &chosen {
            survives(network, command, fault);
        }
        eprintln!("{}: {} of {count} errors that last, of {command}", network.name, chosen.len());
    }
}

pub(crate) fn of_the_undoing(network: &Network<'_>) {
    let calls = system_calls_of(network, "ADD");
    let (mut firsts, mut tried, mut count) = (0, 0, 0);
    for first in sample(Fault::errors(&calls), 12) {
        let seconds = first.and_another(&system_calls_after(network, &first));
        firsts += usize::from(!seconds.is_empty());
        count += seconds.len();
        let chosen = sample(seconds, if is_soak() { usize::MAX } else { 5 });
        tried += chosen.len();
        for fault in &chosen {
            survives(network, "ADD", fault);
        }
    }
    eprintln!("{}: {tried} of {count} errors after each of {firsts} that an ADD fails by", network.name);
}
