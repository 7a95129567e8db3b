//! The root of a program that is started.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::Path,
    process::Command,
};

use nix::unistd::{chdir, chroot};

/// Has `command` run with `root` as its root and working directory.
///
/// # Errors
/// When `root` has a NUL byte.
#[allow(unsafe_code, reason = "std has no stable way to change a child's root, and this process must keep its own")]
pub(super) fn change_root(command: &mut Command, root: &Path) -> io::Result<()> {
    let root = CString::new(root.as_os_str().as_bytes())?;
    let enter = move || {
        chroot(root.as_c_str())?;
        // Or the working directory would be outside.
        chdir(c"/")?;
        Ok(())
    };
    // SAFETY: between fork and exec only functions that are async-signal-safe may be called, and no memory be taken. These
    // are two system calls on strings that exist already.
    unsafe { command.pre_exec(enter) };
    Ok(())
}
