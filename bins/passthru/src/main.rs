//! The `passthru` CNI plugin: hands on what it is given. It is the head of a chain whose other plugins do the work.

#![cfg_attr(all(target_env = "gnu", not(test)), no_main)]

use multus_cni::{About, Attachment, Environment, Error, Invocation, Pending, Plugin};

multus_cni::program!(run);

fn run(environment: Environment) -> u8 {
    About { name: "passthru", version: env!("CARGO_PKG_VERSION") }.serve(&Passthru, environment)
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
