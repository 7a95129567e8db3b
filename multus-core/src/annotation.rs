//! The annotations by which pods ask for networks, see the Kubernetes Network Custom Resource Definition De-facto Standard.

use multus_cni::{Cidr, Document, FieldError, InterfaceName, Item, Object, RawObject, parse_ip};
use serde_json::value::RawValue;

use crate::{
    Bandwidth, Error, InterfaceRequest, NetworkSelection, Pod, PortMapping,
    error::{malformed, quoted},
    hardware_address::is_hardware_address,
    network_config::must_be_small,
};

/// Reads the annotation [`Pod::NETWORKS`]: a JSON list of objects, or `[namespace/]name[@interface]` separated by commas.
/// Without a namespace a network is in `namespace`. Nothing is asked for by the empty text.
///
/// # Errors
/// The first thing that is malformed.
pub fn parse_networks(text: &str, namespace: &str) -> Result<Vec<NetworkSelection>, Error> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    Annotation { key: Pod::NETWORKS, label: "networks" }.parse(text, namespace)
}

/// Reads the annotation [`Pod::DEFAULT_NETWORK`], in the same grammar, with exactly one network.
///
/// # Errors
/// When it is malformed, or names none or several networks.
pub fn parse_default_network(text: &str, namespace: &str) -> Result<NetworkSelection, Error> {
    let annotation = Annotation { key: Pod::DEFAULT_NETWORK, label: "default-network" };
    if text.is_empty() {
        return Err(
            annotation.malformed("is empty: pod annotation does not have \"network\" as key; remove it".to_owned())
        );
    }
    let mut networks = annotation.parse(text, namespace)?;
    match (networks.pop(), networks.len()) {
        (Some(network), 0) => Ok(network),
        (None, _) => Err(annotation.malformed("names no network; remove it".to_owned())),
        (Some(_), others) => {
            let count = others + 1;
            Err(annotation.malformed(format!("more than one default network is specified: {count}; leave one")))
        }
    }
}

/// More than anybody could attach before the kubelet gives up.
const MOST_NETWORKS: usize = 1000;

struct Annotation {
    key: &'static str,
    /// What paths in messages begin with: the key is long, and an event shows 150 characters.
    label: &'static str,
}

impl Annotation {
    fn parse(&self, text: &str, namespace: &str) -> Result<Vec<NetworkSelection>, Error> {
        if text.contains(['[', '{', '"']) {
            return self.parse_json(text, namespace);
        }
        self.must_be_few(text.split(',').count())?;
        let item = |(index, item): (usize, &str)| self.parse_item(index, item.trim(), namespace);
        text.split(',').enumerate().map(item).collect()
    }

    fn parse_item(&self, index: usize, item: &str, namespace: &str) -> Result<NetworkSelection, Error> {
        let malformed = |problem: &str| {
            let path = format!("{}[{index}]", self.label);
            let problem = format!("must be [namespace/]name[@interface], not {}: {problem}", quoted(item));
            Error::from(FieldError::new(path, problem))
        };
        let (before, rest) = item.split_once('/').unwrap_or(("", item));
        let (name, interface) = rest.split_once('@').unwrap_or((rest, ""));
        let (before, name, interface) = (before.trim(), name.trim(), interface.trim());
        if rest.contains('/') {
            return Err(malformed("there is more than one \"/\""));
        }
        if interface.contains('@') {
            return Err(malformed("there is more than one \"@\""));
        }
        if !(before.is_empty() || is_label(before)) {
            return Err(malformed("a namespace has lower case letters, digits and \"-\""));
        }
        if name.is_empty() {
            return Err(malformed("the name is missing"));
        }
        if !is_label(name) {
            return Err(malformed(
                "a name has lower case letters, digits and \"-\"; with \".\" it needs the JSON form",
            ));
        }
        let ifname = (!interface.is_empty()).then(|| interface.parse()).transpose();
        let ifname = ifname.map_err(|error: multus_cni::Error| malformed(&error.to_string()))?;
        Ok(NetworkSelection {
            namespace: if before.is_empty() { namespace } else { before }.to_owned(),
            name: name.to_owned(),
            request: InterfaceRequest { ifname, ..InterfaceRequest::default() },
        })
    }

    fn parse_json(&self, text: &str, namespace: &str) -> Result<Vec<NetworkSelection>, Error> {
        let no_list = |problem: String| {
            self.malformed(format!(
                "failed to parse pod Network Attachment Selection Annotation JSON format: {problem}; it must be a list \
                 such as [{{\"name\":\"net1\"}}]"
            ))
        };
        // As written first, which takes little memory, and is what is passed on.
        let document: &RawValue = serde_json::from_str(text).map_err(|error| no_list(problem(&error)))?;
        let elements: Vec<&RawValue> =
            serde_json::from_str(document.get()).map_err(|_| no_list("it is no list".to_owned()))?;
        self.must_be_few(elements.len())?;
        let element = |(index, raw): (usize, &&RawValue)| {
            let label = format!("{}[{index}]", self.label);
            must_be_small(raw.get().as_bytes(), &label)?;
            let document = Document::parse(raw.get().as_bytes()).map_err(no_list)?;
            parse_element(&document.root(&label), raw, namespace)
        };
        elements.iter().enumerate().map(element).collect()
    }

