//! The program's flags.

use std::{ffi::OsString, path::PathBuf};

use lexopt::{Arg, Parser};

pub(crate) const HELP: &str = "\
cert-approver: approves the requests of nodes for certificates of their own, and denies others for such

  cert-approver [FLAGS]      runs until SIGTERM or SIGINT

  --service-account-dir DIR  token and ca.crt (/var/run/secrets/kubernetes.io/serviceaccount)
  -h, --help
  --version
";

/// What the program is asked to do.
pub(crate) enum Request {
    Help,
    Version,
    Run { service_account: PathBuf },
}

impl Request {
    /// Reads the arguments, the first of which is the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parser = Parser::from_iter(arguments);
        let mut service_account = PathBuf::from("/var/run/secrets/kubernetes.io/serviceaccount");
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Long("service-account-dir") => service_account = parser.value()?.into(),
                Arg::Long(flag) => return Err(format!("there is no flag --{flag}; --help lists them").into()),
                Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected()),
            }
        }
        Ok(Self::Run { service_account })
    }
}
