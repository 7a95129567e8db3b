//! Links: look up, create a macvlan, change, delete.

use multus_cni::MacAddress;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoMacVlan, LinkAttribute, LinkExtentMask, LinkMessage, MacVlanFlags, MacVlanMacAddressMode, MacVlanMode},
};
use nix::libc;
use rtnetlink::{LinkMacVlan, LinkUnspec};

use crate::{
    Connection, Error, Namespace,
    attributes::{attributes, i32_at, text, u16_at, u32_at},
    connection::Action,
};

/// A network interface, as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Further names it answers to.
    pub alternative_names: Vec<String>,
    /// Maximum transmission unit in bytes.
    pub mtu: u32,
    /// The group it belongs to; 0 unless it was put into another.
    pub group: u32,
    /// Its hardware address, where that has six bytes.
    pub mac: Option<MacAddress>,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether its operational state (RFC 2863) is up: it is set up and has a carrier.
    pub is_operational: bool,
    /// The index of the link below it; in the namespace `parent_namespace_id` tells, where that is another.
    pub parent: Option<u32>,
    /// The ID, in this namespace, of the namespace of the link below; absent when it is this one.
    pub parent_namespace_id: Option<i32>,
    /// What it is, when it is a macvlan.
    pub macvlan: Option<Macvlan>,
    /// The kernel's word for its type, such as `veth`; absent for hardware.
    pub kind: Option<String>,
}

/// What a macvlan link has beyond any link (`IFLA_MACVLAN_*` in `linux/if_link.h`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Macvlan {
    /// The mode; absent when it is one this crate does not know.
    pub mode: Option<MacvlanMode>,
    /// Length of the parent's queue of broadcast and multicast packets, as asked for by this link; in packets.
    pub broadcast_queue_length: u32,
    /// Multicast traffic to more than this many links goes through the queue; less than 0: none does.
    pub broadcast_cutoff: Option<i32>,
    /// `nopromisc`: a passthru link leaves the parent's promiscuous mode alone.
    pub no_promiscuous: bool,
    /// `nodst`: a source link does not receive what is addressed to its own MAC.
    pub no_destination: bool,
    /// Whose packets a source link receives.
    pub source_macs: Vec<MacAddress>,
}

/// How a macvlan link relates to its siblings on the same parent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MacvlanMode {
    /// Never talks to siblings.
    Private,
    /// Talks to siblings by way of an external switch that sends frames back.
    Vepa,
    /// Talks to siblings directly.
    #[default]
    Bridge,
    /// The only link of its parent, with the parent's MAC.
    Passthru,
    /// Receives only what comes from given MACs.
    Source,
}

impl MacvlanMode {
    /// All modes.
    pub const ALL: [Self; 5] = [Self::Private, Self::Vepa, Self::Bridge, Self::Passthru, Self::Source];

    /// The word for it in configurations and in ip-link(8).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Vepa => "vepa",
            Self::Bridge => "bridge",
            Self::Passthru => "passthru",
            Self::Source => "source",
        }
    }
}

/// A macvlan link to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct MacvlanSpec<'a> {
    /// Its name.
    pub name: &'a str,
    /// The index of its parent, in the namespace of the connection that makes it.
    pub parent: u32,
    /// Its MTU in bytes; the parent's when absent.
    pub mtu: Option<u32>,
    /// Its hardware address; a random one when absent.
    pub mac: Option<MacAddress>,
    /// The group it is put into; 0 for the one that links are in.
    pub group: u32,
    /// Its mode.
    pub mode: MacvlanMode,
    /// See [`Macvlan::broadcast_queue_length`]; the kernel's default when absent.
    pub broadcast_queue_length: Option<u32>,
    /// See [`Macvlan::broadcast_cutoff`]; the kernel's default when absent.
    pub broadcast_cutoff: Option<i32>,
    /// See [`Macvlan::no_promiscuous`].
    pub no_promiscuous: bool,
    /// See [`Macvlan::no_destination`].
    pub no_destination: bool,
    /// See [`Macvlan::source_macs`]; for mode source only.
    pub source_macs: &'a [MacAddress],
}

