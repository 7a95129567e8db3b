//! The lock that every process working on a network's directory takes: flock(2) on the file `lock`, as the Go plugin
//! does. The only place that names fs2, whose methods std has come to shadow.

use std::{fs::File, io, path::Path};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

/// Held until dropped. It ends with the process, however that ends, so there is no stale lock.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "open for the lock's sake")] File);

impl Lock {
    /// Waits for the lock, without limit.
    pub(crate) fn acquire(path: &Path) -> io::Result<Self> {
        // Read-only and 0750, since the Go plugin makes it so; std refuses to create what it cannot write.
        match Self::acquire_as(path, OFlag::O_RDONLY) {
            // NFS emulates the lock, and wants to be able to write for it.
            Err(error) if error.raw_os_error().map(Errno::from_raw) == Some(Errno::EBADF) => {
                Self::acquire_as(path, OFlag::O_RDWR)
            }
            result => result,
        }
    }

    fn acquire_as(path: &Path, access: OFlag) -> io::Result<Self> {
        let flags = access | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        let file = File::from(open(path, flags, Mode::from_bits_truncate(0o750))?);
        loop {
            match fs2::FileExt::lock_exclusive(&file) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|()| Self(file)),
            }
        }
    }
}