    /// Before the first of them is read: an annotation has room for a hundred thousand.
    fn must_be_few(&self, count: usize) -> Result<(), Error> {
        match count > MOST_NETWORKS {
            true => {
                Err(malformed(self.label, format_args!("asks for {count} networks; a pod can have {MOST_NETWORKS}")))
            }
            false => Ok(()),
        }
    }

    fn malformed(&self, problem: String) -> Error {
        Error::Annotation { annotation: self.key, problem }
    }
}

/// In the Go tools' words where those are known.
fn problem(error: &serde_json::Error) -> String {
    if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() }
}

fn parse_element(element: &Item<'_>, raw: &RawValue, namespace: &str) -> Result<NetworkSelection, Error> {
    let object = element.object()?;
    let named = |key, what| match object.string(key)? {
        Some(text) if !text.is_empty() && !is_name(text) => {
            let problem =
                format!("must be a {what}: lower case letters, digits, \"-\" and \".\", not {}", quoted(text));
            Err(FieldError::new(object.path_of(key), problem))
        }
        text => Ok(text.filter(|text| !text.is_empty())),
    };
    let name = named("name", "name")?.ok_or_else(|| FieldError::new(object.path_of("name"), "is missing"))?;
    let namespace = named("namespace", "namespace")?.unwrap_or(namespace);
    let request =
        parse_request(&object, raw).map_err(|error| Error::from(error).of_network(&format!("{namespace}/{name}")))?;
    Ok(NetworkSelection { namespace: namespace.to_owned(), name: name.to_owned(), request })
}

impl InterfaceRequest {
    /// Reads the wishes in the JSON object `text`, with the keys of an element of the networks annotation. Messages call it
    /// `label`.
    ///
    /// # Errors
    /// The first key that is malformed.
    pub fn parse(text: &str, label: &str) -> Result<Self, Error> {
        let refused = || malformed(label, "must be a JSON object");
        let document = Document::parse(text.as_bytes()).map_err(|_| refused())?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| refused())?;
        let root = document.root(label);
        Ok(parse_request(&root.object().map_err(|_| refused())?, raw)?)
    }
}

fn parse_request(object: &Object<'_>, raw: &RawValue) -> Result<InterfaceRequest, FieldError> {
    let text = |key| object.string(key).map(|text| text.filter(|text| !text.is_empty()));
    let hardware_address = |key| match text(key)? {
        Some(text) if !is_hardware_address(text) => {
            Err(must_be(object.path_of(key), "a hardware address such as 02:00:00:00:00:01", text))
        }
        text => Ok(text.map(str::to_owned)),
    };
    Ok(InterfaceRequest {
        ifname: match text("interface")? {
            Some(_) => interface(object, "interface")?,
            None => interface(object, "interfaceRequest")?,
        },
        ips: ips(object)?,
        mac: hardware_address("mac")?,
        infiniband_guid: hardware_address("infiniband-guid")?,
        port_mappings: PortMapping::parse_all(object)?,
        bandwidth: Bandwidth::parse(object)?,
        device_id: text("deviceID")?.map(str::to_owned),
        cni_args: cni_args(object, raw)?,
        default_route: object.item("default-route").map(|list| gateways(&list)).transpose()?,
    })
}

fn interface(object: &Object<'_>, key: &str) -> Result<Option<InterfaceName>, FieldError> {
    let text = object.string(key)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |error: multus_cni::Error| {
        FieldError::new(
            object.path_of(key),
            format_args!("must be a name for an interface, not {}: {error}", quoted(text)),
        )
    };
    text.parse().map(Some).map_err(refused)
}

fn ips(object: &Object<'_>) -> Result<Vec<String>, FieldError> {
    let read = |item: &Item<'_>| {
        let text = item.string()?;
        let good = if text.contains('/') { text.parse::<Cidr>().is_ok() } else { parse_ip(text).is_some() };
        if good { Ok(text.to_owned()) } else { Err(must_be(item.path(), "an address such as 10.1.1.11/24", text)) }
    };
    object.array("ips")?.iter().map(read).collect()
}

fn gateways(list: &Item<'_>) -> Result<Vec<std::net::IpAddr>, FieldError> {
    let read = |item: &Item<'_>| {
        let text = item.string()?;
        parse_ip(text).ok_or_else(|| must_be(item.path(), "the address of a gateway such as 10.1.1.1", text))
    };
    list.array()?.iter().map(read).collect()
}

/// The value is not repeated in the message: what plugins are told may be secret.
fn cni_args(object: &Object<'_>, raw: &RawValue) -> Result<Option<RawObject>, FieldError> {
    if object.item("cni-args").is_none() {
        return Ok(None);
    }
    let args = RawObject::parse(raw.get().as_bytes()).ok().and_then(|element| element.object("cni-args").ok());
    args.map(Some).ok_or_else(|| FieldError::new(object.path_of("cni-args"), "must be an object"))
}

fn must_be(path: impl Into<String>, wanted: &str, found: &str) -> FieldError {
    FieldError::new(path, format_args!("must be {wanted}, not {}", quoted(found)))
}

/// What Kubernetes takes for a name.
fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// What Kubernetes takes for a name without dots.
fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = text.bytes().all(|byte| plain(byte) || byte == b'-');
    inner && text.len() <= 253 && text.bytes().next().is_some_and(plain) && text.bytes().last().is_some_and(plain)
}
