//! The `multus-shim` CNI plugin: reads environment and standard input once, and leaves the rest to the library.

use std::{
    env,
    io::{stderr, stdin},
    process::ExitCode,
    time::SystemTime,
};

use multus_cni::{About, print_errors_on_panic, serve, unbuffered_stdout};
use multus_shim::Shim;

fn main() -> ExitCode {
    print_errors_on_panic();
    let about = About { name: "multus-shim", version: env!("CARGO_PKG_VERSION") };
    let mut stdout = unbuffered_stdout();
    if env::args_os().nth(1).is_some_and(|flag| ["--version", "-version", "-v"].iter().any(|known| flag == *known)) {
        return match writeln!(stdout, "{} {}", about.name, about.version) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let environment = env::vars_os().collect();
    serve(&Shim::new(SystemTime::now), about, environment, &mut stdin(), &mut *stdout, &mut stderr()).into()
}
