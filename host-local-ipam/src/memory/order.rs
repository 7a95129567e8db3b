//! The places of reservations in the order of their addresses.

use std::net::IpAddr;

/// A tree of two levels that holds no address but the first of each leaf: what is at a place is asked of whoever has
/// it. So an address that is taken costs 4 bytes when they were taken in their order, and 16 at worst.
#[derive(Debug, Default)]
pub(super) struct Order {
    leaves: Vec<Leaf>,
}

/// Never empty.
#[derive(Debug)]
struct Leaf {
    first: IpAddr,
    places: Vec<u32>,
}

/// A leaf with so many places is divided.
const FULL: usize = 512;

/// The first place whose address is not before the one that was searched, or the end of its leaf.
#[derive(Debug)]
pub(super) struct Position {
    leaf: usize,
    index: usize,
}

impl Order {
    /// The place of `address`, or else the position where one [belongs](Self::insert).
    pub(super) fn find(&self, address: IpAddr, address_at: impl Fn(u32) -> Option<IpAddr>) -> Result<u32, Position> {
        let position = self.position(address, &address_at);
        let place = self.leaves.get(position.leaf).and_then(|leaf| leaf.places.get(position.index)).copied();
        place.filter(|place| address_at(*place) == Some(address)).ok_or(position)
    }

    /// Adds the place of `address`, whose position was just found.
    pub(super) fn insert(
        &mut self,
        Position { leaf: number, index }: Position,
        address: IpAddr,
        place: u32,
        address_at: impl Fn(u32) -> Option<IpAddr>,
    ) {
        let Some(leaf) = self.leaves.get_mut(number) else {
            self.leaves.push(Leaf { first: address, places: vec![place] });
            return;
        };
        leaf.places.insert(index, place);
        leaf.first = leaf.first.min(address);
        if leaf.places.len() == FULL {
            // Those that come in their order leave full leaves behind.
            let upper = leaf.places.split_off(if index == FULL - 1 { index } else { FULL / 2 });
            if let Some(first) = upper.first().and_then(|place| address_at(*place)) {
                self.leaves.insert(number + 1, Leaf { first, places: upper });
            }
        }
    }

    /// Takes out the place of `address`.
    pub(super) fn remove(&mut self, address: IpAddr, address_at: impl Fn(u32) -> Option<IpAddr>) -> Option<u32> {
        let Position { leaf: number, index } = self.position(address, &address_at);
        let leaf = self.leaves.get_mut(number)?;
        let place = *leaf.places.get(index)?;
        if address_at(place) != Some(address) {
            return None;
        }
        leaf.places.remove(index);
        match leaf.places.first().and_then(|first| address_at(*first)) {
            Some(first) => leaf.first = first,
            None => {
                self.leaves.remove(number);
            }
        }
        self.join(number);
        if let Some(before) = number.checked_sub(1) {
            self.join(before);
        }
        Some(place)
    }

    /// The first address from `first` to `last` that has no place.
    pub(super) fn next_free(
        &self,
        first: IpAddr,
        last: IpAddr,
        address_at: impl Fn(u32) -> Option<IpAddr>,
    ) -> Option<IpAddr> {
        let Position { leaf, mut index } = self.position(first, &address_at);
        let mut candidate = first;
        let mut leaves = self.leaves.iter().skip(leaf).peekable();
        while let Some(leaf) = leaves.next() {
            let places = leaf.places.get(index..).unwrap_or_default();
            index = 0;
            if places.first().and_then(|place| address_at(*place)) != Some(candidate) {
                break;
            }
            // As many places as addresses up to the next leaf: no gap.
            if let Some(end) = nth(candidate, places.len())
                && leaves.peek().is_some_and(|next| next.first == end)
            {
                candidate = end;
            } else {
                candidate = nth(candidate, run(places, candidate, address_at))?;
                break;
            }
        }
        (candidate <= last).then_some(candidate)
    }

    /// How many addresses from `first` to `last` have a place.
    pub(super) fn count(&self, first: IpAddr, last: IpAddr, address_at: impl Fn(u32) -> Option<IpAddr>) -> usize {
        let rank = |address| {
            let Position { leaf, index } = self.position(address, &address_at);
            self.leaves.iter().take(leaf).map(|leaf| leaf.places.len()).sum::<usize>() + index
        };
        let includes_last = self.find(last, &address_at).is_ok();
        (rank(last) + usize::from(includes_last)).saturating_sub(rank(first))
    }

    fn position(&self, address: IpAddr, address_at: impl Fn(u32) -> Option<IpAddr>) -> Position {
        let searched = key(address);
        let is_before = |place: &u32| address_at(*place).is_some_and(|address| key(address) < searched);
        let leaf = self.leaves.partition_point(|leaf| key(leaf.first) <= searched).saturating_sub(1);
        let index = self.leaves.get(leaf).map_or(0, |leaf| match leaf.places.last() {
            // As with every address that is given for the first time.
            Some(last) if is_before(last) => leaf.places.len(),
            _ => leaf.places.partition_point(is_before),
        });
        Position { leaf, index }
    }

    /// Makes one leaf of this and the next where both are small.
    fn join(&mut self, number: usize) {
        if let Some([leaf, next]) = self.leaves.get_mut(number..number + 2)
            && leaf.places.len() + next.places.len() <= FULL / 2
        {
            leaf.places.append(&mut next.places);
            self.leaves.remove(number + 1);
        }
    }
}

/// In the order of addresses, and quicker to compare.
fn key(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(ip) => (false, ip.to_bits().into()),
        IpAddr::V6(ip) => (true, ip.to_bits()),
    }
}

