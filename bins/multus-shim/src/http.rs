//! One exchange of HTTP/1.1 (RFC 9112) over a unix socket.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use httparse::{Header, Status};
use multus_cni::shortened;

/// Results are a few kilobytes; what is longer than this is none.
const RESPONSE_LIMIT: usize = 4 << 20;
const HEAD_LIMIT: usize = 16 << 10;
const HEADERS_LIMIT: usize = 64;
/// A size in hexadecimal digits, and extensions that nobody uses.
const CHUNK_LINE_LIMIT: usize = 256;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The content, with its transfer coding removed.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The socket could not be connected to in time, so nothing was sent.
    #[error("cannot connect: {}", multus_cni::os_error_text(.0))]
    Connect(#[source] io::Error),
    /// The request could not be sent, and no answer says why.
    #[error("cannot send the request: {}", multus_cni::os_error_text(.0))]
    Send(#[source] io::Error),
    /// The answer could not be read.
    #[error("cannot read the answer: {}", multus_cni::os_error_text(.0))]
    Receive(#[source] io::Error),
    /// The connection ended before the answer did.
    #[error("the connection was closed after {0} bytes of the answer")]
    Closed(usize),
    /// The deadline passed.
    #[error("no complete answer in time")]
    TimedOut,
    /// The answer is no HTTP.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The answer is too long to be one.
    #[error("the answer is longer than {RESPONSE_LIMIT} bytes")]
    TooLong,
}

impl HttpError {
    /// Whether the server cannot have seen anything of the request.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect(_))
    }

    /// Whether whoever listened is gone, rather than slow or no HTTP server.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Send(_) | Self::Receive(_) | Self::Closed(_))
    }
}

/// Posts the JSON document `body` to `target`, such as `/cni`, on a connection of its own.
///
/// # Errors
/// Whatever came instead of a complete answer by `deadline`. An answer of any status is a success.
pub fn post(socket: &Path, target: &str, body: &[u8], deadline: Instant) -> Result<Response, HttpError> {
    let mut connection = Connection { stream: connect(socket, deadline)?, deadline };
    let mut request = format!(
        "POST {target} HTTP/1.1\r\nHost: multus-daemon\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    let sent = connection.write_all(&request);
    match (sent, read_response(&mut connection)) {
        (Ok(()), answer) => answer,
        // A server that refuses a request need not read it to its end.
        (Err(_), Ok(response)) => Ok(response),
        (Err(error), Err(_)) if is_timeout(&error) => Err(HttpError::TimedOut),
        (Err(error), Err(_)) => Err(HttpError::Send(error)),
    }
}

/// Connecting waits for as long as the listener's backlog is full, and the standard library has no deadline for it: so a
/// thread waits, which ends with the process at the latest.
fn connect(socket: &Path, deadline: Instant) -> Result<UnixStream, HttpError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path = socket.to_owned();
    let connect = move || {
        let _nobody_waits = sender.send(UnixStream::connect(path));
    };
    thread::Builder::new().stack_size(64 << 10).spawn(connect).map_err(HttpError::Connect)?;
    let connected = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    connected.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(HttpError::Connect)
}

struct Connection {
    stream: UnixStream,
    deadline: Instant,
}

impl Connection {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(remaining)) }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.remaining()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.remaining()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

fn read_response(source: &mut dyn Read) -> Result<Response, HttpError> {
    let mut input = Input { source, bytes: Vec::new(), received: 0 };
    loop {
        let head = input.head()?;
        if (100..200).contains(&head.status) {
            continue;
        }
        let body = match head.framing {
            Framing::Length(length) => input.take(length)?,
            Framing::Chunked => input.chunks()?,
            Framing::UntilClosed => input.rest()?,
        };
        return Ok(Response { status: head.status, body });
    }
}

struct Head {
    status: u16,
    framing: Framing,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClosed,
}

impl Framing {
    fn of(headers: &[Header<'_>]) -> Result<Self, HttpError> {
        let values = |name: &'static str| {
            let same = move |header: &&Header<'_>| header.name.eq_ignore_ascii_case(name);
            headers.iter().filter(same).map(|header| String::from_utf8_lossy(header.value).trim().to_owned())
        };
        if let Some(coding) = values("Transfer-Encoding").next() {
            return if coding.eq_ignore_ascii_case("chunked") {
                Ok(Self::Chunked)
            } else {
                Err(HttpError::Malformed(format!("unknown transfer coding {:?}", shortened(&coding))))
            };
        }
        let mut framing = Self::UntilClosed;
        for value in values("Content-Length") {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let length = value.parse().ok().filter(|_| digits);
            let length =
                length.ok_or_else(|| HttpError::Malformed(format!("Content-Length is {:?}", shortened(&value))))?;
            if matches!(framing, Self::Length(other) if other != length) {
                return Err(HttpError::Malformed("two different Content-Lengths".to_owned()));
            }
            framing = Self::Length(length);
        }
        Ok(framing)
    }
}

