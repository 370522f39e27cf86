//! The one Dialer: whoever opens a connection into the cluster asks it, and it finds the ready endpoint behind a name or address.
//!
//! For Wasm pods the network is virtual: a connection is a pair of byte streams in the process, and nothing touches the
//! operating system unless the destination is outside the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_api::resources::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_node::runtime::{ByteStream, Destination, OpenError, StreamSpec};
use coracle_store::View;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::process::Process;

mod endpoints;
mod handover;
mod names;

use endpoints::Endpoint;
use endpoints::Unroutable;
pub(crate) use endpoints::{has_endpoints, node_ports, service_port};
use handover::ServiceStream;
use names::Name;

/// How long a connection that leaves the process may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for new endpoints when all that are known refuse it: a pod that ends refuses before its
/// endpoint is taken out, which takes milliseconds.
const ENDPOINTS_WAIT: Duration = Duration::from_secs(2);
/// How many services' turns are remembered; beyond, all begin anew.
const TURNS_MAX: usize = 10_000;

/// A port of a service, and who connects: a pod's uid or a client's address, by which a service may keep clients with a pod.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    pub(crate) peer: String,
}

/// Whose turn it is among each service's endpoints.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<ObjectKey, usize>>);

impl Turns {
    fn next(&self, service: &ObjectKey) -> usize {
        let mut turns = self.0.lock().expect("nothing panics while it holds the lock");
        if turns.len() >= TURNS_MAX && !turns.contains_key(service) {
            turns.clear();
        }
        let turn = turns.entry(service.clone()).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }
}

/// A connection that a guest opens.
pub(crate) async fn dial_from_pod(
    process: &Arc<Process>,
    from: &Uid,
    to: &Destination,
) -> Result<ByteStream, OpenError> {
    let view = process.view();
    let port = to.port;
    let service = |service| ServicePort { service, port, peer: from.to_string() };
    match meaning(&view, from, &to.host) {
        Name::Address(address) if address.is_loopback() => own_port(process, &view, from, port).await,
        Name::Address(address) => match endpoints::service_at(&view, address) {
            Some(key) => dial_service(process, service(key)).await,
            None => dial_address(process, address, port).await,
        },
        Name::Service(key) => dial_service(process, service(key)).await,
        Name::Pod(key, hostname) => {
            let ready = endpoints::of_host(&view, &key, &hostname, port);
            let endpoint = ready.into_iter().next().ok_or_else(|| no_such_host(&to.host))?;
            open(process, &endpoint).await
        }
        Name::Outside(name) => outside(&name, port).await,
        Name::Unknown => Err(no_such_host(&to.host)),
    }
}

/// A connection to a port of a service. When the endpoint ends before it has begun with what was sent, another takes over.
pub(crate) async fn dial_service(process: &Arc<Process>, to: ServicePort) -> Result<ByteStream, OpenError> {
    let first = connect(process, &to).await?;
    let (process, to) = (Arc::downgrade(process), to);
    let redial = move || {
        let (process, to) = (process.upgrade(), to.clone());
        let dialing = async move {
            let process = process.ok_or_else(|| OpenError("the cluster has stopped".into()))?;
            connect(&process, &to).await
        };
        Box::pin(dialing) as coracle_node::runtime::Connecting
    };
    Ok(Box::pin(ServiceStream::new(first, Box::new(redial))))
}

/// A connection to a port of a pod, wherever its node is.
pub(crate) async fn dial_pod(process: &Process, node: &str, pod: &Uid, port: u16) -> Result<ByteStream, OpenError> {
    match dial_pod_here(process, node, pod, port) {
        Err(error) if process.nodes.runtime(node).is_none() => {
            process.peers.dial(node, pod, port).await.unwrap_or(Err(error))
        }
        dialed => dialed,
    }
}

/// The same for a pod of this process.
pub(crate) fn dial_pod_here(process: &Process, node: &str, pod: &Uid, port: u16) -> Result<ByteStream, OpenError> {
    let runtime =
        process.nodes.runtime(node).ok_or_else(|| OpenError(format!("node {node:?} is not reachable from here")))?;
    runtime.open(StreamSpec::Port { pod: pod.clone(), port })
}

/// The addresses of a name as a guest's resolver sees it: a service's own, or those of a headless one's ready pods.
pub(crate) fn resolve(view: &View, from: &Uid, name: &str) -> Result<Vec<IpAddr>, OpenError> {
    let found = match meaning(view, from, name) {
        Name::Address(address) => vec![address],
        Name::Service(key) => match endpoints::cluster_ip(view, &key) {
            Some(address) => vec![address],
            None => endpoints::addresses(view, &key),
        },
        Name::Pod(key, hostname) => {
            endpoints::of_host(view, &key, &hostname, 0).into_iter().map(|endpoint| endpoint.address).collect()
        }
        Name::Outside(_) | Name::Unknown => Vec::new(),
    };
    if found.is_empty() { Err(no_such_host(name)) } else { Ok(found) }
}

