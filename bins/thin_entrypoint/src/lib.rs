//! The meta-plugin's place on a node: its programs, and `00-multus.conf`, which the container runtime reads before any other
//! configuration and which is made from the cluster network's own, the master.
//!
//! * [`install`] and [`uninstall`]: programs and files put there and taken away.
//! * [`Master`]: the cluster network's configuration file.
//! * [`Thick`] and [`Thin`]: [`Template`]s, which make a configuration from a master.
//! * [`Kubeconfig`]: access to the API for programs on the host, from a pod's service account.
//! * [`Keeper`]: writes all of that, and writes it again when the master, the credentials or somebody else change it.
//!
//! Every file is replaced as a whole: who reads it at any moment finds the old content or the new.

mod error;
mod file;
mod install;
mod keeper;
mod kubeconfig;
mod master;
mod pace;
mod template;
mod thick;
mod thin;
mod watch;

pub use error::Error;
pub use install::{install, uninstall};
pub use keeper::{Keeper, Source, Standing};
pub use kubeconfig::Kubeconfig;
pub use master::Master;
pub use template::{Generated, Template};
pub use thick::Thick;
pub use thin::Thin;
