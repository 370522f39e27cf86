//! The virtual network of a runtime's pods: who has which port of which pod, and what becomes of who comes there.
//!
//! A pod has two sides: its own address, and loopback, which only its own containers and port-forwards reach. Nothing here is the
//! operating system's, so two pods may have the same port.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coracle_api::Uid;
use coracle_node::runtime::{ByteStream, OpenError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::service::Service;
use crate::sockets::{Arrivals, Mailbox};

/// The most sockets of a pod's guests at one time, streams, datagrams and lookups together.
const SOCKETS_MAX: usize = 1_024;
/// The ports that are given to who names none: Linux' own range.
const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;
/// Who connects and has no address in the cluster: the node itself, for probes.
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// Which of a pod's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// The one that it has in the cluster.
    Own,
    /// 127.0.0.1 and ::1.
    Loopback,
}

impl Side {
    /// The side at which somebody comes in.
    pub(crate) fn of(from: Option<SocketAddr>) -> Self {
        if from.is_some_and(|from| from.ip().is_loopback()) { Self::Loopback } else { Self::Own }
    }
}

/// What has a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

type Place = (Uid, Protocol, u16, Side);

/// Who is at a port.
#[derive(Clone, Debug)]
pub(crate) enum Holder {
    /// A `wasi:http` service.
    Service(Arc<Service>),
    /// A guest's socket. It takes connections when it listens.
    Stream(Arc<Arrivals>),
    /// A guest's socket for datagrams.
    Datagrams(Arc<Mailbox>),
}

/// The network.
#[derive(Debug, Default)]
pub(crate) struct Network(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    places: BTreeMap<Place, Holder>,
    pods: BTreeMap<Uid, Arc<PodNetwork>>,
}

/// What the sockets of a pod have in common.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    pub(crate) address: IpAddr,
    sockets: Arc<Semaphore>,
    /// Where the next port is looked for that nobody has named.
    next: AtomicU16,
}

impl PodNetwork {
    /// A permit for one more socket; `None`: there are as many as there may be.
    pub(crate) fn socket(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.sockets).try_acquire_owned().ok()
    }

    /// A port that was not given for a while.
    pub(crate) fn ephemeral(&self) -> u16 {
        let turn = |port: u16| if port >= *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
        // Both are the same closure's; an update that always succeeds.
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |port| Some(turn(port)))
            .unwrap_or_else(|port| port)
    }

    /// The side of the pod that an address is, if it is one of its own.
    pub(crate) fn side(&self, address: IpAddr) -> Option<Side> {
        let address = address.to_canonical();
        match address {
            _ if address.is_loopback() => Some(Side::Loopback),
            _ if address == self.address => Some(Side::Own),
            _ => None,
        }
    }

    /// The address of a side, in the family of who asks.
    pub(crate) fn address_at(&self, side: Side, is_v6: bool) -> IpAddr {
        match (side, is_v6) {
            (Side::Own, _) => self.address,
            (Side::Loopback, false) => Ipv4Addr::LOCALHOST.into(),
            (Side::Loopback, true) => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Who comes, as the guest is told: an address without a port is given one.
    pub(crate) fn named(&self, from: Option<SocketAddr>) -> SocketAddr {
        let mut from = from.unwrap_or((NODE, 0).into());
        if from.port() == 0 {
            from.set_port(self.ephemeral());
        }
        from
    }
}

/// Ports that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    network: Arc<Network>,
    pod: Uid,
    protocol: Protocol,
    sides: &'static [Side],
    pub(crate) port: u16,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.network.release(&self.pod, self.protocol, &[self.port], self.sides);
    }
}

/// Both sides of a pod.
pub(crate) const EVERYWHERE: &[Side] = &[Side::Own, Side::Loopback];

/// The sides that an address means to who binds to it; `None`: it is not the pod's.
pub(crate) fn sides(pod: &PodNetwork, address: IpAddr) -> Option<&'static [Side]> {
    if address.is_unspecified() {
        return Some(EVERYWHERE);
    }
    match pod.side(address)? {
        Side::Own => Some(&[Side::Own]),
        Side::Loopback => Some(&[Side::Loopback]),
    }
}

impl Network {
    /// A pod begins.
    pub(crate) fn add_pod(&self, pod: &Uid, address: IpAddr) {
        let sockets = Arc::new(Semaphore::new(SOCKETS_MAX));
        let network = PodNetwork { address, sockets, next: AtomicU16::new(*EPHEMERAL.start()) };
        self.lock().pods.insert(pod.clone(), Arc::new(network));
    }

    /// A pod is gone.
    pub(crate) fn forget(&self, pod: &Uid) {
        self.lock().pods.remove(pod);
    }

    /// A pod that is there.
    pub(crate) fn pod(&self, pod: &Uid) -> Option<Arc<PodNetwork>> {
        self.lock().pods.get(pod).cloned()
    }

