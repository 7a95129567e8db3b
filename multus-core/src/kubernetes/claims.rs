//! The devices of a pod's resource claims: pod, claims, and the slices in which drivers describe their devices.

use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use kube::{
    api::{GetParams, ListParams, Request},
    core::request,
};
use multus_cni::{Document, FieldError, Item, Object};
use tokio::time::Instant;

use super::{Error, client::Client, error::chain, objects};
use crate::{ClusterError, PodReference, ResourceDevices, error::quoted};

/// What a device is called where networks ask for it.
const RESOURCE_NAME: &str = "k8s.cni.cncf.io/resourceName";
/// What a network plugin calls a device.
const DEVICE_ID: &str = "k8s.cni.cncf.io/deviceID";

/// The devices of the claims of `pod`, in the order of the claims and of their allocations. Devices that are not for
/// networks are left out.
pub(super) async fn devices(client: &Client, pod: &PodReference) -> Result<Vec<ResourceDevices>, ClusterError> {
    let asked = Asked { client, deadline: client.deadline() };
    let PodReference { namespace, name, uid } = pod;
    let object = format!("pod {namespace}/{name}");
    let request = objects::pods(namespace, name).map(|pods| pods.get(name, &GetParams::default()));
    let Claims { node, names } = asked.read(&object, request, |view| Claims::read(view, uid)).await?;
    let mut pools = HashMap::new();
    let mut devices = Vec::new();
    for ClaimName { claim, is_extended } in names {
        let object = format!("resourceclaim {namespace}/{claim}");
        let claims = Request::new(format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims"));
        let request = Ok(claims.get(&claim, &GetParams::default()));
        let results = match asked.read(&object, request, |view| allocated(view, is_extended)).await {
            Ok(results) => results,
            Err(Failure::Api(_, error)) if error.is(StatusCode::NOT_FOUND) && !error.is_not_found() => {
                // This API server has no claims.
                return Ok(Vec::new());
            }
            Err(Failure::Api(_, error)) if error.is_not_found() && !is_extended => Vec::new(),
            Err(failure) => return Err(failure.into()),
        };
        for Allocated { driver, pool, device } in results {
            if !pools.contains_key(&driver) {
                let object = format!("resourceslices of {driver}");
                let selector = format!("spec.nodeName={node},spec.driver={driver}");
                let slices = Request::new("/apis/resource.k8s.io/v1/resourceslices");
                let request = Ok(slices.list(&ListParams::default().fields(&selector)));
                pools.insert(driver.clone(), asked.read(&object, request, read_slices).await?);
            }
            let found = pools.get(&driver).and_then(|pools| pools.get(&pool)?.devices.get(&device));
            match found {
                Some(found) => devices.extend(found.clone()),
                None => {
                    tracing::warn!(claim, driver, pool, device, "no resourceslice of the node has a claim's device");
                }
            }
        }
    }
    Ok(devices)
}

/// Requests that share a deadline.
struct Asked<'a> {
    client: &'a Client,
    deadline: Instant,
}

/// Of reading an object that is named.
enum Failure {
    Api(String, Error),
    Field(String, FieldError),
}

type Built = Result<Result<http::Request<Vec<u8>>, request::Error>, Error>;

impl Asked<'_> {
    async fn read<T>(
        &self,
        object: &str,
        request: Built,
        read: impl FnOnce(&Object<'_>) -> Result<T, FieldError>,
    ) -> Result<T, Failure> {
        let failed = |error| Failure::Api(object.to_owned(), error);
        let malformed = |error| Failure::Field(object.to_owned(), error);
        let request = request.map_err(failed)?;
        let request = request.map_err(|error| failed(Error::access(&self.client.host, chain(&error))))?;
        let body = self.client.send(request, self.deadline).await.map_err(failed)?;
        let no_json = |error: String| malformed(FieldError::new("body", format_args!("must be JSON: {error}")));
        let document = Document::parse(&body).map_err(no_json)?;
        let view =
            document.root("").object().map_err(|_| malformed(FieldError::new("body", "must be a JSON object")))?;
        read(&view).map_err(malformed)
    }
}

impl From<Failure> for ClusterError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Api(object, error) => Self { attempt: object, source: error.into() },
            Failure::Field(object, error) => Self { attempt: object, source: error.into() },
        }
    }
}

/// Whose claims are called so, and where it runs.
struct Claims {
    node: String,
    names: Vec<ClaimName>,
}

struct ClaimName {
    claim: String,
    /// The scheduler made it for an extended resource; it is no wish of the pod's, but what the pod has.
    is_extended: bool,
}

