//! What happens to a program, and what it then must say.

use std::{env, fmt, io};

use nix::errno::Errno;

use crate::{
    Reply, SystemCall,
    errors::{errors_of, takes},
};

/// Something that happens to a program's system calls.
#[derive(Clone, Debug)]
pub struct Fault {
    pub(crate) what: What,
    /// What whoever tells of it must say.
    pub(crate) reason: String,
    /// What must be said besides if anything remains of an ADD that failed; `None` where nothing may.
    pub(crate) reason_of_remains: Option<String>,
    /// Whether nobody may notice it.
    pub(crate) is_harmless: bool,
    /// Whether the process may end itself, since it cannot leave the sandbox's namespace any more.
    pub(crate) is_final: bool,
    pub(crate) words: String,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Something for strace(1), each as it takes it behind `inject=`.
    Injections(Vec<String>),
    /// Something at each of these.
    Calls(Vec<(Place, Incident)>),
}

/// Which system call it is: of that name the one with that number.
pub(crate) type Place = (&'static str, usize);

/// What happens at a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incident {
    /// It fails.
    Error(Errno),
    /// It fails, and with it whatever takes of the same, until the process ends.
    Lack(Errno),
    /// The process dies.
    Death,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({:?})", self.words, self.what)
    }
}

impl Fault {
    /// The call does nothing but fail.
    #[must_use]
    pub fn error(call: &SystemCall, errno: Errno) -> Self {
        Self {
            what: What::Calls(vec![(place(call), Incident::Error(errno))]),
            reason: reason(errno),
            reason_of_remains: None,
            is_harmless: errno == Errno::EINTR,
            is_final: false,
            words: format!("{errno:?} instead of {}", call.text),
        }
    }

    /// Of each call every error that the kernel can give there, whatever the call is asked for.
    #[must_use]
    pub fn errors(calls: &[SystemCall]) -> Vec<Self> {
        steady(calls).flat_map(|call| errors_of(call).iter().map(|errno| Self::error(call, *errno))).collect()
    }

    /// From each call on that takes of what there is a lack of, every one that does fails until the process ends.
    #[must_use]
    pub fn lasting(calls: &[SystemCall], lack: Errno) -> Vec<Self> {
        let from = steady(calls).filter(|call| takes(call, lack));
        let lasting = from.map(|call| Self {
            what: What::Calls(vec![(place(call), Incident::Lack(lack))]),
            reason_of_remains: Some(reason(lack)),
            is_final: calls.iter().skip_while(|later| place(later) != place(call)).any(|later| is_setns(later, lack)),
            words: format!("{lack:?} from {} on", call.text),
            ..Self::error(call, lack)
        });
        lasting.collect()
    }

    /// After this error, each of the `calls` that the command makes because of it fails too.
    #[must_use]
    pub fn and_another(&self, calls: &[SystemCall]) -> Vec<Self> {
        let What::Calls(incidents) = &self.what else { return Vec::new() };
        let [(at, Incident::Error(first))] = incidents[..] else { return Vec::new() };
        // What it says to whoever has called it is no undoing.
        let later =
            steady(calls).skip_while(|call| place(call) != at).skip(1).filter(|call| !call.text.contains("<pipe:"));
        let faults = later.filter_map(|call| {
            // One that tells itself from the first.
            let second = *errors_of(call).iter().find(|errno| ![Errno::EINTR, first].contains(errno))?;
            Some(Self {
                what: What::Calls(vec![(at, Incident::Error(first)), (place(call), Incident::Error(second))]),
                reason_of_remains: Some(reason(second)),
                words: format!("{}, then {second:?} instead of {}", self.words, call.text),
                ..self.clone()
            })
        });
        faults.collect()
    }

    /// The process dies as it enters the call.
    #[must_use]
    pub fn death(call: &SystemCall) -> Self {
        Self {
            what: What::Calls(vec![(place(call), Incident::Death)]),
            reason: String::new(),
            reason_of_remains: None,
            is_harmless: false,
            is_final: true,
            words: format!("death at {}", call.text),
        }
    }

    /// Whether the command that it happened to has succeeded all the same. If it has not, it has failed with one error object
    /// that says why, or has ended where it may.
    #[must_use]
    pub fn is_survived(&self, reply: &Reply) -> bool {
        if reply.status == Some(0) {
            return true;
        }
        if self.is_ended(reply) {
            return false;
        }
        assert!(!self.is_harmless, "{self}: {reply:?}");
        assert_eq!(reply.status, Some(1), "{self}: {reply:?}");
        let (code, message, details) = reply.error();
        // As with the Go tools, a program that cannot be run has none.
        assert!(code > 0 || message.contains("netplugin failed"), "{self}: {reply:?}");
        assert!(!message.contains("internal error"), "{self}: {message}");
        let told = format!("{message} {details}").to_lowercase();
        assert!(told.contains(&self.reason), "{self}: there is no {:?} in: {told}", self.reason);
        false
    }

    pub(crate) fn is_ended(&self, reply: &Reply) -> bool {
        self.is_final && reply.status.is_none()
    }

    /// Sees to it that an ADD, which has failed, has told why that is left.
    pub(crate) fn may_leave(&self, left: &[String], reply: &Reply) {
        if left.is_empty() || self.is_ended(reply) {
            return;
        }
        let told = format!("{reply:?}").to_lowercase();
        let is_told = self.reason_of_remains.as_ref().is_some_and(|reason| told.contains(reason));
        assert!(is_told, "{self}: {left:?} is left, and nobody says why: {reply:?}");
    }
}

fn is_setns(call: &SystemCall, lack: Errno) -> bool {
    call.name == "setns" && takes(call, lack)
}

fn place(call: &SystemCall) -> Place {
    (call.name, call.which)
}

/// Those that have the same number each time.
///
/// What a program that is executed says comes in as many pieces as it pleases, so that reads from then on have not.
fn steady(calls: &[SystemCall]) -> impl Iterator<Item = &SystemCall> {
    let mut has_executed = false;
    calls.iter().filter(move |call| {
        has_executed |= call.text.contains("CLONE_VFORK");
        !has_executed || !matches!(call.name, "read" | "poll")
    })
}

/// The C library's words, in lower case.
pub(crate) fn reason(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap().to_lowercase()
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
