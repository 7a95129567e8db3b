//! Directories that are made when they are needed.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Makes a directory with these permissions, and those above it that are missing; one that is there is left as it is.
///
/// # Errors
/// The system's. Where nobody can see what is there already, it is why, and not, as std has it, that something is.
pub fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    let Err(error) = DirBuilder::new().recursive(true).mode(mode).create(path) else {
        return Ok(());
    };
    if error.kind() != io::ErrorKind::AlreadyExists {
        return Err(error);
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Err(unseen) if unseen.kind() != io::ErrorKind::NotFound => Err(unseen),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_no_directory_is_in_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        make_directory(&path, 0o700).unwrap();
        make_directory(&path, 0o755).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "").unwrap();
        symlink("nowhere", path.join("link")).unwrap();
        for name in ["file", "link"] {
            let error = make_directory(&path.join(name), 0o700).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
    }
}
