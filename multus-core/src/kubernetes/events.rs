//! Events, sent in the background.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use http::StatusCode;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::{Error, client::Client, error::chain, objects};
use crate::{Event, PodReference};

/// Who tells of events, and when.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// The program; upstream's is `multus`.
    pub component: String,
    /// The node; may be empty.
    pub node: String,
    /// The clock.
    pub now: fn() -> SystemTime,
}

/// Events that wait to be sent. Those that find no room are counted and forgotten.
pub(super) struct EventQueue {
    sender: mpsc::Sender<Waiting>,
    now: fn() -> SystemTime,
    dropped: AtomicU64,
}

enum Waiting {
    Event { pod: PodReference, event: Event, time: SystemTime },
    Flush(oneshot::Sender<()>),
}

impl EventQueue {
    /// The queue, and what must run for its events to be sent.
    pub(super) fn new(client: Client, reporter: Reporter) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let queue = Self { sender, now: reporter.now, dropped: AtomicU64::new(0) };
        (queue, Sending { client, reporter, sent: VecDeque::new(), last: 0 }.run(receiver))
    }

    pub(super) fn push(&self, pod: &PodReference, event: Event) {
        let waiting = Waiting::Event { pod: pod.clone(), event, time: (self.now)() };
        if self.sender.try_send(waiting).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Until every event that waits now was sent, or given up.
    pub(super) async fn flush(&self) {
        let (done, all_done) = oneshot::channel();
        if self.sender.send(Waiting::Flush(done)).await.is_ok() {
            let _closed = all_done.await;
        }
    }
}

struct Sending {
    client: Client,
    reporter: Reporter,
    /// The last few, so that a repetition is counted in the event that is there.
    sent: VecDeque<Sent>,
    /// In the last event's name.
    last: u64,
}

struct Sent {
    pod: PodReference,
    event: Event,
    name: String,
    count: u32,
}

impl Sending {
    async fn run(mut self, mut waiting: mpsc::Receiver<Waiting>) {
        while let Some(next) = waiting.recv().await {
            match next {
                Waiting::Flush(done) => drop(done.send(())),
                Waiting::Event { pod, event, time } => {
                    if let Err(error) = self.send(&pod, &event, time).await {
                        tracing::warn!("event {} of pod {pod}: {error}", event.reason);
                    }
                }
            }
        }
    }

    async fn send(&mut self, pod: &PodReference, event: &Event, time: SystemTime) -> Result<(), Error> {
        let seconds = Timestamp::try_from(time).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let is_same = |sent: &&mut Sent| sent.pod == *pod && sent.event == *event;
        if let Some(sent) = self.sent.iter_mut().find(is_same) {
            let patch = Patch::Merge(json!({ "count": sent.count + 1, "lastTimestamp": seconds }));
            let request = objects::events(&pod.namespace)?.patch(&sent.name, &PatchParams::default(), &patch);
            let request = request.map_err(|error| Error::access(&self.client.host, chain(&error)))?;
            match self.client.send(request, self.client.deadline()).await {
                // Events live for an hour.
                Err(error) if error.is_not_found() => {}
                outcome => {
                    sent.count += 1;
                    return outcome.map(drop);
                }
            }
        }
        self.sent.retain(|sent| sent.pod != *pod || sent.event != *event);
        let name = self.create(pod, event, &seconds, time).await?;
        self.sent.truncate(REMEMBERED - 1);
        self.sent.push_front(Sent { pod: pod.clone(), event: event.clone(), name, count: 1 });
        Ok(())
    }

    async fn create(
        &mut self,
        pod: &PodReference,
        event: &Event,
        seconds: &str,
        time: SystemTime,
    ) -> Result<String, Error> {
        let nanoseconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.last = u64::try_from(nanoseconds).unwrap_or_default().max(self.last + 1);
        // A name has 253 characters at most.
        let name = format!("{}.{:x}", pod.name.chars().take(230).collect::<String>(), self.last);
        let message: String = event.message.chars().take(MESSAGE_LENGTH).collect();
        let body = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": pod.namespace },
            "involvedObject": {
                "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
            },
            "type": event.kind.as_str(),
            "reason": event.reason,
            "message": message,
            "source": { "component": self.reporter.component, "host": self.reporter.node },
            "reportingComponent": self.reporter.component,
            "reportingInstance": self.reporter.node,
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "count": 1,
        });
        let request = objects::events(&pod.namespace)?.create(&PostParams::default(), body.to_string().into_bytes());
        let request = request.map_err(|error| Error::access(&self.client.host, chain(&error)))?;
        match self.client.send(request, self.client.deadline()).await {
            // An attempt whose answer was lost.
            Err(error) if error.is(StatusCode::CONFLICT) => Ok(name),
            outcome => outcome.map(|_| name),
        }
    }
}

/// How many events wait at most.
const CAPACITY: usize = 256;
/// How many are remembered for their repetition.
const REMEMBERED: usize = 64;
/// Of an event.
const MESSAGE_LENGTH: usize = 1000;
