//! Reservations as files, in the format of the Go plugin.

use std::{
    fs::{self, DirBuilder, DirEntry, File, OpenOptions},
    io::{self, Read, Write},
    net::IpAddr,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use multus_cni::{AttachmentId, NetworkName};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, renameat2},
    unistd::linkat,
};

use crate::{
    Owner, Reservation, Reservations, Store, StoreError,
    index::{Index, State},
    lock::Lock,
    range::successor,
    store::release_each,
};

/// Reservations in a directory: one sub-directory for each network, one file for each address.
#[derive(Clone, Debug)]
pub struct DiskStore {
    data_dir: PathBuf,
}

impl DiskStore {
    /// Where the plugin keeps reservations unless told otherwise.
    pub const DEFAULT_DATA_DIR: &'static str = "/var/lib/cni/networks";

    /// The store in `data_dir`, which is made when it is first needed.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }
}

impl Store for DiskStore {
    fn lock(&self, network: &NetworkName) -> Result<Box<dyn Reservations + '_>, StoreError> {
        let directory = self.data_dir.join(network.as_str());
        let locked = match Lock::acquire(&directory.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = DirBuilder::new().recursive(true).mode(0o755).create(&directory);
                made.map_err(failed("mkdir", &directory))?;
                Lock::acquire(&directory.join("lock"))
            }
            other => other,
        };
        let lock = locked.map_err(failed("open", &directory.join("lock")))?;
        Ok(Box::new(Network { directory, hint: Hint::Unopened, _lock: lock }))
    }

    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        let directory = self.data_dir.join(network.as_str());
        match Lock::acquire(&directory.join("lock")) {
            Ok(lock) => Ok(Some(Box::new(Network { directory, hint: Hint::Unopened, _lock: lock }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", &directory.join("lock"))(error)),
        }
    }
}

/// A network's directory, with its lock held.
struct Network {
    directory: PathBuf,
    hint: Hint,
    _lock: Lock,
}

/// What is known without reading reservations.
enum Hint {
    Unopened,
    Index(Index),
    /// The files are read instead.
    Unusable,
}

impl Network {
    /// The index, if there can be one. Before anything is changed, so that it is known whether it counts.
    fn index(&mut self) -> Option<&mut Index> {
        if let Hint::Unopened = self.hint {
            let opened = Index::open(&self.directory).ok().flatten().or_else(|| self.built_index());
            self.hint = opened.map_or(Hint::Unusable, Hint::Index);
        }
        match &mut self.hint {
            Hint::Index(index) => Some(index),
            Hint::Unopened | Hint::Unusable => None,
        }
    }

    fn built_index(&self) -> Option<Index> {
        let seen = State::of(&self.directory).ok()?;
        let reservations = self.all_files().ok()?;
        let owners: Vec<_> = reservations.into_iter().map(|known| (known.owner, known.address)).collect();
        Index::build(&self.directory, seen, &owners, &self.taken().ok()?).ok()
    }

    /// Does something with the index. One that cannot be read or written is given up, and its seal stays broken.
    fn with_index<T>(&mut self, work: impl FnOnce(&mut Index) -> io::Result<T>) -> Option<T> {
        let result = work(self.index()?);
        if result.is_err() {
            self.give_up_index();
        }
        result.ok()
    }

    /// Changes the directory, and sees to it that the index counts only if nobody else has, and if it is known what became
    /// of the change.
    fn change<T>(&mut self, change: impl FnOnce(&Self) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let directory = self.directory.clone();
        self.with_index(|index| index.confirm(&directory));
        let result = change(self);
        match &result {
            Ok(_) => drop(self.with_index(|index| index.changed(&directory))),
            Err(_) => self.give_up_index(),
        }
        result
    }

    fn give_up_index(&mut self) {
        self.hint = Hint::Unusable;
        Index::discard(&self.directory);
    }

    fn path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(address.to_string())
    }

    /// Makes the file of `address` appear with its content, or not at all; `false` when there is one.
    fn publish(&self, address: IpAddr, content: &[u8]) -> Result<bool, StoreError> {
        let target = self.path(address);
        let result = match self.link_unnamed(content, &target) {
            Err(error) if is_not_supported(&error) => self.rename_named(content, &target),
            other => other,
        };
        result.map_err(failed("create", &target))
    }

    fn link_unnamed(&self, content: &[u8], target: &Path) -> io::Result<bool> {
        let unnamed = OFlag::O_TMPFILE.bits();
        let mut file = OpenOptions::new().write(true).mode(0o600).custom_flags(unnamed).open(&self.directory)?;
        file.write_all(content)?;
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = || linkat(AT_FDCWD, descriptor.as_str(), AT_FDCWD, target, AtFlags::AT_SYMLINK_FOLLOW);
        created(target, || Ok(link()?))
    }

    /// For file systems without unnamed files.
    fn rename_named(&self, content: &[u8], target: &Path) -> io::Result<bool> {
        let temporary = self.directory.join(".reservation");
        // One that a killed process left may be the second name of a reservation: remove it, never write to it.
        absent_is_fine(fs::remove_file(&temporary))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let rename = || match renameat2(AT_FDCWD, &temporary, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
            // NFS cannot, but has links.
            Err(Errno::EINVAL) => fs::hard_link(&temporary, target),
            result => Ok(result?),
        };
        let result = file.write_all(content).and_then(|()| created(target, rename));
        // Or the next one does.
        let _left = fs::remove_file(&temporary);
        result
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // The lock makes one name enough.
        let temporary = self.directory.join(".last_reserved_ip");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        fs::rename(&temporary, path)
    }

    /// The reservations of `owner`, and those of its container without an interface, in the order of their text.
    fn held(&mut self, attachment: &AttachmentId) -> Result<Vec<Reservation>, StoreError> {
        let own = Owner::from(attachment);
        let legacy = Owner { container_id: own.container_id.clone(), ifname: None };
        let known = self.with_index(|index| Ok([index.addresses(&own)?, index.addresses(&legacy)?].concat()));
        let Some(mut addresses) = known else {
            let all = self.all_files()?.into_iter();
            return Ok(all.filter(|known| known.owner == own || known.owner == legacy).collect());
        };
        addresses.sort_by_cached_key(IpAddr::to_string);
        addresses.dedup();
        let mut held = Vec::new();
        for address in addresses {
            match self.read(address) {
                Ok(Some(owner)) if owner == own || owner == legacy => held.push(Reservation { address, owner }),
                // Sealed or not, it is wrong, or two owners have the same hash.
                _ => {
                    self.give_up_index();
                    return self.held(attachment);
                }
            }
        }
        Ok(held)
    }

    /// Every reservation, read from its file.
    fn all_files(&self) -> Result<Vec<Reservation>, StoreError> {
        let mut addresses = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let entry = entry.map_err(failed("read", &self.directory))?;
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            addresses.extend(address_named(&entry).filter(|_| is_file).map(|address| (entry.file_name(), address)));
        }
        addresses.sort();
        let mut reservations = Vec::new();
        for (_, address) in addresses {
            // What cannot be read, or nobody could have written as a reservation, belongs to nobody, as with the Go plugin;
            // the address is taken all the same.
            let owner = self.read(address).ok().flatten();
            reservations.extend(owner.map(|owner| Reservation { address, owner }));
        }
        Ok(reservations)
    }

    /// Every address that is taken, by a reservation or by whatever else has its name.
    fn taken(&self) -> io::Result<Vec<IpAddr>> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let is_torn = || entry.metadata().is_ok_and(|found| is_torn(&found));
            taken.extend(address_named(&entry).filter(|_| !is_torn()));
        }
        Ok(taken)
    }

    /// The first free address, by looking for the file of each.
    fn next_free_file(&self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        let mut candidate = first;
        while candidate <= last {
            let path = self.path(candidate);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(candidate)),
                Err(error) => return Err(failed("stat", &path)(error)),
                Ok(metadata) if is_torn(&metadata) => return Ok(Some(candidate)),
                Ok(_) if candidate == last => break,
                Ok(_) => candidate = successor(candidate),
            }
        }
        Ok(None)
    }

    fn read(&self, address: IpAddr) -> Result<Option<Owner>, StoreError> {
        let path = self.path(address);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes)) {
            Ok(_) => Ok(owner(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }
}

/// More than any container ID and interface name.
const MAX_SIZE: u64 = 64 * 1024;

impl Reservations for Network {
    fn all(&mut self) -> Result<Vec<Reservation>, StoreError> {
        self.all_files()
    }

    fn held_by(&mut self, owner: &AttachmentId) -> Result<Vec<IpAddr>, StoreError> {
        let held = self.held(owner)?;
        Ok(held.into_iter().map(|reservation| reservation.address).collect())
    }

    fn release_all(&mut self, owner: &AttachmentId) -> Result<(), StoreError> {
        let held = self.held(owner)?;
        let (own, legacy): (Vec<_>, Vec<_>) = held.into_iter().partition(|reservation| reservation.owner.is(owner));
        release_each(self, if own.is_empty() { legacy } else { own })
    }

    fn next_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        let known = self.with_index(|index| index.next_free(first, last));
        if let Some(Some(candidate)) = known
            && self.next_free_file(candidate, candidate)?.is_some()
        {
            return Ok(Some(candidate));
        }
        // Before anybody is told that there is none, the files are asked: the index is a hint.
        let found = self.next_free_file(first, last)?;
        if known.is_some_and(|known| known != found) {
            self.give_up_index();
        }
        Ok(found)
    }

    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId) -> Result<bool, StoreError> {
        let content = format!("{}\r\n{}", owner.container_id.trim(), owner.ifname);
        let reserved = self.change(|network| network.publish(address, content.as_bytes()))?;
        if reserved {
            let owner = self::owner(content.as_bytes());
            self.with_index(|index| index.insert(owner.as_ref(), address));
        } else if self.with_index(|index| index.next_free(address, address)).flatten().is_some() {
            // Somebody took it without the lock.
            self.give_up_index();
        }
        Ok(reserved)
    }

    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        if self.read(reservation.address)?.as_ref() != Some(&reservation.owner) {
            return Ok(());
        }
        let path = self.path(reservation.address);
        self.change(|_| absent_is_fine(fs::remove_file(&path)).map_err(failed("unlink", &path)))?;
        self.with_index(|index| index.remove(&reservation.owner, reservation.address));
        Ok(())
    }

    fn last_reserved(&mut self, set: usize) -> Option<IpAddr> {
        let text = fs::read_to_string(self.directory.join(format!("last_reserved_ip.{set}"))).ok()?;
        multus_cni::parse_ip(&text)
    }

    fn set_last_reserved(&mut self, set: usize, address: IpAddr) -> Result<(), StoreError> {
        let path = self.directory.join(format!("last_reserved_ip.{set}"));
        let text = address.to_string();
        if overwrite(&path, text.as_bytes()).map_err(failed("write", &path))? {
            return Ok(());
        }
        self.change(|network| network.replace(&path, text.as_bytes()).map_err(failed("write", &path)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Hint::Index(index) = &mut self.hint {
            // Without a seal it is made anew next time.
            let _unsealed = index.seal(&self.directory);
        }
    }
}

/// Writes over the file's content where the new one has its length, in one step that no kill divides. Replacing a file
/// makes ext4 write it out, or free it, at once: that takes longer than all the rest of an allocation.
fn overwrite(path: &Path, content: &[u8]) -> io::Result<bool> {
    match OpenOptions::new().write(true).open(path) {
        Ok(file) if file.metadata()?.len() == u64::try_from(content.len()).unwrap_or(u64::MAX) => {
            file.write_all_at(content, 0).map(|()| true)
        }
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has `create` make `target`; `false` when it exists, unless it is the empty file that a killed Go plugin left: that one
/// writes only while it holds the lock, which is ours now.
fn created(target: &Path, create: impl Fn() -> io::Result<()>) -> io::Result<bool> {
    match create() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !is_torn(&fs::symlink_metadata(target)?) {
                return Ok(false);
            }
            fs::remove_file(target)?;
            create().map(|()| true)
        }
        Err(error) => Err(error),
    }
}

/// The address whose reservation a directory entry is, by its name.
fn address_named(entry: &DirEntry) -> Option<IpAddr> {
    let name = entry.file_name();
    let name = name.to_str()?;
    name.parse().ok().filter(|address: &IpAddr| address.to_string() == name)
}

/// The outcome of removing what may be gone.
pub(crate) fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn is_torn(metadata: &fs::Metadata) -> bool {
    metadata.is_file() && metadata.len() == 0
}

fn owner(content: &[u8]) -> Option<Owner> {
    let text = std::str::from_utf8(content).ok()?.trim();
    match text.split_once("\r\n") {
        Some((container_id, ifname)) if is_word(container_id) && is_word(ifname) => {
            Some(Owner { container_id: container_id.to_owned(), ifname: Some(ifname.to_owned()) })
        }
        None if is_word(text) => Some(Owner { container_id: text.to_owned(), ifname: None }),
        _ => None,
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// Whether a file system has no unnamed files or no links, or proc is not there to make links by.
fn is_not_supported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT | Errno::EPERM))
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { attempt, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_unnamed_files_a_reservation_is_whole_too() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(&directory.path().join("lock")).unwrap();
        let network = Network { directory: directory.path().to_owned(), hint: Hint::Unopened, _lock: lock };
        let target = directory.path().join("10.0.0.2");
        // What a process that was killed in between has left.
        fs::write(directory.path().join("10.0.0.3"), "c9\r\neth0").unwrap();
        fs::hard_link(directory.path().join("10.0.0.3"), directory.path().join(".reservation")).unwrap();
        assert!(network.rename_named(b"c1\r\neth0", &target).unwrap());
        assert!(!network.rename_named(b"c2\r\neth0", &target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"c1\r\neth0");
        assert_eq!(fs::read(directory.path().join("10.0.0.3")).unwrap(), b"c9\r\neth0");
        fs::write(&target, "").unwrap();
        assert!(network.rename_named(b"c2\r\neth0", &target).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"c2\r\neth0");
        assert!(!directory.path().join(".reservation").exists());
    }
}
