//! What is written for people.

use std::collections::BTreeSet;

use crate::files::{below, path, sources, text};

/// Every name of a test that the lists of differences give.
pub(crate) fn every_test_that_is_named_exists() {
    // Functions, and cases of test programs that are called otherwise.
    let names: BTreeSet<String> = sources().iter().flat_map(|file| names(&text(file))).collect();
    let mut count = 0;
    for file in ["docs/compat.md", "docs/multus.md", "deploy/README.md"] {
        // Of a table without tests nothing is wanted.
        let mut has_tests = false;
        for row in text(file).lines() {
            has_tests = row.starts_with('|') && (has_tests || row.ends_with("| test |"));
            if !has_tests {
                continue;
            }
            let last = row.trim_end_matches('|').rsplit(" | ").next().unwrap();
            for name in last.split('`').skip(1).step_by(2).filter(|name| is_test(name)) {
                let name = name.rsplit("::").next().unwrap();
                count += 1;
                assert!(names.contains(name), "{file} names a test that does not exist: {name}");
            }
        }
    }
    assert!(count > 150, "{count}");
}

fn names(source: &str) -> Vec<String> {
    let functions = source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
    let quoted = source.split('"').filter(|word| is_test(word));
    functions.chain(quoted).map(str::to_owned).collect()
}

fn is_test(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_-:0123456789".contains(&byte))
}

/// What the blocks of messages in the book of troubles quote: `…` stands for what differs from case to case.
pub(crate) fn every_message_that_is_quoted_is_in_the_code() {
    let code = sources().into_iter().filter(|file| file.contains("/src/"));
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
    files.extend(["README.md", "deploy/README.md", "CONTRIBUTING.md"].map(str::to_owned));
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
    let help = text("bins/thin_entrypoint/src/arguments.rs");
    let flags: Vec<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  --")?.split([' ', '=']).next()).collect();
    assert!(flags.len() > 20, "{flags:?}");
    for flag in flags {
        assert!(reference.contains(&format!("`--{flag}")), "--{flag} is not in docs/configuration.md");
    }
    let sources = [
        "bins/multus-daemon/src/options.rs",
        "bins/multus-shim/src/settings.rs",
        "bins/thin_entrypoint/src/thick.rs",
        "multus-core/src/config.rs",
        "multus-core/src/annotation.rs",
        "macvlan/src/config.rs",
        "host-local-ipam/src/config.rs",
    ];
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
    let mut count = 0;
    for source in sources {
        let code = text(source);
        let code = code.split("#[cfg(test)]").next().unwrap();
        for read in reads {
            for key in code.split(&format!("{read}\"")).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                count += 1;
                let ways = [format!("`{key}`"), format!(".{key}`"), format!("`{key}.")];
                let is_there = ways.iter().any(|way| reference.contains(way));
                assert!(
                    key.is_empty() || is_there,
                    "{source} reads {key:?}, which docs/configuration.md does not tell of"
                );
            }
        }
    }
    assert!(count > 60, "{count}");
}
