//! ADDs that die, machines that start anew, other machines, and a Go plugin beside: random sequences of all that, and the
//! stores must do what the model finds possible.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    fs,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use host_local_ipam::{Boot, Config, DiskStore, HostLocal, MemoryStore, Request, Stage, Standing, Store, allocate};
use multus_cni::{Attachment, AttachmentId, Invocation, NetworkConfig, NetworkName, Plugin};
use proptest::prelude::*;
use tempfile::TempDir;

use sequence::{Answer, End, Host, NETWORK, Program, Record, Reservation, Reservations, events, follow, tries};

mod sequence;

#[test]
fn on_disk_no_address_is_lost_or_given_twice_whatever_dies() {
    let tried = AtomicU32::new(0);
    proptest!(config(5_000), |(events in events(false, 4..24), shared: bool, durable in prop::bool::weighted(0.02))| {
        tried.fetch_add(1, Ordering::Relaxed);
        follow(&mut Disk::new(shared, durable), &events)?;
    });
    println!("{} sequences on disk", tried.into_inner());
}

#[test]
fn in_memory_no_address_is_lost_or_given_twice_whatever_dies() {
    let tried = AtomicU32::new(0);
    proptest!(config(5_000), |(events in events(true, 4..24))| {
        tried.fetch_add(1, Ordering::Relaxed);
        follow(&mut Memory { store: Arc::new(MemoryStore::new()), now: None }, &events)?;
    });
    println!("{} sequences in memory", tried.into_inner());
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases: tries(cases), failure_persistence: None, ..ProptestConfig::default() }
}

/// The store in a directory. Beside it the Go plugin, as far as it is seen there: it makes files and removes them.
struct Disk {
    directory: TempDir,
    now: Option<Boot>,
    durable: bool,
    /// The one of a process that lives on, or none where each call is a process of its own.
    shared: Option<(Boot, Arc<dyn Store>)>,
    is_shared: bool,
}

impl Disk {
    fn new(is_shared: bool, durable: bool) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), now: None, durable, shared: None, is_shared }
    }

    fn store(&mut self) -> Arc<dyn Store> {
        let now = self.now.unwrap();
        if let Some((_, store)) = self.shared.as_ref().filter(|(boot, _)| *boot == now) {
            return Arc::clone(store);
        }
        let store: Arc<dyn Store> = Arc::new(DiskStore::in_boot(self.directory.path(), self.now).durable(self.durable));
        self.shared = self.is_shared.then(|| (now, Arc::clone(&store)));
        store
    }
}

