//! The inputs that fuzzing has found, and those that it began with.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, fs, panic::catch_unwind, path::PathBuf};

use properties::PROPERTIES;

#[test]
fn every_input_of_the_corpus_keeps_to_its_property() {
    let mut failures = Vec::new();
    for (name, property) in PROPERTIES {
        let mut inputs: Vec<PathBuf> =
            fs::read_dir(corpus().join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        assert!(inputs.len() > 2, "{name} has hardly an input");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            if catch_unwind(|| property(&data)).is_err() {
                failures.push(input);
            }
        }
    }
    assert!(failures.is_empty(), "see above for what is wrong with {failures:#?}");
}

#[test]
fn every_property_has_its_program_and_its_corpus() {
    let names: BTreeSet<String> = PROPERTIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = |directory: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(corpus()), names);
    assert_eq!(listed(corpus().with_file_name("fuzz_targets")), names);
    let manifest = fs::read_to_string(corpus().with_file_name("Cargo.toml")).unwrap();
    assert!(names.iter().all(|name| manifest.contains(&format!("name = \"{name}\""))));
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}
