//! The plugin's commands.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use multus_cni::{
    Attachment, AttachmentId, ErrorCode, Invocation, IpConfig, NetworkName, Pending, Plugin, Provisional, Success,
};

use crate::{
    Allocation, AttachmentLock, Boot, Config, DiskStore, Error, MemoryStore, Range, RangeSet, Request, Stage, Store,
    Usage,
    allocator::{allocate, collect, is_exhausted, release, usage},
    resolv_conf,
};

/// The host-local IPAM plugin.
#[derive(Clone, Default)]
pub struct HostLocal {
    given: Option<Arc<dyn Store>>,
    /// Those on disk that were used; the next call finds their indexes open.
    opened: Arc<Mutex<HashMap<Place, Arc<dyn Store>>>>,
}

/// What tells one store on disk from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    data_dir: PathBuf,
    durable: bool,
    machine_id: PathBuf,
}

impl Place {
    fn of(invocation: &Invocation) -> Result<Self, Error> {
        Ok(Self {
            data_dir: invocation.on_host(&Config::data_dir(&invocation.config)?),
            durable: Config::is_durable(&invocation.config),
            machine_id: invocation.on_host(Path::new(Boot::MACHINE_ID)),
        })
    }
}

/// The ranges of a network, and where its reservations are.
#[derive(Clone, Debug)]
pub struct Watched {
    place: Place,
    network: NetworkName,
    ranges: Vec<Range>,
}

/// How many stores stay open: configurations name them, and each holds descriptors.
const MOST_OPENED: usize = 16;

impl HostLocal {
    /// The plugin with its reservations on disk, in the directory that each configuration names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The plugin with its reservations in `store`, whatever `dataDir` says.
    #[must_use]
    pub fn with_store(store: Arc<dyn Store>) -> Self {
        Self { given: Some(store), ..Self::default() }
    }

    /// The plugin with reservations that end with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with_store(Arc::new(MemoryStore::new()))
    }

    /// What the invocation's configuration gives addresses from, to be asked for its [usage](Self::usage). It has little of
    /// the configuration, however long that is: no more than `most` ranges.
    ///
    /// # Errors
    /// When the configuration is malformed.
    pub fn watched(&self, invocation: &Invocation, most: usize) -> Result<Watched, Error> {
        let ranges = Config::parse(invocation)?.sets;
        let ranges = ranges.iter().flat_map(RangeSet::ranges).take(most).copied().collect();
        Ok(Watched { place: Place::of(invocation)?, network: invocation.config.name().clone(), ranges })
    }

    /// How much of each of these ranges is used, in the order in which they are written.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn usage(&self, watched: &Watched) -> Result<Vec<(Range, Usage)>, Error> {
        let store = self.store_at(watched.place.clone())?;
        let mut reservations = store.lock_existing(&watched.network)?;
        let mut usage_of = |range: &Range| match &mut reservations {
            Some(reservations) => usage(&mut **reservations, range),
            // Nothing has been reserved yet.
            None => Ok(Usage::of(range, 0, false)),
        };
        watched.ranges.iter().map(|range| Ok((*range, usage_of(range)?))).collect()
    }

    fn store(&self, invocation: &Invocation) -> Result<Arc<dyn Store>, Error> {
        self.store_at(Place::of(invocation)?)
    }

    fn store_at(&self, place: Place) -> Result<Arc<dyn Store>, Error> {
        if let Some(store) = &self.given {
            return Ok(Arc::clone(store));
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.len() >= MOST_OPENED && !opened.contains_key(&place) {
            opened.clear();
        }
        let store: &mut Arc<dyn Store> = match opened.entry(place) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Place { data_dir, durable, machine_id } = new.key();
                let store = DiskStore::in_boot(data_dir, Boot::current(machine_id)?).durable(*durable);
                new.insert(Arc::new(store))
            }
        };
        Ok(Arc::clone(store))
    }

    fn reserve(&self, owner: &AttachmentId, invocation: &Invocation) -> Result<Pending, Error> {
        let config = Config::parse(invocation)?;
        let mut success = Success { routes: config.routes, ..Success::default() };
        if let Some(path) = config.resolv_conf {
            let read = resolv_conf::read(&invocation.on_host(&path));
            success.dns = read.map_err(|source| Error::ResolvConf { path, source })?;
        }
        let store = self.store(invocation)?;
        let network = invocation.config.name().clone();
        let lock = store.lock_attachment(&network, owner)?;
        let request = Request { owner, sets: &config.sets, wanted: &config.wanted, stage: Stage::Unfinished };
        let allocated = allocate(&mut *store.lock(&network)?, &request)?;
        let ip = |allocation: &Allocation| IpConfig {
            address: allocation.address,
            gateway: Some(allocation.gateway),
            interface: None,
        };
        success.ips = allocated.iter().map(ip).collect();
        Ok(Pending::new(success, Reserved { store, network, owner: owner.clone(), allocated, _lock: lock }))
    }

    fn release(
        &self,
        owner: &AttachmentId,
        invocation: &Invocation,
        delete_interface: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let network = invocation.config.name();
        let turn = self
            .store(invocation)
            .and_then(|store| Ok(store.lock_existing_attachment(network, owner)?.map(|lock| (store, lock))));
        delete_interface();
        let Some((store, _lock)) = turn? else {
            return Ok(());
        };
        match store.lock_existing(network)? {
            Some(mut reservations) => Ok(reservations.release_all(owner)?),
            None => Ok(()),
        }
    }

    fn verify(&self, owner: &AttachmentId, invocation: &Invocation) -> Result<(), Error> {
        let config = Config::parse(invocation)?;
        let store = self.store(invocation)?;
        let held = match store.lock_existing(invocation.config.name())? {
            Some(mut reservations) => reservations.held_by(owner)?,
            None => Vec::new(),
        };
        if held.is_empty() {
            return Err(Error::NotReserved(owner.container_id.clone()));
        }
        let previous = invocation.config.previous_result()?.unwrap_or_default();
        let ours = |address| config.sets.iter().any(|set| set.containing(address).is_some());
        let told = previous.ips.iter().map(|ip| ip.address.address()).filter(|address| ours(*address));
        match told.into_iter().find(|address| !held.contains(address)) {
            None => Ok(()),
            Some(address) => {
                let AttachmentId { container_id, ifname } = owner.clone();
                Err(Error::NotReservedAddress { address, container_id, ifname })
            }
        }
    }

    fn first_exhausted_set(&self, invocation: &Invocation) -> Result<Option<String>, Error> {
        let config = Config::parse(invocation)?;
        let store = self.store(invocation)?;
        let Some(mut reservations) = store.lock_existing(invocation.config.name())? else {
            return Ok(None);
        };
        for set in &config.sets {
            if is_exhausted(&mut *reservations, set)? {
                return Ok(Some(set.to_string()));
            }
        }
        Ok(None)
    }
}

