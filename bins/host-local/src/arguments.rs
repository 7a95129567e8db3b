//! What the tool is asked to do.

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

use lexopt::{Arg, Parser, ValueExt};
use multus_cni::{NetworkName, parse_ip};

use crate::failure::Failure;

/// A command with its options.
pub(crate) struct Arguments {
    /// Where the reservations are; absent means where the plugin keeps them by default.
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

pub(crate) enum Command {
    Help,
    Version,
    List { network: Option<NetworkName> },
    Check { network: Option<NetworkName>, config: Option<PathBuf> },
    Gc { network: Option<NetworkName>, garbage: Garbage, yes: bool },
    Release { network: Option<NetworkName>, address: IpAddr },
    Usage { network: Option<NetworkName>, config: Option<PathBuf> },
}

/// What is to be freed.
pub(crate) enum Garbage {
    /// Whatever the list in this file does not name.
    NotListed(PathBuf),
    /// That whose sandbox is gone.
    Dead,
}

pub(crate) const HELP: &str = "\
host-local: looks after the addresses that the CNI plugin of this name has reserved on this host

  host-local list [NETWORK]              who has which address, and whether the sandbox still lives
  host-local check [NETWORK]             what is wrong with the reservations, and what to do about it
  host-local usage [NETWORK]             how many addresses of each configured range are used and free
  host-local gc --dead [NETWORK]         frees addresses whose sandboxes are certainly gone
  host-local gc --valid FILE [NETWORK]   frees addresses of all attachments that FILE does not name
  host-local release ADDRESS             frees one address

Options:
  --data-dir DIR      where the reservations are (default: /var/lib/cni/networks)
  --config FILE|DIR   check, usage: network configurations (default: /etc/cni/net.d, if there)
  --network NETWORK   release: in which network, where several have the address
  --yes               gc: free them; without it, only say what would be freed
  -o, --output table|json
  -h, --help
  -V, --version

FILE is JSON: [{\"containerID\": \"...\", \"ifname\": \"...\"}], or an object with such a list in
\"cni.dev/valid-attachments\". With CNI_COMMAND in the environment this program is the CNI plugin, whatever its arguments.

Exit status: 0 all is well, 1 check has found something, 2 the command could not be carried out.
";

impl Arguments {
    /// Reads the arguments, the first of which is the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Failure> {
        let mut options = Options::default();
        let mut words = Vec::new();
        let mut command = None;
        let mut parser = Parser::from_iter(arguments);
        while let Some(argument) = parser.next().map_err(refused)? {
            match argument {
                Arg::Short('h') | Arg::Long("help") => command = Some(Command::Help),
                Arg::Short('V') | Arg::Long("version") => command = command.or(Some(Command::Version)),
                Arg::Long("data-dir") => options.data_dir = Some(parser.value().map_err(refused)?.into()),
                Arg::Long("config") => options.config = Some(parser.value().map_err(refused)?.into()),
                Arg::Long("valid") => options.valid = Some(parser.value().map_err(refused)?.into()),
                Arg::Long("network") => options.network = Some(network(parser.value().map_err(refused)?)?),
                Arg::Long("dead") => options.dead = Some(()),
                Arg::Long("yes") => options.yes = Some(()),
                Arg::Short('o') | Arg::Long("output") => {
                    let word = parser.value().map_err(refused)?;
                    options.format = match word.to_str() {
                        Some("table") => Format::Table,
                        Some("json") => Format::Json,
                        _ => return Err(usage(format!("unknown output {word:?}, it is table or json"))),
                    };
                }
                Arg::Value(word) => words.push(word),
                Arg::Short(_) | Arg::Long(_) => return Err(refused(argument.unexpected())),
            }
        }
        let command = match command {
            Some(command) => command,
            None => options.command(words)?,
        };
        Ok(Self { data_dir: options.data_dir, format: options.format, command })
    }
}

/// Options as given; each command takes its own.
#[derive(Default)]
struct Options {
    data_dir: Option<PathBuf>,
    format: Format,
    config: Option<PathBuf>,
    valid: Option<PathBuf>,
    network: Option<NetworkName>,
    dead: Option<()>,
    yes: Option<()>,
}

impl Options {
    fn command(&mut self, words: Vec<OsString>) -> Result<Command, Failure> {
        let mut words = words.into_iter();
        let name = words.next().ok_or_else(|| usage("no command given".to_owned()))?;
        let mut place = || words.next().map(network).transpose();
        let command = match name.to_str() {
            Some("list") => Command::List { network: place()? },
            Some("check") => Command::Check { network: place()?, config: self.config.take() },
            Some("usage") => Command::Usage { network: place()?, config: self.config.take() },
            Some("gc") => {
                let garbage = match (self.valid.take(), self.dead.take()) {
                    (Some(file), None) => Garbage::NotListed(file),
                    (None, Some(())) => Garbage::Dead,
                    _ => return Err(usage("gc needs either --dead or --valid FILE".to_owned())),
                };
                Command::Gc { network: place()?, garbage, yes: self.yes.take().is_some() }
            }
            Some("release") => {
                let word = words.next().ok_or_else(|| usage("release needs an address".to_owned()))?;
                let address = word.to_str().and_then(parse_ip);
                let address = address.ok_or_else(|| usage(format!("{word:?} is no IP address")))?;
                Command::Release { network: self.network.take(), address }
            }
            _ => return Err(usage(format!("unknown command {name:?}"))),
        };
        let name = name.display();
        if let Some(word) = words.next() {
            return Err(usage(format!("{name} has no use for {word:?}")));
        }
        match self.left() {
            None => Ok(command),
            Some(option) => Err(usage(format!("{name} has no option --{option}"))),
        }
    }

    /// One that no command took.
    fn left(&self) -> Option<&'static str> {
        let given = [
            ("config", self.config.is_some()),
            ("valid", self.valid.is_some()),
            ("network", self.network.is_some()),
            ("dead", self.dead.is_some()),
            ("yes", self.yes.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}

fn network(word: OsString) -> Result<NetworkName, Failure> {
    let text = word.string().map_err(refused)?;
    text.parse().map_err(|_| usage(format!("{text:?} cannot be the name of a network")))
}

fn refused(error: lexopt::Error) -> Failure {
    usage(error.to_string())
}

fn usage(problem: String) -> Failure {
    Failure::Usage(problem)
}
