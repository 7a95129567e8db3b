//! The `host-local` CNI plugin: reads environment and standard input once, and leaves the rest to the library.

use std::{
    env,
    io::{stderr, stdin},
    process::ExitCode,
};

use host_local_ipam::HostLocal;
use multus_cni::{About, print_errors_on_panic, serve, unbuffered_stdout};

fn main() -> ExitCode {
    print_errors_on_panic();
    let about = About { name: "host-local", version: env!("CARGO_PKG_VERSION") };
    let environment = env::vars_os().collect();
    serve(&HostLocal::new(), about, environment, &mut stdin(), &mut *unbuffered_stdout(), &mut stderr()).into()
}
