//! The Multus meta-plugin as a library: what a pod asks for becomes a list of delegates, each a network to attach the
//! pod's sandbox to; and they are attached, detached and verified.
//!
//! * [`Multus`]: the meta-plugin, for a program of its own or a daemon. What follows are its parts.
//!   [`HotPlug`] attaches one network to a pod that runs.
//! * [`Config`]: the configuration of type `multus`; [`PodArgs`]: what the runtime says of the pod in `CNI_ARGS`.
//! * [`Cluster`]: what is asked of Kubernetes, and [`PodResources`] of its kubelet; implemented elsewhere.
//!   With the feature `kubernetes`, the module of that name has the cluster behind an API server, and the kubelet.
//! * [`parse_networks`] and [`parse_default_network`]: the pod's annotations, as [`NetworkSelection`]s.
//! * [`Planner`]: resolves every reference to a configuration, and prepares it; the outcome is a [`Plan`] of
//!   [`Delegate`]s, plain data in the order of their attachment.
//! * [`Sandbox`]: says with what interface name, `CNI_ARGS` and capability arguments each delegate is run.
//! * [`DefaultRoutes`]: which interface keeps, loses or gets a default route.
//! * [`NetworkStatus`], [`Event`]: what is reported to Kubernetes. [`Observer`]: how long things took.
//! * [`Scratch`], [`DeviceInfoFiles`]: files that other programs read and write too.
//!
//! ```
//! use multus_core::parse_networks;
//!
//! let networks = parse_networks("storage, lab/macvlan-conf@lab0", "web")?;
//! assert_eq!(networks[0].to_string(), "web/storage");
//! assert_eq!(networks[1].to_string(), "lab/macvlan-conf");
//! assert_eq!(networks[1].request.ifname.as_ref().map(|name| name.as_str()), Some("lab0"));
//! let error = parse_networks(r#"[{"name":"storage","mac":"02:xx"}]"#, "web").unwrap_err();
//! assert!(error.to_string().starts_with(r#"network "web/storage": "networks[0].mac" must be "#));
//! # Ok::<(), multus_core::Error>(())
//! ```

mod annotation;
mod attached;
mod checkpoint;
mod cluster;
mod config;
mod default_route;
mod delegate;
mod device_info;
mod devices;
mod error;
mod event;
mod hardware_address;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod multus;
mod network_config;
mod observer;
mod plan;
mod pod;
mod pod_args;
mod route_steering;
mod runtime_config;
mod sandbox;
mod scratch;
mod selection;
mod status;
mod turn;

pub use annotation::{parse_default_network, parse_networks};
pub use checkpoint::Checkpoint;
pub use cluster::{Cluster, ClusterError, NetworkAttachmentDefinition};
pub use config::{Config, LogConfig, Master};
pub use default_route::{DefaultRoute, DefaultRoutes};
pub use delegate::Delegate;
pub use device_info::{DeviceInfo, DeviceInfoFiles};
pub use devices::{PodResources, ResourceDevices};
pub use error::Error;
pub use event::{Event, EventKind};
pub use multus::{HotPlug, Multus};
pub use observer::{Observer, Step};
pub use plan::{Plan, Planner};
pub use pod::{Pod, PodReference};
pub use pod_args::PodArgs;
pub use runtime_config::{Bandwidth, PortMapping, RuntimeConfig};
pub use sandbox::Sandbox;
pub use scratch::Scratch;
pub use selection::{InterfaceRequest, NetworkSelection};
pub use status::NetworkStatus;
