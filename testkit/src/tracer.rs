//! A process that is followed from system call to system call, whichever of its threads makes them.

use std::{
    collections::{HashMap, HashSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::Pid,
};

use crate::registers;

/// What becomes of a system call that a thread enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What it would without anybody.
    Done,
    /// Nothing but that error.
    Failed(Errno),
    /// The process dies before it.
    Deadly,
}

/// Does `work` while `process` is followed with all its threads, and `judge` is asked for each of them, as it enters a
/// system call, what becomes of that.
///
/// Unlike strace(1), which counts for each thread by itself, this sees what all of them do.
pub(crate) fn traced<T>(process: u32, judge: impl FnMut(Pid) -> Verdict + Send, work: impl FnOnce() -> T) -> T {
    let process = Pid::from_raw(process.try_into().unwrap());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, is_ready) = channel();
        let is_done = &is_done;
        let follower = scope.spawn(move || follow(process, judge, &ready, is_done));
        is_ready.recv().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        is_done.store(true, Ordering::SeqCst);
        // Means nothing to it, and wakes who follows it. One that has ended is followed by nobody any more.
        let _ended = if follower.is_finished() { Ok(()) } else { kill(process, Signal::SIGWINCH) };
        follower.join().unwrap_or_else(|panic| resume_unwind(panic));
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The kernel lets go of the process when this thread ends.
fn follow(process: Pid, mut judge: impl FnMut(Pid) -> Verdict, ready: &Sender<()>, is_done: &AtomicBool) {
    // Those that have not stopped yet: what they enter until then, nobody sees.
    let mut coming = seize(process);
    let mut ready = Some(ready);
    // Those that are inside a system call, with what it is to answer instead of what it does.
    let mut inside: HashMap<Pid, Option<Errno>> = HashMap::new();
    loop {
        if coming.is_empty()
            && let Some(ready) = ready.take()
        {
            ready.send(()).unwrap();
        }
        let event = next_event(process);
        if let Ok(event) = &event {
            event.pid().map(|thread| coming.remove(&thread));
        }
        let (thread, signal) = match event {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                match inside.remove(&thread) {
                    Some(Some(errno)) => registers::answer(thread, errno),
                    Some(None) => {}
                    None => {
                        // What it was doing until now is not the work.
                        let verdict = if ready.is_some() { Verdict::Done } else { judge(thread) };
                        let failed = match verdict {
                            Verdict::Done => None,
                            Verdict::Failed(errno) => {
                                registers::skip(thread);
                                Some(errno)
                            }
                            Verdict::Deadly => return kill(process, Signal::SIGKILL).unwrap(),
                        };
                        inside.insert(thread, failed);
                    }
                }
                (thread, None)
            }
            Ok(WaitStatus::Stopped(thread, Signal::SIGWINCH)) => {
                if is_done.load(Ordering::SeqCst) {
                    return;
                }
                (thread, None)
            }
            Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
            Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
            Ok(WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..)) => {
                inside.remove(&thread);
                continue;
            }
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        // It may be gone.
        let _gone = ptrace::syscall(thread, signal);
    }
}

/// What one of the threads has come to; an error when there is none any more. That the process has ended is whoever has
/// started it to hear, and would be heard once only.
fn next_event(process: Pid) -> nix::Result<WaitStatus> {
    let any = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    let seen = waitid(Id::All, any | WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT)?;
    if let WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..) = seen
        && ended == process
    {
        return Err(Errno::ECHILD);
    }
    waitpid(seen.pid(), Some(any))
}

/// Stops all threads there are; those that these make are followed by themselves.
fn seize(process: Pid) -> HashSet<Pid> {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    let (mut seen, mut seized) = (HashSet::new(), HashSet::new());
    loop {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let names = threads.map(|thread| thread.unwrap().file_name().into_string().unwrap());
        let new: Vec<i32> = names.map(|name| name.parse().unwrap()).filter(|thread| seen.insert(*thread)).collect();
        if new.is_empty() {
            return seized;
        }
        for thread in new.into_iter().map(Pid::from_raw) {
            match ptrace::seize(thread, options) {
                Ok(()) => {
                    ptrace::interrupt(thread).unwrap();
                    seized.insert(thread);
                }
                // It has ended, or was made by one that is followed.
                Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => panic!("cannot follow thread {thread}: {error}"),
            }
        }
    }
}
