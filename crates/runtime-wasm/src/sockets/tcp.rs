//! Sockets for streams: bound, listening, connecting, connected.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use coracle_node::runtime::{ByteStream, Destination, OpenError};
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::connection::{Reader, Stream, Writer, split};
use super::{ACCEPTED_BYTES, BUFFER, CONNECTION_BYTES, Family, Fault, GuestNetwork, is_remote};
use crate::account::{Held, MemoryAccount};
use crate::network::{Claim, Holder, Side, sides};
use crate::pipe::Inside;

/// The most connections that wait to be accepted; as many as a guest gets that asks for no number, which is the standard library's.
const BACKLOG_MAX: usize = 128;

/// Where connections to a bound socket arrive.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Set while it listens.
    queue: Mutex<Option<mpsc::Sender<Arrived>>>,
    memory: Arc<MemoryAccount>,
}

/// A connection that waits to be accepted.
#[derive(Debug)]
struct Arrived {
    stream: DuplexStream,
    at: SocketAddr,
    from: SocketAddr,
    held: Held,
}

impl Arrivals {
    /// Puts a connection into the queue; `None`: it is refused, because nobody listens or too many wait.
    pub(crate) fn connect(&self, at: SocketAddr, from: SocketAddr) -> Option<ByteStream> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let place = queue.try_reserve().ok()?;
        let held = self.memory.hold(ACCEPTED_BYTES).ok()?;
        let (theirs, stream) = tokio::io::duplex(BUFFER);
        place.send(Arrived { stream, at, from, held });
        Some(Box::pin(theirs.compat()))
    }
}

/// The queue of a socket that listens.
#[derive(Debug)]
pub(crate) struct Accepting {
    net: GuestNetwork,
    family: Family,
    queue: mpsc::Receiver<Arrived>,
    /// What was taken out to see whether there is something.
    ahead: Option<Arrived>,
}

impl Accepting {
    /// Ready when there is a connection to accept.
    pub(crate) fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_none() {
            match ready!(self.queue.poll_recv(cx)) {
                Some(arrived) => self.ahead = Some(arrived),
                // The socket is gone; so is who could ask.
                None => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The next connection. One for which there is no socket left stays in the queue.
    pub(crate) fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<TcpSocket, Fault>> {
        ready!(self.poll_arrived(cx));
        let Some(permit) = self.net.pod.socket() else { return Poll::Ready(Err(Fault::TooMany)) };
        let Some(Arrived { stream, at, from, held }) = self.ahead.take() else { return Poll::Pending };
        let (reader, writer) = split(Box::new(stream), held, &self.net.io);
        let connected = Connected { at, peer: from, reader: Some(reader), writer: Some(writer), _claim: None };
        Poll::Ready(Ok(TcpSocket::with(self.net.clone(), self.family, permit, State::Connected(connected))))
    }

    /// Turns the next connection away.
    pub(crate) fn refuse(&mut self) {
        self.ahead = None;
    }
}

/// What a guest sets and reads again. Nothing is lost on the way here, so that nothing keeps a connection alive or counts hops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) keep_alive: bool,
    /// Nanoseconds.
    pub(crate) idle: u64,
    /// Nanoseconds.
    pub(crate) interval: u64,
    pub(crate) count: u32,
    pub(crate) hops: u8,
    pub(crate) receive_buffer: u64,
    pub(crate) send_buffer: u64,
}

impl Default for Options {
    /// Linux' defaults.
    fn default() -> Self {
        let second = 1_000_000_000;
        let (receive_buffer, send_buffer) = (BUFFER as u64, BUFFER as u64);
        let (idle, interval) = (7_200 * second, 75 * second);
        Self { keep_alive: false, idle, interval, count: 9, hops: 64, receive_buffer, send_buffer }
    }
}

/// A socket for a stream.
pub(crate) struct TcpSocket {
    net: GuestNetwork,
    pub(crate) family: Family,
    pub(crate) options: Options,
    backlog: usize,
    state: State,
    _permit: OwnedSemaphorePermit,
}

enum State {
    New,
    Bound(Bound),
    Listening(Bound),
    Connecting(Connecting),
    Connected(Connected),
    /// A connection was not to be had.
    Failed(Fault),
}

struct Bound {
    at: SocketAddr,
    arrivals: Arc<Arrivals>,
    claim: Claim,
}

struct Connecting {
    at: SocketAddr,
    peer: SocketAddr,
    dialing: JoinHandle<Result<ByteStream, OpenError>>,
    held: Option<Held>,
    claim: Option<Claim>,
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.dialing.abort();
    }
}

