//! The members on other machines: a control connection to each, over which messages go out, and those that others open to this one.
//!
//! A connection carries messages one way, so that two members that reach each other have two. What cannot be sent at once is lost, as
//! consensus expects of a network; nothing here decides anything.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use coracle_engine::PeerMessage;
use coracle_raft::MemberId;
use serde::{Deserialize, Serialize};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::credentials::{self, CONTROL, Credentials};
use super::frame;
use super::roster::{Roster, Verdict};
use crate::brain::Message;
use crate::process::Process;

/// The version of what is said on a connection; members with others talk to each other in the older one's.
const PROTOCOL: u32 = 1;
/// How many messages wait for one member.
const QUEUE_MAX: usize = 1024;
/// How long one address may take to answer, and TLS and the greeting after that.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
const GREETING_WAIT: Duration = Duration::from_secs(3);
/// How long a refusal is waited for where a connection was just lost: far less than an election timeout.
const GONE_WAIT: Duration = Duration::from_millis(50);
const GONE_TRIES: usize = 10;
const GONE_RETRY: Duration = Duration::from_millis(10);
/// How often each side says that it is alive, and how long it may be silent.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How long the other machine may be silent on a connection that has no signs of life of its own: sooner than its nodes count as gone, so that
/// who waits for an answer from there hears that none will come.
const GONE_AFTER: Duration = Duration::from_secs(10);
const ASK_AFTER: Duration = Duration::from_secs(4);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long is waited before a member is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// To how many members connections are made ahead.
const AHEAD_MAX: usize = 16;
/// How many connections other members have to this one at a time: old ones take a while to be found dead.
const INBOUND_MAX: usize = 1024;
/// Why locks are not poisoned.
const UNBROKEN: &str = "nothing panics while it holds the lock";

pub(super) type Stream = tokio_rustls::client::TlsStream<TcpStream>;
pub(super) type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

/// What a member says when it connects.
#[derive(Debug, Deserialize, Serialize)]
struct Hello {
    protocol: u32,
    /// The port that it listens at, on the address that it comes from.
    port: u16,
}

/// What is answered.
#[derive(Debug, Deserialize, Serialize)]
struct Welcome {
    protocol: u32,
    /// Why it is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<Refused>,
}

/// Why a member is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Refused {
    /// It was removed from the cluster.
    Removed,
    /// Nobody there knows it, yet or at all.
    Unknown,
}

/// How the members on other machines are reached.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) me: MemberId,
    pub(crate) credentials: Credentials,
    pub(crate) roster: Roster,
    /// The port that this member listens at.
    port: u16,
    pub(super) runtime: Handle,
    /// Where control connections are served: on the brain's own thread, so that a heartbeat wakes no other.
    control: OnceLock<Handle>,
    links: Mutex<BTreeMap<MemberId, Link>>,
    inbound: tokio::sync::Semaphore,
    pub(super) process: OnceLock<Weak<Process>>,
    pub(super) incoming: super::snapshot::Incoming,
    shutdown: CancellationToken,
}

/// The way to one member.
#[derive(Clone, Debug)]
struct Link {
    queue: mpsc::Sender<PeerMessage>,
    state: Arc<LinkState>,
}

#[derive(Debug, Default)]
struct LinkState {
    up: AtomicBool,
    /// It may be reached at another address now.
    again: Notify,
}

/// Why a connection to a member did not come about.
#[derive(Debug)]
pub(super) enum Failure {
    Io(io::Error),
    Refused(Refused),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Refused(Refused::Removed) => f.write_str("this member was removed from the cluster"),
            Self::Refused(Refused::Unknown) => f.write_str("it does not know this member"),
        }
    }
}

