//! Sockets for datagrams. Within a pod a datagram goes from queue to queue; with everybody else each socket has a flow, a stream of framed
//! datagrams as the port of runtimes has them, until neither end has said anything for a while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use coracle_node::runtime::ByteStream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

use super::{Family, Fault, GuestNetwork, is_remote};
use crate::account::Held;
use crate::network::{Claim, Holder, Side, sides};

/// The largest datagram: what IP leaves of 64 KiB.
const DATAGRAM_MAX: usize = 65_507;
/// Datagrams that wait in a queue; more are lost.
const WAITING_MAX: usize = 64;
/// Others that a socket talks to at a time; datagrams of more are lost.
const FLOWS_MAX: usize = 1_024;
/// Bytes in flight each way of a flow.
const FLOW_BUFFER: usize = 8 << 10;
/// A flow ends when nothing went either way for this long: what Linux' connection tracking gives a stream of datagrams.
const IDLE_MAX: Duration = Duration::from_mins(2);

/// A datagram, and what it holds of its container's memory while it waits.
#[derive(Debug)]
struct Datagram {
    bytes: Bytes,
    peer: SocketAddr,
    _held: Held,
}

/// A bound socket, as the network knows it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    net: GuestNetwork,
    queue: mpsc::Sender<Datagram>,
    flows: Mutex<Flows>,
    itself: Weak<Self>,
}

#[derive(Debug, Default)]
struct Flows {
    by_peer: BTreeMap<SocketAddr, (u64, mpsc::Sender<Datagram>)>,
    /// How many there have been.
    count: u64,
    closed: bool,
}

impl Mailbox {
    fn new(net: GuestNetwork) -> (Arc<Self>, mpsc::Receiver<Datagram>) {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let new = |itself: &Weak<Self>| Self { net, queue, flows: Mutex::default(), itself: itself.clone() };
        (Arc::new_cyclic(new), waiting)
    }

