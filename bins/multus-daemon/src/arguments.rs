//! The program's arguments.

use std::{ffi::OsString, path::PathBuf};

use crate::error::Error;

pub(crate) const USAGE: &str = "\
multus-daemon [-config FILE]                          serves until SIGTERM or SIGINT
multus-daemon healthcheck [-ready] [-config FILE]     asks the daemon that runs
multus-daemon install [-type thick|thin] [-dest-dir DIR] [-source-dir DIR]
                                                      puts the plugins on the host; also when called install_multus
multus-daemon uninstall [-dest-dir DIR] [-config FILE]
                                                      takes away 00-multus.conf, then the plugins
multus-daemon -version

  -config      daemon-config.json (/etc/cni/net.d/multus.d/daemon-config.json)
  -dest-dir    where the runtime finds plugins (/host/opt/cni/bin)
  -source-dir  where they are in this image (/usr/src/multus-cni/bin)
";

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
    /// Copy these programs.
    Install {
        programs: [&'static str; 2],
        source: PathBuf,
        destination: PathBuf,
    },
    Uninstall {
        config: PathBuf,
        destination: PathBuf,
    },
    Help,
    Version,
}

/// What every plugin of either variant is called.
pub(crate) const THICK: [&str; 2] = ["multus-shim", "passthru"];
const THIN: [&str; 2] = ["multus", "passthru"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Serve,
    Healthcheck,
    Install,
    Uninstall,
}

impl Arguments {
    /// The first word is the program's name. Flags may have one dash or two, and their value behind `=` or in the next word.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut words =
            words.into_iter().map(|word| word.into_string().map_err(|word| usage("no UTF-8", &word.to_string_lossy())));
        let program = words.next().transpose()?.unwrap_or_default();
        let is_installer = program.rsplit('/').next() == Some("install_multus");
        let mut todo = if is_installer { Word::Install } else { Word::Serve };
        // Upstream's installer must be told; with the daemon's own command it goes without saying.
        let mut programs = if is_installer { None } else { Some(THICK) };
        let mut config = PathBuf::from("/etc/cni/net.d/multus.d/daemon-config.json");
        let mut source = PathBuf::from("/usr/src/multus-cni/bin");
        let mut destination = PathBuf::from("/host/opt/cni/bin");
        let mut is_ready = false;
        while let Some(word) = words.next().transpose()? {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                todo = match word.as_str() {
                    "healthcheck" if todo == Word::Serve => Word::Healthcheck,
                    "install" if todo == Word::Serve => Word::Install,
                    "uninstall" if todo == Word::Serve => Word::Uninstall,
                    _ => return Err(usage("unknown argument", &word)),
                };
                continue;
            };
            let (name, mut value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let mut value = || match value.take() {
                Some(value) => Ok(value),
                None => words.next().transpose()?.ok_or_else(|| usage("no value behind", &word)),
            };
            match (name, todo) {
                ("config", Word::Serve | Word::Healthcheck | Word::Uninstall) => config = value()?.into(),
                ("ready", Word::Healthcheck) => is_ready = true,
                ("type" | "t", Word::Install) => {
                    programs = match value()?.as_str() {
                        "thick" => Some(THICK),
                        "thin" => Some(THIN),
                        other => return Err(usage("thick and thin are the types there are, not", other)),
                    };
                }
                ("dest-dir" | "d", Word::Install | Word::Uninstall) => destination = value()?.into(),
                ("source-dir", Word::Install) => source = value()?.into(),
                ("version" | "v", _) => return Ok(Self::Version),
                ("help" | "h", _) => return Ok(Self::Help),
                _ => return Err(usage("unknown argument", &word)),
            }
        }
        Ok(match todo {
            Word::Serve => Self::Serve { config },
            Word::Healthcheck => Self::Healthcheck { config, is_ready },
            Word::Install => {
                let programs =
                    programs.ok_or_else(|| usage("--type thick or --type thin is missing behind", &program))?;
                Self::Install { programs, source, destination }
            }
            Word::Uninstall => Self::Uninstall { config, destination },
        })
    }
}

fn usage(problem: &str, word: &str) -> Error {
    Error::Usage(format!("{problem} {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "/etc/cni/net.d/multus.d/daemon-config.json";

    fn parse(words: &str) -> Result<Arguments, String> {
        called("/usr/bin/multus-daemon", words)
    }

    fn called(name: &str, words: &str) -> Result<Arguments, String> {
        let words = words.split(' ').filter(|word| !word.is_empty());
        Arguments::parse([name].into_iter().chain(words).map(OsString::from)).map_err(|error| error.to_string())
    }

    fn install(programs: [&'static str; 2], destination: &str) -> Arguments {
        Arguments::Install { programs, source: "/usr/src/multus-cni/bin".into(), destination: destination.into() }
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
    fn the_installer_has_two_names() {
        assert_eq!(parse("install").unwrap(), install(THICK, "/host/opt/cni/bin"));
        assert_eq!(parse("install --type=thin -d /x").unwrap(), install(THIN, "/x"));
        assert_eq!(called("/install_multus", "-t thick --dest-dir /x").unwrap(), install(THICK, "/x"));
        assert!(called("install_multus", "-d /x").unwrap_err().starts_with("--type thick or --type thin is missing"));
        assert!(
            parse("install -t fat").unwrap_err().starts_with("thick and thin are the types there are, not \"fat\"")
        );
        let uninstall = Arguments::Uninstall { config: "/c".into(), destination: "/x".into() };
        assert_eq!(parse("uninstall -d /x -config /c").unwrap(), uninstall);
    }

    #[test]
    fn what_is_unknown_is_named() {
        assert!(parse("-confg /x").unwrap_err().starts_with("unknown argument \"-confg\""));
        assert!(parse("-config").unwrap_err().starts_with("no value behind \"-config\""));
        assert!(parse("-ready").unwrap_err().starts_with("unknown argument \"-ready\""));
        assert!(parse("install -config /x").unwrap_err().starts_with("unknown argument \"-config\""));
        assert!(parse("install uninstall").unwrap_err().starts_with("unknown argument \"uninstall\""));
    }
}
