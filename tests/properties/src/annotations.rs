//! The annotations of pods.

use multus_core::{InterfaceRequest, NetworkSelection, parse_default_network, parse_networks};

use crate::message;

/// Names are such as Kubernetes has, and what is asked for in the short form is asked for again by its own words.
pub fn annotations(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_networks(&text, "web") {
        Ok(networks) => networks.iter().for_each(check),
        Err(error) => message::check(data, &error),
    }
    match parse_default_network(&text, "web") {
        Ok(network) => check(&network),
        Err(error) => message::check(data, &error),
    }
    if let Err(error) = InterfaceRequest::parse(&text, "interfaceAttributes") {
        message::check(data, &error);
    }
}

fn check(network: &NetworkSelection) {
    let NetworkSelection { namespace, name, request } = network;
    for word in [namespace, name] {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        assert!(!word.is_empty() && word.len() <= 253 && word.chars().all(is_plain), "{word:?}");
    }
    if !format!("{namespace}{name}").contains('.') {
        let interface = request.ifname.as_ref().map(ToString::to_string).unwrap_or_default();
        // An interface may be called by what the short form has a meaning for.
        if !interface.chars().any(|c| ",@[{\"".contains(c) || c.is_whitespace()) {
            let again = parse_networks(format!("{network}@{interface}").trim_end_matches('@'), "").unwrap().remove(0);
            assert_eq!((&again.namespace, &again.name, &again.request.ifname), (namespace, name, &request.ifname));
        }
    }
}
