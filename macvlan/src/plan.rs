//! Everything about an attachment that can be known before anything is changed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use multus_cni::{Attachment, Invocation};
use multus_net::{Connection, Error as NetError, Link, Namespace, RouteEntry, sysctl};

use crate::{Config, Error};

/// The longest wait for a reply of the kernel. It answers within milliseconds, unless it is stuck.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A checked attachment: nothing of it is made yet.
pub(crate) struct Plan {
    pub(crate) config: Config,
    /// The link to make the new one on.
    pub(crate) parent: Link,
    /// A connection to the namespace the parent is in.
    pub(crate) parent_side: Connection,
    /// The namespace the new link is to be born in.
    pub(crate) namespace: Namespace,
    /// A connection to that.
    inside: Option<Connection>,
    /// The host's settings: a container's own may be read-only.
    pub(crate) sysctls: PathBuf,
    /// The attachment to make.
    pub(crate) attachment: Attachment,
}

impl Plan {
    pub(crate) fn new(attachment: &Attachment, invocation: &Invocation) -> Result<Self, Error> {
        let config = Config::parse(invocation)?;
        let namespace = sandbox(attachment, invocation)?;
        let (inside, outside) = namespace.enter_while(
            || Connection::open(TIMEOUT),
            || -> Result<_, Error> {
                let mut parent_side = match config.link_in_container {
                    true => namespace.connect(TIMEOUT)?,
                    false => Connection::open(TIMEOUT)?,
                };
                Ok((parent(&config, &mut parent_side)?, parent_side))
            },
        );
        // The one that was met first, where both fail.
        let inside = Some(inside?);
        let (parent, parent_side) = outside?;
        if config.mtu < 0 || config.mtu > i64::from(parent.mtu) {
            return Err(Error::Mtu { mtu: config.mtu, master_mtu: parent.mtu });
        }
        let sysctls = invocation.on_host(Path::new(sysctl::DIRECTORY));
        let attachment = attachment.clone();
        Ok(Self { config, parent, parent_side, namespace, inside, sysctls, attachment })
    }

    /// A connection to the sandbox, to be kept.
    pub(crate) fn take_inside(&mut self) -> Result<Connection, NetError> {
        self.inside.take().map_or_else(|| self.namespace.connect(TIMEOUT), Ok)
    }
}

fn sandbox(attachment: &Attachment, invocation: &Invocation) -> Result<Namespace, Error> {
    let path = attachment.netns.as_ref().ok_or(Error::NoNetns)?;
    Namespace::open(&invocation.on_host(path)).map_err(|source| Error::Netns { path: path.clone(), source })
}

fn parent(config: &Config, connection: &mut Connection) -> Result<Link, Error> {
    let in_container = config.link_in_container;
    let Some(name) = &config.master else {
        let index = default_route_link(connection)?.ok_or(Error::NoDefaultRoute { in_container })?;
        return connection.link_by_index(index)?.ok_or(Error::NoDefaultRoute { in_container });
    };
    let found = connection.link_by_name(name);
    match found.map_err(|source| Error::MasterLookup { name: name.clone(), source })? {
        Some(link) => Ok(link),
        None => {
            let mut present: Vec<String> = connection.links()?.into_iter().map(|link| link.name).collect();
            present.sort();
            Err(Error::MasterNotFound { name: name.clone(), in_container, present })
        }
    }
}

/// The link of the first default route of the main table that leads anywhere; of the first of several next hops.
fn default_route_link(connection: &mut Connection) -> Result<Option<u32>, Error> {
    let routes = connection.routes()?;
    let leads_out = |route: &&RouteEntry| {
        route.table == RouteEntry::MAIN_TABLE && route.is_unicast && route.destination.is_default()
    };
    Ok(routes.iter().filter(leads_out).find_map(|route| route.output))
}
