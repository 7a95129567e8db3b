//! Which address is given next.

use std::net::IpAddr;

use multus_cni::{AttachmentId, Cidr};

use crate::{
    Error, Owner, Range, RangeSet, Reservation, Reservations, StoreError, range::successor, store::release_each,
};

/// How often somebody who ignores the lock may be quicker.
const ATTEMPTS: usize = 100;

/// What is asked of the allocator: one address from each range set.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// For whom.
    pub owner: &'a AttachmentId,
    /// From where.
    pub sets: &'a [RangeSet],
    /// Which addresses, if any: each set gives the first of these that it contains, and all must be given.
    pub wanted: &'a [IpAddr],
}

/// An address that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The address, with the prefix length of its subnet.
    pub address: Cidr,
    /// The gateway of its range.
    pub gateway: IpAddr,
}

/// Reserves an address from each range set, or none at all.
///
/// The next address is the one after the last that was reserved from the set, whoever has that, and so on around the
/// ranges of the set: an address that was released is the last to be given again.
///
/// # Errors
/// When a set has no free address, when the owner has one of it already, when a wanted address cannot be given, and
/// when the store fails.
pub fn allocate(reservations: &mut dyn Reservations, request: &Request<'_>) -> Result<Vec<Allocation>, Error> {
    let wanted = assign(request)?;
    let mut allocated = Vec::with_capacity(request.sets.len());
    for (index, (set, wanted)) in request.sets.iter().zip(wanted).enumerate() {
        let result = match wanted {
            Some(address) => take(reservations, request.owner, set, address),
            None => take_next(reservations, request.owner, index, set),
        };
        // Remembered by each set, whether the address was wanted or not.
        let result = result.and_then(|allocation| {
            allocated.push(allocation);
            reservations.set_last_reserved(index, allocation.address.address()).map_err(Error::from)
        });
        if let Err(source) = result {
            let cause = Error::Allocation { set: index, source: Box::new(source) };
            return Err(match release(reservations, request.owner, &allocated) {
                Ok(()) => cause,
                Err(remains) => Error::NotUndone { cause: Box::new(cause), remains },
            });
        }
    }
    Ok(allocated)
}

/// Releases what [`allocate`] gave, and nothing else.
///
/// # Errors
/// The first failure; the others were released, all the same.
pub(crate) fn release(
    reservations: &mut dyn Reservations,
    owner: &AttachmentId,
    allocated: &[Allocation],
) -> Result<(), StoreError> {
    let reserved =
        allocated.iter().map(|allocation| Reservation { address: allocation.address.address(), owner: owner.into() });
    release_each(reservations, reserved)
}

/// Releases every reservation whose owner is not among `valid`.
///
/// # Errors
/// The first failure; the others were released, all the same.
pub fn collect(reservations: &mut dyn Reservations, valid: &[AttachmentId]) -> Result<(), StoreError> {
    let is_valid = |owner: &Owner| valid.iter().any(|attachment| owner.is(attachment) || owner.is_legacy(attachment));
    let stale: Vec<Reservation> =
        reservations.all()?.into_iter().filter(|reservation| !is_valid(&reservation.owner)).collect();
    release_each(reservations, stale)
}

/// Whether `set` has no free address.
///
/// # Errors
/// When the store cannot be read.
pub fn is_exhausted(reservations: &mut dyn Reservations, set: &RangeSet) -> Result<bool, StoreError> {
    Ok(next_free(reservations, set, None)?.is_none())
}

/// For each set the wanted address it is to give.
fn assign(request: &Request<'_>) -> Result<Vec<Option<IpAddr>>, Error> {
    let mut left: Vec<IpAddr> = Vec::new();
    for address in request.wanted {
        if !left.contains(address) {
            left.push(*address);
        }
    }
    let mut assign_to = |set: &RangeSet| {
        let place = left.iter().position(|address| set.containing(*address).is_some());
        place.map(|place| left.remove(place))
    };
    let assigned = request.sets.iter().map(&mut assign_to).collect();
    if left.is_empty() { Ok(assigned) } else { Err(Error::RequestsLeft(left)) }
}

fn take(
    reservations: &mut dyn Reservations,
    owner: &AttachmentId,
    set: &RangeSet,
    address: IpAddr,
) -> Result<Allocation, Error> {
    let taken = || Error::RequestedTaken { address, set: set.to_string() };
    let range = set.containing(address).ok_or_else(taken)?;
    if address == range.gateway() {
        return Err(Error::RequestedGateway(address));
    }
    if !reservations.reserve(address, owner)? {
        return Err(taken());
    }
    allocation(address, range).ok_or_else(taken)
}

fn take_next(
    reservations: &mut dyn Reservations,
    owner: &AttachmentId,
    index: usize,
    set: &RangeSet,
) -> Result<Allocation, Error> {
    let held = reservations.held_by(owner)?;
    if let Some(address) = held.into_iter().find(|address| set.containing(*address).is_some()) {
        return Err(Error::Duplicate { address, container_id: owner.container_id.clone() });
    }
    let mut after = reservations.last_reserved(index);
    for _ in 0..ATTEMPTS {
        let Some((address, range)) = next_free(reservations, set, after)? else {
            break;
        };
        if reservations.reserve(address, owner)? {
            return allocation(address, range).ok_or_else(|| Error::Exhausted(set.to_string()));
        }
        // Somebody took it without the lock. Go on from there.
        after = Some(address);
    }
    Err(Error::Exhausted(set.to_string()))
}

/// The first free address after `after` around the ranges of the set, `after` itself being the last. An `after` that
/// lies in none of the ranges is none.
fn next_free<'a>(
    reservations: &mut dyn Reservations,
    set: &'a RangeSet,
    after: Option<IpAddr>,
) -> Result<Option<(IpAddr, &'a Range)>, StoreError> {
    let ranges = set.ranges();
    let place = after.and_then(|address| Some((address, ranges.iter().position(|range| range.contains(address))?)));
    let Some((after, place)) = place else {
        for range in ranges {
            if let Some(address) = next_free_within(reservations, range, range.first(), range.last())? {
                return Ok(Some((address, range)));
            }
        }
        return Ok(None);
    };
    let (before, from) = ranges.split_at(place);
    for (turn, range) in from.iter().chain(before).enumerate() {
        let first = if turn == 0 { successor(after) } else { range.first() };
        if range.contains(first)
            && first != after
            && let Some(address) = next_free_within(reservations, range, first, range.last())?
        {
            return Ok(Some((address, range)));
        }
    }
    let Some(range) = from.first() else {
        return Ok(None);
    };
    Ok(next_free_within(reservations, range, range.first(), after)?.map(|address| (address, range)))
}

/// The first free address from `first` to `last` that is not the gateway of their range.
fn next_free_within(
    reservations: &mut dyn Reservations,
    range: &Range,
    first: IpAddr,
    last: IpAddr,
) -> Result<Option<IpAddr>, StoreError> {
    match reservations.next_free(first, last)? {
        Some(address) if address == range.gateway() => {
            if address == last {
                Ok(None)
            } else {
                reservations.next_free(successor(address), last)
            }
        }
        other => Ok(other),
    }
}

fn allocation(address: IpAddr, range: &Range) -> Option<Allocation> {
    Some(Allocation { address: Cidr::new(address, range.subnet().prefix())?, gateway: range.gateway() })
}
