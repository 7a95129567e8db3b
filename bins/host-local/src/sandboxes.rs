//! Which sandboxes live, as the kernel tells.
//!
//! A sandbox lives if a process's cgroup has the container's ID in its path, or if a network namespace has the address:
//! that of any process, or one bound to a path in any process's mount namespace. It is gone only if everything could be
//! looked at and neither is so. Where in doubt, it is not known.
//!
//! An address of the host itself is no sign of a sandbox. It is no sign of the contrary either: freed, it would be given
//! to a sandbox while the host uses it. So then it is not known.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use host_local_ipam::Standing;
use multus_cni::os_error_text;
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
    sys::{
        stat::Mode,
        statfs::{NSFS_MAGIC, fstatfs},
    },
};
use serde::Serialize;

use crate::{progress::Progress, survey::Held};

/// Whether a sandbox lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Life {
    Lives,
    Gone,
    Unknown,
}

/// Whether a sandbox lives, and how that is known.
pub(crate) type Verdict = (Life, String);

/// What there is on the machine. To be looked at after the reservations: a sandbox of a reservation that is seen has then
/// been there to be seen.
pub(crate) struct Sandboxes {
    /// The paths of cgroups, each with one of its processes.
    cgroups: BTreeMap<String, u32>,
    /// The addresses outside of the host's own network namespace, and where they are.
    addresses: HashMap<IpAddr, String>,
    host: HashSet<IpAddr>,
    is_store_shared: bool,
    /// Why not everything could be looked at.
    obstacle: Option<String>,
}

/// The number of the machine's first PID namespace, on every kernel (`PROC_PID_INIT_INO`).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// How long after its reservation a sandbox may have no process and not even its address yet.
const YOUTH: Duration = Duration::from_secs(120);

impl Sandboxes {
    /// Looks at every process and every network namespace.
    pub(crate) fn scan(is_store_shared: bool, progress: &mut Progress<'_>) -> Self {
        let mut scan = Scan::default();
        match inode(Path::new("/proc/self/ns/pid")) {
            Ok(FIRST_PID_NAMESPACE) => {}
            _ => scan.obstacle("only processes of this PID namespace can be seen; run host-local on the host itself"),
        }
        let processes = processes().unwrap_or_else(|error| {
            scan.failed(Path::new("/proc"), &error);
            Vec::new()
        });
        for (done, process) in processes.iter().enumerate() {
            progress.show("processes", done, processes.len(), Instant::now());
            scan.process(*process);
        }
        scan.bound_namespaces();
        // The host's are those of its first process, or where nobody may look into that, of the kernel's threads.
        let host = [1, 2].into_iter().find_map(|process| inode(&namespace(process, "net")).ok());
        let mut sandboxes = Self {
            cgroups: scan.cgroups,
            addresses: HashMap::new(),
            host: HashSet::new(),
            is_store_shared,
            obstacle: scan.obstacle,
        };
        for (number, network) in scan.networks {
            if Some(number) == host {
                sandboxes.host.extend(network.addresses);
            } else {
                let place = |address| (address, network.place.clone());
                sandboxes.addresses.extend(network.addresses.into_iter().map(place));
            }
        }
        sandboxes
    }

    /// Whether the sandbox of a reservation lives.
    pub(crate) fn verdict(&self, held: &Held, now: SystemTime) -> Verdict {
        let (reservation, standing) = (&held.reservation, held.standing);
        if held.is_busy {
            return lives("an ADD or DEL of it is under way".to_owned());
        }
        if standing == Standing::EarlierBoot {
            return (Life::Gone, "reserved before this machine started".to_owned());
        }
        if let Some((_, process)) =
            self.cgroups.iter().find(|(path, _)| path.contains(reservation.owner.container_id.as_str()))
        {
            return lives(format!("process {process} is of the container"));
        }
        if let Some(place) = self.addresses.get(&reservation.address) {
            return lives(format!("the network namespace {place} has the address"));
        }
        if self.host.contains(&reservation.address) {
            return unknown("the host itself has the address");
        }
        match standing {
            Standing::OtherMachine => return unknown("reserved by another machine"),
            Standing::Unrecorded if self.is_store_shared => return unknown("other machines share the directory"),
            Standing::EarlierBoot | Standing::Finished | Standing::Unfinished | Standing::Unrecorded => {}
        }
        if held.age(now).is_none_or(|age| age < YOUTH) {
            return unknown("reserved too short a time ago");
        }
        match &self.obstacle {
            Some(obstacle) => unknown(obstacle),
            None => (Life::Gone, "no process is of the container and no network namespace has the address".to_owned()),
        }
    }
}

