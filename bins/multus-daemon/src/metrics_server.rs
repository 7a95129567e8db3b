//! The metrics, over plain HTTP.

use std::{convert::Infallible, net::Ipv6Addr, sync::Arc, time::Duration};

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
    sync::Semaphore,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{error::Error, metrics::Metrics, operations::Operations, ranges::WatchedHostLocal};

const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
/// For the locks of reservations.
const LOCKS: Duration = Duration::from_secs(2);

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
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // It is never closed.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = self.clone();
                    tokio::spawn(async move {
                        let service = service_fn(|request| {
                            let server = server.clone();
                            async move { Ok::<_, Infallible>(server.answer(&request).await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .keep_alive(false)
                            .serve_connection(TokioIo::new(stream), service);
                        let _who_went_away = timeout(PATIENCE, connection).await;
                        drop(place);
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
                let _until_the_end = turn;
                host_local.usage()
            });
            if let Ok(Ok(usage)) = timeout(LOCKS, survey).await {
                self.metrics.set_usage(usage);
            }
        }
        let spooled = self.spool.entries().map_or(0, |entries| entries.len());
        self.metrics.print(self.operations.load(), spooled)
    }
}
