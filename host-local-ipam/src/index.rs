//! A hint of who has which address, so that no reservation needs to be read to find one.
//!
//! The reservation files are the truth. Beside them, outside of the directory that the Go plugin reads, a file holds two
//! tables: addresses by their owner, and occupied addresses as bitmaps. Whatever is wrong with it, it is made anew from the
//! reservations.
//!
//! It counts only while nobody else has changed the directory: its times are those that the index records, its *seal*. Any
//! change by others gives it others, even within one tick of the clock, because the directory gets, after each change of
//! ours, a modification time with random nanoseconds. That Linux gives no change a time that was read before, since 6.13, is
//! not relied on: tmpfs does for new files only, ext4 only where it is mounted by that name and has inodes of 256 bytes. A
//! seal is good for one boot, since what reached the disk when the power failed need not fit together.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, OpenOptions},
    hash::{BuildHasher, RandomState},
    io::{self, BufWriter, Write},
    net::IpAddr,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use multus_cni::AttachmentId;
use nix::{
    fcntl::OFlag,
    sys::{
        stat::{FileStat, fstat, futimens, stat},
        statfs::{
            BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC,
            XFS_SUPER_MAGIC, fstatfs,
        },
        time::TimeSpec,
    },
};

use crate::{Boot, Owner, disk::absent_is_fine, uninterrupted::uninterrupted};

mod table;

use table::{PAGE, Pages, Record, Table, u64_at};

/// What is known of one network.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    pages: Pages,
    owners: Table<OwnedAddress>,
    occupied: Table<Chunk>,
    /// How many reservations are of a container without an interface; mostly none, so that none needs to be looked for.
    of_containers: u64,
    boot: u64,
    /// The directory after our last look at it, or change of it.
    seen: State,
    changed: bool,
}

/// Changes with the format, so that no version trusts another's.
const VERSION: [u8; 8] = *b"hlindex2";

/// Where the numbers of the first page are, in this order.
const OWNERS_PAGES: usize = 16;
const OWNERS: usize = 24;
const OCCUPIED_PAGES: usize = 32;
const OCCUPIED: usize = 40;
const OF_CONTAINERS: usize = 48;
const SEAL: usize = 56;

