//! The `multus` CNI plugin, which leaves everything to the libraries.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod lazy_cluster;
mod thin;

use std::{env, time::SystemTime};

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{About, Builtin, Environment, Registry};

use thin::Thin;

multus_cni::program!(run);

fn run(environment: Environment) -> u8 {
    let about = About { name: "multus", version: env!("CARGO_PKG_VERSION") };
    about.tell_version(env::args_os()).unwrap_or_else(|| {
        let builtin = Builtin::from_environment(&environment);
        let ipams = Registry::new().with("host-local", HostLocal::new()).allow(builtin.clone());
        let plugins =
            Registry::new().with("host-local", HostLocal::new()).with("macvlan", Macvlan::new(ipams)).allow(builtin);
        let multus = Thin::new(plugins, &environment, SystemTime::now);
        let status = about.serve(&multus, environment);
        multus.flush();
        status
    })
}
