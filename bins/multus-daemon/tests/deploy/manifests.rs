//! The manifests, as they are and with components.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        core::v1::{ConfigMap, Container, PodSpec, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use nix::sys::signal::Signal;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use testkit::Lab;
use thin_entrypoint::Thick;

use crate::{
    files::{below, path, text, yaml},
    node::{Node, PROGRAM, wait},
};

const THICK: &str = "deploy/thick";
const COMPONENTS: [&str; 4] = ["dynamic-resources", "metrics", "node-certificates", "privileged"];

pub(crate) fn kustomizations_name_the_files_that_are_there() {
    let kustomizations: Vec<String> =
        below("deploy", &["kustomization.yaml"]).iter().map(|file| file.replace("/kustomization.yaml", "")).collect();
    assert_eq!(kustomizations.len(), 3 + COMPONENTS.len(), "{kustomizations:?}");
    for directory in kustomizations {
        let kustomization = yaml(&format!("{directory}/kustomization.yaml")).remove(0);
        let is_component = directory.starts_with("deploy/components/");
        let (version, kind) = match is_component {
            true => ("kustomize.config.k8s.io/v1alpha1", "Component"),
            false => ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
        };
        assert_eq!((&kustomization["apiVersion"], &kustomization["kind"]), (&json!(version), &json!(kind)));
        let known = ["apiVersion", "kind", "resources", "patches"];
        let keys: Vec<&String> = kustomization.as_object().unwrap().keys().collect();
        assert!(keys.iter().all(|key| known.contains(&key.as_str())), "{directory}: {keys:?}");
        let list = |key: &str| kustomization[key].as_array().cloned().unwrap_or_default();
        let patches = list("patches").into_iter().map(|patch| patch["path"].clone());
        let named = list("resources").into_iter().chain(patches);
        let named: Vec<String> = named.map(|name| name.as_str().unwrap().to_owned()).collect();
        let (bases, mut files): (Vec<String>, Vec<String>) = named.into_iter().partition(|name| name.starts_with(".."));
        for base in bases {
            assert!(path(&format!("{directory}/{base}/kustomization.yaml")).is_file(), "{directory}: {base}");
        }
        files.push("kustomization.yaml".to_owned());
        files.sort();
        let there: Vec<String> =
            below(&directory, &[""]).iter().map(|file| file.replace(&format!("{directory}/"), "")).collect();
        assert_eq!(there, files, "{directory}");
    }
}

pub(crate) fn every_field_is_one_that_kubernetes_has() {
    let mut kinds = BTreeSet::new();
    for file in below("deploy", &[".yaml"]) {
        if file.ends_with("kustomization.yaml") || file.ends_with("alerts.yaml") {
            continue;
        }
        for object in yaml(&file) {
            let (kind, version) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
            kinds.insert(kind.to_owned());
            let typed = match (version, kind) {
                ("apps/v1", "DaemonSet") => typed::<DaemonSet>(&file, &object),
                ("apps/v1", "Deployment") => typed::<Deployment>(&file, &object),
                ("v1", "ConfigMap") => typed::<ConfigMap>(&file, &object),
                ("v1", "ServiceAccount") => typed::<ServiceAccount>(&file, &object),
                ("rbac.authorization.k8s.io/v1", "ClusterRole") => typed::<ClusterRole>(&file, &object),
                ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => typed::<ClusterRoleBinding>(&file, &object),
                ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
                    typed::<CustomResourceDefinition>(&file, &object)
                }
                other => panic!("{file}: {other:?}"),
            };
            // What is misspelt or misplaced was passed over.
            assert_contains(&file, &typed, &object);
        }
    }
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}

fn typed<T: DeserializeOwned + Serialize>(file: &str, object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{file}: {error}"));
    serde_json::to_value(typed).unwrap()
}

#[track_caller]
fn assert_contains(place: &str, whole: &Value, part: &Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            // What is null takes away.
            for (key, value) in part.iter().filter(|(_, value)| !value.is_null()) {
                let there = whole.get(key).unwrap_or_else(|| panic!("{place}: no field {key:?} here"));
                assert_contains(&format!("{place}: {key}"), there, value);
            }
        }
        (Value::Array(whole), Value::Array(part)) => {
            assert_eq!(whole.len(), part.len(), "{place}");
            for (whole, part) in whole.iter().zip(part) {
                assert_contains(place, whole, part);
            }
        }
        _ => assert_eq!(whole, part, "{place}"),
    }
}

