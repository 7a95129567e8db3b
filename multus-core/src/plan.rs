//! From a pod to the networks its sandbox is attached to.

use std::{fmt, path::Path};

use multus_cni::{NetworkConfigList, NetworkName};

use crate::{
    Cluster, Config, DefaultRoutes, Delegate, Error, InterfaceRequest, Master, NetworkAttachmentDefinition,
    NetworkSelection, Pod, PodReference, PodResources, devices::Allocations, error::malformed, network_config,
    parse_default_network, parse_networks,
};

/// Each is kept several times until its pod is attached, and an annotation has room for thousands of one.
const LONGEST_CONFIGURATIONS: usize = 4 << 20;

/// Resolves what a pod gets and asks for.
#[derive(Clone, Copy)]
pub struct Planner<'a> {
    /// The meta-plugin's configuration.
    pub config: &'a Config,
    /// Kubernetes; without it there are only inline delegates.
    pub cluster: Option<&'a dyn Cluster>,
    /// Whoever knows the pod's devices.
    pub resources: &'a dyn PodResources,
}

/// The networks of a pod, in the order of their attachment. The runtime hears of the first.
#[derive(Debug, Default)]
pub struct Plan {
    /// The networks.
    pub delegates: Vec<Delegate>,
    /// What went wrong and does not matter, for the log.
    pub warnings: Vec<Error>,
}

impl Planner<'_> {
    /// The networks of `pod`; without one, those of every pod.
    ///
    /// # Errors
    /// The first reference that cannot be resolved, with the pod's name. Nothing was attached yet.
    pub fn plan(&self, pod: Option<&Pod>) -> Result<Plan, Error> {
        self.resolve(pod, false)
    }

    /// As much as can be said now of the networks that an ADD attached `pod` to, for a DEL that has nothing better. The
    /// networks after one that cannot be resolved are left out, since their interfaces are not known.
    ///
    /// # Errors
    /// When the first network cannot be resolved.
    pub fn plan_deletion(&self, pod: &Pod) -> Result<Plan, Error> {
        self.resolve(Some(pod), true)
    }

    fn resolve(&self, pod: Option<&Pod>, is_deletion: bool) -> Result<Plan, Error> {
        let unknown = PodReference::default();
        let reference = pod.map_or(&unknown, |pod| &pod.reference);
        let allocations = Allocations::new(self.resources, self.cluster, reference);
        let mut resolution = Resolution { planner: self, pod, allocations, is_deletion, plan: Plan::default() };
        match (resolution.run(), pod) {
            (Ok(()), _) => Ok(resolution.plan),
            (Err(error), Some(pod)) => Err(error.of_pod(&pod.reference)),
            (Err(error), None) => Err(error),
        }
    }
}

impl fmt::Debug for Planner<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Planner").field("config", self.config).finish_non_exhaustive()
    }
}

struct Resolution<'a> {
    planner: &'a Planner<'a>,
    pod: Option<&'a Pod>,
    allocations: Allocations<'a>,
    is_deletion: bool,
    plan: Plan,
}

