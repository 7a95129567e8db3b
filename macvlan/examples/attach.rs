//! Attaches a namespace to a macvlan network in this process, and detaches it again:
//!
//!     ip netns add demo
//!     cargo run -p macvlan --example attach -- /var/run/netns/demo ens32

#![allow(clippy::indexing_slicing, reason = "it is an example")]

use std::env;

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{Attachment, Error, Invocation, NetworkConfig, Plugin, Registry};

#[allow(clippy::print_stdout, reason = "it is an example")]
fn main() -> Result<(), Error> {
    let netns = env::args().nth(1).unwrap_or_else(|| "/var/run/netns/demo".to_owned());
    let master = env::args().nth(2).unwrap_or_else(|| "ens32".to_owned());

    let plugin = Macvlan::new(Registry::new().with("host-local", HostLocal::in_memory()));
    let config = format!(
        r#"{{"cniVersion": "1.1.0", "name": "demo", "type": "macvlan", "master": {master:?},
            "ipam": {{"type": "host-local", "subnet": "192.168.1.0/24"}}}}"#
    );
    let invocation = Invocation::new(NetworkConfig::parse(config)?);
    let attachment = Attachment { container_id: "demo".parse()?, ifname: "net1".parse()?, netns: Some(netns.into()) };

    // Until it is kept, dropping what `add` returns takes everything back.
    let attached = plugin.add(&attachment, &invocation)?.keep();
    for ip in &attached.ips {
        println!("{} has {}", attached.interfaces[0].name, ip.address);
    }
    plugin.del(&attachment, &invocation)
}
