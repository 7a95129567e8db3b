//! Requests on the daemon's socket.

use multus_cni::{Command, ContainerId, InterfaceName, NetworkConfig};
use multus_core::{InterfaceRequest, PodArgs};
use multus_shim::Request;

use crate::{configurations, message};

/// A request is read again from its own words, and whatever it brings is read or refused.
pub fn daemon_request(data: &[u8]) {
    let request = match Request::parse(data) {
        Ok(request) => request,
        Err(error) => return message::check(data, &error),
    };
    assert_eq!(Request::parse(&request.print()).unwrap(), request);
    let text = |name: &str| request.environment.get(name).map(String::as_str).unwrap_or_default();
    let failures = [
        Command::parse(text("CNI_COMMAND")).err().map(|error| error.to_string()),
        text("CNI_CONTAINERID").parse::<ContainerId>().err().map(|error| error.to_string()),
        text("CNI_IFNAME").parse::<InterfaceName>().err().map(|error| error.to_string()),
        PodArgs::parse(text("CNI_ARGS")).err().map(|error| error.to_string()),
        NetworkConfig::parse(request.config.as_slice()).err().map(|error| error.to_string()),
        InterfaceRequest::parse(&String::from_utf8_lossy(data), "interfaceAttributes")
            .err()
            .map(|error| error.to_string()),
    ];
    failures.iter().flatten().for_each(|error| message::check(data, error));
    configurations::multus_config(&request.config);
}
