//! What a plugin does.

use crate::{Attachment, Error, Invocation, Pending, Version};

/// A CNI plugin: one that makes interfaces, or one that gives addresses (an IPAM plugin). The protocol does not tell
/// them apart, so neither does the trait. A plugin of this process and one that is [executed](crate::ExecutedPlugin)
/// implement it alike.
pub trait Plugin: Send + Sync {
    /// Attaches: makes the interface, or reserves the addresses.
    ///
    /// # Errors
    /// Whatever stood in the way. Nothing of a failed ADD remains.
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error>;

    /// Detaches. What is already gone is no failure.
    ///
    /// # Errors
    /// When something could not be removed; the rest was, all the same.
    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error>;

    /// Verifies that the attachment is as the `prevResult` of the configuration says.
    ///
    /// # Errors
    /// The first difference found.
    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error>;

    /// Tells whether an ADD could be served now.
    ///
    /// # Errors
    /// Code 50 or 51 when it could not.
    fn status(&self, invocation: &Invocation) -> Result<(), Error>;

    /// Frees what belongs to none of the configuration's
    /// [`valid_attachments`](crate::NetworkConfig::valid_attachments); nothing when that list is absent.
    ///
    /// # Errors
    /// When something could not be freed; the rest was, all the same.
    fn gc(&self, invocation: &Invocation) -> Result<(), Error>;

    /// The versions of the specification that it speaks, as configurations write them.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn versions(&self, _invocation: &Invocation) -> Result<Vec<String>, Error> {
        Ok(Version::ALL.iter().map(Version::to_string).collect())
    }

    /// Called before the DELs of several attachments, while nobody else works on their sandboxes: what is slow may be done
    /// for all of them at once. It promises nothing; each DEL follows, finds what is left, and tells what fails.
    fn prepare_del(&self, _attachments: &[(Attachment, Invocation)]) {}

    /// For an IPAM plugin: DEL, with `delete_interface` called when the interface may go: once, whatever becomes of the
    /// rest. Unless a plugin says otherwise that is afterwards, since it may need the interface to release an address, as
    /// the farewell of a DHCP client does.
    ///
    /// # Errors
    /// When something could not be released; the rest was, all the same.
    fn del_with_interface(
        &self,
        attachment: &Attachment,
        invocation: &Invocation,
        delete_interface: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let released = self.del(attachment, invocation);
        delete_interface();
        released
    }

    /// For an IPAM plugin: whether it keeps operations on an attachment apart, an ADD until its result is kept or undone.
    /// Then whoever has that result knows that no other ADD of the attachment is alive; and the interface can go before its
    /// addresses are free. Of a plugin that is executed nothing is known.
    fn serializes_attachments(&self) -> bool {
        false
    }
}
