//! `host-local check`.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use host_local_ipam::{DiskStore, Owner, RangeSet, Store};
use multus_cni::NetworkName;
use serde::Serialize;

use crate::{
    configurations::Configurations,
    failure::Failure,
    output::Output,
    progress::Progress,
    sandboxes::{Life, Sandboxes, Verdict, doubts},
    survey::{Held, Place, Stray},
    tool::Report,
};

/// Something that is not as it should be.
#[derive(Serialize)]
struct Finding {
    kind: Kind,
    #[serde(serialize_with = "lossy")]
    file: PathBuf,
    problem: String,
    remedy: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// An empty file.
    Torn,
    /// A reservation whose sandbox is gone.
    Orphaned,
    /// An address reserved in two networks, or two addresses where there should be one.
    Doubled,
    /// A file that is no reservation.
    Foreign,
    /// An address that the configurations would not give.
    OutOfRange,
    /// The index says something else than the files.
    Index,
}

/// What is wrong with the reservations.
pub(crate) fn check(
    place: &Place,
    network: Option<&NetworkName>,
    config: Option<&Path>,
    now: SystemTime,
    progress: &mut Progress<'_>,
) -> Result<Report, Failure> {
    let Configurations { sets, unusable } = Configurations::read(config)?;
    let networks = place.networks(network)?;
    let all = place.survey(&place.networks(None)?, progress)?;
    let (asked, others): (Vec<&Held>, Vec<&Held>) = all.held.iter().partition(|held| networks.contains(&held.network));
    let sandboxes = Sandboxes::scan(place.store.is_shared(), progress);
    let judged: Vec<(&Held, Verdict)> = asked.iter().map(|held| (*held, sandboxes.verdict(held, now))).collect();
    let check = Check { place, sets: &sets };
    let strays = all.strays.iter().filter(|stray| networks.contains(&stray.network));
    let mut findings: Vec<Finding> = strays.map(|stray| check.stray(stray)).collect();
    findings.extend(asked.iter().filter_map(|held| check.out_of_range(held)));
    findings.extend(judged.iter().filter_map(|(held, verdict)| check.orphaned(held, verdict)));
    findings.extend(check.in_several_networks(&asked, &others));
    findings.extend(check.several_of_one_owner(&asked));
    for network in &networks {
        findings.extend(check.index(network)?);
    }
    findings.sort_by(|one, other| one.file.cmp(&other.file));
    let line =
        |finding: &Finding| format!("{}: {}; remedy: {}\n", quoted(&finding.file), finding.problem, finding.remedy);
    let text = findings.iter().map(line).collect();
    let mut notes = unusable;
    notes.extend(doubts(judged.iter().map(|(_, verdict)| verdict)));
    if findings.is_empty() {
        notes.push(format!("nothing wrong with {} reservations in {} networks", judged.len(), networks.len()));
    }
    Ok(Report { status: u8::from(!findings.is_empty()), output: Output::new(text, &findings)?, notes })
}

struct Check<'a> {
    place: &'a Place,
    sets: &'a BTreeMap<NetworkName, Vec<RangeSet>>,
}

