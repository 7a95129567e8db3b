//! Turns between processes that work on the same thing.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, open},
    libc,
    sys::stat::Mode,
};

/// One byte of a file, locked until this is dropped, or its process ends in whatever way: a lock of the open file
/// description (fcntl(2)). Many things share one file, each with a byte whose place is a hash of its name.
#[derive(Debug)]
#[must_use = "dropping this ends the lock"]
pub struct ByteLock {
    file: OwnedFd,
    hash: u64,
}

impl ByteLock {
    /// Waits for the byte, without limit. The file is made when there is none.
    ///
    /// # Errors
    /// When the file cannot be opened, or its file system has no locks.
    pub fn acquire(file: &Path, hash: u64) -> io::Result<Self> {
        let file = opened(file, OFlag::O_CREAT)?;
        uninterrupted(|| fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&byte(libc::F_WRLCK, hash))))?;
        Ok(Self { file, hash })
    }

    /// The byte, unless somebody has it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and when there is no such file: then nobody has it.
    pub fn try_acquire(file: &Path, hash: u64) -> io::Result<Option<Self>> {
        let file = opened(file, OFlag::empty())?;
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_WRLCK, hash))) {
            Ok(_) => Ok(Some(Self { file, hash })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for ByteLock {
    fn drop(&mut self) {
        // To close the file is not enough: a process that another thread has just forked has it too, until it executes.
        let _closed = fcntl(self.file.as_fd(), FcntlArg::F_OFD_SETLK(&byte(libc::F_UNLCK, self.hash)));
    }
}

fn opened(file: &Path, create: OFlag) -> io::Result<OwnedFd> {
    // A link would have the file be made, and locked, somewhere else.
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | create;
    Ok(uninterrupted(|| open(file, flags, Mode::from_bits_truncate(0o600)))?)
}

/// Calls that may wait are made again when a signal's handler has interrupted them, as std does.
fn uninterrupted<T>(call: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

fn byte(kind: libc::c_int, hash: u64) -> libc::flock {
    libc::flock {
        l_type: libc::c_short::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        // Half of all hashes are too large for an offset.
        l_start: i64::try_from(hash >> 1).unwrap_or_default(),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_also_for_those_who_inherited_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("locks");
        let held = ByteLock::acquire(&file, 7).unwrap();
        // As a child has it between fork and exec.
        let inherited = held.file.try_clone().unwrap();
        drop(held);
        assert!(ByteLock::try_acquire(&file, 7).unwrap().is_some());
        drop(inherited);
    }

    #[test]
    fn a_byte_is_locked_for_one_at_a_time_and_its_neighbours_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("locks");
        assert_eq!(ByteLock::try_acquire(&file, 7).unwrap_err().kind(), io::ErrorKind::NotFound);
        let held = ByteLock::acquire(&file, u64::MAX).unwrap();
        assert!(ByteLock::try_acquire(&file, u64::MAX).unwrap().is_none());
        assert!(ByteLock::try_acquire(&file, 7).unwrap().is_some());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ByteLock::acquire(&file, u64::MAX).map(drop));
            drop(held);
            waiting.join().unwrap().unwrap();
        });
        assert!(ByteLock::try_acquire(&file, u64::MAX).unwrap().is_some());
    }
}