impl Connection {
    /// The link that has or answers to `name`.
    ///
    /// # Errors
    /// When the kernel does not answer; not when there is no such link.
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        let attribute = match name.len() {
            1..=15 => LinkAttribute::IfName(name.to_owned()),
            16..=127 => {
                let bytes = name.bytes().chain([0]).collect();
                LinkAttribute::Other(DefaultNla::new(libc::IFLA_ALT_IFNAME, bytes))
            }
            // No link has such a name, and the kernel would refuse the question.
            _ => return Ok(None),
        };
        if name.contains('\0') {
            return Ok(None);
        }
        let mut message = LinkMessage::default();
        message.attributes = vec![attribute, without_statistics()];
        self.get_link(message)
    }

    /// The link with that index.
    ///
    /// # Errors
    /// When the kernel does not answer; not when there is no such link.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![without_statistics()];
        self.get_link(message)
    }

    fn get_link(&mut self, message: LinkMessage) -> Result<Option<Link>, Error> {
        let mut found = None;
        let message = RouteNetlinkMessage::GetLink(message);
        let request = "RTM_GETLINK";
        match self.request(request, message, Action::Get, |body| found = Link::read(body)) {
            Ok(()) if found.is_none() => {
                Err(Error::UnusableReply { request, problem: "there is no link in it".to_owned() })
            }
            Ok(()) => Ok(found),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All links. Slow where there are thousands.
    ///
    /// # Errors
    /// When the kernel does not answer, or they change too fast to be listed.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let mut message = LinkMessage::default();
        message.attributes = vec![without_statistics()];
        self.dump("RTM_GETLINK", &RouteNetlinkMessage::GetLink(message), Link::read)
    }

    /// Makes a macvlan link, born in the namespace `target`, or in the parent's own when absent. It is down.
    ///
    /// Linux before 6.15 looks for a link of the same name in the parent's namespace instead of the target.
    ///
    /// # Errors
    /// `EEXIST` when there is a link of that name, `EINVAL` for what macvlan does not allow, and others.
    pub fn create_macvlan(&mut self, spec: &MacvlanSpec<'_>, target: Option<&Namespace>) -> Result<(), Error> {
        let mut builder = LinkMacVlan::new(spec.name, spec.parent, MacVlanMode::from(spec.mode));
        if let Some(mtu) = spec.mtu {
            builder = builder.mtu(mtu);
        }
        if let Some(MacAddress(bytes)) = spec.mac {
            builder = builder.address(bytes.to_vec());
        }
        if spec.group != 0 {
            builder = builder.append_extra_attribute(LinkAttribute::Group(spec.group));
        }
        if let Some(namespace) = target {
            builder = builder.setns_by_fd(namespace.raw_fd());
        }
        let mut flags = MacVlanFlags::empty();
        flags.set(MacVlanFlags::NoPromisc, spec.no_promiscuous);
        flags.set(MacVlanFlags::NoDst, spec.no_destination);
        if !flags.is_empty() {
            builder = builder.append_info_data(InfoMacVlan::Flags(flags));
        }
        if !spec.source_macs.is_empty() {
            let macs = spec.source_macs.iter().map(|mac| InfoMacVlan::MacAddr(mac.0)).collect();
            builder = builder
                .append_info_data(InfoMacVlan::MacAddrMode(MacVlanMacAddressMode::Set))
                .append_info_data(InfoMacVlan::MacAddrData(macs));
        }
        if let Some(length) = spec.broadcast_queue_length {
            builder = builder.append_info_data(InfoMacVlan::BcQueueLen(length));
        }
        if let Some(cutoff) = spec.broadcast_cutoff {
            builder = builder.append_info_data(InfoMacVlan::BcCutoff(cutoff));
        }
        let message = RouteNetlinkMessage::NewLink(builder.build());
        self.request("RTM_NEWLINK", message, Action::Create, |_| {})
    }

    /// Gives a link another name.
    ///
    /// # Errors
    /// `EEXIST` when there is a link of that name, `EBUSY` when it is up, before Linux 6.2, and others.
    pub fn rename_link(&mut self, index: u32, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).name(name.to_owned()).build();
        self.request("RTM_NEWLINK", RouteNetlinkMessage::NewLink(message), Action::Change, |_| {})
    }

    /// Puts a link into another group.
    ///
    /// # Errors
    /// `ENODEV` when it is gone, and others.
    pub fn set_link_group(&mut self, index: u32, group: u32) -> Result<(), Error> {
        let group = LinkAttribute::Group(group);
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(group).build();
        self.request("RTM_NEWLINK", RouteNetlinkMessage::NewLink(message), Action::Change, |_| {})
    }

    /// Puts the link that has or answers to `name` into another group, without reading anything of it.
    ///
    /// # Errors
    /// `ENODEV` when there is none, and others.
    pub fn set_link_group_by_name(&mut self, name: &str, group: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).append_extra_attribute(LinkAttribute::Group(group)).build();
        self.request("RTM_NEWLINK", RouteNetlinkMessage::NewLink(message), Action::Change, |_| {})
    }

    /// Has the kernel tell the neighbours who has the link's IPv4 addresses when it comes up: the setting `arp_notify`, which
    /// so takes no visit to the namespace.
    ///
    /// # Errors
    /// `ENODEV` when it is gone, and others.
    pub fn set_arp_notify(&mut self, index: u32) -> Result<(), Error> {
        let setting = nested(IFLA_INET_CONF, &nested(IPV4_DEVCONF_ARP_NOTIFY, &1_u32.to_ne_bytes()));
        let family = nested(ADDRESS_FAMILY_INET, &setting);
        let attribute = LinkAttribute::Other(DefaultNla::new(libc::IFLA_AF_SPEC, family));
        let message = LinkUnspec::new_with_index(index).append_extra_attribute(attribute).build();
        self.request("RTM_NEWLINK", RouteNetlinkMessage::NewLink(message), Action::Change, |_| {})
    }

    /// Sets a link up.
    ///
    /// # Errors
    /// `EADDRINUSE` when a sibling has the same MAC, and others.
    pub fn set_link_up(&mut self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.request("RTM_NEWLINK", RouteNetlinkMessage::NewLink(message), Action::Change, |_| {})
    }

    /// Deletes the link that has or answers to `name`, without reading anything of it.
    ///
    /// # Errors
    /// `ENODEV` when there is none, and others.
    pub fn delete_link_by_name(&mut self, name: &str) -> Result<(), Error> {
        let message = LinkUnspec::new_with_name(name).build();
        self.request("RTM_DELLINK", RouteNetlinkMessage::DelLink(message), Action::Change, |_| {})
    }

    /// Deletes all links of a group, for which the kernel waits once.
    ///
    /// # Errors
    /// `ENODEV` when there are none, `EOPNOTSUPP` when there is one that cannot be deleted, and others. Then all remain.
    pub fn delete_link_group(&mut self, group: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(0).append_extra_attribute(LinkAttribute::Group(group)).build();
        self.request("RTM_DELLINK", RouteNetlinkMessage::DelLink(message), Action::Change, |_| {})
    }

    /// Deletes a link. The kernel waits for everyone who might still use it: some 20 ms.
    ///
    /// # Errors
    /// `ENODEV` when it is gone, and others.
    pub fn delete_link(&mut self, index: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).build();
        self.request("RTM_DELLINK", RouteNetlinkMessage::DelLink(message), Action::Change, |_| {})
    }
}

