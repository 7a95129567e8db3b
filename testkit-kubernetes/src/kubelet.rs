//! A kubelet double: its podresources API, version 1, on a unix socket.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, UnixStream},
    runtime,
    sync::oneshot,
    time::sleep,
};

/// A kubelet on a real socket. It ends when it is dropped, and leaves its socket file, as one that is killed.
#[derive(Debug)]
pub struct Kubelet {
    shared: Arc<Mutex<State>>,
    socket: PathBuf,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// What one container of a pod has.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// IDs of devices by their resource, in the order in which the kubelet tells of them, each on its own.
    pub devices: Vec<(String, String)>,
    /// CDI names of devices by their claim.
    pub claims: Vec<(String, String)>,
}

/// What happens to a request instead of an answer, or before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletFault {
    /// It is answered, but late.
    Delay(Duration),
    /// It is refused with this gRPC status.
    Status(u32, &'static str),
    /// The answer has these bytes for a message.
    Message(Vec<u8>),
    /// The answer is a message of that many bytes.
    Size(usize),
    /// The answer's message ends before its length.
    Truncated,
    /// Nothing comes at all.
    Silence,
    /// The connection ends without an answer.
    Disconnect,
    /// The answer to a connection is not HTTP.
    NotHttp,
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<(String, String, Vec<Container>)>,
    /// Without a number, for ever.
    faults: VecDeque<(Option<usize>, KubeletFault)>,
    lists: usize,
}

impl Kubelet {
    /// Starts one at `socket`, whose directory is made.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let mut kubelet = Self { shared: Arc::default(), socket: socket.to_owned(), running: None };
        kubelet.resume();
        kubelet
    }

    /// Gives a pod its devices, in place of those that it had.
    pub fn put(&self, namespace: &str, name: &str, containers: Vec<Container>) {
        let mut state = self.lock();
        state.pods.retain(|pod| (pod.0.as_str(), pod.1.as_str()) != (namespace, name));
        state.pods.push((namespace.to_owned(), name.to_owned(), containers));
    }

    /// Treats every request so, until [`recover`](Self::recover).
    pub fn fail(&self, fault: KubeletFault) {
        self.lock().faults.push_back((None, fault));
    }

    /// Treats the next `times` requests so.
    pub fn fail_next(&self, times: usize, fault: KubeletFault) {
        self.lock().faults.push_back((Some(times), fault));
    }

    /// Ends all faults.
    pub fn recover(&self) {
        self.lock().faults.clear();
    }

    /// How often it was asked for a list, refused ones too.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.lock().lists
    }

    /// Goes down, with its socket file left or not.
    pub fn stop(&mut self, keep_socket: bool) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            thread.join().unwrap();
        }
        if !keep_socket {
            fs::remove_file(&self.socket).unwrap();
        }
    }

    /// Comes back where it was.
    pub fn resume(&mut self) {
        assert!(self.running.is_none(), "it was not stopped");
        let _absent = fs::remove_file(&self.socket);
        let listener = std::os::unix::net::UnixListener::bind(&self.socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let serve = move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(&listener, &shared) => {}
                    _ = stopped => {}
                }
            });
        };
        self.running = Some((stop, thread::spawn(serve)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop(true);
    }
}

impl Container {
    /// A container with these devices of `resource`.
    #[must_use]
    pub fn with(resource: &str, ids: &[&str]) -> Self {
        let devices = ids.iter().map(|id| (resource.to_owned(), (*id).to_owned()));
        Self { devices: devices.collect(), claims: Vec::new() }
    }

    /// A container with these CDI names of `claim`.
    #[must_use]
    pub fn with_claim(claim: &str, names: &[&str]) -> Self {
        let claims = names.iter().map(|name| (claim.to_owned(), (*name).to_owned()));
        Self { devices: Vec::new(), claims: claims.collect() }
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn fault(&mut self, is_meant: impl Fn(&KubeletFault) -> bool) -> Option<KubeletFault> {
        let (times, fault) = self.faults.front_mut()?;
        if !is_meant(fault) {
            return None;
        }
        let fault = fault.clone();
        match times {
            None => {}
            Some(0 | 1) => drop(self.faults.pop_front()),
            Some(times) => *times -= 1,
        }
        Some(fault)
    }
}

async fn accept(listener: &UnixListener, shared: &Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(shared);
        // How a client went away is its own affair.
        tokio::spawn(async move { drop(serve(stream, &shared).await) });
    }
}

