//! The `macvlan` CNI plugin, which leaves everything to the libraries.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{About, Builtin, Environment, Registry};

multus_cni::program!(run);

fn run(environment: Environment) -> u8 {
    let ipams = Registry::new().with("host-local", HostLocal::new()).allow(Builtin::from_environment(&environment));
    About { name: "macvlan", version: env!("CARGO_PKG_VERSION") }.serve(&Macvlan::new(ipams), environment)
}
