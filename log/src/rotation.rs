//! What becomes of a file that is full.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use flate2::{Compression, write::GzEncoder};

use crate::{file, timestamp::Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const COMPRESSED: &str = "gz";

/// How large a log file becomes, and which of its predecessors are kept. Those are beside it, with their time in the name:
/// `multus-2026-02-03T04-05-06.789.log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// In bytes; a single line may be larger.
    pub max_size: u64,
    /// How many old files are kept; 0 keeps all.
    pub max_backups: usize,
    /// How many days old files are kept; 0 keeps them for ever.
    pub max_age: u32,
    /// Whether old files are compressed, to `….log.gz`.
    pub compress: bool,
}

impl Rotation {
    /// As `logOptions` say: megabytes, of which 0 are 100; a number of files; days. Negative ones count as 0.
    #[must_use]
    pub fn from_options(max_size: i64, max_backups: i64, max_age: i64, compress: bool) -> Self {
        let megabytes = u64::try_from(max_size).ok().filter(|megabytes| *megabytes > 0).unwrap_or(100);
        Self {
            max_size: megabytes.saturating_mul(1 << 20),
            max_backups: usize::try_from(max_backups).unwrap_or_default(),
            max_age: u32::try_from(max_age.max(0)).unwrap_or_default(),
            compress,
        }
    }

    /// Puts `open`, which is the file at `path`, aside if it has no room for `length` more bytes. Returns the file to write
    /// to instead.
    pub(crate) fn make_room(
        &self,
        path: &Path,
        open: &File,
        length: usize,
        time: SystemTime,
    ) -> io::Result<Option<File>> {
        let size = open.metadata()?.size();
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if size == 0 || size.saturating_add(length) <= self.max_size {
            return Ok(None);
        }
        // One process puts it aside; the others find another file in its place. Nobody waits: a line too many does no harm.
        let is_ours = open.try_lock().is_ok();
        let aside = aside(path, time);
        if is_ours && is_same(path, open)? && !aside.try_exists()? {
            fs::rename(path, aside)?;
            let (rotation, path) = (self.clone(), path.to_owned());
            // Compression takes seconds. What a program does not get done in its life, the next rotation does.
            let clean = move || drop(rotation.clean(&path, time));
            let _next_time = thread::Builder::new().name("log rotation".to_owned()).spawn(clean);
        }
        if is_ours { file::open(path).map(Some) } else { Ok(None) }
    }

    /// Deletes old files that are not to be kept, and compresses those that are.
    fn clean(&self, path: &Path, now: SystemTime) -> io::Result<()> {
        let kept_since = match self.max_age {
            0 => String::new(),
            days => now.checked_sub(DAY * days).map(|time| Timestamp::from(time).in_file_name()).unwrap_or_default(),
        };
        let mut old = old_files(path)?;
        // The newest first.
        old.sort_by(|one, other| other.time.cmp(&one.time));
        let mut kept = 0;
        let mut newest = None;
        for file in old {
            // Of one that is being compressed there are two.
            kept += usize::from(newest.as_ref() != Some(&file.time));
            newest = Some(file.time.clone());
            if (self.max_backups > 0 && kept > self.max_backups) || file.time < kept_since {
                fs::remove_file(&file.path)?;
            } else if self.compress && !file.is_compressed {
                compress(&file.path)?;
            }
        }
        Ok(())
    }
}

/// A file that was put aside.
struct OldFile {
    path: PathBuf,
    time: String,
    is_compressed: bool,
}

fn old_files(path: &Path) -> io::Result<Vec<OldFile>> {
    let (stem, ending) = parts(path);
    let of_entry = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let uncompressed = name.strip_suffix(&format!(".{COMPRESSED}"));
        let time = uncompressed.unwrap_or(&name).strip_prefix(&format!("{stem}-"))?.strip_suffix(&ending)?.to_owned();
        let is_time = time.len() == "2026-02-03T04-05-06.789".len()
            && time.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'T' | b'.'));
        is_time.then(|| OldFile { path: entry.path(), time, is_compressed: uncompressed.is_some() })
    };
    let entries = fs::read_dir(directory(path))?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().filter_map(of_entry).collect())
}

fn compress(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{COMPRESSED}"));
    let write = || {
        let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut encoder = GzEncoder::new(target, Compression::default());
        io::copy(&mut File::open(path)?, &mut encoder)?;
        encoder.finish()?.sync_all()?;
        fs::rename(&temporary, path.with_file_name(format!("{name}.{COMPRESSED}")))?;
        fs::remove_file(path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

fn aside(path: &Path, time: SystemTime) -> PathBuf {
    let (stem, ending) = parts(path);
    path.with_file_name(format!("{stem}-{}{ending}", Timestamp::from(time).in_file_name()))
}

/// The file's name before and from its last dot on.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy())).unwrap_or_default();
    (text(path.file_stem()), ending)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Somebody else may have put it aside, or removed it.
fn is_same(path: &Path, open: &File) -> io::Result<bool> {
    let named = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let open = open.metadata()?;
    Ok((named.dev(), named.ino()) == (open.dev(), open.ino()))
}
