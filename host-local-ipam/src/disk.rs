//! Reservations as files, in the format of the Go plugin.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use multus_cni::{AttachmentId, ByteLock, NetworkName, make_directory, must_be_guarded, must_be_guarded_or_sticky};
use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};
use rustix::fs::{XattrFlags, lsetxattr};

use crate::{
    AttachmentLock, Boot, Reservations, Stage, Store, StoreError,
    index::{Index, State, has_current_times},
    lock::NetworkLock,
    standing::record,
    uninterrupted::open,
};

mod network;

use network::{Hint, Network};

/// Reservations in a directory: one sub-directory for each network, one file for each address.
#[derive(Debug)]
pub struct DiskStore {
    data_dir: PathBuf,
    durable: bool,
    boot: Option<Boot>,
    /// The networks that nobody has locked, as they were left, so that a store that is used again need not open them again.
    idle: Mutex<HashMap<NetworkName, Idle>>,
}

/// A network as it was when it was last unlocked.
#[derive(Debug)]
struct Idle {
    directory: Arc<OwnedFd>,
    lock: Arc<NetworkLock>,
    index: Option<Index>,
    last_reserved: Vec<LastReserved>,
    /// The directory as it was last looked at.
    seen: State,
}

impl Idle {
    /// The directory as it is, if directory and lock are those that everybody else finds.
    fn is_it(&self, path: &Path) -> Option<State> {
        State::of_path(path).ok().filter(|seen| seen.is_same_directory(&self.seen) && self.lock.is_linked())
    }
}

/// Where, beside the networks, everything is that the Go plugin does not know of: a name that no network can have.
const OURS: &str = ".host-local";

/// Of a network whose files of ours have its name: what file systems take, without the longest ending.
const LONGEST_NAME: usize = 255 - ".attachments".len();

/// The extended attribute of a reservation that holds its record. It comes and goes with the file, and the Go plugin never
/// sees it.
const RECORD: &str = "user.host-local";

/// The file with the address last reserved from a set.
#[derive(Debug)]
struct LastReserved {
    set: usize,
    file: File,
    /// Of its text; 0 until that is read under this lock, since others may have written another, or another file.
    length: usize,
}

fn last_reserved_name(set: usize) -> String {
    format!("last_reserved_ip.{set}")
}

/// How many networks stay open, with three descriptors each, and one for each range set.
const MOST_IDLE: usize = 64;

impl DiskStore {
    /// Where the plugin keeps reservations unless told otherwise.
    pub const DEFAULT_DATA_DIR: &'static str = "/var/lib/cni/networks";