struct Connected {
    at: SocketAddr,
    peer: SocketAddr,
    /// Both until they are taken.
    reader: Option<Reader>,
    writer: Option<Writer>,
    _claim: Option<Claim>,
}

impl TcpSocket {
    pub(crate) fn new(net: &GuestNetwork, family: Family) -> Result<Self, Fault> {
        let permit = net.pod.socket().ok_or(Fault::TooMany)?;
        Ok(Self::with(net.clone(), family, permit, State::New))
    }

    fn with(net: GuestNetwork, family: Family, permit: OwnedSemaphorePermit, state: State) -> Self {
        Self { net, family, options: Options::default(), backlog: BACKLOG_MAX, state, _permit: permit }
    }

    /// Takes a port; any where it is 0.
    pub(crate) fn bind(&mut self, at: SocketAddr) -> Result<(), Fault> {
        if !matches!(self.state, State::New) {
            return Err(Fault::InvalidState);
        }
        if !self.family.has(at.ip()) || at.ip().is_multicast() {
            return Err(Fault::InvalidArgument);
        }
        let sides = sides(&self.net.pod, at.ip().to_canonical()).ok_or(Fault::NotBindable)?;
        let arrivals = Arc::new(Arrivals { queue: Mutex::default(), memory: Arc::clone(&self.net.memory) });
        let holder = Holder::Stream(Arc::clone(&arrivals));
        let claim = self.net.network.claim(&self.net.uid, at.port(), sides, &holder).ok_or(Fault::InUse)?;
        let at = SocketAddr::new(at.ip(), claim.port);
        self.state = State::Bound(Bound { at, arrivals, claim });
        Ok(())
    }