impl Host for Disk {
    fn add(&mut self, program: Program, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Option<Answer> {
        if program == Program::Ours {
            return Some(add(&self.store(), owner, wanted, end));
        }
        // The lock is free, and nobody is in the way: it takes the first address of each set.
        fs::create_dir_all(self.directory.path().join(NETWORK)).unwrap();
        Some(go_add(&self.directory.path().join(NETWORK), owner, wanted))
    }

    fn del(&mut self, program: Program, owner: &AttachmentId) -> Result<(), String> {
        if program == Program::Ours {
            return del(&self.store(), owner);
        }
        go_release(&self.directory.path().join(NETWORK), owner);
        Ok(())
    }

    fn check(&mut self, _program: Program, owner: &AttachmentId) -> Result<(), String> {
        check(&self.store(), owner)
    }

    fn gc(&mut self, valid: &[AttachmentId]) -> Result<(), String> {
        gc(&self.store(), valid)
    }

    fn enter(&mut self, boot: Boot) {
        self.now = Some(boot);
    }

    fn reservations(&self) -> Reservations {
        sequence::files(self.directory.path())
    }

    fn data_dir(&self) -> Option<&Path> {
        Some(self.directory.path())
    }
}

/// The store in memory.
struct Memory {
    store: Arc<dyn Store>,
    now: Option<Boot>,
}

impl Host for Memory {
    fn add(&mut self, _program: Program, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Option<Answer> {
        Some(add(&self.store, owner, wanted, end))
    }

    fn del(&mut self, _program: Program, owner: &AttachmentId) -> Result<(), String> {
        del(&self.store, owner)
    }

    fn check(&mut self, _program: Program, owner: &AttachmentId) -> Result<(), String> {
        check(&self.store, owner)
    }

    fn gc(&mut self, valid: &[AttachmentId]) -> Result<(), String> {
        gc(&self.store, valid)
    }

    fn enter(&mut self, boot: Boot) {
        self.now = Some(boot);
    }

    fn reservations(&self) -> Reservations {
        let mut locked = self.store.lock(&network()).unwrap();
        let mut reservations = Reservations::new();
        for one in locked.all().unwrap() {
            let finished = locked.standing(one.address).unwrap() == Standing::Finished;
            let record = Some(Record { boot: self.now.unwrap(), finished });
            let content = sequence::content(&one.owner.attachment());
            reservations.insert(one.address, Reservation { content, record });
        }
        reservations
    }

    fn data_dir(&self) -> Option<&Path> {
        None
    }
}

fn add(store: &Arc<dyn Store>, owner: &AttachmentId, wanted: Option<IpAddr>, end: End) -> Answer {
    let mut invocation = invocation("");
    invocation.args = wanted.map(|wanted| format!("IP={wanted}")).unwrap_or_default();
    if end == End::Died {
        // What a dead process leaves: its locks end, and nobody keeps or undoes.
        let config = Config::parse(&invocation).unwrap();
        let _lock = store.lock_attachment(&network(), owner).unwrap();
        let request = Request { owner, sets: &config.sets, wanted: &config.wanted, stage: Stage::Unfinished };
        let allocated = allocate(&mut *store.lock(&network()).unwrap(), &request);
        let given = allocated.map_err(|error| error.to_string())?;
        return Ok(given.iter().map(|one| one.address.address()).collect());
    }
    let pending = plugin(store).add(&attachment(owner), &invocation).map_err(|error| error.to_string())?;
    let given = pending.success().ips.iter().map(|ip| ip.address.address()).collect();
    match end {
        End::Undone => pending.undo().unwrap(),
        End::Delivered | End::Died => drop(pending.keep()),
    }
    Ok(given)
}

fn del(store: &Arc<dyn Store>, owner: &AttachmentId) -> Result<(), String> {
    plugin(store).del(&attachment(owner), &invocation("")).map_err(|error| error.to_string())
}

fn check(store: &Arc<dyn Store>, owner: &AttachmentId) -> Result<(), String> {
    plugin(store).check(&attachment(owner), &invocation("")).map_err(|error| error.to_string())
}

fn gc(store: &Arc<dyn Store>, valid: &[AttachmentId]) -> Result<(), String> {
    let listed =
        |one: &AttachmentId| format!(r#"{{"containerID": "{}", "ifname": "{}"}}"#, one.container_id, one.ifname);
    let listed: Vec<String> = valid.iter().map(listed).collect();
    let valid = format!(r#", "cni.dev/valid-attachments": [{}]"#, listed.join(", "));
    plugin(store).gc(&invocation(&valid)).map_err(|error| error.to_string())
}

fn plugin(store: &Arc<dyn Store>) -> HostLocal {
    HostLocal::with_store(Arc::clone(store))
}

fn network() -> NetworkName {
    NETWORK.parse().unwrap()
}

fn attachment(owner: &AttachmentId) -> Attachment {
    Attachment {
        container_id: owner.container_id.parse().unwrap(),
        ifname: owner.ifname.parse().unwrap(),
        netns: Some("/run/netns/c1".into()),
    }
}

fn invocation(more: &str) -> Invocation {
    let ranges = sequence::ranges();
    let config = format!(
        r#"{{"cniVersion": "1.1.0", "name": "{NETWORK}", "ipam": {{"type": "host-local", "ranges": {ranges}}}{more}}}"#
    );
    Invocation::new(NetworkConfig::parse(config.into_bytes()).unwrap())
}

/// What an ADD of the Go plugin does to the files.
fn go_add(directory: &Path, owner: &AttachmentId, wanted: Option<IpAddr>) -> Answer {
    let mut given = Vec::new();
    for set in sequence::sets() {
        match go_take(directory, owner, &set, wanted.filter(|wanted| set.contains(wanted))) {
            Ok(address) => given.push(address),
            Err(reason) => {
                if !given.is_empty() {
                    go_release(directory, owner);
                }
                return Err(reason.to_owned());
            }
        }
    }
    Ok(given)
}

fn go_take(
    directory: &Path,
    owner: &AttachmentId,
    set: &[IpAddr],
    wanted: Option<IpAddr>,
) -> Result<IpAddr, &'static str> {
    let file = |address: &IpAddr| directory.join(address.to_string());
    let candidates: Vec<IpAddr> = match wanted {
        Some(wanted) if wanted == set[0] => return Err("is subnet's gateway"),
        Some(wanted) => vec![wanted],
        None => set[1..].to_vec(),
    };
    let content = sequence::content(owner);
    if wanted.is_none() && set.iter().any(|address| fs::read_to_string(file(address)).is_ok_and(|text| text == content))
    {
        return Err("duplicate allocation is not allowed");
    }
    let free = candidates.into_iter().find(|address| !file(address).exists());
    let taken =
        if wanted.is_some() { "is not available in range set" } else { "no IP addresses available in range set" };
    let address = free.ok_or(taken)?;
    fs::write(file(&address), content).unwrap();
    Ok(address)
}

fn go_release(directory: &Path, owner: &AttachmentId) {
    for (address, reservation) in sequence::files(directory.parent().unwrap()) {
        if reservation.content == sequence::content(owner) {
            fs::remove_file(directory.join(address.to_string())).unwrap();
        }
    }
}
