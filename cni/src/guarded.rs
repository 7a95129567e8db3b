//! Directories that only those may write to who are trusted with what is in them.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// Who the kernel names for users that this user namespace, or the server of a file system, does not tell apart: mostly root.
const NOBODY: u32 = 65534;
const OTHERS_MAY_WRITE: u32 = 0o002;
/// In such a directory, only its owner and that of a file removes the file.
const STICKY: u32 = 0o1000;

/// Why a directory is not trusted.
#[derive(Debug, thiserror::Error)]
enum Unguarded {
    #[error("every user may write to it (mode {mode:04o}), and so decide what root does; run: chmod o-w {}", .path.display())]
    Writable { path: PathBuf, mode: u32 },
    #[error(
        "it belongs to user {owner}, who decides what is in it, and must belong to root{}; run: chown root {}",
        if *own == 0 { String::new() } else { format!(" or to user {own}") }, .path.display()
    )]
    Foreign { path: PathBuf, owner: u32, own: u32 },
}

/// Fails where others than root and the user of this process decide what is in the directory `path`: where it belongs to
/// another user, or every user may write to it. A group may, since somebody has chosen it. One that is not there is fine.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`], with words that say what to do; when the directory cannot be looked at.
pub fn must_be_guarded(path: &Path) -> io::Result<()> {
    check(path, OTHERS_MAY_WRITE, OTHERS_MAY_WRITE)
}

/// As [`must_be_guarded`], for a directory of which only the sub-directories matter, each of which is looked at itself: it may
/// be like `/tmp`, where everybody may add something and nobody replace what is another's.
///
/// # Errors
/// As [`must_be_guarded`].
pub fn must_be_guarded_or_sticky(path: &Path) -> io::Result<()> {
    check(path, OTHERS_MAY_WRITE | STICKY, OTHERS_MAY_WRITE)
}

fn check(path: &Path, bits: u32, refused: u32) -> io::Result<()> {
    let found = match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => return Ok(()),
        other => other?,
    };
    if !found.is_dir() {
        // Whoever opens it fails, and tells why.
        return Ok(());
    }
    let (owner, own) = (found.uid(), geteuid().as_raw());
    let path = || path.to_owned();
    let problem = if found.mode() & bits == refused {
        Unguarded::Writable { path: path(), mode: found.mode() & 0o7777 }
    } else if ![0, own, NOBODY].contains(&owner) {
        Unguarded::Foreign { path: path(), owner, own }
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt, chown},
    };

    use super::*;

    #[test]
    fn who_may_write_decides_whether_a_directory_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("networks");
        assert!(must_be_guarded(&path).is_ok() && must_be_guarded(&path.join("x".repeat(300))).is_ok());
        fs::create_dir(&path).unwrap();
        for (mode, is_guarded, is_sticky) in [
            (0o700, true, true),
            // As the Go plugins make it.
            (0o755, true, true),
            (0o775, true, true),
            (0o2775, true, true),
            (0o1777, false, true),
            (0o777, false, false),
            (0o703, false, false),
        ] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(must_be_guarded(&path).is_ok(), is_guarded, "{mode:o}");
            assert_eq!(must_be_guarded_or_sticky(&path).is_ok(), is_sticky, "{mode:o}");
        }
        let error = must_be_guarded(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let path = path.display();
        assert_eq!(
            error.to_string(),
            format!("every user may write to it (mode 0703), and so decide what root does; run: chmod o-w {path}")
        );
    }

    #[test]
    fn an_owner_is_root_or_oneself_or_nobody_knows_who() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(must_be_guarded(path).is_ok());
        if !geteuid().is_root() {
            // Of root, and readable for all.
            return must_be_guarded(Path::new("/usr")).unwrap();
        }
        chown(path, Some(NOBODY), None).unwrap();
        assert!(must_be_guarded(path).is_ok());
        chown(path, Some(4711), None).unwrap();
        for refused in [must_be_guarded(path), must_be_guarded_or_sticky(path)] {
            let text = refused.unwrap_err().to_string();
            let remedy = format!("must belong to root; run: chown root {}", path.display());
            assert_eq!(text, format!("it belongs to user 4711, who decides what is in it, and {remedy}"));
        }
        chown(path, Some(0), None).unwrap();
    }
}