    /// Binds a socket that is to listen and has no port yet to any.
    pub(crate) fn bind_anywhere(&mut self) -> Result<(), Fault> {
        let any: std::net::IpAddr = match self.family {
            Family::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        self.bind((any, 0).into())
    }

    pub(crate) fn is_bound(&self) -> bool {
        !matches!(self.state, State::New)
    }

    pub(crate) fn is_listening(&self) -> bool {
        matches!(self.state, State::Listening(_))
    }

    /// How many connections may wait; a hint, as for any socket.
    pub(crate) fn set_backlog(&mut self, wanted: u64) -> Result<(), Fault> {
        if wanted == 0 {
            return Err(Fault::InvalidArgument);
        }
        match self.state {
            State::New | State::Bound(_) => {
                self.backlog = usize::try_from(wanted).unwrap_or(BACKLOG_MAX).min(BACKLOG_MAX);
                Ok(())
            }
            // What already listens keeps what it has.
            State::Listening(_) => Ok(()),
            _ => Err(Fault::InvalidState),
        }
    }

    /// Begins to take connections.
    pub(crate) fn listen(&mut self) -> Result<Accepting, Fault> {
        match std::mem::replace(&mut self.state, State::New) {
            State::Bound(bound) => {
                let (sender, queue) = mpsc::channel(self.backlog);
                *bound.arrivals.queue.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                self.state = State::Listening(bound);
                Ok(Accepting { net: self.net.clone(), family: self.family, queue, ahead: None })
            }
            other => {
                self.state = other;
                Err(Fault::InvalidState)
            }
        }
    }

    /// Begins to connect.
    pub(crate) fn start_connect(&mut self, to: SocketAddr) -> Result<(), Fault> {
        if !matches!(self.state, State::New | State::Bound(_)) {
            return Err(Fault::InvalidState);
        }
        if !is_remote(to) || !self.family.has(to.ip()) {
            return Err(Fault::InvalidArgument);
        }
        // More than the container may have: that ends the guest, before anything is opened.
        let held = self.net.memory.hold(CONNECTION_BYTES)?;
        let (port, claim) = match std::mem::replace(&mut self.state, State::New) {
            State::Bound(bound) => (bound.claim.port, Some(bound.claim)),
            _ => (self.net.pod.ephemeral(), None),
        };
        let dial = SocketAddr::new(to.ip().to_canonical(), to.port());
        let side = self.net.pod.side(dial.ip());
        let at = SocketAddr::new(self.net.pod.address_at(side.unwrap_or(Side::Own), dial.is_ipv6()), port);
        let dialing = self.dial(dial, side, at);
        self.state = State::Connecting(Connecting { at, peer: to, dialing, held: Some(held), claim });
        Ok(())
    }

    fn dial(&self, to: SocketAddr, side: Option<Side>, at: SocketAddr) -> JoinHandle<Result<ByteStream, OpenError>> {
        if let Some(side) = side {
            let opened = self.net.network.open(&self.net.uid, to.port(), side, Some(at));
            return self.net.io.spawn(std::future::ready(opened));
        }
        let destination = Destination { host: to.ip().to_string(), port: to.port() };
        self.net.io.spawn(self.net.host.connect(&self.net.uid, destination))
    }

    /// Ready when it is connected, or not to be.
    pub(crate) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let connecting = match &mut self.state {
            State::Connecting(connecting) => connecting,
            State::Connected(_) => return Poll::Ready(Ok(())),
            State::Failed(fault) => return Poll::Ready(Err(*fault)),
            _ => return Poll::Ready(Err(Fault::InvalidState)),
        };
        let dialed = ready!(Pin::new(&mut connecting.dialing).poll(cx));
        let (at, peer, claim) = (connecting.at, connecting.peer, connecting.claim.take());
        let held = connecting.held.take();
        let (state, result) = match (dialed, held) {
            (Ok(Ok(stream)), Some(held)) => {
                let stream: Box<dyn Stream> = Box::new(Inside(stream));
                let (reader, writer) = split(stream, held, &self.net.io);
                let (reader, writer) = (Some(reader), Some(writer));
                (State::Connected(Connected { at, peer, reader, writer, _claim: claim }), Ok(()))
            }
            (Ok(Err(error)), _) => {
                let fault = Fault::from(&error);
                tracing::debug!(pod = %self.net.uid, %peer, %error, "a guest's connection failed");
                (State::Failed(fault), Err(fault))
            }
            _ => (State::Failed(Fault::Broken), Err(Fault::Broken)),
        };
        self.state = state;
        Poll::Ready(result)
    }

    /// The connection's way in, once.
    pub(crate) fn take_reader(&mut self) -> Result<Reader, Fault> {
        match &mut self.state {
            State::Connected(connected) => connected.reader.take().ok_or(Fault::InvalidState),
            _ => Err(Fault::InvalidState),
        }
    }

    /// Its way out, once.
    pub(crate) fn take_writer(&mut self) -> Result<Writer, Fault> {
        match &mut self.state {
            State::Connected(connected) => connected.writer.take().ok_or(Fault::InvalidState),
            _ => Err(Fault::InvalidState),
        }
    }

    pub(crate) fn local_address(&self) -> Result<SocketAddr, Fault> {
        let at = match &self.state {
            State::Bound(bound) | State::Listening(bound) => bound.at,
            State::Connecting(connecting) => connecting.at,
            State::Connected(connected) => connected.at,
            State::New | State::Failed(_) => return Err(Fault::InvalidState),
        };
        Ok(self.family.show(at))
    }

    pub(crate) fn remote_address(&self) -> Result<SocketAddr, Fault> {
        match &self.state {
            State::Connected(connected) => Ok(self.family.show(connected.peer)),
            _ => Err(Fault::InvalidState),
        }
    }
}
