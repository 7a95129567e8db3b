//! The `macvlan` CNI plugin: reads environment and standard input once, and leaves the rest to the libraries.

use std::{
    env,
    io::{stderr, stdin},
    process::ExitCode,
};

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{About, Builtin, Environment, Registry, print_errors_on_panic, serve, unbuffered_stdout};

fn main() -> ExitCode {
    print_errors_on_panic();
    let environment: Environment = env::vars_os().collect();
    let ipams = Registry::new().with("host-local", HostLocal::new()).allow(Builtin::from_environment(&environment));
    let about = About { name: "macvlan", version: env!("CARGO_PKG_VERSION") };
    serve(&Macvlan::new(ipams), about, environment, &mut stdin(), &mut *unbuffered_stdout(), &mut stderr()).into()
}
