//! Who is told how long things take.

use std::time::{Duration, Instant};

use multus_cni::Command;

/// Is told how long the meta-plugin's work took, for metrics. It is called on the thread that works, and should be quick.
pub trait Observer: Send + Sync {
    /// A step of an ADD has ended, in success or not.
    fn step(&self, step: Step, elapsed: Duration);

    /// One network of a sandbox was attached (ADD), detached (DEL) or verified (CHECK).
    fn network(&self, command: Command, network: &str, is_success: bool, elapsed: Duration);
}

/// The steps of an ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Finding the pod.
    Pod,
    /// Resolving its networks.
    Plan,
    /// Attaching to all of them.
    Attach,
    /// Writing the network status.
    Status,
}

impl Step {
    /// Its name, such as `plan`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Plan => "plan",
            Self::Attach => "attach",
            Self::Status => "status",
        }
    }
}

/// Nobody.
pub(crate) struct Unobserved;

impl Observer for Unobserved {
    fn step(&self, _: Step, _: Duration) {}

    fn network(&self, _: Command, _: &str, _: bool, _: Duration) {}
}

/// Does `work`, and tells `observer` of the step.
pub(crate) fn timed<T>(observer: &dyn Observer, step: Step, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    observer.step(step, begin.elapsed());
    done
}

/// Does `work`, and tells `observer` of the network.
pub(crate) fn timed_network<T, E>(
    observer: &dyn Observer,
    command: Command,
    network: &str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let begin = Instant::now();
    let done = work();
    observer.network(command, network, done.is_ok(), begin.elapsed());
    done
}
