//! `host-local usage`.

use std::path::Path;

use host_local_ipam::{MemoryStore, Reservations, Store, usage as usage_of};
use multus_cni::NetworkName;
use serde::Serialize;

use crate::{
    configurations::Configurations,
    failure::Failure,
    output::{Output, table},
    survey::Place,
    tool::Report,
};

/// A range as JSON.
#[derive(Serialize)]
struct Line<'a> {
    network: &'a str,
    range: String,
    used: u64,
    /// More than other programs may read as a number.
    free: u128,
}

/// How much of each range is used.
pub(crate) fn usage(place: &Place, network: Option<&NetworkName>, config: Option<&Path>) -> Result<Report, Failure> {
    let Configurations { sets, unusable } = Configurations::read(config)?;
    if let Some(network) = network.filter(|network| !sets.contains_key(*network)) {
        return Err(Failure::Refused(format!(
            "no configuration of network {network} uses host-local; give the one that does with --config"
        )));
    }
    let nothing = MemoryStore::new();
    let mut lines = Vec::new();
    for (name, sets) in sets.iter().filter(|(name, _)| network.is_none_or(|network| network == *name)) {
        let mut reservations: Box<dyn Reservations + '_> = match place.store.lock_existing(name)? {
            Some(reservations) => reservations,
            None => nothing.lock(name)?,
        };
        for range in sets.iter().flat_map(|set| set.ranges()) {
            let usage = usage_of(&mut *reservations, range)?;
            lines.push(Line { network: name.as_str(), range: range.to_string(), used: usage.used, free: usage.free });
        }
    }
    let head = ["NETWORK", "RANGE", "USED", "FREE"].map(str::to_owned);
    let rows = lines
        .iter()
        .map(|line| [line.network.to_owned(), line.range.clone(), line.used.to_string(), line.free.to_string()]);
    let text = table(&[head].into_iter().chain(rows).collect::<Vec<_>>());
    Ok(Report { output: Output::new(text, &lines)?, notes: unusable, status: 0 })
}
