//! What this process takes of the node.

use std::fs;

use nix::sys::resource::{UsageWho, getrusage};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// The metrics of this process, under the names that every other program gives them.
#[derive(Debug)]
pub(crate) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let cpu = ConstCounter::new(cpu_seconds());
        let described = encoder.encode_descriptor(
            "process_cpu",
            "Processor time of this process",
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?;
        cpu.encode(described)?;
        let memory = ConstGauge::new(resident_bytes());
        let help = "Memory of this process that is resident";
        let described =
            encoder.encode_descriptor("process_resident_memory", help, Some(&Unit::Bytes), memory.metric_type())?;
        memory.encode(described)?;
        let files = ConstGauge::new(open_files());
        let described = encoder.encode_descriptor(
            "process_open_fds",
            "Files that this process has open",
            None,
            files.metric_type(),
        )?;
        files.encode(described)
    }
}

/// Zero where the kernel does not tell; so are the others.
fn cpu_seconds() -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| {
        let whole = u32::try_from(time.tv_sec()).unwrap_or_default();
        f64::from(whole) + f64::from(i32::try_from(time.tv_usec()).unwrap_or_default()) / 1e6
    };
    getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()))
        .unwrap_or_default()
}

fn resident_bytes() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

fn open_files() -> i64 {
    fs::read_dir("/proc/self/fd").map_or(0, |files| files.fold(0, |count, _| count + 1))
}
