//! Who works when: a bounded number of operations at once, the others in the order of their arrival.
//!
//! Operations on one sandbox never run at once, and keep their order. A DEL fails the ADDs of its sandbox that still wait:
//! what they would make is not wanted any more. A DEL that comes before its ADD buries the sandbox, so that the ADD fails
//! when it comes.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use multus_cni::{Command, ContainerId};
use tokio::sync::watch;

/// Plans, dumps and results live on the heap; an operation was seen to take less than a tenth.
const STACK: usize = 1 << 20;
/// The kubelet gives a sandbox up after four minutes, and a shim waits for at most one.
const BURIED: Duration = Duration::from_secs(5 * 60);
/// As many as a spool has; past it the oldest ones are the least likely to be asked for.
const GRAVES: usize = 10_000;

/// The operations that are under way or wait. Clones share them.
#[derive(Clone)]
pub(crate) struct Operations {
    shared: Arc<Shared>,
}

/// One operation.
pub(crate) struct Operation {
    pub(crate) command: Command,
    /// What it works on; `None` for one that stands in nobody's way.
    pub(crate) sandbox: Option<ContainerId>,
    /// Whether the sandbox goes with it.
    pub(crate) is_end: bool,
    /// Called once, on a thread that may block: when its turn has come, or with why it never will.
    pub(crate) work: Box<dyn FnOnce(Result<(), Refusal>) + Send>,
}

/// Why an operation is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a DEL of the same sandbox overtook this ADD; the runtime has given the sandbox up")]
    Overtaken,
    #[error("multus-daemon is shutting down and attaches no more sandboxes; the next one will, try again")]
    Draining,
    #[error("multus-daemon ends, and this waited too long for its turn; the next one will take it, try again")]
    Ended,
    #[error("no thread for the operation: see the limits of processes and memory of the kube-multus-ds pod")]
    NoThread,
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) waiting: usize,
    pub(crate) in_flight: usize,
}

struct Shared {
    limit: usize,
    state: Mutex<State>,
    load: watch::Sender<Load>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Operation>,
    /// Those that somebody works on.
    sandboxes: HashSet<ContainerId>,
    threads: usize,
    graves: HashMap<ContainerId, Instant>,
    is_draining: bool,
}

impl Operations {
    /// At most `limit` at once.
    pub(crate) fn new(limit: usize) -> Self {
        let (state, (load, _)) = (Mutex::default(), watch::channel(Load::default()));
        Self { shared: Arc::new(Shared { limit, state, load }) }
    }

    /// Takes an operation, which will be called in any case.
    pub(crate) fn submit(&self, operation: Operation) {
        let mut state = self.shared.lock();
        let mut refused: Vec<(Operation, Refusal)> = Vec::new();
        match state.refusal(&operation) {
            Some(refusal) => refused.push((operation, refusal)),
            None => {
                if operation.is_end {
                    refused.extend(state.overtaken(operation.sandbox.as_ref()));
                }
                state.waiting.push_back(operation);
                if state.threads < self.shared.limit
                    && let Some(next) = state.next()
                {
                    state.threads += 1;
                    refused.extend(self.begin(&mut state, next));
                }
            }
        }
        self.shared.tell(&state);
        drop(state);
        for (operation, refusal) in refused {
            (operation.work)(Err(refusal));
        }
    }

    /// Fails every ADD of this sandbox for as long as one can be on its way.
    pub(crate) fn bury(&self, sandbox: &ContainerId) {
        let mut state = self.shared.lock();
        let now = Instant::now();
        if state.graves.len() >= GRAVES {
            state.graves.retain(|_, end| *end > now);
        }
        if state.graves.len() < GRAVES {
            state.graves.insert(sandbox.clone(), now + BURIED);
        }
    }

    /// Refuses ADDs from now on.
    pub(crate) fn drain(&self) {
        self.shared.lock().is_draining = true;
    }

    /// Fails everything that waits.
    pub(crate) fn give_up(&self) {
        let mut state = self.shared.lock();
        let waiting = std::mem::take(&mut state.waiting);
        self.shared.tell(&state);
        drop(state);
        for operation in waiting {
            (operation.work)(Err(Refusal::Ended));
        }
    }

