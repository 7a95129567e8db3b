//! Answers to requests that are no watches.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::{
    request::Request,
    store::{KINDS, Key, Kind, Store},
};

/// Who asks for a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Requester {
    pub(crate) name: String,
    pub(crate) groups: Vec<String>,
}

/// An HTTP status and an object.
pub(crate) type Answer = (u16, Value);

/// What `request` is about.
pub(crate) fn kind(request: &Request) -> Result<&'static Kind, Answer> {
    let (resource, subresource) = split(&request.asked.resource);
    let kind = KINDS.iter().find(|kind| kind.resource == resource && kind.api_version == request.api_version);
    let is_known = |kind: &&Kind| match subresource {
        "" => true,
        "status" => kind.has_status,
        "approval" => kind.resource == "certificatesigningrequests",
        _ => false,
    };
    match kind.filter(is_known) {
        Some(kind) => Ok(kind),
        None => Err(refusal(404, "", "the server could not find the requested resource")),
    }
}

/// Carries `request` out.
pub(crate) fn answer(
    store: &mut Store,
    kind: &'static Kind,
    request: &Request,
    selector: &Selector,
    requester: &Requester,
) -> Answer {
    act(store, kind, request, selector, requester).unwrap_or_else(|refusal| refusal)
}

fn act(
    store: &mut Store,
    kind: &'static Kind,
    request: &Request,
    selector: &Selector,
    requester: &Requester,
) -> Result<Answer, Answer> {
    let asked = &request.asked;
    let key = (kind.resource, asked.namespace.clone(), asked.name.clone());
    let (_, subresource) = split(&asked.resource);
    let only = |object: &Value| shown(object, asked.metadata_only);
    match asked.verb.as_str() {
        "list" => {
            let objects = store.list(kind.resource, &asked.namespace);
            let items: Vec<Value> =
                objects.iter().filter(|object| selector.selects(object)).map(|object| only(object)).collect();
            Ok((200, list(kind, asked.metadata_only, store.version, items)))
        }
        "get" => Ok((200, only(&*present(store, kind, &key)?))),
        "create" => create(store, kind, key, &request.body, requester).map(|object| (201, only(&object))),
        "update" => {
            let new = parse(&request.body)?;
            change(store, kind, key, subresource, new, false).map(|object| (200, only(&object)))
        }
        "patch" => {
            if request.content_type != "application/merge-patch+json" {
                return Err(refusal(415, "UnsupportedMediaType", "only application/merge-patch+json is supported"));
            }
            let mut new = Value::clone(&*present(store, kind, &key)?);
            merge(&mut new, parse(&request.body)?);
            change(store, kind, key, subresource, new, true).map(|object| (200, only(&object)))
        }
        "delete" => match store.remove(&key) {
            Some(last) => Ok((200, Value::clone(&last))),
            None => Err(absent(kind, &key.2)),
        },
        verb => Err(refusal(405, "MethodNotAllowed", &format!("{verb} is not supported"))),
    }
}

fn create(
    store: &mut Store,
    kind: &'static Kind,
    mut key: Key,
    body: &[u8],
    requester: &Requester,
) -> Result<Value, Answer> {
    let mut object = parse(body)?;
    if object["kind"] != kind.name {
        return Err(refusal(400, "BadRequest", &format!("kind {} is not {}", object["kind"], kind.name)));
    }
    let metadata = &mut object["metadata"];
    key.2 = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) => format!("{prefix}{:05x}", store.version),
        _ => return Err(refusal(422, "Invalid", "metadata.name: Required value: name or generateName is required")),
    };
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("uid");
    }
    if store.find(&key).is_some() {
        return Err(refusal(409, "AlreadyExists", &format!("{} {:?} already exists", kind.resource, key.2)));
    }
    if kind.resource == "certificatesigningrequests" {
        object["spec"]["username"] = requester.name.as_str().into();
        object["spec"]["groups"] = json!(requester.groups);
    }
    Ok(Value::clone(&store.put(key, object)))
}

