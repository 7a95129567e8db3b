//! The directory of a network, with its lock held.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read, Write},
    net::IpAddr,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::{FileExt, MetadataExt},
    },
    path::PathBuf,
    sync::Arc,
};

use multus_cni::{AttachmentId, ByteLock, NetworkName, is_lack};
use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, renameat2},
    libc,
    sys::{
        stat::{FileStat, Mode, SFlag, fstatat},
        uio::pread,
    },
    unistd::{UnlinkatFlags, linkat, unlinkat},
};
use rustix::fs::{XattrFlags, fsetxattr, lgetxattr};

use super::{DiskStore, Idle, LastReserved, MOST_IDLE, RECORD, failed, last_reserved_name};
use crate::{
    AttachmentLock, Entry, Owner, Reservation, Reservations, Stage, Standing, StoreError,
    index::{Index, State, has_current_times},
    lock::NetworkLock,
    range::successor,
    standing::{record, standing},
    uninterrupted::{fsync, openat, uninterrupted},
};

mod entries;

/// A network's directory, with its lock held.
pub(super) struct Network<'a> {
    pub(super) store: &'a DiskStore,
    pub(super) name: NetworkName,
    pub(super) path: PathBuf,
    pub(super) directory: Arc<OwnedFd>,
    pub(super) hint: Hint,
    pub(super) last_reserved: Vec<LastReserved>,
    /// The directory when it was locked.
    pub(super) seen: State,
    pub(super) lock: Arc<NetworkLock>,
}

/// What is known without reading reservations.
pub(super) enum Hint {
    /// Only what it was when the network was last unlocked, if that.
    Unopened(Option<Index>),
    Index(Index),
    /// The files are read instead.
    Unusable,
}

