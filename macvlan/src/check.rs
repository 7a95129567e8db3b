//! CHECK: whether the kernel still has what `prevResult` says.

use multus_cni::{Attachment, Invocation, IpConfig, Route, Success};
use multus_net::{Address, Link, MacvlanMode, RouteEntry};

use crate::{Config, Error, apply::hexadecimal_mask, plan::Plan};

/// Compares link, addresses and routes in the sandbox with `prevResult` and the configuration.
pub(crate) fn check(mut plan: Plan, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
    let previous = invocation.config.previous_result()?.ok_or(Error::NoPreviousResult)?;
    let (name, sandbox) = (attachment.ifname.as_str(), attachment.sandbox());
    let told = previous.interfaces.iter().rev().find(|told| told.name == name && told.sandbox == sandbox);
    let told = told.ok_or_else(|| {
        differs(format!(
            "sandbox in prevResult  doesn't match configured netns: {sandbox}; it has no interface {name:?} there"
        ))
    })?;
    let mut inside = plan.take_inside()?;
    let Plan { config, parent, .. } = plan;
    let link = inside.link_by_name(name)?;
    let link = link.ok_or_else(|| differs(format!("container Interface name in prevResult: {name} not found")))?;
    check_link(&link, &config, &parent, &told.mac)?;
    check_addresses(&link, &previous, &inside.addresses(link.index)?)?;
    check_routes(&link, &previous, &inside.routes()?)
}

fn check_link(link: &Link, config: &Config, parent: &Link, told_mac: &str) -> Result<(), Error> {
    let name = &link.name;
    let Some(macvlan) = &link.macvlan else {
        return Err(differs(format!("error: Container interface {name} not of type macvlan")));
    };
    if macvlan.mode != Some(config.mode) {
        let (actual, expected) = (macvlan.mode.map_or("unknown", MacvlanMode::as_str), config.mode.as_str());
        return Err(differs(format!("container macvlan mode {actual} does not match expected value: {expected}")));
    }
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    if !told_mac.is_empty() && !told_mac.eq_ignore_ascii_case(&mac) {
        return Err(differs(format!("interface {name} Mac {told_mac} doesn't match container Mac: {mac}")));
    }
    let in_container = link.parent_namespace_id.is_none();
    // Without a configured master it is the default route's, which may have moved since.
    let is_named = config.master.is_some();
    if is_named && (link.parent != Some(parent.index) || in_container != config.link_in_container) {
        let master = &parent.name;
        return Err(differs(format!("interface {name} has another parent than the configured master {master:?}")));
    }
    let mut expected = config.source_macs.clone();
    let mut actual = macvlan.source_macs.clone();
    expected.sort_unstable();
    expected.dedup();
    actual.sort_unstable();
    if expected != actual {
        return Err(differs(format!("interface {name} does not have the configured source MACs")));
    }
    Ok(())
}

fn check_addresses(link: &Link, previous: &Success, addresses: &[Address]) -> Result<(), Error> {
    for IpConfig { address, .. } in &previous.ips {
        let name = &link.name;
        let found = addresses.iter().find(|found| found.cidr == *address);
        let found = found.ok_or_else(|| differs(format!("Failed to match addr {address} on interface {name}")))?;
        if found.is_duplicate {
            return Err(differs(format!(
                "addr {address} on interface {name} is in DADFAILED state: a neighbour has it too"
            )));
        }
    }
    Ok(())
}

fn check_routes(link: &Link, previous: &Success, routes: &[RouteEntry]) -> Result<(), Error> {
    let in_main = |route: &&RouteEntry| route.table == RouteEntry::MAIN_TABLE;
    for IpConfig { address, gateway, .. } in &previous.ips {
        // A single IPv4 address has no network to be connected to.
        if address.address().is_ipv4() && address.prefix() == 32 {
            continue;
        }
        let connected = |route: &RouteEntry| {
            route.destination.address() == address.network() && route.destination.prefix() == address.prefix()
        };
        if !routes.iter().filter(in_main).any(connected) {
            let gateway = gateway.map_or_else(|| "<nil>".to_owned(), |gateway| gateway.to_string());
            let why = if link.is_up { "" } else { ": the link is down" };
            return Err(differs(format!("Failed to find Gateway {gateway} for interface {}{why}", link.name)));
        }
    }
    match previous.routes.iter().find(|expected| !routes.iter().any(|route| serves(route, expected))) {
        None => Ok(()),
        Some(missing) => Err(differs(format!("Expected Route {} not found in routing table", described(missing)))),
    }
}

/// Whether `route` is the `expected` one. The next hop of a default route is left to whoever may steer it later.
fn serves(route: &RouteEntry, expected: &Route) -> bool {
    let table = expected.table.filter(|table| *table > 0).unwrap_or(RouteEntry::MAIN_TABLE);
    let same_gateway = expected.gw.is_none() || expected.dst.is_default() || route.gateway == expected.gw;
    route.table == table && route.destination == expected.dst && same_gateway
}

fn described(route: &Route) -> String {
    let or_nil = |text: Option<String>| text.unwrap_or_else(|| "<nil>".to_owned());
    format!(
        "{{Dst:{{IP:{} Mask:{}}} GW:{} MTU:{} AdvMSS:{} Priority:{} Table:{} Scope:{}}}",
        route.dst.address(),
        hexadecimal_mask(&route.dst),
        or_nil(route.gw.map(|gw| gw.to_string())),
        route.mtu,
        route.advmss,
        route.priority,
        or_nil(route.table.map(|table| table.to_string())),
        or_nil(route.scope.map(|scope| scope.to_string())),
    )
}

fn differs(what: String) -> Error {
    Error::Differs(what)
}
