//! Reservations in places of one size, found by their owner. A place that was vacated is kept for the next one.

use std::{
    hash::{BuildHasher, RandomState},
    iter, mem,
    net::IpAddr,
};

use slab::Slab;

use super::owners::PackedOwner;
use crate::Stage;

/// A reservation.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) address: IpAddr,
    pub(super) owner: PackedOwner,
    pub(super) stage: Stage,
    /// The place of the next one in its chain.
    next: u32,
}

/// A hash table with chains, which takes 4 to 8 bytes beside each reservation: open addressing takes 10 when it has just
/// grown.
#[derive(Debug, Default)]
pub(super) struct Entries {
    places: Slab<Entry>,
    /// Where chains start; a power of two.
    heads: Vec<u32>,
    hasher: RandomState,
}

/// No place.
const END: u32 = u32::MAX;
/// How many places there are to a chain before there are more chains.
const LENGTH: usize = 2;

impl Entries {
    /// The place of a reservation from now on; `None` when there are no more, which needs 240 GB.
    pub(super) fn insert(&mut self, address: IpAddr, owner: PackedOwner, stage: Stage) -> Option<u32> {
        let place = u32::try_from(self.places.vacant_key()).ok().filter(|place| *place != END)?;
        if self.places.len() >= self.heads.len() * LENGTH {
            self.lengthen();
        }
        let chain = self.chain(&owner);
        let next = self.heads.get_mut(chain).map_or(END, |head| mem::replace(head, place));
        self.places.insert(Entry { address, owner, stage, next });
        Some(place)
    }

    /// Vacates a place.
    pub(super) fn remove(&mut self, place: u32) -> Option<Entry> {
        let entry = self.places.try_remove(index(place))?;
        let chain = self.chain(&entry.owner);
        let head = self.heads.get_mut(chain)?;
        let mut before = *head;
        if before == place {
            *head = entry.next;
        } else {
            while self.get(before)?.next != place {
                before = self.get(before)?.next;
            }
            self.get_mut(before)?.next = entry.next;
        }
        Some(entry)
    }

    pub(super) fn address(&self, place: u32) -> Option<IpAddr> {
        Some(self.get(place)?.address)
    }

    pub(super) fn get(&self, place: u32) -> Option<&Entry> {
        self.places.get(index(place))
    }

    pub(super) fn get_mut(&mut self, place: u32) -> Option<&mut Entry> {
        self.places.get_mut(index(place))
    }

    /// All, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().map(|(_, entry)| entry)
    }

    /// Those of one owner, in no order.
    pub(super) fn of(&self, owner: PackedOwner) -> impl Iterator<Item = &Entry> {
        let first = self.heads.get(self.chain(&owner)).and_then(|head| self.get(*head));
        iter::successors(first, |entry| self.get(entry.next)).filter(move |entry| entry.owner == owner)
    }

    fn chain(&self, owner: &PackedOwner) -> usize {
        chain(self.hasher.hash_one(owner), self.heads.len())
    }

    /// Makes twice as many chains.
    fn lengthen(&mut self) {
        let count = (self.heads.len() * 2).max(4);
        // The old ones first, so that there never are both.
        self.heads = Vec::new();
        self.heads = vec![END; count];
        for (place, entry) in &mut self.places {
            if let Some(head) = self.heads.get_mut(chain(self.hasher.hash_one(entry.owner), count))
                && let Ok(place) = u32::try_from(place)
            {
                entry.next = mem::replace(head, place);
            }
        }
    }
}

/// Which of so many chains; a power of two.
fn chain(hash: u64, count: usize) -> usize {
    // Half of the hash tells as many chains apart as there can be.
    index(u32::try_from(hash >> 32).unwrap_or_default()) & count.wrapping_sub(1)
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use multus_cni::AttachmentId;
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;
    use crate::memory::owners::Owners;

    /// Puts in a reservation of an owner, or takes out one that is in.
    #[derive(Clone, Debug)]
    enum Change {
        Insert(u8),
        Remove(Index),
    }

    #[test]
    fn reservations_are_found_by_their_owner_and_at_their_place() {
        let change = prop_oneof![
            2 => (0..20_u8).prop_map(Change::Insert),
            1 => any::<Index>().prop_map(Change::Remove),
        ];
        proptest!(ProptestConfig::with_cases(64), |(changes in vec(change, 1..200))| {
            let mut entries = Entries::default();
            let mut owners = Owners::default();
            let owners: Vec<PackedOwner> = (0..20).map(|number| {
                owners.pack(&AttachmentId { container_id: format!("c{number}"), ifname: "net1".to_owned() })
            }).collect();
            let mut expected: Vec<(u32, IpAddr, PackedOwner)> = Vec::new();
            for (number, change) in changes.into_iter().enumerate() {
                match change {
                    Change::Insert(owner) => {
                        let address = Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into();
                        let owner = owners[usize::from(owner)];
                        let place = entries.insert(address, owner, Stage::Finished).unwrap();
                        prop_assert!(expected.iter().all(|(other, ..)| *other != place));
                        expected.push((place, address, owner));
                    }
                    Change::Remove(_) if expected.is_empty() => {}
                    Change::Remove(which) => {
                        let (place, address, _) = expected.swap_remove(which.index(expected.len()));
                        prop_assert_eq!(entries.remove(place).unwrap().address, address);
                        prop_assert!(entries.get(place).is_none());
                    }
                }
                for owner in &owners {
                    let mut found: Vec<_> = entries.of(*owner).map(|entry| entry.address).collect();
                    found.sort_unstable();
                    let held = expected.iter().filter(|(_, _, holder)| holder == owner);
                    let mut held: Vec<_> = held.map(|(_, address, _)| *address).collect();
                    held.sort_unstable();
                    prop_assert_eq!(found, held);
                }
                prop_assert_eq!(entries.iter().count(), expected.len());
            }
        });
    }
}
