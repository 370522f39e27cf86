//! Where a service leads: its EndpointSlices in a view, and the order in which its endpoints are tried.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{ENDPOINT_SLICES, NODES, SERVICES};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_store::View;
use serde::Deserialize;

use super::{PodPort, Protocol, ServicePort, Via, WhileEnding};
use crate::dns::names::dash;

/// How long a client stays with a pod where its service does not say: three hours, Kubernetes' default.
const AFFINITY_SECONDS: u64 = 10_800;
/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const SERVICE_NAME_INDEX: &str = "metadata.labels.kubernetes.io/service-name";

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// The pod behind it and its node: its address may be another pod's tomorrow, and with the host's network it is not its own.
    pub(crate) pod: Option<(String, Uid)>,
    /// Whether it is connected to although it ends: it is known to, and there is no other.
    pub(crate) while_ending: WhileEnding,
}

impl Endpoint {
    /// Whether another one is the same place.
    pub(super) fn is_at(&self, other: &Self) -> bool {
        (&self.address, self.port, &self.pod) == (&other.address, other.port, &other.pod)
    }

    /// Its address and port.
    pub(super) fn place(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Its port in the pod that is behind it.
    pub(super) fn in_pod(&self, node: &str, pod: &Uid, protocol: Protocol) -> PodPort {
        let (node, pod, port) = (node.to_owned(), pod.clone(), self.port);
        PodPort { node, pod, port, protocol, while_ending: self.while_ending, from: None }
    }
}

/// Where a connection to a service may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) endpoints: Vec<Endpoint>,
    /// For how long a client stays with its endpoint after its last connection, where it does.
    pub(super) affinity: Option<Duration>,
}

/// Why there is nobody to connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unroutable {
    /// There is no such service.
    #[error("there is no service {0:?}")]
    Service(String),
    /// It has no such port.
    #[error("no service port {1} found for service {0:?}")]
    Port(String, u16),
    /// Nobody is ready.
    #[error("no endpoints available for service {0:?}")]
    Endpoints(String),
    /// Nobody is ready on the node, and its policy is to go nowhere else.
    #[error("no endpoints of service {0:?} on this node, and its traffic policy is Local")]
    LocalEndpoints(String),
}

/// What is read of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    status: ServiceStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<String>,
    #[serde(rename = "externalIPs")]
    pub(crate) external_ips: Option<Vec<IpAddr>>,
    pub(crate) external_name: Option<String>,
    selector: Option<std::collections::BTreeMap<String, String>>,
    session_affinity: Option<String>,
    session_affinity_config: Option<AffinityConfig>,
    internal_traffic_policy: Option<String>,
    pub(crate) external_traffic_policy: Option<String>,
    pub(crate) health_check_node_port: Option<u16>,
    pub(crate) load_balancer_class: Option<String>,
    pub(crate) load_balancer_source_ranges: Option<Vec<String>>,
    pub(crate) ports: Option<Vec<PortSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AffinityConfig {
    #[serde(rename = "clientIP")]
    client_ip: Option<ClientAffinity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClientAffinity {
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Option<Vec<LoadBalancerIngress>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerIngress {
    ip: Option<IpAddr>,
}

impl Service {
    /// The addresses from outside that lead to it: its external ones, and those of its load balancer.
    pub(crate) fn outer_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let balanced = self.status.load_balancer.ingress.iter().flatten().filter_map(|ingress| ingress.ip);
        self.spec.external_ips.iter().flatten().copied().chain(balanced)
    }

    /// Its own address; a headless service has none.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.spec.cluster_ip.as_deref()?.parse().ok()
    }

    fn affinity(&self) -> Option<Duration> {
        let seconds = || self.spec.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds;
        let stays = self.spec.session_affinity.as_deref() == Some("ClientIP");
        stays.then(|| Duration::from_secs(seconds().unwrap_or(AFFINITY_SECONDS)))
    }

    /// The node that a connection must not leave, by the policy for the way it came.
    fn confined_to<'a>(&self, via: &'a Via) -> Option<&'a str> {
        let (policy, node) = match via {
            Via::Inside(node) => (&self.spec.internal_traffic_policy, node),
            Via::Outside(node) => (&self.spec.external_traffic_policy, node),
            Via::Anyhow => return None,
        };
        (policy.as_deref() == Some("Local")).then_some(node.as_str())
    }
}

