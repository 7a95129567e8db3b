//! One network of a pod that runs already.

use multus_cni::{
    Attachment, AttachmentRequest, CachedAttachment, Command, ContainerId, ErrorCode, Invocation, NetworkConfigList,
    Pending, Plugin, Version,
};
use tracing::{info, warn};

use super::{Call, Multus};
use crate::{
    Config, Delegate, Error, Event, InterfaceRequest, attached::Attached, network_config, observer::timed_network,
};

/// One network, attached to a pod's sandbox and detached from it by itself, as a controller for dynamic networks asks for.
/// The configuration of a call is that network's own, of one plugin or a list; the interface is the call's.
///
/// The pod's network status is the controller's to write, and default routes stay as the plugin makes them. What is still
/// attached when the sandbox goes is detached with it.
#[derive(Debug)]
pub struct HotPlug {
    multus: Multus,
    settings: Vec<u8>,
    request: InterfaceRequest,
}

/// Not to be mistaken for a pod's networks.
const LABEL: &str = "config";

/// GC is of whole networks.
#[derive(Debug, thiserror::Error)]
#[error("unknown cmd type: GC is of all networks, and not served for a single one")]
struct NotServed;

impl Multus {
    /// A plugin for single networks, with `settings` as in a configuration of type `multus`, whose networks do not matter.
    /// An ADD gets what `request` asks for.
    #[must_use]
    pub fn hot_plug(&self, settings: &[u8], request: InterfaceRequest) -> HotPlug {
        HotPlug { multus: self.clone(), settings: settings.to_owned(), request }
    }
}

