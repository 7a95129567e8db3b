//! What lies in a network's directory, reservation or not, and whether the index agrees with it.

use std::{
    ffi::{OsStr, OsString},
    io,
    net::IpAddr,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime},
};

use nix::{
    dir::Dir,
    fcntl::OFlag,
    libc,
    sys::stat::{FileStat, Mode, SFlag},
};

use super::{Network, address_named, failed, is_torn};
use crate::{
    Entry, EntryKind, Reservation, Reservations, StoreError,
    index::{Index, State, has_current_times},
};

impl Network<'_> {
    pub(super) fn inspect_each(&mut self, each: &mut dyn FnMut(Entry, usize)) -> Result<(), StoreError> {
        let mut names = self.all_names()?;
        names.retain(|name| !is_of_the_store(name));
        names.sort();
        for (done, name) in names.iter().enumerate() {
            if let Some(entry) = self.inspect(name)? {
                each(entry, names.len() - done - 1);
            }
        }
        Ok(())
    }

    /// What the file `name` is, if it is there.
    pub(super) fn inspect(&mut self, name: &OsStr) -> Result<Option<Entry>, StoreError> {
        let found = match self.stat(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed("stat", &self.path.join(name)))?,
        };
        let kind = match name.to_str().and_then(address_named) {
            Some(address) if is_torn(&found) => EntryKind::Torn(address),
            // To open anything but a file might mean to wait for ever.
            Some(address) if SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT) == SFlag::S_IFREG => {
                match self.known_owner(address)? {
                    Some(owner) => EntryKind::Reservation(Reservation { address, owner }, self.standing(address)?),
                    None => EntryKind::Foreign,
                }
            }
            _ => EntryKind::Foreign,
        };
        Ok(Some(Entry { name: name.to_owned(), modified: modified(&found), kind }))
    }

    /// The addresses of which the index, if it counts, says something else than the files.
    pub(super) fn misjudged_by_index(&self) -> Result<Vec<IpAddr>, StoreError> {
        let Some(boot) = self.store.boot.filter(|_| has_current_times(&self.directory).unwrap_or_default()) else {
            return Ok(Vec::new());
        };
        let opened =
            State::of(&self.directory).and_then(|seen| Index::open(self.store.ours(&self.name, "index"), seen, boot));
        let Ok(Some(mut index)) = opened else {
            return Ok(Vec::new());
        };
        let owners: Vec<_> = self.all_files()?.into_iter().map(|known| (known.owner, known.address)).collect();
        let taken = self.taken().map_err(failed("read", &self.path))?;
        Ok(index.misjudged(&owners, &taken).unwrap_or(taken))
    }

    fn all_names(&self) -> Result<Vec<OsString>, StoreError> {
        let here = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listed = Dir::openat(&self.directory, ".", here, Mode::empty()).and_then(|mut directory| {
            let mut names = Vec::new();
            for entry in directory.iter() {
                names.push(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned());
            }
            Ok(names)
        });
        listed.map_err(|error| failed("read", &self.path)(error.into()))
    }
}

/// Whether a name is that of a file, or of a temporary one, which the store needs for itself.
fn is_of_the_store(name: &OsStr) -> bool {
    let is_last = |name: &str| {
        let number = name.strip_prefix("last_reserved_ip.");
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name.to_str()
        .is_some_and(|name| matches!(name, "." | ".." | "lock" | ".reservation" | ".last_reserved_ip") || is_last(name))
}

fn modified(found: &FileStat) -> Option<SystemTime> {
    let seconds = u64::try_from(found.st_mtime).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, u32::try_from(found.st_mtime_nsec).ok()?))
}
