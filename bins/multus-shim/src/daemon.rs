//! The daemon at the other end of the socket, whether it is there or not.

use std::{
    thread,
    time::{Duration, Instant},
};

use multus_cni::{Command, ErrorObject};

use multus_log::{Level, Log};

use crate::{Error, Request, Spool, http::post, settings::Settings};

/// The kubelet gives a sandbox up after four minutes at the latest; nobody hears what is answered later.
const ANSWER_LIMIT: Duration = Duration::from_secs(240);
/// A daemon that takes few connections at once lets the probe of a DEL wait behind an ADD; with one that is wedged there
/// must be time left to keep the request, of the two minutes that a runtime has for a DEL.
const DEL_PROBE_LIMIT: Duration = Duration::from_secs(30);
/// A daemon that is well answers at once; a probe with less time would only tell that time was up.
const SHORTEST_PROBE: Duration = Duration::from_secs(1);
/// Every other shim that keeps a request takes two writes to the disk.
const SPOOL_LIMIT: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// A message is for a person; it ends up in an event of the pod.
const TEXT_LIMIT: usize = 4096;

pub(crate) struct Daemon {
    settings: Settings,
    log: Log,
}

/// Why there is no good answer, by what can be done about it.
enum Failure {
    /// The daemon did not take the request, for this reason.
    Away(String),
    /// It took the request and then went away.
    Gone(Error),
    /// It is there.
    Final(Error),
}

impl Daemon {
    pub(crate) fn new(settings: Settings, log: Log) -> Self {
        Self { settings, log }
    }

    /// Has the daemon run `command`, once it is ready, and gives the content of its answer.
    pub(crate) fn call(&self, command: Command, request: &Request) -> Result<Vec<u8>, Error> {
        self.logged(self.call_when_ready(command, request))
    }

    /// Has the daemon run a DEL now, or when it is back.
    pub(crate) fn del(&self, request: &Request) -> Result<(), Error> {
        self.logged(self.del_or_keep(request))
    }

    fn logged<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        match &result {
            Ok(_) => self.log.write(Level::Verbose, "succeeded"),
            Err(error) => self.log.write(Level::Error, &error.to_string()),
        }
        result
    }

    fn call_when_ready(&self, command: Command, request: &Request) -> Result<Vec<u8>, Error> {
        let deadline = Instant::now() + self.settings.wait;
        let mut pause = FIRST_PAUSE;
        loop {
            let obstacle = match self.probe_readiness(deadline).and_then(|()| self.send(request)) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Gone(error) | Failure::Final(error)) => return Err(error),
                Err(Failure::Away(obstacle)) => obstacle,
            };
            self.log.write(Level::Debug, &format!("waiting for multus-daemon: {obstacle}"));
            if Instant::now() + pause > deadline {
                let Settings { socket, wait, .. } = &self.settings;
                let status = command == Command::Status;
                return Err(Error::NotReady { socket: socket.clone(), waited: *wait, obstacle, status });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn del_or_keep(&self, request: &Request) -> Result<(), Error> {
        let obstacle = match self.try_del(request, self.settings.wait.min(DEL_PROBE_LIMIT)) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Gone(error)) => error.to_string(),
            Err(Failure::Away(obstacle)) => obstacle,
        };
        let spool = Spool::new(&self.settings.spool);
        let entry = match spool.add(request, SPOOL_LIMIT) {
            Ok(entry) => entry,
            Err(source) => return Err(Error::NotKept { obstacle, source }),
        };
        let kept = format!("multus-daemon is away ({obstacle}): the DEL is kept in {}", self.settings.spool.display());
        self.log.write(Level::Error, &kept);
        // It may have come back, and have read its spool, before this request was in it.
        let answered = match self.try_del(request, SHORTEST_PROBE) {
            Err(Failure::Away(_) | Failure::Gone(_)) => return Ok(()),
            Err(Failure::Final(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        if let Err(error) = spool.remove(entry) {
            // A second DEL does no harm.
            self.log.write(Level::Error, &error.to_string());
        }
        answered
    }

    fn try_del(&self, request: &Request, patience: Duration) -> Result<(), Failure> {
        // While it shuts down it is not ready any more, but still cleans up.
        match self.probe("/healthz", Instant::now() + patience)? {
            200 => self.send(request).map(drop),
            status => Err(Failure::Away(unready("/healthz", status))),
        }
    }

    fn probe_readiness(&self, deadline: Instant) -> Result<(), Failure> {
        let target = "/readyz";
        match self.probe(target, deadline)? {
            200 => Ok(()),
            // Upstream's up to 4.3.0 has no other.
            404 => match self.probe("/healthz", deadline)? {
                200 => Ok(()),
                status => Err(Failure::Away(unready("/healthz", status))),
            },
            status => Err(Failure::Away(unready(target, status))),
        }
    }

    fn probe(&self, target: &str, deadline: Instant) -> Result<u16, Failure> {
        let deadline = deadline.max(Instant::now() + SHORTEST_PROBE);
        let response = post(&self.settings.socket, target, b"null", deadline);
        response.map(|response| response.status).map_err(|error| Failure::Away(error.to_string()))
    }

    fn send(&self, request: &Request) -> Result<Vec<u8>, Failure> {
        match post(&self.settings.socket, "/cni", &request.print(), Instant::now() + ANSWER_LIMIT) {
            Ok(response) if response.status == 200 => Ok(response.body),
            Ok(response) => Err(Failure::Final(refusal(response.status, &response.body))),
            Err(error) if error.is_unsent() => Err(Failure::Away(error.to_string())),
            Err(source) => {
                let gone = source.is_lost();
                let error = Error::NoAnswer { socket: self.settings.socket.clone(), source };
                Err(if gone { Failure::Gone(error) } else { Failure::Final(error) })
            }
        }
    }
}

fn unready(target: &str, status: u16) -> String {
    format!("{target} answers with status {status}")
}

fn refusal(status: u16, body: &[u8]) -> Error {
    if let Ok(object) = serde_json::from_slice::<ErrorObject>(body)
        && !object.msg.is_empty()
    {
        return Error::Object(object);
    }
    let text = String::from_utf8_lossy(body);
    let mut body: String = text.trim_end().chars().take(TEXT_LIMIT).collect();
    if body.len() < text.trim_end().len() {
        body.push('…');
    }
    Error::Text { status, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_stays_what_it_is_and_everything_else_is_text() {
        let object = refusal(400, br#"{"code":11,"msg":"later","details":"d"}"#);
        let expected = ErrorObject { code: 11, msg: "later".to_owned(), details: "d".to_owned() };
        assert!(matches!(object, Error::Object(object) if object == expected));
        let words = |body: &[u8]| refusal(400, body).to_string();
        assert_eq!(words(b"boom\n"), "CNI request failed with status 400: 'boom'");
        assert_eq!(words(br#"{"code":11}"#), r#"CNI request failed with status 400: '{"code":11}'"#);
        assert_eq!(words(b"\xff"), "CNI request failed with status 400: '\u{fffd}'");
        let long = words("ä".repeat(5000).as_bytes());
        assert!(long.ends_with("ä…'") && long.chars().count() < 4200, "{long}");
    }
}
