//! What an ADD has made so far.

use multus_cni::{AttachmentId, Error, Pending, Provisional};
use tracing::warn;

use crate::{DeviceInfoFiles, turn::Turn};

/// The attachments of a sandbox, made in this order. Unless kept, they are taken back, the last one first, also while
/// unwinding.
pub(crate) struct Attached {
    networks: Vec<Pending>,
    device_info: DeviceInfoFiles,
    device_info_of: Vec<(String, AttachmentId)>,
    _turn: Turn,
}

impl Attached {
    pub(crate) fn new(device_info: DeviceInfoFiles, turn: Turn) -> Self {
        Self { networks: Vec::new(), device_info, device_info_of: Vec::new(), _turn: turn }
    }

    pub(crate) fn note(&mut self, network: Pending) {
        self.networks.push(network);
    }

    /// That there may be a device-info file.
    pub(crate) fn note_device_info(&mut self, network: &str, attachment: &AttachmentId) {
        self.device_info_of.push((network.to_owned(), attachment.clone()));
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
        Error::all(failures)
    }
}

impl Provisional for Attached {
    fn keep(mut self: Box<Self>) {
        self.device_info_of.clear();
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
