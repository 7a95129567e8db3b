//! Attaching a sandbox to its networks.

use std::{
    thread,
    time::{Duration, Instant},
};

use multus_cni::{Attachment, AttachmentRequest, Command, Pending, Success, Version};
use tracing::{info, warn};

use super::Call;
use crate::{
    Delegate, Error, Event, NetworkStatus, Pod, Step,
    attached::{Attached, Before},
    observer::{timed, timed_network},
    route_steering,
};

/// How long an ADD waits for the readiness indicator file, and how often it looks.
const READINESS: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(1));

impl Call<'_> {
    pub(super) fn attach(&self, attachment: &Attachment) -> Result<Pending, Error> {
        self.wait_until_ready()?;
        let turn = self.turn(&attachment.container_id)?;
        let observer = &*self.multus.observer;
        let pod = timed(observer, Step::Pod, || self.pod())?;
        let delegates = timed(observer, Step::Plan, || self.plan(pod.as_ref()))?;
        let requests = self.sandbox(attachment).requests(&delegates, Command::Add)?;
        // Of an ADD before, which is not this one's to forget.
        let before = self.scratch.load(&attachment.container_id).ok().flatten().unwrap_or_default();
        self.scratch.save(&attachment.container_id, &delegates)?;

        let mut attached = Attached::new(self.multus.device_info.clone(), turn);
        let (scratch, container) = (self.scratch.clone(), attachment.container_id.clone());
        attached.note_before(Before { scratch, container, delegates: before });
        match self.attach_all(&mut attached, &delegates, &requests, pod.as_ref()) {
            Ok(success) => Ok(Pending::new(success, attached)),
            Err(cause) => Err(match attached.take_back_after(&cause) {
                Ok(()) => cause,
                Err(remains) => Error::NotUndone { cause: Box::new(cause), remains },
            }),
        }
    }

    /// Attaches to each network in order, reports to the cluster, and returns the result of the first.
    fn attach_all(
        &self,
        attached: &mut Attached,
        delegates: &[Delegate],
        requests: &[AttachmentRequest],
        pod: Option<&Pod>,
    ) -> Result<Success, Error> {
        let observer = &*self.multus.observer;
        let attach_one = |attached: &mut Attached, delegate: &Delegate, request| {
            let attach = || self.attach_one(attached, delegate, request);
            timed_network(observer, Command::Add, &delegate.name, attach)
        };
        let successes: Vec<Success> = timed(observer, Step::Attach, || {
            let both = delegates.iter().zip(requests);
            both.map(|(delegate, request)| attach_one(attached, delegate, request)).collect::<Result<_, _>>()
        })?;
        let mut first = None;
        let mut statuses = Vec::new();
        let mut events = Vec::new();
        for ((delegate, request), success) in delegates.iter().zip(requests).zip(successes) {
            let id = request.attachment.id();
            let device_info = self.multus.device_info.read(&delegate.name, &id).unwrap_or_else(|error| {
                warn!(%error, "a device-info file is left out of the network status");
                None
            });
            let mut in_the_end = success.clone();
            delegate.default_routes.apply(&mut in_the_end);
            statuses.extend(NetworkStatus::of(&in_the_end, &delegate.name, first.is_none(), device_info.as_ref()));
            events.extend(Event::added_interface(request.attachment.ifname.as_str(), &success, &delegate.name));
            info!(network = delegate.name, container = id.container_id, interface = id.ifname, "attached");
            first.get_or_insert(success);
        }
        if let (Some(cluster), Some(pod)) = (&self.cluster, pod) {
            let is_system = self.config.system_namespaces.contains(&pod.reference.namespace);
            if !statuses.is_empty() && !is_system {
                let text = NetworkStatus::print(&statuses);
                timed(observer, Step::Status, || cluster.set_network_status(&pod.reference, &text))?;
            }
            for event in events {
                cluster.emit(&pod.reference, event);
            }
        }
        Ok(first.unwrap_or_default())
    }

    fn attach_one(
        &self,
        attached: &mut Attached,
        delegate: &Delegate,
        request: &AttachmentRequest,
    ) -> Result<Success, Error> {
        let failed = |source| Error::Delegate { network: delegate.name.clone(), source };
        let id = request.attachment.id();
        if let (Some(resource), Some(device)) = (&delegate.resource_name, &delegate.device_id)
            && let Err(error) = self.multus.device_info.copy(resource, device, &delegate.name, &id)
        {
            warn!(%error, "a device-info file is not passed on");
        }
        // Also where the plugin makes the file.
        attached.note_device_info(&delegate.name, &id);
        let pending = self.chain.add(&delegate.config, request).map_err(failed)?;
        let success = pending.success().clone();
        attached.note(pending);
        let has_interface = !success.interfaces.is_empty() || !success.ips.is_empty();
        if has_interface && !delegate.default_routes.is_keep() {
            self.steer(delegate, request, &success)?;
        }
        Ok(success)
    }

    /// Makes the interface's default routes what the pod asks for, in the kernel and in what CHECK compares with.
    fn steer(&self, delegate: &Delegate, request: &AttachmentRequest, success: &Success) -> Result<(), Error> {
        let attachment = &request.attachment;
        let failed = |source| Error::Delegate { network: delegate.name.clone(), source };
        if let Some(netns) = &attachment.netns {
            let steered = route_steering::steer(
                &self.invocation.on_host(netns),
                attachment.ifname.as_str(),
                &delegate.default_routes,
            );
            steered.map_err(|source| Error::DefaultRoutes { ifname: attachment.ifname.to_string(), source })?;
        }
        let network = delegate.config.name();
        if let Some(cached) = self.chain.cache.read(network, attachment).map_err(failed)? {
            let mut steered = success.clone();
            delegate.default_routes.apply(&mut steered);
            let version = Version::parse(delegate.config.version()).map_err(failed)?;
            let cached = cached.with_result(&steered, version).map_err(failed)?;
            self.chain.cache.write(&cached).map_err(failed)?;
        }
        Ok(())
    }

    fn wait_until_ready(&self) -> Result<(), Error> {
        let (patience, pause) = READINESS;
        let deadline = Instant::now() + patience;
        while Instant::now() + pause < deadline {
            match self.is_ready() {
                Err(Error::NotReady(_)) => thread::sleep(pause),
                other => return other,
            }
        }
        self.is_ready()
    }
}
