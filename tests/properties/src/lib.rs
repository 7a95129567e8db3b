//! What holds for every input, whoever wrote it. Each property is a function of bytes that panics where it does not hold:
//! `fuzz/` searches for such bytes, and the tests of this package try those of `fuzz/corpus`.
//!
//! Besides: nothing panics, no message is longer than 1,000 characters, and none holds what stands under the key `password`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a property that does not hold is a panic, and its name says what it is of"
)]

mod addresses;
mod annotations;
mod api_answers;
mod arguments;
mod configurations;
mod daemon_request;
mod files;
mod http_answer;
mod index;
mod message;
mod pod_resources;
mod reservations;
mod results;

pub use addresses::addresses;
pub use annotations::annotations;
pub use api_answers::api_answers;
pub use arguments::arguments;
pub use configurations::{multus_config, network_config};
pub use daemon_request::daemon_request;
pub use files::{device_files, scratch};
pub use http_answer::http_answer;
pub use index::index;
pub use pod_resources::pod_resources;
pub use reservations::reservations;
pub use results::results;

/// A property by its name, which is that of its directory in `fuzz/corpus` and of its program in `fuzz/fuzz_targets`.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const PROPERTIES: [Property; 14] = [
    ("addresses", addresses),
    ("annotations", annotations),
    ("api_answers", api_answers),
    ("arguments", arguments),
    ("daemon_request", daemon_request),
    ("device_files", device_files),
    ("http_answer", http_answer),
    ("index", index),
    ("multus_config", multus_config),
    ("network_config", network_config),
    ("pod_resources", pod_resources),
    ("reservations", reservations),
    ("results", results),
    ("scratch", scratch),
];

/// What an input consists of: parts between bytes that no text has.
fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == 0xff)
}
