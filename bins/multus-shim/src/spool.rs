//! The DELs that no daemon has seen yet, one file each, in order.
//!
//! `<directory>/<20 digits>.json`, mode 0600 in a directory 0700, each a [`Request`]. A file is there with its whole
//! content and on the disk, or not at all: a DEL that is lost is an address that is lost. Writers take turns by flock(2)
//! on `<directory>/lock`, which has the last number that was given; whoever reads needs no lock. No number is given twice:
//! who is late with removing a file would remove another's.
//!
//! The daemon works the spool off once it answers on its socket, and before it calls itself ready. A shim that has added a
//! request then asks for the daemon again: either that one finds the file, or this one finds the daemon.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use multus_cni::{WholeFile, must_be_guarded, os_error_text};
use nix::fcntl::OFlag;

use crate::Request;

/// Hundreds of times the sandboxes of a node: past it somebody else is at fault, and the disk is better kept.
const ENTRIES_LIMIT: usize = 10_000;
/// What the daemon reads into its memory; a request has a few kilobytes.
const REQUEST_LIMIT: u64 = 8 << 20;
const DIGITS: usize = 20;

/// A directory of requests.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
}

/// A request in the spool; they sort in the order of their coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry(u64);

/// What went wrong with a spool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// A file or directory that could not be used.
    #[error("{attempt} {}: {}", .path.display(), os_error_text(.source))]
    File {
        /// What was attempted: `cannot read`.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process did not finish writing.
    #[error("{} is still locked after {waited:?}: see who has it open (fuser -v)", .lock.display())]
    Busy {
        /// The lock.
        lock: PathBuf,
        /// For how long it was tried.
        waited: Duration,
    },
    /// No further requests are kept.
    #[error("{} has {ENTRIES_LIMIT} requests that no multus-daemon has read: see whether one runs on this node", .0.display())]
    Full(PathBuf),
    /// A file that holds no request; it was set aside, and does not come again.
    #[error("{problem}; set aside as {}", .aside.display())]
    Corrupt {
        /// Where the file is now.
        aside: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Spool {
    /// The spool in `directory`, which the first request makes.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Keeps `request`: when this returns, it is on the disk. One that is there already is not kept twice.
    ///
    /// # Errors
    /// When it could not be kept, or others did not finish within `patience`.
    pub fn add(&self, request: &Request, patience: Duration) -> Result<Entry, SpoolError> {
        self.must_be_guarded()?;
        self.make_directory()?;
        let mut lock = self.lock(patience)?;
        let content = request.print();
        let entries = self.entries()?;
        let entry = match entries.iter().find(|entry| self.holds(**entry, &content)) {
            Some(same) => *same,
            None => {
                let last = entries.last().map_or(0, |last| last.0).max(last_given(&mut lock));
                let next = last.checked_add(1).filter(|_| entries.len() < ENTRIES_LIMIT);
                let entry = Entry(next.ok_or_else(|| SpoolError::Full(self.directory.clone()))?);
                self.write(entry, &content)?;
                // As long as the file is there, it tells itself.
                let digits = format!("{:0DIGITS$}", entry.0);
                let _full_disk = lock.rewind().and_then(|()| lock.write_all(digits.as_bytes()));
                entry
            }
        };
        sync(&self.directory)?;
        Ok(entry)
    }

    /// What is there, in the order of its coming; nothing when there is no directory.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, SpoolError> {
        self.must_be_guarded()?;
        let names = fs::read_dir(&self.directory).and_then(|list| list.map(|file| Ok(file?.file_name())).collect());
        let names: Vec<_> = absent_is_none(names).map_err(failed("cannot read", &self.directory))?.unwrap_or_default();
        let mut entries: Vec<Entry> = names.iter().filter_map(|name| Entry::parse(name.to_str()?)).collect();
        entries.sort_unstable();
        Ok(entries)
    }

    /// Reads one; `None` when it is gone. One that holds no request is set aside, so that it does not stand in the way of
    /// the others.
    ///
    /// # Errors
    /// [`SpoolError::Corrupt`] when it was set aside, [`SpoolError::File`] when not even that could be done.
    pub fn read(&self, entry: Entry) -> Result<Option<Request>, SpoolError> {
        let path = self.path(entry);
        let file = absent_is_none(fs::symlink_metadata(&path)).map_err(failed("cannot read", &path))?;
        let problem = match file {
            None => return Ok(None),
            Some(file) if !file.is_file() => "it is not a regular file".to_owned(),
            Some(file) if file.len() > REQUEST_LIMIT => format!("it is longer than {REQUEST_LIMIT} bytes"),
            Some(_) => match absent_is_none(fs::read(&path)).map_err(failed("cannot read", &path))? {
                None => return Ok(None),
                Some(bytes) => match Request::parse(&bytes) {
                    Ok(request) => return Ok(Some(request)),
                    Err(malformed) => malformed.to_string(),
                },
            },
        };
        let aside = path.with_extension("corrupt");
        fs::rename(&path, &aside).map_err(failed("cannot set aside", &path))?;
        Err(SpoolError::Corrupt { aside, problem: format!("{}: {problem}", path.display()) })
    }

    /// Removes one that was worked off. That it is gone already is no failure.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, entry: Entry) -> Result<(), SpoolError> {
        let path = self.path(entry);
        absent_is_none(fs::remove_file(&path)).map(drop).map_err(failed("cannot remove", &path))
    }

    /// The daemon does what is in it, as root.
    fn must_be_guarded(&self) -> Result<(), SpoolError> {
        must_be_guarded(&self.directory).map_err(failed("cannot use", &self.directory))
    }

    fn make_directory(&self) -> Result<(), SpoolError> {
        if self.directory.is_dir() {
            return Ok(());
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(failed("cannot create", &self.directory))?;
        self.directory.parent().map_or(Ok(()), sync)
    }

    fn lock(&self, patience: Duration) -> Result<File, SpoolError> {
        let path = self.directory.join("lock");
        let mut options = OpenOptions::new();
        // The last number is written there: not to where a link leads, and not to a pipe.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let lock = options.open(&path).map_err(failed("cannot open", &path))?;
        let deadline = Instant::now() + patience;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::Error(error)) => return Err(failed("cannot lock", &path)(error)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => return Err(SpoolError::Busy { lock: path, waited: patience }),
            }
        }
    }

    fn holds(&self, entry: Entry, content: &[u8]) -> bool {
        let path = self.path(entry);
        let length = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file).map(|file| file.len());
        length == u64::try_from(content.len()).ok() && fs::read(&path).is_ok_and(|bytes| bytes == content)
    }

    /// A killed writer leaves a file that the next one replaces, since its entry is the next one's.
    fn write(&self, entry: Entry, content: &[u8]) -> Result<(), SpoolError> {
        let path = self.path(entry);
        WholeFile::new(&path).durable().replace(content).map_err(failed("cannot write", &path))
    }

    fn path(&self, entry: Entry) -> PathBuf {
        self.directory.join(format!("{:0DIGITS$}.json", entry.0))
    }
}

