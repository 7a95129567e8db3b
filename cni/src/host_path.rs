//! The host's paths, for a process that sees the host's root in a directory of its own.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs,
    path::{Component, Path, PathBuf},
};

/// As many as the kernel follows, path_resolution(7).
const LINKS: usize = 40;

/// Where the host's absolute `path` is under `root`. Symbolic links are followed as on the host: one to `/run` leads to the
/// `run` under `root`, and `..` does not lead out of it. What does not exist is taken as it is written.
pub(crate) fn resolve(root: &Path, path: &Path) -> PathBuf {
    let mut pending: VecDeque<OsString> = words(path).collect();
    let mut found = PathBuf::new();
    let mut links = 0;
    while let Some(word) = pending.pop_front() {
        if word == ".." {
            found.pop();
            continue;
        }
        let candidate = found.join(&word);
        match fs::read_link(root.join(&candidate)) {
            Ok(target) if links < LINKS && !is_magic(&target) => {
                links += 1;
                if target.is_absolute() {
                    found = PathBuf::new();
                }
                words(&target).rev().for_each(|word| pending.push_front(word));
            }
            _ => found = candidate,
        }
    }
    root.join(found)
}

fn words(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(word) => Some(word.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Such as `net:[4026531840]` in /proc, which leads to what no path names.
fn is_magic(target: &Path) -> bool {
    target.to_str().is_some_and(|text| text.ends_with(']') && text.contains(":["))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_as_on_the_host() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir_all(path("run/netns")).unwrap();
        fs::create_dir_all(path("var/lib")).unwrap();
        fs::write(path("run/netns/x"), "").unwrap();
        for (target, link) in [
            ("/run", "var/run"),
            ("../run", "var/relative"),
            ("../../../../run", "var/out"),
            ("/var/run/netns", "netns"),
            ("loop", "loop"),
            ("net:[1]", "run/netns/magic"),
        ] {
            symlink(target, path(link)).unwrap();
        }
        for (asked, found) in [
            ("/run/netns/x", "run/netns/x"),
            ("/var/run/netns/x", "run/netns/x"),
            ("/var/relative/netns/x", "run/netns/x"),
            ("/var/out/netns/x", "run/netns/x"),
            ("/netns/x", "run/netns/x"),
            ("/var/run/netns/new", "run/netns/new"),
            ("/../../var/lib/../run/./netns/x", "run/netns/x"),
            ("/run/netns/magic", "run/netns/magic"),
            ("/loop/x", "loop/x"),
            ("/nowhere/../x", "x"),
        ] {
            assert_eq!(resolve(root.path(), Path::new(asked)), path(found), "{asked}");
        }
    }
}