pub(crate) fn every_pod_is_guaranteed_and_critical() {
    let mut pods: BTreeMap<String, PodSpec> = BTreeMap::new();
    for component in ["", "metrics", "node-certificates", "privileged"] {
        pods.insert(format!("thick {component}"), daemon_set(THICK, component).spec.unwrap().template.spec.unwrap());
    }
    pods.insert("thin".to_owned(), daemon_set("deploy/thin", "").spec.unwrap().template.spec.unwrap());
    let approver = yaml("deploy/components/node-certificates/cert-approver.yaml").pop().unwrap();
    let approver: Deployment = serde_json::from_value(approver).unwrap();
    pods.insert("cert-approver".to_owned(), approver.spec.unwrap().template.spec.unwrap());
    for (name, pod) in pods {
        let class = pod.priority_class_name.clone().unwrap_or_default();
        assert!(["system-node-critical", "system-cluster-critical"].contains(&class.as_str()), "{name}: {class}");
        for container in containers(&pod) {
            let resources = container.resources.as_ref().unwrap();
            let (requests, limits) = (resources.requests.clone().unwrap(), resources.limits.clone().unwrap());
            assert_eq!(requests, limits, "{name}: {}", container.name);
            assert_eq!(limits.keys().collect::<Vec<_>>(), ["cpu", "memory"], "{name}: {}", container.name);
        }
    }
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

/// What `kubectl apply` matches objects, containers, volumes and mounts by.
pub(crate) fn the_names_are_upstreams() {
    for (directory, volumes, mounts) in [
        (
            THICK,
            vec![
                "cni /etc/cni/net.d",
                "cnibin /opt/cni/bin",
                "host-run /run",
                "host-run-k8s-cni-cncf-io /run/k8s.cni.cncf.io",
                "host-run-netns /run/netns",
                "host-var-lib-cni-multus /var/lib/cni/multus",
                "host-var-lib-kubelet /var/lib/kubelet",
                "hostroot /",
                "multus-conf-dir /etc/cni/multus/net.d",
                "multus-daemon-config multus-daemon-config",
            ],
            vec![
                "cni /host/etc/cni/net.d",
                "cnibin /opt/cni/bin",
                "host-run /host/run",
                "host-run-k8s-cni-cncf-io /run/k8s.cni.cncf.io",
                "host-run-netns /run/netns",
                "host-var-lib-cni-multus /var/lib/cni/multus",
                "host-var-lib-kubelet /var/lib/kubelet",
                "hostroot /hostroot",
                "multus-conf-dir /etc/cni/multus/net.d",
                "multus-daemon-config /etc/cni/net.d/multus.d",
            ],
        ),
        (
            "deploy/thin",
            vec![
                "cni /etc/cni/net.d",
                "cnibin /opt/cni/bin",
                "multus-cfg multus-cni-config",
                // Ours: upstream makes the directory within the container, where nobody sees it.
                "multus-conf-dir /etc/cni/multus/net.d",
            ],
            vec![
                "cni /host/etc/cni/net.d",
                "multus-cfg /tmp/multus-conf",
                "multus-conf-dir /host/etc/cni/multus/net.d",
            ],
        ),
    ] {
        let set = daemon_set(directory, "");
        let metadata = &set.metadata;
        assert_eq!(metadata.name.as_deref(), Some("kube-multus-ds"));
        assert_eq!(metadata.namespace.as_deref(), Some("kube-system"));
        let spec = set.spec.unwrap();
        let selector = spec.selector.match_labels.unwrap();
        assert_eq!(selector, BTreeMap::from([("name".to_owned(), "multus".to_owned())]));
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["app=multus", "name=multus", "tier=node"]);
        let pod = spec.template.spec.unwrap();
        assert_eq!(pod.service_account_name.as_deref(), Some("multus"));
        assert_eq!(pod.host_network, Some(true));
        assert_eq!(
            containers(&pod).map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["install-multus-binary", "kube-multus"]
        );
        let source = |volume: &k8s_openapi::api::core::v1::Volume| match (&volume.host_path, &volume.config_map) {
            (Some(path), _) => path.path.clone(),
            (_, Some(map)) => map.name.clone(),
            _ => panic!("{}", volume.name),
        };
        let mut found: Vec<String> =
            pod.volumes.iter().flatten().map(|volume| format!("{} {}", volume.name, source(volume))).collect();
        found.sort();
        assert_eq!(found, volumes);
        let found = pod.containers[0].volume_mounts.iter().flatten();
        let mut found: Vec<String> = found.map(|mount| format!("{} {}", mount.name, mount.mount_path)).collect();
        found.sort();
        assert_eq!(found, mounts);
    }
}