    fn flows(&self) -> MutexGuard<'_, Flows> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn datagram(&self, bytes: Bytes, peer: SocketAddr) -> Option<Datagram> {
        let held = self.net.memory.hold(bytes.len() + size_of::<Datagram>()).ok()?;
        Some(Datagram { bytes, peer, _held: held })
    }

    /// Puts a datagram into the queue. What finds no room is lost.
    fn put(&self, bytes: Bytes, from: SocketAddr) {
        if let Some(datagram) = self.datagram(bytes, from) {
            let _ = self.queue.try_send(datagram);
        }
    }

    /// A way for somebody who begins to talk to this socket; `None`: there are too many.
    pub(crate) fn attach(&self, from: SocketAddr) -> Option<ByteStream> {
        let (theirs, ours) = tokio::io::duplex(FLOW_BUFFER);
        let held = self.net.memory.hold(2 * FLOW_BUFFER).ok()?;
        let (number, outgoing) = self.begin(from)?;
        let mailbox = self.itself.upgrade()?;
        self.net.io.spawn(async move {
            mailbox.carry(from, ours, outgoing).await;
            mailbox.end(from, number);
            drop(held);
        });
        Some(Box::pin(theirs.compat()))
    }

    fn begin(&self, peer: SocketAddr) -> Option<(u64, mpsc::Receiver<Datagram>)> {
        let mut flows = self.flows();
        if flows.closed || (flows.by_peer.len() >= FLOWS_MAX && !flows.by_peer.contains_key(&peer)) {
            return None;
        }
        flows.count += 1;
        let number = flows.count;
        let (sender, outgoing) = mpsc::channel(WAITING_MAX);
        flows.by_peer.insert(peer, (number, sender));
        Some((number, outgoing))
    }

    fn end(&self, peer: SocketAddr, number: u64) {
        let mut flows = self.flows();
        if flows.by_peer.get(&peer).is_some_and(|(current, _)| *current == number) {
            flows.by_peer.remove(&peer);
        }
    }

    /// Sends a datagram to somebody outside of the pod.
    fn send_out(&self, bytes: Bytes, to: SocketAddr, port: u16) {
        let Some(mut datagram) = self.datagram(bytes, to) else { return };
        let flow = self.flows().by_peer.get(&to).map(|(_, sender)| sender.clone());
        if let Some(flow) = flow {
            match flow.try_send(datagram) {
                Err(mpsc::error::TrySendError::Closed(back)) => datagram = back,
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => return,
            }
        }
        let Ok(held) = self.net.memory.hold(2 * FLOW_BUFFER) else { return };
        let Some((number, outgoing)) = self.begin(to) else { return };
        let Some(mailbox) = self.itself.upgrade() else { return };
        if let Some((_, sender)) = self.flows().by_peer.get(&to) {
            let _ = sender.try_send(datagram);
        }
        let dialing = self.net.host.datagrams(&self.net.uid, port, to);
        self.net.io.spawn(async move {
            match dialing.await {
                Ok(stream) => mailbox.carry(to, stream.compat(), outgoing).await,
                Err(error) => tracing::debug!(pod = %mailbox.net.uid, %to, %error, "a guest's datagrams are lost"),
            }
            mailbox.end(to, number);
            drop(held);
        });
    }

    /// Carries datagrams both ways until one end is gone or both are silent.
    async fn carry(
        &self,
        peer: SocketAddr,
        stream: impl AsyncRead + AsyncWrite,
        mut outgoing: mpsc::Receiver<Datagram>,
    ) {
        let (mut from, mut to) = tokio::io::split(stream);
        let active = Notify::new();
        let incoming = async {
            while let Ok(datagram) = read(&mut from).await {
                active.notify_one();
                self.put(datagram, peer);
            }
        };
        let sending = async {
            while let Some(datagram) = outgoing.recv().await {
                active.notify_one();
                if write(&mut to, &datagram.bytes).await.is_err() {
                    return;
                }
            }
        };
        let silence = async { while tokio::time::timeout(IDLE_MAX, active.notified()).await.is_ok() {} };
        tokio::select! {
            () = incoming => {}
            () = sending => {}
            () = silence => {}
        }
    }

    /// The socket is gone: so are its flows.
    fn close(&self) {
        let mut flows = self.flows();
        flows.closed = true;
        flows.by_peer.clear();
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Bytes> {
    let length = stream.read_u16().await?;
    let mut datagram = vec![0; usize::from(length)];
    stream.read_exact(&mut datagram).await?;
    Ok(datagram.into())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), datagram: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(datagram).await?;
    stream.flush().await
}

/// What waits for a socket.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: mpsc::Receiver<Datagram>,
    ahead: Option<Datagram>,
}

