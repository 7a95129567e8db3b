//! Configurations of networks and of Multus itself.

use host_local_ipam::{HostLocal, Range};
use multus_cni::{Document, Invocation, NetworkConfig, NetworkConfigList};
use multus_core::{Config, Delegate};

use crate::message;

/// A configuration stays what was written; a list hands each plugin what it can read.
pub fn network_config(data: &[u8]) {
    match NetworkConfig::parse(data) {
        Ok(config) => network(data, config),
        Err(error) => message::check(data, &error),
    }
    for list in [NetworkConfigList::parse(data), NetworkConfigList::parse_either(data)] {
        match list {
            Ok(list) => read_list(data, &list),
            Err(error) => message::check(data, &error),
        }
    }
    if let Err(error) = Document::parse(data) {
        message::check(data, &error);
    }
}

fn network(data: &[u8], config: NetworkConfig) {
    assert_eq!(config.bytes(), data);
    let mut invocation = Invocation::new(config);
    if let Err(error) = invocation.config.version() {
        message::check(data, &error);
    }
    if let Err(error) = invocation.config.previous_result() {
        message::check(data, &error);
    }
    if let Err(error) = invocation.config.valid_attachments() {
        message::check(data, &error);
    }
    // Files that it names are none of its words.
    invocation.root = "/nonexistent".into();
    if let Err(error) = macvlan::Config::parse(&invocation) {
        message::check(data, &error);
    }
    match host_local_ipam::Config::parse(&invocation) {
        Ok(config) => config.sets.iter().flat_map(|set| set.ranges()).for_each(range),
        Err(error) => message::check(data, &error),
    }
    let host_local = HostLocal::in_memory();
    let _in_memory = host_local.watched(&invocation, 64).and_then(|watched| host_local.usage(&watched));
}

fn range(range: &Range) {
    assert!(range.first() <= range.last());
    assert!(range.contains(range.first()) && range.contains(range.last()));
    assert!(range.subnet().contains(range.first()) && range.subnet().contains(range.last()));
    assert!(range.size() > 0 && range.overlaps(range));
}

fn read_list(data: &[u8], list: &NetworkConfigList) {
    assert!(!list.is_empty() && list.types().all(|kind| !kind.is_empty()));
    for index in 0..list.len() {
        match list.plugin(index, &[]) {
            Ok(config) => assert_eq!(config.name(), list.name()),
            Err(error) => message::check(data, &error),
        }
    }
    let again = NetworkConfigList::parse_either(list.bytes()).unwrap();
    assert_eq!((again.len(), again.name(), again.version()), (list.len(), list.name(), list.version()));
}

/// Every delegate can be run, and remembered.
pub fn multus_config(data: &[u8]) {
    match Config::parse(data) {
        Ok(config) => {
            if let multus_core::Master::Inline(delegates) = config.master {
                assert!(!delegates.is_empty());
                for list in delegates {
                    read_list(data, &Delegate::new(list).config);
                }
            }
            assert!(Config::parse_settings(data).is_ok());
        }
        Err(error) => message::check(data, &error),
    }
    if let Err(error) = Config::parse_settings(data) {
        message::check(data, &error);
    }
}