impl Index {
    /// Opens the index in the file `path`, if it is sealed for the directory in the state `seen`; `None` when it must be
    /// [built](Self::build).
    pub(crate) fn open(path: PathBuf, seen: State, boot: Boot) -> io::Result<Option<Self>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut pages = Pages::new(file);
        let page = pages.page(0)?;
        let seal = seen.seal(boot.id);
        if page.get(8..16) != Some(&VERSION) || page.get(SEAL..SEAL + seal.len()) != Some(&seal) {
            return Ok(None);
        }
        let number = |at| u64_at(page, at);
        let first = 1 + number(OWNERS_PAGES);
        Ok(Some(Self {
            path,
            owners: Table::new(1..first, number(OWNERS)),
            occupied: Table::new(first..first + number(OCCUPIED_PAGES), number(OCCUPIED)),
            of_containers: number(OF_CONTAINERS),
            pages,
            boot: boot.id,
            seen,
            changed: false,
        }))
    }

    /// Makes the index of a network that is locked: from the owners of its reservations, and from all its addresses that
    /// are taken, by whatever. The directory was in the state `seen` before these were read.
    pub(crate) fn build(
        path: PathBuf,
        seen: State,
        boot: Boot,
        owners: &[(Owner, IpAddr)],
        taken: &[IpAddr],
    ) -> io::Result<Self> {
        let owned = owners.iter().map(|(owner, address)| OwnedAddress::new(owner, *address)).collect();
        let of_containers = owners.iter().filter(|(owner, _)| owner.ifname.is_none()).count();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut addresses = taken.to_vec();
        addresses.sort_unstable();
        for address in addresses {
            let chunk = Chunk::empty(address);
            if chunks.last().is_none_or(|last| last.key != chunk.key) {
                chunks.push(chunk);
            }
            if let Some(last) = chunks.last_mut() {
                last.set(address, true);
            }
        }
        let (pages, owners, occupied) = written(&path, owned, chunks)?;
        let of_containers = u64::try_from(of_containers).unwrap_or(u64::MAX);
        Ok(Self { path, pages, owners, occupied, of_containers, boot: boot.id, seen, changed: true })
    }

    /// Whether it counts for the directory in the state `found`.
    pub(crate) fn is_of(&self, found: State) -> bool {
        self.seen == found && !self.changed
    }

    /// The addresses that may belong to `owner`, or to its container without an interface; and perhaps others whose
    /// owner's hash is the same.
    pub(crate) fn addresses(&mut self, owner: &Owner) -> io::Result<Vec<IpAddr>> {
        let mut found = self.owners.find_all(&mut self.pages, OwnedAddress::hash_of(owner))?;
        if self.of_containers > 0 {
            let container = Owner { ifname: None, ..owner.clone() };
            found.extend(self.owners.find_all(&mut self.pages, OwnedAddress::hash_of(&container))?);
        }
        Ok(found.into_iter().map(|owned| owned.address).collect())
    }

    /// The first address from `first` to `last` that is not occupied.
    pub(crate) fn next_free(&mut self, first: IpAddr, last: IpAddr) -> io::Result<Option<IpAddr>> {
        let mut candidate = first;
        while candidate <= last {
            let chunk = Chunk::empty(candidate);
            let Some(chunk) = self.occupied.find(&mut self.pages, chunk.hash(), |found| found.key == chunk.key)? else {
                return Ok(Some(candidate));
            };
            match chunk.first_free(candidate) {
                Some(address) => return Ok((address <= last).then_some(address)),
                None => match chunk.end() {
                    Some(next) => candidate = next,
                    None => break,
                },
            }
        }
        Ok(None)
    }

    /// How many addresses from `first` to `last` are occupied.
    pub(crate) fn count(&mut self, first: IpAddr, last: IpAddr) -> io::Result<u64> {
        Ok(self.occupied.all(&mut self.pages)?.iter().map(|chunk| chunk.count(first, last)).sum())
    }

    /// The addresses of which it says something else than these, sorted.
    pub(crate) fn misjudged(&mut self, owners: &[(Owner, IpAddr)], taken: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
        let told: HashSet<OwnedAddress> = self.owners.all(&mut self.pages)?.into_iter().collect();
        let found = owners.iter().map(|(owner, address)| OwnedAddress::new(owner, *address)).collect();
        let mut misjudged: BTreeSet<IpAddr> = told.symmetric_difference(&found).map(|owned| owned.address).collect();
        let told: HashSet<IpAddr> = self.occupied.all(&mut self.pages)?.iter().flat_map(Chunk::occupied).collect();
        misjudged.extend(told.symmetric_difference(&taken.iter().copied().collect()));
        let of_containers = owners.iter().filter(|(owner, _)| owner.ifname.is_none());
        if self.of_containers == 0 {
            misjudged.extend(of_containers.map(|(_, address)| address));
        }
        Ok(misjudged.into_iter().collect())
    }

    /// Takes note of a reservation that was made; of one that nobody could have written, only that its address is taken.
    pub(crate) fn insert(&mut self, owner: Option<&Owner>, address: IpAddr) -> io::Result<()> {
        if self.owners.is_full() || self.occupied.is_full() {
            let grown = written(&self.path, self.owners.all(&mut self.pages)?, self.occupied.all(&mut self.pages)?)?;
            (self.pages, self.owners, self.occupied) = grown;
        }
        if let Some(owner) = owner {
            self.owners.replace(&mut self.pages, OwnedAddress::new(owner, address), |old, new| old == new)?;
        }
        self.occupy(address, true)
    }

    /// Takes note that a reservation has ended.
    pub(crate) fn remove(&mut self, owner: &Owner, address: IpAddr) -> io::Result<()> {
        let owned = OwnedAddress::new(owner, address);
        self.owners.remove(&mut self.pages, owned.hash, |found| *found == owned)?;
        if owner.ifname.is_none() {
            self.of_containers = self.of_containers.saturating_sub(1);
        }
        self.occupy(address, false)
    }

    fn occupy(&mut self, address: IpAddr, taken: bool) -> io::Result<()> {
        let empty = Chunk::empty(address);
        let mut chunk =
            self.occupied.find(&mut self.pages, empty.hash(), |found| found.key == empty.key)?.unwrap_or(empty);
        chunk.set(address, taken);
        if chunk.bitmap.iter().all(|byte| *byte == 0) {
            return self.occupied.remove(&mut self.pages, chunk.hash(), |found| found.key == chunk.key);
        }
        self.occupied.replace(&mut self.pages, chunk, |old, new| old.key == new.key)
    }

    /// Fails when the directory has been changed by somebody without the lock.
    pub(crate) fn confirm(&self, directory: impl AsFd) -> io::Result<()> {
        if State::of(directory)? == self.seen { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Takes note that the directory has just been changed by us.
    pub(crate) fn changed(&mut self, directory: impl AsFd) -> io::Result<()> {
        self.changed = true;
        self.seen = State::of(directory)?;
        Ok(())
    }

    /// Seals the directory, after the last change under this lock. An error where it cannot be: then the index does not
    /// count.
    pub(crate) fn seal(&mut self, directory: impl AsFd) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.confirm(&directory)?;
        let seconds = self.seen.modified.0;
        let nanoseconds = i64::try_from(RandomState::new().hash_one(seconds) % 1_000_000_000).unwrap_or_default();
        futimens(&directory, &TimeSpec::UTIME_OMIT, &TimeSpec::new(seconds, nanoseconds))?;
        self.seen = State::of(&directory)?;
        // Where times are coarser than nanoseconds, one of somebody else's might be the same.
        if self.seen.modified != (seconds, nanoseconds) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut page = vec![0; 8];
        page.extend(VERSION);
        let (owners, occupied) = (self.owners.pages(), self.occupied.pages());
        for number in [
            owners.end - owners.start,
            self.owners.count(),
            occupied.end - occupied.start,
            self.occupied.count(),
            self.of_containers,
        ] {
            page.extend(number.to_le_bytes());
        }
        page.extend(self.seen.seal(self.boot));
        self.pages.write(page)?;
        self.changed = false;
        Ok(())
    }
}