    /// The store in `data_dir`, which is made when it is first needed; in this boot of this machine.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self::in_boot(data_dir, Boot::current(Path::new(Boot::MACHINE_ID)).ok().flatten())
    }

    /// The store in `data_dir`, which is made when it is first needed. Where the boot is not known, nothing is recorded of
    /// reservations, and there is no index of them.
    #[must_use]
    pub fn in_boot(data_dir: impl Into<PathBuf>, boot: Option<Boot>) -> Self {
        Self { data_dir: data_dir.into(), durable: false, boot, idle: Mutex::default() }
    }

    /// Has every reservation reach the disk before it is given, so that it survives a loss of power.
    #[must_use]
    pub fn durable(self, durable: bool) -> Self {
        Self { durable, ..self }
    }

    /// Whether other machines may be using the directory too, as on NFS. Of reservations in it that nobody
    /// [recorded](crate::Standing::Unrecorded), it is not known whose machine they are of.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        File::open(&self.data_dir).and_then(has_current_times).map_or(true, |current| !current)
    }

    fn open(&self, network: &NetworkName, make: bool) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        let path = self.data_dir.join(network.as_str());
        self.must_be_guarded()?;
        must_be_guarded(&path).map_err(failed("open", &path))?;
        if let Some(reopened) = self.reopen(network, &path)? {
            return Ok(Some(Box::new(reopened)));
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let directory = match open(&path, flags, Mode::empty()) {
                Err(Errno::ENOENT) if make => {
                    self.make_directory(&path).map_err(failed("mkdir", &path))?;
                    open(&path, flags, Mode::empty())
                }
                Err(Errno::ENOENT) => return Ok(None),
                other => other,
            };
            let directory = Arc::new(directory.map_err(|error| failed("open", &path)(error.into()))?);
            let lock = Arc::new(NetworkLock::acquire(&*directory).map_err(failed("open", &path.join("lock")))?);
            let seen = State::of(&directory).map_err(failed("stat", &path))?;
            let opened = Idle { directory, lock, index: None, last_reserved: Vec::new(), seen };
            // Somebody may have removed them while this one waited: then others find other ones. But some file systems count
            // no links.
            if opened.is_it(&path).is_some() || attempts == 3 {
                return Ok(Some(Box::new(self.locked(network, path, opened))));
            }
        }
    }

    /// The network as it was left, unless its directory or its lock has been replaced since.
    fn reopen(&self, network: &NetworkName, path: &Path) -> Result<Option<Network<'_>>, StoreError> {
        let Some(idle) = self.idle().remove(network) else {
            return Ok(None);
        };
        idle.lock.acquire_again().map_err(failed("open", &path.join("lock")))?;
        let seen = idle.is_it(path);
        Ok(seen.map(|seen| self.locked(network, path.to_owned(), Idle { seen, ..idle })))
    }

    fn locked(&self, network: &NetworkName, path: PathBuf, opened: Idle) -> Network<'_> {
        let Idle { directory, lock, index, last_reserved, seen } = opened;
        let hint = Hint::Unopened(index);
        Network { store: self, name: network.clone(), path, directory, hint, last_reserved, seen, lock }
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        make_directory(path, 0o755)?;
        if self.durable {
            for above in path.ancestors().skip(1).take(2) {
                File::open(above)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// A file of ours for a network.
    fn ours(&self, network: &NetworkName, ending: &str) -> PathBuf {
        let name = match network.as_str() {
            // There is no room for the ending. No network's name begins with a dot.
            long if long.len() > LONGEST_NAME => format!(".{:016x}", AttachmentId::stable_hash_of(long, "")),
            name => name.to_owned(),
        };
        self.data_dir.join(OURS).join(format!("{name}.{ending}"))
    }

    /// Networks in it are looked at themselves.
    fn must_be_guarded(&self) -> Result<(), StoreError> {
        must_be_guarded_or_sticky(&self.data_dir).map_err(failed("open", &self.data_dir))?;
        let ours = self.data_dir.join(OURS);
        must_be_guarded(&ours).map_err(failed("open", &ours))
    }

    fn make_ours(&self) -> io::Result<()> {
        make_directory(&self.data_dir, 0o755)?;
        make_directory(&self.data_dir.join(OURS), 0o700)
    }

    fn idle(&self) -> MutexGuard<'_, HashMap<NetworkName, Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(
        &self,
        network: &NetworkName,
        address: IpAddr,
        stage: Stage,
        flags: XattrFlags,
    ) -> Result<(), StoreError> {
        let Some(boot) = self.boot else {
            return Ok(());
        };
        let path = self.data_dir.join(network.as_str()).join(address.to_string());
        match lsetxattr(&path, RECORD, record(boot, stage).as_bytes(), flags) {
            // There is none to replace: another program's reservation, or none any more.
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOENT | rustix::io::Errno::NOTSUP) => Ok(()),
            Err(error) => Err(failed("setxattr", &path)(error.into())),
        }
    }
}

impl Store for DiskStore {
    fn lock(&self, network: &NetworkName) -> Result<Box<dyn Reservations + '_>, StoreError> {
        let gone = || failed("open", &self.data_dir.join(network.as_str()))(io::ErrorKind::NotFound.into());
        self.open(network, true)?.ok_or_else(gone)
    }

    fn lock_existing(&self, network: &NetworkName) -> Result<Option<Box<dyn Reservations + '_>>, StoreError> {
        self.open(network, false)
    }

    fn lock_attachment(&self, network: &NetworkName, attachment: &AttachmentId) -> Result<AttachmentLock, StoreError> {
        self.must_be_guarded()?;
        let file = self.ours(network, "attachments");
        let locked = match ByteLock::acquire(&file, attachment.stable_hash()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_ours().and_then(|()| ByteLock::acquire(&file, attachment.stable_hash()))
            }
            // Nobody can reserve there.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => return Ok(AttachmentLock::new(())),
            other => other,
        };
        locked.map(AttachmentLock::new).map_err(failed("lock", &file))
    }

    fn lock_existing_attachment(
        &self,
        network: &NetworkName,
        attachment: &AttachmentId,
    ) -> Result<Option<AttachmentLock>, StoreError> {
        let path = self.data_dir.join(network.as_str());
        match fs::metadata(&path) {
            Ok(_) => match self.lock_attachment(network, attachment) {
                // Nobody ever had a lock, or can: a full disk must not keep anybody from releasing.
                Err(error)
                    if matches!(error.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
                {
                    Ok(Some(AttachmentLock::new(())))
                }
                other => other.map(Some),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("stat", &path)(error)),
        }
    }

    fn finish(&self, network: &NetworkName, addresses: &[IpAddr]) -> Result<(), StoreError> {
        addresses.iter().try_for_each(|address| self.record(network, *address, Stage::Finished, XattrFlags::REPLACE))
    }

    fn networks(&self) -> Result<Vec<NetworkName>, StoreError> {
        let entries = match fs::read_dir(&self.data_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(failed("read", &self.data_dir))?,
        };
        let mut networks: Vec<NetworkName> = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed("read", &self.data_dir))?;
            let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
            networks.extend(name.filter(|_| entry.path().is_dir()));
        }
        networks.sort();
        Ok(networks)
    }
}

/// The outcome of removing what may be gone.
pub(crate) fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError { attempt, path, source }
}
