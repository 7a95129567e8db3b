//! Settings under `/proc/sys`. Those below `net` are the calling thread's namespace's, so they are read and written
//! inside [`Namespace::enter`](crate::Namespace::enter).

use std::{
    fs::{self, OpenOptions},
    io::Write,
};

use crate::Error;

/// Reads `key`, such as `net/ipv6/conf/eth0/disable_ipv6`, without the final newline.
///
/// # Errors
/// When there is no such key, or it may not be read.
pub fn read(key: &str) -> Result<String, Error> {
    let value = fs::read_to_string(format!("/proc/sys/{key}"));
    value.map(|text| text.trim_end().to_owned()).map_err(|source| Error::Sysctl { key: key.to_owned(), source })
}

/// Writes `value` to `key`.
///
/// # Errors
/// When there is no such key, it may not be written, or the value is refused.
pub fn write(key: &str, value: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).open(format!("/proc/sys/{key}"));
    let written = file.and_then(|mut file| file.write_all(value.as_bytes()));
    written.map_err(|source| Error::Sysctl { key: key.to_owned(), source })
}
