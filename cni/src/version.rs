//! Versions of the CNI specification, and which command each allows.

use std::fmt;

use crate::{Command, Error, shortened};

/// A version of the CNI specification that this implementation speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.3.0
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: adds CHECK.
    V0_4_0,
    /// 1.0.0
    V1_0_0,
    /// 1.1.0: adds GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as configurations write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// Reads the `cniVersion` of a configuration; empty means 0.1.0.
    ///
    /// # Errors
    /// When it is none of [`ALL`](Self::ALL), to the letter.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = if text.is_empty() { "0.1.0" } else { text };
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| Error::IncompatibleVersion(text.to_owned()))
    }

    /// Reads the `cniVersion` of a configuration and checks that it allows `command`.
    ///
    /// # Errors
    /// When the version is unknown, or older than the command.
    pub fn negotiate(text: &str, command: Command) -> Result<Self, Error> {
        let since = match command {
            Command::Add | Command::Del | Command::Version => return Self::parse(text),
            Command::Check => Self::V0_4_0,
            Command::Gc | Command::Status => Self::V1_1_0,
        };
        let refuse = |who| Err(Error::CommandNotInVersion { who, command: command.as_str() });
        let given = numbers(text)?;
        if given < numbers(since.as_str())? {
            return refuse("config");
        }
        if given > numbers(Self::LATEST.as_str())? {
            return refuse("plugin");
        }
        Self::parse(text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Major, minor and micro, for comparing; missing parts are 0.
pub(crate) fn numbers(text: &str) -> Result<[u64; 3], Error> {
    let text = if text.is_empty() { "0.1.0" } else { text };
    let text = shortened(text);
    let mut numbers = [0; 3];
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 3 {
        return Err(Error::MalformedVersion(format!("invalid version {text:?}: too many parts")));
    }
    for ((number, part), label) in numbers.iter_mut().zip(parts).zip(["major", "minor", "micro"]) {
        *number = part.parse().map_err(|_| {
            Error::MalformedVersion(format!(
                "failed to convert {label} version part {part:?}: strconv.Atoi: parsing {part:?}: invalid syntax"
            ))
        })?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_matched_to_the_letter() {
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()).unwrap(), version);
        }
        assert_eq!(Version::parse("").unwrap(), Version::V0_1_0);
        let object = Version::parse("0.5.0").unwrap_err().object();
        assert_eq!((object.code, object.msg.as_str()), (1, "incompatible CNI versions"));
        assert_eq!(
            object.details,
            r#"config is "0.5.0", plugin supports ["0.1.0" "0.2.0" "0.3.0" "0.3.1" "0.4.0" "1.0.0" "1.1.0"]"#
        );
        assert!(Version::parse("1.0").is_err());
    }

    #[test]
    fn a_command_needs_its_version() {
        let refused = |text, command| {
            let error = Version::negotiate(text, command).unwrap_err();
            (error.code().number(), error.to_string())
        };
        assert_eq!(refused("0.3.1", Command::Check), (1, "config version does not allow CHECK".into()));
        assert_eq!(refused("", Command::Check), (1, "config version does not allow CHECK".into()));
        assert_eq!(refused("2.0.0", Command::Check), (1, "plugin version does not allow CHECK".into()));
        assert_eq!(refused("1.0.0", Command::Gc), (1, "config version does not allow GC".into()));
        assert_eq!(refused("1.0.0", Command::Status), (1, "config version does not allow STATUS".into()));
        assert_eq!(refused("0.9.9", Command::Check), (1, "incompatible CNI versions".into()));
        assert_eq!(Version::negotiate("0.4.0", Command::Check).unwrap(), Version::V0_4_0);
        assert_eq!(
            refused("x", Command::Check),
            (6, r#"failed to convert major version part "x": strconv.Atoi: parsing "x": invalid syntax"#.into())
        );
        assert_eq!(refused("1.2.3.4", Command::Gc).0, 6);
    }
}
