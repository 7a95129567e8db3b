//! What is counted and measured.

use std::{sync::Arc, time::Duration};

use multus_cni::Command;
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::operations::Load;

/// Of operations, in seconds: from what macvlan takes to what the kubelet gives up after.
const DURATIONS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 240.0];

const NEW_HISTOGRAM: fn() -> Histogram = || Histogram::new(DURATIONS);

/// The daemon's metrics. Clones share them.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<CallLabels, Histogram>,
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

impl Metrics {
    /// Puts the daemon's metrics into `registry`.
    pub(crate) fn new(mut registry: Registry) -> Self {
        let requests = Family::default();
        let durations = Family::new_with_constructor(NEW_HISTOGRAM);
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
        registry.register("multus_operations_waiting", "Calls that wait for their turn", Gauge::clone(&waiting));
        registry.register("multus_operations_in_flight", "Calls that are under way", Gauge::clone(&in_flight));
        registry.register("multus_spool_length", "DELs that came while no daemon was there", Gauge::clone(&spooled));
        Self { requests, durations, waiting, in_flight, spooled, registry: Arc::new(registry) }
    }

    /// Counts a request.
    pub(crate) fn count(&self, handler: &'static str, code: u16, method: &'static str) {
        self.requests.get_or_create(&RequestLabels { handler, code, method }).inc();
    }

    /// Notes how long a call took.
    pub(crate) fn observe(&self, command: Command, is_success: bool, elapsed: Duration) {
        let outcome = if is_success { "success" } else { "failure" };
        self.durations.get_or_create(&CallLabels { command: command.as_str(), outcome }).observe(elapsed.as_secs_f64());
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

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Registry::default())
    }
}
