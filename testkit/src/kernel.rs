//! What this kernel is, and has.

use std::{env, fs, process::Command};

use crate::Netns;

/// Names, separated by spaces, of the kinds of links that the kernel is known to have.
const HAS: &str = "KERNEL_HAS";

/// The kernel's version, such as (6, 1).
#[must_use]
pub fn linux() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Whether it must be no reason to ignore a test that the kernel has no links of that `kind`.
pub(crate) fn must_have(kind: &str) -> bool {
    env::var(HAS).is_ok_and(|kinds| kinds.split_whitespace().any(|known| known == kind))
}

/// Whether the kernel knows that `kind` of link.
pub(crate) fn has_links(kind: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let namespace = Netns::new(directory.path().join("probed"));
    // It may miss other properties of the link.
    let asked = namespace.output(Command::new("ip").args(["link", "add", "name", "probed", "type", kind]));
    let answer = String::from_utf8_lossy(&asked.stderr).into_owned();
    let is_unknown = answer.contains("Unknown device type") || answer.contains("not supported");
    if is_unknown { Err(format!("the kernel has no links of kind {kind}: {}", answer.trim())) } else { Ok(()) }
}