impl Resolution<'_> {
    fn run(&mut self) -> Result<(), Error> {
        self.masters()?;
        if let (Some(cluster), Some(pod)) = (self.planner.cluster, self.pod) {
            match self.networks(cluster, pod) {
                Err(error) if self.is_deletion => {
                    self.plan.warnings.push(error);
                    return Ok(());
                }
                result => result?,
            }
        }
        self.auxiliary_chain()?;
        if !self.is_deletion {
            let decisions = DefaultRoutes::decide(&self.plan.delegates)?;
            for (delegate, decision) in self.plan.delegates.iter_mut().zip(decisions) {
                delegate.default_routes = decision;
            }
        }
        Ok(())
    }

    /// Adds the networks that every pod gets, with the one that this pod chooses in the place of the first.
    fn masters(&mut self) -> Result<(), Error> {
        let config = self.planner.config;
        let chosen = self.default_network()?;
        let (cluster_network, default_networks) = match &config.master {
            Master::Inline(delegates) => {
                let others = delegates.iter().skip(usize::from(chosen.is_some())).cloned().map(Delegate::new);
                self.plan.delegates.extend(chosen.into_iter().chain(others));
                return Ok(());
            }
            Master::Reference { cluster_network, default_networks } => (cluster_network, default_networks),
        };
        let cluster = self.planner.cluster.ok_or_else(|| Error::NoCluster(cluster_network.clone()))?;
        match chosen {
            Some(chosen) => self.plan.delegates.push(chosen),
            None => self.reference(cluster, cluster_network)?,
        }
        let is_system = |pod: &Pod| config.system_namespaces.contains(&pod.reference.namespace);
        match self.pod.is_some_and(|pod| !is_system(pod)) {
            true => default_networks.iter().try_for_each(|network| self.reference(cluster, network)),
            false => Ok(()),
        }
    }

    /// The network that the pod chooses to be its first.
    fn default_network(&mut self) -> Result<Option<Delegate>, Error> {
        let (Some(cluster), Some(pod)) = (self.planner.cluster, self.pod) else {
            return Ok(None);
        };
        let Some(text) = &pod.default_network else {
            return Ok(None);
        };
        let selection = parse_default_network(text, &self.planner.config.multus_namespace)?;
        self.selected(cluster, pod, selection).map(Some)
    }

    /// Adds a network that the administrator refers to.
    fn reference(&mut self, cluster: &dyn Cluster, reference: &str) -> Result<(), Error> {
        let config = self.planner.config;
        let delegate = if reference.contains('/') {
            Delegate::new(network_config::load(Path::new(reference))?)
        } else {
            let selection = NetworkSelection {
                namespace: config.multus_namespace.clone(),
                name: reference.to_owned(),
                request: InterfaceRequest::default(),
            };
            match self.definition(cluster, selection) {
                Ok(delegate) => delegate,
                Err(definition) => match network_config::find(&config.conf_dir, reference) {
                    Ok(config) => {
                        self.plan.warnings.push(definition);
                        Delegate::new(config)
                    }
                    Err(file) => {
                        let (definition, file) = (Box::new(definition), Box::new(file));
                        return Err(Error::NoReference { reference: reference.to_owned(), definition, file });
                    }
                },
            }
        };
        self.plan.delegates.push(delegate);
        Ok(())
    }

    /// Adds the networks that the pod asks for.
    fn networks(&mut self, cluster: &dyn Cluster, pod: &Pod) -> Result<(), Error> {
        let text = pod.networks.as_deref().unwrap_or_default();
        let selections = parse_networks(text, &pod.reference.namespace)?;
        let mut length = 0;
        for selection in selections {
            let delegate = self.selected(cluster, pod, selection)?;
            length += delegate.config.bytes().len();
            must_fit(length)?;
            self.plan.delegates.push(delegate);
        }
        Ok(())
    }

    fn selected(&mut self, cluster: &dyn Cluster, pod: &Pod, selection: NetworkSelection) -> Result<Delegate, Error> {
        let config = self.planner.config;
        let (namespace, own) = (&selection.namespace, &pod.reference.namespace);
        if config.namespace_isolation && namespace != own && !config.global_namespaces.contains(namespace) {
            let error = Error::Isolation { pod_namespace: own.clone(), namespace: namespace.clone() };
            return Err(error.of_network(&selection.to_string()));
        }
        self.definition(cluster, selection)
    }

    fn definition(&mut self, cluster: &dyn Cluster, selection: NetworkSelection) -> Result<Delegate, Error> {
        let NetworkSelection { namespace, name, request } = selection;
        let missing = |source| Error::NoDefinition { name: name.clone(), namespace: namespace.clone(), source };
        let found = cluster.network(&namespace, &name).map_err(|error| missing(Some(error)))?;
        let definition = found.ok_or_else(|| missing(None))?;
        let display_name = definition.to_string();
        self.prepare(definition, request).map_err(|error| error.of_network(&display_name))
    }

    /// The delegate of a definition, with its device and its arguments.
    fn prepare(
        &mut self,
        definition: NetworkAttachmentDefinition,
        request: InterfaceRequest,
    ) -> Result<Delegate, Error> {
        let mut config = match definition.config.is_empty() {
            true => network_config::find(&self.planner.config.conf_dir, &definition.name)?,
            false => network_config::read_named(&definition.config, &definition.name, "spec.config")?,
        };
        let resource_name =
            definition.resource_name.clone().filter(|resource| !resource.is_empty() && self.pod.is_some());
        let allocated = match resource_name.as_ref().map(|resource| self.allocations.next(resource)).transpose() {
            // The kubelet may have forgotten the pod.
            Err(error) if self.is_deletion => {
                self.plan.warnings.push(error);
                None
            }
            allocated => allocated?.flatten(),
        };
        if let (Some(resource), None, false) = (&resource_name, &allocated, self.is_deletion) {
            let problem = "no device is left: the pod has fewer than networks that want one".to_owned();
            let error = Error::Devices { resource: resource.clone(), problem };
            self.plan.warnings.push(error.of_network(&definition.to_string()));
        }
        if let Some(id) = &allocated {
            config = config.edited(|plugin| {
                plugin.set("deviceID", id)?;
                plugin.set("pciBusID", id)
            })?;
        }
        if let Some(arguments) = &request.cni_args {
            // Each plugin gets them.
            must_fit(config.bytes().len().saturating_add(arguments.print().len().saturating_mul(config.len())))?;
            config = config.with_cni_args(arguments)?;
        }
        let device_id = allocated.or_else(|| request.device_id.clone());
        Ok(Delegate { name: definition.to_string(), request, resource_name, device_id, ..Delegate::new(config) })
    }

    /// Adds the chain of plugins that the administrator keeps beside the cluster network's file.
    fn auxiliary_chain(&mut self) -> Result<(), Error> {
        let config = self.planner.config;
        let Some(chain) = &config.auxiliary_chain else {
            return Ok(());
        };
        let malformed = |problem: &str| Error::Config(format!("\"auxiliaryCNIChainName\" {problem}"));
        let path = match &config.master {
            Master::Reference { cluster_network, .. } if cluster_network.contains('/') => Path::new(cluster_network),
            Master::Inline(_) | Master::Reference { .. } => {
                return Err(malformed(
                    "needs a \"clusterNetwork\" that is a path: the chain is in a directory beside it",
                ));
            }
        };
        chain.parse::<NetworkName>().map_err(|error| malformed(&error.to_string()))?;
        let base = serde_json::json!({
            "cniVersion": config.version, "name": chain, "plugins": [{"type": "passthru"}],
        });
        let directory = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let chain = NetworkConfigList::parse(base.to_string().as_bytes());
        match chain.and_then(|chain| chain.chained(directory)) {
            Ok(chain) if chain.len() > 1 => self.plan.delegates.push(Delegate::new(chain)),
            Ok(_) => {}
            Err(error) => self.plan.warnings.push(error.into()),
        }
        Ok(())
    }
}

/// Whether the configurations that a pod asks for are of so many bytes that they would take the memory of others.
fn must_fit(length: usize) -> Result<(), Error> {
    if length > LONGEST_CONFIGURATIONS {
        let problem = format!("asks for configurations of more than {LONGEST_CONFIGURATIONS} bytes together");
        return Err(malformed("networks", problem));
    }
    Ok(())
}