/// linux/socket.h
const ADDRESS_FAMILY_INET: u16 = 2;
/// linux/if_link.h
const IFLA_INET_CONF: u16 = 1;
/// linux/ip.h
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;

/// An attribute by itself: netlink-packet-route only knows how to read these. Payloads here need no padding.
fn nested(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), payload].concat()
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Passthru => Self::Passthrough,
            MacvlanMode::Source => Self::Source,
        }
    }
}

/// Statistics are not asked for: they cost more than the rest, and their layout changes between kernels.
fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

impl Link {
    /// Reads the body of an `RTM_NEWLINK` message: a `struct ifinfomsg`, then `IFLA_` attributes.
    fn read(body: &[u8]) -> Option<Self> {
        const IF_OPER_UP: u8 = 6;
        let mut link = Self {
            index: u32_at(body, 4)?,
            name: String::new(),
            alternative_names: Vec::new(),
            mtu: 0,
            group: 0,
            mac: None,
            is_up: u32_at(body, 8)? & 1 == 1,
            is_operational: false,
            parent: None,
            parent_namespace_id: None,
            macvlan: None,
            kind: None,
        };
        for (kind, value) in attributes(body.get(16..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = text(value),
                libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
                libc::IFLA_GROUP => link.group = u32_at(value, 0)?,
                libc::IFLA_ADDRESS => link.mac = mac(value),
                libc::IFLA_OPERSTATE => link.is_operational = value.first() == Some(&IF_OPER_UP),
                libc::IFLA_LINK => link.parent = u32_at(value, 0),
                libc::IFLA_LINK_NETNSID => link.parent_namespace_id = i32_at(value, 0),
                libc::IFLA_PROP_LIST => {
                    let names = attributes(value).filter(|(kind, _)| *kind == libc::IFLA_ALT_IFNAME);
                    link.alternative_names.extend(names.map(|(_, name)| text(name)));
                }
                libc::IFLA_LINKINFO => link.read_info(value),
                _ => {}
            }
        }
        Some(link)
    }