/// A port of a Service or of a slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PortSpec {
    pub(crate) name: Option<String>,
    pub(crate) port: Option<u16>,
    protocol: Option<String>,
    pub(crate) node_port: Option<u16>,
}

impl PortSpec {
    /// Its protocol; SCTP is none that anything is forwarded by.
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        match self.protocol.as_deref() {
            None | Some("TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some(_) => None,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Slice {
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<PortSpec>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SliceEndpoint {
    addresses: Vec<String>,
    conditions: Conditions,
    hints: Option<Hints>,
    hostname: Option<String>,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

/// For whom an endpoint is meant first.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    uid: String,
}

impl SliceEndpoint {
    /// Whether new connections go there; nothing said is ready. A service that publishes pods before they are ready says that all are.
    fn is_ready(&self) -> bool {
        self.conditions.ready.unwrap_or(true)
    }

    /// Whether it ends and serves still: new connections go there where nobody is ready.
    fn drains(&self) -> bool {
        self.conditions.terminating.unwrap_or(false) && self.conditions.serving.unwrap_or_else(|| self.is_ready())
    }

    fn at(&self, port: u16) -> Option<Endpoint> {
        let address = self.addresses.first()?.parse().ok()?;
        let target = self.target_ref.as_ref().filter(|target| target.kind == "Pod" && !target.uid.is_empty());
        let pod = target.and_then(|target| Some((self.node_name.clone()?, Uid::from(target.uid.as_str()))));
        // A service may publish pods as ready however they are.
        let is_said_to_end = self.conditions.terminating.unwrap_or(false);
        let while_ending = if is_said_to_end { WhileEnding::Connect } else { WhileEnding::Refuse };
        Some(Endpoint { address, port, pod, while_ending })
    }
}

pub(crate) fn service(view: &View, key: &ObjectKey) -> Option<Arc<Service>> {
    view.typed(key)
}

/// The service that has an address.
pub(crate) fn service_at(view: &View, address: IpAddr) -> Option<ObjectKey> {
    let text = address.to_string();
    let mut services = view
        .by_attribute(&SERVICES, "spec.clusterIP", &text)
        .unwrap_or_else(|| Box::new(view.list(&SERVICES, None).filter(|s| s.attribute("spec.clusterIP") == text)));
    services.next().map(|service| service.key().clone())
}

/// The service that an address from outside leads to at a port.
pub(super) fn service_outside(view: &View, address: IpAddr, port: u16, protocol: Protocol) -> Option<ObjectKey> {
    let leads = |service: &Service| {
        let mut ports = service.spec.ports.iter().flatten();
        service.outer_addresses().any(|outer| outer == address)
            && ports.any(|spec| spec.port == Some(port) && spec.protocol() == Some(protocol))
    };
    let mut services = view.list(&SERVICES, None);
    services
        .find(|object| view.decode(object).is_some_and(|service| leads(&service)))
        .map(|object| object.key().clone())
}

/// The address of a service; a headless one has none.
pub(super) fn cluster_ip(view: &View, key: &ObjectKey) -> Option<IpAddr> {
    view.object(key)?.attribute("spec.clusterIP").parse().ok()
}

/// The name outside that a service stands for.
pub(crate) fn external_name(view: &View, key: &ObjectKey) -> Option<String> {
    let service = service(view, key)?;
    if service.spec.kind == "ExternalName" { service.spec.external_name.clone() } else { None }
}

/// The number of a service's TCP port that is given by number or name (`None`: the one without a name).
pub(crate) fn service_port(view: &View, key: &ObjectKey, wanted: Option<&str>) -> Option<u16> {
    let service = service(view, key)?;
    let mut ports = service.spec.ports.iter().flatten().filter(|port| port.protocol() == Some(Protocol::Tcp));
    let wanted = wanted.unwrap_or_default();
    let number = wanted.parse::<u16>().ok();
    ports.find(|port| if number.is_some() { port.port == number } else { port.name() == wanted })?.port
}

/// The endpoints that a connection may be tried at.
pub(super) fn candidates(view: &View, to: &ServicePort) -> Result<Candidates, Unroutable> {
    let name = || to.service.name.to_string();
    let service = service(view, &to.service).ok_or_else(|| Unroutable::Service(name()))?;
    let spec = &service.spec;
    let found = if spec.cluster_ip.as_deref() == Some("None") {
        // There is nobody in between who could know the ports.
        found(view, &to.service, |_| Some(to.port))
    } else {
        let is_wanted = |port: &&PortSpec| port.port == Some(to.port) && port.protocol() == Some(to.protocol);
        let port = spec.ports.iter().flatten().find(is_wanted).ok_or_else(|| Unroutable::Port(name(), to.port))?;
        found(view, &to.service, |slice| named(slice, port.name(), to.protocol))
    };
    let confined = service.confined_to(&to.via);
    let mut usable = usable(found, |found| confined.is_none_or(|node| found.node() == Some(node)));
    if usable.is_empty() {
        let why = if confined.is_some() { Unroutable::LocalEndpoints } else { Unroutable::Endpoints };
        return Err(why(name()));
    }
    if let (None, Via::Inside(node) | Via::Outside(node)) = (confined, &to.via) {
        prefer_near(view, node, &mut usable);
    }
    let endpoints = usable.into_iter().map(|found| found.endpoint).collect();
    Ok(Candidates { endpoints, affinity: service.affinity() })
}

/// Whether somebody is ready behind a port.
pub(crate) fn has_endpoints(view: &View, to: &ServicePort) -> bool {
    candidates(view, to).is_ok()
}

/// How many ready endpoints a service has on a node.
pub(crate) fn ready_on(view: &View, key: &ObjectKey, node: &str) -> usize {
    let found = found(view, key, |_| Some(0)).into_iter();
    let here: std::collections::BTreeSet<IpAddr> = found
        .filter(|found| found.said.is_ready() && found.node() == Some(node))
        .map(|found| found.endpoint.address)
        .collect();
    here.len()
}

/// The addresses of a service's ready endpoints.
pub(super) fn addresses(view: &View, key: &ObjectKey) -> Vec<IpAddr> {
    let ready = found(view, key, |_| Some(0)).into_iter().filter(|found| found.said.is_ready());
    ready.map(|found| found.endpoint.address).collect()
}

/// The ready endpoints of a headless service that have a hostname, or a dashed address without one.
pub(super) fn of_label(view: &View, key: &ObjectKey, label: &str, port: u16) -> Vec<Endpoint> {
    if service(view, key).is_none_or(|service| service.address().is_some()) {
        return Vec::new();
    }
    let is_meant = |found: &Found| {
        let own = found.said.hostname.clone().unwrap_or_else(|| dash(found.endpoint.address));
        found.said.is_ready() && own == label
    };
    found(view, key, |_| Some(port)).into_iter().filter(is_meant).map(|found| found.endpoint).collect()
}

/// A ready endpoint, as the cluster's DNS tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) address: IpAddr,
    pub(crate) hostname: Option<String>,
    pub(crate) ports: Vec<(String, u16, Protocol)>,
}

/// The ready endpoints of a service.
pub(crate) fn published(view: &View, key: &ObjectKey) -> Vec<Published> {
    slices(view, key).flat_map(|slice| published_in(view, slice)).collect()
}

/// Those of a slice.
pub(crate) fn published_in(view: &View, slice: &Arc<Object>) -> Vec<Published> {
    let Some(slice) = view.decode::<Slice>(slice) else { return Vec::new() };
    let port = |port: &PortSpec| Some((port.name().to_owned(), port.port?, port.protocol()?));
    let ports: Vec<_> = slice.ports.iter().flatten().filter_map(port).collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.is_ready());
    let published = |endpoint: &SliceEndpoint| {
        let address = endpoint.addresses.first()?.parse().ok()?;
        Some(Published { address, hostname: endpoint.hostname.clone(), ports: ports.clone() })
    };
    ready.filter_map(published).collect()
}

fn named(slice: &Slice, name: &str, protocol: Protocol) -> Option<u16> {
    slice.ports.iter().flatten().find(|port| port.name() == name && port.protocol() == Some(protocol))?.port
}

/// An endpoint, and what its slice says of it.
struct Found {
    endpoint: Endpoint,
    said: EndpointAt,
}

/// The place of an endpoint in its slice.
struct EndpointAt {
    slice: Arc<Slice>,
    index: usize,
}

impl std::ops::Deref for EndpointAt {
    type Target = SliceEndpoint;

