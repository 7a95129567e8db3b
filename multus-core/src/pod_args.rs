//! What the runtime says of the pod in `CNI_ARGS`.

use multus_cni::{Args, FieldError, parse_ip};

use crate::{Error, PodReference, error::quoted};

/// The Kubernetes part of `CNI_ARGS`. What the runtime left out is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodArgs {
    /// `K8S_POD_NAMESPACE`, `K8S_POD_NAME` and `K8S_POD_UID`.
    pub pod: PodReference,
    /// `K8S_POD_INFRA_CONTAINER_ID`: the sandbox.
    pub infra_container_id: String,
}

impl PodArgs {
    /// Reads `CNI_ARGS`.
    ///
    /// # Errors
    /// When a pair is not `KEY=VALUE`, when there is an unknown key without `IgnoreUnknown`, or when `IP` is no address.
    pub fn parse(text: &str) -> Result<Self, Error> {
        const KEYS: [&str; 5] =
            ["IP", "K8S_POD_NAME", "K8S_POD_NAMESPACE", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID"];
        let args = Args::parse(text, &KEYS)?;
        if let Some(ip) = args.value("IP").filter(|ip| parse_ip(ip).is_none()) {
            return Err(
                FieldError::new("CNI_ARGS IP", format_args!("must be an IP address, not {}", quoted(ip))).into()
            );
        }
        let value = |key| args.value(key).unwrap_or_default().to_owned();
        Ok(Self {
            pod: PodReference {
                namespace: value("K8S_POD_NAMESPACE"),
                name: value("K8S_POD_NAME"),
                uid: value("K8S_POD_UID"),
            },
            infra_container_id: value("K8S_POD_INFRA_CONTAINER_ID"),
        })
    }

    /// The pairs for a delegate. `inherited` is a `CNI_ARGS` whose pairs follow those of our own: they fill what is
    /// empty, and are added besides. A piece of it that is no pair is left out.
    #[must_use]
    pub fn for_delegate(&self, inherited: &str) -> Vec<(String, String)> {
        let own = [
            ("IgnoreUnknown", "true"),
            ("K8S_POD_NAMESPACE", &self.pod.namespace),
            ("K8S_POD_NAME", &self.pod.name),
            ("K8S_POD_INFRA_CONTAINER_ID", &self.infra_container_id),
            ("K8S_POD_UID", &self.pod.uid),
        ];
        let mut pairs: Vec<(String, String)> = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        for (key, value) in inherited.split(';').filter_map(|pair| pair.split_once('=')) {
            match pairs.iter_mut().find(|(name, own)| name == key && own.is_empty()) {
                Some((_, empty)) => value.clone_into(empty),
                None => pairs.push((key.to_owned(), value.to_owned())),
            }
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pairs: &[(String, String)]) -> String {
        pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
    }

    #[test]
    fn a_delegate_gets_five_pairs_in_their_order() {
        let args = PodArgs::parse("IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_UID=u;X=y").unwrap();
        assert_eq!(args.pod.to_string(), "ns/p/u");
        assert_eq!(
            joined(&args.for_delegate("")),
            "IgnoreUnknown=true;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=;K8S_POD_UID=u"
        );
    }

    #[test]
    fn inherited_pairs_fill_what_is_empty_and_follow() {
        let inherited =
            "K8S_POD_NAME=dummy;K8S_POD_NAMESPACE=ns;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=aaaaa;B=f=bar;x";
        assert_eq!(
            joined(&PodArgs::default().for_delegate(inherited)),
            "IgnoreUnknown=true;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=dummy;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=aaaaa;B=f=bar"
        );
        let args = PodArgs::parse("K8S_POD_NAME=p").unwrap();
        assert!(joined(&args.for_delegate("K8S_POD_NAME=q")).ends_with("K8S_POD_UID=;K8S_POD_NAME=q"));
    }

    #[test]
    fn what_is_malformed_is_named() {
        let refused = |text: &str| PodArgs::parse(text).unwrap_err().to_string();
        assert_eq!(refused("K8S_POD_NAME:p"), r#"ARGS: invalid pair "K8S_POD_NAME:p""#);
        assert_eq!(refused("K8S_POD_NAME=p;NEW=x"), r#"ARGS: unknown args ["NEW=x"]"#);
        assert_eq!(refused("IP=10.0.0.1/24"), r#""CNI_ARGS IP" must be an IP address, not "10.0.0.1/24""#);
        let known = "IP=10.0.0.1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c;K8S_POD_INFRA_CONTAINER_ID=d";
        assert_eq!(PodArgs::parse(known).unwrap().infra_container_id, "d");
    }
}