impl Network {
    /// The network of a member with these credentials. It ends with `shutdown`.
    pub(crate) fn new(
        me: MemberId,
        credentials: Credentials,
        port: u16,
        incoming: super::snapshot::Incoming,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            me,
            credentials,
            roster: Roster::default(),
            port,
            runtime: Handle::current(),
            control: OnceLock::new(),
            links: Mutex::default(),
            inbound: tokio::sync::Semaphore::new(INBOUND_MAX),
            process: OnceLock::new(),
            incoming,
            shutdown,
        })
    }

    /// The member is there: what others say goes to its brain from now on.
    pub(crate) fn serve(&self, process: &Arc<Process>) {
        let _ = self.process.set(Arc::downgrade(process));
    }

    /// Control connections are served there from now on.
    pub(crate) fn control_on(&self, runtime: &Handle) {
        let _ = self.control.set(runtime.clone());
    }

    fn control(&self) -> &Handle {
        self.control.get().unwrap_or(&self.runtime)
    }

    pub(super) fn process(&self) -> Option<Arc<Process>> {
        self.process.get().and_then(Weak::upgrade)
    }

    /// Sends a message without waiting; false when it is lost for certain. Whoever is not connected yet soon is.
    pub(super) fn send(self: &Arc<Self>, to: MemberId, message: PeerMessage) -> bool {
        let Some(link) = self.link(to) else { return false };
        link.state.up.load(Ordering::Acquire) && link.queue.try_send(message).is_ok()
    }

    /// Connects to those that may vote before there is anything to say: an election does not wait for a connection.
    pub(super) fn connect_ahead(self: &Arc<Self>) {
        for member in self.roster.electorate(self.me, AHEAD_MAX) {
            self.link(member);
        }
    }

    /// Whether a member does not answer at the moment, as far as anybody wanted to know.
    pub(super) fn is_silent(&self, member: MemberId) -> bool {
        let links = self.links.lock().expect(UNBROKEN);
        links.get(&member).is_some_and(|link| !link.state.up.load(Ordering::Acquire))
    }

    fn link(self: &Arc<Self>, to: MemberId) -> Option<Link> {
        let mut links = self.links.lock().expect(UNBROKEN);
        if let Some(link) = links.get(&to) {
            return Some(link.clone());
        }
        if to == self.me || self.roster.is_removed(to) || self.shutdown.is_cancelled() {
            return None;
        }
        let (queue, messages) = mpsc::channel(QUEUE_MAX);
        let link = Link { queue, state: Arc::default() };
        let work = Arc::clone(self).keep_connected(to, messages, Arc::clone(&link.state));
        self.control().spawn(work);
        links.insert(to, link.clone());
        Some(link)
    }

    /// Connects to a member again and again, until it or this one is gone.
    async fn keep_connected(
        self: Arc<Self>,
        to: MemberId,
        mut messages: mpsc::Receiver<PeerMessage>,
        state: Arc<LinkState>,
    ) {
        let mut wait = RETRY.0;
        while !self.shutdown.is_cancelled() && !self.roster.is_removed(to) {
            match self.greet(to).await {
                Ok(stream) => {
                    tracing::info!(?to, "connected to another member");
                    wait = RETRY.0;
                    state.up.store(true, Ordering::Release);
                    let ended = tokio::select! {
                        ended = carry(stream, &mut messages) => ended,
                        () = self.shutdown.cancelled() => return,
                    };
                    state.up.store(false, Ordering::Release);
                    tracing::info!(?to, why = %ended, "the connection to another member is lost");
                    self.tell(Message::Unreachable(to)).await;
                    if self.is_gone(to).await {
                        self.tell(Message::Gone(to)).await;
                    }
                }
                Err(Failure::Refused(Refused::Removed)) => {
                    self.tell(Message::Peer(to, PeerMessage::Removed)).await;
                }
                Err(failure) => tracing::debug!(?to, %failure, "another member is not reached"),
            }
            // Whatever waits was meant for a connection that is gone.
            while messages.try_recv().is_ok() {}
            tokio::select! {
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY.1),
                () = state.again.notified() => wait = RETRY.0,
                () = self.shutdown.cancelled() => {}
            }
        }
        self.links.lock().expect(UNBROKEN).remove(&to);
    }

    async fn tell(&self, message: Message) {
        if let Some(process) = self.process() {
            let _ = process.brain.send(message).await;
        }
    }

    /// Whether nobody listens any more at an address that a member was just reached at: its machine is there and refuses. Anything else
    /// (no answer, another error) says nothing about it.
    async fn is_gone(&self, member: MemberId) -> bool {
        let Some(address) = self.roster.addresses(member).into_iter().next() else { return false };
        for _ in 0..GONE_TRIES {
            match timeout(GONE_WAIT, TcpStream::connect(&address)).await {
                Ok(Err(error)) => return error.kind() == io::ErrorKind::ConnectionRefused,
                // A process that ends closes its connections before it closes what it listens at, or it did not end.
                Ok(Ok(_)) => tokio::time::sleep(GONE_RETRY).await,
                Err(_) => return false,
            }
        }
        false
    }

    /// A control connection, after the greeting.
    async fn greet(&self, to: MemberId) -> Result<Stream, Failure> {
        let mut stream = self.connect(to, CONTROL).await?;
        let greeting = async {
            frame::greet(&mut stream, &Hello { protocol: PROTOCOL, port: self.port }).await?;
            frame::greeting::<Welcome>(&mut stream).await
        };
        let welcome = timeout(GREETING_WAIT, greeting).await.map_err(|_| late())??;
        match welcome.refused {
            None => Ok(stream),
            Some(refused) => Err(Failure::Refused(refused)),
        }
    }

    /// A connection to a member, by whatever address answers with its certificate.
    pub(super) async fn connect(&self, to: MemberId, protocol: &[u8]) -> io::Result<Stream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no address of it is known");
        for address in self.roster.addresses(to) {
            match self.connect_at(to, &address, protocol).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            }
        }
        Err(last)
    }

    async fn connect_at(&self, to: MemberId, address: &str, protocol: &[u8]) -> io::Result<Stream> {
        let stream = timeout(CONNECT_WAIT, TcpStream::connect(address)).await.map_err(|_| late())??;
        stream.set_nodelay(true)?;
        end_when_gone(&stream);
        let name = credentials::server_name(to).map_err(io::Error::other)?;
        let connector = TlsConnector::from(self.credentials.client(protocol));
        let stream = timeout(GREETING_WAIT, connector.connect(name, stream)).await.map_err(|_| late())??;
        // Only who the list says, whatever the authority signed.
        match credentials::peer_of(stream.get_ref().1.peer_certificates()) {
            Some((id, identity)) if id == to && self.roster.verdict(to, &identity) == Verdict::Known => Ok(stream),
            _ => Err(io::Error::new(io::ErrorKind::PermissionDenied, "its certificate is not that of the member")),
        }
    }

    /// A connection that another member opened, its certificate verified by the peers' authority.
    pub(crate) async fn accept(self: Arc<Self>, mut stream: Accepted, from: SocketAddr) {
        let Ok(_permit) = self.inbound.try_acquire() else { return };
        let connection = stream.get_ref().1;
        let Some((id, identity)) = credentials::peer_of(connection.peer_certificates()) else { return };
        let verdict = if id == self.me { Verdict::Unknown } else { self.roster.verdict(id, &identity) };
        let is_control = connection.alpn_protocol() == Some(CONTROL);
        if !is_control {
            end_when_gone(stream.get_ref().0);
            if verdict == Verdict::Known {
                super::bulk::serve(&self, id, stream).await;
            } else {
                tracing::warn!(member = id.0, %from, "a stranger's certificate was refused");
            }
            return;
        }
        let Ok(Ok(hello)) = timeout(GREETING_WAIT, frame::greeting::<Hello>(&mut stream)).await else { return };
        let refused = match verdict {
            Verdict::Known => None,
            Verdict::Removed => Some(Refused::Removed),
            Verdict::Unknown => Some(Refused::Unknown),
        };
        let welcome = Welcome { protocol: PROTOCOL.min(hello.protocol), refused };
        if timeout(GREETING_WAIT, frame::greet(&mut stream, &welcome)).await.is_err() {
            return;
        }
        if let Some(refused) = refused {
            tracing::warn!(member = id.0, %from, ?refused, "a member was not let in");
            let _ = stream.shutdown().await;
            return;
        }
        self.roster.saw(id, SocketAddr::new(from.ip(), hello.port));
        if let Some(link) = self.links.lock().expect(UNBROKEN).get(&id) {
            link.state.again.notify_one();
        }
        let hearing = Arc::clone(&self);
        let heard = self.control().spawn(async move {
            tokio::select! {
                ended = hearing.hear(id, &identity, stream) => {
                    if let Err(error) = ended {
                        tracing::debug!(member = id.0, %error, "a connection of another member ended");
                    }
                }
                () = hearing.shutdown.cancelled() => {}
            }
        });
        // Its end is that of the connection, whatever it is.
        let _ = heard.await;
    }

    /// Takes what another member says to the brain.
    async fn hear(&self, from: MemberId, identity: &str, mut stream: Accepted) -> io::Result<()> {
        let socket = stream.get_mut().0;
        *socket = on_this_runtime(socket)?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let alive = async {
            let mut every = tokio::time::interval(ALIVE_EVERY);
            loop {
                every.tick().await;
                timeout(SILENCE_MAX, async {
                    writer.write_all(&[0]).await?;
                    writer.flush().await
                })
                .await
                .map_err(|_| late())??;
            }
        };
        let messages = async {
            loop {
                let bytes = timeout(SILENCE_MAX, frame::read(&mut reader)).await.map_err(|_| late())??;
                // Removed while it was connected.
                if self.roster.verdict(from, identity) != Verdict::Known {
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is no member any more"));
                }
                if bytes.is_empty() {
                    continue;
                }
                let message = PeerMessage::decode(&bytes).map_err(|damage| {
                    tracing::warn!(member = from.0, %damage, "a message of another member cannot be read");
                    io::Error::new(io::ErrorKind::InvalidData, damage.to_string())
                })?;
                self.tell(Message::Peer(from, message)).await;
            }
        };
        tokio::select! {
            ended = alive => ended,
            ended = messages => ended,
        }
    }
}

