//! A daemon for one test: what it answers is what the test says.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::Value;

/// A request as it arrived: its target, and its JSON.
pub(crate) type Received = (String, Value);

pub(crate) struct Daemon {
    socket: PathBuf,
    received: Arc<Mutex<Vec<Received>>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Listens in `directory` and answers with the bytes that `answer` gives; with `None` it says nothing until the client
    /// leaves.
    pub(crate) fn start(
        directory: &Path,
        answer: impl Fn(&str, &Value) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let socket = directory.join("multus.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (received, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let answer = Arc::new(answer);
        let accepting = thread::spawn({
            let (received, stopped) = (Arc::clone(&received), Arc::clone(&stopped));
            move || {
                for stream in listener.incoming().map(Result::unwrap) {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let (received, answer) = (Arc::clone(&received), Arc::clone(&answer));
                    thread::spawn(move || serve(&stream, &received, &*answer));
                }
            }
        });
        Self { socket, received, stopped, accepting: Some(accepting) }
    }

    /// As [`Self::start`], healthy and ready; `answer` is only asked for what else there is.
    pub(crate) fn ready(
        directory: &Path,
        answer: impl Fn(&str, &Value) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start(directory, move |target, request| match target {
            "/healthz" | "/readyz" => Some(http(200, "")),
            _ => answer(target, request),
        })
    }

    /// What has arrived, in order.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The targets of what has arrived, and the commands.
    pub(crate) fn calls(&self) -> Vec<String> {
        let call = |(target, request): Received| match request["env"]["CNI_COMMAND"].as_str() {
            Some(command) => format!("{target} {command}"),
            None => target,
        };
        self.received().into_iter().map(call).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        let _panicked = self.accepting.take().unwrap().join();
        let _moved = fs::remove_file(&self.socket);
    }
}

/// An answer as upstream's daemon gives it.
pub(crate) fn http(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Words\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

fn serve(
    stream: &UnixStream,
    received: &Mutex<Vec<Received>>,
    answer: &(dyn Fn(&str, &Value) -> Option<Vec<u8>> + Send + Sync),
) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let mut length = 0;
    let mut target = String::new();
    while reader.read_line(&mut line).unwrap_or_default() > 2 {
        if let Some(rest) = line.strip_prefix("POST ") {
            target = rest.split(' ').next().unwrap().to_owned();
        } else if let Some(rest) = line.strip_prefix("Content-Length: ") {
            length = rest.trim().parse().unwrap();
        }
        line.clear();
    }
    if target.is_empty() {
        return;
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let request: Value = serde_json::from_slice(&body).unwrap();
    received.lock().unwrap().push((target.clone(), request.clone()));
    match answer(&target, &request) {
        Some(bytes) => {
            let mut writer = stream;
            let _left = writer.write_all(&bytes);
        }
        None => {
            let _left = reader.read(&mut [0]);
        }
    }
}