impl Check<'_> {
    fn stray(&self, stray: &Stray) -> Finding {
        let file = self.place.data_dir.join(stray.network.as_str()).join(&stray.name);
        let shown = quoted(&file);
        if stray.is_torn {
            let problem = "is empty: a plugin was killed while it reserved the address".to_owned();
            let remedy = format!("none for this plugin, which gives the address again; for the Go plugin: rm {shown}");
            return Finding { kind: Kind::Torn, file, problem, remedy };
        }
        let name = stray.name.to_str().unwrap_or_default();
        let is_address = name.parse().is_ok_and(|address: IpAddr| address.to_string() == name);
        let taken = if is_address { ", yet keeps the address from being given" } else { "" };
        let problem = format!("is no reservation{taken}");
        Finding { kind: Kind::Foreign, file, problem, remedy: format!("if nobody needs it: rm -r {shown}") }
    }

    fn out_of_range(&self, held: &Held) -> Option<Finding> {
        let sets = self.sets.get(&held.network)?;
        if sets.iter().any(|set| set.containing(held.reservation.address).is_some()) {
            return None;
        }
        let ranges: Vec<String> = sets.iter().map(ToString::to_string).collect();
        let problem = format!("is in no range of the configuration, which has {}", ranges.join(", "));
        Some(self.finding(Kind::OutOfRange, held, problem, format!("if its sandbox is gone: {}", self.release(held))))
    }

    fn orphaned(&self, held: &Held, (life, why): &Verdict) -> Option<Finding> {
        let remedy = self.command(&format!("gc --dead {} --yes", held.network));
        let problem = format!("the sandbox of {} is gone: {why}", held.holder());
        (*life == Life::Gone).then(|| self.finding(Kind::Orphaned, held, problem, remedy))
    }

    fn in_several_networks(&self, asked: &[&Held], others: &[&Held]) -> Vec<Finding> {
        let mut networks: HashMap<IpAddr, Vec<&NetworkName>> = HashMap::new();
        for held in asked.iter().chain(others) {
            networks.entry(held.reservation.address).or_default().push(&held.network);
        }
        let doubled = asked.iter().filter_map(|held| {
            let all = networks.get(&held.reservation.address)?;
            let elsewhere = all.iter().filter(|network| ***network != held.network).map(|network| network.as_str());
            let elsewhere: Vec<&str> = elsewhere.collect();
            let problem = format!("is reserved in {} too", elsewhere.join(", "));
            let remedy = format!("if the networks share a link, give one other ranges and: {}", self.release(held));
            (!elsewhere.is_empty()).then(|| self.finding(Kind::Doubled, held, problem, remedy))
        });
        doubled.collect()
    }

    /// Each interface has one address of each range set; where the ranges are not known, of each family.
    fn several_of_one_owner(&self, asked: &[&Held]) -> Vec<Finding> {
        let mut by_place: HashMap<(&NetworkName, &Owner, usize), Vec<&Held>> = HashMap::new();
        for held in asked.iter().filter(|held| held.owner().ifname.is_some()) {
            let address = held.reservation.address;
            let place = match self.sets.get(&held.network) {
                Some(sets) => sets.iter().position(|set| set.containing(address).is_some()),
                None => Some(usize::from(address.is_ipv6())),
            };
            if let Some(place) = place {
                by_place.entry((&held.network, held.owner(), place)).or_default().push(held);
            }
        }
        let several = by_place.into_values().filter(|held| held.len() > 1).flatten();
        let finding = |held: &Held| {
            let problem = format!("is not the only address of its kind that {} has", held.holder());
            let remedy = format!("if its interface does not have it: {}", self.release(held));
            self.finding(Kind::Doubled, held, problem, remedy)
        };
        several.map(finding).collect()
    }

    fn index(&self, network: &NetworkName) -> Result<Option<Finding>, Failure> {
        let misjudged = match self.place.store.lock_existing(network)? {
            Some(mut reservations) => reservations.verify()?,
            None => Vec::new(),
        };
        let Some(first) = misjudged.first() else {
            return Ok(None);
        };
        let directory = self.place.data_dir.join(network.as_str());
        Ok(Some(Finding {
            kind: Kind::Index,
            problem: format!("the index disagrees with the files about {} addresses, such as {first}", misjudged.len()),
            remedy: format!("have it made anew: touch {}", quoted(&directory)),
            file: directory,
        }))
    }

    fn release(&self, held: &Held) -> String {
        self.command(&format!("release {} --network {}", held.reservation.address, held.network))
    }

    /// A command of this tool, for the same directory.
    fn command(&self, words: &str) -> String {
        if self.place.data_dir == Path::new(DiskStore::DEFAULT_DATA_DIR) {
            return format!("host-local {words}");
        }
        format!("host-local {words} --data-dir {}", quoted(&self.place.data_dir))
    }

    fn finding(&self, kind: Kind, held: &Held, problem: String, remedy: String) -> Finding {
        let file = self.place.data_dir.join(held.network.as_str()).join(held.reservation.address.to_string());
        Finding { kind, file, problem, remedy }
    }
}

/// As text, which JSON is.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A path as a shell takes it, whatever is in it.
fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/._-:@+".contains(byte)) {
        return path.display().to_string();
    }
    let escaped = bytes.iter().map(|byte| match byte {
        b' '..=b'~' if !b"'\\".contains(byte) => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    format!("$'{}'", escaped.collect::<String>())
}
