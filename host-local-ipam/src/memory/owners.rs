//! Owners in 34 bytes.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
};

use multus_cni::AttachmentId;
use slab::Slab;

use crate::Owner;

/// An owner among the [`Owners`] that packed it: two are the same if their bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedOwner {
    /// The container's ID: its text, or the bytes of its digits; of an owner that does not fit, its number.
    container: [u8; 32],
    /// The length of the text, [`DIGITS`], or [`LONG`].
    length: u8,
    interface: u8,
}

/// What most runtimes use for an ID: 64 hexadecimal digits.
const DIGITS: u8 = 64;
/// The owner is among the long ones.
const LONG: u8 = u8::MAX;

/// What packed owners refer to.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// Never forgotten: there are few, and never more than a byte can tell apart.
    interfaces: Vec<String>,
    long: Slab<LongOwner>,
    long_numbers: HashMap<Arc<Owner>, usize>,
}

/// One that does not fit, such as with an ID of more than 32 characters that is not made of digits.
#[derive(Debug)]
struct LongOwner {
    owner: Arc<Owner>,
    /// How often it was packed and not forgotten.
    count: usize,
}

impl Owners {
    /// As `attachment` is packed; `None` for one that is not.
    pub(super) fn find(&self, attachment: &AttachmentId) -> Option<PackedOwner> {
        match (pack(attachment.container_id.trim()), self.interface(&attachment.ifname)) {
            (Some((container, length)), Some(interface)) => Some(PackedOwner { container, length, interface }),
            _ if self.long.is_empty() => None,
            _ => self.long_numbers.get(&Owner::from(attachment)).map(|number| long(*number)),
        }
    }

    /// Packs `attachment` until it is [forgotten](Self::forget) as often.
    pub(super) fn pack(&mut self, attachment: &AttachmentId) -> PackedOwner {
        if let Some((container, length)) = pack(attachment.container_id.trim())
            && let Some(interface) = self.new_interface(&attachment.ifname)
        {
            return PackedOwner { container, length, interface };
        }
        let owner = Owner::from(attachment);
        if let Some(number) = self.long_numbers.get(&owner) {
            if let Some(long) = self.long.get_mut(*number) {
                long.count += 1;
            }
            return long(*number);
        }
        let owner = Arc::new(owner);
        let number = self.long.insert(LongOwner { owner: Arc::clone(&owner), count: 1 });
        self.long_numbers.insert(owner, number);
        long(number)
    }

    /// Ends what one [`pack`](Self::pack) began.
    pub(super) fn forget(&mut self, packed: PackedOwner) {
        let Some(number) = packed.long_number() else {
            return;
        };
        if let Some(long) = self.long.get_mut(number) {
            long.count -= 1;
            if long.count == 0 {
                self.long_numbers.remove(&self.long.remove(number).owner);
            }
        }
    }

    /// The owner that was packed.
    pub(super) fn unpack(&self, packed: &PackedOwner) -> Owner {
        if let Some(long) = packed.long_number().and_then(|number| self.long.get(number)) {
            return Owner::clone(&long.owner);
        }
        let container_id = match packed.length {
            DIGITS => packed.container.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).filter_map(character).collect(),
            length => {
                let text = packed.container.get(..length.into()).unwrap_or_default();
                String::from_utf8_lossy(text).into_owned()
            }
        };
        Owner { container_id, ifname: self.interfaces.get(usize::from(packed.interface)).cloned() }
    }

    fn interface(&self, name: &str) -> Option<u8> {
        let number = self.interfaces.iter().position(|interface| interface == name)?;
        u8::try_from(number).ok()
    }

    /// The number of an interface, which is new if need be; `None` if there is none left.
    fn new_interface(&mut self, name: &str) -> Option<u8> {
        self.interface(name).or_else(|| {
            let number = u8::try_from(self.interfaces.len()).ok()?;
            self.interfaces.push(name.to_owned());
            Some(number)
        })
    }
}

/// Containers have few interfaces, so these need not have hashes of their own.
impl Hash for PackedOwner {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.container);
    }
}

impl PackedOwner {
    fn long_number(&self) -> Option<usize> {
        let number = self.container.first_chunk().filter(|_| self.length == LONG)?;
        Some(usize::from_le_bytes(*number))
    }
}

