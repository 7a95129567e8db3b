//! How a reservation stands: whether the ADD that made it was delivered, and in which boot of which machine.

use std::{fs::File, io, path::Path};

use nix::unistd::read;

use crate::{StoreError, uninterrupted::uninterrupted};

/// One boot of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The start of the machine's ID; absent where it has none.
    pub machine: Option<u64>,
    /// The start of the boot's ID, which no other boot of any machine has.
    pub id: u64,
}

impl Boot {
    /// The file that has a machine's ID, machine-id(5).
    pub const MACHINE_ID: &str = "/etc/machine-id";

    /// The boot that this is (`/proc/sys/kernel/random/boot_id`), of the machine whose ID is in the file `machine_id`, mostly
    /// [`MACHINE_ID`](Self::MACHINE_ID); `None` where there is no boot ID.
    ///
    /// # Errors
    /// When one of these is there and cannot be read.
    pub fn current(machine_id: &Path) -> Result<Option<Self>, StoreError> {
        let Some(id) = read_id(Path::new("/proc/sys/kernel/random/boot_id"))? else {
            return Ok(None);
        };
        Ok(Some(Self { machine: read_id(machine_id)?, id }))
    }
}

/// The start of the ID in a file, if there is one.
fn read_id(file: &Path) -> Result<Option<u64>, StoreError> {
    // It is shorter, and comes in one piece.
    let mut text = [0; 64];
    match File::open(file).and_then(|open| Ok(uninterrupted(|| read(&open, &mut text))?)) {
        Ok(length) => Ok(text.get(..length).and_then(|text| first_digits(&String::from_utf8_lossy(text)))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError { attempt: "read", path: file.to_owned(), source }),
    }
}

/// The first 16 hexadecimal digits of an ID.
fn first_digits(id: &str) -> Option<u64> {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    if digits.len() == 16 { u64::from_str_radix(&digits, 16).ok() } else { None }
}

/// How far the ADD has come that a reservation is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its result is not delivered yet. If it dies before, the attachment's next ADD gets the same address.
    Unfinished,
    /// Its result is delivered: another ADD of the attachment is a mistake.
    Finished,
}

/// How a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Made in this boot, by an ADD that was delivered.
    Finished,
    /// Made in this boot, by an ADD that is under way or has died.
    Unfinished,
    /// Made before this machine started: its sandbox is gone.
    EarlierBoot,
    /// Made by another machine that shares the directory, or in an earlier boot of a machine without an ID.
    OtherMachine,
    /// Nobody recorded it: another program made the reservation, or the file system has no room for records.
    Unrecorded,
}

impl Standing {
    /// Whether the ADD that made it delivered nothing, or to a sandbox that cannot exist any more. Whoever holds the
    /// attachment's lock can then make the reservation their own.
    #[must_use]
    pub fn is_superseded(self) -> bool {
        matches!(self, Self::Unfinished | Self::EarlierBoot)
    }
}

/// What is recorded of a reservation: `<machine> <boot>`, and ` unfinished`.
pub(crate) fn record(boot: Boot, stage: Stage) -> String {
    let machine = boot.machine.map_or_else(|| "-".to_owned(), |machine| format!("{machine:016x}"));
    let stage = match stage {
        Stage::Unfinished => " unfinished",
        Stage::Finished => "",
    };
    format!("{machine} {:016x}{stage}", boot.id)
}

/// What a record says in the boot that is `now`. One that nobody could have written says nothing.
pub(crate) fn standing(record: &str, now: Option<Boot>) -> Standing {
    let mut words = record.split(' ');
    let (Some(machine), Some(boot), stage, None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Standing::Unrecorded;
    };
    let (Some(boot), Some(now)) = (first_digits(boot), now) else {
        return Standing::Unrecorded;
    };
    match (first_digits(machine), stage) {
        (_, None) if boot == now.id => Standing::Finished,
        (_, Some("unfinished")) if boot == now.id => Standing::Unfinished,
        (Some(machine), None | Some("unfinished")) if Some(machine) == now.machine => Standing::EarlierBoot,
        (_, None | Some("unfinished")) => Standing::OtherMachine,
        _ => Standing::Unrecorded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Boot = Boot { machine: Some(0xa), id: 0xb };

    #[test]
    fn a_record_tells_this_boot_from_earlier_ones_and_other_machines() {
        let of = |boot, stage| standing(&record(boot, stage), Some(NOW));
        assert_eq!(of(NOW, Stage::Finished), Standing::Finished);
        assert_eq!(of(NOW, Stage::Unfinished), Standing::Unfinished);
        for stage in [Stage::Finished, Stage::Unfinished] {
            assert_eq!(of(Boot { id: 1, ..NOW }, stage), Standing::EarlierBoot);
            assert_eq!(of(Boot { machine: Some(1), id: 1 }, stage), Standing::OtherMachine);
            assert_eq!(of(Boot { machine: None, id: 1 }, stage), Standing::OtherMachine);
        }
        // A machine may get its ID late in its first boot.
        assert_eq!(of(Boot { machine: None, ..NOW }, Stage::Finished), Standing::Finished);
        let nameless = Boot { machine: None, ..NOW };
        let earlier = record(Boot { machine: None, id: 1 }, Stage::Finished);
        assert_eq!(standing(&earlier, Some(nameless)), Standing::OtherMachine);
    }

    #[test]
    fn what_nobody_could_have_written_says_nothing() {
        for record in ["", "-", "- 1", "- 000000000000000b x", "- 000000000000000b unfinished x", "\u{e9} \u{e9}"] {
            assert_eq!(standing(record, Some(NOW)), Standing::Unrecorded, "{record:?}");
        }
        assert_eq!(standing(&record(NOW, Stage::Finished), None), Standing::Unrecorded);
    }
}
