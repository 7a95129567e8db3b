//! Making the link and configuring it: what changes the kernel.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    path::Path,
    time::Duration,
};

use multus_cni::{Attachment, Cidr, MacAddress, Route, Success};
use multus_net::{
    Address, Connection, Error as NetError, Link, MacvlanMode, MacvlanSpec, Namespace, RouteSpec, sysctl,
};

use crate::{
    Error,
    plan::{Plan, TIMEOUT},
};

/// How long the kernel may look for duplicates, where it is waited for.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// The upper half of the group that a link is in until its attachment is kept: "mk" in ASCII. The lower half is the ADD's
/// own. A link that is found in such a group is the work of an ADD that is under way, or has died.
const UNFINISHED: u32 = 0x6d6b_0000;
/// The group of links that are about to go: "lvng" in ASCII.
const LEAVING: u32 = 0x6c76_6e67;

/// A link that this call has made, and that goes with it unless the attachment is kept.
#[must_use = "dropping this deletes the link"]
pub(crate) struct CreatedLink {
    /// A connection to the namespace it is in.
    inside: Connection,
    link: Link,
    kept: bool,
}

impl CreatedLink {
    /// The link that was just made under `name` in `group`. Another ADD of the attachment, or whoever administers the
    /// sandbox, may have put something else in its place already.
    fn find(mut inside: Connection, name: &str, group: u32) -> Result<Self, Error> {
        match inside.link_by_name(name).map(|found| found.filter(|link| link.group == group)) {
            Ok(Some(link)) => Ok(Self { inside, link, kept: false }),
            Ok(None) => Err(Error::with(Error::Vanished(name.to_owned()), forget(&mut inside, name, group))),
            Err(error) => Err(Error::with(error.into(), forget(&mut inside, name, group))),
        }
    }

    /// Its hardware address.
    pub(crate) fn mac(&self) -> Option<MacAddress> {
        self.link.mac
    }

    /// Says that the link is finished, while it can still be told that somebody has deleted it: where nobody keeps the ADDs
    /// of an attachment apart, another one may have taken it for a dead one's.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        let finished = self.inside.set_link_group(self.link.index, 0);
        finished.map_err(|source| Error::SetUp { ifname: self.link.name.clone(), source, hint: String::new() })
    }

    /// Leaves the link where it is.
    pub(crate) fn keep(mut self) {
        self.kept = true;
        // The attachment is delivered: without the note, only a second ADD would be tried before it is refused.
        let _unnoted = self.inside.set_link_group(self.link.index, 0);
    }

    /// Deletes the link, whatever it is called by now.
    pub(crate) fn undo(mut self) -> Result<(), Error> {
        self.delete()
    }

    fn delete(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.kept, true) {
            return Ok(());
        }
        deleted(&self.link.name, self.inside.delete_link(self.link.index))
    }
}

impl Drop for CreatedLink {
    fn drop(&mut self) {
        // Nobody is left to tell: the caller is returning another error, or unwinding.
        let _untold = self.delete();
    }
}

/// Deletes the link that a request has made, should it have made one: the kernel can lack the memory to say so.
fn forget(inside: &mut Connection, name: &str, group: u32) -> Result<(), Error> {
    match inside.link_by_name(name)? {
        Some(link) if link.group == group => deleted(name, inside.delete_link(link.index)),
        _ => Ok(()),
    }
}

/// A group for the link of one ADD.
fn unfinished_group() -> u32 {
    // The standard library's hashes begin with random numbers.
    let random = RandomState::new().hash_one(UNFINISHED);
    UNFINISHED | u32::try_from(random & 0xffff).unwrap_or_default()
}

fn is_unfinished(link: &Link) -> bool {
    link.macvlan.is_some() && link.group & 0xffff_0000 == UNFINISHED
}

