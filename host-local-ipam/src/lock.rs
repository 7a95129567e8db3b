//! Locks between processes. They end with the process, however that ends, so there are no stale ones.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open, openat},
    libc,
    sys::stat::Mode,
};

/// The lock that every process working on a network's directory takes: flock(2) on the file `lock`, as the Go plugin
/// does. The only place that names fs2, whose methods std has come to shadow.
#[derive(Debug)]
pub(crate) struct NetworkLock(File);

impl NetworkLock {
    /// Waits for the lock of the network in `directory`, without limit.
    pub(crate) fn acquire(directory: impl AsFd + Copy) -> io::Result<Self> {
        // Read-only and 0750, since the Go plugin makes it so; std refuses to create what it cannot write.
        match Self::acquire_as(directory, OFlag::O_RDONLY) {
            // NFS emulates the lock, and wants to be able to write for it.
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::EBADF) => {
                Self::acquire_as(directory, OFlag::O_RDWR)
            }
            result => result,
        }
    }

    fn acquire_as(directory: impl AsFd, access: OFlag) -> io::Result<Self> {
        let flags = access | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        let file = File::from(openat(directory, "lock", flags, Mode::from_bits_truncate(0o750))?);
        let lock = Self(file);
        lock.acquire_again()?;
        Ok(lock)
    }

    /// Waits for the lock, after a [release](Self::release).
    pub(crate) fn acquire_again(&self) -> io::Result<()> {
        uninterrupted(|| fs2::FileExt::lock_exclusive(&self.0))
    }

    /// Whether its file is the one that others find by its name.
    pub(crate) fn is_linked(&self) -> bool {
        self.0.metadata().is_ok_and(|file| file.nlink() > 0)
    }

    /// Ends the lock, and keeps its file open.
    pub(crate) fn release(&self) -> io::Result<()> {
        fs2::FileExt::unlock(&self.0)
    }
}

/// Whoever works on an attachment holds it off others: for an ADD, from before it reserves until its result is kept or
/// undone.
#[must_use = "dropping this ends the lock"]
pub struct AttachmentLock(#[allow(dead_code, reason = "held for its drop")] Box<dyn Send>);

impl AttachmentLock {
    /// Ends when `held` is dropped.
    pub fn new(held: impl Send + 'static) -> Self {
        Self(Box::new(held))
    }

    /// Waits, without limit, for the byte of `file` that `place` tells: a lock of the open file description (fcntl(2)).
    pub(crate) fn acquire(file: &Path, place: u64) -> io::Result<Self> {
        let file = open_for_locking(file, OFlag::O_CREAT)?;
        uninterrupted(|| Ok(fcntl(&file, FcntlArg::F_OFD_SETLKW(&byte(place))).map(drop)?))?;
        Ok(Self::new(file))
    }

    /// The lock, unless somebody has it.
    pub(crate) fn try_acquire(file: &Path, place: u64) -> io::Result<Option<Self>> {
        let file = open_for_locking(file, OFlag::empty())?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&byte(place))) {
            Ok(_) => Ok(Some(Self::new(file))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl std::fmt::Debug for AttachmentLock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AttachmentLock")
    }
}

fn open_for_locking(file: &Path, create: OFlag) -> io::Result<OwnedFd> {
    Ok(open(file, OFlag::O_RDWR | OFlag::O_CLOEXEC | create, Mode::from_bits_truncate(0o600))?)
}

fn byte(place: u64) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0,
        // Half of all hashes are too large for an offset.
        l_start: i64::try_from(place >> 1).unwrap_or_default(),
        l_len: 1,
        l_pid: 0,
    }
}

fn uninterrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