fn change(
    store: &mut Store,
    kind: &'static Kind,
    key: Key,
    subresource: &str,
    mut new: Value,
    is_patch: bool,
) -> Result<Value, Answer> {
    let old = present(store, kind, &key)?;
    let [given, stored] =
        [&new, &*old].map(|object| |field: &str| object["metadata"][field].as_str().unwrap_or_default());
    let (version, uid) = (given("resourceVersion"), given("uid"));
    let named = format!("{} {:?}", kind.resource, key.2);
    if !version.is_empty() && version != stored("resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(refusal(409, "Conflict", &format!("Operation cannot be fulfilled on {named}: {why}")));
    }
    if !uid.is_empty() && uid != stored("uid") {
        return Err(match is_patch {
            true => refusal(422, "Invalid", &format!("{named} is invalid: metadata.uid: field is immutable")),
            false => refusal(409, "Conflict", &format!("{named}: Precondition failed: UID in precondition: {uid}")),
        });
    }
    for field in ["uid", "creationTimestamp", "managedFields"] {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    if subresource == "approval" {
        new = approval(&old, &new)?;
    } else if kind.has_status {
        let kept = if subresource == "status" { "spec" } else { "status" };
        match old.get(kept) {
            Some(value) => new[kept] = value.clone(),
            None => drop(new.as_object_mut().and_then(|new| new.remove(kept))),
        }
    }
    Ok(Value::clone(&store.put(key, new)))
}

/// Only the conditions are changed, and they must not contradict themselves.
fn approval(old: &Value, new: &Value) -> Result<Value, Answer> {
    let conditions = new["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let has =
        |kind: &str| conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True");
    if has("Approved") && has("Denied") {
        return Err(refusal(422, "Invalid", "Approved and Denied conditions are mutually exclusive"));
    }
    let mut approved = old.clone();
    approved["status"]["conditions"] = conditions.into();
    Ok(approved)
}

fn present(store: &Store, kind: &Kind, key: &Key) -> Result<Arc<Value>, Answer> {
    store.find(key).ok_or_else(|| absent(kind, &key.2))
}

fn parse(body: &[u8]) -> Result<Value, Answer> {
    let object = serde_json::from_slice(body).ok().filter(Value::is_object);
    object.ok_or_else(|| refusal(400, "BadRequest", "the body is no JSON object"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        match value.is_null() {
            true => drop(target.as_object_mut().unwrap().remove(&key)),
            false => merge(&mut target[key], value),
        }
    }
}

/// A field selector.
#[derive(Debug)]
pub(crate) struct Selector(Vec<(String, String)>);

impl Selector {
    pub(crate) fn new(query: &BTreeMap<String, String>) -> Result<Self, Answer> {
        if query.get("labelSelector").is_some_and(|labels| !labels.is_empty()) {
            return Err(refusal(400, "BadRequest", "label selectors are not supported"));
        }
        let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
        let fields = fields.split(',').filter(|field| !field.is_empty()).map(|field| {
            let (path, value) = field.split_once('=')?;
            Some((format!("/{}", path.replace('.', "/")), value.trim_start_matches('=').to_owned()))
        });
        let fields: Option<_> = fields.collect();
        fields.map(Self).ok_or_else(|| refusal(400, "BadRequest", "a field selector needs \"=\""))
    }

    pub(crate) fn selects(&self, object: &Value) -> bool {
        let holds = |(path, value): &(String, String)| {
            object.pointer(path).and_then(Value::as_str).unwrap_or_default() == value
        };
        self.0.iter().all(holds)
    }
}

/// The object, or only its metadata.
pub(crate) fn shown(object: &Value, metadata_only: bool) -> Value {
    match metadata_only {
        true => json!({
            "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"],
        }),
        false => object.clone(),
    }
}

fn list(kind: &Kind, metadata_only: bool, version: u64, items: Vec<Value>) -> Value {
    let (api_version, name) = match metadata_only {
        true => ("meta.k8s.io/v1", "PartialObjectMetadata"),
        false => (kind.api_version, kind.name),
    };
    let metadata = json!({ "resourceVersion": version.to_string() });
    json!({ "apiVersion": api_version, "kind": format!("{name}List"), "metadata": metadata, "items": items })
}

/// An answer that is no success. Without a reason it is not Kubernetes' own.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    (code, status)
}

fn absent(kind: &Kind, name: &str) -> Answer {
    refusal(404, "NotFound", &format!("{} {name:?} not found", kind.resource))
}

fn split(resource: &str) -> (&str, &str) {
    resource.split_once('/').unwrap_or((resource, ""))
}