pub(crate) fn the_daemon_reads_the_configurations(lab: &Lab) {
    for component in ["", "metrics", "node-certificates"] {
        let config = daemon_config(component);
        Thick::parse(config.to_string().as_bytes()).unwrap();
        let file = lab.path("daemon-config.json");
        fs::write(&file, config.to_string()).unwrap();
        // Nobody is there to ask; but the file was read.
        let output = Command::new(PROGRAM).arg("healthcheck").arg("-config").arg(&file).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with("multus-daemon: not healthy: /host/run/multus/multus.sock"), "{component}: {said}");
    }
}

pub(crate) fn every_path_of_the_configurations_is_mounted() {
    for component in ["", "metrics", "node-certificates"] {
        let pod = daemon_set(THICK, component).spec.unwrap().template.spec.unwrap();
        let mounts: Vec<_> = pod.containers[0].volume_mounts.iter().flatten().collect();
        let mut config = daemon_config(component);
        // What it has by default.
        for (key, default) in
            [("cniDir", "/var/lib/cni/multus"), ("confDir", "/etc/cni/multus/net.d"), ("binDir", "/opt/cni/bin")]
        {
            config[key] = config[key].as_str().unwrap_or(default).into();
        }
        let mut paths: Vec<(String, String)> = Vec::new();
        let certificates = config["perNodeCertificate"].as_object().cloned().unwrap_or_default();
        for (key, value) in config.as_object().unwrap().iter().chain(&certificates) {
            if let Some(path) = value.as_str().filter(|text| text.starts_with('/')) {
                paths.push((key.clone(), path.to_owned()));
            }
        }
        assert!(paths.len() >= 7, "{paths:?}");
        for (key, path) in paths {
            let covers = |mount: &str| path.trim_end_matches('/') == mount || path.starts_with(&format!("{mount}/"));
            let mount = mounts.iter().find(|mount| covers(&mount.mount_path));
            let mount = mount.unwrap_or_else(|| panic!("{component}: {key} {path} is not mounted"));
            let is_written = ["socketDir", "cniConfigDir", "cniDir", "certDir", "chrootDir"].contains(&key.as_str());
            if is_written {
                assert_ne!(mount.read_only, Some(true), "{component}: {key} {path}");
            }
        }
        let root = mounts.iter().find(|mount| mount.mount_path == config["chrootDir"].as_str().unwrap()).unwrap();
        assert_eq!(root.mount_propagation.as_deref(), Some("HostToContainer"), "later sandboxes would not be seen");
    }
}

pub(crate) fn there_is_time_to_drain_and_memory_for_plugins() {
    for component in ["", "metrics", "node-certificates", "privileged"] {
        let (pod, config) =
            (daemon_set(THICK, component).spec.unwrap().template.spec.unwrap(), daemon_config(component));
        let drain = config["drainSeconds"].as_i64().unwrap();
        assert!(drain + 3 < pod.termination_grace_period_seconds.unwrap(), "{component}");
        let memory = &pod.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap()["memory"].0;
        let memory: i64 = memory.strip_suffix("Mi").unwrap().parse().unwrap();
        assert!(24 + 55 * config["connectionLimit"].as_i64().unwrap() <= memory, "{component}: {memory}");
    }
}

