//! Default routes in the kernel, as the pod asks for them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use multus_cni::Cidr;
use multus_net::{Connection, Error, Namespace, RouteSpec};

use crate::{DefaultRoute, DefaultRoutes};

/// The longest wait for a reply of the kernel. It answers within milliseconds, unless it is stuck.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Removes the interface's default routes of each family that is not to be kept, in whatever table, and adds the one that is
/// asked for. An interface that is not there has none.
pub(crate) fn steer(netns: &Path, ifname: &str, routes: &DefaultRoutes) -> Result<(), Error> {
    let mut inside = Namespace::open(netns)?.connect(TIMEOUT)?;
    let Some(link) = inside.link_by_name(ifname)? else {
        return Ok(());
    };
    steer_family(&mut inside, link.index, routes.ipv4, Ipv4Addr::UNSPECIFIED.into())?;
    steer_family(&mut inside, link.index, routes.ipv6, Ipv6Addr::UNSPECIFIED.into())
}

fn steer_family(inside: &mut Connection, link: u32, wanted: DefaultRoute, unspecified: IpAddr) -> Result<(), Error> {
    if wanted == DefaultRoute::Keep {
        return Ok(());
    }
    for route in inside.routes()? {
        let is_family = route.destination.address().is_ipv4() == unspecified.is_ipv4();
        if route.destination.is_default() && is_family && route.is_unicast && route.output == Some(link) {
            match inside.delete_route(&route) {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    match (wanted, Cidr::new(unspecified, 0)) {
        (DefaultRoute::Replace(gateway), Some(destination)) => inside.add_route(&RouteSpec {
            destination,
            gateway: Some(gateway),
            output: link,
            priority: None,
            table: None,
            scope: 0,
            mtu: None,
            advmss: None,
        }),
        _ => Ok(()),
    }
}
