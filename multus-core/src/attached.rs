//! What an ADD has made so far.

use multus_cni::{AttachmentId, ContainerId, Error, Pending, Provisional};
use tracing::warn;

use crate::{Delegate, DeviceInfoFiles, Scratch, turn::Turn};

/// The attachments of a sandbox, made in this order. Unless kept, they are taken back, the last one first, also while
/// unwinding.
pub(crate) struct Attached {
    networks: Vec<Pending>,
    device_info: DeviceInfoFiles,
    device_info_of: Vec<(String, AttachmentId)>,
    before: Option<Before>,
    _turn: Turn,
}

/// What was remembered of a sandbox before its ADD.
pub(crate) struct Before {
    pub(crate) scratch: Scratch,
    pub(crate) container: ContainerId,
    pub(crate) delegates: Vec<Delegate>,
}

impl Attached {
    pub(crate) fn new(device_info: DeviceInfoFiles, turn: Turn) -> Self {
        Self { networks: Vec::new(), device_info, device_info_of: Vec::new(), before: None, _turn: turn }
    }

    /// That this is to be remembered again once everything is taken back: the runtime will call DEL, for nothing, and not for
    /// a plugin that has just failed to be found.
    pub(crate) fn note_before(&mut self, before: Before) {
        self.before = Some(before);
    }

    pub(crate) fn note(&mut self, network: Pending) {
        self.networks.push(network);
    }

    /// That there may be a device-info file.
    pub(crate) fn note_device_info(&mut self, network: &str, attachment: &AttachmentId) {
        self.device_info_of.push((network.to_owned(), attachment.clone()));
    }

    /// Takes back what has been attached, after a network that failed so.
    pub(crate) fn take_back_after(&mut self, cause: &crate::Error) -> Result<(), Error> {
        if let crate::Error::Delegate { source, .. } = cause
            && source.remains()
        {
            // What remains is DEL's.
            self.before = None;
        }
        self.take_back()
    }

    pub(crate) fn take_back(&mut self) -> Result<(), Error> {
        let mut failures = Vec::new();
        while let Some(last) = self.networks.pop() {
            failures.extend(last.undo().err());
        }
        for (network, attachment) in self.device_info_of.drain(..) {
            if let Err(error) = self.device_info.remove(&network, &attachment) {
                warn!(%error, "a device-info file is left");
            }
        }
        // What remains is DEL's.
        let before = self.before.take().filter(|_| failures.is_empty());
        if let Some(Before { scratch, container, delegates }) = before {
            failures.extend(scratch.save(&container, &delegates).map_err(Error::from).err());
        }
        Error::all(failures)
    }
}

impl Provisional for Attached {
    fn keep(mut self: Box<Self>) {
        self.device_info_of.clear();
        self.before = None;
        for network in self.networks.drain(..) {
            network.keep();
        }
    }

    fn undo(mut self: Box<Self>) -> Result<(), Error> {
        self.take_back()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Nobody is left to tell: the caller is returning another error, or unwinding.
        let _untold = self.take_back();
    }
}