    fn deref(&self) -> &SliceEndpoint {
        &self.slice.endpoints.as_deref().unwrap_or_default()[self.index]
    }
}

impl Found {
    fn node(&self) -> Option<&str> {
        self.said.node_name.as_deref()
    }
}

/// All endpoints in the slices that have the port.
fn found(view: &View, key: &ObjectKey, port: impl Fn(&Slice) -> Option<u16>) -> Vec<Found> {
    let mut found = Vec::new();
    for object in slices(view, key) {
        let Some(slice) = view.decode::<Slice>(object) else { continue };
        let Some(port) = port(&slice) else { continue };
        for (index, endpoint) in slice.endpoints.iter().flatten().enumerate() {
            if let Some(endpoint) = endpoint.at(port) {
                let said = EndpointAt { slice: Arc::clone(&slice), index };
                found.push(Found { endpoint, said });
            }
        }
    }
    found
}

/// Those that take new connections: the ready ones, or where there are none those that end and serve still.
fn usable(found: Vec<Found>, fits: impl Fn(&Found) -> bool) -> Vec<Found> {
    let (ready, others): (Vec<Found>, Vec<Found>) =
        found.into_iter().filter(fits).partition(|found| found.said.is_ready());
    if !ready.is_empty() {
        return ready;
    }
    others.into_iter().filter(|found| found.said.drains()).collect()
}

/// Keeps those that are meant for the node, or else for its zone, where every endpoint says for whom it is.
fn prefer_near(view: &View, node: &str, usable: &mut Vec<Found>) {
    let all = |hinted: fn(&Hints) -> Option<&Vec<Named>>| {
        usable.iter().all(|found| found.said.hints.as_ref().and_then(hinted).is_some_and(|names| !names.is_empty()))
    };
    let is_for = |found: &Found, hinted: fn(&Hints) -> Option<&Vec<Named>>, name: &str| {
        let names = found.said.hints.as_ref().and_then(hinted);
        names.into_iter().flatten().any(|named| named.name == name)
    };
    let for_node = |found: &Found| is_for(found, |hints| hints.for_nodes.as_ref(), node);
    if all(|hints| hints.for_nodes.as_ref()) && usable.iter().any(for_node) {
        return usable.retain(for_node);
    }
    let zone = view.object(&ObjectKey::new(NODES, "", node));
    let Some(zone) = zone.and_then(|node| node.metadata().labels.get("topology.kubernetes.io/zone")) else { return };
    let for_zone = |found: &Found| is_for(found, |hints| hints.for_zones.as_ref(), zone);
    if all(|hints| hints.for_zones.as_ref()) && usable.iter().any(for_zone) {
        usable.retain(for_zone);
    }
}

/// The slices of a service: those that it owns, and where its endpoints are a user's to keep, those that say its name.
fn slices<'a>(view: &'a View, key: &'a ObjectKey) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
    let of_service = |slice: &&Arc<Object>| {
        slice.metadata().labels.get(SERVICE_NAME).map(String::as_str) == Some(&*key.name)
            && slice.metadata().deletion_timestamp.is_none()
    };
    let Some(object) = view.object(key) else { return Box::new(std::iter::empty()) };
    let selects = service(view, key).is_some_and(|service| service.spec.selector.iter().flatten().next().is_some());
    match &object.metadata().uid {
        Some(uid) if selects => {
            Box::new(view.owned_by(uid).filter(|o| o.key().resource == ENDPOINT_SLICES).filter(of_service))
        }
        _ => match view.by_attribute(&ENDPOINT_SLICES, SERVICE_NAME_INDEX, &key.name) {
            Some(named) => Box::new(named.filter(|slice| slice.key().namespace == key.namespace).filter(of_service)),
            None => Box::new(view.list(&ENDPOINT_SLICES, Some(&key.namespace)).filter(of_service)),
        },
    }
}

#[cfg(test)]
mod tests;