impl Entry {
    fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".json")?;
        let well_formed = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|_| well_formed).map(Self)
    }
}

/// What is no number is that of a shim that kept none.
fn last_given(lock: &mut File) -> u64 {
    let mut digits = String::new();
    let read = lock.take(64).read_to_string(&mut digits);
    read.ok().and_then(|_| digits.parse().ok()).unwrap_or_default()
}

fn sync(directory: &Path) -> Result<(), SpoolError> {
    File::open(directory).and_then(|open| open.sync_all()).map_err(failed("cannot sync", directory))
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    move |source| SpoolError::File { attempt, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn spool() -> (TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(directory.path().join("multus/spool"));
        (directory, spool)
    }

    fn request(container_id: &str) -> Request {
        let environment = [("CNI_CONTAINERID".to_owned(), container_id.to_owned())];
        Request { environment: environment.into(), config: b"{}".to_vec() }
    }

    #[test]
    fn requests_come_back_in_order_and_leave_when_removed() {
        let (_directory, spool) = spool();
        assert_eq!(spool.entries().unwrap(), []);
        let entries: Vec<Entry> =
            (0..12).map(|number| spool.add(&request(&format!("c{number}")), PATIENCE).unwrap()).collect();
        assert_eq!(spool.entries().unwrap(), entries);
        for (number, entry) in entries.iter().enumerate() {
            assert_eq!(spool.read(*entry).unwrap(), Some(request(&format!("c{number}"))));
            spool.remove(*entry).unwrap();
            spool.remove(*entry).unwrap();
            assert_eq!(spool.read(*entry).unwrap(), None);
        }
        assert_eq!(spool.entries().unwrap(), []);
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let (_directory, spool) = spool();
        // A daemon works on it, and meanwhile its shim has found the daemon and takes it out.
        let worked_on = spool.add(&request("c1"), PATIENCE).unwrap();
        spool.remove(worked_on).unwrap();
        let other = spool.add(&request("c2"), PATIENCE).unwrap();
        spool.remove(worked_on).unwrap();
        assert_eq!(spool.read(other).unwrap(), Some(request("c2")));
    }

    #[test]
    fn nobody_else_can_read_it() {
        let (directory, spool) = spool();
        let entry = spool.add(&request("c1"), PATIENCE).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.path().join("multus/spool")), 0o700);
        assert_eq!(mode(&spool.path(entry)), 0o600);
    }

    #[test]
    fn what_links_lead_to_is_neither_read_nor_written() {
        let (directory, spool) = spool();
        let entry = spool.add(&request("c1"), PATIENCE).unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, request("c9").print()).unwrap();
        for name in ["lock", "00000000000000000002.json", ".00000000000000000002.json.new"] {
            let planted = spool.directory.join(name);
            let _absent = fs::remove_file(&planted);
            std::os::unix::fs::symlink(&victim, &planted).unwrap();
            let _refused_or_added = spool.add(&request("c2"), PATIENCE);
            for entry in spool.entries().unwrap() {
                assert!(
                    !spool.read(entry).is_ok_and(|request| request.is_some_and(|kept| kept == self::request("c9")))
                );
            }
            assert_eq!(fs::read(&victim).unwrap(), request("c9").print(), "{name}");
            let _removed = fs::remove_file(&planted);
        }
        assert_eq!(spool.read(entry).unwrap(), Some(request("c1")));
    }

    #[test]
    fn one_that_everybody_may_write_to_is_not_used() {
        let (_directory, spool) = spool();
        spool.add(&request("c1"), PATIENCE).unwrap();
        fs::set_permissions(&spool.directory, fs::Permissions::from_mode(0o777)).unwrap();
        for error in [spool.add(&request("c2"), PATIENCE).unwrap_err(), spool.entries().unwrap_err()] {
            let error = error.to_string();
            assert!(error.starts_with("cannot use ") && error.contains("run: chmod o-w "), "{error}");
        }
    }

    #[test]
    fn the_same_request_is_kept_once() {
        let (_directory, spool) = spool();
        let first = spool.add(&request("c1"), PATIENCE).unwrap();
        let other = spool.add(&request("c2"), PATIENCE).unwrap();
        assert_eq!(spool.add(&request("c1"), PATIENCE).unwrap(), first);
        assert_eq!(spool.entries().unwrap(), [first, other]);
    }

    #[test]
    fn a_corrupt_file_is_set_aside_with_the_reason_and_the_rest_is_read() {
        let (_directory, spool) = spool();
        let entries: Vec<Entry> =
            (0..5).map(|number| spool.add(&request(&format!("c{number}")), PATIENCE).unwrap()).collect();
        fs::write(spool.path(entries[0]), "").unwrap();
        fs::write(spool.path(entries[1]), "{\"env\":{},").unwrap();
        fs::remove_file(spool.path(entries[2])).unwrap();
        fs::create_dir(spool.path(entries[2])).unwrap();
        File::create(spool.path(entries[3])).unwrap().set_len(REQUEST_LIMIT + 1).unwrap();
        let problems = ["line 1, column 0", "line 1, column 10", "not a regular file", "longer than 8388608 bytes"];
        for (entry, problem) in entries.iter().zip(problems) {
            let error = spool.read(*entry).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
            let SpoolError::Corrupt { aside, .. } = error else { panic!("{error}") };
            assert!(aside.exists());
        }
        assert_eq!(spool.entries().unwrap(), [entries[4]]);
        assert_eq!(spool.read(entries[4]).unwrap(), Some(request("c4")));
    }

    #[test]
    fn files_of_other_names_are_nobodys() {
        let (_directory, spool) = spool();
        let entry = spool.add(&request("c1"), PATIENCE).unwrap();
        for name in ["1.json", "+0000000000000000002.json", "99999999999999999999.json", ".new", "0.corrupt"] {
            fs::write(spool.directory.join(name), "half a requ").unwrap();
        }
        assert_eq!(spool.entries().unwrap(), [entry]);
        assert!(spool.add(&request("c2"), PATIENCE).unwrap() > entry);
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (_directory, spool) = spool();
        spool.make_directory().unwrap();
        for number in 1..=10_000 {
            fs::write(spool.path(Entry(number)), "").unwrap();
        }
        let error = spool.add(&request("c1"), PATIENCE).unwrap_err();
        assert!(error.to_string().contains("has 10000 requests that no multus-daemon has read"), "{error}");
        spool.remove(Entry(5)).unwrap();
        assert_eq!(spool.add(&request("c1"), PATIENCE).unwrap(), Entry(10_001));
        fs::rename(spool.path(Entry(10_001)), spool.path(Entry(u64::MAX))).unwrap();
        assert!(matches!(spool.add(&request("c2"), PATIENCE), Err(SpoolError::Full(_))), "nothing is replaced");
    }

    #[test]
    fn whoever_holds_the_lock_for_ever_is_not_waited_for_for_ever() {
        let (_directory, spool) = spool();
        spool.make_directory().unwrap();
        let _held = spool.lock(PATIENCE).unwrap();
        let error = spool.add(&request("c1"), Duration::from_millis(20)).unwrap_err();
        assert!(
            error.to_string().ends_with("lock is still locked after 20ms: see who has it open (fuser -v)"),
            "{error}"
        );
    }

    #[test]
    fn many_writers_at_once_lose_nothing() {
        let (_directory, spool) = spool();
        let add = |number: usize| spool.add(&request(&format!("c{number}")), PATIENCE).unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                scope.spawn(move || {
                    for number in 0..10 {
                        add(writer * 10 + number);
                    }
                });
            }
        });
        let entries = spool.entries().unwrap();
        let mut containers: Vec<String> = entries
            .iter()
            .map(|entry| spool.read(*entry).unwrap().unwrap().environment["CNI_CONTAINERID"].clone())
            .collect();
        containers.sort();
        containers.dedup();
        assert_eq!((entries.len(), containers.len()), (40, 40));
    }
}
