//! The plugin's commands.

use std::sync::Arc;

use multus_cni::{Attachment, AttachmentId, ErrorCode, Invocation, IpConfig, Pending, Plugin, Success};

use crate::{
    Allocation, Config, DiskStore, Error, MemoryStore, Request, Store,
    allocator::{allocate, collect, is_exhausted, release},
    resolv_conf,
};

/// The host-local IPAM plugin.
#[derive(Clone, Default)]
pub struct HostLocal {
    store: Option<Arc<dyn Store>>,
}

impl HostLocal {
    /// The plugin with its reservations on disk, in the directory that each configuration names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The plugin with its reservations in `store`, whatever `dataDir` says.
    #[must_use]
    pub fn with_store(store: Arc<dyn Store>) -> Self {
        Self { store: Some(store) }
    }

    /// The plugin with reservations that end with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with_store(Arc::new(MemoryStore::new()))
    }

    fn store(&self, invocation: &Invocation) -> Result<Arc<dyn Store>, Error> {
        if let Some(store) = &self.store {
            return Ok(Arc::clone(store));
        }
        let data_dir = Config::data_dir(&invocation.config)?;
        Ok(Arc::new(DiskStore::new(invocation.on_host(&data_dir))))
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
        let request = Request { owner, sets: &config.sets, wanted: &config.wanted };
        let allocated = allocate(&mut *store.lock(&network)?, &request)?;
        let ip = |allocation: &Allocation| IpConfig {
            address: allocation.address,
            gateway: Some(allocation.gateway),
            interface: None,
        };
        success.ips = allocated.iter().map(ip).collect();
        let owner = owner.clone();
        let undo = move || {
            let mut reservations = store.lock(&network).map_err(Error::from)?;
            release(&mut *reservations, &owner, &allocated).map_err(|error| Error::from(error).into())
        };
        Ok(Pending::new(success, undo))
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
        let store = self.store(invocation)?;
        let Some(mut reservations) = store.lock_existing(invocation.config.name()).map_err(Error::from)? else {
            return Ok(());
        };
        Ok(reservations.release_all(&attachment.id()).map_err(Error::from)?)
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

    fn releases_through_interface(&self) -> bool {
        false
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

impl std::fmt::Debug for HostLocal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let store = if self.store.is_some() { "given" } else { "on disk" };
        formatter.debug_struct("HostLocal").field("store", &store).finish()
    }
}
