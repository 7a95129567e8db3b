//! Whole processes of host-local beside ever more reservations, ours and the Go plugin's on directories alike.

use std::{fs, net::Ipv4Addr, path::Path, time::Instant};

use host_local_ipam::{DiskStore, Stage, Store};
use multus_cni::AttachmentId;
use serde_json::{Value, json};
use testkit::{Call, go_plugins};

use crate::{report::Report, statistics::median};

const SIZES: [u32; 3] = [0, 1_000, 60_000];
const COMMANDS: [&str; 3] = ["ADD", "CHECK", "DEL"];

/// Adds the table.
pub(crate) fn measure(plugins: &Path, report: &mut Report) {
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in(plugins.parent().unwrap()).unwrap();
    let ours = ("host-local", plugins.join("host-local"));
    let go = go_plugins().map(|plugins| ("Go host-local (Debian)", plugins.join("host-local")));
    report.heading("Beside many reservations");
    report.paragraph(
        "`host-local` alone, whole processes, medians, beside ever more reservations, all in a row behind the place where the \
         search begins.",
    );
    if let Err(reason) = &go {
        report.paragraph(&format!("Not measured: {reason}."));
    }
    let mut rows = Vec::new();
    for (name, program) in [Some(ours), go.ok()].into_iter().flatten() {
        for size in SIZES {
            let medians = medians(name, &program, &directory.path().join(format!("{name}-{size}")), size);
            let cells = medians.map(|median| format!("{median:.2}"));
            rows.push([vec![name.to_owned(), size.to_string()], cells.into()].concat());
        }
    }
    report.table(&["", "reservations", "ADD ms", "CHECK ms", "DEL ms"], &rows);
}

fn medians(name: &str, program: &Path, data_dir: &Path, size: u32) -> [f64; 3] {
    let network = "bench".parse().unwrap();
    let store = DiskStore::new(data_dir);
    let mut reservations = store.lock(&network).unwrap();
    let address = |number: u32| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + number);
    for number in 1..=size {
        let owner = AttachmentId { container_id: format!("{number:064x}"), ifname: "net1".to_owned() };
        assert!(reservations.reserve(address(number).into(), &owner, Stage::Finished).unwrap());
    }
    if size > 0 {
        // The search begins behind the first, before all the others.
        reservations.set_last_reserved(0, address(1).into()).unwrap();
    }
    drop(reservations);
    let config = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "macvlan",
        "ipam": {"type": "host-local", "dataDir": data_dir, "ranges": [[{"subnet": "10.0.0.0/15"}]]},
    });
    let rounds = if size > 10_000 && name != "host-local" { 5 } else { 100 };
    let mut times: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        let container = format!("late{round}");
        let mut previous = Value::Null;
        for (command, times) in COMMANDS.iter().zip(&mut times) {
            let mut config = config.clone();
            if *command == "CHECK" {
                config["prevResult"] = previous.clone();
            }
            let call = Call::new(program, command, Path::new("/run/netns/none")).container(&container).config(&config);
            let started = Instant::now();
            let reply = call.run();
            times.push(started.elapsed().as_secs_f64() * 1e3);
            reply.succeeded();
            if *command == "ADD" {
                previous = reply.result();
            }
        }
        // As far as the first: the next one has as much to pass.
        if size > 0 {
            fs::write(data_dir.join("bench/last_reserved_ip.0"), "10.0.0.2").unwrap();
        }
    }
    times.map(|times| median(&times))
}
