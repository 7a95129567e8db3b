//! One connection: requests in, answers out.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::{ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{
    answer::{self, Answer, Selector, answer, refusal, shown},
    certificates::user,
    fault::Fault,
    request::Request,
    server::{Shared, State},
};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Serves until the other side has enough, or `server` ends the connection.
pub(crate) fn serve(server: &Shared, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let tls = ServerConnection::new(Arc::clone(&server.tls)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(tls, socket);
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut stream, &mut buffer)? {
        let Some(mut request) = request else {
            write(server, &mut stream, &refusal(404, "", "404 page not found"), None)?;
            continue;
        };
        let certificate = stream.conn.peer_certificates().and_then(|certificates| certificates.first());
        request.asked.user = certificate.and_then(user).unwrap_or_default();
        let (fault, refusal) = server.admit(&request);
        match fault.map_or(Ok(After::Answer), |fault| fail(server, &mut stream, &request, fault))? {
            After::Answer => {}
            After::NextRequest => continue,
            After::End => return Ok(()),
        }
        let kind = refusal.map_or_else(|| answer::kind(&request), Err);
        let selector = Selector::new(&request.asked.query);
        match (kind, selector) {
            (Err(refusal), _) | (_, Err(refusal)) => write(server, &mut stream, &refusal, None)?,
            (Ok(kind), Ok(selector)) if request.asked.verb == "watch" => {
                let number = server.change(|state| {
                    state.watches += 1;
                    state.watches
                });
                let ended = watch(server, &mut stream, kind.resource, &request, &selector, number);
                server.change(|state| state.bookmarked.remove(&number));
                return ended;
            }
            (Ok(kind), Ok(selector)) => {
                let answer = server.change(|state| {
                    let requester = state.requester(&request.asked.user);
                    let answer = answer(&mut state.store, kind, &request, &selector, &requester);
                    state.sign(&server.authority);
                    answer
                });
                write(server, &mut stream, &answer, None)?;
            }
        }
    }
    Ok(())
}

/// What comes after a fault.
enum After {
    Answer,
    NextRequest,
    End,
}

fn fail(server: &Shared, stream: &mut Stream, request: &Request, fault: Fault) -> io::Result<After> {
    match fault {
        Fault::Delay(time) => {
            thread::sleep(time);
            return Ok(After::Answer);
        }
        Fault::Disconnect => {}
        Fault::NotHttp => stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")?,
        Fault::Garbage => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n")?;
            stream.write_all(b"{\"kind\":")?;
            return Ok(After::NextRequest);
        }
        Fault::Size(size) => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
            write!(stream, "{head} {size}\r\n\r\n")?;
            let object = r#"{"metadata":{}}"#;
            stream.write_all((object.to_owned() + &" ".repeat(size - object.len())).as_bytes())?;
            return Ok(After::NextRequest);
        }
        Fault::Status(code, retry_after) => {
            write(server, stream, &refusal(code, "", "injected failure"), retry_after)?;
            return Ok(After::NextRequest);
        }
        Fault::Silence => {
            if request.asked.verb == "watch" {
                stream.write_all(WATCH_HEAD)?;
            }
            // Until the client has enough.
            while stream.read(&mut [0; 1024])? > 0 {}
        }
    }
    Ok(After::End)
}

/// The next request; the inner `None` is one for no API.
fn read(stream: &mut Stream, buffer: &mut Vec<u8>) -> io::Result<Option<Option<Request>>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(start) = head.parse(buffer).map_err(io::Error::other)? {
            let headers: BTreeMap<String, String> = head
                .headers
                .iter()
                .map(|header| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
                .collect();
            let length = headers.get("content-length").map_or(Ok(0), |length| length.parse::<usize>());
            let end = start + length.map_err(io::Error::other)?;
            if buffer.len() >= end {
                let (method, path) = (head.method.unwrap_or_default(), head.path.unwrap_or_default());
                let request = Request::new(method, path, &headers, buffer[start..end].to_vec());
                buffer.drain(..end);
                return Ok(Some(request));
            }
        }
        let mut more = [0; 16384];
        match stream.read(&mut more)? {
            0 => return Ok(None),
            length => buffer.extend_from_slice(&more[..length]),
        }
    }
}

