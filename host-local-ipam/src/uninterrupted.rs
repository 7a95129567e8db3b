//! System calls that may wait: made again when a signal's handler has interrupted them, as std does.

use std::os::fd::{AsFd, OwnedFd};

use nix::{
    NixPath,
    errno::Errno,
    fcntl::{self, OFlag},
    sys::stat::Mode,
    unistd,
};

pub(crate) fn uninterrupted<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

pub(crate) fn open<P: NixPath + ?Sized>(path: &P, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    uninterrupted(|| fcntl::open(path, flags, mode))
}

pub(crate) fn openat<P: NixPath + ?Sized>(
    directory: impl AsFd,
    path: &P,
    flags: OFlag,
    mode: Mode,
) -> nix::Result<OwnedFd> {
    uninterrupted(|| fcntl::openat(&directory, path, flags, mode))
}

pub(crate) fn fsync(file: impl AsFd) -> nix::Result<()> {
    uninterrupted(|| unistd::fsync(&file))
}
