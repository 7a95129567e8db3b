//! An echo request, so that no ping program is needed.

use std::{net::Ipv4Addr, time::Duration};

use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
        sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike},
};
use std::os::fd::AsRawFd;

use crate::Netns;

/// Sends an ICMP echo request from `from` to `target` and waits for the reply, for at most two seconds.
///
/// # Errors
/// Why there is none.
pub fn ping(from: &Netns, target: Ipv4Addr) -> Result<Duration, String> {
    from.within(|| {
        let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
            .map_err(|error| format!("socket: {error}"))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(2)).map_err(|error| format!("timeout: {error}"))?;
        // Type 8, code 0, checksum, identifier 1, sequence 1.
        let request = [8, 0, 0xf7, 0xfd, 0, 1, 0, 1];
        let [a, b, c, d] = target.octets();
        let start = std::time::Instant::now();
        sendto(socket.as_raw_fd(), &request, &SockaddrIn::new(a, b, c, d, 0), MsgFlags::empty())
            .map_err(|error| format!("send: {error}"))?;
        let mut packet = [0; 128];
        loop {
            let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty())
                .map_err(|error| format!("no reply from {target}: {error}"))?;
            // An IPv4 header of 20 bytes, then the reply: type 0.
            if length >= 28 && packet[20] == 0 && packet[12..16] == target.octets() {
                return Ok(start.elapsed());
            }
        }
    })
}
