//! Detaching a sandbox from its networks, and what is known of them.

use std::{error::Error as StdError, io, path::Path};

use multus_cni::{Attachment, AttachmentRequest, Command, NetworkConfigList, is_lack};
use multus_net::Namespace;
use tracing::warn;

use super::Call;
use crate::{Delegate, Error, observer::timed_network};

/// What is attached to a sandbox, as DEL and CHECK find it.
pub(super) struct Remembered {
    pub(super) network: String,
    pub(super) config: NetworkConfigList,
    pub(super) request: AttachmentRequest,
}

impl Call<'_> {
    pub(super) fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        let _turn = self.turn(&attachment.container_id)?;
        let remembered = self.remembered_or_planned(attachment)?;
        self.delete(remembered)?;
        self.scratch.remove(&attachment.container_id)
    }

    /// Detaches from all of these, the last one first, whatever becomes of each.
    pub(super) fn delete(&self, attached: Vec<Remembered>) -> Result<(), Error> {
        let mut failures = Vec::new();
        let all: Vec<_> = attached.iter().map(|Remembered { config, request, .. }| (config, request)).collect();
        self.chain.prepare_del(&all);
        for Remembered { network, config, request } in attached.into_iter().rev() {
            let observer = &*self.multus.observer;
            let deleted = timed_network(observer, Command::Del, &network, || self.delete_one(&config, &request));
            failures.extend(deleted.map_err(|error| error.within(format!("network {network:?}"))).err());
            if let Err(error) = self.multus.device_info.remove(&network, &request.attachment.id()) {
                warn!(%error, "a device-info file is left");
            }
        }
        Ok(multus_cni::Error::all(failures)?)
    }

    /// Detaches from one. A runtime unbinds a namespace, and then removes the file; in between plugins refuse it, and keep
    /// the addresses. Without a namespace they release them.
    fn delete_one(&self, config: &NetworkConfigList, request: &AttachmentRequest) -> Result<(), multus_cni::Error> {
        let failure = match self.chain.del(config, request) {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        };
        let gone = request.attachment.netns.as_ref().filter(|netns| self.is_gone(netns));
        if gone.is_none() {
            return Err(failure);
        }
        let mut request = request.clone();
        request.attachment.netns = None;
        self.chain.del(config, &request)
    }

    fn is_gone(&self, netns: &Path) -> bool {
        let opened = Namespace::open(&self.invocation.on_host(netns));
        opened.is_err_and(|error| error.is_not_found() || matches!(error, multus_net::Error::NotANamespace { .. }))
    }

    /// What the sandbox is attached to: as ADD remembered it, or else as it was stored for each attachment, or else as ADD
    /// would resolve it now.
    fn remembered_or_planned(&self, attachment: &Attachment) -> Result<Vec<Remembered>, Error> {
        if let Some(remembered) = self.remembered(attachment, Command::Del)? {
            return Ok(remembered);
        }
        let pod = self.pod().unwrap_or_else(|error| {
            warn!(%error, "nothing is known of the sandbox or of its pod");
            None
        });
        let Some(pod) = pod else {
            return Ok(Vec::new());
        };
        let planner = self.planner();
        let plan = planner.plan_deletion(&pod)?;
        self.tell(&plan.warnings, Some(&pod));
        self.with_requests(attachment, plan.delegates, Command::Del)
    }

    /// What the sandbox is attached to, as ADD remembered it, then what else was stored for it; what cannot be read is passed
    /// over, unless nothing can be read for now. `None` when nothing is known.
    pub(super) fn remembered(
        &self,
        attachment: &Attachment,
        command: Command,
    ) -> Result<Option<Vec<Remembered>>, Error> {
        let delegates = match self.scratch.load(&attachment.container_id) {
            Err(error) if is_for_now(&error) => return Err(error),
            Err(error) => {
                warn!(%error, "what ADD remembered of the sandbox cannot be read");
                None
            }
            Ok(delegates) => delegates,
        };
        let is_known = delegates.is_some();
        let mut remembered = self.with_requests(attachment, delegates.unwrap_or_default(), command)?;
        for cached in self.chain.cache.attachments(Some(&attachment.container_id))? {
            let stored = cached.and_then(|cached| Ok((cached.list()?, cached.request)));
            match stored {
                Ok((config, request)) => {
                    let is_it = |known: &Remembered| {
                        known.config.name() == config.name()
                            && known.request.attachment.ifname == request.attachment.ifname
                    };
                    if !remembered.iter().any(is_it) {
                        remembered.push(Remembered { network: config.name().to_string(), config, request });
                    }
                }
                Err(error) if is_for_now(&error) => return Err(error.into()),
                Err(error) => warn!(%error, "an attachment cannot be read"),
            }
        }
        Ok((is_known || !remembered.is_empty()).then_some(remembered))
    }

    fn with_requests(
        &self,
        attachment: &Attachment,
        delegates: Vec<Delegate>,
        command: Command,
    ) -> Result<Vec<Remembered>, Error> {
        let requests = self.sandbox(attachment).requests(&delegates, command)?;
        let both = delegates.into_iter().zip(requests);
        Ok(both.map(|(Delegate { name, config, .. }, request)| Remembered { network: name, config, request }).collect())
    }
}

/// Whether something could not be read since there was a lack of descriptors or memory: it may be whole.
fn is_for_now(error: &(dyn StdError + 'static)) -> bool {
    let is_it = error.downcast_ref::<io::Error>().is_some_and(is_lack);
    is_it || error.source().is_some_and(is_for_now)
}
