//! Garbage: what belongs to sandboxes that the runtime does not have.

use multus_cni::{Attachment, AttachmentId, Command, ContainerId, NetworkConfigList};
use tracing::info;

use super::Call;
use crate::{
    Error,
    turn::{self, Turn},
};

impl Call<'_> {
    /// Detaches the sandboxes that are remembered and not among those the runtime has, and has each network's plugins free
    /// what belongs to none of the others. A sandbox that somebody works on is left alone. The runtime calls no ADD or DEL
    /// meanwhile; whoever plugs single networks in does not know, and waits.
    ///
    /// While what a sandbox has cannot be read no network frees anything, since that might be the sandbox's. Of one that the
    /// runtime has and nobody remembers, as from before Multus was there, what the runtime tells is spared.
    pub(super) fn collect(&self) -> Result<(), multus_cni::Error> {
        let Some(valid) = self.invocation.config.valid_attachments()? else {
            return Ok(());
        };
        let mut failures = Vec::new();
        let mut networks: Vec<NetworkConfigList> = Vec::new();
        let mut attached: Vec<(NetworkConfigList, AttachmentId)> = Vec::new();
        let mut kept_as_they_are = Vec::new();
        let containers = self.containers()?;
        let strangers: Vec<&AttachmentId> =
            valid.iter().filter(|id| containers.iter().all(|known| known.as_str() != id.container_id)).collect();
        let mut unreadable = Vec::new();
        for container in &containers {
            let attachment = Attachment { container_id: container.clone(), ifname: "eth0".parse()?, netns: None };
            let is_valid = valid.iter().any(|id| id.container_id == container.as_str());
            let turn = if is_valid {
                kept_as_they_are.push(self.turn(container)?);
                None
            } else {
                self.turn_if_free(container)?
            };
            // In its turn: an ADD may have ended just now.
            let remembered = self.remembered(&attachment, Command::Del)?.unwrap_or_default();
            networks.extend(remembered.iter().map(|known| known.config.clone()));
            if turn.is_some() {
                info!(container = container.as_str(), "a sandbox that the runtime does not know is detached");
                let deleted = self.delete(remembered).and_then(|()| self.scratch.remove(container));
                failures.extend(deleted.map_err(multus_cni::Error::from).err());
            } else {
                unreadable.extend(self.is_readable(container).err());
                attached.extend(remembered.into_iter().map(|known| (known.config, known.request.attachment.id())));
            }
        }
        if !unreadable.is_empty() {
            failures.extend(unreadable);
            return multus_cni::Error::all(failures);
        }
        match self.plan(None) {
            Ok(delegates) => networks.extend(delegates.into_iter().map(|delegate| delegate.config)),
            Err(error) => failures.push(error.into()),
        }
        networks.sort_by(|a, b| a.name().cmp(b.name()));
        networks.dedup_by(|a, b| a.name() == b.name());
        for network in networks {
            let of_network = attached.iter().filter(|(config, _)| config.name() == network.name());
            let valid: Vec<AttachmentId> =
                of_network.map(|(_, id)| id).chain(strangers.iter().copied()).cloned().collect();
            failures.extend(self.chain.gc(&network, &valid).err());
        }
        multus_cni::Error::all(failures)
    }

    /// Whether all can be read that is remembered of a sandbox.
    fn is_readable(&self, container: &ContainerId) -> Result<(), multus_cni::Error> {
        let read = || -> Result<(), multus_cni::Error> {
            self.scratch.load(container)?;
            let stored = self.chain.cache.attachments(Some(container))?;
            stored.into_iter().try_for_each(|cached| cached.map(drop))
        };
        let nothing = format!(
            "no network frees anything while it is not known what sandbox {container} has, which may be alive; its DEL \
             removes the file"
        );
        read().map_err(|error| error.within(nothing))
    }

    /// Every sandbox that anything is remembered of.
    fn containers(&self) -> Result<Vec<ContainerId>, Error> {
        let mut containers = self.scratch.containers()?;
        let cached = self.chain.cache.attachments(None)?.into_iter().flatten();
        containers.extend(cached.map(|cached| cached.request.attachment.container_id));
        containers.sort();
        containers.dedup();
        Ok(containers)
    }

    fn turn_if_free(&self, container: &ContainerId) -> Result<Option<Turn>, Error> {
        turn::try_take(&self.config.cni_dir, container)
    }
}
