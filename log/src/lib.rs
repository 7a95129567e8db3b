//! The log of Multus' programs, in upstream's form: `2026-02-03T04:05:06.789Z [verbose] message`.
//!
//! * [`Level`]: how much is told.
//! * [`Log`]: where to, a [`LogFile`] and standard error.
//! * With the feature `rotation`, [`Rotation`]: how large the file becomes, and what becomes of old ones.
//! * With the feature `tracing`, a [`Log`] is what libraries tell too: [`Log::install`].

mod file;
mod level;
mod log;
#[cfg(feature = "rotation")]
mod rotation;
#[cfg(feature = "tracing")]
mod subscriber;
mod timestamp;

pub use file::LogFile;
pub use level::Level;
pub use log::Log;
#[cfg(feature = "rotation")]
pub use rotation::Rotation;