    /// Returns when there is nothing to do.
    pub(crate) async fn idle(&self) {
        let mut load = self.shared.load.subscribe();
        // The sender is held by `self`.
        let _idle = load.wait_for(|load| *load == Load::default()).await;
    }

    pub(crate) fn load(&self) -> Load {
        *self.shared.load.borrow()
    }

    /// Starts a thread with `first`; gives that back when there is none to be had.
    fn begin(&self, state: &mut State, first: Operation) -> Option<(Operation, Refusal)> {
        let handed_over = Arc::new(Mutex::new(Some(first)));
        let (operations, slot) = (self.clone(), Arc::clone(&handed_over));
        let builder = thread::Builder::new().name("operation".to_owned()).stack_size(STACK);
        let started = builder.spawn(move || {
            let first = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            operations.work(first);
        });
        if started.is_ok() {
            return None;
        }
        state.threads -= 1;
        let first = handed_over.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        state.finished(first.sandbox.as_ref());
        Some((first, Refusal::NoThread))
    }

    /// Does `operation`, and then whatever comes next, until nothing waits.
    fn work(&self, mut operation: Option<Operation>) {
        while let Some(Operation { sandbox, work, .. }) = operation {
            work(Ok(()));
            let mut state = self.shared.lock();
            state.finished(sandbox.as_ref());
            operation = state.next();
            if operation.is_none() {
                state.threads -= 1;
            }
            self.shared.tell(&state);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, state: &State) {
        self.load.send_replace(Load { waiting: state.waiting.len(), in_flight: state.threads });
    }
}

impl State {
    fn refusal(&self, operation: &Operation) -> Option<Refusal> {
        let is_buried = |sandbox| self.graves.get(sandbox).is_some_and(|end| *end > Instant::now());
        if operation.command != Command::Add {
            None
        } else if operation.sandbox.as_ref().is_some_and(is_buried) {
            Some(Refusal::Overtaken)
        } else {
            self.is_draining.then_some(Refusal::Draining)
        }
    }

    /// Takes out the ADDs that a DEL overtakes.
    fn overtaken(&mut self, sandbox: Option<&ContainerId>) -> Vec<(Operation, Refusal)> {
        let is_moot = |operation: &Operation| {
            operation.command == Command::Add && sandbox.is_some() && operation.sandbox.as_ref() == sandbox
        };
        let (moot, waiting) = std::mem::take(&mut self.waiting).into_iter().partition::<VecDeque<_>, _>(is_moot);
        self.waiting = waiting;
        moot.into_iter().map(|operation| (operation, Refusal::Overtaken)).collect()
    }

    /// Takes out the first one that nobody's work stands in the way of.
    fn next(&mut self) -> Option<Operation> {
        let is_free =
            |operation: &Operation| operation.sandbox.as_ref().is_none_or(|sandbox| !self.sandboxes.contains(sandbox));
        let position = self.waiting.iter().position(is_free)?;
        let next = self.waiting.remove(position)?;
        self.sandboxes.extend(next.sandbox.clone());
        Some(next)
    }

    fn finished(&mut self, sandbox: Option<&ContainerId>) {
        if let Some(sandbox) = sandbox {
            self.sandboxes.remove(sandbox);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Operations that go on when they are told to, and what became of each.
    struct Rehearsal {
        operations: Operations,
        news: (Sender<String>, Receiver<String>),
    }

    impl Rehearsal {
        fn new(limit: usize) -> Self {
            Self { operations: Operations::new(limit), news: channel() }
        }

        /// Returns what lets it go on.
        fn submit(&self, name: &'static str, command: Command, sandbox: &str) -> Sender<()> {
            let (go, wait) = channel::<()>();
            let news = self.news.0.clone();
            let work = Box::new(move |turn: Result<(), Refusal>| match turn {
                Ok(()) => {
                    news.send(format!("{name} begins")).unwrap();
                    let _told_or_dropped = wait.recv();
                }
                Err(refusal) => news.send(format!("{name}: {refusal:?}")).unwrap(),
            });
            let (sandbox, is_end) = (Some(sandbox.parse().unwrap()), command == Command::Del);
            self.operations.submit(Operation { command, sandbox, is_end, work });
            go
        }

        fn next(&self) -> String {
            self.news.1.recv_timeout(Duration::from_secs(30)).unwrap()
        }

        fn settle(&self) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.operations.idle());
        }
    }