/// A sentence about those of which it is not known.
pub(crate) fn doubts<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Option<String> {
    let mut doubts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, why) in verdicts.filter(|(life, _)| *life == Life::Unknown) {
        *doubts.entry(why).or_default() += 1;
    }
    let total: usize = doubts.values().sum();
    let reasons: Vec<String> = doubts.iter().map(|(why, count)| format!("{why} ({count})")).collect();
    (total > 0).then(|| format!("not known whether the sandbox lives: {total}; {}", reasons.join("; ")))
}

fn lives(why: String) -> Verdict {
    (Life::Lives, why)
}

fn unknown(why: &str) -> Verdict {
    (Life::Unknown, why.to_owned())
}

/// What has been found so far.
#[derive(Default)]
struct Scan {
    cgroups: BTreeMap<String, u32>,
    /// The network namespaces that were entered.
    networks: HashMap<u64, Network>,
    mounts: HashSet<u64>,
    /// Where network namespaces are bound.
    bound: HashMap<u64, Vec<Bound>>,
    obstacle: Option<String>,
}

/// A network namespace, for those who look for it: of a process, or at a path.
struct Network {
    place: String,
    addresses: Vec<IpAddr>,
}

/// Where a network namespace is bound: as its own processes, and as this one, find it.
struct Bound {
    path: PathBuf,
    from_here: PathBuf,
}

impl Scan {
    fn process(&mut self, process: u32) {
        let cgroup = PathBuf::from(format!("/proc/{process}/cgroup"));
        match fs::read(&cgroup) {
            Ok(paths) => {
                let paths = String::from_utf8_lossy(&paths).into_owned();
                self.cgroups.entry(paths).or_insert(process);
            }
            Err(error) => self.failed(&cgroup, &error),
        }
        let looked = [("net", self.network(process)), ("mnt", self.mounts(process))];
        for (kind, looked) in looked {
            match looked {
                // Init's are the host's, which are those of the kernel's threads too.
                Err(error) if process == 1 && error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => self.failed(&namespace(process, kind), &error),
                Ok(()) => {}
            }
        }
    }

    fn network(&mut self, process: u32) -> io::Result<()> {
        let path = namespace(process, "net");
        let number = inode(&path)?;
        if self.networks.contains_key(&number) {
            return Ok(());
        }
        self.enter(&path, format!("of process {process}"))
    }

    fn mounts(&mut self, process: u32) -> io::Result<()> {
        let number = inode(&namespace(process, "mnt"))?;
        if self.mounts.contains(&number) {
            return Ok(());
        }
        let mounts = fs::read(format!("/proc/{process}/mountinfo"))?;
        self.mounts.insert(number);
        let root = PathBuf::from(format!("/proc/{process}/root"));
        for (number, path) in mounts.split(|byte| *byte == b'\n').filter_map(bound_network) {
            let from_here = root.join(path.strip_prefix("/").unwrap_or(&path));
            self.bound.entry(number).or_default().push(Bound { path, from_here });
        }
        Ok(())
    }

    /// Enters those that have no process.
    fn bound_namespaces(&mut self) {
        for (number, places) in std::mem::take(&mut self.bound) {
            let mut hidden = None;
            for Bound { path, from_here } in places {
                if self.networks.contains_key(&number) {
                    break;
                }
                // Another path may lead there; and one where there is no namespace any more has lost it meanwhile.
                match self.enter(&from_here, format!("at {}", path.display())) {
                    Err(error) if !is_gone(&error) && error.kind() != io::ErrorKind::InvalidInput => {
                        hidden = Some(path);
                    }
                    _ => {}
                }
            }
            if let Some(path) = hidden.filter(|_| !self.networks.contains_key(&number)) {
                self.obstacle(&format!("cannot look into the network namespace at {}", path.display()));
            }
        }
    }

    fn enter(&mut self, path: &Path, place: String) -> io::Result<()> {
        let namespace = open_namespace(path)?;
        let number = namespace.metadata()?.ino();
        self.networks.insert(number, Network { place, addresses: addresses_in(namespace)? });
        Ok(())
    }

    fn failed(&mut self, path: &Path, error: &io::Error) {
        if !is_gone(error) {
            let remedy = if error.kind() == io::ErrorKind::PermissionDenied { "; run host-local as root" } else { "" };
            self.obstacle(&format!("cannot look into {}: {}{remedy}", path.display(), os_error_text(error)));
        }
    }

