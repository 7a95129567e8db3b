//! The `host-local` program: with `CNI_COMMAND` the CNI plugin, else a tool for people when it is given arguments. Reads
//! environment, arguments and standard input once, and leaves the rest to the library and to the modules beside.

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
    io::{stderr, stdin, stdout},
    process::ExitCode,
    time::SystemTime,
};

use host_local_ipam::HostLocal;
use multus_cni::{About, Environment, print_errors_on_panic, serve, unbuffered_stdout};

fn main() -> ExitCode {
    let environment: Environment = env::vars_os().collect();
    if environment.value("CNI_COMMAND").is_none() && env::args_os().nth(1).is_some() {
        return tool::run(env::args_os(), SystemTime::now(), &mut stdout(), &mut stderr()).into();
    }
    print_errors_on_panic();
    let about = About { name: "host-local", version: env!("CARGO_PKG_VERSION") };
    serve(&HostLocal::new(), about, environment, &mut stdin(), &mut *unbuffered_stdout(), &mut stderr()).into()
}
