//! A request on the socket, as a call of a plugin.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use multus_cni::{
    Attachment, Command, ContainerId, Environment, Error, ErrorCode, FieldError, Invocation, NetworkConfig,
    refuse_own_netns,
};
use multus_core::{InterfaceRequest, PodArgs};
use multus_shim::{MalformedRequest, Request};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::options::Overrides;

/// What to do, with everything that it takes.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    /// For ADD, DEL and CHECK.
    pub(crate) attachment: Option<Attachment>,
    pub(crate) invocation: Invocation,
    /// Of all networks of the pod, or of one.
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Sandbox,
    Network,
}

/// What requests do not say.
pub(crate) struct Surroundings {
    pub(crate) overrides: Overrides,
    /// The daemon's configuration file: all that there is for a request that brings only a network's.
    pub(crate) settings: Vec<u8>,
    /// Of the daemon: executed plugins inherit it, and `CNI_PATH` is searched after the `binDir`. Those of the request are
    /// the host's.
    pub(crate) environment: Environment,
    /// Where the host's files are.
    pub(crate) root: PathBuf,
}

/// A request that no plugin can be called with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error(transparent)]
    Malformed(#[from] MalformedRequest),
    #[error("{0} is missing in the request's \"env\"")]
    Missing(&'static str),
    #[error("CNI_COMMAND {0:?} is none of ADD, DEL, CHECK, GC, STATUS")]
    Command(String),
    #[error("a spool keeps DELs, and not {0}")]
    NoDel(&'static str),
    #[error("invalid CNI_ARG: {0} is missing in CNI_ARGS; the runtime must say which pod it means")]
    NoPod(&'static str),
    #[error("invalid CNI_ARG: {0}")]
    Args(multus_core::Error),
    #[error(transparent)]
    Protocol(#[from] Error),
}

impl Call {
    /// Reads a request about all networks of a pod.
    pub(crate) fn parse(body: &[u8], surroundings: &Arc<Surroundings>) -> Result<Self, Unusable> {
        Self::new(&Request::parse(body)?, surroundings)
    }

    /// Reads a request about one network of a pod, and what it asks for besides in `interfaceAttributes`.
    pub(crate) fn parse_of_network(
        body: &[u8],
        surroundings: &Arc<Surroundings>,
    ) -> Result<(Self, InterfaceRequest), Unusable> {
        #[derive(Deserialize)]
        struct Besides {
            #[serde(rename = "interfaceAttributes")]
            attributes: Option<Box<RawValue>>,
        }
        let request = Request::parse(body)?;
        // That was JSON with one of each key of its own; so is this, unless it has this one twice.
        let twice = |_| Error::from(FieldError::new("interfaceAttributes", "is there twice"));
        let Besides { attributes } = serde_json::from_slice(body).map_err(twice)?;
        let parse = |attributes: Box<RawValue>| InterfaceRequest::parse(attributes.get(), "interfaceAttributes");
        let wishes = attributes.map(parse).transpose().map_err(Error::from)?;
        Ok((Self::of_network(&request, surroundings)?, wishes.unwrap_or_default()))
    }

    /// For all networks of a pod.
    pub(crate) fn new(request: &Request, surroundings: &Arc<Surroundings>) -> Result<Self, Unusable> {
        Self::with_config(request, surroundings.overrides.apply(&request.config)?, surroundings, Scope::Sandbox)
    }

    fn of_network(request: &Request, surroundings: &Arc<Surroundings>) -> Result<Self, Unusable> {
        Self::with_config(request, request.config.clone(), surroundings, Scope::Network)
    }

    fn with_config(
        request: &Request,
        config: Vec<u8>,
        surroundings: &Arc<Surroundings>,
        scope: Scope,
    ) -> Result<Self, Unusable> {
        let value = |name: &'static str| request.environment.get(name).map(String::as_str);
        let present = |name| value(name).ok_or(Unusable::Missing(name));
        let word = present("CNI_COMMAND")?;
        let known = Command::parse(word).ok().filter(|command| *command != Command::Version);
        let command = known.ok_or_else(|| Unusable::Command(word.chars().take(60).collect()))?;
        let attachment = match command {
            Command::Gc | Command::Status | Command::Version => None,
            Command::Add | Command::Del | Command::Check => {
                let ifname = match value("CNI_IFNAME").filter(|name| !name.is_empty()) {
                    Some(ifname) => ifname,
                    None if scope == Scope::Sandbox => "eth0",
                    // It is the pod's own, and no single network's to take or to delete.
                    None => return Err(Unusable::Missing("CNI_IFNAME")),
                };
                Some(Attachment {
                    container_id: present("CNI_CONTAINERID")?.parse()?,
                    ifname: ifname.parse()?,
                    netns: Some(present("CNI_NETNS")?).filter(|path| !path.is_empty()).map(PathBuf::from),
                })
            }
        };
        let args = value("CNI_ARGS").unwrap_or_default();
        if matches!(command, Command::Add | Command::Check) {
            name_a_pod(present("CNI_ARGS")?)?;
        }
        let mut invocation = Invocation::new(NetworkConfig::parse(config)?);
        args.clone_into(&mut invocation.args);
        let path = surroundings.environment.value("CNI_PATH");
        invocation.path = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
        invocation.environment = surroundings.environment.clone();
        invocation.root.clone_from(&surroundings.root);
        if let (Command::Add | Command::Del, Some(attachment)) = (command, &attachment) {
            // The shim has looked, but not every one that there is, and nobody who asks for a single network.
            refuse_own_netns(attachment, &invocation)?;
        }
        Ok(Self { command, attachment, invocation, scope })
    }

    /// Whether nothing is to be left of the sandbox's networks.
    pub(crate) fn is_end(&self) -> bool {
        self.command == Command::Del && self.scope == Scope::Sandbox
    }

    /// The sandbox that it is about.
    pub(crate) fn sandbox(&self) -> Option<&ContainerId> {
        self.attachment.as_ref().map(|attachment| &attachment.container_id)
    }
}

impl Unusable {
    /// As a plugin would fail.
    pub(crate) fn into_error(self) -> Error {
        if let Self::Protocol(error) = self {
            return error;
        }
        Error::from_plugin(ErrorCode::InvalidEnvironment, self)
    }
}

fn name_a_pod(args: &str) -> Result<(), Unusable> {
    let pod = PodArgs::parse(args).map_err(Unusable::Args)?.pod;
    let named = [("K8S_POD_NAMESPACE", pod.namespace), ("K8S_POD_NAME", pod.name)];
    match named.into_iter().find(|(_, value)| value.is_empty()) {
        Some((key, _)) => Err(Unusable::NoPod(key)),
        None => Ok(()),
    }
}

impl Surroundings {
    pub(crate) fn new(overrides: Overrides, settings: &[u8], environment: Environment, root: &Path) -> Self {
        Self { overrides, settings: settings.to_owned(), environment, root: root.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(environment: &[(&str, &str)]) -> Result<Call, String> {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let request = Request { environment: environment.collect(), config: br#"{"name":"n"}"#.to_vec() };
        let surroundings =
            Arc::new(Surroundings::new(Overrides::default(), b"{}", Environment::default(), Path::new("/host")));
        Call::new(&request, &surroundings).map_err(|error| error.into_error().to_string())
    }

    #[test]
    fn a_request_becomes_a_call() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p";
        let netns = ("CNI_NETNS", "/run/netns/x");
        let add = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), netns, ("CNI_ARGS", args)];
        let call = call(&add).unwrap();
        let attachment = call.attachment.unwrap();
        assert_eq!((attachment.ifname.as_str(), attachment.sandbox().as_str()), ("eth0", "/run/netns/x"));
        assert_eq!(call.invocation.args, args);
        assert_eq!(call.invocation.on_host(Path::new("/a")), Path::new("/host/a"));
    }

    #[test]
    fn every_request_of_the_corpus_is_a_call_or_refused() {
        let surroundings = Surroundings::new(Overrides::default(), b"{}", Environment::default(), Path::new("/host"));
        let surroundings = Arc::new(surroundings);
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/daemon_request");
        let inputs: Vec<Vec<u8>> =
            std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        assert!(inputs.iter().any(|body| Call::parse(body, &surroundings).is_ok()));
        for body in inputs {
            let outcomes =
                [Call::parse(&body, &surroundings).map(drop), Call::parse_of_network(&body, &surroundings).map(drop)];
            for refused in outcomes.into_iter().filter_map(Result::err) {
                let message = refused.into_error().to_string();
                assert!((1..1000).contains(&message.chars().count()), "{message}");
            }
        }
    }

    #[test]
    fn del_needs_neither_pod_nor_namespace() {
        let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "")];
        assert_eq!(call(&del).unwrap().attachment.unwrap().netns, None);
        assert!(call(&[("CNI_COMMAND", "STATUS")]).unwrap().attachment.is_none());
    }

    #[test]
    fn wishes_that_are_given_twice_are_refused_rather_than_dropped() {
        let surroundings = Surroundings::new(Overrides::default(), b"{}", Environment::default(), Path::new("/"));
        let surroundings = Arc::new(surroundings);
        let wishes = |wishes: &str| {
            let env = r#"{"CNI_COMMAND":"DEL","CNI_CONTAINERID":"c1","CNI_NETNS":"","CNI_IFNAME":"net1"}"#;
            let body = format!(r#"{{"env":{env},"config":"eyJuYW1lIjoibiJ9"{wishes}}}"#);
            Call::parse_of_network(body.as_bytes(), &surroundings)
                .map(|(_, wishes)| wishes.mac)
                .map_err(|error| error.into_error().to_string())
        };
        let once = r#","interfaceAttributes":{"mac":"02:00:00:00:00:01"}"#;
        assert_eq!(wishes(""), Ok(None));
        assert_eq!(wishes(r#","interfaceAttributes":null"#), Ok(None));
        assert_eq!(wishes(once), Ok(Some("02:00:00:00:00:01".to_owned())));
        assert_eq!(wishes(&once.repeat(2)), Err("\"interfaceAttributes\" is there twice".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |environment: &[(&str, &str)]| call(environment).unwrap_err();
        assert_eq!(refused(&[]), "CNI_COMMAND is missing in the request's \"env\"");
        assert!(refused(&[("CNI_COMMAND", "VERSION")]).starts_with("CNI_COMMAND \"VERSION\" is none of"));
        assert_eq!(refused(&[("CNI_COMMAND", "DEL")]), "CNI_CONTAINERID is missing in the request's \"env\"");
        let add = |args| refused(&[("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c"), ("CNI_NETNS", "/n"), args]);
        assert!(add(("CNI_ARGS", "K8S_POD_NAMESPACE=ns")).starts_with("invalid CNI_ARG: K8S_POD_NAME is missing"));
        assert!(add(("CNI_ARGS", "K8S_POD_NAMESPACE")).starts_with("invalid CNI_ARG: ARGS: invalid pair"));
    }
}
