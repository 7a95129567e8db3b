//! The `multus-shim` CNI plugin, which leaves everything to the library.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use std::{env, time::SystemTime};

use multus_cni::{About, Environment};
use multus_shim::Shim;

multus_cni::program!(run);

fn run(environment: Environment) -> u8 {
    let about = About { name: "multus-shim", version: env!("CARGO_PKG_VERSION") };
    about.tell_version(env::args_os()).unwrap_or_else(|| about.serve(&Shim::new(SystemTime::now), environment))
}
