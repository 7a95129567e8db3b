//! What happens at the system calls of a process, while it does something.

use std::{collections::HashMap, fs};

use nix::{errno::Errno, unistd::Pid};

use crate::{
    Call, Fault, Lab, Netns, Reply, SystemCall,
    errors::{errors_of, takes},
    faults::{Incident, Place, What},
    tracer::{Verdict, traced},
};

/// Does `work` while `fault`, if one is given, happens to threads of these names in `process`. Only calls that can fail are
/// counted, so that it does not matter how often a thread waits for another. Returns also these calls.
pub fn inject<T>(
    process: u32,
    threads: &[&str],
    fault: Option<&Fault>,
    work: impl FnOnce() -> T,
) -> (T, Vec<SystemCall>) {
    let mut known: HashMap<Pid, bool> = HashMap::new();
    let is_named = |thread: Pid| {
        let name = fs::read_to_string(format!("/proc/{process}/task/{thread}/comm")).unwrap_or_default();
        threads.contains(&name.trim_end())
    };
    // A thread has its name from soon after its start on.
    let is_counted = |thread: Pid, call: &SystemCall| {
        let is_of_them = known.entry(thread).or_default();
        *is_of_them = *is_of_them || is_named(thread);
        *is_of_them && !errors_of(call).is_empty()
    };
    let mut injector = Injector::new(process, fault, is_counted);
    let done = traced(process, |thread| injector.judge(thread), work);
    let (calls, happened) = (injector.calls, injector.happened);
    must_have_happened(fault, happened, &calls);
    (done, calls)
}

impl Call {
    /// Runs it in the lab's host, with that happening to it.
    #[must_use]
    pub fn run_with(&self, fault: &Fault, lab: &Lab) -> Reply {
        match &fault.what {
            What::Injections(injections) => self.run_with_injections(injections, lab),
            What::Calls(_) => self.follow_in(&lab.host, Some(fault)).0,
        }
    }

    /// As [`follow`](Self::follow), in `host`.
    #[must_use]
    pub fn follow_in(&self, host: &Netns, fault: Option<&Fault>) -> (Reply, Vec<SystemCall>) {
        host.within(|| self.follow(fault))
    }

    /// Runs it in the caller's namespace, with that happening to it, if anything is to. Returns also the system calls that its
    /// first thread makes from when it reads its configuration on.
    #[must_use]
    pub fn follow(&self, fault: Option<&Fault>) -> (Reply, Vec<SystemCall>) {
        let begun = self.begin();
        let process = begun.id();
        let first = Pid::from_raw(process.try_into().unwrap());
        let mut has_begun = false;
        let is_counted = |thread: Pid, _: &SystemCall| {
            has_begun |= thread == first && SystemCall::is_reading_of_stdin(thread);
            has_begun && thread == first
        };
        let mut injector = Injector::new(process, fault, is_counted);
        let reply = traced(process, |thread| injector.judge(thread), || begun.reply());
        let (calls, happened) = (injector.calls, injector.happened);
        must_have_happened(fault, happened, &calls);
        (reply, calls)
    }
}

/// Counts calls, and says what becomes of each.
struct Injector<'a, C> {
    process: Pid,
    incidents: &'a [(Place, Incident)],
    is_counted: C,
    counts: HashMap<&'static str, usize>,
    calls: Vec<SystemCall>,
    lack: Option<Errno>,
    happened: usize,
}

impl<'a, C: FnMut(Pid, &SystemCall) -> bool> Injector<'a, C> {
    fn new(process: u32, fault: Option<&'a Fault>, is_counted: C) -> Self {
        let incidents: &[(Place, Incident)] = match fault.map(|fault| &fault.what) {
            None => &[],
            Some(What::Calls(incidents)) => incidents,
            Some(What::Injections(injections)) => panic!("{injections:?} are for strace(1)"),
        };
        let process = Pid::from_raw(process.try_into().unwrap());
        Self { process, incidents, is_counted, counts: HashMap::new(), calls: Vec::new(), lack: None, happened: 0 }
    }

    fn judge(&mut self, thread: Pid) -> Verdict {
        let Some(call) = SystemCall::entered(self.process, thread).filter(|call| (self.is_counted)(thread, call))
        else {
            return Verdict::Done;
        };
        let which = self.counts.entry(call.name).or_default();
        *which += 1;
        let call = SystemCall { which: *which, ..call };
        let incident = self.incidents.iter().find(|(place, _)| *place == (call.name, call.which));
        let verdict = match incident.map(|(_, incident)| *incident) {
            Some(Incident::Death) => Verdict::Deadly,
            Some(Incident::Error(errno)) => Verdict::Failed(errno),
            Some(Incident::Lack(lack)) => {
                self.lack = Some(lack);
                Verdict::Failed(lack)
            }
            None => match self.lack.filter(|lack| takes(&call, *lack)) {
                Some(lack) => Verdict::Failed(lack),
                None => Verdict::Done,
            },
        };
        self.happened += usize::from(incident.is_some());
        self.calls.push(call);
        verdict
    }
}

fn must_have_happened(fault: Option<&Fault>, happened: usize, calls: &[SystemCall]) {
    let Some(Fault { what: What::Calls(incidents), .. }) = fault else { return };
    let made: Vec<&str> = calls.iter().map(|call| call.text.as_str()).collect();
    assert_eq!(happened, incidents.len(), "{incidents:?} did not happen at: {made:#?}");
}