/// How many of these places, which are in order, have one address after another from `first` on.
fn run(places: &[u32], first: IpAddr, address_at: impl Fn(u32) -> Option<IpAddr>) -> usize {
    let (mut taken, mut end) = (0, places.len());
    while taken < end {
        let middle = usize::midpoint(taken, end);
        let address = places.get(middle).and_then(|place| address_at(*place));
        if address.is_some() && address == nth(first, middle) {
            taken = middle + 1;
        } else {
            end = middle;
        }
    }
    taken
}

/// The address so many after `address`; `None` behind the last of its family.
fn nth(address: IpAddr, count: usize) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(ip) => IpAddr::V4(ip.to_bits().checked_add(u32::try_from(count).ok()?)?.into()),
        IpAddr::V6(ip) => IpAddr::V6(ip.to_bits().checked_add(u128::try_from(count).ok()?)?.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv6Addr, ops::Range};

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// One address per place, for ever.
    const ADDRESSES: u32 = 6000;

    /// Takes all addresses of these, or frees every one of so many.
    #[derive(Clone, Debug)]
    enum Change {
        Take(Range<u32>),
        Free(Range<u32>, usize),
    }

    #[test]
    fn it_knows_what_is_taken_and_what_is_free() {
        proptest!(ProptestConfig::with_cases(64), |(
            changes in vec(change(), 1..12),
            windows in vec((0..ADDRESSES, 0..ADDRESSES), 20),
        )| {
            let mut order = Order::default();
            let mut taken = BTreeSet::new();
            for change in changes {
                follow(&mut order, &mut taken, change);
                is_sound(&order);
                for (first, last) in &windows {
                    let (first, last) = (*first.min(last), *first.max(last));
                    let free = (first..=last).find(|place| !taken.contains(place)).and_then(address_at);
                    let (start, end) = (address_at(first).unwrap(), address_at(last).unwrap());
                    // Between the families there is a gap, in which everything is free.
                    if start.is_ipv4() == end.is_ipv4() {
                        prop_assert_eq!(order.next_free(start, end, address_at), free);
                    }
                    prop_assert_eq!(order.count(start, end, address_at), taken.range(first..=last).count());
                    prop_assert_eq!(order.find(start, address_at).ok(), taken.get(&first).copied());
                }
            }
        });
    }

    #[test]
    fn addresses_in_their_order_fill_the_leaves_and_few_places_need_few_leaves() {
        let (mut order, mut taken) = (Order::default(), BTreeSet::new());
        follow(&mut order, &mut taken, Change::Take(0..ADDRESSES));
        assert_eq!(order.leaves.len(), usize::try_from(ADDRESSES).unwrap().div_ceil(FULL - 1));
        for place in (0..ADDRESSES).filter(|place| place % 100 != 0) {
            order.remove(address_at(place).unwrap(), address_at);
        }
        assert_eq!(order.leaves.len(), 1);
    }

    #[test]
    fn the_last_address_of_a_family_has_none_behind_it() {
        for (first, last) in [
            ("255.255.255.254", "255.255.255.255"),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let ends: [IpAddr; 2] = [first.parse().unwrap(), last.parse().unwrap()];
            let address_at = |place| ends.get(usize::try_from(place).unwrap()).copied();
            let mut order = Order::default();
            insert(&mut order, 0, address_at);
            assert_eq!(order.next_free(ends[0], ends[1], address_at), Some(ends[1]));
            insert(&mut order, 1, address_at);
            assert_eq!(order.next_free(ends[0], ends[1], address_at), None);
        }
    }

    fn follow(order: &mut Order, taken: &mut BTreeSet<u32>, change: Change) {
        match change {
            Change::Take(places) => {
                for place in places.filter(|place| taken.insert(*place)).collect::<Vec<_>>() {
                    insert(order, place, address_at);
                }
            }
            Change::Free(places, step) => {
                for place in places.step_by(step) {
                    let expected = taken.take(&place);
                    assert_eq!(order.remove(address_at(place).unwrap(), address_at), expected);
                }
            }
        }
    }

    fn insert(order: &mut Order, place: u32, address_at: impl Fn(u32) -> Option<IpAddr>) {
        let address = address_at(place).unwrap();
        let position = order.find(address, &address_at).unwrap_err();
        order.insert(position, address, place, address_at);
    }

    fn is_sound(order: &Order) {
        for leaf in &order.leaves {
            assert_eq!(address_at(leaf.places[0]), Some(leaf.first));
            assert!(leaf.places.is_sorted() && leaf.places.len() < FULL);
        }
        for pair in order.leaves.windows(2) {
            assert!(pair[0].places.last() < pair[1].places.first());
        }
    }

    /// The end of one family, and the start of another.
    fn address_at(place: u32) -> Option<IpAddr> {
        let half = ADDRESSES / 2;
        (place < ADDRESSES).then(|| match place.checked_sub(half) {
            None => (u32::MAX - half + 1 + place).to_be_bytes().into(),
            Some(place) => Ipv6Addr::from_bits(place.into()).into(),
        })
    }

    fn change() -> impl Strategy<Value = Change> {
        let places = || (0..ADDRESSES, 0..3000_u32).prop_map(|(first, count)| first..(first + count).min(ADDRESSES));
        prop_oneof![
            2 => places().prop_map(Change::Take),
            1 => (places(), prop_oneof![Just(1_usize), 2..9_usize]).prop_map(|(places, step)| Change::Free(places, step)),
        ]
    }
}
