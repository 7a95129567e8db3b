//! Copies of objects, kept up by a watch.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use futures::TryStreamExt;
use http::StatusCode;
use kube::{
    api::{ListParams, Request, WatchEvent, WatchParams},
    core::Status,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{
    Error,
    client::{Client, Pauses},
    error::chain,
    objects::{List, Object, Weight},
};

/// Copies of the objects of one kind, by namespace and name.
pub(super) struct Copies<T> {
    state: watch::Sender<State<T>>,
}

struct State<T> {
    /// Whether a watch stands. A copy from before it broke may be outdated.
    is_current: bool,
    objects: HashMap<String, T>,
    /// Of all of them, in bytes.
    weight: usize,
}

impl<T: Weight> State<T> {
    /// One that does not fit is asked for when it is needed, as one that is newer.
    fn keep(&mut self, key: String, object: T) {
        self.forget(&key);
        let weight = object.weight();
        if weight <= HEAVIEST && self.weight + weight <= HEAVIEST_OF_ALL {
            self.weight += weight;
            self.objects.insert(key, object);
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(former) = self.objects.remove(key) {
            self.weight -= former.weight();
        }
    }

    fn forget_all(&mut self) {
        self.objects.clear();
        self.weight = 0;
    }
}

/// Of one copy and of all, in bytes: whoever may make objects chooses how many there are and how long. A network and what is
/// kept of a pod mostly have less than one kilobyte.
const HEAVIEST: usize = 64 << 10;
const HEAVIEST_OF_ALL: usize = 16 << 20;

impl<T: Clone + Weight> Copies<T> {
    pub(super) fn new() -> Self {
        Self { state: watch::Sender::new(State { is_current: false, objects: HashMap::new(), weight: 0 }) }
    }

    /// The copy of that object; `None` also while the watch does not stand.
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<T> {
        let state = self.state.borrow();
        state.objects.get(&key(namespace, name)).filter(|_| state.is_current).cloned()
    }

    /// How many there are; `None` while the watch does not stand.
    pub(super) fn count(&self) -> Option<usize> {
        let state = self.state.borrow();
        state.is_current.then_some(state.objects.len())
    }

    /// Waits until the watch stands.
    pub(super) async fn current(&self) {
        let _closed = self.state.subscribe().wait_for(|state| state.is_current).await.is_err();
    }

    /// Those that are `wanted`; they may be outdated while the watch does not stand.
    pub(super) fn all(&self, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        self.state.borrow().objects.values().filter(|object| wanted(object)).cloned().collect()
    }

    /// What happens from now on.
    pub(super) fn changes(&self) -> Changes<T> {
        Changes(self.state.subscribe())
    }

    fn change(&self, change: impl FnOnce(&mut State<T>)) {
        self.state.send_modify(change);
    }
}

/// Tells that something has changed.
pub(super) struct Changes<T>(watch::Receiver<State<T>>);

impl<T> Changes<T> {
    /// Waits for a change since the last call.
    pub(super) async fn next(&mut self) {
        let _closed = self.0.changed().await;
    }
}

/// Keeps `copies` up to date, for ever. `selector` says of which objects, by their fields.
pub(super) async fn keep<T: Object>(client: Client, selector: Option<String>, copies: Arc<Copies<T::Kept>>) {
    let mut watch = Watch::<T> { client, selector, copies, version: None };
    let mut pauses = Pauses::in_background();
    loop {
        let begun = Instant::now();
        let outcome = watch.run().await;
        watch.copies.change(|state| state.is_current = false);
        if let Err(error) = outcome {
            // What happened since is still to be had, unless the answer itself was the trouble.
            if !matches!(error, Error::Unreachable { .. } | Error::Silent { .. }) {
                watch.version = None;
            }
            if !error.is(StatusCode::GONE) {
                tracing::warn!("watch of {}: {error}; requests are made live until it works again", T::PATH);
            }
        }
        if begun.elapsed() > LONG_ENOUGH {
            pauses = Pauses::in_background();
        }
        sleep(pauses.next()).await;
    }
}

struct Watch<T: Object> {
    client: Client,
    selector: Option<String>,
    copies: Arc<Copies<T::Kept>>,
    /// Up to where the copies are known to be complete; `None` when they must be listed.
    version: Option<String>,
}

impl<T: Object> Watch<T> {
    async fn run(&mut self) -> Result<(), Error> {
        let version = match self.version.take() {
            Some(version) => version,
            None => self.list().await?,
        };
        self.version = Some(version);
        let limits = self.client.limits;
        // The server ends it in time, unless it cannot be heard any more.
        timeout(limits.watch + limits.attempt, self.follow()).await.unwrap_or(Ok(()))
    }

    async fn list(&self) -> Result<String, Error> {
        let mut parameters = ListParams { field_selector: self.selector.clone(), ..ListParams::default() };
        // Any version that the server has at hand: what it lacks is in the watch that follows.
        parameters.resource_version = Some("0".to_owned());
        let all = Request::new(T::PATH);
        let request = if T::METADATA_ONLY { all.list_metadata(&parameters) } else { all.list(&parameters) };
        let request = request.map_err(|error| Error::access(&self.client.host, chain(&error)))?;
        let list: List<T> = self.client.ask("a list", request, self.client.deadline()).await?;
        self.copies.change(|state| {
            state.forget_all();
            for object in list.items.unwrap_or_default() {
                state.keep(key_of(&object), object.keep());
            }
        });
        Ok(list.metadata.resource_version)
    }

    async fn follow(&mut self) -> Result<(), Error> {
        let (limits, host) = (self.client.limits, self.client.host.clone());
        let seconds = u32::try_from(limits.watch.as_secs().max(1)).unwrap_or(u32::MAX);
        let parameters =
            WatchParams { field_selector: self.selector.clone(), timeout: Some(seconds), ..WatchParams::default() };
        let (all, version) = (Request::new(T::PATH), self.version.clone().unwrap_or_default());
        let request = match T::METADATA_ONLY {
            true => all.watch_metadata(&parameters, &version),
            false => all.watch(&parameters, &version),
        };
        let request = request.map_err(|error| Error::access(&host, chain(&error)))?;
        let connection = self.client.connection();
        let begun = timeout(limits.attempt, connection.request_events::<T>(request)).await;
        let begun = begun.map_err(|_| self.client.silent(limits.attempt))?;
        let mut events = pin!(begun.map_err(|error| failure(&host, error))?);
        self.copies.change(|state| state.is_current = true);
        while let Some(event) = events.try_next().await.map_err(|error| failure(&host, error))? {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.version = Some(object.metadata().resource_version.clone());
                    self.copies.change(|state| state.keep(key_of(&object), object.keep()));
                }
                WatchEvent::Deleted(object) => {
                    self.version = Some(object.metadata().resource_version.clone());
                    self.copies.change(|state| state.forget(&key_of(&object)));
                }
                WatchEvent::Bookmark(bookmark) => self.version = Some(bookmark.metadata.resource_version),
                WatchEvent::Error(status) => return Err(refusal(&host, *status)),
            }
        }
        Ok(())
    }
}

