//! One netlink socket and the exchange of a request for its reply.

use std::{
    io,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_MULTIPART, NLM_F_REQUEST, NLMSG_DONE,
    NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::sys::{
    socket::{MsgFlags, setsockopt, sockopt::ReceiveTimeout},
    time::TimeVal,
};

use crate::{
    Error,
    attributes::{attributes, i32_at, text},
};

/// A conversation with the kernel about the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence_number: u32,
    reply: Vec<u8>,
    timeout: Duration,
}

/// What a request is to do with what exists.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// Answer with one object.
    Get,
    /// Change or delete.
    Change,
    /// Create; fail when it exists.
    Create,
    /// Create; append where the kernel has such a notion.
    Append,
}

/// What fits a dump: the kernel sizes those by what it sees the reader ask for. A single object can be larger.
const REPLY_SIZE: usize = 32 * 1024;
/// How often a question is repeated whose answer was interrupted by changes, or did not fit.
const ATTEMPTS: usize = 5;

/// What a reply is to have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Object,
    Objects,
    Acknowledgement,
}

/// How a reply ended.
#[derive(PartialEq, Eq)]
enum Reply {
    Whole,
    /// A dump that may lack objects, since there were changes while it was made.
    Interrupted,
    /// There was more than fits; now it would.
    CutShort,
}

