//! What delegates are run with.

use multus_cni::{Attachment, AttachmentRequest, Command, InterfaceName};

use crate::{Delegate, DeviceInfoFiles, Error, PodArgs, RuntimeConfig};

/// The sandbox, and what the runtime says about it.
#[derive(Clone, Debug)]
pub struct Sandbox<'a> {
    /// The sandbox and the interface of the first delegate.
    pub attachment: &'a Attachment,
    /// The pod.
    pub args: &'a PodArgs,
    /// A `CNI_ARGS` that is passed on; empty in a daemon, whose environment has none.
    pub inherited_args: &'a str,
    /// What the runtime offers by capability.
    pub runtime_config: &'a RuntimeConfig,
}

impl Sandbox<'_> {
    /// What each of `delegates` is run with for `command`: its interface, `CNI_ARGS`, and what is offered by capability.
    ///
    /// # Errors
    /// When two of them would have the same interface.
    pub fn requests(&self, delegates: &[Delegate], command: Command) -> Result<Vec<AttachmentRequest>, Error> {
        let mut requests: Vec<AttachmentRequest> = Vec::with_capacity(delegates.len());
        for (index, delegate) in delegates.iter().enumerate() {
            let ifname = self.interface_name(index, delegate)?;
            let taken = |(_, request): &(&Delegate, &AttachmentRequest)| request.attachment.ifname == ifname;
            if let Some((other, _)) = delegates.iter().zip(&requests).find(taken) {
                let error = Error::InterfaceTaken { ifname: ifname.to_string(), other: other.name.clone() };
                return Err(error.of_network(&delegate.name).of_pod(&self.args.pod));
            }
            let mut runtime_config = self.runtime_config.clone();
            // For the first, the runtime's own wishes count.
            if index > 0 {
                override_with_request(&mut runtime_config, delegate);
            }
            requests.push(self.run_with(delegate, ifname, runtime_config, command)?);
        }
        Ok(requests)
    }

    /// What `delegate` is run with by itself, for the interface `ifname`.
    pub(crate) fn request(
        &self,
        delegate: &Delegate,
        ifname: InterfaceName,
        command: Command,
    ) -> Result<AttachmentRequest, Error> {
        let mut runtime_config = self.runtime_config.clone();
        override_with_request(&mut runtime_config, delegate);
        self.run_with(delegate, ifname, runtime_config, command)
    }

    fn run_with(
        &self,
        delegate: &Delegate,
        ifname: InterfaceName,
        mut runtime_config: RuntimeConfig,
        command: Command,
    ) -> Result<AttachmentRequest, Error> {
        let attachment = Attachment { ifname, ..self.attachment.clone() };
        // In place of one from the runtime, which knows neither network nor interface.
        if delegate.device_id.is_some() || !runtime_config.device_id.is_empty() {
            runtime_config.device_info_file = DeviceInfoFiles::path_for_plugin(&delegate.name, &attachment.id());
        }
        let capability_args = runtime_config.capability_args()?;
        Ok(AttachmentRequest { attachment, args: self.args(delegate, command), capability_args })
    }

    fn interface_name(&self, index: usize, delegate: &Delegate) -> Result<InterfaceName, Error> {
        match &delegate.request.ifname {
            Some(ifname) => Ok(ifname.clone()),
            None if index == 0 => Ok(self.attachment.ifname.clone()),
            None => Ok(format!("net{index}").parse()?),
        }
    }

    fn args(&self, delegate: &Delegate, command: Command) -> Vec<(String, String)> {
        let mut args = self.args.for_delegate(self.inherited_args);
        if command == Command::Add {
            let request = &delegate.request;
            args.extend(request.mac.iter().map(|mac| ("MAC".to_owned(), mac.clone())));
            args.extend((!request.ips.is_empty()).then(|| ("IP".to_owned(), request.ips.join(","))));
        }
        args
    }
}

fn override_with_request(config: &mut RuntimeConfig, delegate: &Delegate) {
    let request = &delegate.request;
    if !request.port_mappings.is_empty() {
        config.port_mappings.clone_from(&request.port_mappings);
    }
    if request.bandwidth.is_some() {
        config.bandwidth = request.bandwidth;
    }
    if !request.ips.is_empty() {
        config.ips.clone_from(&request.ips);
    }
    for (offered, asked) in [
        (&mut config.mac, &request.mac),
        (&mut config.infiniband_guid, &request.infiniband_guid),
        (&mut config.device_id, &delegate.device_id),
    ] {
        if let Some(asked) = asked {
            offered.clone_from(asked);
        }
    }
}