/// What a watch lasts when all is well.
const LONG_ENOUGH: Duration = Duration::from_secs(30);

fn failure(host: &str, error: kube::Error) -> Error {
    if let kube::Error::SerdeError(error) = &error {
        return Error::malformed(host, "a watch event", error);
    }
    if let kube::Error::Api(status) = error {
        return refusal(host, *status);
    }
    Error::transport(host, &error)
}

fn refusal(host: &str, status: Status) -> Error {
    Error::Refused {
        host: host.to_owned(),
        status: StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        reason: status.reason,
        message: status.message.chars().take(300).collect(),
        retry_after: None,
    }
}

fn key_of(object: &impl Object) -> String {
    key(&object.metadata().namespace, &object.metadata().name)
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pod, PodReference};

    /// Anybody who may create pods may bind any number of them to a node.
    #[test]
    fn copies_of_pods_have_an_end() {
        let mut state = State { is_current: true, objects: HashMap::new(), weight: 0 };
        let pod =
            |length| Pod { reference: PodReference::default(), networks: Some("x".repeat(length)), ..Pod::default() };
        state.keep("long".to_owned(), pod(HEAVIEST + 1));
        for number in 0..300 {
            state.keep(number.to_string(), pod(HEAVIEST));
        }
        assert_eq!(state.objects.len(), HEAVIEST_OF_ALL / HEAVIEST);
        state.forget_all();
        state.keep("one".to_owned(), pod(HEAVIEST));
        assert_eq!(state.objects.len(), 1);
    }
}