async fn serve(mut stream: UnixStream, shared: &Arc<Mutex<State>>) -> io::Result<()> {
    if lock(shared).fault(|fault| *fault == KubeletFault::NotHttp).is_some() {
        return stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    }
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(request) = connection.accept().await {
        let (request, response) = request.map_err(io::Error::other)?;
        let fault = {
            let mut state = lock(shared);
            state.lists += 1;
            state.fault(|_| true)
        };
        if fault == Some(KubeletFault::Disconnect) {
            return Ok(());
        }
        let shared = Arc::clone(shared);
        tokio::spawn(async move { drop(answer(&request, response, fault, &shared).await) });
    }
    Ok(())
}

async fn answer<T>(
    request: &Request<T>,
    mut response: SendResponse<bytes::Bytes>,
    fault: Option<KubeletFault>,
    shared: &Mutex<State>,
) -> Result<(), h2::Error> {
    let message = || list(&lock(shared).pods);
    let is_truncated = fault == Some(KubeletFault::Truncated);
    let message = match fault {
        Some(KubeletFault::Status(code, text)) => return refuse(response, code, text),
        Some(KubeletFault::Silence) => {
            sleep(Duration::from_secs(3600)).await;
            return Ok(());
        }
        Some(KubeletFault::Delay(time)) => {
            sleep(time).await;
            message()
        }
        Some(KubeletFault::Message(bytes)) => bytes,
        // Of a field that nobody knows.
        Some(KubeletFault::Size(size)) => field(15, &vec![0; size]),
        _ => message(),
    };
    let is_list = request.method() == "POST"
        && request.uri().path() == "/v1.PodResourcesLister/List"
        && request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
    if !is_list {
        return refuse(response, 12, "unknown method");
    }
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = response.send_response(head, false)?;
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    if is_truncated {
        frame.truncate(frame.len() / 2);
    }
    stream.send_data(frame.into(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers)
}

fn refuse(mut response: SendResponse<bytes::Bytes>, code: u32, text: &str) -> Result<(), h2::Error> {
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", code.to_string())
        .header("grpc-message", text);
    response.send_response(head.body(()).unwrap(), true).map(drop)
}

/// The message, by hand, so that a mistake of the client's is not made twice.
fn list(pods: &[(String, String, Vec<Container>)]) -> Vec<u8> {
    let pods = pods.iter().map(|(namespace, name, containers)| {
        let containers: Vec<u8> = containers.iter().flat_map(|one| field(3, &container(one))).collect();
        field(1, &[field(1, name.as_bytes()), field(2, namespace.as_bytes()), containers].concat())
    });
    pods.flatten().collect()
}

fn container(container: &Container) -> Vec<u8> {
    let devices = container.devices.iter().map(|(resource, id)| {
        // On NUMA node 1.
        let topology = field(3, &field(1, &[1 << 3, 1]));
        field(2, &[field(1, resource.as_bytes()), field(2, id.as_bytes()), topology].concat())
    });
    let claims = container.claims.iter().map(|(claim, name)| {
        let device =
            [field(1, &field(1, name.as_bytes())), field(2, b"driver"), field(3, b"pool"), field(4, b"device")];
        let resource = field(4, &device.concat());
        field(5, &[field(2, claim.as_bytes()), field(3, b"web"), resource].concat())
    });
    // And exclusive CPUs.
    let cpus = field(3, &[2, 3]);
    field(1, b"c").into_iter().chain(devices.flatten()).chain(cpus).chain(claims.flatten()).collect()
}

/// A field with a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![(number << 3) | 2];
    let mut length = content.len();
    while length >= 128 {
        field.push(u8::try_from(length % 128).unwrap() | 128);
        length /= 128;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(content);
    field
}
