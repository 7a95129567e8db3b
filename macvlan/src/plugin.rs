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
        let link = plan.create()?;
        let mut attached = Attached { link, addresses: None, ipam };
        if let Some(ipam) = &attached.ipam {
            match given_addresses(&**ipam, attachment, invocation) {
                Ok(addresses) => attached.addresses = Some(addresses),
                Err(error) => return Err(Error::with(error, attached.undo())),
            }
        }
        let given = attached.addresses.as_ref().map(|pending| pending.success().clone()).unwrap_or_default();
        if let Err(error) = plan.configure(&mut attached.link, &given) {
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
            Ok(ipam) => take_back(
                ipam.as_deref(),
                || ipam.as_ref().map_or(Ok(()), |ipam| Ok(ipam.del(attachment, invocation)?)),
                delete,
            ),
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

/// What an ADD has made. Dropped in this order.
struct Attached {
    link: CreatedLink,
    addresses: Option<Pending>,
    ipam: Option<Arc<dyn Plugin>>,
}

impl Attached {
    fn undo(self) -> Result<(), Error> {
        let Self { link, addresses, ipam } = self;
        let release = || addresses.map_or(Ok(()), |pending| Ok(pending.undo()?));
        take_back(ipam.as_deref(), release, || link.undo())
    }
}

/// Deletes the link and releases its addresses, both whatever becomes of the other. The link goes first, so that no
/// address is free while something has it, unless the IPAM plugin needs the link to release.
fn take_back(
    ipam: Option<&dyn Plugin>,
    release: impl FnOnce() -> Result<(), Error>,
    delete: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    if ipam.is_some_and(Plugin::releases_through_interface) {
        Error::both(release(), delete())
    } else {
        Error::both(delete(), release())
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
        Ok(namespace) => delete(&namespace, attachment),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}
