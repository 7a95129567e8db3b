//! Requests with deadlines and retries.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::Request;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use serde::de::DeserializeOwned;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};

use super::{Access, Error};

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// One request, from waiting for a connection to the last byte of the answer.
    pub attempt: Duration,
    /// One call, with all its requests and the pauses between them.
    pub overall: Duration,
    /// One watch. It is then begun anew, so that a connection that died in silence is noticed.
    pub watch: Duration,
}

impl Default for Limits {
    /// 5 s, 20 s and 4 min.
    fn default() -> Self {
        Self { attempt: Duration::from_secs(5), overall: Duration::from_secs(20), watch: Duration::from_secs(4 * 60) }
    }
}

/// A connection to an API server. Clones share it.
#[derive(Clone)]
pub(super) struct Client {
    connection: Arc<RwLock<kube::Client>>,
    turns: Arc<Semaphore>,
    pub(super) host: Arc<str>,
    pub(super) limits: Limits,
}

impl Client {
    /// Must be called within a runtime.
    pub(super) fn new(access: &Access, limits: Limits) -> Result<Self, Error> {
        let connection = Arc::new(RwLock::new(access.connect()?));
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self { connection, turns, host: access.host().into(), limits })
    }

    /// Must be called within a runtime.
    pub(super) fn reconnect(&self, access: &Access) -> Result<(), Error> {
        let connection = access.connect()?;
        *self.connection.write().unwrap_or_else(PoisonError::into_inner) = connection;
        Ok(())
    }

    pub(super) fn connection(&self) -> kube::Client {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When a call that begins now must end.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.limits.overall
    }

    /// The answer to `request`, which may be sent more than once until `deadline`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        expected: &'static str,
        request: Request<Vec<u8>>,
        deadline: Instant,
    ) -> Result<T, Error> {
        let body = self.send(request, deadline).await?;
        serde_json::from_slice(&body).map_err(|error| Error::malformed(&self.host, expected, &error))
    }

    /// Sends `request`, maybe more than once until `deadline`, and gives the body of the answer.
    pub(super) async fn send(&self, request: Request<Vec<u8>>, deadline: Instant) -> Result<Vec<u8>, Error> {
        let mut pauses = Pauses::new();
        let mut former = None;
        loop {
            let limit = deadline.saturating_duration_since(Instant::now()).min(self.limits.attempt);
            let failure = match timeout(limit, self.attempt(request.clone())).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(failure)) => failure,
                // An attempt cut short says less than the one before.
                Err(_) if limit < self.limits.attempt => former.unwrap_or_else(|| self.silent(limit)),
                Err(_) => self.silent(limit),
            };
            match failure.retry_after(pauses.next()) {
                Some(pause) if Instant::now() + pause < deadline => sleep(pause).await,
                _ => return Err(failure),
            }
            former = Some(failure);
        }
    }

    pub(super) fn silent(&self, limit: Duration) -> Error {
        // Nobody counts in nanoseconds here.
        let limit = Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        Error::Silent { host: self.host.to_string(), limit }
    }

    async fn attempt(&self, request: Request<Vec<u8>>) -> Result<Vec<u8>, Error> {
        // Nobody closes it.
        let _turn = self.turns.acquire().await;
        let answer = self.connection().send(request.map(Body::from)).await;
        let (head, body) = answer.map_err(|error| Error::transport(&self.host, &error))?.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => Error::TooLong { host: self.host.to_string(), limit: MAX_BODY },
            false => Error::transport(&self.host, &*error),
        });
        let body = body?.to_bytes();
        match head.status.is_success() {
            true => Ok(body.into()),
            false => Err(Error::refused(&self.host, head.status, &head.headers, &body)),
        }
    }
}

/// Growing pauses, each a bit off, so that many who lost one server do not come back in step.
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    /// Between requests that somebody waits for.
    pub(super) fn new() -> Self {
        Self { next: Duration::from_millis(50), longest: Duration::from_secs(2) }
    }

    /// Between attempts to be the first of several writers.
    pub(super) fn between_writers() -> Self {
        Self { next: Duration::from_millis(10), longest: Duration::from_millis(200) }
    }

    /// Between attempts that nobody waits for.
    pub(super) fn in_background() -> Self {
        Self { longest: Duration::from_secs(30), ..Self::new() }
    }

    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        let off = u32::try_from(RandomState::new().hash_one(()) % 256).unwrap_or_default();
        pause / 2 + pause * off / 256
    }
}

/// For requests at once; each costs a handshake, and 100 kB while it is open. Watches have their own.
const CONNECTIONS: usize = 16;

/// More than an API server answers to anything that is asked here.
const MAX_BODY: usize = 64 << 20;
