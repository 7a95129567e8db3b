//! A call, carried out.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use multus_cni::{Command, Error, ErrorCode, ErrorObject, Pending, Plugin, Version};
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::{
    call::Call,
    metrics::Metrics,
    operations::{Operation, Operations, Refusal},
};

/// Calls a plugin, each call in its turn. Clones share everything.
#[derive(Clone)]
pub(crate) struct Executor {
    plugin: Arc<dyn Plugin>,
    pub(crate) operations: Operations,
    metrics: Metrics,
}

/// What a call came to.
pub(crate) struct Outcome {
    /// The body of the answer.
    pub(crate) result: Result<Vec<u8>, ErrorObject>,
    /// Of an ADD: whether the answer has arrived. What it made stays if so, and is undone if not, or if this is dropped.
    pub(crate) delivery: Option<oneshot::Sender<bool>>,
}

impl Executor {
    pub(crate) fn new(plugin: Arc<dyn Plugin>, operations: Operations, metrics: Metrics) -> Self {
        Self { plugin, operations, metrics }
    }

    /// The same for another plugin.
    pub(crate) fn for_plugin(&self, plugin: Arc<dyn Plugin>) -> Self {
        Self { plugin, ..self.clone() }
    }

    /// Puts `call` in the queue. Who drops the receiver is gone: then a call that has not begun yet is left, unless it
    /// cleans up, and what an ADD has made is undone.
    pub(crate) fn submit(&self, call: Call) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        let (executor, command) = (self.clone(), call.command);
        let (sandbox, is_end) = (call.sandbox().cloned(), call.is_end());
        let work = Box::new(move |turn: Result<(), Refusal>| match turn {
            Ok(()) => executor.execute(&call, answer),
            Err(refusal) => {
                let error = Error::from_plugin(ErrorCode::TryAgainLater, refusal);
                info!(command = call.command.as_str(), sandbox = sandbox_of(&call), %error, "refused");
                let _gone = answer.send(Outcome { result: Err(error.object()), delivery: None });
            }
        });
        self.operations.submit(Operation { command, sandbox, is_end, work });
        outcome
    }

    fn execute(&self, call: &Call, answer: oneshot::Sender<Outcome>) {
        let (command, sandbox) = (call.command, sandbox_of(call));
        if answer.is_closed() && command != Command::Del {
            info!(command = command.as_str(), sandbox, "not begun: nobody waits for it any more");
            return;
        }
        let begin = Instant::now();
        let (result, pending) = match caught(|| self.call(call)) {
            Ok(done) => done,
            Err(error) => (Err(error.object()), None),
        };
        self.metrics.observe(command, result.is_ok(), begin.elapsed());
        match &result {
            Ok(_) => info!(command = command.as_str(), sandbox, elapsed = ?begin.elapsed(), "done"),
            Err(error) => error!(command = command.as_str(), sandbox, code = error.code, %error, "failed"),
        }
        match pending {
            None => drop(answer.send(Outcome { result, delivery: None })),
            Some(pending) => {
                let (delivery, delivered) = oneshot::channel();
                let is_sent = answer.send(Outcome { result, delivery: Some(delivery) }).is_ok();
                if is_sent && delivered.blocking_recv() == Ok(true) {
                    // A panic in here would be this thread's end, and the sandbox's turn with it.
                    let _kept = caught(|| Ok(pending.keep()));
                } else {
                    let undone = caught(|| pending.undo());
                    let remains = undone.err().map(|error| error.to_string()).unwrap_or_default();
                    error!(command = command.as_str(), sandbox, remains, "undone: its result reached nobody");
                }
            }
        }
    }

    fn call(&self, call: &Call) -> Result<Done, Error> {
        let (plugin, invocation) = (&self.plugin, &call.invocation);
        let done = |()| (Ok(Vec::new()), None);
        match (call.command, &call.attachment) {
            (Command::Add, Some(attachment)) => {
                let pending = plugin.add(attachment, invocation)?;
                let mut body = br#"{"Result":"#.to_vec();
                body.extend(pending.success().print(Version::LATEST)?);
                body.push(b'}');
                Ok((Ok(body), Some(pending)))
            }
            (Command::Del, Some(attachment)) => plugin.del(attachment, invocation).map(done),
            (Command::Check, Some(attachment)) => plugin.check(attachment, invocation).map(done),
            (Command::Gc, _) => plugin.gc(invocation).map(done),
            (Command::Status, _) => plugin.status(invocation).map(done),
            // A call of the first three has an attachment, and there is none of the last.
            (Command::Add | Command::Del | Command::Check | Command::Version, _) => Ok(done(())),
        }
    }
}

type Done = (Result<Vec<u8>, ErrorObject>, Option<Pending>);

/// What a panic told.
#[derive(Debug, thiserror::Error)]
#[error("internal error, please report it: {0}")]
struct Panic(String);

/// Does `work`; a panic in it is its failure. What it had made is undone while unwinding.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let said = |panic: &(dyn Any + Send)| match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no message".to_owned(),
    };
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::from_plugin(ErrorCode::Internal, Panic(said(&*panic)))))
}