impl Network<'_> {
    /// The index, if there can be one. Before anything is changed, so that it is known whether it counts.
    fn index(&mut self) -> Option<&mut Index> {
        if let Hint::Unopened(known) = &mut self.hint {
            let known = known.take();
            self.hint = self.opened_index(known).map_or(Hint::Unusable, Hint::Index);
        }
        match &mut self.hint {
            Hint::Index(index) => Some(index),
            Hint::Unopened(_) | Hint::Unusable => None,
        }
    }

    fn opened_index(&self, known: Option<Index>) -> Option<Index> {
        let boot = self.store.boot?;
        let seen = self.seen;
        if let Some(index) = known.filter(|index| index.is_of(seen)) {
            return Some(index);
        }
        if !has_current_times(&self.directory).ok()? {
            return None;
        }
        let path = self.store.ours(&self.name, "index");
        if let Ok(Some(index)) = Index::open(path.clone(), seen, boot) {
            return Some(index);
        }
        self.store.make_ours().ok()?;
        let mut owners = Vec::new();
        for address in self.addresses().ok()? {
            // One that cannot be read now may be read by the next who looks, and must not be forgotten until then.
            owners.extend(self.read(address).ok()?.map(|owner| (owner, address)));
        }
        Index::build(path, seen, boot, &owners, &self.taken().ok()?).ok()
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
        let directory = Arc::clone(&self.directory);
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
        // Where it cannot be removed it could not be written either.
        let _unsealed = fs::remove_file(self.store.ours(&self.name, "index"));
    }

    /// Makes the file of `address` appear with its content, or not at all; `false` when there is one.
    fn publish(&self, address: IpAddr, content: &[u8], stage: Stage) -> Result<bool, StoreError> {
        let name = address.to_string();
        let result = match self.link_unnamed(&name, content, stage) {
            Err(error) if is_not_supported(&error) => self.rename_named(&name, content, stage),
            other => other,
        };
        result.map_err(|error| self.failed("create", &name, error))
    }

    fn link_unnamed(&self, name: &str, content: &[u8], stage: Stage) -> io::Result<bool> {
        let file = self.written(".", OFlag::O_TMPFILE, content, stage)?;
        // Without a way through proc, where the kernel allows it.
        let link = || match linkat(&file, "", &self.directory, name, AtFlags::AT_EMPTY_PATH) {
            Err(Errno::ENOENT | Errno::EPERM) => {
                let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(AT_FDCWD, descriptor.as_str(), &self.directory, name, AtFlags::AT_SYMLINK_FOLLOW)
            }
            other => other,
        };
        self.created(name, || Ok(link()?))
    }

    /// For file systems without unnamed files.
    fn rename_named(&self, name: &str, content: &[u8], stage: Stage) -> io::Result<bool> {
        let temporary = ".reservation";
        // One that a killed process left may be the second name of a reservation: remove it, never write to it.
        self.remove(temporary)?;
        let rename = || {
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(&self.directory, temporary, &self.directory, name, flags) {
                // NFS cannot, but has links.
                Err(Errno::EINVAL) => linkat(&self.directory, temporary, &self.directory, name, AtFlags::empty()),
                result => result,
            }
        };
        let written = self.written(temporary, OFlag::O_CREAT | OFlag::O_EXCL, content, stage);
        let result = written.and_then(|_file| self.created(name, || Ok(rename()?)));
        // Or the next one does.
        let _left = self.remove(temporary);
        result
    }

    /// A new file with its content and its record.
    fn written(&self, name: &str, create: OFlag, content: &[u8], stage: Stage) -> io::Result<File> {
        let flags = create | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.directory, name, flags, Mode::from_bits_truncate(0o600))?);
        file.write_all(content)?;
        if let Some(boot) = self.store.boot {
            match fsetxattr(&file, RECORD, record(boot, stage).as_bytes(), XattrFlags::empty()) {
                // Then it is as one of the Go plugin's.
                Ok(()) | Err(rustix::io::Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.store.durable {
            file.sync_all()?;
        }
        Ok(file)
    }

    /// Has `create` make the file `name`; `false` when it exists, unless it is the empty file that a killed Go plugin left:
    /// that one writes only while it holds the lock, which is ours now.
    fn created(&self, name: &str, create: impl Fn() -> io::Result<()>) -> io::Result<bool> {
        match create() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !is_torn(&self.stat(name)?) {
                    return Ok(false);
                }
                self.remove(name)?;
                create()?;
            }
            other => other?,
        }
        if self.store.durable
            && let Err(error) = fsync(&self.directory)
        {
            self.remove(name)?;
            return Err(error.into());
        }
        Ok(true)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        // The lock makes one name enough.
        let temporary = ".last_reserved_ip";
        // One that a killed process left, or a link to somewhere else: never write to it.
        self.remove(temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, temporary, flags, Mode::from_bits_truncate(0o600))?;
        File::from(file).write_all(content)?;
        Ok(renameat2(&self.directory, temporary, &self.directory, name, RenameFlags::empty())?)
    }

    /// The reservations of `owner`, and those of its container without an interface, in the order of their text.
    fn held(&mut self, attachment: &AttachmentId) -> Result<Vec<Reservation>, StoreError> {
        let own = Owner::from(attachment);
        let is_held = |owner: &Owner| *owner == own || owner.is_legacy(attachment);
        let Some(mut addresses) = self.with_index(|index| index.addresses(&own)) else {
            return Ok(self.all_files()?.into_iter().filter(|known| is_held(&known.owner)).collect());
        };
        addresses.sort_by_cached_key(IpAddr::to_string);
        addresses.dedup();
        let mut held = Vec::new();
        for address in addresses {
            match self.read(address) {
                Ok(Some(owner)) if is_held(&owner) => held.push(Reservation { address, owner }),
                // Sealed or not, it is wrong, or two owners have the same hash.
                _ => {
                    self.give_up_index();
                    return self.held(attachment);
                }
            }
        }
        Ok(held)
    }

    /// The names in the directory, but for those of directories and the like.
    fn names(&self) -> Result<Vec<String>, StoreError> {
        let here = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listed = openat(&self.directory, ".", here, Mode::empty()).and_then(|directory| {
            let mut directory = Dir::from_fd(directory)?;
            let mut names = Vec::new();
            for entry in directory.iter() {
                let entry = entry?;
                let is_file = entry.file_type().is_none_or(|kind| kind == Type::File);
                names.extend(entry.file_name().to_str().ok().filter(|_| is_file).map(str::to_owned));
            }
            Ok(names)
        });
        listed.map_err(|error| failed("read", &self.path)(error.into()))
    }

    /// The addresses that files have the names of, in the order of their text.
    fn addresses(&self) -> Result<Vec<IpAddr>, StoreError> {
        let mut names = self.names()?;
        names.sort();
        Ok(names.iter().filter_map(|name| address_named(name)).collect())
    }

    /// Every reservation, read from its file.
    fn all_files(&self) -> Result<Vec<Reservation>, StoreError> {
        let mut reservations = Vec::new();
        for address in self.addresses()? {
            let owner = self.known_owner(address)?;
            reservations.extend(owner.map(|owner| Reservation { address, owner }));
        }
        Ok(reservations)
    }

    /// Who has `address`. What cannot be read, or nobody could have written as a reservation, belongs to nobody, as with the Go
    /// plugin; the address is taken all the same. But where nothing can be read for now, nobody knows whose it is.
    fn known_owner(&self, address: IpAddr) -> Result<Option<Owner>, StoreError> {
        match self.read(address) {
            Err(error) if is_lack(&error.source) => Err(error),
            other => Ok(other.ok().flatten()),
        }
    }

    /// Every address that is taken, by a reservation or by whatever else has its name.
    fn taken(&self) -> io::Result<Vec<IpAddr>> {
        let mut taken = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let address = entry.file_name().to_str().and_then(address_named);
            taken.extend(address.filter(|_| !self.stat(entry.file_name()).is_ok_and(|found| is_torn(&found))));
        }
        Ok(taken)
    }

    /// The first free address, by looking for the file of each.
    fn next_free_file(&self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        let mut candidate = first;
        while candidate <= last {
            let name = candidate.to_string();
            match self.stat(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(candidate)),
                Err(error) => return Err(self.failed("stat", &name, error)),
                Ok(found) if is_torn(&found) => return Ok(Some(candidate)),
                Ok(_) if candidate == last => break,
                Ok(_) => candidate = successor(candidate),
            }
        }
        Ok(None)
    }

    fn read(&self, address: IpAddr) -> Result<Option<Owner>, StoreError> {
        let name = address.to_string();
        let read = || -> io::Result<Vec<u8>> {
            // Whatever has that name: to open a pipe might mean to wait for ever.
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            let file = File::from(openat(&self.directory, name.as_str(), flags, Mode::empty())?);
            // Mostly in one call.
            let mut bytes = vec![0; 256];
            let length = uninterrupted(|| pread(&file, &mut bytes, 0))?;
            bytes.truncate(length);
            if length == 256 {
                bytes.clear();
                file.take(MAX_SIZE).read_to_end(&mut bytes)?;
            }
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(owner(&bytes)),
            Err(error) if is_no_reservation(&error) => Ok(None),
            Err(error) => Err(self.failed("read", &name, error)),
        }
    }

    /// Ends a reservation that is known to be there.
    fn end(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        let name = reservation.address.to_string();
        self.change(|network| network.remove(&name).map_err(|error| network.failed("unlink", &name, error)))?;
        self.with_index(|index| index.remove(&reservation.owner, reservation.address));
        Ok(())
    }

    fn stat(&self, name: impl AsRef<OsStr>) -> io::Result<FileStat> {
        Ok(fstatat(&self.directory, name.as_ref(), AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Removes a file that may be gone.
    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn failed(&self, attempt: &'static str, name: &str, source: io::Error) -> StoreError {
        StoreError { attempt, path: self.path.join(name), source }
    }
}

/// More than any container ID and interface name.
const MAX_SIZE: u64 = 64 * 1024;

impl Reservations for Network<'_> {
    fn all(&mut self) -> Result<Vec<Reservation>, StoreError> {
        self.all_files()
    }

    fn entry(&mut self, address: IpAddr) -> Result<Option<Entry>, StoreError> {
        self.inspect(address.to_string().as_ref())
    }

    fn for_each_entry(&mut self, each: &mut dyn FnMut(Entry, usize)) -> Result<(), StoreError> {
        self.inspect_each(each)
    }

    fn verify(&mut self) -> Result<Vec<IpAddr>, StoreError> {
        self.misjudged_by_index()
    }

    fn held_by(&mut self, owner: &AttachmentId) -> Result<Vec<IpAddr>, StoreError> {
        let held = self.held(owner)?;
        Ok(held.into_iter().map(|reservation| reservation.address).collect())
    }

    fn release_all(&mut self, owner: &AttachmentId) -> Result<(), StoreError> {
        let held = self.held(owner)?;
        let (own, legacy): (Vec<_>, Vec<_>) = held.into_iter().partition(|reservation| reservation.owner.is(owner));
        let ended = if own.is_empty() { legacy } else { own };
        let mut result = Ok(());
        for reservation in &ended {
            result = result.and(self.end(reservation));
        }
        result
    }

    fn try_lock_attachment(&mut self, attachment: &AttachmentId) -> Result<Option<AttachmentLock>, StoreError> {
        let file = self.store.ours(&self.name, "attachments");
        match ByteLock::try_acquire(&file, attachment.stable_hash()) {
            // Nobody ever had a lock, or can.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ReadOnlyFilesystem) => {
                Ok(Some(AttachmentLock::new(())))
            }
            other => other.map(|lock| lock.map(AttachmentLock::new)).map_err(failed("lock", &file)),
        }
    }

    fn next_free(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        let known = self.with_index(|index| index.next_free(first, last));
        if let Some(Some(address)) = known {
            return Ok(Some(address));
        }
        // Before anybody is told that there is none, the files are asked: the index is a hint.
        let found = self.next_free_file(first, last)?;
        if known.is_some_and(|known| known != found) {
            self.give_up_index();
        }
        Ok(found)
    }

    fn next_from_earlier_boot(&mut self, first: IpAddr, last: IpAddr) -> Result<Option<IpAddr>, StoreError> {
        let mut addresses = self.addresses()?;
        addresses.retain(|address| (first..=last).contains(address));
        addresses.sort_unstable();
        for address in addresses {
            if self.standing(address)? == Standing::EarlierBoot {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn count(&mut self, first: IpAddr, last: IpAddr) -> Result<u64, StoreError> {
        if let Some(count) = self.with_index(|index| index.count(first, last)) {
            return Ok(count);
        }
        let taken = self.taken().map_err(failed("read", &self.path))?;
        let count = taken.into_iter().filter(|address| (first..=last).contains(address)).count();
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }

    fn find(&mut self, address: IpAddr) -> Result<Option<Reservation>, StoreError> {
        Ok(self.read(address)?.map(|owner| Reservation { address, owner }))
    }

    fn standing(&mut self, address: IpAddr) -> Result<Standing, StoreError> {
        let path = self.path.join(address.to_string());
        let mut record = [0; 64];
        match lgetxattr(&path, RECORD, &mut record) {
            Ok(length) => {
                let record = record.get(..length).unwrap_or_default();
                let found = standing(&String::from_utf8_lossy(record), self.store.boot);
                // Machines that share a directory may also share an ID, as clones do.
                let is_shared = found == Standing::EarlierBoot
                    && !has_current_times(&self.directory).map_err(failed("statfs", &self.path))?;
                Ok(if is_shared { Standing::OtherMachine } else { found })
            }
            Err(
                rustix::io::Errno::NODATA
                | rustix::io::Errno::NOENT
                | rustix::io::Errno::NOTSUP
                | rustix::io::Errno::RANGE,
            ) => Ok(Standing::Unrecorded),
            Err(error) => Err(failed("getxattr", &path)(error.into())),
        }
    }

    fn reserve(&mut self, address: IpAddr, owner: &AttachmentId, stage: Stage) -> Result<bool, StoreError> {
        let content = format!("{}\r\n{}", owner.container_id.trim(), owner.ifname);
        let reserved = self.change(|network| network.publish(address, content.as_bytes(), stage))?;
        if reserved {
            let owner = self::owner(content.as_bytes());
            self.with_index(|index| index.insert(owner.as_ref(), address));
        } else if self.with_index(|index| index.next_free(address, address)).flatten().is_some() {
            // Somebody took it without the lock.
            self.give_up_index();
        }
        Ok(reserved)
    }

    fn adopt(&mut self, address: IpAddr, stage: Stage) -> Result<(), StoreError> {
        self.store.record(&self.name, address, stage, XattrFlags::empty())?;
        if self.store.durable {
            // Whoever made it may have died before.
            let path = self.path.join(address.to_string());
            let synced = File::open(&path).and_then(|file| file.sync_all()).and_then(|()| Ok(fsync(&self.directory)?));
            synced.map_err(failed("fsync", &path))?;
        }
        Ok(())
    }

    fn release(&mut self, reservation: &Reservation) -> Result<(), StoreError> {
        if self.read(reservation.address)?.as_ref() != Some(&reservation.owner) {
            return Ok(());
        }
        self.end(reservation)
    }

    fn last_reserved(&mut self, set: usize) -> Option<IpAddr> {
        let known =
            self.last_reserved.iter().position(|last| last.set == set).map(|at| self.last_reserved.swap_remove(at));
        // One that was replaced has no name any more.
        let file = match known.filter(|last| last.file.metadata().is_ok_and(|file| file.nlink() > 0)) {
            Some(last) => last.file,
            None => {
                // It is written to in place: that must not be another file, by whatever kind of link.
                let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
                let file: File =
                    openat(&self.directory, last_reserved_name(set).as_str(), flags, Mode::empty()).ok()?.into();
                let found = file.metadata().ok()?;
                Some(file).filter(|_| found.is_file() && found.nlink() == 1)?
            }
        };
        let mut bytes = [0; 64];
        let length = uninterrupted(|| pread(&file, &mut bytes, 0)).ok()?;
        self.last_reserved.push(LastReserved { set, file, length });
        multus_cni::parse_ip(str::from_utf8(bytes.get(..length)?).ok()?)
    }

    fn set_last_reserved(&mut self, set: usize, address: IpAddr) -> Result<(), StoreError> {
        let (name, text) = (last_reserved_name(set), address.to_string());
        if !self.last_reserved.iter().any(|last| last.set == set && last.length > 0) {
            self.last_reserved(set);
        }
        // Where the text has the same length it is written over the old one, in one step that no kill divides. Replacing a
        // file makes ext4 write it out, or free it, at once: that takes longer than all the rest of an allocation.
        let same = self.last_reserved.iter().find(|last| last.set == set && last.length == text.len());
        if let Some(last) = same {
            return last.file.write_all_at(text.as_bytes(), 0).map_err(|error| self.failed("write", &name, error));
        }
        self.last_reserved.retain(|last| last.set != set);
        self.change(|network| {
            network.replace(&name, text.as_bytes()).map_err(|error| network.failed("write", &name, error))
        })
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        let index = match std::mem::replace(&mut self.hint, Hint::Unusable) {
            // Without a seal it is made anew next time.
            Hint::Index(mut index) => index.seal(&self.directory).is_ok().then_some(index),
            Hint::Unopened(known) => known,
            Hint::Unusable => None,
        };
        // Unlocked before anybody else can find it, who would take the lock for their own.
        if self.lock.release().is_ok() {
            let (directory, lock) = (Arc::clone(&self.directory), Arc::clone(&self.lock));
            let mut idle = self.store.idle();
            if idle.len() >= MOST_IDLE {
                idle.clear();
            }
            let mut last_reserved = std::mem::take(&mut self.last_reserved);
            last_reserved.iter_mut().for_each(|last| last.length = 0);
            idle.insert(self.name.clone(), Idle { directory, lock, index, last_reserved, seen: self.seen });
        }
    }
}

/// The address whose reservation a file is, by its name.
fn address_named(name: &str) -> Option<IpAddr> {
    name.parse().ok().filter(|address: &IpAddr| address.to_string() == name)
}

fn is_torn(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode & libc::S_IFMT) == SFlag::S_IFREG && found.st_size == 0
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

/// Whether nothing is there, or a directory, a symbolic link, a socket.
fn is_no_reservation(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::EISDIR | Errno::ELOOP | Errno::ENXIO))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// Whether a file system has no unnamed files or no links, or proc is not there to make links by.
fn is_not_supported(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL | Errno::ENOENT | Errno::EPERM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_unnamed_files_a_reservation_is_whole_too() {
        let directory = tempfile::tempdir().unwrap();
        let opened: OwnedFd = File::open(directory.path()).unwrap().into();
        let lock = Arc::new(NetworkLock::acquire(&opened).unwrap());
        let store = DiskStore::new(directory.path());
        let seen = State::of(&opened).unwrap();
        let opened = Idle { directory: Arc::new(opened), lock, index: None, last_reserved: Vec::new(), seen };
        let network = store.locked(&"storage".parse().unwrap(), directory.path().to_owned(), opened);
        let target = directory.path().join("10.0.0.2");
        // What a process that was killed in between has left.
        fs::write(directory.path().join("10.0.0.3"), "c9\r\neth0").unwrap();
        fs::hard_link(directory.path().join("10.0.0.3"), directory.path().join(".reservation")).unwrap();
        assert!(network.rename_named("10.0.0.2", b"c1\r\neth0", Stage::Finished).unwrap());
        assert!(!network.rename_named("10.0.0.2", b"c2\r\neth0", Stage::Finished).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"c1\r\neth0");
        assert_eq!(fs::read(directory.path().join("10.0.0.3")).unwrap(), b"c9\r\neth0");
        fs::write(&target, "").unwrap();
        assert!(network.rename_named("10.0.0.2", b"c2\r\neth0", Stage::Finished).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"c2\r\neth0");
        assert!(!directory.path().join(".reservation").exists());
    }
}
