//! The program's arguments.

use std::{ffi::OsString, path::PathBuf};

use crate::error::Error;

const CONFIG: &str = "/etc/cni/net.d/multus.d/daemon-config.json";

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arguments {
    Serve {
        config: PathBuf,
    },
    /// Ask the daemon that runs whether it is well, and if so also whether it is ready.
    Healthcheck {
        config: PathBuf,
        is_ready: bool,
    },
    Version,
}

impl Arguments {
    /// Flags may have one dash or two, and their value behind `=` or in the next word.
    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, Error> {
        let mut words = words.map(|word| word.into_string().map_err(|word| usage("no UTF-8", &word.to_string_lossy())));
        let (mut config, mut is_healthcheck, mut is_ready) = (PathBuf::from(CONFIG), false, false);
        while let Some(word) = words.next().transpose()? {
            let flag = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
            let (name, value) = flag.map_or((None, None), |flag| match flag.split_once('=') {
                Some((name, value)) => (Some(name), Some(value.to_owned())),
                None => (Some(flag), None),
            });
            match (name, value) {
                (Some("config"), Some(value)) => config = value.into(),
                (Some("config"), None) => match words.next().transpose()? {
                    Some(value) => config = value.into(),
                    None => return Err(usage("no file behind", &word)),
                },
                (Some("version" | "v"), None) => return Ok(Self::Version),
                (Some("ready"), None) if is_healthcheck => is_ready = true,
                (None, None) if word == "healthcheck" => is_healthcheck = true,
                _ => return Err(usage("unknown argument", &word)),
            }
        }
        Ok(if is_healthcheck { Self::Healthcheck { config, is_ready } } else { Self::Serve { config } })
    }
}

fn usage(problem: &str, word: &str) -> Error {
    Error::Usage(format!("{problem} {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Arguments, String> {
        let words = words.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        Arguments::parse(words).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_upstreams() {
        assert_eq!(parse("").unwrap(), Arguments::Serve { config: CONFIG.into() });
        for words in ["-config /x", "--config /x", "-config=/x", "--config=/x"] {
            assert_eq!(parse(words).unwrap(), Arguments::Serve { config: "/x".into() });
        }
        assert_eq!(parse("--version").unwrap(), Arguments::Version);
    }

    #[test]
    fn probes_ask_for_health_or_readiness() {
        assert_eq!(parse("healthcheck").unwrap(), Arguments::Healthcheck { config: CONFIG.into(), is_ready: false });
        let ready = Arguments::Healthcheck { config: "/x".into(), is_ready: true };
        assert_eq!(parse("healthcheck -ready -config /x").unwrap(), ready);
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert!(parse("-confg /x").unwrap_err().starts_with("unknown argument \"-confg\""));
        assert!(parse("-config").unwrap_err().starts_with("no file behind \"-config\""));
        assert!(parse("-ready").unwrap_err().starts_with("unknown argument \"-ready\""));
    }
}
