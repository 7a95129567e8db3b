//! Allocates two addresses from a range, in memory:
//!
//!     cargo run -p host-local-ipam --example allocate

#![allow(clippy::indexing_slicing, reason = "it is an example")]

use host_local_ipam::{MemoryStore, Range, RangeSet, Request, Stage, Store, allocate};
use multus_cni::AttachmentId;

#[allow(clippy::print_stdout, reason = "it is an example")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sets = [RangeSet::new(vec![Range::new("192.168.1.0/24".parse()?)?])?];
    let store = MemoryStore::new(); // or DiskStore::new("/var/lib/cni/networks")
    for container in ["c1", "c2"] {
        let owner = AttachmentId { container_id: container.to_owned(), ifname: "eth0".to_owned() };
        let mut reservations = store.lock(&"storage".parse()?)?;
        let allocated =
            allocate(&mut *reservations, &Request { owner: &owner, sets: &sets, wanted: &[], stage: Stage::Finished })?;
        println!("{container}: {} by way of {}", allocated[0].address, allocated[0].gateway);
    }
    Ok(())
}
