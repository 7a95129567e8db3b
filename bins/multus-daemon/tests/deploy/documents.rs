//! What is written for people.

use std::collections::{BTreeMap, BTreeSet};

use crate::files::{below, path, sources, text};

/// Every name of a test that the lists of differences and of tests give; behind the name of its package where that is given.
pub(crate) fn every_test_that_is_named_exists() {
    let mut tests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        tests.entry(package(&file)).or_default().extend(names(&text(&file)));
    }
    let mut count = 0;
    for file in ["SECURITY.md", "docs/compat.md", "docs/multus.md", "docs/testing.md", "deploy/README.md"] {
        for (_, last) in rows_with_tests(&text(file)) {
            for name in quoted(&last).filter(|name| is_test(name)) {
                count += 1;
                let exists = match name.split_once("::") {
                    Some((package, name)) => tests.get(package).is_some_and(|names| names.contains(name)),
                    None => tests.values().any(|names| names.contains(name)),
                };
                assert!(exists, "{file} names a test that does not exist: {name}");
            }
        }
    }
    assert!(count > 400, "{count}");
}

/// The first column and the last one of tables that end with tests.
fn rows_with_tests(text: &str) -> Vec<(String, String)> {
    let mut has_tests = false;
    let mut rows = Vec::new();
    for row in text.lines() {
        let is_head = row.ends_with("| test |");
        has_tests = row.starts_with('|') && (has_tests || is_head);
        if has_tests && !is_head {
            let cells = row.trim_matches('|');
            let (first, last) = (cells.split(" | ").next().unwrap(), cells.rsplit(" | ").next().unwrap());
            rows.push((first.to_owned(), last.to_owned()));
        }
    }
    rows
}

fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The name of the package that a file is of.
fn package(file: &str) -> String {
    let depth = if file.starts_with("bins/") || file.starts_with("tests/") { 2 } else { 1 };
    let directory: Vec<&str> = file.split('/').take(depth).collect();
    let manifest = text(&format!("{}/Cargo.toml", directory.join("/")));
    manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).unwrap().to_owned()
}

/// Test functions, and cases of test programs that have their own `main`.
fn names(source: &str) -> Vec<String> {
    let function = |rest: &str| rest.split_once("fn ")?.1.split(['(', '<']).next().map(str::to_owned);
    let functions = source.split("#[test]").skip(1).filter_map(function);
    let cases = source.split('"').filter(|word| is_test(word)).map(str::to_owned);
    functions.chain(cases).collect()
}

fn is_test(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-:0123456789".contains(&byte))
}

/// What the blocks of messages in the book of troubles quote: `…` stands for what differs from case to case.
pub(crate) fn every_message_that_is_quoted_is_in_the_code() {
    let code = sources().into_iter().filter(|file| file.contains("/src/") && !file.starts_with("tests/"));
    let sources: Vec<String> = code.map(|file| unbroken(&text(&file))).collect();
    let troubles = text("docs/troubleshooting.md");
    let mut count = 0;
    for message in troubles.split("```message\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()) {
        for line in message.lines() {
            for part in line.split('…').map(str::trim).filter(|part| part.len() > 8) {
                count += 1;
                assert!(sources.iter().any(|source| source.contains(part)), "no program says {part:?}");
            }
        }
    }
    assert!(count >= 20, "{count}");
    let symptoms = troubles.lines().filter(|line| line.starts_with("## ")).count();
    assert!(symptoms >= 20, "{symptoms}");
}

/// Source text with the breaks in its strings mended and its quotes as they are printed.
fn unbroken(source: &str) -> String {
    let mut text = String::new();
    for line in source.lines() {
        match line.trim_start().strip_suffix('\\') {
            Some(begin) => text.push_str(begin),
            None => {
                text.push_str(line.trim_start());
                text.push('\n');
            }
        }
    }
    text.replace("\\\"", "\"").replace("{{", "{").replace("}}", "}")
}

