//! Services on the machine: the node ports. Each is a TCP listener whose connections the dialer takes to a ready endpoint.
//!
//! UDP ports are not opened.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::events::{EventRecord, EventRecorder, EventType, EventWrite};
use coracle_api::resources::{EVENTS, SERVICES};
use coracle_api::{Method, ObjectKey, Request, UserInfo};
use coracle_base::Rng;
use coracle_store::View;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use crate::dialer::{self, ServicePort};
use crate::member::Member;
use crate::process::Process;

/// How many connections one node port has at a time; more wait in the operating system's queue. Each holds a socket and the
/// buffers of both its ways.
const CONNECTIONS_MAX: usize = 1024;
/// When a port that could not be had is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The name that events come from.
const COMPONENT: &str = "coracle-node-ports";

/// Who opens node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    /// This member, always.
    Always,
    /// This member while it leads: others of the same process would want the same ports.
    WhileLeading,
}

/// Opens node ports on an address; without one they stay closed.
pub(crate) fn start(member: &mut Member, address: Option<IpAddr>, opens: Opens) {
    if let Some(address) = address {
        let process = Arc::clone(&member.process);
        member.spawn(NodePorts::new(process, address, opens).run());
    }
}

/// A service's port behind a node port.
type Target = (ObjectKey, u16);

/// A node port that is wanted.
#[derive(Debug)]
struct Slot {
    target: Target,
    /// Closes the listener and its connections when it is dropped; `None` while the port cannot be had.
    open: Option<tokio_util::sync::DropGuard>,
}

#[derive(Debug)]
struct NodePorts {
    process: Arc<Process>,
    address: IpAddr,
    opens: Opens,
    slots: BTreeMap<u16, Slot>,
    recorder: EventRecorder,
    rng: Rng,
}

impl NodePorts {
    fn new(process: Arc<Process>, address: IpAddr, opens: Opens) -> Self {
        let rng = process.fork_rng();
        Self { process, address, opens, slots: BTreeMap::new(), recorder: EventRecorder::default(), rng }
    }

    async fn run(mut self) {
        let process = Arc::clone(&self.process);
        let mut views = process.views.clone();
        let mut leads = process.leads.clone();
        loop {
            let view = views.borrow_and_update().clone();
            let seen = view.last_change(&SERVICES);
            if *leads.borrow_and_update() || self.opens == Opens::Always {
                self.follow(&view).await;
            } else {
                self.slots.clear();
            }
            drop(view);
            let retry = Instant::now() + RETRY_AFTER;
            let fails = self.slots.values().any(|slot| slot.open.is_none());
            tokio::select! {
                changed = views.wait_for(|view| view.last_change(&SERVICES) != seen) => if changed.is_err() { return },
                () = sleep_until(retry), if fails => {}
                changed = leads.changed() => if changed.is_err() { return },
                () = process.shutdown.cancelled() => return,
            }
        }
    }

    /// Opens and closes what the services of a view ask for.
    async fn follow(&mut self, view: &View) {
        let wanted = wanted(view);
        self.slots.retain(|port, slot| wanted.get(port) == Some(&slot.target));
        for (port, target) in wanted {
            let slot = self.slots.get(&port);
            if slot.is_some_and(|slot| slot.open.is_some()) {
                continue;
            }
            let is_new = slot.is_none();
            let open = match TcpListener::bind(SocketAddr::new(self.address, port)).await {
                Ok(listener) => Some(self.serve(listener, &target)),
                Err(error) => {
                    if is_new {
                        self.report(view, port, &target, &error).await;
                    }
                    None
                }
            };
            self.slots.insert(port, Slot { target, open });
        }
    }

    fn serve(&self, listener: TcpListener, (service, port): &Target) -> tokio_util::sync::DropGuard {
        let closed = self.process.shutdown.child_token();
        let port = NodePort {
            process: Arc::clone(&self.process),
            listener,
            service: service.clone(),
            port: *port,
            closed: closed.clone(),
        };
        tokio::spawn(port.accept());
        closed.drop_guard()
    }

    /// Says once that a port cannot be had.
    async fn report(&mut self, view: &View, port: u16, (service, _): &Target, error: &std::io::Error) {
        let address = SocketAddr::new(self.address, port);
        tracing::warn!(%service, %address, %error, "cannot open a node port");
        let uid = view.object(service).and_then(|object| object.metadata().uid.clone());
        let message = format!("cannot open node port {port} on {}: {error}; it is tried again", self.address);
        let record = EventRecord::new(service, uid.as_ref(), EventType::Warning, "FailedToOpenNodePort", message);
        let now = self.process.now();
        let write = self.recorder.record(COMPONENT, None, &record, now, &mut self.rng);
        let events = &EVENTS.resource;
        let user = UserInfo::controller(COMPONENT);
        let request = match write {
            Some(EventWrite::Create { namespace, object }) => {
                Request::new(Method::Post, format!("/api/v1/namespaces/{namespace}/{events}"), user).json(object)
            }
            Some(EventWrite::Count { namespace, name, patch }) => {
                Request::new(Method::Patch, format!("/api/v1/namespaces/{namespace}/{events}/{name}"), user)
                    .content_type("application/merge-patch+json")
                    .json(patch)
            }
            None => return,
        };
        if let Some(status) = self.process.respond(request).await.failure() {
            tracing::debug!(%status, "an event was not recorded");
        }
    }
}

/// The node ports of all services, with what is behind them.
fn wanted(view: &View) -> BTreeMap<u16, Target> {
    let mut ports = BTreeMap::new();
    for service in view.list(&SERVICES, None) {
        if service.metadata().deletion_timestamp.is_some() {
            continue;
        }
        for (node_port, port) in dialer::node_ports(view, service) {
            // The allocator gives each to one service only.
            ports.entry(node_port).or_insert_with(|| (service.key().clone(), port));
        }
    }
    ports
}

/// One open node port.
#[derive(Debug)]
struct NodePort {
    process: Arc<Process>,
    listener: TcpListener,
    service: ObjectKey,
    port: u16,
    closed: CancellationToken,
}

impl NodePort {
    async fn accept(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.closed.cancelled() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: give others the time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection to a node port");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let to = ServicePort { service: self.service.clone(), port: self.port, peer: peer.ip().to_string() };
            let (process, closed) = (Arc::clone(&self.process), self.closed.clone());
            tokio::spawn(async move {
                closed.run_until_cancelled(join(&process, stream, to)).await;
                drop(permit);
            });
        }
    }
}

/// Joins a client to an endpoint until both have ended; each way ends by itself.
async fn join(process: &Arc<Process>, mut client: TcpStream, to: ServicePort) {
    let _ = client.set_nodelay(true);
    let service = to.service.clone();
    let mut endpoint = match dialer::dial_service(process, to).await {
        Ok(stream) => stream.compat(),
        Err(error) => return tracing::debug!(%service, %error, "a connection to a node port has no endpoint"),
    };
    if let Err(error) = copy_bidirectional(&mut client, &mut endpoint).await {
        tracing::debug!(%service, %error, "a connection to a node port broke");
    }
}
