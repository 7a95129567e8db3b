//! What is counted and measured.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use host_local_ipam::{Range, Usage};
use multus_cni::Command;
use multus_core::{Observer, Step};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{operations::Load, process::ProcessCollector};

/// Of operations, in seconds: from what macvlan takes to what the kubelet gives up after.
const DURATIONS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 240.0];

/// Each is some thirty lines for whoever reads the metrics; those who may define networks choose their names.
const MOST_NETWORKS: usize = 500;

const NEW_HISTOGRAM: fn() -> Histogram = || Histogram::new(DURATIONS);

/// The daemon's metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<CallLabels, Histogram>,
    networks: Family<NetworkLabels, Histogram>,
    steps: Family<StepLabels, Histogram>,
    used: Family<RangeLabels, Gauge>,
    free: Family<RangeLabels, Gauge>,
    known_networks: Arc<Mutex<BTreeSet<String>>>,
    waiting: Gauge,
    in_flight: Gauge,
    spooled: Gauge,
    registry: Arc<Registry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    handler: &'static str,
    code: u16,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    command: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NetworkLabels {
    command: &'static str,
    network: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RangeLabels {
    network: String,
    range: String,
}

impl Metrics {
    /// Puts the daemon's metrics into `registry`.
    pub(crate) fn new(mut registry: Registry) -> Self {
        let requests = Family::default();
        let durations = Family::new_with_constructor(NEW_HISTOGRAM);
        let (networks, steps) =
            (Family::new_with_constructor(NEW_HISTOGRAM), Family::new_with_constructor(NEW_HISTOGRAM));
        let (used, free) = (Family::default(), Family::default());
        let (waiting, in_flight, spooled) = (Gauge::default(), Gauge::default(), Gauge::default());
        // The encoder adds `_total`.
        registry.register(
            "multus_server_request",
            "Requests by handler, status code and method",
            Family::clone(&requests),
        );
        registry.register(
            "multus_operation_duration_seconds",
            "Time that calls took from their turn on",
            Family::clone(&durations),
        );
        registry.register(
            "multus_network_duration_seconds",
            "Time that attaching, detaching or verifying one network of a sandbox took",
            Family::clone(&networks),
        );
        registry.register(
            "multus_step_duration_seconds",
            "Time that the steps of an ADD took: pod, plan, attach, status",
            Family::clone(&steps),
        );
        registry.register(
            "multus_reservations_used",
            "Addresses of a range of host-local's that are reserved, of networks that this daemon has served",
            Family::clone(&used),
        );
        registry.register(
            "multus_reservations_free",
            "Addresses of a range of host-local's that can be given, of networks that this daemon has served",
            Family::clone(&free),
        );
        registry.register("multus_operations_waiting", "Calls that wait for their turn", Gauge::clone(&waiting));
        registry.register("multus_operations_in_flight", "Calls that are under way", Gauge::clone(&in_flight));
        registry.register("multus_spool_length", "DELs that came while no daemon was there", Gauge::clone(&spooled));
        registry.register_collector(Box::new(ProcessCollector));
        let registry = Arc::new(registry);
        let known_networks = Arc::default();
        Self { requests, durations, networks, steps, used, free, known_networks, waiting, in_flight, spooled, registry }
    }

    /// Counts a request.
    pub(crate) fn count(&self, handler: &'static str, code: u16, method: &'static str) {
        self.requests.get_or_create(&RequestLabels { handler, code, method }).inc();
    }

    /// Notes how long a call took.
    pub(crate) fn observe(&self, command: Command, is_success: bool, elapsed: Duration) {
        let labels = CallLabels { command: command.as_str(), outcome: outcome(is_success) };
        self.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Notes how full ranges are; those that are not told of are forgotten.
    pub(crate) fn set_usage(&self, usage: Vec<(String, Range, Usage)>) {
        self.used.clear();
        self.free.clear();
        for (network, range, Usage { used, free }) in usage {
            let labels = RangeLabels { network, range: range.to_string() };
            self.used.get_or_create(&labels).set(i64::try_from(used).unwrap_or(i64::MAX));
            self.free.get_or_create(&labels).set(i64::try_from(free).unwrap_or(i64::MAX));
        }
    }

    /// The network's name, or one for all the others when there are too many.
    fn label_of(&self, network: &str) -> String {
        let mut known = self.known_networks.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(network) && known.len() >= MOST_NETWORKS {
            return "other".to_owned();
        }
        known.insert(network.to_owned());
        network.to_owned()
    }

    /// All of them as text, with what there is to do at the moment.
    pub(crate) fn print(&self, load: Load, spooled: usize) -> String {
        for (gauge, value) in
            [(&self.waiting, load.waiting), (&self.in_flight, load.in_flight), (&self.spooled, spooled)]
        {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // A string takes everything.
        let _infallible = text::encode(&mut text, &self.registry);
        text
    }
}

impl Observer for Metrics {
    fn step(&self, step: Step, elapsed: Duration) {
        self.steps.get_or_create(&StepLabels { step: step.as_str() }).observe(elapsed.as_secs_f64());
    }

    fn network(&self, command: Command, network: &str, is_success: bool, elapsed: Duration) {
        let (network, outcome) = (self.label_of(network), outcome(is_success));
        let labels = NetworkLabels { command: command.as_str(), network, outcome };
        self.networks.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }
}

fn outcome(is_success: bool) -> &'static str {
    if is_success { "success" } else { "failure" }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Registry::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_beyond_the_five_hundredth_are_one() {
        let metrics = Metrics::default();
        let observe = |number: usize| {
            metrics.network(Command::Add, &format!("ns/n{number}"), true, Duration::from_millis(1));
            let text = metrics.print(Load::default(), 0);
            (text.contains(&format!("network=\"ns/n{number}\"")), text.contains("network=\"other\""))
        };
        for number in 1..500 {
            metrics.network(Command::Add, &format!("ns/n{number}"), true, Duration::from_millis(1));
        }
        assert_eq!(observe(500), (true, false));
        assert_eq!(observe(501), (false, true));
        assert_eq!(observe(7), (true, true), "those that are known go on");
    }
}
