//! A process that is killed in the middle of its work, whichever of its threads does it.

use std::{
    collections::HashSet,
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
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// Does `work` while `process` is followed with all its threads, and kills it as it enters its system call number `at` since
/// then, before that has done anything. Returns also how many it has entered; it lives on when there were fewer.
///
/// Unlike strace(1), which counts for each thread by itself, this counts what all of them do.
pub fn kill_at<T>(process: u32, at: usize, work: impl FnOnce() -> T) -> (T, usize) {
    let process = Pid::from_raw(process.try_into().unwrap());
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (ready, is_ready) = channel();
        let is_done = &is_done;
        let follower = scope.spawn(move || follow(process, at, &ready, is_done));
        is_ready.recv().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(work));
        is_done.store(true, Ordering::SeqCst);
        // Means nothing to it, and wakes who follows it.
        let _ended = kill(process, Signal::SIGWINCH);
        let entered = follower.join().unwrap();
        (outcome.unwrap_or_else(|panic| resume_unwind(panic)), entered)
    })
}

/// The kernel lets go of the process when this thread ends.
fn follow(process: Pid, at: usize, ready: &Sender<()>, is_done: &AtomicBool) -> usize {
    seize(process);
    ready.send(()).unwrap();
    let (mut inside, mut entered) = (HashSet::new(), 0);
    loop {
        let signal = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(WaitStatus::PtraceSyscall(thread)) => {
                if inside.remove(&thread) {
                    (thread, None)
                } else {
                    entered += 1;
                    if entered == at {
                        kill(process, Signal::SIGKILL).unwrap();
                        return entered;
                    }
                    inside.insert(thread);
                    (thread, None)
                }
            }
            Ok(WaitStatus::Stopped(thread, Signal::SIGWINCH)) => {
                if is_done.load(Ordering::SeqCst) {
                    return entered;
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
            Err(_) => return entered,
        };
        let (thread, signal) = signal;
        // It may be gone.
        let _gone = ptrace::syscall(thread, signal);
    }
}

/// All threads there are; those that these make are followed by themselves.
fn seize(process: Pid) {
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE;
    let mut seized = HashSet::new();
    loop {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let names = threads.map(|thread| thread.unwrap().file_name().into_string().unwrap());
        let new: Vec<i32> = names.map(|name| name.parse().unwrap()).filter(|thread| seized.insert(*thread)).collect();
        if new.is_empty() {
            return;
        }
        for thread in new.into_iter().map(Pid::from_raw) {
            match ptrace::seize(thread, options) {
                Ok(()) => ptrace::interrupt(thread).unwrap(),
                // It has ended, or was made by one that is followed.
                Err(Errno::ESRCH | Errno::EPERM) => {}
                Err(error) => panic!("cannot follow thread {thread}: {error}"),
            }
        }
    }
}
