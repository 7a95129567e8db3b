//! `host-local list`.

use std::time::SystemTime;

use host_local_ipam::Standing;
use multus_cni::NetworkName;
use serde::Serialize;

use crate::{
    failure::Failure,
    output::{Output, age, printable, table},
    progress::Progress,
    sandboxes::{Life, Sandboxes},
    survey::{Held, Place, Record},
    tool::Report,
};

/// A line as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(flatten)]
    record: Record<'a>,
    age_seconds: Option<u64>,
    boot: &'static str,
    unfinished: bool,
    sandbox: Life,
    why: String,
}

/// Who has which address.
pub(crate) fn list(
    place: &Place,
    network: Option<&NetworkName>,
    now: SystemTime,
    progress: &mut Progress<'_>,
) -> Result<Report, Failure> {
    let held = place.survey(&place.networks(network)?, progress)?.held;
    let sandboxes = Sandboxes::scan(place.store.is_shared(), progress);
    let lines: Vec<Line<'_>> = held.iter().map(|held| line(held, &sandboxes, now)).collect();
    let mut rows = vec![["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE", "BOOT", "SANDBOX"].map(str::to_owned)];
    rows.extend(held.iter().zip(&lines).map(|(held, line)| row(held, line, now)));
    Ok(Report { output: Output::new(table(&rows), &lines)?, notes: Vec::new(), status: 0 })
}

fn line<'a>(held: &'a Held, sandboxes: &Sandboxes, now: SystemTime) -> Line<'a> {
    let (sandbox, why) = sandboxes.verdict(held, now);
    Line {
        record: held.record(),
        age_seconds: held.age(now).map(|age| age.as_secs()),
        boot: match held.standing {
            Standing::Finished | Standing::Unfinished => "this boot",
            Standing::EarlierBoot => "earlier boot",
            Standing::OtherMachine => "other machine",
            Standing::Unrecorded => "unrecorded",
        },
        unfinished: held.standing == Standing::Unfinished,
        sandbox,
        why,
    }
}

fn row(held: &Held, line: &Line<'_>, now: SystemTime) -> [String; 7] {
    let absent = || "-".to_owned();
    let unfinished = if line.unfinished { ", ADD unfinished" } else { "" };
    let sandbox = match line.sandbox {
        Life::Lives => "lives",
        Life::Gone => "gone",
        Life::Unknown => "unknown",
    };
    [
        held.network.to_string(),
        held.reservation.address.to_string(),
        printable(&held.owner().container_id),
        held.owner().ifname.as_deref().map_or_else(absent, printable),
        held.age(now).map_or_else(absent, age),
        format!("{}{unfinished}", line.boot),
        format!("{sandbox}: {}", printable(&line.why)),
    ]
}
