//! `CNI_ARGS`.

use multus_cni::Args;
use multus_core::PodArgs;

use crate::message;

/// Pairs that are passed on mean to a delegate what they meant here.
pub fn arguments(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Args::parse(&text, &["IP", "MAC"]) {
        Ok(args) => {
            for value in ["IP", "MAC"].into_iter().filter_map(|key| args.value(key)) {
                assert!(!value.is_empty() && !value.contains([';', '=']));
            }
            assert_eq!(Args::parse(&text, &["IP", "MAC"]).unwrap(), args);
        }
        Err(error) => message::check_length(&error),
    }
    match PodArgs::parse(&text) {
        Ok(args) => {
            let pairs: Vec<String> =
                args.for_delegate("").iter().map(|(key, value)| format!("{key}={value}")).collect();
            assert_eq!(PodArgs::parse(&pairs.join(";")).unwrap(), args);
            let _whatever_is_inherited = args.for_delegate(&text);
        }
        Err(error) => message::check_length(&error),
    }
}
