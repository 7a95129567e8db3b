//! What the kernel may answer on a netlink socket, instead of what it does.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use nix::errno::Errno;

use crate::{
    Call, Fault, Lab, Reply,
    faults::{What, reason},
    strace,
};

/// A request on a netlink socket, with the first datagram of the reply.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Such as `RTM_NEWLINK`.
    pub request: String,
    send: Traced,
    receive: Traced,
}

/// A system call of a program's first thread, as strace(1) tells of it.
#[derive(Clone, Debug)]
struct Traced {
    /// Which of the thread's calls of that name it is, since the program's start; the first is 1.
    which: usize,
    text: String,
}

impl Exchange {
    /// What is asked for is not done, and refused.
    #[must_use]
    pub fn refused(&self, errno: Errno) -> Fault {
        let reply = self.acknowledgement(Some(errno), self.sequence());
        Fault {
            reason: reason(errno),
            ..self.fault(&format!("{errno:?} in the reply"), vec![self.unheard(), self.instead(&reply)])
        }
    }

    /// Every refusal of the kernel's there.
    #[must_use]
    pub fn refusals(&self) -> Vec<Fault> {
        use Errno::*;
        let errors: &[Errno] = match self.request.as_str() {
            // Another error, ENODEV, would be the truth about what is there.
            "RTM_GETLINK" | "RTM_GETADDR" | "RTM_GETROUTE" | "RTM_DELLINK" => {
                &[ENOMEM, ENOBUFS, EBUSY, EOPNOTSUPP, EPERM]
            }
            _ => &[ENOMEM, ENOBUFS, EBUSY, EOPNOTSUPP, EPERM, ENODEV, EEXIST, EINVAL, EADDRINUSE],
        };
        errors.iter().map(|errno| self.refused(*errno)).collect()
    }

    /// What is asked for is done, and the reply makes no sense.
    #[must_use]
    pub fn nonsense(&self) -> Vec<Fault> {
        let (header, sequence) = (self.header(36, self.sequence()), self.sequence());
        let fault = |words: &str, reply: &[u8]| self.fault(words, vec![self.instead(reply)]);
        let mut empty_body = self.header(20, sequence);
        empty_body.extend([0; 4]);
        let mut overrun = self.acknowledgement(None, sequence);
        overrun[4] = 4;
        vec![
            fault("a reply cut in its header", &header[..10]),
            fault("a reply cut behind its header", &header),
            fault("an acknowledgement cut short", &empty_body),
            fault("a reply of one bit in two", &[0xa5; 36]),
            fault("a reply of zeros", &[0; 36]),
            fault("a reply that was overrun", &overrun),
        ]
    }

    /// What comes before the reply, and means nothing.
    #[must_use]
    pub fn harmless(&self) -> Vec<Fault> {
        let fault =
            |words: &str, reply: &[u8]| Fault { is_harmless: true, ..self.fault(words, vec![self.instead(reply)]) };
        let mut noop = self.acknowledgement(None, self.sequence());
        noop[4] = 1;
        vec![
            fault("an answer to another request", &self.acknowledgement(None, self.sequence() + 1000)),
            fault("a refusal of another request", &self.acknowledgement(Some(Errno::ENOMEM), self.sequence() + 1000)),
            fault("an empty datagram", &[]),
            fault("a message that says nothing", &noop),
        ]
    }

    /// What is asked for is not done, and nothing is said of it.
    #[must_use]
    pub fn unheard_of(&self) -> Fault {
        self.fault("no answer", vec![self.unheard()])
    }

    /// What is asked for is done, and nothing is said of it.
    #[must_use]
    pub fn unanswered(&self) -> Fault {
        let other = hexadecimal(&self.acknowledgement(None, self.sequence() + 1000));
        let alter = format!("recvfrom:poke_exit=@arg2={other}:when={}", self.receive.which);
        self.fault("no answer to what is done", vec![alter])
    }

    fn fault(&self, what: &str, injections: Vec<String>) -> Fault {
        Fault {
            what: What::Injections(injections),
            reason: "repl".to_owned(),
            reason_of_remains: None,
            is_harmless: false,
            is_final: false,
            words: format!("{what} to {}", self.request),
        }
    }

    fn unheard(&self) -> String {
        let length = self.send.text.rsplit(" = ").next().unwrap();
        format!("sendto:retval={length}:when={}", self.send.which)
    }

