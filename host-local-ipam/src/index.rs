//! A hint of who has which address, so that no reservation needs to be read to find one.
//!
//! The reservation files are the truth. Beside them, outside of the directory that the Go plugin reads, two tables are
//! kept: addresses by their owner, and occupied addresses as bitmaps. Whatever is wrong with them, they are made anew from
//! the files.
//!
//! They count only while nobody else has changed the directory. To notice that even within one tick of the clock, the
//! directory is *sealed* after each change of ours: it gets a modification time with random nanoseconds, which the index
//! records with the time of its last change. Any change by others gives it others. A seal is good for one boot, since what reached the disk when the
//! power failed need not fit together.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    hash::{BuildHasher, RandomState},
    io,
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use multus_cni::AttachmentId;
use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        statfs::{FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, statfs},
        time::TimeSpec,
    },
};

use crate::{Owner, disk::absent_is_fine};

mod table;

use table::{Record, Table};

/// What is known of one network.
#[derive(Debug)]
pub(crate) struct Index {
    owners: Table<OwnedAddress>,
    occupied: Table<Chunk>,
    seal: File,
    boot: Vec<u8>,
    /// The directory after our last look at it, or change of it.
    seen: State,
    changed: bool,
}

/// Changes with the format, so that no version trusts another's.
const VERSION: &[u8] = b"host-local index 1\n";