/// Tries the endpoints in turn; when all refuse, those that come next.
async fn connect(process: &Arc<Process>, to: &ServicePort) -> Result<ByteStream, OpenError> {
    let is_api = to.service == ObjectKey::new(SERVICES, "default", "kubernetes");
    if is_api && endpoints::service_port(&process.view(), &to.service, Some(&to.port.to_string())).is_some() {
        return api_server(process).await;
    }
    let deadline = Instant::now() + ENDPOINTS_WAIT;
    let mut views = process.views.clone();
    loop {
        let view = views.borrow_and_update().clone();
        let seen = view.last_change(&ENDPOINT_SLICES);
        let turn = || process.turns.next(&to.service);
        let candidates = endpoints::candidates(&view, to, turn).map_err(|error| refused(&view, to, &error))?;
        drop(view);
        let mut last = OpenError("connection refused".into());
        for endpoint in candidates {
            match open(process, &endpoint).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        let news = views.wait_for(|view| view.last_change(&ENDPOINT_SLICES) != seen);
        match tokio::time::timeout_at(deadline, news).await {
            Ok(Ok(_)) => {}
            _ => return Err(last),
        }
    }
}

async fn open(process: &Process, endpoint: &Endpoint) -> Result<ByteStream, OpenError> {
    match &endpoint.pod {
        Some((node, pod)) if process.nodes.runtime(node).is_some() || process.peers.elsewhere(node).is_some() => {
            dial_pod(process, node, pod, endpoint.port).await
        }
        _ => dial_address(process, endpoint.address, endpoint.port).await,
    }
}

/// The Service of the API server leads to its socket.
async fn api_server(process: &Process) -> Result<ByteStream, OpenError> {
    match process.options.advertise.parse() {
        Ok(address) => tcp(address).await,
        Err(_) => Err(OpenError("connection refused: the API server has no socket".into())),
    }
}

/// What a pod calls localhost is itself.
async fn own_port(process: &Process, view: &View, from: &Uid, port: u16) -> Result<ByteStream, OpenError> {
    let node = view.by_uid(from).map(|pod| pod.attribute("spec.nodeName").to_owned()).unwrap_or_default();
    dial_pod(process, &node, from, port).await
}

async fn dial_address(process: &Process, address: IpAddr, port: u16) -> Result<ByteStream, OpenError> {
    if let Some((node, pod)) = process.nodes.pod_at(address) {
        return dial_pod(process, &node, &pod, port).await;
    }
    if let Some((node, pod)) = pod_with(&process.view(), address)
        && process.peers.elsewhere(&node).is_some()
    {
        return dial_pod(process, &node, &pod, port).await;
    }
    let address = SocketAddr::new(address, port);
    if is_in_cluster(process, address.ip()) {
        return Err(OpenError(format!("dial tcp {address}: connect: no route to host")));
    }
    tcp(address).await
}

/// A name outside the cluster. The machine's own loopback is not among what a pod may reach.
async fn outside(host: &str, port: u16) -> Result<ByteStream, OpenError> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|_| no_such_host(host))?;
    let mut last = no_such_host(host);
    for address in addresses.filter(|address| !address.ip().is_loopback()) {
        match tcp(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(address: SocketAddr) -> Result<ByteStream, OpenError> {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let why = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => error.to_string(),
            };
            return Err(OpenError(format!("dial tcp {address}: connect: {why}")));
        }
        Err(_) => return Err(OpenError(format!("dial tcp {address}: i/o timeout"))),
    };
    let _ = stream.set_nodelay(true);
    Ok(Box::pin(stream.compat()))
}

/// Whether an address belongs to the pods or services, so that it must not be looked for outside.
fn is_in_cluster(process: &Process, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let options = &process.options;
    has_prefix(address, options.pod_network, options.pod_prefix)
        || has_prefix(address, options.service_network, options.service_prefix)
}

/// A service that leads nowhere refuses, as kube-proxy does for it.
fn refused(view: &View, to: &ServicePort, why: &Unroutable) -> OpenError {
    let host = endpoints::cluster_ip(view, &to.service)
        .map_or_else(|| to.service.name.to_string(), |address| address.to_string());
    OpenError(format!("dial tcp {host}:{}: connect: connection refused: {why}", to.port))
}

fn no_such_host(name: &str) -> OpenError {
    OpenError(format!("lookup {name}: no such host"))
}

/// What a pod means by a name: what a hosts file of its own would say comes before the cluster's DNS.
fn meaning(view: &View, from: &Uid, name: &str) -> Name {
    match names::in_hosts(view, from, name) {
        Some(address) => Name::Address(address),
        None => names::look_up(view, &namespace_of(view, from), name),
    }
}

fn namespace_of(view: &View, pod: &Uid) -> String {
    view.by_uid(pod).map(|pod| pod.key().namespace.to_string()).unwrap_or_default()
}

/// The node and uid of the pod that has an address, by the range of its node.
fn pod_with(view: &View, address: IpAddr) -> Option<(String, Uid)> {
    let range = |node: &Arc<Object>| node.value(None)["spec"]["podCIDR"].as_str().map(str::to_owned);
    let node = view.list(&NODES, None).find(|node| range(node).is_some_and(|range| is_within(&range, address)))?;
    let node = node.key().name.to_string();
    let text = address.to_string();
    let has = |pod: &&Arc<Object>| {
        let pod = pod.value(None);
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        !ended && pod["status"]["podIP"] == text.as_str()
    };
    let uid = view.by_attribute(&PODS, "spec.nodeName", &node)?.find(has)?.metadata().uid.clone()?;
    Some((node, uid))
}

/// Whether a range in CIDR notation has an address.
fn is_within(range: &str, address: IpAddr) -> bool {
    let IpAddr::V4(address) = address else { return false };
    let parsed =
        range.split_once('/').and_then(|(network, prefix)| Some((network.parse().ok()?, prefix.parse().ok()?)));
    parsed.is_some_and(|(network, prefix)| has_prefix(address, network, prefix))
}

fn has_prefix(address: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
    u32::from(address) & mask == u32::from(network) & mask
}

/// The node and uid of a pod by name.
pub(crate) fn pod(view: &View, namespace: &str, name: &str) -> Option<(String, Uid)> {
    let pod = view.object(&ObjectKey::new(PODS, namespace, name))?;
    Some((pod.attribute("spec.nodeName").to_owned(), pod.metadata().uid.clone()?))
}
