//! The repository's files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Where the file or directory `name` is.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Its content.
#[track_caller]
pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The documents of a file of YAML.
#[track_caller]
pub(crate) fn yaml(name: &str) -> Vec<Value> {
    let text = text(name);
    let parse = |part: &str| serde_saphyr::from_str(part).unwrap_or_else(|error| panic!("{name}: {error}"));
    text.split("\n---\n").map(parse).collect()
}

/// The files below `directory` whose names end so, as paths in the repository.
pub(crate) fn below(directory: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path(directory)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = format!("{directory}/{name}");
        if path(&name).is_dir() {
            found.extend(below(&name, endings));
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// The Rust files of all packages.
pub(crate) fn sources() -> Vec<String> {
    let entries = fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let packages =
        entries.filter(|name| name == "bins" || name == "tests" || path(&format!("{name}/Cargo.toml")).is_file());
    packages.flat_map(|name| below(&name, &[".rs"])).collect()
}
