//! The names a runtime passes in. They become parts of paths and of kernel objects, so they are checked once, here.

use std::{fmt, str::FromStr};

use crate::Error;

/// The runtime's name of the container: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContainerId(String);

impl FromStr for ContainerId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        if id.is_empty() {
            return Err(Error::MissingContainerId);
        }
        if !is_plain(id) {
            return Err(Error::InvalidContainerId(id.to_owned()));
        }
        Ok(Self(id.to_owned()))
    }
}

/// The `name` of a network configuration: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkName(String);

impl FromStr for NetworkName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if name.is_empty() {
            return Err(Error::MissingNetworkName);
        }
        if !is_plain(name) {
            return Err(Error::InvalidNetworkName(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

/// The name of a network interface: 1 to 15 bytes without `/`, `:` or white space, and not `.` or `..`, as the kernel's
/// `dev_valid_name` has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl FromStr for InterfaceName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let invalid =
            |problem, details: &str| Err(Error::InvalidInterfaceName { problem, details: details.to_owned() });
        if name.is_empty() {
            return invalid("interface name is empty", "");
        }
        if name.len() > 15 {
            return invalid("interface name is too long", "interface name should be less than 16 characters");
        }
        if name == "." || name == ".." {
            return invalid("interface name is . or ..", "");
        }
        if name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace()) {
            return invalid("interface name contains / or : or whitespace characters", "");
        }
        Ok(Self(name.to_owned()))
    }
}

fn is_plain(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

macro_rules! text {
    ($($name:ident)*) => {$(
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

text! { ContainerId NetworkName InterfaceName }
