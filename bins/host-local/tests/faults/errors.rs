//! An error instead of every system call that has to do with files.

use std::{fs, net::IpAddr};

use testkit::{Fault, LACKS, sample, strace};

use crate::{
    AFTER_DEATH, AFTER_REBOOT, BESIDE, COLLECTION, FRESH, FULL, ITS, OTHERS, Place, RELEASE,
    RELEASE_WHERE_NO_INDEX_CAN_BE, RELEASE_WITHOUT_INDEX, Scenario, VERIFICATION, addresses, sequence::is_long,
};

pub(crate) fn of_adds() {
    fail_every_call(&FRESH);
    fail_every_call(&BESIDE);
    fail_every_call(&Scenario { durable: true, ..BESIDE });
}

pub(crate) fn of_adds_that_adopt() {
    for scenario in [AFTER_DEATH, AFTER_REBOOT, FULL] {
        fail_every_call(&scenario);
    }
}

pub(crate) fn of_other_commands() {
    for scenario in [RELEASE, RELEASE_WITHOUT_INDEX, COLLECTION, VERIFICATION] {
        fail_every_call(&scenario);
    }
}

/// Of each scenario, in a short run.
const SAMPLE: usize = 40;

pub(crate) fn that_last() {
    let released = [RELEASE, RELEASE_WITHOUT_INDEX, RELEASE_WHERE_NO_INDEX_CAN_BE, COLLECTION];
    for scenario in [FRESH, BESIDE, AFTER_REBOOT].into_iter().chain(released) {
        let (reply, calls) = scenario.call(&scenario.host()).follow(None);
        reply.succeeded();
        let faults: Vec<Fault> = LACKS.iter().flat_map(|lack| Fault::lasting(&calls, *lack)).collect();
        let count = faults.len();
        assert!(count > 30, "only {count}");
        let chosen = sample(faults, SAMPLE);
        for fault in &chosen {
            let _place = Place(format!("{}: {fault}", scenario.name));
            survives(&scenario, fault);
        }
        println!("{}: {} of {count} errors that last", scenario.name, chosen.len());
    }
}

fn survives(scenario: &Scenario, fault: &Fault) {
    let host = scenario.host();
    let before = host.reservations();
    let (reply, _) = scenario.call(&host).follow(Some(fault));
    scenario.assert_invariants(&host, &before, false);
    let held = host.held_by(ITS);
    match (scenario.command, fault.is_survived(&reply)) {
        ("ADD", true) => assert_eq!(addresses(&reply), held.keys().copied().collect::<Vec<_>>(), "{reply:?}"),
        (_, true) => assert!(held.is_empty(), "{held:?} is left: {reply:?}"),
        ("ADD", false) => {
            // Whoever finds no way to release either says so.
            let left = held.keys().any(|address| !before.contains_key(address));
            let is_told = reply.error().1.contains("releasing what had been reserved failed");
            assert!(!left || is_told, "{held:?} is left: {reply:?}");
        }
        (_, false) => {}
    }
    host.ours("DEL", ITS).run().succeeded();
    assert!(host.held_by(ITS).is_empty(), "{reply:?}");
    for container in OTHERS.into_iter().filter(|other| !host.held_by(other).is_empty()) {
        host.go("CHECK", container).run().succeeded();
    }
}

/// With the words that tell of them.
const ERRORS: [(&str, &str); 5] = [
    ("EINTR", "interrupted system call"),
    ("ENOSPC", "no space left on device"),
    ("EIO", "input/output error"),
    ("EACCES", "permission denied"),
    ("EROFS", "read-only file system"),
];

/// Those that have nothing to do with files, the end, and close(2), which closes whatever it answers: instead of it, the
/// file would stay open, and its lock held.
const OTHER_CALLS: [&str; 10] =
    ["brk", "close", "exit_group", "futex", "getrandom", "mmap", "mremap", "munmap", "rt_sigprocmask", "sigaltstack"];

