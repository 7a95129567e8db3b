//! The kubelet's word on the devices of pods.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    pod_resources::{self, PodDevices},
    shared_answer::SharedAnswer,
};
use crate::{Checkpoint, PodReference, PodResources, ResourceDevices};

/// The kubelet of this node: its podresources socket, or where it has none, its [checkpoint](Checkpoint). Methods block, and
/// must not be called on a runtime's own threads.
///
/// The socket tells of all pods at once, and not as often as one likes. Calls at the same time share an answer, which was
/// asked for after each of them began.
pub struct Kubelet {
    roots: Vec<PathBuf>,
    limit: Duration,
    answers: SharedAnswer<Result<Arc<PodDevices>, String>>,
}

impl Kubelet {
    /// Where the kubelet has its socket.
    pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";

    /// The kubelet of the host whose root this process sees as `root`, or whose `/var/lib/kubelet` it has in the same place.
    /// A call ends within 10 s.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        let mut roots = vec![root.to_owned(), PathBuf::from("/")];
        roots.dedup();
        Self { roots, limit: Duration::from_secs(10), answers: SharedAnswer::default() }
    }

    /// With another limit for a call: half of it for an answer that is under way and came too early, half for its own.
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    fn find(&self, path: &str) -> Option<PathBuf> {
        let below = |root: &PathBuf| root.join(path.trim_start_matches('/'));
        self.roots.iter().map(below).find(|path| path.exists())
    }
}

impl PodResources for Kubelet {
    fn devices(&self, pod: &PodReference) -> Result<Vec<ResourceDevices>, String> {
        let Some(socket) = self.find(Self::SOCKET) else {
            let checkpoint = self.find(Checkpoint::FILE).ok_or_else(|| {
                let (socket, checkpoint) = (Self::SOCKET, Checkpoint::FILE);
                format!("the kubelet has neither {socket:?} nor {checkpoint:?}; is /var/lib/kubelet mounted here?")
            })?;
            return Checkpoint::new(checkpoint).devices(pod);
        };
        let ask = || pod_resources::list(&socket, self.limit / 2).map(Arc::new);
        let pods = self.answers.ask(ask).map_err(|problem| format!("kubelet socket {socket:?}: {problem}"))?;
        Ok(pods.get(&pod.namespace).and_then(|pods| pods.get(&pod.name)).cloned().unwrap_or_default())
    }
}

impl fmt::Debug for Kubelet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Kubelet")
            .field("roots", &self.roots)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
