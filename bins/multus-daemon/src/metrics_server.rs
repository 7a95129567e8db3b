//! The metrics, over plain HTTP.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use multus_shim::Spool;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::Semaphore,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{error::Error, metrics::Metrics, operations::Operations, ranges::WatchedHostLocal};

const CONNECTIONS: usize = 64;
/// Of one address, since anybody may connect: who holds more than a scraper needs is cut off, and holds up nobody.
const CONNECTIONS_EACH: usize = 4;
/// For the head of a request.
const HEAD_LIMIT: usize = 8 << 10;
const PATIENCE: Duration = Duration::from_secs(10);
/// For the locks of reservations.
const LOCKS: Duration = Duration::from_secs(2);
/// Between two looks at the ranges: who asks without pause must not have the locks of reservations to himself.
const SURVEY_PAUSE: Duration = Duration::from_secs(1);

/// What is asked for the numbers.
#[derive(Clone)]
pub(crate) struct MetricsServer {
    metrics: Metrics,
    operations: Operations,
    spool: Spool,
    host_local: WatchedHostLocal,
    /// Of the ranges: one at a time.
    survey: Arc<Semaphore>,
}

/// Listens on all addresses, of both families where there are two.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, Error> {
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("0.0.0.0", port)).await,
    };
    listener.map_err(Error::io("cannot listen on port", port))
}

impl MetricsServer {
    pub(crate) fn new(metrics: Metrics, operations: Operations, spool: Spool, host_local: WatchedHostLocal) -> Self {
        Self { metrics, operations, spool, host_local, survey: Arc::new(Semaphore::new(1)) }
    }

    /// Serves whoever connects, for ever.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let (places, guests) = (Arc::new(Semaphore::new(CONNECTIONS)), Guests::default());
        // It is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let Some(guest) = guests.admit(peer.ip()) else {
                        continue;
                    };
                    let server = self.clone();
                    tokio::spawn(async move {
                        let service = service_fn(|request| {
                            let server = server.clone();
                            async move { Ok::<_, Infallible>(server.answer(&request).await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .keep_alive(false)
                            .max_buf_size(HEAD_LIMIT)
                            .serve_connection(TokioIo::new(stream), service);
                        let _who_went_away = timeout(PATIENCE, connection).await;
                        drop((place, guest));
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a connection for metrics");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let is_known = request.uri().path() == "/metrics";
        let body = if is_known { self.print().await } else { String::new() };
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }

    async fn print(&self) -> String {
        // What somebody holds locked for longer stays as it was told the last time, and is not waited for by one more each
        // time.
        if let Ok(turn) = Arc::clone(&self.survey).try_acquire_owned() {
            let host_local = self.host_local.clone();
            let survey = spawn_blocking(move || {
                let usage = host_local.usage();
                Handle::current().spawn(async move {
                    sleep(SURVEY_PAUSE).await;
                    drop(turn);
                });
                usage
            });
            if let Ok(Ok(usage)) = timeout(LOCKS, survey).await {
                self.metrics.set_usage(usage);
            }
        }
        let spooled = self.spool.entries().map_or(0, |entries| entries.len());
        self.metrics.print(self.operations.load(), spooled)
    }
}

/// How many connections each address has. Clones share them.
#[derive(Clone, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address, until this is dropped.
struct Guest {
    guests: Guests,
    address: IpAddr,
}

impl Guests {
    /// `None` when the address has as many as it may have.
    fn admit(&self, address: IpAddr) -> Option<Guest> {
        let mut guests = self.lock();
        let count = guests.entry(address).or_default();
        (*count < CONNECTIONS_EACH).then(|| {
            *count += 1;
            Guest { guests: self.clone(), address }
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut guests = self.guests.lock();
        if let Some(count) = guests.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                guests.remove(&self.address);
            }
        }
    }
}
