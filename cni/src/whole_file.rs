//! Files that are there whole, or not at all.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{invocation::stable_hash, make_directory};

/// In bytes, on every file system that Linux has.
const LONGEST_NAME: usize = 255;

/// A file that is replaced in one step: whoever reads it at any moment finds the old content or the new, and a failure
/// leaves the old. Whoever may write the same file at the same time must take turns.
///
/// ```
/// use multus_cni::WholeFile;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("state.json");
/// let file = WholeFile::new(&path).with_mode(0o644);
/// assert_eq!(file.read()?, None);
/// file.replace(b"{}")?;
/// assert_eq!(file.read()?.as_deref(), Some(&b"{}"[..]));
/// assert!(file.remove()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WholeFile<'a> {
    path: &'a Path,
    mode: u32,
    directory_mode: Option<u32>,
    is_durable: bool,
    takes_turns: bool,
}

impl<'a> WholeFile<'a> {
    /// The file at `path`, for its owner only, in a directory that exists.
    #[must_use]
    pub fn new(path: &'a Path) -> Self {
        Self { path, mode: 0o600, directory_mode: None, is_durable: false, takes_turns: false }
    }

    /// With these permissions, whatever the process's umask.
    #[must_use]
    pub fn with_mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// In a directory that is made, with these permissions, where there is none.
    #[must_use]
    pub fn in_directory(self, mode: u32) -> Self {
        Self { directory_mode: Some(mode), ..self }
    }

    /// After a power cut the content is the old or the new one, too, and not empty: it is on the disk before its name is.
    #[must_use]
    pub fn durable(self) -> Self {
        Self { is_durable: true, ..self }
    }

    /// Writers of this directory take turns, also those of different processes and containers (flock(2) on the directory).
    #[must_use]
    pub fn in_turn(self) -> Self {
        Self { takes_turns: true, ..self }
    }

    /// The content; `None` when there is no such file, nor can be one.
    ///
    /// # Errors
    /// When it cannot be read, or is a pipe or device: that might never end.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let content = fs::metadata(self.path).and_then(|file| {
            if file.is_file() { fs::read(self.path) } else { Err(io::Error::other("it is not a regular file")) }
        });
        absent_is_none(content)
    }

    /// Makes the file hold `content`.
    ///
    /// # Errors
    /// When it cannot be written; then it is as it was.
    pub fn replace(&self, content: &[u8]) -> io::Result<()> {
        self.replace_with(|file| file.write_all(content))
    }

    /// Makes the file hold what `write` writes.
    ///
    /// # Errors
    /// As [`replace`](Self::replace), and those of `write`.
    pub fn replace_with(&self, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let (Some(directory), Some(temporary)) = (self.path.parent(), self.temporary()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if let Some(mode) = self.directory_mode {
            make_directory(directory, mode)?;
        }
        let turn = if self.takes_turns { Some(File::open(directory)?) } else { None };
        // A killed process lets go.
        turn.as_ref().map_or(Ok(()), File::lock)?;
        // What a killed process left may be read-only.
        absent_is_none(fs::remove_file(&temporary))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let written = write(&mut file)
            .and_then(|()| file.set_permissions(Permissions::from_mode(self.mode)))
            .and_then(|()| if self.is_durable { file.sync_all() } else { Ok(()) });
        drop(file);
        written.and_then(|()| fs::rename(&temporary, self.path)).inspect_err(|_| drop(fs::remove_file(&temporary)))
    }

    /// Removes the file, and what a killed [`replace`](Self::replace) may have left beside it. Returns whether it was there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> io::Result<bool> {
        let _harmless = self.temporary().map(fs::remove_file);
        Ok(absent_is_none(fs::remove_file(self.path))?.is_some())
    }

    /// Who lists the directory passes over names that begin with a dot, or that end so.
    fn temporary(&self) -> Option<PathBuf> {
        let whole = self.path.file_name()?;
        let mut name = OsString::from(".");
        if whole.len() + ".".len() + ".new".len() <= LONGEST_NAME {
            name.push(whole);
        } else {
            // There is no room beside it: what others are named, too, tells them apart.
            name.push(format!("{:016x}", stable_hash(whole.as_encoded_bytes())));
        }
        name.push(".new");
        Some(self.path.with_file_name(name))
    }
}

/// There is no file of a name that no file can have, either.
pub(crate) fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn who_reads_meanwhile_finds_the_old_content_or_the_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let (old, new) = ([b'a'; 100_000], [b'b'; 100_000]);
        WholeFile::new(&path).replace(&old).unwrap();
        thread::scope(|scope| {
            let writers = [&old, &new].map(|content| {
                let file = WholeFile::new(&path).in_turn();
                scope.spawn(move || (0..50).for_each(|_| file.replace(content).unwrap()))
            });
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                let found = WholeFile::new(&path).read().unwrap().unwrap();
                assert!(found == old || found == new);
            }
        });
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[test]
    fn a_failure_leaves_the_old_content_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = WholeFile::new(&path).durable().with_mode(0o444);
        file.replace(b"old").unwrap();
        let failed = file.replace_with(|half| half.write_all(b"ne").and(Err(io::Error::other("disk on fire"))));
        assert_eq!(failed.unwrap_err().to_string(), "disk on fire");
        assert_eq!(file.read().unwrap().unwrap(), b"old");
        assert_eq!(names(directory.path()), ["file"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    }

    #[test]
    fn what_a_killed_process_left_is_no_obstacle_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/file");
        let file = WholeFile::new(&path).in_directory(0o700);
        assert_eq!((file.read().unwrap(), file.remove().unwrap()), (None, false));
        file.replace(b"1").unwrap();
        let left = path.with_file_name(".file.new");
        fs::write(&left, "half").unwrap();
        file.replace(b"2").unwrap();
        assert!(!left.exists());
        fs::write(&left, "half").unwrap();
        assert!(file.remove().unwrap());
        assert_eq!(names(path.parent().unwrap()), [""; 0]);
    }

    #[test]
    fn the_longest_names_are_as_good_as_others() {
        let directory = tempfile::tempdir().unwrap();
        for length in 249..=255 {
            let [path, other] = ["a", "b"].map(|end| directory.path().join("x".repeat(length - 1) + end));
            WholeFile::new(&path).replace(b"1").unwrap();
            WholeFile::new(&other)
                .replace_with(|file| WholeFile::new(&path).replace(b"2").and(file.write_all(b"3")))
                .unwrap();
            let read = |path| WholeFile::new(path).read().unwrap().unwrap();
            assert_eq!((read(&path), read(&other)), (b"2".to_vec(), b"3".to_vec()), "{length}");
            assert!([&path, &other].iter().all(|path| WholeFile::new(path).remove().unwrap()));
            assert_eq!(names(directory.path()), [""; 0]);
        }
        let path = directory.path().join("x".repeat(256));
        assert_eq!(WholeFile::new(&path).replace(b"1").unwrap_err().kind(), io::ErrorKind::InvalidFilename);
        assert_eq!(names(directory.path()), [""; 0]);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        assert_eq!(WholeFile::new(Path::new("/dev/null")).read().unwrap_err().to_string(), "it is not a regular file");
        let long = "x".repeat(300);
        assert_eq!(WholeFile::new(Path::new(&long)).read().unwrap(), None);
    }
}
