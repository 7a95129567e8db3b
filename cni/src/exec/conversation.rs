//! What is said to a program, and what it prints until it ends.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    process::{Child, ChildStdin, Output},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::quoted;

/// Results have a few kilobytes.
const STDOUT_LIMIT: usize = 4 << 20;
const STDERR_LIMIT: usize = 1 << 20;
const CHUNK: usize = 8 << 10;
/// Together what a pipe holds at most, unless root has enlarged it beyond that.
const CHUNKS: usize = 128;

/// Gives `child`, which leads a process group, its standard input, and takes what it prints until it ends, whoever else
/// still has its output open. What is wrong with its output, and more than `time` to end, is the end of it and its group.
pub(super) fn converse(mut child: Child, input: &[u8], time: Duration) -> io::Result<Output> {
    let printed = listen(&mut child, input, time);
    if printed.is_err() {
        let group = i32::try_from(child.id()).map(unistd::Pid::from_raw);
        let _ended_by_itself = group.map(|group| killpg(group, Signal::SIGKILL));
    }
    let status = child.wait()?;
    let (stdout, stderr) = printed?;
    Ok(Output { status, stdout, stderr })
}

fn listen(child: &mut Child, input: &[u8], time: Duration) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let deadline = Instant::now() + time;
    // Linux before 5.3 does not tell; there it is the end that nobody has its output open any more.
    let end = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).ok();
    let mut stdin = Input { pipe: unblocked(child.stdin.take())?, rest: input };
    let mut stdout = Printed { pipe: unblocked(child.stdout.take())?, bytes: Vec::new(), limit: STDOUT_LIMIT + 1 };
    let mut stderr = Printed { pipe: unblocked(child.stderr.take())?, bytes: Vec::new(), limit: STDERR_LIMIT };
    loop {
        let (reads, writes) = (PollFlags::IN, PollFlags::OUT);
        let ends = [(fd(&end), reads), (fd(&stdout.pipe), reads), (fd(&stderr.pipe), reads), (fd(&stdin.pipe), writes)];
        let awaited = ends.into_iter().filter_map(|(end, flags)| Some(PollFd::from_borrowed_fd(end?, flags)));
        let mut awaited: Vec<_> = awaited.collect();
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
        let is_late = match poll(&mut awaited, left.as_ref()) {
            Ok(ready) => ready == 0,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let has_ended = end.is_some() && awaited.first().is_some_and(|end| !end.revents().is_empty());
        stdin.write()?;
        stdout.read()?;
        stderr.read()?;
        if stdout.bytes.len() > STDOUT_LIMIT {
            return Err(io::Error::other(format!("it wrote more than {STDOUT_LIMIT} bytes to standard output")));
        }
        if has_ended || (end.is_none() && stdout.pipe.is_none() && stderr.pipe.is_none()) {
            return Ok((stdout.bytes, stderr.bytes));
        }
        if is_late {
            return Err(io::Error::other(too_late(time, &stderr.bytes)));
        }
    }
}

fn too_late(time: Duration, stderr: &[u8]) -> String {
    let said = if stderr.is_empty() { String::new() } else { format!("; it said {}", quoted(stderr)) };
    format!("it did not end within {time:?}, and was killed{said}")
}

fn fd(end: &Option<impl AsFd>) -> Option<BorrowedFd<'_>> {
    end.as_ref().map(AsFd::as_fd)
}

fn unblocked<P: AsFd>(pipe: Option<P>) -> io::Result<Option<P>> {
    if let Some(pipe) = &pipe {
        ioctl_fionbio(pipe, true)?;
    }
    Ok(pipe)
}

/// What is still to be said; the pipe is closed after it.
struct Input<'a> {
    pipe: Option<ChildStdin>,
    rest: &'a [u8],
}

impl Input<'_> {
    fn write(&mut self) -> io::Result<()> {
        while let Some(pipe) = &mut self.pipe {
            match pipe.write(self.rest) {
                Ok(written) => self.rest = self.rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A plugin that does not read all of its configuration is at liberty not to.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.pipe = None,
                Err(error) => return Err(error),
            }
            if self.rest.is_empty() {
                self.pipe = None;
            }
        }
        Ok(())
    }
}

/// What was printed so far, up to a limit; what follows is read and forgotten. The pipe goes when everybody has closed it.
struct Printed<P> {
    pipe: Option<P>,
    bytes: Vec<u8>,
    limit: usize,
}

impl<P: Read> Printed<P> {
    /// Takes what is there now. Somebody may go on writing for ever.
    fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        for _ in 0..CHUNKS {
            let Some(pipe) = &mut self.pipe else {
                break;
            };
            match pipe.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    let kept = length.min(self.limit.saturating_sub(self.bytes.len()));
                    self.bytes.extend_from_slice(chunk.get(..kept).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
