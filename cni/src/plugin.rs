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

    /// For an IPAM plugin: whether releasing an address needs the interface to be there still, as the farewell of a DHCP
    /// client does. Then the address is released before the interface goes, and for a moment both have it; so a plugin
    /// that does not need it says `false`. Of a plugin that is executed nothing is known.
    fn releases_through_interface(&self) -> bool {
        true
    }
}