fn write(server: &Shared, stream: &mut Stream, (code, object): &Answer, retry_after: Option<u32>) -> io::Result<()> {
    let body = object.to_string();
    let retry_after = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {code} {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{retry_after}\r\n",
        body.len()
    );
    server.change(|state| state.sent += u64::try_from(head.len() + body.len()).unwrap());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}

const WATCH_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
/// How long nothing happens until a bookmark says so.
const QUIET: Duration = Duration::from_secs(10);

fn watch(
    server: &Shared,
    stream: &mut Stream,
    resource: &str,
    request: &Request,
    selector: &Selector,
    watch: u64,
) -> io::Result<()> {
    let asked = &request.asked;
    let number = |key: &str| asked.query.get(key).and_then(|value| value.parse::<u64>().ok());
    let end = Instant::now() + Duration::from_secs(number("timeoutSeconds").unwrap_or(1800));
    let bookmarks = asked.query.get("allowWatchBookmarks").is_some_and(|allow| allow == "true");
    let mut version = number("resourceVersion").unwrap_or(0);
    let mut bookmarked = server.change(|state| {
        if bookmarks {
            state.bookmarked.insert(watch, state.bookmarks);
        }
        state.bookmarks
    });
    stream.write_all(WATCH_HEAD)?;
    if version == 0 {
        let (now, objects) = server.change(|state| (state.store.version, state.store.list(resource, &asked.namespace)));
        version = now;
        for object in objects.iter().filter(|object| selector.selects(object)) {
            send(server, stream, "ADDED", &shown(object, asked.metadata_only))?;
        }
    } else if version < server.lock().store.forgotten {
        let (_, status) = refusal(410, "Expired", &format!("too old resource version: {version}"));
        send(server, stream, "ERROR", &status)?;
        return stream.write_all(b"0\r\n\r\n");
    }
    let concerns = |object: &Value| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        (asked.namespace.is_empty() || asked.namespace == namespace) && selector.selects(object)
    };
    let epoch = server.lock().epoch;
    loop {
        let has_news =
            |state: &State| state.epoch != epoch || state.store.version > version || state.bookmarks > bookmarked;
        let until = end.min(Instant::now() + QUIET);
        let state = server.wait(until, has_news);
        if state.epoch != epoch {
            return Ok(());
        }
        let changes = state.store.changes(resource, version);
        version = state.store.version;
        let with_bookmark = bookmarks && (state.bookmarks > bookmarked || Instant::now() >= until);
        bookmarked = state.bookmarks;
        drop(state);
        for change in changes {
            let (before, after) = (change.before.filter(|old| concerns(old)), change.after.filter(|new| concerns(new)));
            let (kind, object) = match (before, after) {
                (None, None) => continue,
                (None, Some(new)) => ("ADDED", new),
                (Some(_), Some(new)) => ("MODIFIED", new),
                (Some(old), None) => ("DELETED", old),
            };
            let mut object = shown(&object, asked.metadata_only);
            object["metadata"]["resourceVersion"] = change.version.to_string().into();
            send(server, stream, kind, &object)?;
        }
        if with_bookmark {
            let metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
            let kind = if asked.metadata_only { "PartialObjectMetadata" } else { "Bookmark" };
            send(server, stream, "BOOKMARK", &json!({ "apiVersion": "v1", "kind": kind, "metadata": metadata }))?;
            server.change(|state| state.bookmarked.insert(watch, bookmarked));
        }
        if Instant::now() >= end {
            return stream.write_all(b"0\r\n\r\n");
        }
    }
}

fn send(server: &Shared, stream: &mut Stream, kind: &str, object: &Value) -> io::Result<()> {
    let line = format!("{}\n", json!({ "type": kind, "object": object }));
    server.change(|state| state.sent += u64::try_from(line.len()).unwrap());
    write!(stream, "{:x}\r\n{line}\r\n", line.len())
}
