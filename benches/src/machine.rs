//! Where and when it was measured.

use std::{fs, path::Path, process::Command, thread};

/// Kernel, processor, file system and date in a sentence; `directory` is where the reservations are.
pub(crate) fn describe(directory: &Path) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Measured on {}: Linux {}, HZ {}, {cpus} cores of {}, reservations on {}; load average at the end {}.",
        output("date", &["-u", "+%F"]),
        kernel.trim(),
        hz().unwrap_or_else(|| "unknown".to_owned()),
        processor().unwrap_or_else(|| "an unknown processor".to_owned()),
        file_system(directory),
        load.split(' ').next().unwrap_or("unknown"),
    )
}

/// Kernel, clock and date in a few words.
pub(crate) fn describe_short() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let hz = hz().unwrap_or_else(|| "unknown".to_owned());
    format!("Linux {}, HZ {hz}, {}", kernel.trim(), output("date", &["-u", "+%F"]))
}

/// How often the kernel's clock ticks in a second, from its configuration.
fn hz() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let config = match fs::read_to_string(format!("/boot/config-{}", release.trim())) {
        Ok(text) => text,
        Err(_) => output("zcat", &["/proc/config.gz"]),
    };
    config.lines().find_map(|line| line.strip_prefix("CONFIG_HZ=")).map(str::to_owned)
}

fn file_system(directory: &Path) -> String {
    let table = output("df", &["--output=fstype", &directory.to_string_lossy()]);
    table.lines().last().unwrap_or("unknown").trim().to_owned()
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What a program prints; "unknown" when it cannot be run.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