    fn read_info(&mut self, info: &[u8]) {
        for (kind, value) in attributes(info) {
            match kind {
                libc::IFLA_INFO_KIND => self.kind = Some(text(value)),
                // The kind comes before the data that depend on it.
                libc::IFLA_INFO_DATA if self.kind.as_deref() == Some("macvlan") => {
                    self.macvlan = Some(Macvlan::read(value));
                }
                _ => {}
            }
        }
    }
}

impl Macvlan {
    fn read(data: &[u8]) -> Self {
        const MODE: u16 = 1;
        const FLAGS: u16 = 2;
        const SOURCE_MAC: u16 = 4;
        const SOURCE_MACS: u16 = 5;
        const BROADCAST_QUEUE_LENGTH: u16 = 7;
        const BROADCAST_CUTOFF: u16 = 9;

        let mut macvlan = Self::default();
        for (kind, value) in attributes(data) {
            match kind {
                MODE => {
                    let number = u32_at(value, 0);
                    let is_it = |mode: &MacvlanMode| Some(u32::from(MacVlanMode::from(*mode))) == number;
                    macvlan.mode = MacvlanMode::ALL.into_iter().find(is_it);
                }
                FLAGS => {
                    let flags = MacVlanFlags::from_bits_retain(u16_at(value, 0).unwrap_or_default());
                    macvlan.no_promiscuous = flags.contains(MacVlanFlags::NoPromisc);
                    macvlan.no_destination = flags.contains(MacVlanFlags::NoDst);
                }
                SOURCE_MACS => {
                    let macs = attributes(value).filter(|(kind, _)| *kind == SOURCE_MAC);
                    macvlan.source_macs.extend(macs.filter_map(|(_, bytes)| mac(bytes)));
                }
                BROADCAST_QUEUE_LENGTH => macvlan.broadcast_queue_length = u32_at(value, 0).unwrap_or_default(),
                BROADCAST_CUTOFF => macvlan.broadcast_cutoff = i32_at(value, 0),
                _ => {}
            }
        }
        macvlan
    }
}

fn mac(bytes: &[u8]) -> Option<MacAddress> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddress)
}
