//! The `passthru` CNI plugin: hands on what it is given. It is the head of a chain whose other plugins do the work.

use std::{
    env,
    io::{stderr, stdin},
    process::ExitCode,
};

use multus_cni::{
    About, Attachment, Error, Invocation, Pending, Plugin, print_errors_on_panic, serve, unbuffered_stdout,
};

fn main() -> ExitCode {
    print_errors_on_panic();
    let about = About { name: "passthru", version: env!("CARGO_PKG_VERSION") };
    serve(&Passthru, about, env::vars_os().collect(), &mut stdin(), &mut *unbuffered_stdout(), &mut stderr()).into()
}

/// Makes nothing, so that there is nothing to take back, to delete or to verify.
struct Passthru;

impl Plugin for Passthru {
    fn add(&self, _: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        let previous = invocation.config.previous_result()?;
        Ok(Pending::new(previous.unwrap_or_default(), || Ok(())))
    }

    fn del(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, _: &Attachment, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }

    fn gc(&self, _: &Invocation) -> Result<(), Error> {
        Ok(())
    }
}
