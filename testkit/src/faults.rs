//! System calls that fail, by strace(1).

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;

use crate::{Call, Lab, Reply, strace};

/// A system call of a program's first thread.
#[derive(Clone, Debug)]
pub struct SystemCall {
    /// Its name.
    pub name: String,
    /// Which of the thread's calls of that name it is; the first is 1.
    pub which: usize,
    /// What strace(1) says of it, numbers with their names.
    pub text: String,
}

/// Something that happens to a program's system calls.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Each as strace(1) takes it behind `inject=`.
    pub(crate) injections: Vec<String>,
    /// What whoever tells of it must say.
    pub(crate) reason: String,
    /// Whether nobody may notice it.
    pub(crate) is_harmless: bool,
    pub(crate) words: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.words, self.injections.join(", "))
    }
}

impl Fault {
    /// The call does nothing but fail.
    #[must_use]
    pub fn error(call: &SystemCall, errno: Errno) -> Self {
        let SystemCall { name, which, text } = call;
        Self {
            injections: vec![format!("{name}:error={errno:?}:when={which}")],
            reason: reason(errno),
            is_harmless: errno == Errno::EINTR,
            words: format!("{errno:?} instead of {text}"),
        }
    }

    /// Of each call every error that the kernel can give there, whatever the call is asked for.
    ///
    /// What a program that is executed says comes in as many pieces as it pleases, so that reads from then on have another
    /// number each time: they are left out.
    #[must_use]
    pub fn errors(calls: &[SystemCall]) -> Vec<Self> {
        let mut faults = Vec::new();
        let (mut has_executed, mut previous) = (false, "");
        for call in calls {
            let name = call.name.as_str();
            has_executed |= call.text.contains("CLONE_VFORK");
            let is_steady = !has_executed || !matches!(name, "read" | "poll");
            // std looks whether what is there is a directory, and if it cannot, tells of what it was told first.
            let is_second_look = (previous, name) == ("mkdir", "statx");
            for errno in errors_of(call).iter().filter(|_| is_steady) {
                let told = if is_second_look { Errno::EEXIST } else { *errno };
                faults.push(Self { reason: reason(told), ..Self::error(call, *errno) });
            }
            previous = name;
        }
        faults
    }

    /// The process dies as it enters the call.
    #[must_use]
    pub fn death(call: &SystemCall) -> Self {
        let SystemCall { name, which, text } = call;
        Self {
            injections: vec![format!("{name}:signal=SIGKILL:when={which}")],
            reason: String::new(),
            is_harmless: false,
            words: format!("death at {text}"),
        }
    }

    /// Whether the command that it happened to has succeeded all the same. If it has not, it has failed with one error object
    /// that says why.
    #[must_use]
    pub fn is_survived(&self, reply: &Reply) -> bool {
        if reply.status == Some(0) {
            return true;
        }
        assert!(!self.is_harmless, "{self}: {reply:?}");
        let (code, message, details) = reply.error();
        // As with the Go tools, a program that cannot be run has none.
        assert!(code > 0 || message.contains("netplugin failed"), "{self}: {reply:?}");
        assert!(!message.contains("internal error"), "{self}: {message}");
        let told = format!("{message} {details}").to_lowercase();
        assert!(told.contains(&self.reason), "{self}: there is no {:?} in: {told}", self.reason);
        false
    }
}

/// The C library's words, in lower case.
pub(crate) fn reason(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap().to_lowercase()
}

