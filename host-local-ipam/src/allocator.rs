//! Which address is given next.

use std::{collections::HashSet, net::IpAddr};

use multus_cni::{AttachmentId, Cidr};

use crate::{
    Error, Owner, Range, RangeSet, Reservation, Reservations, Stage, Standing, StoreError, range::successor,
    store::release_each,
};

/// How often somebody who ignores the lock may be quicker.
const ATTEMPTS: usize = 100;

/// What is asked of the allocator: one address from each range set.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// For whom. Whoever asks holds the attachment's lock, unless nobody else can be working on the attachment.
    pub owner: &'a AttachmentId,
    /// From where.
    pub sets: &'a [RangeSet],
    /// Which addresses, if any: each set gives the first of these that it contains, and all must be given.
    pub wanted: &'a [IpAddr],
    /// Whether the reservations are good at once, or only when they are [finished](crate::Store::finish).
    pub stage: Stage,
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
/// ranges of the set: an address that was released is the last to be given again. Two kinds of reservations do not
/// stand in the way: the owner's own whose ADD was never delivered or was so before this machine started, which the owner
/// gets again; and, where nothing else is free, those of others from before this machine started.
///
/// # Errors
/// When a set has no free address, when the owner has one of it already, when a wanted address cannot be given, and
/// when the store fails.
pub fn allocate(reservations: &mut dyn Reservations, request: &Request<'_>) -> Result<Vec<Allocation>, Error> {
    let wanted = assign(request)?;
    let mut allocated = Vec::with_capacity(request.sets.len());
    for (index, (set, wanted)) in request.sets.iter().zip(wanted).enumerate() {
        let result = match wanted {
            Some(address) => take(reservations, request, set, address),
            None => take_next(reservations, request, index, set),
        };
        let result = result.and_then(|taken| {
            allocated.push(taken.allocation);
            // Remembered by each set, whether the address was wanted or not.
            if taken.is_new {
                reservations.set_last_reserved(index, taken.allocation.address.address())?;
            }
            Ok(())
        });
        if let Err(source) = result {
            let cause = Error::Allocation { set: index, source: Box::new(source) };
            return Err(undone(reservations, [(request.owner, allocated)], cause));
        }
    }
    Ok(allocated)
}

