//! What a server may answer the shim.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use multus_shim::post;

use crate::message;

static SERVER: OnceLock<Server> = OnceLock::new();

/// Whatever is answered, the shim has an answer or a failure long before its deadline.
pub fn http_answer(data: &[u8]) {
    let server = SERVER.get_or_init(Server::start);
    let mut answer = server.answer.lock().unwrap();
    data.clone_into(&mut answer);
    drop(answer);
    let deadline = Instant::now() + Duration::from_secs(20);
    match post(&server.socket, "/cni", b"{}", deadline) {
        Ok(response) => assert!(response.body.len() <= data.len()),
        Err(error) => {
            assert!(!error.is_unsent(), "{error}");
            message::check_length(&error);
        }
    }
    assert!(Instant::now() < deadline, "it waited for more");
}

struct Server {
    socket: PathBuf,
    answer: &'static Mutex<Vec<u8>>,
}

impl Server {
    fn start() -> Self {
        static ANSWER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
        // For as long as the process.
        let socket = crate::files::directory().keep().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = ANSWER.lock().unwrap().clone();
                serve(stream.unwrap(), &answer);
            }
        });
        Self { socket, answer: &ANSWER }
    }
}

fn serve(mut stream: UnixStream, answer: &[u8]) {
    let mut request = [0; 4096];
    let _gone = stream.read(&mut request);
    let _gone = stream.write_all(answer);
}
