//! The `host-local` program: with `CNI_COMMAND` the CNI plugin, else a tool for people when it is given arguments. Leaves
//! the plugin to the library, and the tool to the modules beside.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

mod arguments;
mod check;
mod configurations;
mod failure;
mod garbage;
mod list;
mod output;
mod progress;
mod release;
mod sandboxes;
mod survey;
mod tool;
mod usage;

use std::{
    env,
    io::{stderr, stdout},
    time::SystemTime,
};

use host_local_ipam::HostLocal;
use multus_cni::{About, Environment};

multus_cni::program!(run);

fn run(environment: Environment) -> u8 {
    if environment.value("CNI_COMMAND").is_none() && env::args_os().nth(1).is_some() {
        return tool::run(env::args_os(), SystemTime::now(), &mut stdout(), &mut stderr());
    }
    About { name: "host-local", version: env!("CARGO_PKG_VERSION") }.serve(&HostLocal::new(), environment)
}