/// Deletes the link of an attachment in `namespace`, whatever it is, and one that a killed ADD may have left under its
/// temporary name. What is gone is no failure.
pub(crate) fn delete(namespace: &Namespace, attachment: &Attachment) -> Result<(), Error> {
    let mut inside = namespace.connect(TIMEOUT)?;
    let mut delete = |name: &str| deleted(name, inside.delete_link_by_name(name));
    Error::both(delete(attachment.ifname.as_str()), delete(&temporary_name(attachment)))
}

/// Deletes the links of several attachments in `namespace` in one request: the kernel waits some 20 ms for each. Those that
/// it has not deleted are [`delete`]d one by one afterwards.
pub(crate) fn delete_together(namespace: &Namespace, attachments: &[&Attachment]) -> Result<(), Error> {
    let mut inside = namespace.connect(TIMEOUT)?;
    for attachment in attachments {
        let name = attachment.ifname.as_str();
        deleted(name, inside.set_link_group_by_name(name, LEAVING))?;
    }
    deleted("the links of a group", inside.delete_link_group(LEAVING))
}

/// The name of an attachment's link until it can have its own, on Linux before 6.15.
fn temporary_name(attachment: &Attachment) -> String {
    // Stable, since DEL has to find what another process made.
    format!("mv{:012x}", attachment.id().stable_hash() & 0xffff_ffff_ffff)
}

fn deleted(name: &str, result: Result<(), NetError>) -> Result<(), Error> {
    match result {
        Err(source) if !source.is_not_found() => Err(Error::Delete { ifname: name.to_owned(), source }),
        _ => Ok(()),
    }
}

impl Plan {
    /// Makes the link under its final name in the sandbox. It is down.
    pub(crate) fn create(&mut self) -> Result<CreatedLink, Error> {
        let ifname = self.attachment.ifname.to_string();
        if let Some(created) = self.create_as(&ifname)? {
            return Ok(created);
        }
        let temporary = temporary_name(&self.attachment);
        // There may have been one, of another ADD that has renamed it since.
        let taken = || Error::NameTaken { ifname: ifname.clone(), unfinished: None };
        let mut created = self.create_as(&temporary)?.ok_or_else(taken)?;
        match created.inside.rename_link(created.link.index, &ifname) {
            Ok(()) => {
                created.link.name = ifname;
                Ok(created)
            }
            Err(source) => Err(Error::with(Error::Rename { ifname, source }, created.undo())),
        }
    }

    /// Makes the link under that name. Where the sandbox has no such name, and the kernel says that it is taken, Linux is
    /// older than 6.15 and has looked for it on the parent's side: then there is none.
    fn create_as(&mut self, name: &str) -> Result<Option<CreatedLink>, Error> {
        let mut inside = self.take_inside()?;
        let group = unfinished_group();
        match self.request_link(name, group) {
            Ok(()) => CreatedLink::find(inside, name, group).map(Some),
            Err(error) if error.already_exists() => match inside.link_by_name(name)? {
                Some(link) => {
                    let unfinished = is_unfinished(&link).then_some(link.index);
                    Err(Error::NameTaken { ifname: self.attachment.ifname.to_string(), unfinished })
                }
                None => Ok(None),
            },
            Err(error) => {
                let made = if error.is_unanswered() { forget(&mut inside, name, group) } else { Ok(()) };
                Err(Error::with(self.not_created(error), made))
            }
        }
    }

    fn request_link(&mut self, name: &str, group: u32) -> Result<(), NetError> {
        let config = &self.config;
        let spec = MacvlanSpec {
            name,
            parent: self.parent.index,
            mtu: u32::try_from(config.mtu).ok().filter(|mtu| *mtu > 0),
            mac: config.mac,
            group,
            mode: config.mode,
            broadcast_queue_length: config.broadcast_queue_length,
            broadcast_cutoff: config.broadcast_cutoff,
            no_promiscuous: config.no_promiscuous,
            no_destination: config.no_destination,
            source_macs: &config.source_macs,
        };
        self.parent_side.create_macvlan(&spec, Some(&self.namespace))
    }

