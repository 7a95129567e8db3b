//! The differences that are meant. Each is a row of `docs/compat.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::Seen;

/// A row, and when it explains a difference.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The heading of the row's section.
    pub section: &'static str,
    /// The row's first cell.
    pub row: &'static str,
    /// Whether it explains all that differs.
    pub applies: fn(&Seen<'_>) -> bool,
}

/// All of them; the first that applies counts.
pub const ALLOWED: &[Rule] = &[
    rule("Debian's release", "version 1.1.0", |seen| seen.key("cniversion") == "1.1.0" && seen.theirs.code == Some(1)),
    rule("Debian's release", "addresses that begin with a zero", |seen| {
        let is_there = |subnet: &&str| seen.config.contains(&format!("\"subnet\":\"{subnet}\""));
        !seen.theirs.succeeded() && ["0.0.0.0/0", "::/0", "::/96"].iter().any(is_there)
    }),
    rule("Debian's release", "`linkInContainer`", |seen| seen.key("linkincontainer") == true),
    rule("Debian's release", "an unusable name beside an unusable configuration", |seen| {
        seen.ours.code == Some(4) && seen.step.variable.is_some() && seen.same_state()
    }),
    rule("The protocol", "of two equal keys", |seen| seen.has_equal_keys()),
    rule("Debian's release", "CHECK of IPv6 routes", |seen| {
        let is_lost = seen.theirs.message.contains("not found in routing table");
        seen.step.command == "CHECK" && seen.ours.succeeded() && is_lost && seen.same_state()
    }),
    rule("The protocol", "`null` in a list of texts (`dns`)", |seen| {
        seen.ours.message.contains("must be a string, not null") && seen.we_changed_nothing()
    }),
    rule("host-local", "DEL with unusable ranges or `CNI_ARGS`", |seen| {
        seen.step.command == "DEL" && seen.ours.succeeded() && seen.theirs.code.is_some()
    }),
    rule("host-local", "DEL, CHECK, STATUS, GC of a network without reservations", |seen| {
        seen.step.command != "ADD" && seen.same_answer() && seen.we_changed_nothing()
    }),
    rule("host-local", "CHECK", |seen| {
        seen.step.command == "CHECK" && seen.ours.code == Some(999) && seen.theirs.succeeded()
    }),
    rule("host-local", "`null` among requested addresses, a `null` route", |seen| {
        let is_named = seen.ours.code.is_some() && seen.ours.message.contains("not null");
        (seen.theirs.status == Some(2) || is_named) && !seen.ours.succeeded() && seen.we_changed_nothing()
    }),
    rule("host-local", "a route without `dst`", |seen| {
        let is_ours = seen.ours.message.contains("dst") && !seen.ours.succeeded() && seen.we_changed_nothing();
        is_ours && (seen.theirs.succeeded() || seen.theirs.code == Some(999))
    }),
    rule("host-local", "a failed ADD", |seen| failed_alike(seen) && seen.same_last_reserved()),
    rule("host-local", "a requested address in no range", failed_alike),
];

/// What is not compared at all: sections and rows.
pub const LEFT_OUT: &[(&str, &str)] = &[
    ("Debian's release", "the mode of reservations"),
    ("Debian's release", "an empty `dns` in 1.0.0"),
    ("Debian's release", "`txqlen`"),
    ("Debian's release", "`ndisc_notify`"),
    ("macvlan", "announcements of a link without addresses"),
];

/// Settings of a link with addresses that are the same.
pub(crate) const SETTINGS: [&str; 2] = ["ipv4/conf/NAME/arp_notify", "ipv6/conf/NAME/disable_ipv6"];

pub(crate) fn modes_of_today(files: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    files.values_mut().filter(|(mode, _)| *mode == 0o100_644).for_each(|(mode, _)| *mode = 0o100_600);
}

pub(crate) fn keys_of_today(mut result: Value) -> Value {
    if result["dns"] == json!({}) {
        result.as_object_mut().unwrap().remove("dns");
    }
    result
}

const fn rule(section: &'static str, row: &'static str, applies: fn(&Seen<'_>) -> bool) -> Rule {
    Rule { section, row, applies }
}

fn failed_alike(seen: &Seen<'_>) -> bool {
    seen.step.command == "ADD" && !seen.ours.succeeded() && seen.same_answer() && seen.we_changed_nothing()
}