impl Inbox {
    /// Ready when there is a datagram of the one peer, or of anybody: others' are thrown away.
    pub(crate) fn poll_arrived(&mut self, cx: &mut Context<'_>, only: Option<SocketAddr>) -> Poll<()> {
        loop {
            if let Some(datagram) = &self.ahead {
                if only.is_none_or(|only| only == datagram.peer) {
                    return Poll::Ready(());
                }
                self.ahead = None;
            }
            match self.waiting.poll_recv(cx) {
                Poll::Ready(Some(datagram)) => self.ahead = Some(datagram),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The next datagram, and who sent it.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, only: Option<SocketAddr>) -> Poll<(Bytes, SocketAddr)> {
        std::task::ready!(self.poll_arrived(cx, only));
        match self.ahead.take() {
            Some(datagram) => Poll::Ready((datagram.bytes, datagram.peer)),
            None => Poll::Pending,
        }
    }
}

/// A socket for datagrams.
pub(crate) struct UdpSocket {
    net: GuestNetwork,
    pub(crate) family: Family,
    pub(crate) hops: u8,
    pub(crate) receive_buffer: u64,
    pub(crate) send_buffer: u64,
    bound: Option<Bound>,
    remote: Option<SocketAddr>,
    _permit: OwnedSemaphorePermit,
}

struct Bound {
    at: SocketAddr,
    port: Port,
    inbox: Arc<Mutex<Inbox>>,
}

/// A port that datagrams are sent from. It is let go with the last that has it.
#[derive(Clone, Debug)]
pub(crate) struct Port(Arc<Claimed>);

#[derive(Debug)]
struct Claimed {
    claim: Claim,
    mailbox: Arc<Mailbox>,
    family: Family,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

impl Port {
    /// Sends a datagram. That it arrives is not known to anybody.
    pub(crate) fn send(&self, bytes: Bytes, to: SocketAddr) -> Result<(), Fault> {
        let Claimed { claim, mailbox, family } = &*self.0;
        if !is_remote(to) || !family.has(to.ip()) {
            return Err(Fault::InvalidArgument);
        }
        if bytes.len() > DATAGRAM_MAX {
            return Err(Fault::TooLarge);
        }
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let net = &mailbox.net;
        match net.pod.side(to.ip()) {
            Some(side) => {
                let from = SocketAddr::new(net.pod.address_at(side, to.is_ipv6()), claim.port);
                if let Some(other) = net.network.mailbox(&net.uid, to.port(), side) {
                    other.put(bytes, from);
                }
            }
            None => mailbox.send_out(bytes, to, claim.port),
        }
        Ok(())
    }
}

impl UdpSocket {
    pub(crate) fn new(net: &GuestNetwork, family: Family) -> Result<Self, Fault> {
        let permit = net.pod.socket().ok_or(Fault::TooMany)?;
        let buffer = (WAITING_MAX * 1_024) as u64;
        Ok(Self {
            net: net.clone(),
            family,
            hops: 64,
            receive_buffer: buffer,
            send_buffer: buffer,
            bound: None,
            remote: None,
            _permit: permit,
        })
    }

    /// Takes a port; any where it is 0.
    pub(crate) fn bind(&mut self, at: SocketAddr) -> Result<(), Fault> {
        if self.bound.is_some() {
            return Err(Fault::InvalidState);
        }
        if !self.family.has(at.ip()) || at.ip().is_multicast() {
            return Err(Fault::InvalidArgument);
        }
        let sides = sides(&self.net.pod, at.ip().to_canonical()).ok_or(Fault::NotBindable)?;
        let (mailbox, waiting) = Mailbox::new(self.net.clone());
        let holder = Holder::Datagrams(Arc::clone(&mailbox));
        let claim = self.net.network.claim(&self.net.uid, at.port(), sides, &holder).ok_or(Fault::InUse)?;
        let at = SocketAddr::new(at.ip(), claim.port);
        let port = Port(Arc::new(Claimed { claim, mailbox, family: self.family }));
        self.bound = Some(Bound { at, port, inbox: Arc::new(Mutex::new(Inbox { waiting, ahead: None })) });
        Ok(())
    }

    /// Takes any port if it has none.
    pub(crate) fn bind_anywhere(&mut self) -> Result<(), Fault> {
        if self.bound.is_some() {
            return Ok(());
        }
        let any: std::net::IpAddr = match self.family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.bind((any, 0).into())
    }

    /// Talks to one peer only from now on, or to anybody.
    pub(crate) fn connect(&mut self, remote: Option<SocketAddr>) -> Result<(), Fault> {
        if let Some(remote) = remote
            && (!is_remote(remote) || !self.family.has(remote.ip()))
        {
            return Err(Fault::InvalidArgument);
        }
        self.remote = remote;
        Ok(())
    }

    /// The port that it sends from.
    pub(crate) fn port(&self) -> Result<Port, Fault> {
        self.bound.as_ref().map(|bound| bound.port.clone()).ok_or(Fault::InvalidState)
    }

    /// What waits for it.
    pub(crate) fn inbox(&self) -> Result<Arc<Mutex<Inbox>>, Fault> {
        self.bound.as_ref().map(|bound| Arc::clone(&bound.inbox)).ok_or(Fault::InvalidState)
    }

    pub(crate) fn local_address(&self) -> Result<SocketAddr, Fault> {
        let bound = self.bound.as_ref().ok_or(Fault::InvalidState)?;
        // Who talks to one peer has the address that the peer sees.
        let ip = match self.remote.map(|remote| remote.ip().to_canonical()) {
            Some(remote) if bound.at.ip().is_unspecified() => {
                let side = self.net.pod.side(remote).unwrap_or(Side::Own);
                self.net.pod.address_at(side, remote.is_ipv6())
            }
            _ => bound.at.ip(),
        };
        Ok(self.family.show(SocketAddr::new(ip, bound.at.port())))
    }

    /// The one peer, as the guest named it.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }
}
