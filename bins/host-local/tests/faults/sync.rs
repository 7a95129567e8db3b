//! What reaches the disk before a result is told.

use std::fs;

use testkit::strace;

use crate::{AFTER_REBOOT, BESIDE, COLLECTION, FRESH, FULL, RELEASE, Scenario, VERIFICATION};

pub(crate) fn in_order() {
    for scenario in [FRESH, BESIDE, FULL] {
        durable(&Scenario { durable: true, ..scenario });
    }
    for scenario in [FRESH, BESIDE, FULL, AFTER_REBOOT, RELEASE, COLLECTION, VERIFICATION] {
        let trace = trace(&scenario);
        let syncing = trace.iter().find(|line| line.contains("sync") && !line.contains("AT_STATX_SYNC_AS_STAT"));
        assert_eq!(syncing, None, "{}", scenario.name);
    }
}

fn durable(scenario: &Scenario) {
    let trace = trace(scenario);
    let all = trace.join("\n");
    let told = trace.iter().position(|line| line.contains("cniVersion") && line.starts_with("write(")).unwrap();
    let links: Vec<usize> =
        (0..told).filter(|place| trace[*place].starts_with("linkat(") && trace[*place].ends_with("= 0")).collect();
    assert_eq!(links.len(), 2, "{all}");
    for (number, link) in links.iter().enumerate() {
        // linkat(file, "", directory, name, flags)
        let arguments: Vec<&str> = trace[*link].trim_start_matches("linkat(").split(", ").collect();
        let next = links.get(number + 1).copied().unwrap_or(told);
        let record = trace[..*link].iter().rposition(|line| line.starts_with("fsetxattr(")).unwrap();
        assert!(is_synced(&trace[record..*link], arguments[0]), "the file before it appears: {all}");
        assert!(is_synced(&trace[*link..next], arguments[2]), "the directory after that: {all}");
    }
    for made in trace.iter().filter_map(|line| line.strip_prefix("mkdir(\"")) {
        let path = made.split('"').next().unwrap();
        let parent = path.rsplit_once('/').unwrap().0;
        let opened = trace.iter().find(|line| line.contains(&format!("openat(AT_FDCWD, \"{parent}\",")));
        assert!(path.contains(".host-local") || made.contains("= -1") || opened.is_some(), "{path}: {all}");
    }
}

fn is_synced(trace: &[String], descriptor: &str) -> bool {
    trace.iter().any(|line| line.starts_with(&format!("fsync({descriptor})")) && line.ends_with("= 0"))
}

fn trace(scenario: &Scenario) -> Vec<String> {
    let host = scenario.host();
    let trace = host.directory.path().join("trace");
    let strace = [strace().unwrap(), "-qq", "-f", "-o", trace.to_str().unwrap()];
    scenario.call(&host).through(&strace).run().succeeded();
    let without_process = |line: &str| line.split_once(' ').map_or(line, |(_, call)| call).trim_start().to_owned();
    fs::read_to_string(trace).unwrap().lines().map(without_process).collect()
}
