//! Whole processes of host-local beside ever more reservations, ours and the Go plugin's in turn on directories alike.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement that fails has no result"
)]

use std::{
    env, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Instant,
};

use host_local_ipam::{DiskStore, Stage, Store};
use multus_cni::AttachmentId;
use serde_json::{Value, json};
use testkit::{Call, go_plugins};

const SIZES: [u32; 3] = [0, 1_000, 60_000];
const COMMANDS: [&str; 3] = ["ADD", "CHECK", "DEL"];

fn main() {
    let ours = PathBuf::from(env::args().nth(1).unwrap()).join("host-local");
    // Not on tmpfs: reservations are on a disk in real life.
    let directory = tempfile::tempdir_in("target").unwrap();
    println!("host-local alone, median ms        reservations      ADD    CHECK      DEL");
    let candidates =
        [("ours", Some(ours)), ("Go (Debian)", go_plugins().ok().map(|plugins| plugins.join("host-local")))];
    for size in SIZES {
        for (name, program) in &candidates {
            match program {
                Some(program) => measure(name, program, &directory.path().join(format!("{name}-{size}")), size),
                None => println!("{name:<34} {size:>13}      not installed"),
            }
        }
    }
}

fn measure(name: &str, program: &Path, data_dir: &Path, size: u32) {
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
    let rounds = if size > 10_000 && name != "ours" { 5 } else { 100 };
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
    let medians = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    let [add, check, del] = medians;
    println!("{name:<34} {size:>13} {add:>8.2} {check:>8.2} {del:>8.2}");
}