    /// Has a service take all ports or, if one is taken, none; answers which.
    pub(crate) fn serve(&self, pod: &Uid, ports: &[u16], service: &Arc<Service>) -> Result<(), u16> {
        let mut inner = self.lock();
        if let Some(taken) = ports.iter().find(|port| inner.is_taken(pod, Protocol::Tcp, **port, EVERYWHERE)) {
            return Err(*taken);
        }
        for port in ports {
            inner.insert(pod, Protocol::Tcp, *port, EVERYWHERE, &Holder::Service(Arc::clone(service)));
        }
        Ok(())
    }

    /// A service listens no more.
    pub(crate) fn unserve(&self, pod: &Uid, ports: &[u16]) {
        self.release(pod, Protocol::Tcp, ports, EVERYWHERE);
    }

    fn release(&self, pod: &Uid, protocol: Protocol, ports: &[u16], sides: &[Side]) {
        // What is dropped here may have claims of its own: not under the lock.
        let mut gone = Vec::new();
        let mut inner = self.lock();
        for port in ports {
            for side in sides {
                gone.extend(inner.places.remove(&(pod.clone(), protocol, *port, *side)));
            }
        }
        drop(inner);
    }

    /// Takes a port for a socket, any where it is 0; `None`: it is taken.
    pub(crate) fn claim(
        self: &Arc<Self>,
        pod: &Uid,
        port: u16,
        sides: &'static [Side],
        holder: &Holder,
    ) -> Option<Claim> {
        let protocol = if matches!(holder, Holder::Datagrams(_)) { Protocol::Udp } else { Protocol::Tcp };
        let mut inner = self.lock();
        let network = inner.pods.get(pod).cloned()?;
        let free = |port: &u16| !inner.is_taken(pod, protocol, *port, sides);
        let port = if port == 0 {
            (0..EPHEMERAL.len()).map(|_| network.ephemeral()).find(free)?
        } else {
            Some(port).filter(free)?
        };
        inner.insert(pod, protocol, port, sides, holder);
        drop(inner);
        Some(Claim { network: Arc::clone(self), pod: pod.clone(), protocol, sides, port })
    }

    /// Connects to a port.
    pub(crate) fn open(
        &self,
        pod: &Uid,
        port: u16,
        side: Side,
        from: Option<SocketAddr>,
    ) -> Result<ByteStream, OpenError> {
        let inner = self.lock();
        let network = inner.pods.get(pod);
        let refused = |why: &str| OpenError(format!("dial tcp {}: connect: {why}", at(network, pod, port)));
        // Under the lock: who listens no more knows of all connections.
        match (inner.places.get(&(pod.clone(), Protocol::Tcp, port, side)), network) {
            (Some(Holder::Service(service)), _) => service.connect().ok_or_else(|| refused("too many connections")),
            (Some(Holder::Stream(arrivals)), Some(network)) => arrivals
                .connect(SocketAddr::new(network.address_at(side, false), port), network.named(from))
                .ok_or_else(|| refused("connection refused")),
            _ => Err(refused("connection refused")),
        }
    }

    /// Opens a way for datagrams to a port.
    pub(crate) fn open_datagrams(
        &self,
        pod: &Uid,
        port: u16,
        side: Side,
        from: Option<SocketAddr>,
    ) -> Result<ByteStream, OpenError> {
        let refused = |network: Option<&Arc<PodNetwork>>| {
            OpenError(format!("dial udp {}: connect: connection refused", at(network, pod, port)))
        };
        let network = self.pod(pod).ok_or_else(|| refused(None))?;
        let mailbox = self.mailbox(pod, port, side).ok_or_else(|| refused(Some(&network)))?;
        mailbox.attach(network.named(from)).ok_or_else(|| refused(Some(&network)))
    }

    /// The socket for datagrams at a port.
    pub(crate) fn mailbox(&self, pod: &Uid, port: u16, side: Side) -> Option<Arc<Mailbox>> {
        match self.lock().places.get(&(pod.clone(), Protocol::Udp, port, side)) {
            Some(Holder::Datagrams(mailbox)) => Some(Arc::clone(mailbox)),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_taken(&self, pod: &Uid, protocol: Protocol, port: u16, sides: &[Side]) -> bool {
        sides.iter().any(|side| self.places.contains_key(&(pod.clone(), protocol, port, *side)))
    }

    fn insert(&mut self, pod: &Uid, protocol: Protocol, port: u16, sides: &[Side], holder: &Holder) {
        for side in sides {
            self.places.insert((pod.clone(), protocol, port, *side), holder.clone());
        }
    }
}

/// A port, for messages.
fn at(network: Option<&Arc<PodNetwork>>, pod: &Uid, port: u16) -> String {
    match network {
        Some(network) => SocketAddr::new(network.address, port).to_string(),
        None => format!("pod {pod} port {port}"),
    }
}
