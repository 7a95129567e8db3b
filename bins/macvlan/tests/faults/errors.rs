//! Errors instead of system calls.

use testkit::{Fault, sample};

use crate::Network;

/// Of each command, in a short run.
const SAMPLE: usize = 30;

pub(crate) fn of_system_calls(network: &Network<'_>) {
    for command in ["ADD", "DEL", "CHECK"] {
        let calls = network.system_calls(command);
        let faults = Fault::errors(&calls);
        let count = faults.len();
        assert!(count > 60, "only {count}");
        let chosen = sample(faults, SAMPLE);
        for fault in &chosen {
            network.survives(command, fault);
        }
        let (name, calls) = (network.name, calls.len());
        eprintln!("{name}: {} of {count} errors in {calls} system calls of {command}", chosen.len());
    }
}