impl Index {
    /// Opens the index of a network that is locked, if it is sealed; `None` when it must be [built](Self::build).
    pub(crate) fn open(directory: &Path) -> io::Result<Option<Self>> {
        let place = place(directory)?;
        let seal = match OpenOptions::new().read(true).write(true).open(place.with_extension("seal")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let boot = boot()?;
        let seen = State::of(directory)?;
        let expected = seen.seal(&boot);
        let mut recorded = vec![0; expected.len()];
        if seal.read_at(&mut recorded, 0)? < recorded.len() || recorded != expected {
            return Ok(None);
        }
        let owners = Table::open(place.with_extension("owners"))?;
        let occupied = Table::open(place.with_extension("occupied"))?;
        Ok(owners.zip(occupied).map(|(owners, occupied)| Self { owners, occupied, seal, boot, seen, changed: false }))
    }

    /// Makes the index of a network that is locked: from the owners of its reservations, and from all its addresses that
    /// are taken, by whatever. The directory was in the state `seen` before these were read.
    pub(crate) fn build(
        directory: &Path,
        seen: State,
        owners: &[(Owner, IpAddr)],
        taken: &[IpAddr],
    ) -> io::Result<Self> {
        let boot = boot()?;
        let place = place(directory)?;
        DirBuilder::new().recursive(true).mode(0o700).create(place.parent().unwrap_or(directory))?;
        // From here on nothing is sealed until it is whole.
        let place_of_seal = place.with_extension("seal");
        absent_is_fine(fs::remove_file(&place_of_seal))?;
        let seal = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(place_of_seal)?;
        let owned = owners.iter().map(|(owner, address)| OwnedAddress::new(owner, *address));
        let owners = Table::create(place.with_extension("owners"), owned.collect())?;
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut addresses = taken.to_vec();
        addresses.sort_unstable();
        for address in addresses {
            let chunk = Chunk::empty(address);
            match chunks.last_mut() {
                Some(last) if last.key == chunk.key => last.set(address, true),
                _ => {
                    chunks.push(chunk);
                    if let Some(last) = chunks.last_mut() {
                        last.set(address, true);
                    }
                }
            }
        }
        let occupied = Table::create(place.with_extension("occupied"), chunks)?;
        Ok(Self { owners, occupied, seal, boot, seen, changed: true })
    }

    /// Has the index made anew next time.
    pub(crate) fn discard(directory: &Path) {
        // Where it cannot be removed it could not be written either.
        let _unsealed = place(directory).and_then(|place| fs::remove_file(place.with_extension("seal")));
    }

    /// The addresses that may belong to `owner`: its own, and perhaps others whose owner's hash is the same.
    pub(crate) fn addresses(&self, owner: &Owner) -> io::Result<Vec<IpAddr>> {
        let found = self.owners.find_all(OwnedAddress::hash_of(owner))?;
        Ok(found.into_iter().map(|owned| owned.address).collect())
    }

    /// The first address from `first` to `last` that is not occupied.
    pub(crate) fn next_free(&self, first: IpAddr, last: IpAddr) -> io::Result<Option<IpAddr>> {
        let mut candidate = first;
        while candidate <= last {
            let chunk = Chunk::empty(candidate);
            let Some(chunk) = self.occupied.find(chunk.hash(), |found| found.key == chunk.key)? else {
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

    /// Takes note of a reservation that was made; of one that nobody could have written, only that its address is taken.
    pub(crate) fn insert(&mut self, owner: Option<&Owner>, address: IpAddr) -> io::Result<()> {
        if let Some(owner) = owner {
            self.owners.replace(OwnedAddress::new(owner, address), |old, new| old == new)?;
        }
        self.occupy(address, true)
    }

    /// Takes note that a reservation has ended.
    pub(crate) fn remove(&mut self, owner: &Owner, address: IpAddr) -> io::Result<()> {
        let owned = OwnedAddress::new(owner, address);
        self.owners.remove(owned.hash, |found| *found == owned)?;
        self.occupy(address, false)
    }

    fn occupy(&mut self, address: IpAddr, taken: bool) -> io::Result<()> {
        let empty = Chunk::empty(address);
        let mut chunk = self.occupied.find(empty.hash(), |found| found.key == empty.key)?.unwrap_or(empty);
        chunk.set(address, taken);
        self.occupied.replace(chunk, |old, new| old.key == new.key)
    }

    /// Fails when the directory has been changed by somebody without the lock.
    pub(crate) fn confirm(&self, directory: &Path) -> io::Result<()> {
        if State::of(directory)? == self.seen { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Takes note that the directory has just been changed by us.
    pub(crate) fn changed(&mut self, directory: &Path) -> io::Result<()> {
        self.changed = true;
        self.seen = State::of(directory)?;
        Ok(())
    }

    /// Seals the directory, after the last change under this lock.
    pub(crate) fn seal(&mut self, directory: &Path) -> io::Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.confirm(directory)?;
        let seconds = self.seen.modified.0;
        let nanoseconds = i64::try_from(RandomState::new().hash_one(seconds) % 1_000_000_000).unwrap_or_default();
        let time = TimeSpec::new(seconds, nanoseconds);
        utimensat(AT_FDCWD, directory, &TimeSpec::UTIME_OMIT, &time, UtimensatFlags::FollowSymlink)?;
        let sealed = State::of(directory)?;
        // Where times are coarser, one of somebody else's might be the same.
        if sealed.modified == (seconds, nanoseconds) {
            self.seal.write_all_at(&sealed.seal(&self.boot), 0)?;
        }
        Ok(())
    }
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
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let found = fs::metadata(directory)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// What is recorded of a sealed directory.
    fn seal(&self, boot: &[u8]) -> Vec<u8> {
        let numbers = [self.device, self.inode].map(u64::to_le_bytes);
        let times = [self.modified.0, self.modified.1, self.changed.0, self.changed.1].map(i64::to_le_bytes);
        [VERSION, numbers.as_flattened(), times.as_flattened(), boot].concat()
    }
}

fn boot() -> io::Result<Vec<u8>> {
    fs::read("/proc/sys/kernel/random/boot_id")
}

/// Where the index of the network in `directory` is, without its ending: beside the networks, under a name that no network
/// can have. None where the times of a directory may be those of some seconds ago, which others have changed since.
fn place(directory: &Path) -> io::Result<PathBuf> {
    const V9FS_MAGIC: FsType = FsType(0x0102_1997);
    let system = statfs(directory)?.filesystem_type();
    if [NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, V9FS_MAGIC, FUSE_SUPER_MAGIC].contains(&system) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let (Some(data_dir), Some(network)) = (directory.parent(), directory.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let mut network = network.to_owned();
    // An ending of its own, so that none of the name's dots is taken for one.
    network.push(".index");
    Ok(data_dir.join(".index").join(network))
}

/// An address by its owner's hash.
#[derive(Debug, PartialEq, Eq)]
struct OwnedAddress {
    hash: u64,
    address: IpAddr,
}

impl OwnedAddress {
    fn new(owner: &Owner, address: IpAddr) -> Self {
        Self { hash: Self::hash_of(owner), address }
    }

    fn hash_of(owner: &Owner) -> u64 {
        let Owner { container_id, ifname } = owner.clone();
        AttachmentId { container_id, ifname: ifname.unwrap_or_default() }.stable_hash()
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
        Some(Self { hash: table::u64_at(bytes, 8), address: join(*bytes.first()?, number)? })
    }
}

/// Which of 4096 addresses in a row are occupied.
#[derive(Debug)]
struct Chunk {
    key: (u8, u128),
    bitmap: Vec<u8>,
}

impl Chunk {
    const BITS: u32 = 12;
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
