//! An IPAM plugin of one's own, used by macvlan without being executed: every container gets the address that its ID
//! ends with.
//!
//!     ip netns add demo
//!     cargo run -p macvlan --example own_ipam -- /var/run/netns/demo ens32

#![allow(clippy::indexing_slicing, reason = "it is an example")]

use std::{env, net::Ipv4Addr};

use macvlan::Macvlan;
use multus_cni::{
    Attachment, Cidr, Error, ErrorCode, Invocation, IpConfig, NetworkConfig, Pending, Plugin, Registry, Success,
};

/// `pod-17` gets 192.168.1.17.
struct ByNumber;

#[derive(Debug, thiserror::Error)]
#[error("container {0} does not end with a number from 2 to 254")]
struct NoNumber(String);

impl Plugin for ByNumber {
    fn add(&self, attachment: &Attachment, _: &Invocation) -> Result<Pending, Error> {
        let id = attachment.container_id.as_str();
        let number = id.rsplit('-').next().and_then(|digits| digits.parse().ok()).filter(|n| (2..=254).contains(n));
        let address = number.and_then(|number| Cidr::new(Ipv4Addr::new(192, 168, 1, number).into(), 24));
        let address = address.ok_or_else(|| Error::from_plugin(ErrorCode::Internal, NoNumber(id.to_owned())))?;
        let ips = vec![IpConfig { address, gateway: None, interface: None }];
        // There is nothing to take back.
        Ok(Pending::new(Success { ips, ..Success::default() }, || Ok(())))
    }

    fn del(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), Error> {
        self.add(attachment, invocation).map(drop)
    }

    fn status(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }
}

#[allow(clippy::print_stdout, reason = "it is an example")]
fn main() -> Result<(), Error> {
    let netns = env::args().nth(1).unwrap_or_else(|| "/var/run/netns/demo".to_owned());
    let master = env::args().nth(2).unwrap_or_else(|| "ens32".to_owned());

    let plugin = Macvlan::new(Registry::new().with("by-number", ByNumber));
    let config =
        format!(r#"{{"name": "demo", "type": "macvlan", "master": {master:?}, "ipam": {{"type": "by-number"}}}}"#);
    let invocation = Invocation::new(NetworkConfig::parse(config)?);
    let attachment = Attachment { container_id: "pod-17".parse()?, ifname: "net1".parse()?, netns: Some(netns.into()) };
    let attached = plugin.add(&attachment, &invocation)?.keep();
    println!("net1 has {}", attached.ips[0].address);
    plugin.del(&attachment, &invocation)
}
