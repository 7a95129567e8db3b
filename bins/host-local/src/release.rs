//! `host-local release`.

use std::net::IpAddr;

use host_local_ipam::Store;
use multus_cni::NetworkName;

use crate::{
    failure::Failure,
    garbage::free,
    output::Output,
    survey::{Held, Place, Stray},
    tool::Report,
};

/// Ends the reservation of one address.
pub(crate) fn release(place: &Place, network: Option<&NetworkName>, address: IpAddr) -> Result<Report, Failure> {
    let mut found: Vec<Result<Held, Stray>> = Vec::new();
    for network in place.networks(network)? {
        if let Some(mut reservations) = place.store.lock_existing(&network)? {
            found.extend(reservations.entry(address)?.map(|entry| Held::of(&network, entry)));
        }
    }
    let held = match found.as_slice() {
        [Ok(held)] => held,
        [] => return refused(format!("{address} is not reserved; `host-local list` tells what is")),
        [Err(Stray { network, is_torn: true, .. })] => {
            return refused(format!("{address} of {network} is an empty file, which reserves nothing"));
        }
        [Err(Stray { network, name, .. })] => {
            let file = place.data_dir.join(network.as_str()).join(name);
            return refused(format!("{file:?} is no reservation; remove it by hand if nobody needs it"));
        }
        several => {
            let network = |found: &Result<Held, Stray>| match found {
                Ok(held) => held.network.to_string(),
                Err(stray) => stray.network.to_string(),
            };
            let networks = several.iter().map(network).collect::<Vec<_>>().join(", ");
            return refused(format!("{address} is in several networks: choose one of {networks} with --network"));
        }
    };
    if let Some(kept) = free(place, held)? {
        return refused(format!("{held} is not released: {kept}; try again"));
    }
    let text = format!("released {address} of {}, which {} had\n", held.network, held.holder());
    Ok(Report { output: Output::new(text, &[held.record()])?, notes: Vec::new(), status: 0 })
}

fn refused<T>(sentence: String) -> Result<T, Failure> {
    Err(Failure::Refused(sentence))
}
