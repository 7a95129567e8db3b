//! Locks between processes. They end with the process, however that ends, so there are no stale ones.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};

use crate::uninterrupted::{openat, uninterrupted};

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
        // Whatever has that name: neither a link to somewhere else nor a pipe is waited for or made anything of.
        let flags = access | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = File::from(openat(directory, "lock", flags, Mode::from_bits_truncate(0o750))?);
        let lock = Self(file);
        lock.acquire_again()?;
        Ok(lock)
    }

    /// Waits for the lock, after a [release](Self::release).
    pub(crate) fn acquire_again(&self) -> io::Result<()> {
        let errno = |error: io::Error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
        Ok(uninterrupted(|| fs2::FileExt::lock_exclusive(&self.0).map_err(errno))?)
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

impl Drop for NetworkLock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that another thread has just forked has it too, until it executes.
        let _closed = self.release();
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
}

impl std::fmt::Debug for AttachmentLock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AttachmentLock")
    }
}
