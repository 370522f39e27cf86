//! Where a service leads: its EndpointSlices in a view, and the order in which its endpoints are tried.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::resources::{ENDPOINT_SLICES, SERVICES};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_store::View;
use serde::Deserialize;

use super::ServicePort;

/// The label of a slice that names its service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    /// The pod behind it and its node: its address may be another pod's tomorrow, and with the host's network it is not its own.
    pub(super) pod: Option<(String, Uid)>,
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
}

/// What is read of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Service {
    spec: ServiceSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    external_name: Option<String>,
    selector: Option<std::collections::BTreeMap<String, String>>,
    session_affinity: Option<String>,
    ports: Option<Vec<PortSpec>>,
}

/// A port of a Service or of a slice.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortSpec {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
    node_port: Option<u16>,
}

impl PortSpec {
    fn is_tcp(&self) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
    }

    fn name(&self) -> &str {
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
    hostname: Option<String>,
    node_name: Option<String>,
    target_ref: Option<TargetRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    uid: String,
}

impl SliceEndpoint {
    /// Whether new connections may go there; nothing said is ready.
    fn is_usable(&self) -> bool {
        self.conditions.ready.unwrap_or(true) && !self.conditions.terminating.unwrap_or(false)
    }

    fn at(&self, port: u16) -> Option<Endpoint> {
        let address = self.addresses.first()?.parse().ok()?;
        let target = self.target_ref.as_ref().filter(|target| target.kind == "Pod" && !target.uid.is_empty());
        let pod = target.and_then(|target| Some((self.node_name.clone()?, Uid::from(target.uid.as_str()))));
        Some(Endpoint { address, port, pod })
    }
}

fn service(view: &View, key: &ObjectKey) -> Option<Arc<Service>> {
    view.typed(key)
}

/// The service that has an address.
pub(super) fn service_at(view: &View, address: IpAddr) -> Option<ObjectKey> {
    let text = address.to_string();
    let mut services = view
        .by_attribute(&SERVICES, "spec.clusterIP", &text)
        .unwrap_or_else(|| Box::new(view.list(&SERVICES, None).filter(|s| s.attribute("spec.clusterIP") == text)));
    services.next().map(|service| service.key().clone())
}

/// The address of a service; a headless one has none.
pub(super) fn cluster_ip(view: &View, key: &ObjectKey) -> Option<IpAddr> {
    view.object(key)?.attribute("spec.clusterIP").parse().ok()
}

/// The name outside that a service stands for.
pub(super) fn external_name(view: &View, key: &ObjectKey) -> Option<String> {
    let service = service(view, key)?;
    if service.spec.kind == "ExternalName" { service.spec.external_name.clone() } else { None }
}

/// The node ports of a service that are TCP, and its ports behind them.
pub(crate) fn node_ports(view: &View, object: &Arc<Object>) -> Vec<(u16, u16)> {
    let Some(service) = view.decode::<Service>(object) else { return Vec::new() };
    let ports = service.spec.ports.iter().flatten().filter(|port| port.is_tcp());
    ports.filter_map(|port| Some((port.node_port.filter(|number| *number != 0)?, port.port?))).collect()
}

/// The number of a service's port that is given by number or name (`None`: the one without a name).
pub(crate) fn service_port(view: &View, key: &ObjectKey, wanted: Option<&str>) -> Option<u16> {
    let service = service(view, key)?;
    let mut ports = service.spec.ports.iter().flatten().filter(|port| port.is_tcp());
    let wanted = wanted.unwrap_or_default();
    let number = wanted.parse::<u16>().ok();
    ports.find(|port| if number.is_some() { port.port == number } else { port.name() == wanted })?.port
}

/// The endpoints that a connection is tried at, first the one whose turn it is, or that the client stays with.
pub(super) fn candidates(
    view: &View,
    to: &ServicePort,
    turn: impl FnOnce() -> usize,
) -> Result<Vec<Endpoint>, Unroutable> {
    let name = || to.service.name.to_string();
    let service = service(view, &to.service).ok_or_else(|| Unroutable::Service(name()))?;
    let spec = &service.spec;
    let mut ready = if spec.cluster_ip.as_deref() == Some("None") {
        // There is nobody in between who could know the ports.
        usable(view, &to.service, |_| Some(to.port), |_| true)
    } else {
        let is_wanted = |port: &&PortSpec| port.port == Some(to.port) && port.is_tcp();
        let port = spec.ports.iter().flatten().find(is_wanted).ok_or_else(|| Unroutable::Port(name(), to.port))?;
        usable(view, &to.service, |slice| named(slice, port.name()), |_| true)
    };
    if ready.is_empty() {
        return Err(Unroutable::Endpoints(name()));
    }
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        ready.sort_by_key(|endpoint| std::cmp::Reverse(preference(&to.peer, endpoint)));
    } else {
        let count = ready.len();
        ready.rotate_left(turn() % count);
    }
    Ok(ready)
}

/// Whether somebody is ready behind a port.
pub(crate) fn has_endpoints(view: &View, to: &ServicePort) -> bool {
    candidates(view, to, || 0).is_ok()
}

/// The addresses of a service's ready endpoints.
pub(super) fn addresses(view: &View, key: &ObjectKey) -> Vec<IpAddr> {
    usable(view, key, |_| Some(0), |_| true).into_iter().map(|endpoint| endpoint.address).collect()
}

/// The ready endpoints of a service that have a hostname.
pub(super) fn of_host(view: &View, key: &ObjectKey, hostname: &str, port: u16) -> Vec<Endpoint> {
    usable(view, key, |_| Some(port), |endpoint| endpoint.hostname.as_deref() == Some(hostname))
}

fn named(slice: &Slice, name: &str) -> Option<u16> {
    slice.ports.iter().flatten().find(|port| port.name() == name && port.is_tcp())?.port
}

/// The endpoints that take new connections, in the slices that have the port.
fn usable(
    view: &View,
    key: &ObjectKey,
    port: impl Fn(&Slice) -> Option<u16>,
    fits: impl Fn(&SliceEndpoint) -> bool,
) -> Vec<Endpoint> {
    let mut found = Vec::new();
    for object in slices(view, key) {
        let Some(slice) = view.decode::<Slice>(object) else { continue };
        let Some(port) = port(&slice) else { continue };
        let endpoints = slice.endpoints.iter().flatten().filter(|endpoint| endpoint.is_usable() && fits(endpoint));
        found.extend(endpoints.filter_map(|endpoint| endpoint.at(port)));
    }
    found
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
        _ => Box::new(view.list(&ENDPOINT_SLICES, Some(&key.namespace)).filter(of_service)),
    }
}

/// How much a client prefers an endpoint: the same each time, and when an endpoint goes only its own clients move.
fn preference(peer: &str, endpoint: &Endpoint) -> u64 {
    // FNV-1a, and a last mix: neighbouring addresses differ in their last bytes only.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in peer.bytes().chain(endpoint.address.to_string().bytes()).chain(endpoint.port.to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    hash.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests;
