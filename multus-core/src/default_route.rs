//! Which interface of a pod has the default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use multus_cni::{Cidr, Route, Success};

use crate::{Delegate, Error};

/// What becomes of the default routes of one interface, by family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Those of IPv4.
    pub ipv4: DefaultRoute,
    /// Those of IPv6.
    pub ipv6: DefaultRoute,
}

/// What becomes of the default routes of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// They stay as the plugin made them.
    #[default]
    Keep,
    /// They are removed, since another interface of the pod has the default route.
    Remove,
    /// They are removed, and one through this gateway is added.
    Replace(IpAddr),
}

impl DefaultRoutes {
    /// Decides for all delegates of a pod: where one asks for a gateway, the others lose their default routes of that
    /// family. A family that nobody asks for stays as it is.
    ///
    /// # Errors
    /// [`Error::ManyGateways`] when there is more than one gateway of a family.
    pub fn decide(delegates: &[Delegate]) -> Result<Vec<Self>, Error> {
        let ipv4 = decide_family(delegates, "IPv4", IpAddr::is_ipv4)?;
        let ipv6 = decide_family(delegates, "IPv6", IpAddr::is_ipv6)?;
        Ok(ipv4.into_iter().zip(ipv6).map(|(ipv4, ipv6)| Self { ipv4, ipv6 }).collect())
    }

    /// Whether everything stays as it is.
    #[must_use]
    pub fn is_keep(&self) -> bool {
        *self == Self::default()
    }

    /// Makes the routes of a result those that the interface has in the end.
    pub fn apply(&self, success: &mut Success) {
        self.ipv4.apply(&mut success.routes, Ipv4Addr::UNSPECIFIED.into());
        self.ipv6.apply(&mut success.routes, Ipv6Addr::UNSPECIFIED.into());
    }
}

impl DefaultRoute {
    fn apply(self, routes: &mut Vec<Route>, unspecified: IpAddr) {
        if self == Self::Keep {
            return;
        }
        let is_family = |route: &Route| route.dst.address().is_ipv4() == unspecified.is_ipv4();
        routes.retain(|route| !(route.dst.is_default() && is_family(route)));
        if let (Self::Replace(gateway), Some(default)) = (self, Cidr::new(unspecified, 0)) {
            routes.push(Route { gw: Some(gateway), ..Route::new(default) });
        }
    }
}

fn decide_family(
    delegates: &[Delegate],
    family: &'static str,
    is_family: fn(&IpAddr) -> bool,
) -> Result<Vec<DefaultRoute>, Error> {
    let gateways = |delegate: &Delegate| -> Vec<IpAddr> {
        delegate.request.default_route.iter().flatten().copied().filter(is_family).collect()
    };
    let asked: Vec<Vec<IpAddr>> = delegates.iter().map(gateways).collect();
    let count = asked.iter().map(Vec::len).sum::<usize>();
    if count > 1 {
        let asking = delegates.iter().zip(&asked).filter(|(_, gateways)| !gateways.is_empty());
        let networks: Vec<&str> = asking.map(|(delegate, _)| delegate.name.as_str()).collect();
        return Err(Error::ManyGateways { family, networks: networks.join(", ") });
    }
    let decide = |gateways: &Vec<IpAddr>| match gateways.first() {
        Some(gateway) => DefaultRoute::Replace(*gateway),
        None if count == 1 => DefaultRoute::Remove,
        None => DefaultRoute::Keep,
    };
    Ok(asked.iter().map(decide).collect())
}