impl Plugin for HostLocal {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, multus_cni::Error> {
        Ok(self.reserve(&attachment.id(), invocation)?)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        Ok(self.release(&attachment.id(), invocation, &mut || ())?)
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        Ok(self.verify(&attachment.id(), invocation)?)
    }

    fn status(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        match self.first_exhausted_set(invocation)? {
            None => Ok(()),
            Some(set) => Err(multus_cni::Error::from_plugin(ErrorCode::NotAvailable, Error::Exhausted(set))),
        }
    }

    /// The interface goes first, so that no address is free while something has it; and in the attachment's turn, so that
    /// it is not one that an ADD makes meanwhile.
    fn del_with_interface(
        &self,
        attachment: &Attachment,
        invocation: &Invocation,
        delete_interface: &mut dyn FnMut(),
    ) -> Result<(), multus_cni::Error> {
        Ok(self.release(&attachment.id(), invocation, delete_interface)?)
    }

    fn serializes_attachments(&self) -> bool {
        true
    }

    fn gc(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        let Some(valid) = invocation.config.valid_attachments()? else {
            return Ok(());
        };
        let store = self.store(invocation)?;
        let Some(mut reservations) = store.lock_existing(invocation.config.name()).map_err(Error::from)? else {
            return Ok(());
        };
        Ok(collect(&mut *reservations, &valid).map_err(Error::from)?)
    }
}

/// What an ADD has reserved, and the turn it has for that.
struct Reserved {
    store: Arc<dyn Store>,
    network: NetworkName,
    owner: AttachmentId,
    allocated: Vec<Allocation>,
    _lock: AttachmentLock,
}

impl Provisional for Reserved {
    fn keep(self: Box<Self>) {
        let addresses: Vec<IpAddr> = self.allocated.iter().map(|allocation| allocation.address.address()).collect();
        // The result is delivered, and the address reserved: without the note, only a second ADD would not be refused.
        let _unnoted = self.store.finish(&self.network, &addresses);
    }

    fn undo(self: Box<Self>) -> Result<(), multus_cni::Error> {
        let mut reservations = self.store.lock(&self.network).map_err(Error::from)?;
        Ok(release(&mut *reservations, &self.owner, &self.allocated).map_err(Error::from)?)
    }
}

impl std::fmt::Debug for HostLocal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = if self.given.is_some() { "given" } else { "on disk" };
        formatter.debug_struct("HostLocal").field("store", &store).finish()
    }
}