/// Those that have nothing to tell but errors that no kernel gives for them are left out; so is close(2), which closes
/// whatever it answers: instead of it, the file would stay open.
fn errors_of(call: &SystemCall) -> &'static [Errno] {
    use Errno::*;
    let has = |text: &str| call.text.contains(text);
    match call.name.as_str() {
        "openat" if has("O_CREAT") || has("O_TMPFILE") => &[EINTR, ENOSPC, EIO, EACCES, EROFS, EMFILE, ENFILE, ENOMEM],
        // So the C library opens directories, and does not try again; nor is there a signal with a handler.
        "openat" if has("O_NONBLOCK|O_CLOEXEC|O_DIRECTORY") => &[EIO, EACCES, EMFILE, ENFILE, ENOMEM],
        "openat" => &[EINTR, EIO, EACCES, EMFILE, ENFILE, ENOMEM],
        "read" if has("<pipe:") => &[EINTR],
        "read" | "pread64" => &[EINTR, EIO],
        "write" | "pwrite64" => &[EINTR, ENOSPC, EIO, EDQUOT],
        "fsync" => &[EINTR, EIO, ENOSPC],
        "flock" => &[EINTR, ENOLCK],
        "fcntl" if has("F_OFD_SETLKW") => &[EINTR, ENOLCK],
        "fcntl" if has("F_OFD_SETLK") && !has("F_UNLCK") => &[ENOLCK],
        "fcntl" if has("F_DUPFD") => &[EMFILE],
        "statx" | "newfstatat" | "statfs" => &[EACCES, EIO, ENOMEM],
        "fstatfs" | "getdents64" => &[EIO, ENOMEM],
        "mkdir" | "rename" | "renameat" | "link" | "linkat" | "symlink" => &[ENOSPC, EIO, EACCES, EROFS, ENOMEM],
        "unlink" | "unlinkat" | "rmdir" | "ftruncate" | "utimensat" | "fchmod" | "chmod" => &[EIO, EACCES, EROFS],
        "fsetxattr" | "lsetxattr" | "setxattr" => &[ENOSPC, EIO, EACCES, EOPNOTSUPP],
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

impl Call {
    /// Runs it in the lab's host, and returns also the system calls that it makes from when it reads its configuration on.
    #[must_use]
    pub fn system_calls(&self, lab: &Lab) -> (Reply, Vec<SystemCall>) {
        let (reply, trace) = self.traced(lab, &[]);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        for line in trace.lines() {
            let Some((name, _)) = line.split_once('(').filter(|(name, _)| !name.contains(' ')) else { continue };
            let which = counts.entry(name).or_default();
            *which += 1;
            calls.push(SystemCall { name: name.to_owned(), which: *which, text: line.to_owned() });
        }
        let start = calls.iter().position(|call| call.text.starts_with("read(0<")).unwrap();
        (reply, calls.split_off(start))
    }

    /// Runs it in the lab's host, with that happening to it.
    #[must_use]
    pub fn run_with(&self, fault: &Fault, lab: &Lab) -> Reply {
        let options: Vec<String> = fault.injections.iter().map(|one| format!("--inject={one}")).collect();
        let (reply, trace) = self.traced(lab, &options);
        let injected = trace.lines().filter(|line| line.contains("INJECTED")).count();
        let happened = injected == fault.injections.len() || reply.status.is_none();
        assert!(happened, "{fault} did not happen: {reply:?}\n{trace}");
        reply
    }

    fn traced(&self, lab: &Lab, options: &[String]) -> (Reply, String) {
        static TRACES: AtomicUsize = AtomicUsize::new(0);
        let file = lab.path(&format!("trace-{}", TRACES.fetch_add(1, Ordering::Relaxed)));
        let fixed = [strace().unwrap(), "-qq", "-y", "--const-print-style=verbose", "-o", file.to_str().unwrap()];
        let words: Vec<&str> = fixed.into_iter().chain(options.iter().map(String::as_str)).collect();
        let reply = self.clone().through(&words).run_in(&lab.host);
        (reply, take(&file))
    }
}

fn take(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    fs::remove_file(file).unwrap();
    text
}

/// Whether a long run is asked for (`SOAK=1`).
#[must_use]
pub fn is_soak() -> bool {
    env::var("SOAK").is_ok_and(|value| value == "1")
}

/// All of them in a long run; else about `most`, from all over.
#[must_use]
pub fn sample<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let count = all.len();
    // Of each two neighbours in the sample, the places differ by the quotient or one more.
    let is_chosen = |place: usize| is_soak() || place * most / count != (place + 1) * most / count;
    all.into_iter().enumerate().filter(|(place, _)| is_chosen(*place)).map(|(_, one)| one).collect()
}
