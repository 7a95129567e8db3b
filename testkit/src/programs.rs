//! Programs of the workspace, for tests of other packages than theirs.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A program of the workspace: cargo puts it two directories above a test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(2).unwrap().join(name)
}

/// Cargo does not build the programs of other packages for a test, and leaves what an earlier build made of them.
///
/// # Errors
/// Which of these is not built, or not of the sources that are there, and how to build it.
pub fn are_current(programs: &[&str]) -> Result<(), String> {
    programs.iter().try_for_each(|name| is_current(&program(name)))
}

fn is_current(program: &Path) -> Result<(), String> {
    let remedy = "run `cargo build --workspace --bins` before";
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let built = modified(program).map_err(|error| format!("{}: {error}; {remedy}", program.display()))?;
    let listed = program.with_extension("d");
    let sources = fs::read_to_string(&listed).map_err(|error| format!("{}: {error}; {remedy}", listed.display()))?;
    let sources = sources.split_once(':').map_or("", |(_, sources)| sources);
    let newer = sources.split_whitespace().find(|source| modified(Path::new(source)).is_ok_and(|time| time > built));
    newer.map_or(Ok(()), |source| Err(format!("{source} is newer than {}; {remedy}", program.display())))
}
