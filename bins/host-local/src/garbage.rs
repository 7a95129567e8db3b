//! `host-local gc`.

use std::{collections::HashSet, fs, path::Path, time::SystemTime};

use host_local_ipam::{Owner, Store};
use multus_cni::{AttachmentId, NetworkName};
use serde::{Deserialize, Serialize};

use crate::{
    arguments::Garbage,
    failure::Failure,
    output::{Output, printable},
    progress::Progress,
    sandboxes::{Life, Sandboxes, doubts},
    survey::{Held, Place, Record},
    tool::Report,
};

/// An address that is garbage, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    record: Record<'a>,
    why: &'a str,
    freed: bool,
    /// Why it was not freed.
    kept: Option<&'static str>,
}

/// Frees garbage, or tells what would be freed.
pub(crate) fn collect(
    place: &Place,
    network: Option<&NetworkName>,
    garbage: &Garbage,
    is_meant: bool,
    now: SystemTime,
    progress: &mut Progress<'_>,
) -> Result<Report, Failure> {
    // What is wrong with the list is to be told before anybody waits.
    let listed = match garbage {
        Garbage::NotListed(file) => Some(Listed::read(file)?),
        Garbage::Dead => None,
    };
    let all = place.survey(&place.networks(network)?, progress)?.held;
    let mut notes = Vec::new();
    let condemned: Vec<(&Held, String)> = match listed {
        Some(listed) => {
            let not_listed = all.iter().filter(|held| !listed.has(held));
            not_listed.map(|held| (held, "the list does not name it".to_owned())).collect()
        }
        None => {
            let sandboxes = Sandboxes::scan(place.store.is_shared(), progress);
            let judged: Vec<_> = all.iter().map(|held| (held, sandboxes.verdict(held, now))).collect();
            notes.extend(doubts(judged.iter().map(|(_, verdict)| verdict)));
            let dead = judged.into_iter().filter(|(_, (life, _))| *life == Life::Gone);
            dead.map(|(held, (_, why))| (held, why)).collect()
        }
    };
    let mut lines = Vec::new();
    let mut text = String::new();
    for (held, why) in &condemned {
        let kept = if is_meant { free(place, held)? } else { None };
        let done = match kept {
            None if is_meant => "freed",
            None => "would free",
            Some(_) => "kept",
        };
        text.push_str(&format!("{done} {held}: {}\n", printable(kept.unwrap_or(why))));
        lines.push(Line { record: held.record(), why, freed: is_meant && kept.is_none(), kept });
    }
    if !is_meant && !lines.is_empty() {
        notes.push(format!("{} would be freed, none was; with --yes they are", lines.len()));
    }
    Ok(Report { output: Output::new(text, &lines)?, notes, status: 0 })
}

/// Ends a reservation, unless somebody works on its attachment, or it is not what it was when it was judged: then says so.
pub(crate) fn free(place: &Place, held: &Held) -> Result<Option<&'static str>, Failure> {
    let Some(mut reservations) = place.store.lock_existing(&held.network)? else {
        return Ok(Some("it has ended meanwhile"));
    };
    let Some(_lock) = reservations.try_lock_attachment(&held.owner().attachment())? else {
        return Ok(Some("an ADD or DEL of it is under way"));
    };
    if !reservations.entry(held.reservation.address)?.is_some_and(|entry| held.is(&entry)) {
        return Ok(Some("it has changed meanwhile"));
    }
    reservations.release(&held.reservation)?;
    Ok(None)
}

/// The attachments that are valid.
struct Listed {
    owners: HashSet<Owner>,
    /// When the list was made, as far as is known. What was reserved since cannot be in it.
    made: Option<SystemTime>,
}

#[derive(Deserialize)]
struct Valid {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    List(Vec<Valid>),
    Object {
        #[serde(rename = "cni.dev/valid-attachments")]
        list: Vec<Valid>,
    },
}

impl Listed {
    fn read(path: &Path) -> Result<Self, Failure> {
        let unread = |source| Failure::Read { path: path.to_owned(), source };
        let made = fs::metadata(path).map_err(unread)?.modified().ok();
        let bytes = fs::read(path).map_err(unread)?;
        let parsed = serde_json::from_slice(&bytes).map_err(|error| Failure::Content {
            path: path.to_owned(),
            wanted: "list of valid attachments",
            problem: format!(
                "{error}; it must be [{{\"containerID\": \"...\", \"ifname\": \"...\"}}, ...], or an object with such a \
                 list in \"cni.dev/valid-attachments\""
            ),
        })?;
        let (File::List(list) | File::Object { list }) = parsed;
        let owners = list.into_iter().flat_map(|valid| {
            let owner = Owner::from(&AttachmentId { container_id: valid.container_id, ifname: valid.ifname });
            // A record of a whole container belongs to each of its interfaces.
            [Owner { ifname: None, ..owner.clone() }, owner]
        });
        Ok(Self { owners: owners.collect(), made })
    }

    fn has(&self, held: &Held) -> bool {
        let is_newer = self.made.zip(held.modified).is_some_and(|(made, modified)| modified > made);
        is_newer || self.owners.contains(held.owner())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use host_local_ipam::{DiskStore, Stage};

    use super::*;

    #[test]
    fn what_is_not_the_same_as_when_it_was_judged_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place { store: DiskStore::new(directory.path()), data_dir: directory.path().to_owned() };
        let network: NetworkName = "storage".parse().unwrap();
        let address = "10.1.2.2".parse().unwrap();
        let owner = |container: &str| AttachmentId { container_id: container.to_owned(), ifname: "net1".to_owned() };
        let reserve = |owner: &AttachmentId, stage| {
            let mut reservations = place.store.lock(&network).unwrap();
            assert!(reservations.reserve(address, owner, stage).unwrap());
        };
        let release = || {
            let mut reservations = place.store.lock(&network).unwrap();
            let reservation = reservations.find(address).unwrap().unwrap();
            reservations.release(&reservation).unwrap();
        };
        let survey = || {
            let mut all = place
                .survey(
                    std::slice::from_ref(&network),
                    &mut Progress::new(None::<&mut Vec<u8>>, std::time::Instant::now()),
                )
                .unwrap();
            all.held.remove(0)
        };
        let changed = Some("it has changed meanwhile");

        reserve(&owner("c1"), Stage::Unfinished);
        let found = survey();
        place.store.finish(&network, &[address]).unwrap();
        assert_eq!(free(&place, &found).unwrap(), changed, "its ADD has been delivered");
        let found = survey();
        release();
        reserve(&owner("c2"), Stage::Finished);
        assert_eq!(free(&place, &found).unwrap(), changed, "it is somebody else's");
        let found = survey();
        let file = fs::File::open(directory.path().join("storage/10.1.2.2")).unwrap();
        file.set_modified(found.modified.unwrap() + Duration::from_nanos(1)).unwrap();
        assert_eq!(free(&place, &found).unwrap(), changed, "it is a later one of the same attachment");
        assert_eq!(free(&place, &survey()).unwrap(), None);
        assert_eq!(free(&place, &found).unwrap(), changed, "it is gone");
    }
}