    /// The kernel's own reply stays where it is.
    fn instead(&self, reply: &[u8]) -> String {
        let (length, which) = (reply.len(), self.receive.which);
        let poke = if length == 0 { String::new() } else { format!(":poke_exit=@arg2={}", hexadecimal(reply)) };
        format!("recvfrom:retval={length}{poke}:when={which}")
    }

    fn sequence(&self) -> u32 {
        number(&self.receive.text, "nlmsg_seq=")
    }

    /// That of an `NLMSG_ERROR` (linux/netlink.h).
    fn header(&self, length: u32, sequence: u32) -> Vec<u8> {
        let port = number(&self.receive.text, "nlmsg_pid=");
        let kind = 2_u32;
        [length, kind, sequence, port].into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    fn acknowledgement(&self, errno: Option<Errno>, sequence: u32) -> Vec<u8> {
        let code = errno.map_or(0, |errno| -io::Error::from(errno).raw_os_error().unwrap());
        let mut bytes = self.header(36, sequence);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }
}

impl Call {
    /// Runs it in the lab's host, and returns also what it asks the kernel on netlink sockets, in order.
    #[must_use]
    pub fn exchanges(&self, lab: &Lab) -> (Reply, Vec<Exchange>) {
        let (reply, trace) = self.through_strace(lab, &[]);
        let (mut exchanges, mut asked) = (Vec::new(), None::<Traced>);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for line in trace.lines() {
            let Some((name, _)) = line.split_once('(').filter(|(name, _)| !name.contains(' ')) else { continue };
            let which = counts.entry(name).or_default();
            *which += 1;
            let call = Traced { which: *which, text: line.to_owned() };
            match name {
                "sendto" => asked = Some(call),
                "recvfrom" if call.text.contains("nlmsg_seq=") => {
                    // Dumps have several.
                    let Some(send) = asked.take() else { continue };
                    assert_eq!(number(&send.text, "nlmsg_seq="), number(&call.text, "nlmsg_seq="));
                    exchanges.push(Exchange { request: request(&send.text), send, receive: call });
                }
                _ => {}
            }
        }
        (reply, exchanges)
    }

    /// Runs it in the lab's host, with these things happening to it, as strace(1) takes them.
    pub(crate) fn run_with_injections(&self, injections: &[String], lab: &Lab) -> Reply {
        let options: Vec<String> = injections.iter().map(|one| format!("--inject={one}")).collect();
        let (reply, trace) = self.through_strace(lab, &options);
        let injected = trace.lines().filter(|line| line.contains("INJECTED")).count();
        assert_eq!(injected, injections.len(), "{injections:?} did not happen: {reply:?}\n{trace}");
        reply
    }

    fn through_strace(&self, lab: &Lab, options: &[String]) -> (Reply, String) {
        static TRACES: AtomicUsize = AtomicUsize::new(0);
        let file = lab.path(&format!("trace-{}", TRACES.fetch_add(1, Ordering::Relaxed)));
        let fixed = [strace().unwrap(), "-qq", "-y", "--const-print-style=verbose", "-o", file.to_str().unwrap()];
        let words: Vec<&str> = fixed.into_iter().chain(options.iter().map(String::as_str)).collect();
        let reply = self.clone().through(&words).run_in(&lab.host);
        (reply, take(&file))
    }
}

fn take(file: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    fs::remove_file(file).unwrap();
    text
}

/// Its name (linux/rtnetlink.h): strace(1) does not know it on a socket of another namespace than its own.
fn request(send: &str) -> String {
    const NAMES: [(&str, &str); 7] = [
        ("10", "RTM_NEWLINK"),
        ("11", "RTM_DELLINK"),
        ("12", "RTM_GETLINK"),
        ("14", "RTM_NEWADDR"),
        ("16", "RTM_GETADDR"),
        ("18", "RTM_NEWROUTE"),
        ("1a", "RTM_GETROUTE"),
    ];
    let kind = send.split_once("nlmsg_type=0x").unwrap().1.split(' ').next().unwrap();
    NAMES.iter().find(|(number, _)| *number == kind).unwrap_or_else(|| panic!("{send}")).1.to_owned()
}

/// Ports of a process's further sockets are told as negative numbers.
fn number(text: &str, key: &str) -> u32 {
    let rest = text.split_once(key).unwrap().1;
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '-').unwrap();
    let number: i64 = rest[..end].parse().unwrap();
    (number & i64::from(u32::MAX)).try_into().unwrap()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