impl HotPlug {
    fn call<'a>(&'a self, invocation: &'a Invocation) -> Result<(Call<'a>, Delegate), Error> {
        let call = self.multus.call_with(Config::parse_settings(&self.settings)?, invocation)?;
        let mut config = network_config::read(invocation.config.bytes(), LABEL).map_err(|error| call.of_pod(error))?;
        if let Some(arguments) = &self.request.cni_args {
            config = config.with_cni_args(arguments)?;
        }
        let device_id = self.request.device_id.clone();
        Ok((call, Delegate { request: self.request.clone(), device_id, ..Delegate::new(config) }))
    }

    fn attach(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, Error> {
        let (call, delegate) = self.call(invocation)?;
        let attach = || {
            let turn = call.turn(&attachment.container_id)?;
            let pod = call.pod()?;
            must_be_known(&call, &attachment.container_id)?;
            must_be_free(&call, attachment)?;
            let request = requested(&call, attachment, &delegate, Command::Add)?;
            let mut attached = Attached::new(self.multus.device_info.clone(), turn);
            let failed = |source| Error::Delegate { network: delegate.name.clone(), source };
            // Where the plugin makes the file.
            attached.note_device_info(&delegate.name, &request.attachment.id());
            let add = || call.chain.add(&delegate.config, &request).map_err(failed);
            let pending = timed_network(&*self.multus.observer, Command::Add, &delegate.name, add)?;
            let success = pending.success().clone();
            attached.note(pending);
            let ifname = attachment.ifname.as_str();
            info!(
                network = delegate.name,
                container = attachment.container_id.as_str(),
                interface = ifname,
                "attached"
            );
            let event = Event::added_interface(ifname, &success, &delegate.name);
            if let (Some(cluster), Some(pod), Some(event)) = (&call.cluster, pod, event) {
                cluster.emit(&pod.reference, event);
            }
            Ok(Pending::new(success, attached))
        };
        attach().map_err(|error| call.of_pod(error))
    }

    fn work(
        &self,
        command: Command,
        attachment: &Attachment,
        invocation: &Invocation,
        work: impl FnOnce(&Call<'_>, &Delegate, &AttachmentRequest) -> Result<(), multus_cni::Error>,
    ) -> Result<(), multus_cni::Error> {
        let (call, delegate) = self.call(invocation)?;
        let _turn = call.turn(&attachment.container_id).map_err(|error| call.of_pod(error))?;
        let request = requested(&call, attachment, &delegate, command).map_err(|error| call.of_pod(error))?;
        let failed = |error: multus_cni::Error| error.within(format!("network {:?}", delegate.name));
        let work = || work(&call, &delegate, &request);
        let done = timed_network(&*self.multus.observer, command, &delegate.name, work);
        Ok(done.map_err(|error| call.of_pod(failed(error).into()))?)
    }
}

impl Plugin for HotPlug {
    fn add(&self, attachment: &Attachment, invocation: &Invocation) -> Result<Pending, multus_cni::Error> {
        Ok(self.attach(attachment, invocation)?)
    }

    fn del(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        self.work(Command::Del, attachment, invocation, |call, delegate, request| {
            let renamed = attached_under_another_name(call, delegate, request)?;
            let (config, request) =
                renamed.as_ref().map_or((&delegate.config, request), |(config, request)| (config, request));
            let deleted = call.chain.del(config, request);
            let name = if renamed.is_some() { config.name().as_str() } else { &delegate.name };
            if let Err(error) = self.multus.device_info.remove(name, &request.attachment.id()) {
                warn!(%error, "a device-info file is left");
            }
            deleted
        })
    }

    fn check(&self, attachment: &Attachment, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        self.work(Command::Check, attachment, invocation, |call, delegate, request| {
            match Version::parse(delegate.config.version())? >= Version::V0_4_0 {
                true => call.chain.check(&delegate.config, request),
                // Plugins of that time have none.
                false => Ok(()),
            }
        })
    }

    fn status(&self, invocation: &Invocation) -> Result<(), multus_cni::Error> {
        let (call, delegate) = self.call(invocation)?;
        call.chain.status(&delegate.config)
    }

    fn gc(&self, _: &Invocation) -> Result<(), multus_cni::Error> {
        Err(multus_cni::Error::from_plugin(ErrorCode::InvalidEnvironment, NotServed))
    }
}

/// For a sandbox without an ADD of its own, or whose DEL is over, no DEL comes that would detach the network.
fn must_be_known(call: &Call<'_>, container: &ContainerId) -> Result<(), Error> {
    match call.scratch.load(container) {
        Ok(None) => {
            let (container, directory) = (container.to_string(), call.config.cni_dir.clone());
            Err(Error::UnknownSandbox { container, directory })
        }
        // DEL gets along without what cannot be read.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

/// A plugin that finds the interface there would fail, and then be told to delete it.
fn must_be_free(call: &Call<'_>, attachment: &Attachment) -> Result<(), Error> {
    let Attachment { container_id, ifname, .. } = attachment;
    let has_it = |cached: &CachedAttachment| {
        // What has no result is left from an ADD that died, and is the next one's to replace.
        cached.request.attachment.ifname == *ifname && !matches!(cached.result(), Ok(None))
    };
    match call.chain.cache.attachments(Some(container_id))?.into_iter().flatten().find(has_it) {
        Some(other) => Err(Error::InterfaceTaken { ifname: ifname.to_string(), other: other.network.to_string() }),
        None => Ok(()),
    }
}

/// What has the interface, where that is no network of the call's name: a definition may have been renamed since its ADD. By
/// the new name the plugin would delete the link, and leave the address of the old one.
fn attached_under_another_name(
    call: &Call<'_>,
    delegate: &Delegate,
    request: &AttachmentRequest,
) -> Result<Option<(NetworkConfigList, AttachmentRequest)>, multus_cni::Error> {
    let Attachment { container_id, ifname, netns } = &request.attachment;
    let mut attached = call.chain.cache.attachments(Some(container_id))?.into_iter().flatten().collect::<Vec<_>>();
    attached.retain(|cached| cached.request.attachment.ifname == *ifname);
    if attached.iter().any(|cached| cached.network == *delegate.config.name()) {
        return Ok(None);
    }
    let usable = |cached: CachedAttachment| {
        let mut request = cached.request.clone();
        request.attachment.netns.clone_from(netns);
        Some((cached.list().ok()?, request))
    };
    Ok(attached.into_iter().find_map(usable))
}

fn requested(
    call: &Call<'_>,
    attachment: &Attachment,
    delegate: &Delegate,
    command: Command,
) -> Result<AttachmentRequest, Error> {
    call.sandbox(attachment).request(delegate, attachment.ifname.clone(), command)
}