    /// The first one is told.
    fn obstacle(&mut self, obstacle: &str) {
        self.obstacle.get_or_insert_with(|| obstacle.to_owned());
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn namespace(process: u32, kind: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/ns/{kind}"))
}

fn inode(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

fn processes() -> io::Result<Vec<u32>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        processes.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(processes)
}

/// The number of the network namespace that a line of mountinfo (proc(5)) says is bound, and to which path.
fn bound_network(line: &[u8]) -> Option<(u64, PathBuf)> {
    let mut words = line.split(|byte| *byte == b' ').skip(3);
    let root = std::str::from_utf8(words.next()?).ok()?;
    let number = root.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()?;
    Some((number, unescaped(words.next()?)))
}

/// Spaces and the like are octal numbers there.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = word;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Opens a namespace, and nothing else that a container may have put in its place: to open that might do something.
fn open_namespace(path: &Path) -> io::Result<File> {
    let place = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    if fstatfs(place.as_fd())?.filesystem_type() != NSFS_MAGIC {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// The addresses of a network namespace, on a thread that ends there.
fn addresses_in(namespace: File) -> io::Result<Vec<IpAddr>> {
    let look = move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let address = |storage: nix::sys::socket::SockaddrStorage| {
            let ipv4 = storage.as_sockaddr_in().map(|socket| IpAddr::V4(socket.ip()));
            ipv4.or_else(|| storage.as_sockaddr_in6().map(|socket| IpAddr::V6(socket.ip())))
        };
        Ok::<_, Errno>(getifaddrs()?.filter_map(|interface| interface.address.and_then(address)).collect())
    };
    let looked = thread::Builder::new().spawn(look)?.join();
    Ok(looked.map_err(|_| io::Error::from(io::ErrorKind::Other))??)
}

#[cfg(test)]
mod tests {
    use host_local_ipam::{Owner, Reservation};

    use super::*;

    fn held(address: &str, container: &str, standing: Standing, modified: SystemTime) -> Held {
        let owner = Owner { container_id: container.to_owned(), ifname: Some("net1".to_owned()) };
        let reservation = Reservation { address: address.parse().unwrap(), owner };
        let network = "storage".parse().unwrap();
        Held { network, reservation, standing, modified: Some(modified), is_busy: false }
    }

    #[test]
    fn only_what_leaves_no_doubt_is_gone() {
        let sandboxes = Sandboxes {
            cgroups: [("0::/kubepods/pod1/8f3a".to_owned(), 7)].into(),
            addresses: [("10.0.0.2".parse().unwrap(), "of process 8".to_owned())].into(),
            host: ["10.0.0.3".parse().unwrap()].into(),
            is_store_shared: false,
            obstacle: None,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let old = now - YOUTH;
        let life = |sandboxes: &Sandboxes, held: &Held| sandboxes.verdict(held, now).0;
        for (address, container, standing, modified, expected) in [
            ("10.0.0.9", "dead", Standing::Finished, old, Life::Gone),
            ("10.0.0.9", "dead", Standing::Unfinished, old, Life::Gone),
            ("10.0.0.9", "dead", Standing::Unrecorded, old, Life::Gone),
            ("10.0.0.9", "8f3a", Standing::Finished, old, Life::Lives),
            ("10.0.0.2", "dead", Standing::Finished, old, Life::Lives),
            ("10.0.0.2", "dead", Standing::OtherMachine, old, Life::Lives),
            // The host's address is not the sandbox's, but in use.
            ("10.0.0.3", "dead", Standing::Finished, old, Life::Unknown),
            ("10.0.0.9", "dead", Standing::OtherMachine, old, Life::Unknown),
            ("10.0.0.9", "dead", Standing::Finished, old + Duration::from_secs(1), Life::Unknown),
            // Somebody has set the clock.
            ("10.0.0.9", "dead", Standing::Finished, now + YOUTH, Life::Unknown),
            ("10.0.0.9", "dead", Standing::EarlierBoot, now, Life::Gone),
        ] {
            let held = held(address, container, standing, modified);
            assert_eq!(life(&sandboxes, &held), expected, "{held} {standing:?}");
        }
        let dead = held("10.0.0.9", "dead", Standing::Unrecorded, old);
        assert_eq!(
            life(&sandboxes, &Held { is_busy: true, ..held("10.0.0.9", "dead", Standing::EarlierBoot, old) }),
            Life::Lives
        );
        let sandboxes = Sandboxes { is_store_shared: true, ..sandboxes };
        assert_eq!(life(&sandboxes, &dead), Life::Unknown);
        assert_eq!(life(&sandboxes, &held("10.0.0.9", "dead", Standing::Finished, old)), Life::Gone);
        let sandboxes = Sandboxes { is_store_shared: false, obstacle: Some("no rights".to_owned()), ..sandboxes };
        assert_eq!(sandboxes.verdict(&dead, now), (Life::Unknown, "no rights".to_owned()));
    }

    #[test]
    fn a_line_of_mountinfo_tells_where_a_network_namespace_is_bound() {
        let line = br"631 24 0:4 net:[4026532281] /run/a\040b\134c rw shared:351 - nsfs nsfs rw";
        assert_eq!(bound_network(line), Some((4_026_532_281, PathBuf::from(r"/run/a b\c"))));
        for other in
            [&br"24 1 0:22 / /sys rw - sysfs sysfs rw"[..], br"2 1 0:4 mnt:[402] /run/m rw - nsfs nsfs rw", b""]
        {
            assert_eq!(bound_network(other), None);
        }
    }
}