impl Claims {
    /// Of a pod, which is to be that of UID `uid`.
    fn read(pod: &Object<'_>, uid: &str) -> Result<Self, FieldError> {
        let metadata = pod.object("metadata")?.ok_or_else(|| missing("metadata"))?;
        let found = metadata.string("uid")?.unwrap_or_default();
        if !uid.is_empty() && found != uid {
            return Err(FieldError::new(
                "metadata.uid",
                format_args!("is {found:?}, not {uid:?}: the pod was replaced"),
            ));
        }
        let (spec, status) = (pod.object("spec")?, pod.object("status")?);
        let mut generated = BTreeMap::new();
        for item in array(status.as_ref(), "resourceClaimStatuses")? {
            let entry = item.object()?;
            if let (Some(name), Some(claim)) = (entry.string("name")?, name(&entry, "resourceClaimName")?) {
                generated.insert(name, claim);
            }
        }
        let mut names = Vec::new();
        for item in array(spec.as_ref(), "resourceClaims")? {
            let entry = item.object()?;
            let own = name(&entry, "resourceClaimName")?;
            let claim = own.or_else(|| generated.get(entry.string("name").ok()??).cloned());
            names.extend(claim.map(|claim| ClaimName { claim, is_extended: false }));
        }
        if let Some(status) = status.map(|status| status.object("extendedResourceClaimStatus")).transpose()?.flatten() {
            names.extend(name(&status, "resourceClaimName")?.map(|claim| ClaimName { claim, is_extended: true }));
        }
        let node = spec.map(|spec| name(&spec, "nodeName")).transpose()?.flatten();
        match node {
            None if !names.is_empty() => Err(missing("spec.nodeName")),
            node => Ok(Self { node: node.unwrap_or_default(), names }),
        }
    }
}

fn array<'a>(object: Option<&Object<'a>>, key: &str) -> Result<Vec<Item<'a>>, FieldError> {
    object.map_or(Ok(Vec::new()), |object| object.array(key))
}

/// A device that a claim has.
struct Allocated {
    driver: String,
    pool: String,
    device: String,
}

/// What `claim` has; nothing yet is a failure if it `is_extended`.
fn allocated(claim: &Object<'_>, is_extended: bool) -> Result<Vec<Allocated>, FieldError> {
    let allocation = claim.object("status")?.map(|status| status.object("allocation")).transpose()?.flatten();
    let Some(allocation) = allocation else {
        return if is_extended { Err(missing("status.allocation")) } else { Ok(Vec::new()) };
    };
    let Some(devices) = allocation.object("devices")? else {
        return Ok(Vec::new());
    };
    let mut results = Vec::new();
    for item in devices.array("results")? {
        let result = item.object()?;
        let text = |key| result.string(key)?.ok_or_else(|| missing(&result.path_of(key))).map(str::to_owned);
        let driver = name(&result, "driver")?.ok_or_else(|| missing(&result.path_of("driver")))?;
        results.push(Allocated { driver, pool: text("pool")?, device: text("device")? });
    }
    Ok(results)
}

/// Devices by name, as the newest generation of their pool's slices has them.
#[derive(Default)]
struct Pool {
    generation: i64,
    devices: HashMap<String, Option<ResourceDevices>>,
}

fn read_slices(list: &Object<'_>) -> Result<HashMap<String, Pool>, FieldError> {
    let mut pools: HashMap<String, Pool> = HashMap::new();
    for item in list.array("items")? {
        let Some(spec) = item.object()?.object("spec")? else {
            continue;
        };
        let of_slice = spec.object("pool")?.ok_or_else(|| missing(&spec.path_of("pool")))?;
        let name = of_slice.string("name")?.ok_or_else(|| missing(&of_slice.path_of("name")))?;
        let generation = of_slice.integer("generation")?.unwrap_or_default();
        let pool = pools.entry(name.to_owned()).or_default();
        if generation < pool.generation {
            continue;
        }
        if generation > pool.generation {
            *pool = Pool { generation, devices: HashMap::new() };
        }
        for item in spec.array("devices")? {
            let device = item.object()?;
            if let Some(name) = device.string("name")? {
                pool.devices.insert(name.to_owned(), for_networks(&device)?);
            }
        }
    }
    Ok(pools)
}

/// The device, if networks can ask for it.
fn for_networks(device: &Object<'_>) -> Result<Option<ResourceDevices>, FieldError> {
    let Some(attributes) = device.object("attributes")? else {
        return Ok(None);
    };
    let text = |key| attributes.object(key)?.map_or(Ok(None), |value| value.string("string"));
    Ok(match (text(RESOURCE_NAME)?, text(DEVICE_ID)?) {
        (Some(resource), Some(id)) => {
            Some(ResourceDevices { resource: resource.to_owned(), ids: vec![id.to_owned()], is_claim: false })
        }
        _ => None,
    })
}

/// The name at `key`, which stays within its place in a path or a selector.
fn name(object: &Object<'_>, key: &str) -> Result<Option<String>, FieldError> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let Some(name) = object.string(key)? else {
        return Ok(None);
    };
    match (1..=253).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_allowed) {
        true => Ok(Some(name.to_owned())),
        false => Err(FieldError::new(object.path_of(key), format_args!("must be a DNS name, not {}", quoted(name)))),
    }
}

fn missing(path: &str) -> FieldError {
    FieldError::new(path, "is missing")
}
