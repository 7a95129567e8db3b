//! System calls of a process that is followed, in words.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
};

use nix::{
    libc::{self, c_int, c_long},
    unistd::Pid,
};

use crate::registers::{self, Registers};

/// A system call that a thread enters.
#[derive(Clone, Debug)]
pub struct SystemCall {
    /// Its name.
    pub name: &'static str,
    /// Which of the calls of that name it is; the first is 1.
    pub which: usize,
    /// It and what it is about: files by their paths, flags that matter here by their names.
    pub text: String,
    /// The paths that it names.
    pub(crate) paths: Vec<String>,
}

/// Numbers of the kernel's, with their names.
type Names = &'static [(c_int, &'static str)];

/// What of an argument is told.
#[derive(Clone, Copy)]
enum Argument {
    /// A file that is open.
    Descriptor,
    Path,
    /// Below the directory that the argument before it is.
    PathIn,
    Flags(Names),
    /// One of these, no sum of them.
    Word(Names),
    /// Flags that begin what is at that address.
    FlagsAt(Names),
    /// The kind of lock that begins what is at that address.
    LockAt,
    Untold,
}

impl SystemCall {
    /// What `thread` of `process` enters, as the first of its name; `None` when the thread is gone.
    pub(crate) fn entered(process: Pid, thread: Pid) -> Option<Self> {
        let registers = registers::entered(thread)?;
        let Some((_, name, shape)) = CALLS.iter().find(|(number, ..)| *number == registers.number) else {
            let text = format!("system call {}", registers.number);
            return Some(Self { name: "another", which: 1, text, paths: Vec::new() });
        };
        let (mut words, mut paths) = (Vec::new(), Vec::new());
        for (place, argument) in shape.iter().enumerate() {
            let value = registers.arguments[place];
            match argument {
                Descriptor => words.push(format!("<{}>", open_file(process, value))),
                Path | PathIn => {
                    let mut path = text_at(process, value);
                    if let PathIn = argument
                        && !path.starts_with('/')
                    {
                        path = format!("{}/{path}", open_file(process, registers.arguments[place - 1]));
                    }
                    words.push(format!("{path:?}"));
                    paths.push(path);
                }
                Flags(names) => words.push(flags(value, names)),
                Word(names) => words.push(word(value, names)),
                FlagsAt(names) => words.push(flags(number_at(process, value), names)),
                LockAt => {
                    let kind = number_at(process, value) & u64::from(u16::MAX);
                    words.push(word(kind, &[(libc::F_UNLCK, "F_UNLCK"), (libc::F_WRLCK, "F_WRLCK")]));
                }
                Untold => {}
            }
        }
        Some(Self { name, which: 1, text: format!("{name}({})", words.join(", ")), paths })
    }

    /// Whether `thread` begins to read its standard input.
    pub(crate) fn is_reading_of_stdin(thread: Pid) -> bool {
        let is_it = |found: Registers| found.number == libc::SYS_read && found.arguments[0] == 0;
        registers::entered(thread).is_some_and(is_it)
    }
}

fn open_file(process: Pid, descriptor: u64) -> String {
    // The other half of the register may hold anything.
    let descriptor = u32::try_from(descriptor & u64::from(u32::MAX)).unwrap().cast_signed();
    let link = if descriptor == libc::AT_FDCWD {
        format!("/proc/{process}/cwd")
    } else {
        format!("/proc/{process}/fd/{descriptor}")
    };
    fs::read_link(link).map_or_else(|_| "closed".to_owned(), |path| path.to_string_lossy().into_owned())
}

fn memory(process: Pid, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let memory = File::open(format!("/proc/{process}/mem"));
    let read = memory.and_then(|memory| memory.read_at(&mut bytes, address)).unwrap_or_default();
    bytes.truncate(read);
    bytes
}

fn text_at(process: Pid, address: u64) -> String {
    let bytes = memory(process, address, 4096);
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap()).into_owned()
}

fn number_at(process: Pid, address: u64) -> u64 {
    memory(process, address, 8).try_into().map_or(0, u64::from_ne_bytes)
}

fn flags(value: u64, names: Names) -> String {
    let is_set = |flag: u64| value & flag == flag;
    let set: Vec<&str> =
        names.iter().filter(|(flag, _)| is_set(flag.cast_unsigned().into())).map(|(_, name)| *name).collect();
    set.join("|")
}

fn word(value: u64, names: Names) -> String {
    let found = names.iter().find(|(word, _)| u64::from(word.cast_unsigned()) == value);
    found.map_or_else(|| value.to_string(), |(_, name)| (*name).to_owned())
}

use Argument::{Descriptor, Flags, FlagsAt, LockAt, Path, PathIn, Untold, Word};

