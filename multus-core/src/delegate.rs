//! A network that a sandbox is to be attached to.

use multus_cni::NetworkConfigList;

use crate::{DefaultRoutes, InterfaceRequest};

/// One network of a pod, resolved: all that its ADD and its DEL need besides the sandbox.
#[derive(Clone, Debug)]
pub struct Delegate {
    /// What the network is called in events and statuses: `namespace/name` of its definition, or the `name` in its
    /// configuration.
    pub name: String,
    /// Its configuration, with the device and the `cni-args` it is to have.
    pub config: NetworkConfigList,
    /// What the pod asks for.
    pub request: InterfaceRequest,
    /// The resource that its definition names.
    pub resource_name: Option<String>,
    /// The device it gets: of the resource, else the one the pod asks for. `None` with a resource means that the kubelet
    /// has allocated too few.
    pub device_id: Option<String>,
    /// What becomes of its default routes.
    pub default_routes: DefaultRoutes,
}

impl Delegate {
    /// A delegate with `config`, and nothing else asked for.
    #[must_use]
    pub fn new(config: NetworkConfigList) -> Self {
        Self {
            name: config.name().to_string(),
            config,
            request: InterfaceRequest::default(),
            resource_name: None,
            device_id: None,
            default_routes: DefaultRoutes::default(),
        }
    }
}