fn sandbox_of(call: &Call) -> &str {
    call.sandbox().map_or("", |sandbox| sandbox.as_str())
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Mutex, mpsc},
    };

    use multus_cni::{Attachment, Environment, Invocation, Success};
    use multus_shim::Request;

    use super::*;
    use crate::{call::Surroundings, options::Overrides};

    /// Writes down what is done with it.
    struct Diary {
        entries: Arc<Mutex<Vec<String>>>,
        /// ADDs go on when these are told to.
        gate: Mutex<Option<mpsc::Receiver<()>>>,
    }

    impl Diary {
        fn note(&self, what: &str, attachment: &Attachment) {
            self.entries.lock().unwrap().push(format!("{what} {}", attachment.container_id));
        }
    }

    impl Plugin for Diary {
        fn add(&self, attachment: &Attachment, _: &Invocation) -> Result<Pending, Error> {
            self.note("add", attachment);
            assert!(attachment.container_id.as_str() != "cursed", "out of luck");
            if let Some(gate) = &*self.gate.lock().unwrap() {
                let _told_or_dropped = gate.recv();
            }
            let (entries, id) = (Arc::clone(&self.entries), attachment.container_id.clone());
            Ok(Pending::new(Success::default(), move || {
                entries.lock().unwrap().push(format!("undo {id}"));
                Ok(())
            }))
        }

        fn del(&self, attachment: &Attachment, _: &Invocation) -> Result<(), Error> {
            self.note("del", attachment);
            Ok(())
        }

        fn check(&self, attachment: &Attachment, _: &Invocation) -> Result<(), Error> {
            self.note("check", attachment);
            Ok(())
        }

        fn status(&self, _: &Invocation) -> Result<(), Error> {
            Ok(())
        }

        fn gc(&self, _: &Invocation) -> Result<(), Error> {
            Ok(())
        }
    }

    struct Stage {
        executor: Executor,
        entries: Arc<Mutex<Vec<String>>>,
        gate: mpsc::Sender<()>,
    }

    impl Stage {
        fn new(is_gated: bool) -> Self {
            let (gate, receiver) = mpsc::channel();
            let entries = Arc::default();
            let diary = Diary { entries: Arc::clone(&entries), gate: Mutex::new(is_gated.then_some(receiver)) };
            let executor = Executor::new(Arc::new(diary), Operations::new(1), Metrics::default());
            Self { executor, entries, gate }
        }

        fn submit(&self, command: &str, sandbox: &str) -> oneshot::Receiver<Outcome> {
            let args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p";
            let environment =
                [("CNI_COMMAND", command), ("CNI_CONTAINERID", sandbox), ("CNI_NETNS", ""), ("CNI_ARGS", args)];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let request = Request { environment, config: br#"{"name":"n"}"#.to_vec() };
            let surroundings = Surroundings::new(Overrides::default(), b"{}", Environment::default(), Path::new("/"));
            self.executor.submit(Call::new(&request, &Arc::new(surroundings)).unwrap())
        }

        fn diary(self) -> Vec<String> {
            drop(self.gate);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(self.executor.operations.idle());
            std::mem::take(&mut *self.entries.lock().unwrap())
        }
    }

    #[test]
    fn what_is_delivered_stays() {
        let stage = Stage::new(false);
        let outcome = stage.submit("ADD", "a").blocking_recv().unwrap();
        assert!(outcome.result.unwrap().starts_with(b"{\"Result\":{"));
        outcome.delivery.unwrap().send(true).unwrap();
        assert_eq!(stage.diary(), ["add a"]);
    }

    #[test]
    fn what_is_not_delivered_is_undone() {
        let stage = Stage::new(false);
        let outcome = stage.submit("ADD", "a").blocking_recv().unwrap();
        outcome.delivery.unwrap().send(false).unwrap();
        drop(stage.submit("ADD", "b").blocking_recv().unwrap());
        assert_eq!(stage.diary(), ["add a", "undo a", "add b", "undo b"]);
    }

    #[test]
    fn whoever_leaves_during_an_add_has_it_undone_and_before_it_has_it_not_begun() {
        let stage = Stage::new(true);
        let first = stage.submit("ADD", "a");
        while stage.entries.lock().unwrap().is_empty() {
            std::thread::yield_now();
        }
        let (second, third, fourth) = (stage.submit("ADD", "b"), stage.submit("CHECK", "c"), stage.submit("DEL", "d"));
        drop((first, second, third, fourth));
        assert_eq!(stage.diary(), ["add a", "undo a", "del d"]);
    }

    #[test]
    fn a_panic_is_one_failed_call() {
        let stage = Stage::new(false);
        let error = stage.submit("ADD", "cursed").blocking_recv().unwrap().result.unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (999, "internal error, please report it: out of luck"));
        assert!(stage.submit("DEL", "cursed").blocking_recv().unwrap().result.is_ok());
        assert_eq!(stage.diary(), ["add cursed", "del cursed"]);
    }

    #[test]
    fn a_refusal_tells_to_try_again() {
        let stage = Stage::new(false);
        stage.executor.operations.drain();
        let error = stage.submit("ADD", "a").blocking_recv().unwrap().result.unwrap_err();
        assert_eq!(error.code, 11);
        assert!(error.msg.starts_with("multus-daemon is shutting down"), "{error}");
    }
}