    /// Makes the link in place of the unfinished one with that index, whose ADD is known to have died.
    pub(crate) fn create_instead(&mut self, unfinished: u32) -> Result<CreatedLink, Error> {
        let mut inside = self.take_inside()?;
        deleted(self.attachment.ifname.as_str(), inside.delete_link(unfinished))?;
        self.create()
    }

    /// Gives the link what `success` says and sets it up.
    pub(crate) fn configure(&self, created: &mut CreatedLink, success: &Success) -> Result<(), Error> {
        let ifname = self.attachment.ifname.as_str();
        let has_ipv6 = success.ips.iter().any(|ip| ip.address.address().is_ipv6());
        // Settings of IPv6 take a visit to the namespace; with addresses of IPv4 alone nobody needs them.
        let optimistic = (has_ipv6 || success.ips.is_empty())
            && self.namespace.enter(|| {
                announce_ipv6_addresses(&self.sysctls, ifname);
                Ok::<_, Error>(has_ipv6 && prepare_ipv6(&self.sysctls, ifname, self.config.optimistic_dad)?)
            })?;
        let CreatedLink { inside, link, .. } = created;
        // Once it is up, the neighbours hear who has its addresses now. Where that cannot be had, they find out by asking.
        let _unavailable = inside.set_arp_notify(link.index);
        for ip in &success.ips {
            inside.add_address(link.index, ip.address, optimistic).map_err(|source| Error::AddAddress {
                address: ip.address,
                ifname: ifname.to_owned(),
                source,
            })?;
        }
        inside.set_link_up(link.index).map_err(|source| self.not_up(link, source))?;
        let gateways = Gateways::of(success);
        if gateways.ipv6.is_some() && !optimistic {
            settle(inside, link)?;
        }
        success.routes.iter().try_for_each(|route| add_route(inside, link, route, &gateways))
    }

    fn not_created(&self, source: NetError) -> Error {
        let parent = &self.parent.name;
        let hint = match (source.errno().map(errno), self.config.mode) {
            (Some("EPERM"), _) => " (making a link takes the capability NET_ADMIN)".to_owned(),
            (Some("EBUSY"), _) => format!(" ({parent:?} is in use by a bridge, a bond or an ipvlan link)"),
            (Some("EINVAL"), MacvlanMode::Passthru) => {
                format!(" (mode passthru needs {parent:?} for itself, and there is another macvlan link on it)")
            }
            (Some("EINVAL"), _) => {
                let flag = if self.config.no_destination { "the flag \"nodst\" takes Linux 5.13; " } else { "" };
                format!(
                    " ({flag}is there a passthru link on {parent:?}, is it an ipvlan link or no Ethernet device, or is the MTU too small for it?)"
                )
            }
            _ => String::new(),
        };
        Error::Create { source, hint }
    }

    fn not_up(&self, link: &Link, source: NetError) -> Error {
        let hint = match (source.errno().map(errno), link.mac) {
            (Some("EADDRINUSE"), Some(mac)) => {
                format!(" (another link on {:?}, or that itself, has the MAC address {mac})", self.parent.name)
            }
            _ => String::new(),
        };
        Error::SetUp { ifname: link.name.clone(), source, hint }
    }
}

/// Has the kernel tell the neighbours, once the link is up, who has its IPv6 addresses now.
fn announce_ipv6_addresses(sysctls: &Path, ifname: &str) {
    let _unavailable = sysctl::write_in(sysctls, &format!("net/ipv6/conf/{ifname}/ndisc_notify"), "1");
}

