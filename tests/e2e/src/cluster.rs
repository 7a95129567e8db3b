//! A cluster as everybody sees it: its API.

use std::{
    fmt::{self, Debug, Formatter},
    fs, thread,
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Config, Error,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use testkit::Lab;
use testkit_kubernetes::ApiServer;
use tokio::runtime::Handle;

use crate::{kubeconfig::Access, settings::Settings, wait};

const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// A server that was just asked for a definition or a namespace has controllers that are not done with it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace of a test's own in it, and a node.
pub struct Cluster {
    tokio: Handle,
    client: Client,
    access: Access,
    /// The namespace of the pods.
    pub namespace: String,
    /// The name of the node.
    pub node: String,
    made: Vec<(&'static Resource, String)>,
    /// Unless there is a real one.
    _double: Option<ApiServer>,
}

/// A pod that has been created.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// The UID that the API server gave it.
    pub uid: String,
}

#[derive(Debug)]
struct Resource {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const fn resource(group: &'static str, kind: &'static str, plural: &'static str) -> Resource {
    Resource { group, kind, plural }
}

/// Of all of them.
const VERSION: &str = "v1";

static NAMESPACES: Resource = resource("", "Namespace", "namespaces");
static NODES: Resource = resource("", "Node", "nodes");
static PODS: Resource = resource("", "Pod", "pods");
static EVENTS: Resource = resource("", "Event", "events");
static DEFINITIONS: Resource =
    resource("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions");
static ATTACHMENTS: Resource =
    resource("k8s.cni.cncf.io", "NetworkAttachmentDefinition", "network-attachment-definitions");

impl Resource {
    fn api_version(&self) -> String {
        if self.group.is_empty() { VERSION.to_owned() } else { format!("{}/{VERSION}", self.group) }
    }
}

impl Cluster {
    /// That of `access`, or else a double.
    pub(crate) fn new(lab: &Lab, tokio: Handle, settings: &Settings) -> Self {
        let (double, access) = match &settings.access {
            Some(access) => (None, access.clone()),
            None => {
                let double = ApiServer::start();
                fs::write(lab.path("double.kubeconfig"), double.kubeconfig()).unwrap();
                (Some(double), Access::read(&lab.path("double.kubeconfig")).unwrap())
            }
        };
        let client = tokio.block_on(client(&access));
        let namespace = format!("{}-{}", settings.namespace, suffix());
        let node = settings.node.clone().unwrap_or_else(|| namespace.clone());
        let made = Vec::new();
        let mut cluster = Self { tokio, client, access, namespace, node, made, _double: double };
        cluster.create_if_absent(&DEFINITIONS, &definition());
        if cluster.create_if_absent(&NODES, &json!({"metadata": {"name": cluster.node}})) && settings.node.is_none() {
            cluster.made.push((&NODES, cluster.node.clone()));
        }
        cluster.add_namespace("");
        cluster
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Makes another namespace, whose name goes on with `end`. It goes with the cluster.
    pub fn add_namespace(&mut self, end: &str) -> String {
        let name = format!("{}{end}", self.namespace);
        self.create(&NAMESPACES, "", &json!({"metadata": {"name": name}})).unwrap();
        self.made.push((&NAMESPACES, name.clone()));
        name
    }

    /// Defines a network attachment in `namespace`.
    pub fn attachment(&self, namespace: &str, name: &str, config: &Value) {
        let definition = json!({"metadata": {"name": name}, "spec": {"config": config.to_string()}});
        self.create_with_patience(&ATTACHMENTS, namespace, &definition);
    }

    /// Creates a pod on the node, with what `networks` says in its annotation.
    #[must_use]
    pub fn pod(&self, name: &str, networks: &str) -> Pod {
        let pod = json!({
            "metadata": {"name": name, "annotations": {NETWORKS: networks}},
            "spec": {
                "nodeName": self.node, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "main", "image": "localhost/nothing"}],
            },
        });
        let created = self.create_with_patience(&PODS, &self.namespace, &pod);
        Pod { name: name.to_owned(), uid: created.metadata.uid.unwrap() }
    }

    /// What the pod says of its networks; an empty list without the annotation.
    #[must_use]
    pub fn network_status(&self, pod: &Pod) -> Value {
        let found = self.tokio.block_on(self.api(&PODS, &self.namespace).get(&pod.name)).unwrap();
        let annotations = found.metadata.annotations.unwrap_or_default();
        annotations.get(NETWORK_STATUS).map_or_else(|| json!([]), |text| serde_json::from_str(text).unwrap())
    }

    /// Waits for `count` events with that reason about the pod, and gives their messages, sorted.
    #[must_use]
    pub fn events(&self, pod: &Pod, reason: &str, count: usize) -> Vec<String> {
        let about = ListParams::default().fields(&format!("involvedObject.uid={},reason={reason}", pod.uid));
        let messages = || {
            let list = self.tokio.block_on(self.api(&EVENTS, &self.namespace).list(&about)).unwrap();
            let text = |event: &DynamicObject| event.data["message"].as_str().unwrap().to_owned();
            let mut messages: Vec<_> = list.items.iter().map(text).collect();
            messages.sort();
            messages
        };
        wait(&format!("{count} events {reason}"), || messages().len() >= count);
        messages()
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: resource.group.to_owned(),
            version: VERSION.to_owned(),
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            plural: resource.plural.to_owned(),
        };
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn create(&self, resource: &Resource, namespace: &str, object: &Value) -> Result<DynamicObject, Error> {
        let api = self.api(resource, namespace);
        let mut object = object.clone();
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.into();
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        self.tokio.block_on(api.create(&PostParams::default(), &object))
    }

    fn create_with_patience(&self, resource: &Resource, namespace: &str, object: &Value) -> DynamicObject {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.create(resource, namespace, object) {
                Ok(created) => return created,
                // A definition that is not served yet; a namespace whose service account is not there yet.
                Err(Error::Api(status)) if matches!(status.code, 403 | 404) && Instant::now() < end => {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(error) => panic!("{} {} cannot be created: {error}", resource.kind, object["metadata"]["name"]),
            }
        }
    }

    /// Whether it was absent.
    fn create_if_absent(&self, resource: &Resource, object: &Value) -> bool {
        match self.create(resource, "", object) {
            Ok(_) => true,
            Err(Error::Api(status)) if status.code == 409 => false,
            Err(error) => panic!("{} {} cannot be created: {error}", resource.kind, object["metadata"]["name"]),
        }
    }

    /// A node without a kubelet has nobody who lets a pod go.
    fn delete_pods(&self, namespace: &str) -> Result<(), Error> {
        let api = self.api(&PODS, namespace);
        for pod in self.tokio.block_on(api.list(&ListParams::default()))? {
            let _gone =
                self.tokio.block_on(api.delete(&pod.metadata.name.unwrap(), &DeleteParams::default().grace_period(0)));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (resource, name) in self.made.iter().rev() {
            if resource.kind == NAMESPACES.kind
                && let Err(error) = self.delete_pods(name)
            {
                eprintln!("pods of the namespace {name} are left: {error}");
            }
            if let Err(error) = self.tokio.block_on(self.api(resource, "").delete(name, &DeleteParams::default())) {
                eprintln!("{} {name} is left: {error}", resource.kind);
            }
        }
    }
}

impl Debug for Cluster {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

async fn client(access: &Access) -> Client {
    let kubeconfig: Kubeconfig = serde_json::from_value(access.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    // It has read the environment; the daemon uses none either.
    config.proxy_url = None;
    Client::try_from(config).unwrap()
}

fn suffix() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap().chars().take(8).collect()
}

/// The one that is deployed.
fn definition() -> Value {
    serde_saphyr::from_str(include_str!("../../../deploy/crd/network-attachment-definitions.yaml")).unwrap()
}
