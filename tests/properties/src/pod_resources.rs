//! What a kubelet may tell of devices.

use std::{path::Path, sync::OnceLock};

use multus_core::{PodReference, PodResources, kubernetes::Kubelet};
use testkit_kubernetes::KubeletFault;

use crate::message;

static KUBELET: OnceLock<(testkit_kubernetes::Kubelet, Kubelet)> = OnceLock::new();

/// Whatever a kubelet answers names devices, or is refused.
pub fn pod_resources(data: &[u8]) {
    let (server, kubelet) = KUBELET.get_or_init(|| {
        // For as long as the process.
        let root = crate::files::directory().keep();
        (testkit_kubernetes::Kubelet::start(&below(&root)), Kubelet::new(&root))
    });
    server.fail_next(1, KubeletFault::Message(data.to_owned()));
    let pod = PodReference { namespace: "web".to_owned(), name: "pod".to_owned(), uid: "u1".to_owned() };
    if let Err(error) = kubelet.devices(&pod) {
        message::check(data, &error);
    }
}

fn below(root: &Path) -> std::path::PathBuf {
    root.join(Kubelet::SOCKET.trim_start_matches('/'))
}
