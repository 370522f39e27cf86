//! The one Dialer: whoever opens a connection into the cluster asks it, and it finds the ready endpoint behind a name or address.
//!
//! For Wasm pods the network is virtual: a connection is a pair of byte streams in the process, and nothing touches the
//! operating system unless the destination is outside the cluster.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_api::resources::{ENDPOINT_SLICES, PODS, SERVICES};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_node::runtime::{ByteStream, Destination, OpenError, StreamSpec};
use coracle_store::View;
use serde_json::Value;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::process::Process;

/// The name under which services and pods are found, behind `<service>.<namespace>.svc.`.
const CLUSTER_DOMAIN: &str = "cluster.local";
/// Spreads connections over endpoints.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// An address inside or outside the cluster.
    Address(IpAddr, u16),
    /// A service's port.
    Service(ObjectKey, u16),
    /// A name outside the cluster.
    Outside(String, u16),
}

/// A connection that a guest opens.
pub(crate) async fn dial_from_pod(process: &Process, from: &Uid, to: &Destination) -> Result<ByteStream, OpenError> {
    let view = process.view();
    let target = target(&view, from, to);
    dial(process, &view, target).await
}

/// A connection to a service's port.
pub(crate) async fn dial_service(process: &Process, service: ObjectKey, port: u16) -> Result<ByteStream, OpenError> {
    let view = process.view();
    dial(process, &view, Target::Service(service, port)).await
}

/// A connection to a port of a pod.
pub(crate) fn dial_pod(process: &Process, node: &str, pod: &Uid, port: u16) -> Result<ByteStream, OpenError> {
    let runtime =
        process.nodes.runtime(node).ok_or_else(|| OpenError(format!("node {node:?} is not reachable from here")))?;
    runtime.open(StreamSpec::Port { pod: pod.clone(), port })
}

async fn dial(process: &Process, view: &View, target: Target) -> Result<ByteStream, OpenError> {
    let (address, port) = match target {
        Target::Address(address, port) => match service_at(view, address) {
            Some(service) => endpoint(view, &service, port)?,
            None => (address, port),
        },
        Target::Service(key, port) => {
            let service = view.object(&key).ok_or_else(|| OpenError(format!("there is no service {key}")))?;
            endpoint(view, &Arc::clone(service), port)?
        }
        Target::Outside(host, port) => return outside(&host, port).await,
    };
    if let Some((node, pod)) = process.nodes.pod_at(address) {
        return dial_pod(process, &node, &pod, port);
    }
    if is_in_cluster(process, address) {
        return Err(OpenError(format!("no pod has the address {address}")));
    }
    let stream = tokio::net::TcpStream::connect(SocketAddr::new(address, port)).await;
    stream.map(own).map_err(|error| OpenError(format!("cannot connect to {address}:{port}: {error}")))
}

async fn outside(host: &str, port: u16) -> Result<ByteStream, OpenError> {
    let stream = tokio::net::TcpStream::connect((host, port)).await;
    stream.map(own).map_err(|error| OpenError(format!("cannot connect to {host}:{port}: {error}")))
}

fn own(stream: tokio::net::TcpStream) -> ByteStream {
    let _ = stream.set_nodelay(true);
    Box::pin(stream.compat())
}

/// Whether an address belongs to the pods or services, so that it must not be looked for outside.
fn is_in_cluster(process: &Process, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let options = &process.options;
    let within = |network: std::net::Ipv4Addr, prefix: u8| {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        u32::from(address) & mask == u32::from(network) & mask
    };
    within(options.pod_network, options.pod_prefix) || within(options.service_network, options.service_prefix)
}

fn target(view: &View, from: &Uid, to: &Destination) -> Target {
    if let Ok(address) = to.host.trim_matches(['[', ']']).parse() {
        return Target::Address(address, to.port);
    }
    match named(view, from, &to.host) {
        Some(key) => Target::Service(key, to.port),
        None => Target::Outside(to.host.clone(), to.port),
    }
}

