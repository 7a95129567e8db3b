//! Settings under `/proc/sys`. Those below `net` are the calling thread's namespace's, so they are read and written
//! inside [`Namespace::enter`](crate::Namespace::enter).

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use crate::Error;

/// Where settings are.
pub const DIRECTORY: &str = "/proc/sys";

/// Reads `key`, such as `net/ipv6/conf/eth0/disable_ipv6`, without the final newline.
///
/// # Errors
/// When there is no such key, or it may not be read.
pub fn read(key: &str) -> Result<String, Error> {
    read_in(Path::new(DIRECTORY), key)
}

/// As [`read()`], with the settings in `directory`: a container may have its own [`DIRECTORY`] read-only, and the host's
/// besides. Both tell of the calling thread's namespace.
///
/// # Errors
/// As those of [`read()`].
pub fn read_in(directory: &Path, key: &str) -> Result<String, Error> {
    let value = fs::read_to_string(directory.join(key));
    value.map(|text| text.trim_end().to_owned()).map_err(|source| Error::Sysctl { key: key.to_owned(), source })
}

/// Writes `value` to `key`.
///
/// # Errors
/// When there is no such key, it may not be written, or the value is refused.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    write_in(Path::new(DIRECTORY), key, value)
}

/// As [`write()`], with the settings in `directory`.
///
/// # Errors
/// As those of [`write()`].
pub fn write_in(directory: &Path, key: &str, value: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).open(directory.join(key));
    let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Sysctl { key: key.to_owned(), source })
}