struct Input<'a> {
    source: &'a mut dyn Read,
    /// What was received and not yet taken.
    bytes: Vec<u8>,
    received: usize,
}

impl Input<'_> {
    fn head(&mut self) -> Result<Head, HttpError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_LIMIT];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.bytes).map_err(|error| HttpError::Malformed(error.to_string()))?;
            if let Status::Complete(length) = parsed {
                let head = Head { status: response.code.unwrap_or_default(), framing: Framing::of(response.headers)? };
                self.bytes.drain(..length);
                return Ok(head);
            }
            if self.bytes.len() > HEAD_LIMIT {
                return Err(HttpError::Malformed(format!("its head is longer than {HEAD_LIMIT} bytes")));
            }
            self.need_more()?;
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, HttpError> {
        if length > RESPONSE_LIMIT {
            return Err(HttpError::TooLong);
        }
        while self.bytes.len() < length {
            self.need_more()?;
        }
        Ok(self.bytes.drain(..length).collect())
    }

    /// Trailers are left where they are: the connection is not used again.
    fn chunks(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut body = Vec::new();
        loop {
            let size = self.chunk_size()?;
            if size == 0 {
                return Ok(body);
            }
            body.append(&mut self.take(size)?);
            if self.take(2)? != b"\r\n" {
                return Err(HttpError::Malformed(format!("a chunk is longer than its {size} bytes")));
            }
        }
    }

    fn chunk_size(&mut self) -> Result<usize, HttpError> {
        loop {
            let malformed = |_| HttpError::Malformed("invalid chunk size".to_owned());
            if let Status::Complete((length, size)) = httparse::parse_chunk_size(&self.bytes).map_err(malformed)? {
                self.bytes.drain(..length);
                return usize::try_from(size).map_err(|_| HttpError::TooLong);
            }
            if self.bytes.len() > CHUNK_LINE_LIMIT {
                return Err(HttpError::Malformed("a chunk without a size".to_owned()));
            }
            self.need_more()?;
        }
    }

    fn rest(&mut self) -> Result<Vec<u8>, HttpError> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.bytes))
    }

    fn need_more(&mut self) -> Result<(), HttpError> {
        if self.more()? { Ok(()) } else { Err(HttpError::Closed(self.received)) }
    }

    fn more(&mut self) -> Result<bool, HttpError> {
        let mut buffer = [0; 8 << 10];
        let count = loop {
            match self.source.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(&error) => return Err(HttpError::TimedOut),
                other => break other.map_err(HttpError::Receive)?,
            }
        };
        self.received += count;
        if self.received > RESPONSE_LIMIT {
            return Err(HttpError::TooLong);
        }
        self.bytes.extend(buffer.iter().take(count));
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use proptest::prelude::*;

    use super::*;

    /// A source that gives its bytes in pieces of `size`.
    struct Pieces<'a> {
        bytes: &'a [u8],
        size: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.size.min(self.bytes.len()).min(buffer.len());
            let (piece, rest) = self.bytes.split_at(count);
            buffer[..count].copy_from_slice(piece);
            self.bytes = rest;
            Ok(count)
        }
    }

    fn read(bytes: &[u8], size: usize) -> Result<Response, HttpError> {
        read_response(&mut Pieces { bytes, size })
    }

    fn chunked(body: &[u8], size: usize) -> Vec<u8> {
        let chunk = |chunk: &[u8]| [format!("{:X}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
        let chunks: Vec<u8> = body.chunks(size).flat_map(chunk).collect();
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", chunks.as_slice(), b"0\r\n\r\n"].concat()
    }

    proptest! {
        #[test]
        fn a_body_arrives_whole_in_every_framing_and_in_pieces_of_any_size(
            body in prop::collection::vec(any::<u8>(), 0..5000), chunk in 1_usize..700, piece in 1_usize..3000, status in 200_u16..600
        ) {
            let length = format!("HTTP/1.1 {status} Words\r\nContent-Length: {}\r\n\r\n", body.len());
            let closed = format!("HTTP/1.0 {status}\r\nX: y\r\n\r\n");
            for head in [length, closed] {
                let response = read(&[head.as_bytes(), &body].concat(), piece).unwrap();
                prop_assert_eq!(response, Response { status, body: body.clone() });
            }
            prop_assert_eq!(read(&chunked(&body, chunk), piece).unwrap().body, body);
        }

        #[test]
        fn an_answer_that_was_cut_off_is_never_taken_for_a_whole_one(
            body in prop::collection::vec(any::<u8>(), 1..300), chunk in 1_usize..70, cut in any::<prop::sample::Index>()
        ) {
            let length = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            for (whole, end) in [([length.as_bytes(), &body].concat(), 0), (chunked(&body, chunk), 2)] {
                let cut = cut.index(whole.len() - end);
                prop_assert!(matches!(read(&whole[..cut], 64), Err(HttpError::Closed(received)) if received == cut));
            }
        }

        #[test]
        fn anything_at_all_is_an_answer_or_an_error(
            prefix in "(HTTP/1\\.[01] ?[0-9]{0,4}.{0,10}(\r?\n)?)?",
            headers in prop::collection::vec("(Content-Length|Transfer-Encoding|[a-z -]*): ?.{0,12}\r?\n", 0..4),
            end in "(\r?\n)?[0-9a-fA-F]{0,17}(;.{0,4})?(\r?\n)?", noise in prop::collection::vec(any::<u8>(), 0..300)
        ) {
            let bytes = [prefix.as_bytes(), headers.concat().as_bytes(), end.as_bytes(), &noise].concat();
            if let Err(error) = read(&bytes, 50) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }

    fn refused(bytes: &[u8]) -> String {
        read(bytes, 4096).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_answer_is_called_by_its_fault() {
        let with = |header: &str| refused(format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n5\r\nabcdefgh\r\n").as_bytes());
        assert_eq!(refused(b""), "the connection was closed after 0 bytes of the answer");
        assert_eq!(refused(b"220 mail.example ESMTP\r\n"), "malformed answer: invalid HTTP version");
        assert_eq!(with("Content-Length: -1"), r#"malformed answer: Content-Length is "-1""#);
        assert_eq!(with("Content-Length: +5"), r#"malformed answer: Content-Length is "+5""#);
        assert_eq!(with("Content-Length: 5\r\nContent-Length: 6"), "malformed answer: two different Content-Lengths");
        assert_eq!(with("Content-Length: 4194305"), "the answer is longer than 4194304 bytes");
        assert_eq!(with("Content-Length: 99999999999999999999").split(": ").next(), Some("malformed answer"));
        assert_eq!(with("Transfer-Encoding: gzip"), r#"malformed answer: unknown transfer coding "gzip""#);
        assert!(with(&format!("Content-Length: {}", "x".repeat(10_000))).len() < 300);
        assert!(with(&format!("Transfer-Encoding: {}", "x".repeat(10_000))).len() < 300);
        assert_eq!(with("Transfer-Encoding: chunked"), "malformed answer: a chunk is longer than its 5 bytes");
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(&[head.as_slice(), b"zz\r\n"].concat()), "malformed answer: invalid chunk size");
        let long = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 100_000]].concat();
        assert_eq!(refused(&long), "malformed answer: its head is longer than 16384 bytes");
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[b'x'; RESPONSE_LIMIT]].concat();
        assert_eq!(refused(&endless), "the answer is longer than 4194304 bytes");
    }

    #[test]
    fn provisional_answers_are_passed_over() {
        let response = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 7).unwrap();
        assert_eq!(response, Response { status: 204, body: Vec::new() });
    }

    #[test]
    fn a_listener_that_does_not_accept_is_not_waited_for_beyond_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _fills_the_backlog = UnixStream::connect(&socket).unwrap();
        let error = post(&socket, "/", b"", Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), "cannot connect: timed out");
    }

    #[test]
    fn every_step_ends_at_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let silent = UnixListener::bind(&socket).unwrap();
        let soon = || Instant::now() + Duration::from_millis(50);
        // Connected through the backlog, and never answered.
        assert!(matches!(post(&socket, "/", b"", soon()), Err(HttpError::TimedOut)));
        // More than the socket's buffers take.
        assert!(matches!(post(&socket, "/", &vec![b'x'; 8 << 20], soon()), Err(HttpError::TimedOut)));
        // A byte now and then does not prolong it.
        let dripping = thread::spawn(move || {
            let mut stream = silent.incoming().nth(2).unwrap().unwrap();
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            while sent.is_ok() {
                thread::park_timeout(Duration::from_millis(5));
                sent = stream.write_all(b"x");
            }
        });
        assert!(matches!(post(&socket, "/", b"", soon()), Err(HttpError::TimedOut)));
        dripping.join().unwrap();
    }
}