/// Writes a file of these tables, in place of the one that was there. Its first page is no seal.
fn written(
    path: &Path,
    owners: Vec<OwnedAddress>,
    occupied: Vec<Chunk>,
) -> io::Result<(Pages, Table<OwnedAddress>, Table<Chunk>)> {
    let first = 1 + Table::<OwnedAddress>::pages_for(owners.len());
    let end = first + Table::<Chunk>::pages_for(occupied.len());
    let counts = [owners.len(), occupied.len()].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    let temporary = path.with_extension("new");
    // What a killed process left.
    absent_is_fine(fs::remove_file(&temporary))?;
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut writer = BufWriter::new(&file);
    writer.write_all(&[0; PAGE])?;
    Table::write_all(1..first, owners, &mut writer)?;
    Table::write_all(first..end, occupied, &mut writer)?;
    writer.flush()?;
    drop(writer);
    // Replacing a file makes ext4 write it out at once.
    absent_is_fine(fs::remove_file(path))?;
    fs::rename(&temporary, path)?;
    Ok((Pages::new(file), Table::new(1..first, counts[0]), Table::new(first..end, counts[1])))
}

/// Whether the file system of `directory` tells its times as they are. That of a network may tell those of some seconds
/// ago, and others have changed the directory since; so may one that is not known.
pub(crate) fn has_current_times(directory: impl AsFd) -> io::Result<bool> {
    const ZFS_SUPER_MAGIC: FsType = FsType(0x2fc1_2fc1);
    let local = [
        EXT4_SUPER_MAGIC,
        XFS_SUPER_MAGIC,
        BTRFS_SUPER_MAGIC,
        F2FS_SUPER_MAGIC,
        ZFS_SUPER_MAGIC,
        OVERLAYFS_SUPER_MAGIC,
        TMPFS_MAGIC,
    ];
    let system = uninterrupted(|| fstatfs(&directory))?;
    Ok(local.contains(&system.filesystem_type()))
}

/// By which a change of the directory is noticed. Anybody can set the time of modification, as we do and as those who
/// restore backups do; nobody the time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    pub(crate) fn of(directory: impl AsFd) -> io::Result<Self> {
        Ok(Self::read(&fstat(directory)?))
    }

    pub(crate) fn of_path(directory: &Path) -> io::Result<Self> {
        Ok(Self::read(&stat(directory)?))
    }

    fn read(found: &FileStat) -> Self {
        Self {
            device: found.st_dev,
            inode: found.st_ino,
            modified: (found.st_mtime, found.st_mtime_nsec),
            changed: (found.st_ctime, found.st_ctime_nsec),
        }
    }

    pub(crate) fn is_same_directory(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// What is recorded of a sealed directory.
    fn seal(&self, boot: u64) -> [u8; 56] {
        let times = [self.modified.0, self.modified.1, self.changed.0, self.changed.1].map(i64::cast_unsigned);
        let [modified, modified_part, changed, changed_part] = times;
        let numbers = [self.device, self.inode, modified, modified_part, changed, changed_part, boot];
        let mut bytes = [0; 56];
        bytes.copy_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
        bytes
    }
}

/// An address by its owner's hash.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnedAddress {
    hash: u64,
    address: IpAddr,
}

impl OwnedAddress {
    fn new(owner: &Owner, address: IpAddr) -> Self {
        Self { hash: Self::hash_of(owner), address }
    }

    fn hash_of(owner: &Owner) -> u64 {
        AttachmentId::stable_hash_of(&owner.container_id, owner.ifname.as_deref().unwrap_or_default())
    }
}

impl Record for OwnedAddress {
    const SIZE: usize = 32;

    fn hash(&self) -> u64 {
        self.hash
    }

