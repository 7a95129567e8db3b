//! The program of a plugin: what is around [`serve`] in a process of its own.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write, stderr, stdin, stdout},
    os::fd::{AsFd, IntoRawFd},
    panic, process,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{SigSet, Signal},
};

use crate::{About, Environment, ErrorCode, ErrorObject, Plugin, serve};

/// Makes `run`, a `fn(Environment) -> u8`, the program: it gets the process's environment and returns the exit status.
///
/// A plugin lives for two milliseconds, and a tenth of that goes into what the standard library does before `main` to tell an
/// overflow of the stack in words. With the GNU C library the program therefore starts at the C library's `main`; the rest of
/// what the standard library sets up is set up here. The crate needs
/// `#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]`.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[cfg(all(target_env = "gnu", not(test)))]
        #[allow(unsafe_code, reason = "the C library looks for this name, which nothing else in the program has")]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> ::std::ffi::c_int {
            $crate::start($run).into()
        }

        #[cfg(not(all(target_env = "gnu", not(test))))]
        fn main() -> ::std::process::ExitCode {
            $crate::start($run).into()
        }
    };
}

/// What [`program!`](crate::program) calls.
#[doc(hidden)]
pub fn start(run: fn(Environment) -> u8) -> u8 {
    if open_standard_streams().is_err() {
        return 1;
    }
    // An output that nobody reads is then an error, and the ADD is undone. Programs that are started are not affected: the
    // standard library empties their mask.
    if SigSet::from(Signal::SIGPIPE).thread_block().is_err() {
        return 1;
    }
    print_errors_on_panic();
    let status = run(std::env::vars_os().collect());
    match stdout().flush() {
        Ok(()) => status,
        Err(_) => 1,
    }
}

/// Else the first file that is opened, a reservation perhaps, would be what is written to as standard output.
fn open_standard_streams() -> io::Result<()> {
    for stream in [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()] {
        if fcntl(stream, FcntlArg::F_GETFD).is_err() {
            // It gets the lowest number that is free, and keeps it.
            let _kept = File::options().read(true).write(true).open("/dev/null")?.into_raw_fd();
        }
    }
    Ok(())
}

impl About {
    /// Serves the call of this process, as [`serve`] does, and returns the exit status.
    pub fn serve(self, plugin: &dyn Plugin, environment: Environment) -> u8 {
        serve(plugin, self, environment, &mut stdin(), &mut *unbuffered_stdout(), &mut stderr())
    }

    /// The exit status, where the program's `arguments`, the first of which is its name, ask for its version: that is printed
    /// then.
    pub fn tell_version(self, arguments: impl IntoIterator<Item = OsString>) -> Option<u8> {
        let flag = arguments.into_iter().nth(1)?;
        let is_asked = ["--version", "-version", "-v"].iter().any(|known| flag == *known);
        is_asked.then(|| u8::from(writeln!(stdout(), "{} {}", self.name, self.version).is_err()))
    }
}

/// Standard output without the buffer that would cut the last line off, so that a runtime is woken once.
fn unbuffered_stdout() -> Box<dyn Write> {
    match stdout().as_fd().try_clone_to_owned() {
        Ok(stdout) => Box::new(File::from(stdout)),
        Err(_) => Box::new(stdout()),
    }
}

/// Makes a panic anywhere in the process end it with an error object on standard output and exit status 1, so that
/// the runtime always has something to show. For single-shot programs only.
pub fn print_errors_on_panic() {
    panic::set_hook(Box::new(|panic| {
        let object = ErrorObject {
            code: ErrorCode::Internal.number(),
            msg: format!("internal error, please report it: {panic}"),
            details: String::new(),
        };
        let _nowhere_left = stdout().write_all(&object.print());
        #[allow(clippy::exit, reason = "the process is lost, and the runtime must not see status 2 or a signal")]
        process::exit(1);
    }));
}
