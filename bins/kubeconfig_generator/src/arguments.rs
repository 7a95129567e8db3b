//! The program's flags.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use lexopt::{Arg, Parser, ValueExt};
use multus_core::kubernetes::NodeCertificate;

pub(crate) const HELP: &str = "\
kubeconfig_generator: keeps a certificate of the node's own, and a kubeconfig that refers to it

  kubeconfig_generator [FLAGS]    runs until SIGTERM or SIGINT, and then removes the kubeconfig

  --certdir DIR              where the certificate is (/tmp)
  --bootstrap-config FILE    the kubeconfig by which a first certificate is asked for (/tmp/kubeconfig)
  --kubeconfig FILE          what is written (/run/multus/kubeconfig)
  --cert-duration TIME       how long a certificate is to be valid (10m)
  -h, --help
  --version

MULTUS_NODE_NAME is the node's name.
";

/// What the program is asked to do.
pub(crate) enum Request {
    Help,
    Version,
    Run(Arguments),
}

pub(crate) struct Arguments {
    pub(crate) certificates: PathBuf,
    pub(crate) bootstrap: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) duration: Duration,
}

impl Request {
    /// Reads the arguments, the first of which is the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, lexopt::Error> {
        let mut parser = Parser::from_iter(arguments);
        let mut into = Arguments {
            certificates: "/tmp".into(),
            bootstrap: "/tmp/kubeconfig".into(),
            kubeconfig: "/run/multus/kubeconfig".into(),
            duration: Duration::from_secs(600),
        };
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Long("version") => return Ok(Self::Version),
                Arg::Long("certdir") => into.certificates = parser.value()?.into(),
                Arg::Long("bootstrap-config") => into.bootstrap = parser.value()?.into(),
                Arg::Long("kubeconfig") => into.kubeconfig = parser.value()?.into(),
                Arg::Long("cert-duration") => into.duration = duration(&parser.value()?.string()?)?,
                Arg::Long(flag) => return Err(format!("there is no flag --{flag}; --help lists them").into()),
                Arg::Short(_) | Arg::Value(_) => return Err(argument.unexpected()),
            }
        }
        Ok(Self::Run(into))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    NodeCertificate::parse_duration(text)
        .ok_or_else(|| format!("--cert-duration must be a duration such as 10m, 24h or 1h30m, not {text:?}"))
}
