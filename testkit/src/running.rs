//! Calls under way.

use std::{
    fs::{self, File},
    io::{PipeReader, Read, Write, pipe},
    os::fd::AsRawFd,
    process::Child,
    thread,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use crate::{Call, Lab, Reply, SystemCall, strace};

/// Between two looks at a call: it needs the processor itself.
const MOMENT: Duration = Duration::from_millis(1);

/// A call that has been started.
#[derive(Debug)]
pub struct Running(pub(crate) Child);

impl Running {
    /// Returns when it sleeps in a system call on a file whose path ends with `file`; whether it does so before it ends.
    pub fn waits_for(&mut self, file: &str) -> bool {
        while self.is_running() {
            if sleeps_on(self.0.id(), file) {
                return true;
            }
            thread::sleep(MOMENT);
        }
        false
    }

    /// What it answers in the end.
    #[must_use]
    pub fn reply(self) -> Reply {
        Reply::of(self.0.wait_with_output().unwrap())
    }

    /// Kills it, and what it has started if it leads a process group. What it answered if it had ended before.
    #[must_use]
    pub fn kill(self) -> Reply {
        let process = Pid::from_raw(self.0.id().try_into().unwrap());
        // It may lead none, or not yet, and may have ended.
        let _none = killpg(process, Signal::SIGKILL);
        let _ended = kill(process, Signal::SIGKILL);
        self.reply()
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

fn sleeps_on(process: u32, file: &str) -> bool {
    // `running`, or the number of the system call and its arguments.
    let text = fs::read_to_string(format!("/proc/{process}/syscall")).unwrap_or_default();
    let descriptor = text.split(' ').nth(1).and_then(|word| u32::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let open = descriptor.and_then(|number| fs::read_link(format!("/proc/{process}/fd/{number}")).ok());
    open.is_some_and(|path| path.to_string_lossy().ends_with(file))
}

/// A call that stands still behind one of its system calls.
#[derive(Debug)]
pub struct Stopped(Running);

impl Stopped {
    /// Starts `call` in the lab's host, and returns when it has done that system call and does not go on.
    #[must_use]
    pub fn start(call: &Call, behind: &SystemCall, lab: &Lab) -> Self {
        let trace = lab.path("stopped");
        // It may be there from another one.
        File::create(&trace).unwrap();
        let injection = format!("--inject={}:signal=SIGSTOP:when={}", behind.name, behind.which);
        // The process that is started is the call's own; its tracer, in a session of its own, leaves no stopped group behind.
        let words = [strace().unwrap(), "-DDD", "-qq", "-o", trace.to_str().unwrap(), &injection];
        let mut running = lab.host.within(|| call.clone().through(&words).start());
        while !fs::read_to_string(&trace).unwrap().contains("--- stopped by SIGSTOP ---") {
            assert!(running.is_running(), "not at {}: {:?}", behind.text, running.reply());
            thread::sleep(MOMENT);
        }
        Self(running)
    }

    /// What it answers when it goes on.
    #[must_use]
    pub fn go_on(self) -> Reply {
        kill(Pid::from_raw(self.0.0.id().try_into().unwrap()), Signal::SIGCONT).unwrap();
        self.0.reply()
    }
}

/// A call that has done everything but tell its result or its error, since its standard output is full.
#[derive(Debug)]
pub struct Held {
    running: Running,
    stdout: PipeReader,
    full: usize,
}

impl Held {
    /// Starts `call`, and returns when it waits for somebody to read what it tells.
    #[must_use]
    pub fn start(call: &Call) -> Self {
        let (stdout, mut writer) = pipe().unwrap();
        let full = usize::try_from(fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap()).unwrap();
        writer.write_all(&vec![b' '; full]).unwrap();
        let name = fs::read_link(format!("/proc/self/fd/{}", writer.as_raw_fd())).unwrap();
        let mut running = call.start_into(writer.into());
        assert!(running.waits_for(name.to_str().unwrap()), "{:?}", running.reply());
        Self { running, stdout, full }
    }

    /// Reads what it tells.
    #[must_use]
    pub fn deliver(mut self) -> Reply {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        Reply { stdout: text.split_off(self.full), ..self.running.reply() }
    }

    /// Lets nobody ever read it.
    #[must_use]
    pub fn refuse(self) -> Reply {
        drop(self.stdout);
        self.running.reply()
    }

    /// Kills it before it has told anything.
    pub fn kill(mut self) {
        self.running.0.kill().unwrap();
        let _killed = self.running.reply();
    }
}