/// The order is that in which strace(1) tells them.
const OPEN: Argument = Flags(&[
    (libc::O_WRONLY, "O_WRONLY"),
    (libc::O_RDWR, "O_RDWR"),
    (libc::O_CREAT, "O_CREAT"),
    (libc::O_EXCL, "O_EXCL"),
    (libc::O_NONBLOCK, "O_NONBLOCK"),
    (libc::O_CLOEXEC, "O_CLOEXEC"),
    (libc::O_DIRECTORY, "O_DIRECTORY"),
    (libc::O_TMPFILE, "O_TMPFILE"),
]);
const FCNTL: Argument = Word(&[
    (libc::F_OFD_SETLK, "F_OFD_SETLK"),
    (libc::F_OFD_SETLKW, "F_OFD_SETLKW"),
    (libc::F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"),
    (libc::F_DUPFD, "F_DUPFD"),
]);
const MESSAGE: Argument = Flags(&[(libc::MSG_DONTWAIT, "MSG_DONTWAIT")]);
const CLONES: Names = &[(libc::CLONE_THREAD, "CLONE_THREAD"), (libc::CLONE_VFORK, "CLONE_VFORK")];
const FAMILY: Argument = Word(&[(libc::AF_NETLINK, "AF_NETLINK"), (libc::AF_UNIX, "AF_UNIX")]);

/// Those that have to do with files, sockets, namespaces and processes, and the commonest of the others.
const CALLS: &[(c_long, &str, &[Argument])] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", &[Path, OPEN]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, "lstat", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, "access", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, "readlink", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename", &[Path, Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, "link", &[Path, Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, "symlink", &[Path, Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "chmod", &[Path]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", &[]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork", &[]),
    (libc::SYS_openat, "openat", &[Descriptor, PathIn, OPEN]),
    (libc::SYS_read, "read", &[Descriptor]),
    (libc::SYS_pread64, "pread64", &[Descriptor]),
    (libc::SYS_write, "write", &[Descriptor]),
    (libc::SYS_pwrite64, "pwrite64", &[Descriptor]),
    (libc::SYS_fsync, "fsync", &[Descriptor]),
    (libc::SYS_fdatasync, "fdatasync", &[Descriptor]),
    (libc::SYS_ftruncate, "ftruncate", &[Descriptor]),
    (libc::SYS_fchmod, "fchmod", &[Descriptor]),
    (libc::SYS_fstat, "fstat", &[Descriptor]),
    (libc::SYS_fstatfs, "fstatfs", &[Descriptor]),
    (libc::SYS_flock, "flock", &[Descriptor]),
    (libc::SYS_getdents64, "getdents64", &[Descriptor]),
    (libc::SYS_fsetxattr, "fsetxattr", &[Descriptor]),
    (libc::SYS_fgetxattr, "fgetxattr", &[Descriptor]),
    (libc::SYS_lseek, "lseek", &[Descriptor]),
    (libc::SYS_ioctl, "ioctl", &[Descriptor]),
    (libc::SYS_fcntl, "fcntl", &[Descriptor, FCNTL, LockAt]),
    (libc::SYS_statx, "statx", &[Descriptor, PathIn]),
    (libc::SYS_newfstatat, "newfstatat", &[Descriptor, PathIn]),
    (libc::SYS_statfs, "statfs", &[Path]),
    (libc::SYS_mkdirat, "mkdirat", &[Descriptor, PathIn]),
    (libc::SYS_renameat, "renameat", &[Descriptor, PathIn, Descriptor, PathIn]),
    (libc::SYS_renameat2, "renameat2", &[Descriptor, PathIn, Descriptor, PathIn]),
    (libc::SYS_linkat, "linkat", &[Descriptor, PathIn, Descriptor, PathIn]),
    (libc::SYS_symlinkat, "symlinkat", &[Path, Descriptor, PathIn]),
    (libc::SYS_unlinkat, "unlinkat", &[Descriptor, PathIn]),
    (libc::SYS_fchmodat, "fchmodat", &[Descriptor, PathIn]),
    (libc::SYS_utimensat, "utimensat", &[Descriptor, PathIn]),
    (libc::SYS_getxattr, "getxattr", &[Path]),
    (libc::SYS_lgetxattr, "lgetxattr", &[Path]),
    (libc::SYS_setxattr, "setxattr", &[Path]),
    (libc::SYS_lsetxattr, "lsetxattr", &[Path]),
    (libc::SYS_socket, "socket", &[FAMILY]),
    (libc::SYS_bind, "bind", &[Descriptor]),
    (libc::SYS_connect, "connect", &[Descriptor]),
    (libc::SYS_setsockopt, "setsockopt", &[Descriptor]),
    (libc::SYS_getsockopt, "getsockopt", &[Descriptor]),
    (libc::SYS_getsockname, "getsockname", &[Descriptor]),
    (libc::SYS_sendto, "sendto", &[Descriptor, Untold, Untold, MESSAGE]),
    (libc::SYS_recvfrom, "recvfrom", &[Descriptor, Untold, Untold, MESSAGE]),
    (libc::SYS_sendmsg, "sendmsg", &[Descriptor, Untold, MESSAGE]),
    (libc::SYS_recvmsg, "recvmsg", &[Descriptor, Untold, MESSAGE]),
    (libc::SYS_setns, "setns", &[Descriptor]),
    (libc::SYS_pipe2, "pipe2", &[]),
    (libc::SYS_clone, "clone", &[Flags(CLONES)]),
    (libc::SYS_clone3, "clone3", &[FlagsAt(CLONES)]),
    (libc::SYS_wait4, "wait4", &[]),
    (libc::SYS_waitid, "waitid", &[]),
    (libc::SYS_close, "close", &[Descriptor]),
    (libc::SYS_exit_group, "exit_group", &[]),
    (libc::SYS_futex, "futex", &[]),
    (libc::SYS_mmap, "mmap", &[]),
    (libc::SYS_munmap, "munmap", &[]),
    (libc::SYS_brk, "brk", &[]),
];