fn fail_every_call(scenario: &Scenario) {
    let mut points = 0;
    let calls = scenario.system_calls();
    for (number, (name, which)) in
        calls.iter().enumerate().filter(|(_, (name, _))| !OTHER_CALLS.contains(&name.as_str()))
    {
        // In a long run every error, else an interruption and one or two of the others in turns.
        let is_chosen = |error: usize| is_long() || error == 0 || (number + error).is_multiple_of(3);
        for (_, (error, text)) in ERRORS.iter().enumerate().filter(|(error, _)| is_chosen(*error)) {
            let inject = format!("inject={name}:error={error}:when={which}");
            let _place = Place(format!("{}: {inject}", scenario.name));
            fail_call(scenario, &inject, text);
            points += 1;
        }
    }
    assert!(points > 30, "only {points}");
    println!("{} (durable: {}): {points} errors", scenario.name, scenario.durable);
}

fn fail_call(scenario: &Scenario, inject: &str, text: &str) {
    let host = scenario.host();
    let before = host.reservations();
    let trace = host.directory.path().join("trace");
    let strace = [strace().unwrap(), "-qq", "-o", trace.to_str().unwrap(), "-e", inject];
    let reply = scenario.call(&host).through(&strace).run();
    let trace = fs::read_to_string(&trace).unwrap();
    let injected = trace.lines().find(|line| line.ends_with("(INJECTED)")).unwrap();
    let must_succeed = injected.contains("EINTR") && MAY_WAIT.iter().any(|call| injected.starts_with(call));
    let told = format!("{reply:?}\n{}", &trace[trace.find("read(0,").unwrap()..]);
    scenario.assert_invariants(&host, &before, false);
    let held = host.held_by(ITS);
    if reply.status == Some(0) {
        match scenario.command {
            "ADD" => assert_eq!(addresses(&reply), held.keys().copied().collect::<Vec<_>>(), "{told}"),
            "CHECK" => {}
            _ if held.is_empty() => {}
            // What cannot be read is nobody's until it can be, as with the Go plugin; and EACCES may say that somebody has
            // the lock.
            _ => {
                let is_locked = injected.contains("F_OFD_SETLK,") && injected.contains("EACCES");
                assert!(is_locked || is_reading_a_reservation(&trace), "{held:?} is left: {told}");
                scenario.call(&host).run().succeeded();
                assert!(host.held_by(ITS).is_empty(), "{told}");
            }
        }
    } else {
        assert!(!must_succeed, "{told}");
        let (_, message, _) = reply.error();
        let data_dir = host.data_dir();
        let names = ["stdin", "stdout", "boot_id", "machine-id", data_dir.to_str().unwrap()];
        assert!(names.iter().any(|name| message.contains(name)), "it names nothing: {told}");
        assert!(message.to_lowercase().contains(text), "it gives no reason: {told}");
        if scenario.command == "ADD" {
            assert!(held.keys().all(|address| before.contains_key(address)), "{held:?} is left: {told}");
        }
        // It was that one time.
        scenario.call(&host).run().succeeded();
    }
    let before = host.reservations();
    let given = addresses(&host.ours("ADD", "c2").run());
    assert!(given.iter().all(|address| before.get(address).is_none_or(|one| one.content.starts_with('e'))), "{told}");
    for container in OTHERS.into_iter().filter(|other| !host.held_by(other).is_empty()) {
        host.go("CHECK", container).run().succeeded();
    }
    host.ours("DEL", ITS).run().succeeded();
    assert!(host.held_by(ITS).is_empty(), "{told}");
}

/// Whether what failed was to open, or to read, the file of an address.
fn is_reading_a_reservation(trace: &str) -> bool {
    let until = trace.split_inclusive("(INJECTED)").next().unwrap();
    let opened = until.lines().rfind(|line| line.starts_with("openat(")).unwrap();
    let is_read = until
        .lines()
        .next_back()
        .is_some_and(|line| ["openat(", "pread64(", "read("].iter().any(|call| line.starts_with(call)));
    is_read && opened.split('"').nth(1).unwrap().parse::<IpAddr>().is_ok()
}

/// Those that may wait: the kernel makes them again by itself after a signal, unless a handler forbids it.
const MAY_WAIT: [&str; 8] =
    ["openat(", "read(", "pread64(", "write(", "pwrite64(", "flock(", "fsync(", "fcntl(4, F_OFD_SETLKW"];