fn long(number: usize) -> PackedOwner {
    let mut container = [0; 32];
    if let Some(start) = container.first_chunk_mut() {
        *start = number.to_le_bytes();
    }
    PackedOwner { container, length: LONG, interface: 0 }
}

/// The bytes and the length of a container's ID, if it fits.
fn pack(container_id: &str) -> Option<([u8; 32], u8)> {
    let text = container_id.as_bytes();
    let length = u8::try_from(text.len()).ok()?;
    let mut packed = [0; 32];
    if let Some(start) = packed.get_mut(..text.len()) {
        start.copy_from_slice(text);
        return Some((packed, length));
    }
    if length != DIGITS || !is_hexadecimal(text) {
        return None;
    }
    let (pairs, _) = text.as_chunks();
    for (byte, [high, low]) in packed.iter_mut().zip(pairs) {
        *byte = digit(*high) << 4 | digit(*low);
    }
    Some((packed, length))
}

/// Whether it is made of digits of lower case; upper case is another text. Looks at all, which is quicker than to stop.
fn is_hexadecimal(text: &[u8]) -> bool {
    text.iter().fold(true, |all, character| all & matches!(character, b'0'..=b'9' | b'a'..=b'f'))
}

/// The value of a digit: that of the letters is behind that of the numbers.
fn digit(character: u8) -> u8 {
    (character & 0xf) + 9 * (character >> 6)
}

fn character(digit: u8) -> Option<char> {
    char::from_digit(digit.into(), 16)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn an_owner_is_unpacked_as_it_was_packed_and_the_same_each_time() {
        proptest!(|(attachments in vec(attachment(), 1..40))| {
            let mut owners = Owners::default();
            let packed: Vec<PackedOwner> = attachments.iter().map(|attachment| owners.pack(attachment)).collect();
            for (attachment, owner) in attachments.iter().zip(&packed) {
                prop_assert_eq!(owners.unpack(owner), Owner::from(attachment));
                prop_assert_eq!(owners.find(attachment), Some(*owner));
                for (other, other_owner) in attachments.iter().zip(&packed) {
                    prop_assert_eq!(Owner::from(other) == Owner::from(attachment), other_owner == owner);
                }
            }
        });
    }

    #[test]
    fn a_long_owner_is_forgotten_with_its_last_reservation() {
        let mut owners = Owners::default();
        let long = AttachmentId { container_id: "sandbox-".repeat(9), ifname: "net1".to_owned() };
        assert_eq!(owners.find(&long), None);
        let packed = owners.pack(&long);
        assert_eq!(owners.pack(&long), packed);
        owners.forget(packed);
        assert_eq!(owners.find(&long), Some(packed));
        owners.forget(packed);
        assert_eq!(owners.find(&long), None);
        assert!(owners.long.is_empty() && owners.long_numbers.is_empty());
    }

    #[test]
    fn more_interfaces_than_a_byte_can_tell_apart_have_their_owners_all_the_same() {
        let mut owners = Owners::default();
        let attachments: Vec<AttachmentId> = (0..300)
            .map(|number| AttachmentId { container_id: "c".to_owned(), ifname: format!("net{number}") })
            .collect();
        let packed: Vec<PackedOwner> = attachments.iter().map(|attachment| owners.pack(attachment)).collect();
        assert_eq!((owners.interfaces.len(), owners.long.len()), (256, 44));
        for (attachment, packed) in attachments.iter().zip(packed) {
            assert_eq!(owners.find(attachment), Some(packed));
            assert_eq!(owners.unpack(&packed), Owner::from(attachment));
        }
    }

    fn attachment() -> impl Strategy<Value = AttachmentId> {
        let container_id = prop_oneof![
            "[0-9a-f]{64}",
            "[0-1]{64}",
            "[0-9A-F]{64}",
            "[0-9a-f]{63,65}",
            "[a-c ]{0,2}",
            "[a-z-]{30,34}",
            "[a-z-]{254,257}",
            "\\PC{0,40}",
        ];
        let ifname = prop_oneof!["net[0-3]", "\\PC{0,5}"];
        (container_id, ifname).prop_map(|(container_id, ifname)| AttachmentId { container_id, ifname })
    }
}