/// The service that a pod means by a name: `web`, `web.shop`, `web.shop.svc` or `web.shop.svc.cluster.local`.
fn named(view: &View, from: &Uid, host: &str) -> Option<ObjectKey> {
    let host = host.trim_end_matches('.').to_lowercase();
    let short = host.strip_suffix(CLUSTER_DOMAIN).map_or(host.as_str(), |rest| rest.trim_end_matches('.'));
    let parts: Vec<&str> = short.split('.').collect();
    let (name, namespace) = match parts.as_slice() {
        [name] => (*name, view.by_uid(from).map(|pod| pod.key().namespace.to_string()).unwrap_or_default()),
        [name, namespace] | [name, namespace, "svc"] => (*name, (*namespace).to_owned()),
        _ => return None,
    };
    let key = ObjectKey::new(SERVICES, &namespace, name);
    view.object(&key).map(|service| service.key().clone())
}

/// The addresses of a name as a guest's resolver sees it: a service's own, or those of a headless one's ready pods.
pub(crate) fn resolve(view: &View, from: &Uid, name: &str) -> Result<Vec<IpAddr>, OpenError> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let Some(key) = named(view, from, name) else {
        return Err(OpenError(format!("{name} is not known in the cluster")));
    };
    let service = view.object(&key).ok_or_else(|| OpenError(format!("there is no service {key}")))?;
    if let Some(address) = cluster_ip(service) {
        return Ok(vec![address]);
    }
    Ok(ready_endpoints(view, service, |_| true).into_iter().map(|(address, _)| address).collect())
}

fn cluster_ip(service: &Object) -> Option<IpAddr> {
    service.attribute("spec.clusterIP").parse().ok()
}

fn service_at(view: &View, address: IpAddr) -> Option<Arc<Object>> {
    view.list(&SERVICES, None).find(|service| cluster_ip(service) == Some(address)).cloned()
}

/// One of the ready endpoints behind a service's port.
fn endpoint(view: &View, service: &Arc<Object>, port: u16) -> Result<(IpAddr, u16), OpenError> {
    let value = service.value(None);
    let ports = value["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let Some(wanted) = ports.iter().find(|p| p["port"].as_u64() == Some(u64::from(port))) else {
        return Err(OpenError(format!("service {} has no port {port}", service.key().name)));
    };
    let name = wanted["name"].as_str().unwrap_or_default();
    let ready = ready_endpoints(view, service, |candidate| candidate == name);
    if ready.is_empty() {
        return Err(OpenError(format!("service {} has no ready endpoint", service.key().name)));
    }
    Ok(ready[NEXT.fetch_add(1, Ordering::Relaxed) % ready.len()])
}

/// The addresses and ports of a service's endpoints that are ready, for the ports whose name fits.
fn ready_endpoints(view: &View, service: &Object, fits: impl Fn(&str) -> bool) -> Vec<(IpAddr, u16)> {
    let key = service.key();
    let mut ready = Vec::new();
    for slice in view.list(&ENDPOINT_SLICES, Some(&key.namespace)) {
        if slice.metadata().labels.get("kubernetes.io/service-name").map(String::as_str) != Some(&*key.name) {
            continue;
        }
        let slice = slice.value(None);
        let Some(port) = items(&slice["ports"]).find(|p| fits(p["name"].as_str().unwrap_or_default())) else {
            continue;
        };
        let Some(port) = port["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else { continue };
        let is_ready = |endpoint: &&Value| endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        for endpoint in items(&slice["endpoints"]).filter(is_ready) {
            let addresses = items(&endpoint["addresses"]).filter_map(|address| address.as_str()?.parse().ok());
            ready.extend(addresses.map(|address: IpAddr| (address, port)));
        }
    }
    ready
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The node and uid of a pod by name.
pub(crate) fn pod(view: &View, namespace: &str, name: &str) -> Option<(String, Uid)> {
    let pod = view.object(&ObjectKey::new(PODS, namespace, name))?;
    Some((pod.attribute("spec.nodeName").to_owned(), pod.metadata().uid.clone()?))
}