/// The same connection, for the runtime that this is called on.
fn on_this_runtime(stream: &TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(SockRef::from(stream).try_clone()?.into())
}

/// Ends a connection whose other machine is gone without a word.
fn end_when_gone(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY));
    // What was sent and is not acknowledged; on Linux also what is asked and not answered.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(GONE_AFTER));
}

/// Sends what waits, until the connection is lost or the other side falls silent; says why.
async fn carry(stream: Stream, messages: &mut mpsc::Receiver<PeerMessage>) -> io::Error {
    let (mut reader, writer) = tokio::io::split(stream);
    let ended: io::Result<()> = tokio::select! {
        ended = listen(&mut reader) => ended,
        ended = send_all(writer, messages) => ended,
    };
    ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The other side says again and again that it is alive.
async fn listen(reader: &mut ReadHalf<Stream>) -> io::Result<()> {
    let mut signs = [0; 64];
    loop {
        let read = timeout(SILENCE_MAX, reader.read(&mut signs)).await.map_err(|_| late())??;
        if read == 0 {
            return Ok(());
        }
    }
}

async fn send_all(writer: WriteHalf<Stream>, messages: &mut mpsc::Receiver<PeerMessage>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(64 << 10, writer);
    loop {
        let bytes = match timeout(ALIVE_EVERY, messages.recv()).await {
            Ok(Some(message)) => message.encode(),
            Ok(None) => return Ok(()),
            Err(_) => Vec::new(),
        };
        frame::write(&mut writer, &bytes).await?;
        while let Ok(message) = messages.try_recv() {
            frame::write(&mut writer, &message.encode()).await?;
        }
        writer.flush().await?;
    }
}

pub(super) fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use coracle_engine::{MemberRecord, Wants};
    use rcgen::KeyPair;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::data_directory::DataDirectory;
    use crate::peers::snapshot::Incoming;
    use crate::tls::Authority;

    /// A member at a socket, with nobody behind it.
    struct Site {
        _folder: tempfile::TempDir,
        network: Arc<Network>,
        address: SocketAddr,
    }

    async fn member(id: u64, authority: &Authority) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(folder.path(), None).unwrap();
        let credentials = Credentials::new(MemberId(id), authority.clone(), KeyPair::generate().unwrap()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let network = Network::new(MemberId(id), credentials, address.port(), Incoming::new(directory), shutdown);
        let served = Arc::clone(&network);
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::clone(&served.credentials.server));
            while let Ok((stream, from)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    tokio::spawn(Arc::clone(&served).accept(stream, from));
                }
            }
        });
        Site { _folder: folder, network, address }
    }

    impl Site {
        /// This member in the list.
        fn record(&self, wants: Wants) -> MemberRecord {
            MemberRecord {
                id: self.network.me,
                name: format!("machine-{}", self.network.me.0),
                addresses: vec![self.address.to_string()],
                wants,
                identity: self.network.credentials.identity(),
            }
        }

        /// What comes of connecting to another one.
        async fn greets(&self, other: &Self) -> String {
            self.network.roster.update(vec![other.record(Wants::Auto)]);
            match self.network.greet(other.network.me).await {
                Ok(_) => "welcome".into(),
                Err(failure) => failure.to_string(),
            }
        }
    }

    #[tokio::test]
    async fn a_member_is_let_in_by_its_certificate_and_the_list_together() {
        let authority = Authority::generate("coracle-peer-ca").unwrap();
        let (one, other) = (member(1, &authority).await, member(2, &authority).await);
        assert_eq!(one.greets(&other).await, "it does not know this member");
        other.network.roster.update(vec![one.record(Wants::Auto)]);
        assert_eq!(one.greets(&other).await, "welcome");
        assert_eq!(other.network.roster.addresses(MemberId(1)), [one.address.to_string()]);
        let impostor = member(1, &authority).await;
        assert_eq!(impostor.greets(&other).await, "it does not know this member", "it has another key");
        other.network.roster.update(vec![one.record(Wants::Removed)]);
        assert_eq!(one.greets(&other).await, "this member was removed from the cluster");
    }

    #[tokio::test]
    async fn another_clusters_member_gets_no_further_than_the_handshake() {
        let (ours, theirs) = (Authority::generate("a").unwrap(), Authority::generate("b").unwrap());
        let (one, other) = (member(1, &ours).await, member(2, &theirs).await);
        other.network.roster.update(vec![one.record(Wants::Auto)]);
        let refused = one.greets(&other).await;
        assert!(refused.contains("certificate"), "{refused}");
    }
}
