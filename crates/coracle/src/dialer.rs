//! The one Dialer: whoever opens a connection into the cluster asks it, and it finds the ready endpoint behind a name or address.
//!
//! For Wasm pods the network is virtual: a connection is a pair of byte streams in the process, and nothing touches the
//! operating system unless the destination is outside the cluster.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_node::runtime::{ByteStream, Destination, OpenError, StreamSpec};
use coracle_store::View;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use crate::dns;
use crate::process::Process;

mod datagrams;
mod endpoints;
mod guests;
mod handover;
mod names;
mod policy;
mod turns;

pub(crate) use datagrams::{DATAGRAM_MAX, dial_datagrams, read_datagram, still_takes, write_datagram};
use endpoints::{Endpoint, Unroutable};
pub(crate) use endpoints::{
    Published, Service, external_name, has_endpoints, published, published_in, ready_on, service, service_at,
    service_port,
};
pub(crate) use guests::{datagrams_from_pod, resolve};
use handover::ServiceStream;
use names::Name;
pub(crate) use policy::{End, is_within};
#[cfg(target_os = "linux")]
pub(crate) use policy::{Opening, about, openings, pods_in};
pub(crate) use turns::Turns;

/// How long a connection that leaves the process may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection waits for new endpoints when all that are known refuse it: a pod that ends refuses before its
/// endpoint is taken out, which takes milliseconds.
const ENDPOINTS_WAIT: Duration = Duration::from_secs(2);

/// What is spoken at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) enum Protocol {
    /// A stream of bytes.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// How a client comes to a service, which says whose traffic policy holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// By the service's own address or name, on this node: `internalTrafficPolicy`.
    Inside(String),
    /// By a node port, or an address that it has outside, on this node: `externalTrafficPolicy`.
    Outside(String),
    /// By the API server, or as a pod by an address from outside: wherever the endpoints are.
    Anyhow,
}

/// A port of a service, and who connects.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) service: ObjectKey,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    /// A pod's uid or a client's address, by which a service may keep clients with a pod.
    pub(crate) peer: String,
    pub(crate) via: Via,
    /// The end that connects, as policies know it.
    pub(crate) from: End,
}

/// Whether a pod that is being deleted is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum WhileEnding {
    /// Who wants this very pod, or has no other endpoint, is let in as long as it listens.
    #[default]
    Connect,
    /// Who can have another endpoint is sent there: from the moment at which the pod's node knows of the deletion, which is before the
    /// pod is asked to end.
    Refuse,
}

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodPort {
    pub(crate) node: String,
    pub(crate) pod: Uid,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) while_ending: WhileEnding,
    /// Who connects, as the pod is told; a loopback address is the pod itself.
    pub(crate) from: Option<SocketAddr>,
}

impl PodPort {
    /// A port of this very pod, for somebody of whom it is told nothing.
    pub(crate) fn of(node: String, pod: Uid, port: u16, protocol: Protocol) -> Self {
        Self { node, pod, port, protocol, while_ending: WhileEnding::Connect, from: None }
    }

    /// The same for somebody who is told. The machine's own loopback is not the pod's.
    pub(crate) fn from(self, from: Option<SocketAddr>) -> Self {
        Self { from: from.filter(|from| !from.ip().is_loopback()), ..self }
    }

    /// The same from inside of the pod.
    pub(crate) fn inside(self) -> Self {
        Self { from: Some((Ipv4Addr::LOCALHOST, 0).into()), ..self }
    }
}

/// What somebody means who asks for an address.
#[derive(Clone, Debug)]
pub(crate) enum Meant {
    /// A port of a service.
    Service(ServicePort),
    /// Just that address; and who wants to go there.
    Address(SocketAddr, End),
}

