//! Requests.

use std::collections::BTreeMap;

/// A request as an authorizer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Such as `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The API group; empty for the core's.
    pub group: String,
    /// Such as `pods` or `pods/status`.
    pub resource: String,
    /// The namespace; empty for all of them.
    pub namespace: String,
    /// The name; empty for all objects.
    pub name: String,
    /// The query's parameters.
    pub query: BTreeMap<String, String>,
    /// Whether only metadata was asked for.
    pub metadata_only: bool,
    /// Who asked: the common name of the client's certificate; else empty.
    pub user: String,
    /// The length of the request's body.
    pub body_length: usize,
}

/// A request with all that came with it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) asked: Asked,
    pub(crate) api_version: String,
    pub(crate) authorization: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Reads method and path, as `/api/v1/namespaces/web/pods/nginx-0/status?watch=true`.
    pub(crate) fn new(method: &str, target: &str, headers: &BTreeMap<String, String>, body: Vec<u8>) -> Option<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let query: BTreeMap<String, String> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (decode(key), decode(value)))
            .collect();
        let mut parts = path.trim_start_matches('/').split('/').map(decode);
        let api_version = match (parts.next()?.as_str(), parts.next()?) {
            ("api", version) => version,
            ("apis", group) => format!("{group}/{}", parts.next()?),
            _ => return None,
        };
        let mut parts: Vec<String> = parts.collect();
        let namespace = match parts.first().is_some_and(|first| first == "namespaces") && parts.len() > 2 {
            true => parts.drain(..2).nth(1)?,
            false => String::new(),
        };
        let mut parts = parts.into_iter();
        let (resource, name) = (parts.next()?, parts.next().unwrap_or_default());
        let resource = match parts.next() {
            Some(subresource) => format!("{resource}/{subresource}"),
            None => resource,
        };
        let is_watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
        let verb = match (method, name.is_empty()) {
            ("GET", true) if is_watch => "watch",
            ("GET", true) => "list",
            ("GET", false) => "get",
            ("POST", _) => "create",
            ("PUT", false) => "update",
            ("PATCH", false) => "patch",
            ("DELETE", false) => "delete",
            _ => return None,
        };
        let header = |name: &str| headers.get(name).cloned();
        let metadata_only = header("accept").is_some_and(|accept| accept.contains("as=PartialObjectMetadata"));
        let body_length = body.len();
        let asked = Asked {
            verb: verb.to_owned(),
            group: api_version.split_once('/').map(|(group, _)| group).unwrap_or_default().to_owned(),
            resource,
            namespace,
            name,
            query,
            metadata_only,
            user: String::new(),
            body_length,
        };
        Some(Self {
            asked,
            api_version,
            authorization: header("authorization"),
            content_type: header("content-type").unwrap_or_default(),
            body,
        })
    }
}

fn decode(text: &str) -> String {
    let mut decoded = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap_or_default(), bytes.next().unwrap_or_default()];
                str::from_utf8(&digits).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(b'?')
            }
            byte => byte,
        });
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
