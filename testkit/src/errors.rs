//! The errors that the kernel can give instead of what a system call does.

use std::path::Path;

use nix::errno::Errno;

use crate::SystemCall;

/// Those that have nothing to tell but errors that no kernel gives for them are left out; so is close(2), which closes
/// whatever it answers: instead of it, the file would stay open.
pub(crate) fn errors_of(call: &SystemCall) -> &'static [Errno] {
    use Errno::*;
    let has = |text: &str| call.text.contains(text);
    match call.name {
        "openat" if has("O_CREAT") || has("O_TMPFILE") => &[EINTR, ENOSPC, EIO, EACCES, EROFS, EMFILE, ENFILE, ENOMEM],
        // So the C library opens directories, and does not try again; nor is there a signal with a handler.
        "openat" if has("O_NONBLOCK|O_CLOEXEC|O_DIRECTORY") => &[EIO, EACCES, EMFILE, ENFILE, ENOMEM],
        "openat" if has("O_RDWR") || has("O_WRONLY") => &[EINTR, EIO, EACCES, EROFS, EMFILE, ENFILE, ENOMEM],
        "openat" => &[EINTR, EIO, EACCES, EMFILE, ENFILE, ENOMEM],
        // What wakes other threads.
        "read" | "write" if has("<anon_inode:") => &[],
        "read" if has("<pipe:") => &[EINTR],
        "read" | "pread64" => &[EINTR, EIO],
        "write" | "pwrite64" => &[EINTR, ENOSPC, EIO, EDQUOT],
        "fsync" | "fdatasync" => &[EINTR, EIO, ENOSPC],
        "flock" => &[EINTR, ENOLCK],
        "fcntl" if has("F_OFD_SETLKW") => &[EINTR, ENOLCK],
        "fcntl" if has("F_OFD_SETLK, F_UNLCK") => &[],
        "fcntl" if has("F_OFD_SETLK") => &[ENOLCK],
        "fcntl" if has("F_DUPFD") => &[EMFILE],
        "statx" | "newfstatat" | "statfs" => &[EACCES, EIO, ENOMEM],
        "fstatfs" | "getdents64" => &[EIO, ENOMEM],
        "mkdir" | "rename" | "renameat" | "renameat2" | "link" | "linkat" | "symlink" => {
            &[ENOSPC, EIO, EACCES, EROFS, ENOMEM]
        }
        "unlink" | "unlinkat" | "rmdir" | "ftruncate" | "utimensat" | "fchmod" | "chmod" => &[EIO, EACCES, EROFS],
        "fsetxattr" => &[ENOSPC, EIO, EACCES, EOPNOTSUPP],
        "lsetxattr" | "setxattr" => &[ENOSPC, EIO, EACCES, EROFS, EOPNOTSUPP],
        "fgetxattr" | "lgetxattr" | "getxattr" => &[EIO, EACCES, EOPNOTSUPP],
        "socket" => &[EMFILE, ENFILE, ENOBUFS, ENOMEM, EACCES],
        "bind" | "connect" => &[ENOMEM, EPERM],
        "setsockopt" => &[ENOMEM, ENOPROTOOPT],
        "sendto" | "sendmsg" => &[ENOBUFS, ENOMEM, ECONNREFUSED],
        // Nobody waits there for what may not have come.
        "recvfrom" | "recvmsg" if has("MSG_DONTWAIT") => &[ENOBUFS],
        "recvfrom" | "recvmsg" => &[EINTR, ENOBUFS, ENOMEM],
        "setns" => &[EPERM, ENOMEM],
        "pipe2" => &[EMFILE, ENFILE],
        // What the C library makes of any of a thread.
        "clone" | "clone3" if has("CLONE_THREAD") => &[EAGAIN],
        "clone" | "clone3" | "vfork" => &[EAGAIN, ENOMEM],
        "poll" | "wait4" | "waitid" => &[EINTR],
        _ => &[],
    }
}

/// What a machine or a process has run out of: every call that takes of it answers that error until the process ends.
pub const LACKS: [Errno; 5] = [Errno::ENOSPC, Errno::EROFS, Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM];

/// Whether the call answers `lack` while that lasts.
pub(crate) fn takes(call: &SystemCall, lack: Errno) -> bool {
    let is_possible = errors_of(call).contains(&lack);
    if !matches!(lack, Errno::ENOSPC | Errno::EROFS) {
        return is_possible;
    }
    // A disk has what is neither of the kernel's own files nor a pipe; and takes nothing for a file that is there already.
    let is_on_disk = !["<pipe:", "<socket:", "\"/proc/", "</proc/", "\"/dev/", "</dev/"]
        .iter()
        .any(|other| call.text.contains(other));
    let only_finds = match call.name {
        "openat"
            if call.text.contains("O_CREAT") && !call.text.contains("O_RDWR") && !call.text.contains("O_WRONLY") =>
        {
            true
        }
        "openat" if lack == Errno::ENOSPC => call.text.contains("O_CREAT"),
        "mkdir" => true,
        _ => false,
    };
    let is_there = call.paths.iter().any(|path| Path::new(path).exists());
    is_possible && is_on_disk && !(only_finds && is_there)
}
