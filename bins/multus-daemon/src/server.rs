//! The unix socket.

use std::{
    convert::Infallible,
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        net::UnixListener as StdListener,
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use multus_cni::{ErrorObject, must_be_guarded};
use multus_core::Multus;
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    sync::{Notify, Semaphore, oneshot},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use crate::{
    call::{Call, Surroundings, Unusable},
    error::Error,
    execution::Executor,
    metrics::Metrics,
};

/// More than the pods that a node may have, all at once; the others wait in the kernel.
const CONNECTIONS: usize = 512;
/// For the head of a request.
const HEAD_LIMIT: usize = 16 << 10;
/// A request has a few kilobytes; an object in the API, and so a configuration, has less than 1.5 MB.
const BODY_LIMIT: usize = 4 << 20;
/// For each of head, body and answer to go through.
const TRANSFER: Duration = Duration::from_secs(10);
/// For the client to read the answer and close.
const FAREWELL: Duration = Duration::from_secs(2);

/// What answers requests.
pub(crate) struct Server {
    multus: Multus,
    executor: Executor,
    surroundings: Arc<Surroundings>,
    metrics: Metrics,
    is_ready: AtomicBool,
    connections: Arc<Semaphore>,
}

/// Where to tell whether the answer has arrived.
type Delivery = Mutex<Option<oneshot::Sender<bool>>>;

type Answer = Response<Full<Bytes>>;

impl Server {
    pub(crate) fn new(multus: Multus, executor: Executor, surroundings: Arc<Surroundings>, metrics: Metrics) -> Self {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        Self { multus, executor, surroundings, metrics, is_ready: AtomicBool::new(false), connections }
    }

    /// Whether `/readyz` answers with 200.
    pub(crate) fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }

    /// Serves whoever connects, for ever.
    pub(crate) async fn serve(self: Arc<Self>, listener: UnixListener, own_uid: u32) {
        loop {
            // It is never closed.
            let Ok(place) = Arc::clone(&self.connections).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => match stream.peer_cred().map(|peer| peer.uid()) {
                    Ok(uid) if uid == 0 || uid == own_uid => {
                        let server = Arc::clone(&self);
                        tokio::spawn(async move {
                            server.converse(stream).await;
                            drop(place);
                        });
                    }
                    Ok(uid) => warn!(uid, "a connection is refused: only root may ask"),
                    Err(error) => warn!(%error, "a connection is refused: nobody knows from whom"),
                },
                Err(error) => {
                    // Out of descriptors, mostly; that passes.
                    warn!(%error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Returns when all connections have ended.
    pub(crate) async fn quiet(&self) {
        // One place is kept by whoever accepts.
        let all = u32::try_from(CONNECTIONS - 1).unwrap_or_default();
        let _quiet = self.connections.acquire_many(all).await;
    }

    /// One request and its answer.
    async fn converse(self: &Arc<Self>, mut stream: UnixStream) {
        let delivery = Arc::new(Delivery::default());
        let answered = Arc::new(Notify::new());
        let service = {
            let (delivery, answered) = (Arc::clone(&delivery), Arc::clone(&answered));
            service_fn(move |request| {
                let (server, delivery, answered) = (Arc::clone(self), Arc::clone(&delivery), Arc::clone(&answered));
                async move {
                    let answer = server.answer(request, &delivery).await;
                    answered.notify_one();
                    Ok::<_, Infallible>(answer)
                }
            })
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .header_read_timeout(TRANSFER)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(&mut stream), service);
        let is_written = tokio::select! {
            served = connection => served.inspect_err(|error| debug!(%error, "a connection broke")).is_ok(),
            () = async { answered.notified().await; sleep(TRANSFER).await } => false,
        };
        let is_delivered = is_written && is_read(&mut stream).await;
        let delivery = delivery.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(delivery) = delivery {
            // Whoever waits for it goes on anyway.
            let _told = delivery.send(is_delivered);
        }
    }

    async fn answer(&self, request: Request<Incoming>, delivery: &Delivery) -> Answer {
        let (head, body) = request.into_parts();
        let handler = match head.uri.path() {
            "/cni" => "/cni",
            "/delegate" => "/delegate",
            "/healthz" => "/healthz",
            "/readyz" => "/readyz",
            _ => "NotFound",
        };
        let is_probe = matches!(handler, "/healthz" | "/readyz");
        // To the end, whatever it is for: a client that is cut off while it writes may not read.
        let body = read(body).await;
        let answer = match (handler, &head.method) {
            ("NotFound", _) => text(StatusCode::NOT_FOUND, "404 page not found"),
            (_, method) if method != Method::POST && !(is_probe && method == Method::GET) => {
                text(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
            }
            ("/healthz", _) => empty(),
            ("/readyz", _) => match self.is_ready.load(Ordering::Relaxed) {
                true => empty(),
                false => text(StatusCode::INTERNAL_SERVER_ERROR, "not ready: starting or shutting down"),
            },
            (_, _) => match body {
                Ok(body) if handler == "/delegate" => self.delegate(&body, delivery).await,
                Ok(body) => self.call(&body, delivery).await,
                Err(problem) => text(StatusCode::BAD_REQUEST, &problem),
            },
        };
        self.metrics.count(handler, answer.status().as_u16(), method(&head.method));
        answer
    }

    /// A call for all networks of a pod.
    async fn call(&self, body: &[u8], delivery: &Delivery) -> Answer {
        let call = match Call::parse(body, &self.surroundings) {
            Ok(call) => call,
            Err(unusable) => return refuse(unusable),
        };
        if let Some(sandbox) = call.sandbox().filter(|_| call.is_end())
            && !self.is_ready.load(Ordering::Relaxed)
        {
            // Its ADD may be with a shim that waits until this daemon is ready, and must not come after it.
            self.executor.operations.bury(sandbox);
        }
        carry_out(&self.executor, call, delivery).await
    }

    /// A call for one network of a pod that runs.
    async fn delegate(&self, body: &[u8], delivery: &Delivery) -> Answer {
        match Call::parse_of_network(body, &self.surroundings) {
            Ok((call, wishes)) => {
                let plugin = self.multus.hot_plug(&self.surroundings.settings, wishes);
                carry_out(&self.executor.for_plugin(Arc::new(plugin)), call, delivery).await
            }
            Err(unusable) => refuse(unusable),
        }
    }
}

fn refuse(request: Unusable) -> Answer {
    if let Unusable::Malformed(malformed) = request {
        return text(StatusCode::BAD_REQUEST, &malformed.to_string());
    }
    failure(&request.into_error().object())
}

async fn carry_out(executor: &Executor, call: Call, delivery: &Delivery) -> Answer {
    match executor.submit(call).await {
        Ok(outcome) => {
            *delivery.lock().unwrap_or_else(PoisonError::into_inner) = outcome.delivery;
            match outcome.result {
                Ok(body) => json(StatusCode::OK, body),
                Err(object) => failure(&object),
            }
        }
        // Only a call that nobody waits for is left.
        Err(_) => text(StatusCode::BAD_REQUEST, "the call was not begun"),
    }
}

/// The socket at `path`, for its owner only, in place of one that a former daemon left. One that still listens keeps the
/// connections that it has.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let bind = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            fs::set_permissions(directory, Permissions::from_mode(0o700))?;
            must_be_guarded(directory)?;
        }
        let temporary = path.with_extension("sock.new");
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = StdListener::bind(&temporary)?;
        fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
        fs::rename(&temporary, path)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    };
    bind().map_err(Error::io("cannot listen on", path.display()))
}

/// The user that this process runs as.
pub(crate) fn own_uid() -> Result<u32, Error> {
    Ok(fs::metadata("/proc/self").map_err(Error::io("cannot read", "/proc/self"))?.uid())
}

async fn read(body: Incoming) -> Result<Bytes, String> {
    match timeout(TRANSFER, Limited::new(body, BODY_LIMIT).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(format!("cannot read the request, of at most {BODY_LIMIT} bytes: {error}")),
        Err(_) => Err(format!("the request did not arrive within {TRANSFER:?}")),
    }
}

/// Whether the peer has read everything before it closed; Linux reports a reset if it has not. One that stays has it.
async fn is_read(stream: &mut UnixStream) -> bool {
    let mut rest = [0; 512];
    let closed = async {
        loop {
            match stream.read(&mut rest).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    timeout(FAREWELL, closed).await.unwrap_or(true)
}

fn failure(object: &ErrorObject) -> Answer {
    json(StatusCode::BAD_REQUEST, object.print())
}

fn json(status: StatusCode, body: Vec<u8>) -> Answer {
    with_type(status, body, "application/json")
}

fn text(status: StatusCode, line: &str) -> Answer {
    with_type(status, format!("{line}\n").into_bytes(), "text/plain; charset=utf-8")
}

fn empty() -> Answer {
    Response::new(Full::default())
}

fn with_type(status: StatusCode, body: Vec<u8>, kind: &'static str) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// As upstream's label has it. What a client makes up would be a new series each time.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::HEAD => "head",
        Method::OPTIONS => "options",
        Method::PATCH => "patch",
        _ => "unknown",
    }
}
