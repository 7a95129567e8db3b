//! The floor under an attachment in a process that stays: the requests of `floor/floor.c`, over the same kind of socket that
//! the library has.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::Ipv4Addr,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use fs2::FileExt;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::{
    libc,
    sched::{CloneFlags, setns},
};

/// A thread that attaches and detaches one sandbox.
pub(crate) struct Floor {
    outer: Socket,
    home: File,
    store: PathBuf,
    sandbox: PathBuf,
    address: Ipv4Addr,
    reply: Vec<u8>,
}

impl Floor {
    /// For the calling thread, which is in the host's namespace.
    pub(crate) fn new(store: &Path, sandbox: &Path, address: Ipv4Addr) -> Self {
        fs::create_dir_all(store).unwrap();
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        let (store, sandbox) = (store.to_owned(), sandbox.to_owned());
        Self { outer: netlink(), home, store, sandbox, address, reply: Vec::with_capacity(16 * 1024) }
    }

    pub(crate) fn attach(&mut self) {
        let sandbox = File::open(&self.sandbox).unwrap();
        let outer = Request::link(libc::RTM_GETLINK, 0, 0, 0).text(libc::IFLA_IFNAME, "ens32").skip_statistics();
        let parent = index(outer.exchange(&self.outer, &mut self.reply));
        let lock = self.locked();
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(self.reservation()).unwrap();
        file.write_all(b"c1\r\neth0").unwrap();
        drop((file, lock));

        let mode = Request::attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
        let kind = Request::attribute(libc::IFLA_INFO_KIND, b"macvlan");
        let info = [kind, Request::attribute(libc::IFLA_INFO_DATA, &mode)].concat();
        Request::link(libc::RTM_NEWLINK, CREATE, 0, 0)
            .value(libc::IFLA_LINK, &parent.to_ne_bytes())
            .text(libc::IFLA_IFNAME, "eth0")
            .value(libc::IFLA_NET_NS_FD, &sandbox.as_raw_fd().to_ne_bytes())
            .value(libc::IFLA_LINKINFO, &info)
            .acknowledged(&self.outer, &mut self.reply);

        let (inner, link) = self.enter(&sandbox);
        let broadcast = Ipv4Addr::from_bits(self.address.to_bits() | 0xff);
        let gateway = Ipv4Addr::from_bits(self.address.to_bits() & 0xffff_ff00 | 1);
        let index = link.to_ne_bytes();
        let header = [&[AF_INET, 24, 0, 0], &index[..]].concat();
        Request::new(libc::RTM_NEWADDR, CREATE, &header)
            .value(libc::IFA_LOCAL, &self.address.octets())
            .value(libc::IFA_ADDRESS, &self.address.octets())
            .value(libc::IFA_BROADCAST, &broadcast.octets())
            .acknowledged(&inner, &mut self.reply);
        Request::link(libc::RTM_NEWLINK, libc::NLM_F_ACK, link, UP).acknowledged(&inner, &mut self.reply);
        let header = [AF_INET, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT, 0, libc::RTN_UNICAST, 0, 0, 0, 0];
        Request::new(libc::RTM_NEWROUTE, libc::NLM_F_ACK | libc::NLM_F_CREATE, &header)
            .value(libc::RTA_GATEWAY, &gateway.octets())
            .value(libc::RTA_OIF, &index)
            .acknowledged(&inner, &mut self.reply);
    }

    pub(crate) fn detach(&mut self) {
        let sandbox = File::open(&self.sandbox).unwrap();
        let (inner, link) = self.enter(&sandbox);
        Request::link(libc::RTM_DELLINK, libc::NLM_F_ACK, link, 0).acknowledged(&inner, &mut self.reply);
        let _lock = self.locked();
        fs::remove_file(self.reservation()).unwrap();
    }

    /// A socket in the sandbox, and the index of its link.
    fn enter(&mut self, sandbox: &File) -> (Socket, u32) {
        setns(sandbox, CloneFlags::CLONE_NEWNET).unwrap();
        let inner = netlink();
        setns(&self.home, CloneFlags::CLONE_NEWNET).unwrap();
        let wanted = Request::link(libc::RTM_GETLINK, 0, 0, 0).text(libc::IFLA_IFNAME, "eth0").skip_statistics();
        let link = index(wanted.exchange(&inner, &mut self.reply));
        (inner, link)
    }

    fn locked(&self) -> File {
        let mut options = OpenOptions::new();
        let lock = options.read(true).append(true).create(true).mode(0o750).open(self.store.join("lock")).unwrap();
        FileExt::lock_exclusive(&lock).unwrap();
        lock
    }

    fn reservation(&self) -> PathBuf {
        self.store.join(self.address.to_string())
    }
}

const CREATE: i32 = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const AF_INET: u8 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
/// `IFF_UP`.
const UP: u32 = 1;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATISTICS: u32 = 8;

fn netlink() -> Socket {
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind(&SocketAddr::new(0, 0)).unwrap();
    socket
}

/// The index in a `struct ifinfomsg` behind a header.
fn index(reply: &[u8]) -> u32 {
    u32::from_ne_bytes(reply[20..24].try_into().unwrap())
}

/// A message to the kernel.
struct Request(Vec<u8>);

impl Request {
    /// A `struct nlmsghdr`, and what follows it.
    fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap();
        let fixed = [&[0; 4], &kind.to_ne_bytes()[..], &flags.to_ne_bytes(), &1_u32.to_ne_bytes(), &[0; 4]].concat();
        Self([&fixed, header].concat())
    }

    /// One that begins with a `struct ifinfomsg`.
    fn link(kind: u16, flags: i32, index: u32, up: u32) -> Self {
        let words = [0, index, up, up];
        Self::new(kind, flags, &words.map(u32::to_ne_bytes).concat())
    }

    fn value(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(Self::attribute(kind, value));
        self
    }

    fn text(self, kind: u16, text: &str) -> Self {
        self.value(kind, format!("{text}\0").as_bytes())
    }

    fn skip_statistics(self) -> Self {
        self.value(libc::IFLA_EXT_MASK, &SKIP_STATISTICS.to_ne_bytes())
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn exchange<'a>(mut self, socket: &Socket, reply: &'a mut Vec<u8>) -> &'a [u8] {
        let length = u32::try_from(self.0.len()).unwrap();
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        socket.send(&self.0, 0).unwrap();
        reply.clear();
        socket.recv(reply, 0).unwrap();
        reply
    }

    /// Asserts that the kernel has done it.
    fn acknowledged(self, socket: &Socket, reply: &mut Vec<u8>) {
        let code = self.exchange(socket, reply)[16..20].try_into().unwrap();
        assert_eq!(i32::from_ne_bytes(code), 0, "the kernel refused");
    }
}