impl Connection {
    /// Opens a connection in the calling thread's namespace. Each reply is waited for at most `timeout`.
    ///
    /// # Errors
    /// When the kernel gives no socket.
    pub fn open(timeout: Duration) -> Result<Self, Error> {
        let failed = |attempt| move |source| Error::Socket { attempt, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("socket"))?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed("bind"))?;
        // Whoever may administer the namespace could send to this socket too. From now on only the kernel can.
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect"))?;
        // Words for a refusal, without the request repeated in it.
        socket.set_ext_ack(true).map_err(failed("NETLINK_EXT_ACK"))?;
        socket.set_cap_ack(true).map_err(failed("NETLINK_CAP_ACK"))?;
        // Dumps that honour their filters. Linux before 4.20 has none, and what it tells too much is left out here.
        let _older = socket.set_netlink_get_strict_chk(true);
        // No time at all would mean for ever.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_secs(3600));
        let patience = TimeVal::new(timeout.as_secs().try_into().unwrap_or(i64::MAX), timeout.subsec_micros().into());
        setsockopt(&socket, ReceiveTimeout, &patience).map_err(io::Error::from).map_err(failed("SO_RCVTIMEO"))?;
        // What came before the socket was connected: nothing was asked yet.
        let mut unasked = Vec::with_capacity(1);
        while socket.recv(&mut unasked, MsgFlags::MSG_DONTWAIT.bits()).is_ok() {
            unasked.clear();
        }
        Ok(Self { socket, sequence_number: 0, reply: Vec::with_capacity(REPLY_SIZE), timeout })
    }

    /// Sends `message`, and hands `read` the body of what the kernel answers: nothing, for anything but [`Action::Get`].
    pub(crate) fn request(
        &mut self,
        request: &'static str,
        message: RouteNetlinkMessage,
        action: Action,
        mut read: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        let flags = match action {
            Action::Get => 0,
            Action::Change => NLM_F_ACK,
            Action::Create => NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
            Action::Append => NLM_F_ACK | NLM_F_CREATE,
        };
        let awaited = if let Action::Get = action { Awaited::Object } else { Awaited::Acknowledgement };
        for _ in 0..ATTEMPTS {
            self.send(request, message.clone(), flags)?;
            match self.receive(request, awaited, &mut read)? {
                Reply::CutShort => {}
                Reply::Whole | Reply::Interrupted => return Ok(()),
            }
        }
        Err(Error::UnusableReply { request, problem: "it has grown larger each time".to_owned() })
    }

    /// Asks for all objects of a kind and returns what `read` makes of them.
    pub(crate) fn dump<T>(
        &mut self,
        request: &'static str,
        message: &RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..ATTEMPTS {
            let mut objects = Vec::new();
            self.send(request, message.clone(), NLM_F_DUMP)?;
            if let Reply::Whole = self.receive(request, Awaited::Objects, &mut |body| objects.extend(read(body)))? {
                return Ok(objects);
            }
        }
        let problem = format!("it changed during each of {ATTEMPTS} attempts to list it");
        Err(Error::UnusableReply { request, problem })
    }

    fn send(&mut self, request: &'static str, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.sequence_number = self.sequence_number.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence_number;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        match self.socket.send(&bytes, 0) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(Error::UnusableReply { request, problem: "the request was cut short".to_owned() }),
            Err(source) => Err(Error::Socket { attempt: request, source }),
        }
    }

    /// Reads the reply to the last request to its end. A single object that does not fit is all there is; a dump, or what
    /// is left of an earlier one, goes on behind what does not.
    fn receive(
        &mut self,
        request: &'static str,
        awaited: Awaited,
        read: &mut dyn FnMut(&[u8]),
    ) -> Result<Reply, Error> {
        let unusable = |problem: String| Error::UnusableReply { request, problem };
        let other = || Err(unusable("it is the answer to another question".to_owned()));
        let refused = |code: i32, attributes: &[u8]| Error::Refused {
            request,
            errno: code.saturating_neg(),
            explanation: explanation(attributes),
        };
        let deadline = Instant::now() + self.timeout;
        let mut end = Reply::Whole;
        loop {
            if !self.receive_datagram(request, deadline)? {
                end = Reply::CutShort;
                if awaited == Awaited::Object {
                    return Ok(end);
                }
                continue;
            }
            let mut rest = self.reply.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(|error| unusable(error.to_string()))?;
                let (flags, body) = (message.flags(), message.payload());
                // Messages are aligned to four bytes within a datagram.
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX).checked_next_multiple_of(4);
                rest = length.and_then(|length| rest.get(length..)).unwrap_or_default();
                // The late reply to a request that was given up.
                if message.sequence_number() != self.sequence_number {
                    continue;
                }
                if flags & NLM_F_DUMP_INTR != 0 && end == Reply::Whole {
                    end = Reply::Interrupted;
                }
                match message.message_type() {
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(unusable("data were lost".to_owned())),
                    NLMSG_DONE => match i32_at(body, 0) {
                        Some(code) if code < 0 => return Err(refused(code, body.get(4..).unwrap_or_default())),
                        _ => return Ok(end),
                    },
                    NLMSG_ERROR => match i32_at(body, 0) {
                        // The request was carried out, whatever else did not fit.
                        Some(0) if awaited == Awaited::Acknowledgement => return Ok(Reply::Whole),
                        Some(0) => return other(),
                        // The header of the request, then attributes.
                        Some(code) => return Err(refused(code, body.get(20..).unwrap_or_default())),
                        None => return Err(unusable("an error was cut short".to_owned())),
                    },
                    _ => {
                        read(body);
                        match (flags & NLM_F_MULTIPART == 0, awaited) {
                            (true, Awaited::Object) => return Ok(end),
                            (true, Awaited::Objects | Awaited::Acknowledgement) => return other(),
                            (false, _) => {}
                        }
                    }
                }
            }
        }
    }

    /// Waits for something of the kernel's; `false` when it did not fit, and would now.
    fn receive_datagram(&mut self, request: &'static str, deadline: Instant) -> Result<bool, Error> {
        loop {
            if Instant::now() >= deadline {
                return Err(Error::NoReply { request, timeout: self.timeout });
            }
            self.reply.clear();
            match self.socket.recv(&mut self.reply, MsgFlags::MSG_TRUNC.bits()) {
                Ok(length) if length > self.reply.len() => {
                    self.reply.reserve(length.next_power_of_two());
                    return Ok(false);
                }
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(source) => return Err(Error::Socket { attempt: request, source }),
            }
        }
    }
}

/// The text in the attributes of an extended acknowledgement.
fn explanation(extended: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let (_, value) = attributes(extended).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG)?;
    Some(text(value)).filter(|text| !text.is_empty())
}
