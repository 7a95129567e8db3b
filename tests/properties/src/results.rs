//! Results in all versions.

use multus_cni::{Success, Version};

use crate::message;

/// What any version tells of a result is told again in the same words, and the newest version loses nothing.
pub fn results(data: &[u8]) {
    for version in Version::ALL {
        let result = match Success::parse(data, version) {
            Ok(result) => result,
            Err(error) => {
                message::check(data, &error);
                continue;
            }
        };
        for version in Version::ALL {
            let Ok(printed) = result.print(version) else {
                assert!(!result.is_printable(version));
                continue;
            };
            let read = Success::parse(&printed, version).unwrap();
            assert_eq!(read.print(version).unwrap(), printed, "{version}");
            if version == Version::LATEST {
                assert_eq!(read, result);
            }
        }
    }
}