/// Enables IPv6, keeps addresses over a link that goes down, and returns whether addresses may be optimistic.
fn prepare_ipv6(sysctls: &Path, ifname: &str, optimistic: bool) -> Result<bool, Error> {
    for interface in ["lo", ifname] {
        let key = format!("net/ipv6/conf/{interface}/disable_ipv6");
        if sysctl::read_in(sysctls, &key).is_ok_and(|value| value != "0") {
            sysctl::write_in(sysctls, &key, "0")
                .map_err(|source| Error::EnableIpv6 { interface: interface.to_owned(), source })?;
        }
    }
    let _unavailable = sysctl::write_in(sysctls, &format!("net/ipv6/conf/{ifname}/keep_addr_on_down"), "1");
    Ok(optimistic && sysctl::write_in(sysctls, &format!("net/ipv6/conf/{ifname}/optimistic_dad"), "1").is_ok())
}

fn settle(inside: &mut Connection, link: &Link) -> Result<(), Error> {
    let addresses = inside.settled_addresses(link.index, SETTLE_TIME)?;
    let failed = |problem| Err(Error::Settle { ifname: link.name.clone(), problem });
    if let Some(duplicate) = addresses.iter().find(|address| address.is_duplicate) {
        let address = duplicate.cidr.address();
        return failed(format!("has address {address} in DADFAILED state: a neighbour has it too"));
    }
    let is_unsettled = |address: &Address| address.is_tentative;
    // Without a carrier there is nobody to ask, and the kernel will when there is.
    if addresses.iter().any(is_unsettled) && inside.link_by_index(link.index)?.is_some_and(|link| link.is_operational) {
        return failed(format!("still has tentative addresses after {} seconds", SETTLE_TIME.as_secs()));
    }
    Ok(())
}

/// Next hops for routes that name none: of each family the first that an address came with.
struct Gateways {
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

impl Gateways {
    fn of(success: &Success) -> Self {
        let first = |ipv4| success.ips.iter().filter_map(|ip| ip.gateway).find(|gateway| gateway.is_ipv4() == ipv4);
        Self { ipv4: first(true), ipv6: first(false) }
    }

    fn of_family(&self, cidr: &Cidr) -> Option<IpAddr> {
        if cidr.address().is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

fn add_route(inside: &mut Connection, link: &Link, route: &Route, gateways: &Gateways) -> Result<(), Error> {
    let given = |number: u32| (number > 0).then_some(number);
    let spec = RouteSpec {
        destination: route.dst,
        gateway: route.gw.or_else(|| gateways.of_family(&route.dst)),
        output: link.index,
        priority: given(route.priority),
        table: route.table.and_then(given),
        scope: route.scope.unwrap_or(0),
        mtu: given(route.mtu),
        advmss: given(route.advmss),
    };
    inside.add_route(&spec).map_err(|source| Error::AddRoute { route: described(&spec, &link.name), source })
}

/// A route as the Go plugin words it.
fn described(route: &RouteSpec, ifname: &str) -> String {
    let scope = match route.scope {
        0 => "universe",
        200 => "site",
        253 => "link",
        254 => "host",
        255 => "nowhere",
        _ => "unknown",
    };
    format!(
        "{{{} {}}} via {} dev {ifname} metric {} (Scope: {scope}, Table: {})",
        route.destination.address(),
        hexadecimal_mask(&route.destination),
        route.gateway.map_or_else(|| "<nil>".to_owned(), |gateway| gateway.to_string()),
        route.priority.unwrap_or(0),
        route.table.unwrap_or(0),
    )
}

/// The mask of a network as the Go library prints it: `ffffff00`.
pub(crate) fn hexadecimal_mask(cidr: &Cidr) -> String {
    let digits = if cidr.address().is_ipv4() { 8 } else { 32 };
    let ones = u32::from(cidr.prefix());
    let mask = u128::MAX.checked_shl(128 - ones).unwrap_or(0);
    format!("{mask:032x}").chars().take(digits).collect()
}

/// The name of those error numbers that mean something in particular here.
fn errno(number: i32) -> &'static str {
    match number {
        1 => "EPERM",
        16 => "EBUSY",
        22 => "EINVAL",
        98 => "EADDRINUSE",
        _ => "",
    }
}
