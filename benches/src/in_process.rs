//! What criterion has measured, as it left it in its directory.

use std::{fs, path::Path};

use serde_json::Value;

use crate::report::Report;

/// Adds the tables.
pub(crate) fn collect(directory: &Path, report: &mut Report) {
    let benches = benches(directory);
    report.heading("Attachments in one process");
    report.paragraph(
        "Attach and detach through the library, one registry, against the floor's requests in the same process \
         ([attachment.rs](../../benches/benches/attachment/main.rs)). Each thread has a sandbox of its own. Attaching and \
         detaching, in a process that stays; medians as criterion has them.",
    );
    let of_group = |group: &str| benches.iter().filter(|bench| bench.group == group).collect::<Vec<_>>();
    let mut rows = Vec::new();
    for group in ["attach", "detach", "attach and detach"] {
        let all = of_group(group);
        for ours in all.iter().filter(|bench| bench.function == "ours") {
            let floor = all.iter().find(|bench| bench.function == "floor" && bench.value == ours.value).unwrap();
            rows.push(vec![
                format!("{group}, threads: {}", ours.value),
                time(ours.median),
                time(floor.median),
                format!("{:.2}", ours.median / floor.median),
            ]);
        }
    }
    assert!(!rows.is_empty(), "{}: criterion has left nothing; `cargo bench -p benches` does", directory.display());
    report.table(&["", "ours", "floor", "of the floor"], &rows);

    report.heading("Allocation");
    report.paragraph(
        "One address allocated and released, beside so many reservations. *Bare* are the system calls that the format on disk \
         demands of anybody.",
    );
    let mut rows = Vec::new();
    for group in ["allocate and release in memory", "allocate and release on disk"] {
        let place = group.trim_start_matches("allocate and release ");
        let mut all = of_group(group);
        all.sort_by_key(|bench| (bench.function.clone(), bench.value.parse().unwrap_or(0)));
        rows.extend(
            all.iter()
                .map(|bench| vec![format!("{place}, {}", bench.function), bench.value.clone(), time(bench.median)]),
        );
    }
    report.table(&["", "reservations", "median"], &rows);
}

struct Bench {
    group: String,
    function: String,
    value: String,
    /// In nanoseconds.
    median: f64,
}

/// Everything that has estimates below `directory`, two or three levels down, in the order of their names.
fn benches(directory: &Path) -> Vec<Bench> {
    let mut found = Vec::new();
    let mut rest = vec![directory.to_owned()];
    while let Some(directory) = rest.pop() {
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        rest.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()));
        if directory.ends_with("new") {
            let json =
                |name: &str| -> Value { serde_json::from_slice(&fs::read(directory.join(name)).unwrap()).unwrap() };
            let (bench, estimates) = (json("benchmark.json"), json("estimates.json"));
            let text = |key: &str| bench[key].as_str().unwrap_or_default().to_owned();
            let median = estimates["median"]["point_estimate"].as_f64().unwrap();
            let (group, function, value) = (text("group_id"), text("function_id"), text("value_str"));
            found.push(Bench { group, function, value, median });
        }
    }
    found.sort_by_key(|bench| (bench.group.clone(), bench.value.parse().unwrap_or(0), bench.function.clone()));
    found
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.0} ns"),
        ..1e6 => format!("{:.1} µs", nanoseconds / 1e3),
        _ => format!("{:.2} ms", nanoseconds / 1e6),
    }
}
