//! The plugin's commands.

use std::sync::Arc;

use multus_cni::{Attachment, Interface, Invocation, IpConfig, Pending, Plugin, Provisional, Registry, Success};
use multus_net::Namespace;

use crate::{
    Config, Error,
    apply::{CreatedLink, delete},
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
        let mut link = plan.create()?;
        let addresses = match ipam.map(|ipam| given_addresses(&*ipam, attachment, invocation)).transpose() {
            Ok(addresses) => addresses,
            Err(error) => return Err(Error::with(error, link.undo())),
        };
        let given = addresses.as_ref().map(|pending| pending.success().clone()).unwrap_or_default();
        let configured = plan.configure(&mut link, &given);
        let interface = Interface {
            name: plan.ifname.to_string(),
            mac: link.mac().map(|mac| mac.to_string()).unwrap_or_default(),
            sandbox: attachment.sandbox(),
            ..Interface::default()
        };
        let attached = Attached { link, addresses };
        if let Err(error) = configured {
            return Err(Error::with(error, attached.undo()));
        }
        let ips = given.ips.into_iter().map(|ip| IpConfig { interface: Some(0), ..ip }).collect();
        let success = Success { interfaces: vec![interface], ips, routes: given.routes, dns: plan.config.dns };
        Ok(Pending::new(success, attached))
    }

    fn detach(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        let delete = || delete_interface(attachment, invocation);
        let release = |ipam: &dyn Plugin| ipam.del(attachment, invocation).map_err(Error::from);
        match self.ipam(invocation) {
            Ok(None) => delete(),
            Ok(Some(ipam)) if ipam.releases_through_interface() => Error::both(release(&*ipam), delete()),
            // No address is free while something still has it.
            Ok(Some(ipam)) => Error::both(delete(), release(&*ipam)),
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

/// Has the IPAM plugin reserve addresses. Of its result only addresses, gateways and routes count.
fn given_addresses(ipam: &dyn Plugin, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
    let pending = ipam.add(attachment, invocation)?;
    if pending.success().ips.is_empty() {
        let undone = pending.undo().map_err(Error::from);
        return Err(Error::with(Error::NoAddress, undone));
    }
    Ok(pending)
}

/// What an ADD has made.
struct Attached {
    link: CreatedLink,
    addresses: Option<Pending>,
}

impl Attached {
    /// Takes it back: first the link, so that no address is free while something still has it.
    fn undo(self) -> Result<(), Error> {
        let deleted = self.link.undo();
        Error::both(deleted, self.addresses.map_or(Ok(()), |pending| pending.undo().map_err(Error::from)))
    }
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
        Ok(namespace) => delete(&namespace, attachment.ifname.as_str()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