    fn encode(&self) -> Vec<u8> {
        let (family, number) = split(self.address);
        let mut bytes = vec![family; 8];
        bytes.extend(self.hash.to_le_bytes());
        bytes.extend(number.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = u128::from_le_bytes(*bytes.get(16..)?.first_chunk()?);
        Some(Self { hash: u64_at(bytes, 8), address: join(*bytes.first()?, number)? })
    }
}

/// Which of 2048 addresses in a row are occupied.
#[derive(Debug)]
struct Chunk {
    key: (u8, u128),
    bitmap: Vec<u8>,
}

impl Chunk {
    const BITS: u32 = 11;
    const BYTES: usize = 1 << (Self::BITS - 3);

    /// The chunk that `address` lies in, with nothing occupied.
    fn empty(address: IpAddr) -> Self {
        let (family, number) = split(address);
        Self { key: (family, number >> Self::BITS), bitmap: vec![0; Self::BYTES] }
    }

    fn set(&mut self, address: IpAddr, occupied: bool) {
        let (byte, bit) = Self::place(address);
        if let Some(byte) = self.bitmap.get_mut(byte) {
            *byte = if occupied { *byte | bit } else { *byte & !bit };
        }
    }

    /// The first address from `address` on that is not occupied.
    fn first_free(&self, address: IpAddr) -> Option<IpAddr> {
        let (first_byte, first_bit) = Self::place(address);
        for (number, byte) in self.bitmap.iter().enumerate().skip(first_byte) {
            // What lies before the address does not count.
            let before = if number == first_byte { first_bit - 1 } else { 0 };
            let free = !(byte | before);
            if free != 0 {
                let offset = u128::try_from(number).ok()? * 8 + u128::from(free.trailing_zeros());
                return join(self.key.0, (self.key.1 << Self::BITS) + offset);
            }
        }
        None
    }

    /// The addresses that are occupied.
    fn occupied(&self) -> Vec<IpAddr> {
        let bits = self.bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
        let offsets = (0_u128..).zip(bits).filter(|(_, bit)| *bit == 1).map(|(offset, _)| offset);
        offsets.filter_map(|offset| join(self.key.0, (self.key.1 << Self::BITS) + offset)).collect()
    }

    /// How many addresses from `first` to `last` are occupied.
    fn count(&self, first: IpAddr, last: IpAddr) -> u64 {
        let ((family, first), (_, last)) = (split(first), split(last));
        let start = self.key.1 << Self::BITS;
        if self.key.0 != family || last < start || first > start + (1 << Self::BITS) - 1 {
            return 0;
        }
        let is_counted = |bit: &u128| (first..=last).contains(&(start + bit));
        let is_whole = first <= start && start + (1 << Self::BITS) - 1 <= last;
        if is_whole {
            return self.bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        }
        let bits = (0_u128..).zip(self.bitmap.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)));
        bits.filter(|(bit, _)| is_counted(bit)).map(|(_, bit)| u64::from(bit)).sum()
    }

    /// The first address behind the chunk.
    fn end(&self) -> Option<IpAddr> {
        let next = (self.key.1 + 1).checked_mul(1 << Self::BITS)?;
        join(self.key.0, next)
    }

    fn place(address: IpAddr) -> (usize, u8) {
        let (_, number) = split(address);
        let offset = usize::try_from(number % (1 << Self::BITS)).unwrap_or_default();
        (offset / 8, 1 << (offset % 8))
    }
}

impl Record for Chunk {
    const SIZE: usize = 24 + Self::BYTES;

    fn hash(&self) -> u64 {
        let (family, number) = self.key;
        let halves = [number & u128::from(u64::MAX), number >> 64];
        let [low, high] = halves.map(|half| u64::try_from(half).unwrap_or_default());
        (low ^ high.rotate_left(32) ^ u64::from(family)).wrapping_mul(0xff51_afd7_ed55_8ccd)
    }

    fn encode(&self) -> Vec<u8> {
        let (family, number) = self.key;
        let mut bytes = vec![family; 8];
        bytes.extend(number.to_le_bytes());
        bytes.extend(&self.bitmap);
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let family = *bytes.first()?;
        let number = u128::from_le_bytes(*bytes.get(8..)?.first_chunk()?);
        (family != 0).then_some(Self { key: (family, number), bitmap: bytes.get(24..)?.to_vec() })
    }
}

/// The family and the number of an address.
fn split(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(ip) => (4, ip.to_bits().into()),
        IpAddr::V6(ip) => (6, ip.to_bits()),
    }
}

fn join(family: u8, number: u128) -> Option<IpAddr> {
    match family {
        4 => u32::try_from(number).ok().map(|number| IpAddr::V4(number.into())),
        6 => Some(IpAddr::V6(number.into())),
        _ => None,
    }
}
