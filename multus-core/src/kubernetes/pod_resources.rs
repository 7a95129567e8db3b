//! The kubelet's podresources API, version 1, over gRPC.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    path::Path,
    time::Duration,
};

use http::uri::PathAndQuery;
use tokio::{
    runtime,
    time::{Instant, sleep, timeout_at},
};
use tonic::{Code, Request, Status, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use super::{client::Pauses, error::chain};
use crate::ResourceDevices;

/// The devices of all pods that have some, by namespace and name.
pub(super) type PodDevices = HashMap<String, HashMap<String, Vec<ResourceDevices>>>;

/// Asks whoever listens at `socket`, more than once if need be, for no longer than `limit`.
pub(super) fn list(socket: &Path, limit: Duration) -> Result<PodDevices, String> {
    let socket = socket.to_str().ok_or("its path is no UTF-8")?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("no runtime: {error}"))?;
    runtime.block_on(ask(socket, limit)).map(by_pod)
}

async fn ask(socket: &str, limit: Duration) -> Result<ListPodResourcesResponse, String> {
    let deadline = Instant::now() + limit;
    let (mut pauses, mut attempts) = (Pauses::new(), 0_u32);
    let mut former = None;
    loop {
        attempts += 1;
        let failure = match timeout_at(deadline, attempt(socket)).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(failure)) => failure,
            Err(_) => former.unwrap_or_else(|| Status::deadline_exceeded(format!("no answer within {limit:?}"))),
        };
        let pause = pauses.next();
        if !is_transient(&failure) || Instant::now() + pause >= deadline {
            return Err(told(&failure, attempts));
        }
        sleep(pause).await;
        former = Some(failure);
    }
}

async fn attempt(socket: &str) -> Result<ListPodResourcesResponse, Status> {
    // Relative ones would be taken for hosts.
    let endpoint = Endpoint::from_shared(format!("unix:{socket}"));
    let endpoint = endpoint.map_err(|error| Status::invalid_argument(chain(&error)))?;
    let channel = endpoint.connect().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let mut kubelet = Grpc::new(channel).max_decoding_message_size(MAX_MESSAGE);
    kubelet.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let path = PathAndQuery::from_static("/v1.PodResourcesLister/List");
    let codec = ProstCodec::<ListPodResourcesRequest, ListPodResourcesResponse>::default();
    let answer = kubelet.unary(Request::new(ListPodResourcesRequest {}), path, codec).await;
    // Nobody here cancels anything.
    let ended = |failure: Status| match failure.code() == Code::Cancelled {
        true => Status::unavailable("the connection ended without an answer"),
        false => failure,
    };
    answer.map(tonic::Response::into_inner).map_err(ended)
}

/// Whether it may be otherwise in a moment: the kubelet limits the rate of requests, and it is restarted.
fn is_transient(failure: &Status) -> bool {
    let is_broken = failure.source().is_some_and(|source| source.is::<tonic::transport::Error>());
    is_broken || matches!(failure.code(), Code::ResourceExhausted | Code::Unavailable)
}

fn told(failure: &Status, attempts: u32) -> String {
    let message = failure.source().map_or_else(|| failure.message().to_owned(), chain);
    let message: String = message.chars().take(200).collect();
    let attempts = if attempts > 1 { format!(" ({attempts} attempts)") } else { String::new() };
    format!("{message:?}, {:?}{attempts}", failure.code())
}

/// More than all pods of a node have.
const MAX_MESSAGE: usize = 16 << 20;

fn by_pod(response: ListPodResourcesResponse) -> PodDevices {
    let mut by_pod = PodDevices::new();
    for pod in response.pod_resources {
        let devices: Vec<ResourceDevices> = pod.containers.into_iter().flat_map(of_container).collect();
        if !devices.is_empty() {
            by_pod.entry(pod.namespace).or_default().entry(pod.name).or_default().extend(devices);
        }
    }
    by_pod
}

/// The kubelet tells of each device on its own.
fn of_container(container: ContainerResources) -> impl Iterator<Item = ResourceDevices> {
    let mut by_resource: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
    for ContainerDevices { resource_name, device_ids } in container.devices {
        by_resource.entry((false, resource_name)).or_default().extend(device_ids);
    }
    for claim in container.dynamic_resources {
        let names = claim.claim_resources.iter().flat_map(|resource| &resource.cdi_devices);
        let ids = names.filter_map(|device| device_of(&device.name)).map(str::to_owned);
        by_resource.entry((true, claim.claim_name)).or_default().extend(ids);
    }
    by_resource.into_iter().map(|((is_claim, resource), ids)| ResourceDevices { resource, ids, is_claim })
}

/// The device in the name that CDI gives it, such as `vendor.com/class=device`.
fn device_of(name: &str) -> Option<&str> {
    let device = name.split_once('=').map(|(_, device)| device).filter(|device| !device.contains('='));
    if device.is_none() {
        tracing::warn!(name, "a claim's device is left out: its CDI name is not like vendor.com/class=device");
    }
    device
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodResourcesRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodResourcesResponse {
    #[prost(message, repeated, tag = "1")]
    pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodResources {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerResources {
    #[prost(message, repeated, tag = "2")]
    devices: Vec<ContainerDevices>,
    #[prost(message, repeated, tag = "5")]
    dynamic_resources: Vec<DynamicResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerDevices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DynamicResource {
    #[prost(string, tag = "2")]
    claim_name: String,
    #[prost(message, repeated, tag = "4")]
    claim_resources: Vec<ClaimResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClaimResource {
    #[prost(message, repeated, tag = "1")]
    cdi_devices: Vec<CdiDevice>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CdiDevice {
    #[prost(string, tag = "1")]
    name: String,
}
