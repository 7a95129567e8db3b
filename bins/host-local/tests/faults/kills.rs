//! A SIGKILL before every system call.

use std::net::IpAddr;

use testkit::strace;

use crate::{
    AFTER_DEATH, AFTER_REBOOT, BESIDE, COLLECTION, EARLIER, FRESH, FULL, Host, ITS, NOW, OTHERS, Place, RELEASE,
    RELEASE_WITHOUT_INDEX, Scenario, VERIFICATION, addresses, sequence::is_long,
};

pub(crate) fn an_add_is_served_again() {
    kill_at_every_call(&FRESH);
    kill_at_every_call(&BESIDE);
}

pub(crate) fn an_add_that_adopts() {
    kill_at_every_call(&AFTER_DEATH);
    kill_at_every_call(&AFTER_REBOOT);
}

pub(crate) fn an_add_that_reclaims() {
    kill_at_every_call(&FULL);
}

pub(crate) fn a_durable_add() {
    for scenario in [FRESH, BESIDE, FULL] {
        kill_at_every_call(&Scenario { durable: true, ..scenario });
    }
}

pub(crate) fn commands_without_a_result() {
    for scenario in [RELEASE, RELEASE_WITHOUT_INDEX, COLLECTION, VERIFICATION] {
        kill_at_every_call(&scenario);
    }
}

/// What happens next.
const NEXT: [fn(&Scenario, &Host); 3] = [the_same_again, somebody_else, a_collection];

fn kill_at_every_call(scenario: &Scenario) {
    let mut points = 0;
    for (place, (name, which)) in scenario.system_calls().iter().enumerate() {
        // In a long run each of them after each kill, else one after the other.
        for next in if is_long() { NEXT.to_vec() } else { vec![NEXT[place % NEXT.len()]] } {
            let _place = Place(format!("{}: killed at {name} {which}", scenario.name));
            let host = scenario.host();
            let before = host.reservations();
            let kill = format!("inject={name}:signal=SIGKILL:when={which}");
            let reply = scenario.call(&host).through(&[strace().unwrap(), "-qq", "-o", "/dev/null", "-e", &kill]).run();
            assert_eq!(reply.status, None, "{reply:?}");
            points += 1;
            scenario.assert_invariants(&host, &before, true);
            next(scenario, &host);
            the_end(&host);
        }
    }
    assert!(points > 30, "only {points}");
    println!("{} (durable: {}): {points} kills", scenario.name, scenario.durable);
}

fn the_same_again(scenario: &Scenario, host: &Host) {
    let held = host.held_by(ITS);
    let reply = scenario.call(host).run();
    let is_finished = held.values().any(|one| one.record.is_some_and(|record| record.finished && record.boot == NOW));
    if scenario.command == "ADD" && is_finished {
        assert!(reply.error().1.contains("duplicate allocation is not allowed"), "{reply:?}");
    } else if scenario.command == "ADD" {
        let given = addresses(&reply);
        assert_eq!(given.len(), 2);
        assert!(held.keys().all(|address| given.contains(address)), "{held:?} became {given:?}");
    } else {
        reply.succeeded();
    }
}

fn somebody_else(_: &Scenario, host: &Host) {
    let before = host.reservations();
    let is_earlier = |address: &IpAddr| before[address].record.is_some_and(|record| record.boot == EARLIER);
    for call in [host.go("ADD", "c2"), host.ours("ADD", "c3")] {
        let reply = call.run();
        if reply.status == Some(1) {
            // Go does not take what is left of an earlier boot.
            assert!(reply.error().1.contains("no IP addresses available"), "{reply:?}");
            assert!(before.values().any(|one| one.content.starts_with('e')));
            continue;
        }
        for address in addresses(&reply) {
            assert!(!before.contains_key(&address) || is_earlier(&address), "{address} had been given: {before:?}");
        }
    }
    assert!(!host.held_by("c3").is_empty());
    for container in ["c2", "c3"] {
        host.go("DEL", container).run().succeeded();
    }
}

fn a_collection(_: &Scenario, host: &Host) {
    host.gc(&OTHERS).run().succeeded();
    let contents: Vec<String> = host.reservations().into_values().map(|one| one.content).collect();
    assert!(contents.iter().all(|content| OTHERS.iter().any(|other| content.starts_with(other))), "{contents:?}");
}

/// Both programs find the others' addresses where they were, and in the end nothing is left.
fn the_end(host: &Host) {
    for container in OTHERS.into_iter().filter(|other| !host.held_by(other).is_empty()) {
        host.go("CHECK", container).run().succeeded();
    }
    host.ours("DEL", ITS).run().succeeded();
    assert!(host.held_by(ITS).is_empty());
    host.gc(&[]).run().succeeded();
    assert!(host.reservations().is_empty());
}
