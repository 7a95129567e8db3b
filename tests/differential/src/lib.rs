//! The same configurations and commands for two implementations, and what becomes of each.
//!
//! Valid, slightly broken and hostile configurations are made from a seed; a [`Side`] runs them; a [`Campaign`] compares, and
//! knows by the rows of `docs/compat.md` which differences are meant: no others are allowed.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot be set up has failed, and says so where tests speak"
)]

mod allowed;
mod campaign;
mod config;
mod hostile;
mod outcome;
mod side;
mod steps;

pub use allowed::{ALLOWED, LEFT_OUT, Rule};
pub use campaign::{Campaign, Totals};
pub use outcome::{Outcome, Seen};
pub use side::{Plugins, Side};
pub use steps::{Step, attachments, ipam};