/// Links from one file of the repository to another, and to headings.
pub(crate) fn every_link_leads_somewhere() {
    let mut files = below("docs", &[".md"]);
    files.extend(["README.md", "SECURITY.md", "deploy/README.md", "CONTRIBUTING.md"].map(str::to_owned));
    let mut count = 0;
    for file in files {
        let content = text(&file);
        for link in content.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = file.rsplit_once('/').map_or("", |(directory, _)| directory);
            let place = if target.is_empty() { file.clone() } else { format!("{directory}/{target}") };
            let place = place.trim_start_matches('/').to_owned();
            assert!(path(&place).exists(), "{file}: {link}");
            assert!(anchor.is_empty() || anchors(&text(&place)).contains(anchor), "{file}: {link}");
        }
    }
    assert!(count > 30, "{count}");
}

/// What can be linked to in a text: its headings, as forges spell them.
pub(crate) fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let plain = |heading: &str| {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(plain).collect()
}

/// The words of an expression.
pub(crate) fn words(expression: &str) -> impl Iterator<Item = &str> {
    expression.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).filter(|word| !word.is_empty())
}

/// Flags of thin_entrypoint, and keys that the programs read.
pub(crate) fn every_flag_and_key_is_documented() {
    let reference = text("docs/configuration.md");
    for flag in flags() {
        assert!(reference.contains(&format!("`--{flag}")), "--{flag} is not in docs/configuration.md");
    }
    let mut count = 0;
    for source in MULTUS.iter().chain(&PLUGINS) {
        for key in keys(source) {
            count += 1;
            let ways = [format!("`{key}`"), format!(".{key}`"), format!("`{key}.")];
            let is_there = ways.iter().any(|way| reference.contains(way));
            assert!(is_there, "{source} reads {key:?}, which docs/configuration.md does not tell of");
        }
    }
    assert!(count > 60, "{count}");
}

/// The same, of Multus, in the tables of tests.
pub(crate) fn every_flag_and_key_has_a_test() {
    let rows = rows_with_tests(&text("docs/testing.md"));
    let named: BTreeSet<&str> = rows.iter().flat_map(|(first, _)| quoted(first)).collect();
    for flag in flags() {
        assert!(named.contains(&*format!("--{flag}")), "docs/testing.md has no test of --{flag}");
    }
    for source in MULTUS {
        for key in keys(source) {
            assert!(named.contains(&*key), "{source} reads {key:?}, of which docs/testing.md has no test");
        }
    }
    assert!(named.len() > 100, "{}", named.len());
}

/// Where keys of Multus are read.
const MULTUS: [&str; 6] = [
    "bins/multus-daemon/src/options.rs",
    "bins/multus-shim/src/settings.rs",
    "bins/thin_entrypoint/src/thick.rs",
    "multus-core/src/config.rs",
    "multus-core/src/annotation.rs",
    "multus-core/src/runtime_config.rs",
];
const PLUGINS: [&str; 2] = ["macvlan/src/config.rs", "host-local-ipam/src/config.rs"];

/// The flags of thin_entrypoint.
fn flags() -> Vec<String> {
    let help = text("bins/thin_entrypoint/src/arguments.rs");
    let flag = |line: &str| line.strip_prefix("  --")?.split([' ', '=']).next().map(str::to_owned);
    let flags: Vec<String> = help.lines().filter_map(flag).collect();
    assert!(flags.len() > 20, "{flags:?}");
    flags
}

/// The keys that a source reads.
fn keys(source: &str) -> Vec<String> {
    let reads = [
        ".string(",
        ".boolean(",
        ".integer(",
        ".strings(",
        ".object(",
        ".array(",
        ".item(",
        "text(",
        "path(",
        "path_or(",
        "switch(",
    ];
    let code = text(source);
    let code = code.split("#[cfg(test)]").next().unwrap();
    let read = |read: &str| {
        let call = format!("{read}\"");
        let keys = code.split(&call).skip(1).filter_map(|rest| rest.split('"').next());
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    reads.into_iter().flat_map(read).filter(|key| !key.is_empty()).collect()
}