    #[test]
    fn no_more_than_the_limit_run_and_the_others_come_in_order() {
        let rehearsal = Rehearsal::new(2);
        let first = rehearsal.submit("first", Command::Add, "a");
        let second = rehearsal.submit("second", Command::Add, "b");
        let mut begun = [rehearsal.next(), rehearsal.next()];
        begun.sort();
        assert_eq!(begun, ["first begins", "second begins"]);
        let third = rehearsal.submit("third", Command::Add, "c");
        let fourth = rehearsal.submit("fourth", Command::Del, "d");
        assert_eq!(rehearsal.operations.load(), Load { waiting: 2, in_flight: 2 });
        drop(second);
        assert_eq!(rehearsal.next(), "third begins");
        drop(first);
        assert_eq!(rehearsal.next(), "fourth begins");
        drop((third, fourth));
        rehearsal.settle();
    }

    #[test]
    fn a_sandbox_is_worked_on_by_one_and_holds_up_nobody_else() {
        let rehearsal = Rehearsal::new(4);
        let add = rehearsal.submit("add", Command::Add, "a");
        assert_eq!(rehearsal.next(), "add begins");
        let del = rehearsal.submit("del", Command::Del, "a");
        let check = rehearsal.submit("check", Command::Check, "a");
        let other = rehearsal.submit("other", Command::Add, "b");
        assert_eq!(rehearsal.next(), "other begins");
        assert_eq!(rehearsal.operations.load(), Load { waiting: 2, in_flight: 2 });
        drop(add);
        assert_eq!(rehearsal.next(), "del begins");
        drop(del);
        assert_eq!(rehearsal.next(), "check begins");
        drop((check, other));
        rehearsal.settle();
    }

    #[test]
    fn a_del_fails_the_adds_of_its_sandbox_that_wait() {
        let rehearsal = Rehearsal::new(1);
        let busy = rehearsal.submit("busy", Command::Add, "z");
        assert_eq!(rehearsal.next(), "busy begins");
        drop(rehearsal.submit("add", Command::Add, "a"));
        drop(rehearsal.submit("other", Command::Add, "b"));
        drop(rehearsal.submit("del", Command::Del, "a"));
        assert_eq!(rehearsal.next(), "add: Overtaken");
        drop(busy);
        assert_eq!([rehearsal.next(), rehearsal.next()], ["other begins", "del begins"]);
        rehearsal.settle();
    }

    #[test]
    fn who_is_buried_is_not_attached() {
        let rehearsal = Rehearsal::new(1);
        rehearsal.operations.bury(&"a".parse().unwrap());
        drop(rehearsal.submit("add", Command::Add, "a"));
        assert_eq!(rehearsal.next(), "add: Overtaken");
        drop(rehearsal.submit("del", Command::Del, "a"));
        assert_eq!(rehearsal.next(), "del begins");
        rehearsal.settle();
    }

    #[test]
    fn while_it_drains_only_adds_are_refused() {
        let rehearsal = Rehearsal::new(1);
        let busy = rehearsal.submit("busy", Command::Add, "a");
        assert_eq!(rehearsal.next(), "busy begins");
        drop(rehearsal.submit("waits", Command::Add, "b"));
        rehearsal.operations.drain();
        drop(rehearsal.submit("late", Command::Add, "c"));
        assert_eq!(rehearsal.next(), "late: Draining");
        drop(rehearsal.submit("del", Command::Del, "c"));
        drop(busy);
        assert_eq!([rehearsal.next(), rehearsal.next()], ["waits begins", "del begins"]);
        rehearsal.settle();
    }

    #[test]
    fn a_thousand_at_once_are_all_called() {
        let rehearsal = Rehearsal::new(8);
        let names: Vec<String> = (0..1000).map(|number| format!("c{}", number % 50)).collect();
        for name in &names {
            drop(rehearsal.submit("one", Command::Check, name));
        }
        rehearsal.settle();
        assert_eq!(rehearsal.news.1.try_iter().count(), 1000);
        assert_eq!(rehearsal.operations.load(), Load::default());
    }
}
