//! Writing the network status of a pod.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderValue, Request, StatusCode, header::ACCEPT};
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Error,
    client::{Client, Pauses},
    error::chain,
    objects::{self, PodObject},
};
use crate::{Pod, PodReference};

/// Sets the annotation of `pod` through its status, since that is what roles for it allow. `may_patch` says whether the
/// server is known to refuse a patch.
pub(super) async fn write(
    client: &Client,
    pod: &PodReference,
    status: &str,
    may_patch: &AtomicBool,
) -> Result<(), Error> {
    let write = Write { client, pod, status, deadline: client.deadline() };
    let mut pauses = Pauses::between_writers();
    loop {
        let is_patch = may_patch.load(Ordering::Relaxed);
        let failure = match if is_patch { write.patch().await } else { write.replace().await } {
            Err(failure) if failure.is_not_found() => return Ok(()),
            Err(failure) if is_patch && failure.is(StatusCode::FORBIDDEN) => {
                // Multus' own role allows to update only.
                may_patch.store(false, Ordering::Relaxed);
                continue;
            }
            Err(failure) if failure.is(StatusCode::CONFLICT) || failure.is(StatusCode::UNPROCESSABLE_ENTITY) => failure,
            other => return other,
        };
        let Some(found) = write.uid().await? else {
            return Ok(());
        };
        write.verify(&found)?;
        let pause = pauses.next();
        if !failure.is(StatusCode::CONFLICT) || Instant::now() + pause >= write.deadline {
            return Err(failure);
        }
        sleep(pause).await;
    }
}

struct Write<'a> {
    client: &'a Client,
    pod: &'a PodReference,
    status: &'a str,
    deadline: Instant,
}

impl Write<'_> {
    /// Only the annotation travels, in one request. A UID that is not the pod's makes the server refuse.
    async fn patch(&self) -> Result<(), Error> {
        let mut metadata = Map::new();
        metadata.insert("annotations".to_owned(), json!({ Pod::NETWORK_STATUS: self.status }));
        if !self.pod.uid.is_empty() {
            metadata.insert("uid".to_owned(), self.pod.uid.as_str().into());
        }
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let request = self.pods()?.patch_subresource("status", &self.pod.name, &PatchParams::default(), &patch);
        let mut request = self.built(request)?;
        // Nobody reads the pod that comes back.
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
        self.client.ask::<IgnoredAny>("the patched pod", request, self.deadline).await.map(drop)
    }

    /// The whole pod travels twice. Fields that nobody here knows come back as they are.
    async fn replace(&self) -> Result<(), Error> {
        let pods = self.pods()?;
        let request = self.built(pods.get(&self.pod.name, &GetParams::default()))?;
        let mut object: Value = self.client.ask("a pod", request, self.deadline).await?;
        self.verify(object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default())?;
        let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
        let annotations = metadata.map(|metadata| metadata.entry("annotations").or_insert(Value::Null));
        match annotations {
            Some(Value::Object(annotations)) => {
                drop(annotations.insert(Pod::NETWORK_STATUS.into(), self.status.into()));
            }
            Some(annotations) => *annotations = json!({ Pod::NETWORK_STATUS: self.status }),
            None => return Err(self.no_metadata()),
        }
        let body = object.to_string().into_bytes();
        let request = self.built(pods.replace_subresource("status", &self.pod.name, &PostParams::default(), body))?;
        self.client.ask::<IgnoredAny>("the replaced pod", request, self.deadline).await.map(drop)
    }

    /// The UID of the pod that has the name now.
    async fn uid(&self) -> Result<Option<String>, Error> {
        let request = self.built(self.pods()?.get_metadata(&self.pod.name, &GetParams::default()))?;
        match self.client.ask::<PodObject>("a pod", request, self.deadline).await {
            Ok(pod) => Ok(Some(pod.metadata.uid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn verify(&self, found: &str) -> Result<(), Error> {
        match self.pod.uid.is_empty() || self.pod.uid == found {
            true => Ok(()),
            false => Err(Error::Replaced { expected: self.pod.uid.clone(), found: found.to_owned() }),
        }
    }

    fn pods(&self) -> Result<kube::api::Request, Error> {
        objects::pods(&self.pod.namespace, &self.pod.name)
    }

    fn built<T>(&self, request: Result<Request<T>, kube::core::request::Error>) -> Result<Request<T>, Error> {
        request.map_err(|error| Error::access(&self.client.host, chain(&error)))
    }

    fn no_metadata(&self) -> Error {
        let host = self.client.host.to_string();
        Error::Malformed { host, expected: "a pod", problem: "\"metadata\" is missing".to_owned() }
    }
}

const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json";