/// What the host or one of its containers means by an address.
pub(crate) fn meant(process: &Process, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Meant {
    let view = process.view();
    let end = end_at(process, &view, from);
    let service = |service, via| {
        let (from, peer) = (end.clone(), from.to_string());
        Meant::Service(ServicePort { service, port: to.port(), protocol, peer, via, from })
    };
    match endpoints::service_at(&view, to.ip()) {
        Some(key) => service(key, Via::Inside(process.node.clone())),
        None => match endpoints::service_outside(&view, to.ip(), to.port(), protocol) {
            Some(key) => service(key, Via::Anyhow),
            None => Meant::Address(to, end.clone()),
        },
    }
}

/// A connection to what is meant, inside the cluster.
pub(crate) async fn dial_meant(process: &Arc<Process>, meant: &Meant) -> Result<ByteStream, OpenError> {
    match meant {
        Meant::Service(port) => dial_service(process, port.clone()).await,
        Meant::Address(to, from) => dial_address(process, from, *to, Protocol::Tcp, source(process, from)).await,
    }
}

/// Whether an address is an external one of a service.
pub(crate) fn is_external(view: &View, address: IpAddr) -> bool {
    let has = |service: &Service| service.outer_addresses().any(|outer| outer == address);
    view.list(&SERVICES, None).any(|object| view.decode(object).is_some_and(|service| has(&service)))
}

/// A connection that a guest opens.
pub(crate) async fn dial_from_pod(
    process: &Arc<Process>,
    from: &Uid,
    to: &Destination,
) -> Result<ByteStream, OpenError> {
    let view = process.view();
    let port = to.port;
    let end = End::Pod(from.clone());
    let service_via = |service, via| {
        let (from, peer) = (end.clone(), from.to_string());
        ServicePort { service, port, protocol: Protocol::Tcp, peer, via, from }
    };
    let service = |service| service_via(service, Via::Inside(node_of(&view, from)));
    match meaning(&view, from, &to.host) {
        Name::Address(address) if address.is_loopback() => own_port(process, &view, from, port).await,
        Name::Address(address) => match endpoints::service_at(&view, address) {
            Some(key) => dial_service(process, service(key)).await,
            None => match endpoints::service_outside(&view, address, port, Protocol::Tcp) {
                Some(key) => dial_service(process, service_via(key, Via::Anyhow)).await,
                None => dial_address(process, &end, (address, port).into(), Protocol::Tcp, source(process, &end)).await,
            },
        },
        Name::Service(key) => dial_service(process, service(key)).await,
        Name::Endpoint(key, label) => {
            let ready = endpoints::of_label(&view, &key, &label, port);
            let endpoint = ready.into_iter().next().ok_or_else(|| no_such_host(&to.host))?;
            open(process, &end, &endpoint).await
        }
        Name::Outside(name) => outside(process, &end, &name, port).await,
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
pub(crate) async fn dial_pod(process: &Process, to: &PodPort) -> Result<ByteStream, OpenError> {
    match dial_pod_here(process, to).await {
        Err(error) if process.nodes.runtime(&to.node).is_none() => process.peers.dial(to).await.unwrap_or(Err(error)),
        dialed => dialed,
    }
}

/// The same for a pod of this process.
pub(crate) async fn dial_pod_here(process: &Process, to: &PodPort) -> Result<ByteStream, OpenError> {
    let PodPort { node, pod, port, protocol, while_ending, from } = to.clone();
    let runtime =
        process.nodes.runtime(&node).ok_or_else(|| OpenError(format!("node {node:?} is not reachable from here")))?;
    // The node's agent acts on no newer view than this one: who is let in here comes before the pod is asked to end.
    if while_ending == WhileEnding::Refuse && is_ending(&process.view(), &pod) {
        return Err(OpenError(format!("pod {pod} port {port}: connect: connection refused: the pod is ending")));
    }
    let opening = runtime.open(match protocol {
        Protocol::Tcp => StreamSpec::Port { pod, port, from },
        Protocol::Udp => StreamSpec::Datagrams { pod, port, from },
    });
    opening.await
}

/// Whether a pod is being deleted.
fn is_ending(view: &View, pod: &Uid) -> bool {
    view.by_uid(pod).is_some_and(|pod| pod.metadata().deletion_timestamp.is_some())
}

/// Tries the endpoints in turn; when all refuse, those that come next.
async fn connect(process: &Arc<Process>, to: &ServicePort) -> Result<ByteStream, OpenError> {
    let is_api = to.service == ObjectKey::new(SERVICES, "default", "kubernetes");
    if is_api && endpoints::service_port(&process.view(), &to.service, Some(&to.port.to_string())).is_some() {
        return api_server(process).await;
    }
    if to.service == dns::service() && to.port == dns::PORT {
        return Ok(dns::connect(process));
    }
    let deadline = Instant::now() + ENDPOINTS_WAIT;
    let mut views = process.views.clone();
    loop {
        let view = views.borrow_and_update().clone();
        let seen = view.last_change(&ENDPOINT_SLICES);
        let candidates = endpoints::candidates(&view, to).map_err(|error| refused(&view, to, &error))?;
        drop(view);
        let affinity = candidates.affinity;
        let (mut last, mut is_denied) = (OpenError("connection refused".into()), true);
        let mut order = process.turns.order(to, candidates, Instant::now());
        // A machine that does not answer costs whoever tries it a while: it comes last, for as long as its pods count as ready.
        order.sort_by_cached_key(|endpoint| {
            endpoint.pod.as_ref().is_some_and(|(node, _)| process.peers.is_silent(node))
        });
        for endpoint in order {
            if let Err(denied) = permit_endpoint(process, &to.from, &endpoint, Protocol::Tcp) {
                last = denied;
                continue;
            }
            is_denied = false;
            match open(process, &to.from, &endpoint).await {
                Ok(stream) => {
                    process.turns.connected(to, &endpoint, affinity, Instant::now());
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        if is_denied {
            return Err(last);
        }
        let news = views.wait_for(|view| view.last_change(&ENDPOINT_SLICES) != seen);
        match tokio::time::timeout_at(deadline, news).await {
            Ok(Ok(_)) => {}
            _ => return Err(last),
        }
    }
}

async fn open(process: &Process, from: &End, endpoint: &Endpoint) -> Result<ByteStream, OpenError> {
    permit_endpoint(process, from, endpoint, Protocol::Tcp)?;
    match &endpoint.pod {
        Some((node, pod)) if process.nodes.runtime(node).is_some() || process.peers.elsewhere(node).is_some() => {
            dial_pod(process, &endpoint.in_pod(node, pod, Protocol::Tcp).from(source(process, from))).await
        }
        _ => dial_address(process, from, endpoint.place(), Protocol::Tcp, source(process, from)).await,
    }
}

/// Whether the policies of the cluster let a connection be.
fn permit(process: &Process, from: &End, to: &End, port: u16, protocol: Protocol) -> Result<(), OpenError> {
    policy::check(&process.view(), from, to, port, protocol)
        .map_err(|denied| OpenError(format!("connect: connection refused: {denied}")))
}

fn permit_endpoint(process: &Process, from: &End, to: &Endpoint, protocol: Protocol) -> Result<(), OpenError> {
    let end = to.pod.as_ref().map_or(End::Address(to.address), |(_, pod)| End::Pod(pod.clone()));
    permit(process, from, &end, to.port, protocol)
}

/// Who has an address: a pod, a node, or somebody outside.
pub(crate) fn end_at(process: &Process, view: &View, address: IpAddr) -> End {
    if let Some((_, pod)) = process.nodes.pod_at(address).or_else(|| pod_with(view, address)) {
        return End::Pod(pod);
    }
    // What the host itself sends into the cluster's ranges may come from them.
    if process.is_in_cluster(address) || policy::is_node(view, address) { End::Node } else { End::Address(address) }
}

/// An end's address, as the other end is told. A node has several, and what comes from one is told of none.
fn source(process: &Process, end: &End) -> Option<SocketAddr> {
    let address = match end {
        End::Node => return None,
        End::Address(address) => *address,
        End::Pod(pod) => own_address(&process.view(), pod)?,
    };
    Some(SocketAddr::new(address, 0))
}

/// The address of a pod, once it is known.
fn own_address(view: &View, pod: &Uid) -> Option<IpAddr> {
    view.by_uid(pod)?.attribute("status.podIP").parse().ok()
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
    dial_pod(process, &PodPort::of(node_of(view, from), from.clone(), port, Protocol::Tcp).inside()).await
}

async fn dial_address(
    process: &Process,
    from: &End,
    to: SocketAddr,
    protocol: Protocol,
    source: Option<SocketAddr>,
) -> Result<ByteStream, OpenError> {
    let (address, port) = (to.ip(), to.port());
    if let Some((node, pod)) = process.nodes.pod_at(address) {
        permit(process, from, &End::Pod(pod.clone()), port, protocol)?;
        return dial_pod(process, &PodPort::of(node, pod, port, protocol).from(source)).await;
    }
    if let Some((node, pod)) = pod_with(&process.view(), address)
        && process.peers.elsewhere(&node).is_some()
    {
        permit(process, from, &End::Pod(pod.clone()), port, protocol)?;
        return dial_pod(process, &PodPort::of(node, pod, port, protocol).from(source)).await;
    }
    let address = SocketAddr::new(address, port);
    let network = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
    if process.is_in_cluster(address.ip()) {
        return Err(OpenError(format!("dial {network} {address}: connect: no route to host")));
    }
    permit(process, from, &End::Address(address.ip()), port, protocol)?;
    match protocol {
        Protocol::Tcp => tcp(address).await,
        Protocol::Udp => {
            let opened = datagrams::by_socket(address).await;
            opened.map_err(|error| OpenError(format!("dial {network} {address}: {error}")))
        }
    }
}

/// A name outside the cluster. The machine's own loopback is not among what a pod may reach.
async fn outside(process: &Process, from: &End, host: &str, port: u16) -> Result<ByteStream, OpenError> {
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|_| no_such_host(host))?;
    let mut last = no_such_host(host);
    for address in addresses.filter(|address| !address.ip().is_loopback()) {
        let dialed = match permit(process, from, &End::Address(address.ip()), port, Protocol::Tcp) {
            Ok(()) => tcp(address).await,
            Err(denied) => Err(denied),
        };
        match dialed {
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

/// The node that a pod is bound to.
fn node_of(view: &View, pod: &Uid) -> String {
    view.by_uid(pod).map(|pod| pod.attribute("spec.nodeName").to_owned()).unwrap_or_default()
}

/// What is read of a Node here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RangeOfNode {
    spec: RangeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RangeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
}

/// The node and uid of the pod that has an address, which is in its node's range: who shares the host's has none of his own.
fn pod_with(view: &View, address: IpAddr) -> Option<(String, Uid)> {
    let is_own = |pod: &&Arc<Object>| {
        let node = ObjectKey::new(NODES, "", pod.attribute("spec.nodeName"));
        let ended = matches!(pod.attribute("status.phase"), "Succeeded" | "Failed");
        !ended && view.typed::<RangeOfNode>(&node).is_some_and(|node| is_within(&node.spec.pod_cidr, address))
    };
    let pod = view.by_attribute(&PODS, "status.podIP", &address.to_string())?.find(is_own)?;
    Some((pod.attribute("spec.nodeName").to_owned(), pod.metadata().uid.clone()?))
}

/// Whether a range has an address.
pub(crate) fn has_address((network, prefix): (Ipv4Addr, u8), address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if has_prefix(address, network, prefix))
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
