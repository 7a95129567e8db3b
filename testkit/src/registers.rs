//! What a thread that stops at a system call has in its registers.

use nix::{errno::Errno, unistd::Pid};

/// A system call by its number, with its arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 6],
}

/// Whether these can be read and written here.
///
/// # Errors
/// That they cannot.
pub fn system_calls_can_fail() -> Result<(), String> {
    if cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    Err("system calls of single threads can be failed on x86-64 only".to_owned())
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use std::io;

    use nix::sys::ptrace::{getregs, setregs};

    use super::{Errno, Pid, Registers};

    /// Of a thread that enters a system call.
    pub(crate) fn entered(thread: Pid) -> Option<Registers> {
        let found = getregs(thread).ok()?;
        let arguments = [found.rdi, found.rsi, found.rdx, found.r10, found.r8, found.r9];
        Some(Registers { number: found.orig_rax.cast_signed(), arguments })
    }

    /// Has the kernel do nothing.
    pub(crate) fn skip(thread: Pid) {
        let mut changed = getregs(thread).unwrap();
        // The number of no system call.
        changed.orig_rax = u64::MAX;
        setregs(thread, changed).unwrap();
    }

    /// Has the call, which the thread leaves, answer that.
    pub(crate) fn answer(thread: Pid, errno: Errno) {
        let mut changed = getregs(thread).unwrap();
        let number = io::Error::from(errno).raw_os_error().unwrap();
        changed.rax = (-i64::from(number)).cast_unsigned();
        setregs(thread, changed).unwrap();
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod machine {
    use super::{Errno, Pid, Registers, system_calls_can_fail};

    pub(crate) fn entered(_: Pid) -> Option<Registers> {
        panic!("{}", system_calls_can_fail().unwrap_err());
    }

    pub(crate) fn skip(_: Pid) {
        panic!("{}", system_calls_can_fail().unwrap_err());
    }

    pub(crate) fn answer(_: Pid, _: Errno) {
        panic!("{}", system_calls_can_fail().unwrap_err());
    }
}

pub(crate) use machine::{answer, entered, skip};
