//! The `multus` CNI plugin: reads environment and standard input once, and leaves the rest to the libraries.

mod lazy_cluster;
mod thin;

use std::{
    env,
    io::{stderr, stdin},
    process::ExitCode,
    time::SystemTime,
};

use host_local_ipam::HostLocal;
use macvlan::Macvlan;
use multus_cni::{About, Builtin, Environment, Registry, print_errors_on_panic, serve, unbuffered_stdout};

use thin::Thin;

fn main() -> ExitCode {
    print_errors_on_panic();
    let about = About { name: "multus", version: env!("CARGO_PKG_VERSION") };
    let mut stdout = unbuffered_stdout();
    if env::args_os().nth(1).is_some_and(|flag| ["--version", "-version", "-v"].iter().any(|known| flag == *known)) {
        return match writeln!(stdout, "{} {}", about.name, about.version) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let environment: Environment = env::vars_os().collect();
    let builtin = Builtin::from_environment(&environment);
    let ipams = Registry::new().with("host-local", HostLocal::new()).allow(builtin.clone());
    let plugins =
        Registry::new().with("host-local", HostLocal::new()).with("macvlan", Macvlan::new(ipams)).allow(builtin);
    let multus = Thin::new(plugins, &environment, SystemTime::now);
    let status = serve(&multus, about, environment, &mut stdin(), &mut *stdout, &mut stderr());
    multus.flush();
    status.into()
}