/// Serves all of these requests in their order, or none of them, under one lock.
///
/// # Errors
/// That of the first request that [`allocate`] could not serve.
pub fn allocate_all(
    reservations: &mut dyn Reservations,
    requests: &[Request<'_>],
) -> Result<Vec<Vec<Allocation>>, Error> {
    let mut served: Vec<Vec<Allocation>> = Vec::with_capacity(requests.len());
    for request in requests {
        match allocate(reservations, request) {
            Ok(allocated) => served.push(allocated),
            Err(cause) => {
                let owners = requests.iter().map(|request| request.owner);
                return Err(undone(reservations, owners.zip(served), cause));
            }
        }
    }
    Ok(served)
}

/// Takes back what was allocated before `cause` came up.
fn undone<'a>(
    reservations: &mut dyn Reservations,
    allocated: impl IntoIterator<Item = (&'a AttachmentId, Vec<Allocation>)>,
    cause: Error,
) -> Error {
    let mut released = Ok(());
    for (owner, allocated) in allocated {
        released = released.and(release(reservations, owner, &allocated));
    }
    match released {
        Ok(()) => cause,
        Err(remains) => Error::NotUndone { cause: Box::new(cause), remains },
    }
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

/// Releases every reservation whose owner is not among `valid`, unless somebody is working on that attachment: an ADD that
/// has begun since the list was made is in none.
///
/// # Errors
/// The first failure; the others were released, all the same.
pub fn collect(reservations: &mut dyn Reservations, valid: &[AttachmentId]) -> Result<(), StoreError> {
    let of_container = |owner: Owner| Owner { ifname: None, ..owner };
    let valid: HashSet<Owner> = valid.iter().flat_map(|one| [one.into(), of_container(one.into())]).collect();
    let mut result = Ok(());
    for stale in reservations.all()?.into_iter().filter(|reservation| !valid.contains(&reservation.owner)) {
        let released = match reservations.try_lock_attachment(&stale.owner.attachment()) {
            Ok(Some(_lock)) => reservations.release(&stale),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        result = result.and(released);
    }
    result
}

/// Whether `set` has no address to give.
///
/// # Errors
/// When the store cannot be read.
pub fn is_exhausted(reservations: &mut dyn Reservations, set: &RangeSet) -> Result<bool, StoreError> {
    Ok(next_free(reservations, set, None)?.is_none() && next_from_earlier_boot(reservations, set, None)?.is_none())
}

/// How much of a range is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Addresses that are taken.
    pub used: u64,
    /// Addresses that can be given; neither the taken ones nor the gateway.
    pub free: u128,
}

/// How much of `range` is used.
///
/// # Errors
/// When the store cannot be read.
pub fn usage(reservations: &mut dyn Reservations, range: &Range) -> Result<Usage, StoreError> {
    let gateway = range.gateway();
    let used = reservations.count(range.first(), range.last())?;
    Ok(Usage::of(range, used, reservations.count(gateway, gateway)? > 0))
}

impl Usage {
    /// That of `range` when this many of its addresses are taken, and its gateway is among them or not.
    pub(crate) fn of(range: &Range, used: u64, is_gateway_used: bool) -> Self {
        let kept_back = range.contains(range.gateway()) && !is_gateway_used;
        let free = range.size().saturating_sub(u128::from(used) + u128::from(kept_back));
        Self { used, free }
    }
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

/// An address that a set has given.
struct Taken {
    allocation: Allocation,
    /// Not one that the owner had, and got again.
    is_new: bool,
}

fn take(
    reservations: &mut dyn Reservations,
    request: &Request<'_>,
    set: &RangeSet,
    address: IpAddr,
) -> Result<Taken, Error> {
    let taken = |owner| Error::RequestedTaken { address, set: set.to_string(), owner };
    let range = set.containing(address).ok_or_else(|| taken(None))?;
    if address == range.gateway() {
        return Err(Error::RequestedGateway(address));
    }
    let allocation = allocation(address, range).ok_or_else(|| taken(None))?;
    let mut is_new = reservations.reserve(address, request.owner, request.stage)?;
    if !is_new {
        let holder = reservations.find(address)?.ok_or_else(|| taken(None))?;
        match reservations.standing(address)? {
            standing if standing.is_superseded() && holder.owner.is(request.owner) => {
                reservations.adopt(address, request.stage)?;
            }
            Standing::EarlierBoot => {
                reservations.release(&holder)?;
                is_new = reservations.reserve(address, request.owner, request.stage)?;
                if !is_new {
                    return Err(taken(None));
                }
            }
            Standing::Finished | Standing::Unfinished | Standing::OtherMachine | Standing::Unrecorded => {
                return Err(taken(Some(holder.owner)));
            }
        }
    }
    // What an ADD that died had reserved instead is nobody's now.
    for other in reservations.held_by(request.owner)?.into_iter().filter(|other| *other != address) {
        if set.containing(other).is_some() && reservations.standing(other)?.is_superseded() {
            reservations.release(&Reservation { address: other, owner: request.owner.into() })?;
        }
    }
    Ok(Taken { allocation, is_new })
}

fn take_next(
    reservations: &mut dyn Reservations,
    request: &Request<'_>,
    index: usize,
    set: &RangeSet,
) -> Result<Taken, Error> {
    let exhausted = || Error::Exhausted(set.to_string());
    let mut own = None;
    for address in reservations.held_by(request.owner)? {
        let Some(range) = set.containing(address) else {
            continue;
        };
        if !reservations.standing(address)?.is_superseded() {
            return Err(Error::Duplicate { address, container_id: request.owner.container_id.clone() });
        }
        // The range may have got another gateway since.
        own = own.or((address != range.gateway()).then_some(address));
    }
    if let Some(address) = own {
        return take(reservations, request, set, address);
    }
    let mut after = reservations.last_reserved(index);
    for _ in 0..ATTEMPTS {
        let Some((address, range)) = next_free(reservations, set, after)? else {
            break;
        };
        if reservations.reserve(address, request.owner, request.stage)? {
            let allocation = allocation(address, range).ok_or_else(exhausted)?;
            return Ok(Taken { allocation, is_new: true });
        }
        // Somebody took it without the lock. Go on from there.
        after = Some(address);
    }
    match next_from_earlier_boot(reservations, set, after)? {
        Some((address, _)) => take(reservations, request, set, address),
        None => Err(exhausted()),
    }
}

/// The first free address after `after`.
fn next_free<'a>(
    reservations: &mut dyn Reservations,
    set: &'a RangeSet,
    after: Option<IpAddr>,
) -> Result<Option<(IpAddr, &'a Range)>, StoreError> {
    next_around(set, after, &mut |first, last| reservations.next_free(first, last))
}

/// The first address after `after` whose reservation was made before this machine started.
fn next_from_earlier_boot<'a>(
    reservations: &mut dyn Reservations,
    set: &'a RangeSet,
    after: Option<IpAddr>,
) -> Result<Option<(IpAddr, &'a Range)>, StoreError> {
    next_around(set, after, &mut |first, last| reservations.next_from_earlier_boot(first, last))
}

/// What `find` finds first between two addresses.
type Find<'a> = &'a mut dyn FnMut(IpAddr, IpAddr) -> Result<Option<IpAddr>, StoreError>;

/// The first address that is found after `after` around the ranges of the set, `after` itself being the last. An `after`
/// that lies in none of the ranges is none.
fn next_around<'a>(
    set: &'a RangeSet,
    after: Option<IpAddr>,
    find: Find<'_>,
) -> Result<Option<(IpAddr, &'a Range)>, StoreError> {
    let ranges = set.ranges();
    let place = after.and_then(|address| Some((address, ranges.iter().position(|range| range.contains(address))?)));
    let Some((after, place)) = place else {
        for range in ranges {
            if let Some(address) = next_within(range, range.first(), range.last(), find)? {
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
            && let Some(address) = next_within(range, first, range.last(), find)?
        {
            return Ok(Some((address, range)));
        }
    }
    let Some(range) = from.first() else {
        return Ok(None);
    };
    Ok(next_within(range, range.first(), after, find)?.map(|address| (address, range)))
}

/// The first address that is found from `first` to `last` and is not the gateway of their range.
fn next_within(range: &Range, first: IpAddr, last: IpAddr, find: Find<'_>) -> Result<Option<IpAddr>, StoreError> {
    match find(first, last)? {
        Some(address) if address == range.gateway() => {
            if address == last {
                Ok(None)
            } else {
                find(successor(address), last)
            }
        }
        other => Ok(other),
    }
}

fn allocation(address: IpAddr, range: &Range) -> Option<Allocation> {
    Some(Allocation { address: Cidr::new(address, range.subnet().prefix())?, gateway: range.gateway() })
}
