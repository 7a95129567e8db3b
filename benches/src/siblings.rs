//! The hot path in a crowd: ADD and DEL where the parent has a thousand macvlan links already, and the sandbox five hundred
//! links, against where there is nothing.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use testkit::{Lab, Netns, go_plugins};

use crate::{
    candidates::{Candidate, Families, Place},
    report::Report,
    statistics::{median, median_ratio, milliseconds, share},
};

const SIBLINGS: usize = 1000;
/// Which share them.
const PODS: usize = 100;
const LINKS: u32 = 500;
const ROUNDS: usize = 60;

/// Adds the table.
pub(crate) fn measure(plugins: &Path, report: &mut Report) {
    let lab = Lab::new();
    lab.add_parent("ens33", "wire33");
    let data_dir = tempfile::tempdir_in(plugins.parent().unwrap()).unwrap();
    let (alone, crowded) = (lab.container("alone"), lab.container("crowded"));
    let others: Vec<Netns> = (0..PODS).map(|number| lab.container(&format!("other-{number}"))).collect();
    for (number, other) in others.iter().enumerate() {
        let names = (number..SIBLINGS).step_by(PODS).map(|number| format!("m{number}"));
        let path = other.path().display();
        let added = |name| format!("link add link ens33 name {name} netns {path} type macvlan mode bridge");
        batch(&lab.host, names.clone().map(added));
        batch(other, names.map(|name| format!("link set {name} up")));
    }
    batch(&crowded, (0..LINKS / 2).map(|number| format!("link add v{number} type veth peer name w{number}")));

    let place = |container, master| Place { lab: &lab, container, master, data_dir: data_dir.path() };
    let places = [place(&alone, "ens32"), place(&crowded, "ens33")];
    let plugin = |name, directory: &Path, network: &str, families| {
        places
            .each_ref()
            .map(|place| Candidate::plugin(name, place, directory, &format!("{network}-{}", place.master), families))
    };
    let mut candidates = vec![
        places.each_ref().map(|place| Candidate::floor(place).unwrap()),
        plugin("macvlan + host-local, IPv4", plugins, "ours", Families::Ipv4),
        plugin("macvlan + host-local, dual stack", plugins, "ours-6", Families::DualStack),
    ];
    // Of both families it would wait for seconds.
    candidates.extend(
        go_plugins().ok().map(|go| plugin("Go macvlan + host-local (Debian), IPv4", &go, "go", Families::Ipv4)),
    );
    let mut times = vec![<[[Vec<f64>; 2]; 2]>::default(); candidates.len()];
    for round in 0..=ROUNDS {
        for (kind, candidates) in candidates.iter().enumerate() {
            for turn in [round % 2, (round + 1) % 2] {
                for (command, add) in [true, false].into_iter().enumerate() {
                    let time = milliseconds(candidates[turn].run(add, &places[turn]));
                    // The first calls find nothing in place.
                    if round > 0 {
                        times[kind][command][turn].push(time);
                    }
                }
                // What the kernel, or a neighbour, still has to do is nobody else's burden.
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
    report.heading("In a crowd");
    report.paragraph(&format!(
        "The parent has {SIBLINGS} macvlan links of {PODS} pods already, and the sandbox {LINKS} links, against where there are \
         none. Whole processes taking turns, {ROUNDS} rounds. What an ADD of ours has more here than the floor is mostly the announcement of \
         its addresses (`arp_notify`, `ndisc_notify`), which the kernel delivers to every sibling before it answers; the floor \
         announces nothing."
    ));
    let mut rows = Vec::new();
    for (command, name) in ["ADD", "DEL"].iter().enumerate() {
        for (kind, times) in candidates.iter().map(|[alone, _]| &alone.name).zip(&times) {
            let [alone, crowded] = &times[command];
            let cells = [median(alone), median(crowded), share(crowded, 0.99), median_ratio(crowded, alone)];
            let cells = cells.map(|value| format!("{value:.2}"));
            rows.push([vec![format!("{name}, {kind}")], cells.into()].concat());
        }
    }
    report.table(&["", "alone ms", "in the crowd ms", "p99 there ms", "of alone"], &rows);
}

/// Has `ip` do all of it in one process.
fn batch(namespace: &Netns, lines: impl Iterator<Item = String>) {
    let text = lines.collect::<Vec<_>>().join("\n");
    namespace.within(|| {
        let mut child = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "ip -batch");
    });
}
