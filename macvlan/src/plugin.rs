//! The plugin's commands.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use multus_cni::{
    Attachment, Cidr, Interface, Invocation, IpConfig, Pending, Plugin, Provisional, Registry, Success, Version,
};
use multus_net::Namespace;

use crate::{
    Config, Error,
    apply::{CreatedLink, delete, delete_together},
    check,
    plan::Plan,
};

/// The macvlan plugin.
#[derive(Clone, Debug)]
pub struct Macvlan {
    ipams: Registry,
}

impl Macvlan {
    /// The plugin, with the IPAM plugins it may use in this process; others are executed.
    #[must_use]
    pub fn new(ipams: Registry) -> Self {
        Self { ipams }
    }

    fn ipam(&self, invocation: &Invocation) -> Result<Option<Arc<dyn Plugin>>, Error> {
        // What ADD refuses has nothing to delete.
        let kind = Config::ipam(invocation)?.filter(|kind| kind != "macvlan");
        Ok(kind.map(|kind| self.ipams.find(&kind, invocation)).transpose()?)
    }

    fn attach(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        let mut plan = Plan::new(attachment, invocation)?;
        let ipam = self.ipam(invocation)?;
        if ipam.is_none() && !Success::default().is_printable(invocation.config.version()?) {
            return Err(multus_cni::Error::NoAddressToConvert.into());
        }
        let mut attached = made(&mut plan, ipam, attachment, invocation)?;
        let mut given = attached.addresses.as_ref().map(|pending| pending.success().clone()).unwrap_or_default();
        if invocation.config.version()? < Version::V0_3_0 {
            // Its results cannot tell of them, so that nobody would expect them.
            given.routes.retain(|route| given.ips.iter().any(|ip| is_same_family(&ip.address, &route.dst)));
        }
        let configured = plan.configure(&mut attached.link, &given);
        let finished = configured.and_then(|()| match &attached.ipam {
            Some(_) => Ok(()),
            None => attached.link.finish(),
        });
        if let Err(error) = finished {
            return Err(Error::with(error, attached.undo()));
        }
        let interface = Interface {
            name: attachment.ifname.to_string(),
            mac: attached.link.mac().map(|mac| mac.to_string()).unwrap_or_default(),
            sandbox: attachment.sandbox(),
            ..Interface::default()
        };
        let ips = given.ips.into_iter().map(|ip| IpConfig { interface: Some(0), ..ip }).collect();
        let success = Success { interfaces: vec![interface], ips, routes: given.routes, dns: plan.config.dns };
        Ok(Pending::new(success, attached))
    }

    fn detach(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        let delete = || delete_interface(attachment, invocation);
        match self.ipam(invocation) {
            Ok(Some(ipam)) => {
                let mut deleted = Ok(());
                let released = ipam.del_with_interface(attachment, invocation, &mut || deleted = delete());
                Error::both(released.map_err(Error::from), deleted)
            }
            Ok(None) => delete(),
            Err(error) => Error::both(Err(error), delete()),
        }
    }
}

impl Plugin for Macvlan {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, multus_cni::Error> {
        Ok(self.attach(attachment, invocation)?)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        Ok(self.detach(attachment, invocation)?)
    }

    fn prepare_del(&self, attachments: &[(Attachment, Invocation)]) {
        let mut sandboxes: BTreeMap<PathBuf, Vec<&Attachment>> = BTreeMap::new();
        // Others may need the interface to release an address.
        let may_go_first = |ipam: Option<Arc<dyn Plugin>>| ipam.is_none_or(|ipam| ipam.serializes_attachments());
        for (attachment, invocation) in attachments {
            if let Some(path) = &attachment.netns
                && self.ipam(invocation).is_ok_and(may_go_first)
            {
                sandboxes.entry(invocation.on_host(path)).or_default().push(attachment);
            }
        }
        for (path, attachments) in sandboxes.iter().filter(|(_, attachments)| attachments.len() > 1) {
            // Whatever fails here, each DEL meets again, and tells.
            let _met_again = Namespace::open(path).map(|namespace| delete_together(&namespace, attachments));
        }
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        let plan = Plan::new(attachment, invocation)?;
        if let Some(ipam) = self.ipam(invocation)? {
            ipam.check(attachment, invocation)?;
        }
        Ok(check::check(plan, attachment, invocation)?)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        Config::parse(invocation)?;
        self.ipam(invocation)?.map_or(Ok(()), |ipam| ipam.status(invocation))
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        self.ipam(invocation)?.map_or(Ok(()), |ipam| ipam.gc(invocation))
    }
}

/// Makes the link and has the IPAM plugin reserve its addresses.
fn made(
    plan: &mut Plan,
    ipam: Option<Arc<dyn Plugin>>,
    attachment: &Attachment,
    invocation: &Invocation,
) -> Result<Attached, Error> {
    let addresses = || ipam.as_ref().map(|ipam| given_addresses(&**ipam, attachment, invocation)).transpose();
    // Of a plugin that does not tell, the ADD that began a link may be alive still.
    let tells_the_dead = ipam.as_ref().is_none_or(|ipam| ipam.serializes_attachments());
    match plan.create() {
        Ok(link) => match addresses() {
            Ok(addresses) => Ok(Attached { link, addresses, ipam }),
            Err(error) => Err(Error::with(error, link.undo())),
        },
        Err(Error::NameTaken { unfinished: Some(index), .. }) if tells_the_dead => {
            let addresses = addresses()?;
            match plan.create_instead(index) {
                Ok(link) => Ok(Attached { link, addresses, ipam }),
                Err(error) => Err(Error::with(error, undone(addresses))),
            }
        }
        Err(error) => Err(error),
    }
}

fn is_same_family(one: &Cidr, other: &Cidr) -> bool {
    one.address().is_ipv4() == other.address().is_ipv4()
}

/// Has the IPAM plugin reserve addresses. Of its result only addresses, gateways and routes count.
fn given_addresses(ipam: &dyn Plugin, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
    let pending = ipam.add(attachment, invocation)?;
    if pending.success().ips.is_empty() {
        let undone = pending.undo().map_err(Error::from);
        return Err(Error::with(Error::NoAddress, undone));
    }
    Ok(pending)
}

/// What an ADD has made. Dropped in this order.
struct Attached {
    link: CreatedLink,
    addresses: Option<Pending>,
    ipam: Option<Arc<dyn Plugin>>,
}

impl Attached {
    /// Deletes the link and releases its addresses, both whatever becomes of the other. The link goes first, so that no
    /// address is free while something has it, unless the IPAM plugin may need it to release.
    fn undo(self) -> Result<(), Error> {
        let Self { link, addresses, ipam } = self;
        if ipam.is_some_and(|ipam| ipam.serializes_attachments()) {
            Error::both(link.undo(), undone(addresses))
        } else {
            Error::both(undone(addresses), link.undo())
        }
    }
}

fn undone(addresses: Option<Pending>) -> Result<(), Error> {
    addresses.map_or(Ok(()), |pending| Ok(pending.undo()?))
}

impl Provisional for Attached {
    fn keep(self: Box<Self>) {
        self.link.keep();
        if let Some(addresses) = self.addresses {
            addresses.keep();
        }
    }

    fn undo(self: Box<Self>) -> Result<(), multus_cni::Error> {
        Ok((*self).undo()?)
    }
}

/// A sandbox that is gone took its interfaces with it.
fn delete_interface(attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
    let Some(path) = &attachment.netns else {
        return Ok(());
    };
    match Namespace::open(&invocation.on_host(path)) {
        Ok(namespace) => delete(&namespace, attachment),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