pub(crate) fn every_program_is_in_the_image() {
    let (containerfile, makefile) = (text("deploy/Containerfile"), text("Makefile"));
    let listed: Vec<&str> =
        makefile.lines().find_map(|line| line.strip_prefix("IMAGE := ")).unwrap().split(' ').collect();
    assert!(containerfile.contains("COPY --from=programs /image/ /"));
    let mut commands = BTreeSet::new();
    for directory in [THICK, "deploy/thin"] {
        let pod = daemon_set(directory, "").spec.unwrap().template.spec.unwrap();
        commands.extend(containers(&pod).map(|one| one.command.clone().unwrap()[0].clone()));
    }
    let approver = yaml("deploy/components/node-certificates/cert-approver.yaml").pop().unwrap();
    commands.insert(approver["spec"]["template"]["spec"]["containers"][0]["command"][0].as_str().unwrap().to_owned());
    // Upstream's own manifests.
    commands.extend(
        [
            "/install_multus",
            "/usr/src/multus-cni/bin/install_multus",
            "/thin_entrypoint",
            "/kubeconfig_generator",
            "/cert-approver",
        ]
        .map(str::to_owned),
    );
    for command in commands {
        let name = command.rsplit('/').next().unwrap();
        assert!(listed.contains(&name), "{command} is not in the image: {listed:?}");
        let directory = command.strip_suffix(&format!("/{name}")).unwrap();
        assert!(directory.is_empty() || directory == "/usr/src/multus-cni/bin", "{command}");
    }
}

pub(crate) fn probes_are_answered_beside_a_long_queue(lab: &Lab) {
    let pod = daemon_set(THICK, "").spec.unwrap().template.spec.unwrap();
    let container = &pod.containers[0];
    let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
    let probes: Vec<Vec<String>> =
        probes.map(|probe| probe.as_ref().unwrap().exec.as_ref().unwrap().command.clone().unwrap()).into();
    let mut node = Node::without_daemon(lab, json!({"connectionLimit": 1}));
    let probe = |command: &[String]| {
        assert!(command[0].ends_with("/multus-daemon"), "{command:?}");
        let begin = Instant::now();
        let config = lab.path("daemon-config.json");
        let succeeded =
            Command::new(PROGRAM).args(&command[1..]).arg("-config").arg(config).output().unwrap().status.success();
        (succeeded, begin.elapsed())
    };
    assert!(probes.iter().all(|command| !probe(command).0), "there is no daemon yet");
    node.start();
    let sandboxes: Vec<_> = (0..100).map(|number| node.pod(&format!("web-{number}"), "slow")).collect();
    thread::scope(|scope| {
        let (node, probe) = (&node, &probe);
        let calls: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| scope.spawn(move || node.post("/cni", node.request("ADD", sandbox).to_string().as_bytes())))
            .collect();
        node.wait_until_begun();
        for command in probes.iter().cycle().take(9) {
            let (succeeded, elapsed) = probe(command);
            assert!(succeeded && elapsed < Duration::from_secs(5), "{command:?}: {elapsed:?}");
        }
        // While it ends, it is alive and not ready.
        node.signal(Signal::SIGTERM);
        wait("the daemon to be not ready", || !probe(&probes[2]).0);
        assert!(probe(&probes[1]).0);
        node.signal(Signal::SIGKILL);
        calls.into_iter().for_each(|call| drop(call.join().unwrap()));
    });
    node.ended();
}

/// The DaemonSet of `directory`, with the patch of a component.
pub(crate) fn daemon_set(directory: &str, component: &str) -> DaemonSet {
    let mut object = yaml(&format!("{directory}/daemon-set.yaml")).remove(0);
    if !component.is_empty() {
        merge(&mut object, &yaml(&format!("deploy/components/{component}/daemon-set.yaml")).remove(0));
    }
    serde_json::from_value(object).unwrap()
}

fn daemon_config(component: &str) -> Value {
    let patch = format!("deploy/components/{component}/config-map.yaml");
    let file = if path(&patch).is_file() { patch } else { format!("{THICK}/config-map.yaml") };
    serde_json::from_str(yaml(&file)[0]["data"]["daemon-config.json"].as_str().unwrap()).unwrap()
}

/// As Kubernetes merges what is said of a pod: lists by name, or by path for mounts.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(target), Value::Array(patch)) if patch.iter().all(Value::is_object) => {
            for item in patch {
                let key =
                    ["mountPath", "containerPort", "name"].into_iter().find(|key| item.get(key).is_some()).unwrap();
                match target.iter_mut().find(|there| there.get(key) == item.get(key)) {
                    Some(there) => merge(there, item),
                    None => target.push(item.clone()),
                }
            }
        }
        (target, patch) => *target = patch.clone(),
    }
}
