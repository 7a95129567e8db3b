//! The [Container Network Interface] protocol, as a plugin, a delegating plugin or a runtime needs it.
//!
//! * [`NetworkConfig`] and [`NetworkConfigList`]: what an operator wrote, kept byte for byte, with typed views on top.
//! * [`Invocation`] and [`Attachment`]: what a runtime asked for, validated.
//! * [`Success`]: the result of an ADD, always the newest version in memory; [`Success::print`] and [`Success::parse`]
//!   speak every version from 0.1.0 to 1.1.0.
//! * [`Error`]: every failure of the protocol with its CNI error code.
//! * [`Plugin`]: what a plugin does, in this process or in another; [`Registry`] finds either by `type`.
//! * [`Chain`]: the plugins of a list one after the other, as a runtime runs them; [`ResultCache`] keeps what DEL needs.
//! * [`serve`]: a whole plugin process around a [`Plugin`]; [`program!`] makes it a program.
//!
//! Nothing but [`program!`] reads the environment, standard input or the clock: the program that owns them passes them in.
//! The API blocks; an asynchronous caller wraps a call in a thread of its own.
//!
//! ```
//! use multus_cni::{NetworkConfig, Version};
//!
//! let config = NetworkConfig::parse(br#"{"cniVersion":"1.0.0","name":"storage","type":"macvlan","Master":"ens32"}"#)?;
//! assert_eq!(config.version()?, Version::V1_0_0);
//! assert_eq!(config.view().string("master")?, Some("ens32")); // keys match in any case
//! # Ok::<(), multus_cni::Error>(())
//! ```
//!
//! [Container Network Interface]: https://github.com/containernetworking/cni/blob/main/SPEC.md

mod args;
mod chain;
mod cidr;
mod config;
mod config_files;
mod config_list;
mod directory;
mod document;
mod error;
mod exec;
mod file;
mod guarded;
mod host_path;
mod id;
mod invocation;
mod json;
mod lock;
mod mac;
mod nesting;
mod pending;
mod plugin;
mod program;
mod raw_object;
mod registry;
mod result_cache;
mod serve;
mod shortened;
mod success;
mod version;
mod whole_file;
mod wire;

pub use args::Args;
pub use chain::{AttachmentRequest, Chain};
pub use cidr::{Cidr, parse_ip};
pub use config::NetworkConfig;
pub use config_files::configuration_files;
pub use config_list::NetworkConfigList;
pub use directory::make_directory;
pub use document::Document;
pub use error::{Error, ErrorCode, ErrorObject, is_lack, os_error_text};
pub use exec::ExecutedPlugin;
pub use guarded::{must_be_guarded, must_be_guarded_or_sticky};
pub use id::{ContainerId, InterfaceName, NetworkName};
pub use invocation::{Attachment, AttachmentId, Command, Environment, Invocation};
pub use json::{FieldError, Item, Object, go_json};
pub use lock::ByteLock;
pub use mac::MacAddress;
pub use pending::{Pending, Provisional};
pub use plugin::Plugin;
pub use program::print_errors_on_panic;
#[doc(hidden)]
pub use program::start;
pub use raw_object::RawObject;
pub use registry::{Builtin, Registry};
pub use result_cache::{CachedAttachment, ResultCache};
pub use serve::{About, refuse_own_netns, serve};
pub use shortened::shortened;
pub use success::{Dns, Interface, IpConfig, Route, Success};
pub use version::Version;
pub use whole_file::WholeFile;
