//! Port-forwards: connections of a client's machine, carried to ports of a pod.
//!
//! Three ways lead here: SPDY/3.1 inside a WebSocket (kubectl from 1.31 on), SPDY/3.1 by itself (kubectl before), and numbered
//! channels in a WebSocket, for which the query names the ports (kube-rs, the Python client).

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use bytes::{BufMut as _, Bytes, BytesMut};
use coracle_api::{Status, Uid};
use coracle_node::runtime::{ByteStream, Drained};
use futures_util::{Stream, StreamExt as _};
use http::request::Parts;
use http::{HeaderValue, Response, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::spdy::{self, Decoder, Encoder, Frame, ResetStatus};
use super::upgrade::{self, MESSAGE_MAX, Outgoing, PIECE, PIECES_MAX};
use crate::dialer::{self, PodPort, Protocol};
use crate::http::fair::StreamPlace;
use crate::process::Process;

const SPDY_IN_WEBSOCKET: &str = "SPDY/3.1+portforward.k8s.io";
const CHANNELS: [&str; 2] = ["v4.channel.k8s.io", "portforward.k8s.io"];
/// What a session over SPDY says it is about.
const STREAM_PROTOCOL: &str = "portforward.k8s.io";
/// How many connections one session carries at a time.
const CONNECTIONS_MAX: usize = 512;
/// How many ports the channels of a session have room for: two channels each, numbered by a byte.
const PORTS_MAX: usize = 128;

/// The pod at the other end.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) process: Arc<Process>,
    pub(super) node: String,
    pub(super) name: String,
    pub(super) uid: Uid,
    /// Given back when the tunnel ends.
    pub(super) _place: Option<Arc<StreamPlace>>,
}

/// Opens a session in the way that the client asks for.
pub(super) fn respond(
    target: Target,
    ports: Vec<u16>,
    websocket: Option<WebSocketUpgrade>,
    parts: &Parts,
) -> Result<Response<Body>, Status> {
    let target = Arc::new(target);
    let Some(websocket) = websocket else {
        let shutdown = target.process.shutdown.clone();
        return upgrade::to_spdy(parts, &[STREAM_PROTOCOL], shutdown, |_, outgoing, incoming| {
            Session::new(target, outgoing).run(incoming)
        });
    };
    let asks = parts.headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
    let websocket = websocket.protocols([SPDY_IN_WEBSOCKET, CHANNELS[0], CHANNELS[1]]).max_message_size(MESSAGE_MAX);
    match websocket.selected_protocol().map(HeaderValue::as_bytes) {
        Some(protocol) if protocol == SPDY_IN_WEBSOCKET.as_bytes() => Ok(websocket.on_upgrade(|socket| async move {
            let shutdown = target.process.shutdown.clone();
            let (outgoing, incoming) = upgrade::messages(socket);
            shutdown.run_until_cancelled(Session::new(target, outgoing).run(incoming)).await;
        })),
        None if asks => Err(Status::bad_request(format!(
            "unable to upgrade: none of the requested subprotocols is supported: want {SPDY_IN_WEBSOCKET} or {}",
            CHANNELS[0]
        ))),
        _ if ports.is_empty() => Err(Status::bad_request("query parameter \"ports\" is required")),
        _ if ports.len() > PORTS_MAX => Err(Status::bad_request(format!("at most {PORTS_MAX} ports can be forwarded"))),
        _ => Ok(websocket.on_upgrade(|socket| async move {
            let shutdown = target.process.shutdown.clone();
            let (outgoing, incoming) = upgrade::messages(socket);
            shutdown.run_until_cancelled(channels(target, ports, outgoing, incoming)).await;
        })),
    }
}

/// The two streams of one connection: its bytes, and what goes wrong with it.
#[derive(Debug, Default)]
struct Request {
    port: u16,
    data: Option<u32>,
    error: Option<u32>,
}

/// A connection that is carried.
#[derive(Debug)]
struct Connection {
    /// To the pod; `None` when the client has said its last.
    pieces: Option<mpsc::Sender<Bytes>>,
    task: Option<AbortHandle>,
    /// Where the pieces come out, until there is a task that takes them.
    waiting: Option<mpsc::Receiver<Bytes>>,
}

/// A session over SPDY.
struct Session {
    target: Arc<Target>,
    outgoing: Outgoing,
    encoder: Encoder,
    /// Requests of which one stream is still to come, by the client's id.
    requests: BTreeMap<String, Request>,
    /// By the id of the data stream.
    connections: BTreeMap<u32, Connection>,
    /// Each ends with the id of its data stream.
    tasks: JoinSet<u32>,
}

impl Session {
    fn new(target: Arc<Target>, outgoing: Outgoing) -> Self {
        let (requests, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { target, outgoing, encoder: Encoder::default(), requests, connections, tasks: JoinSet::new() }
    }

    /// Until the client goes; its connections end with it.
    async fn run(mut self, mut incoming: impl Stream<Item = Bytes> + Unpin) {
        let mut decoder = Decoder::default();
        loop {
            tokio::select! {
                Some(ended) = self.tasks.join_next() => if let Ok(stream) = ended {
                    self.connections.remove(&stream);
                },
                piece = incoming.next() => {
                    let Some(piece) = piece else { return };
                    decoder.feed(&piece);
                    loop {
                        match decoder.next() {
                            Ok(Some(Frame::GoAway)) => return,
                            Ok(Some(frame)) => if self.take(frame).await.is_none() { return },
                            Ok(None) => break,
                            Err(error) => return tracing::debug!(%error, "a port-forward broke"),
                        }
                    }
                }
            }
        }
    }

    /// Takes a frame; `None` when the client is gone.
    async fn take(&mut self, frame: Frame) -> Option<()> {
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, &headers).await?,
            Frame::Data { stream, fin, bytes } => {
                if let Some(connection) = self.connections.get_mut(&stream) {
                    if let Some(pieces) = connection.pieces.as_ref().filter(|_| !bytes.is_empty()) {
                        // A pod that is gone reads nothing more; the connection's task tells.
                        let _ = pieces.send(bytes).await;
                    }
                    if fin {
                        connection.pieces = None;
                    }
                }
            }
            Frame::Reset(stream) => {
                if let Some(task) = self.connections.remove(&stream).and_then(|connection| connection.task) {
                    task.abort();
                }
            }
            Frame::Ping(id) => self.send(spdy::ping(id)).await?,
            Frame::GoAway => {}
        }
        Some(())
    }

    async fn send(&self, frame: Bytes) -> Option<()> {
        self.outgoing.send(frame).await.ok()
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: &[(String, String)]) -> Option<()> {
        let value = |name: &str| {
            headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.as_str())
        };
        let port = value("port").parse::<u16>().ok().filter(|port| *port != 0);
        let (kind, Some(port)) = (value("streamtype"), port) else {
            return self.send(spdy::reset(stream, ResetStatus::ProtocolError)).await;
        };
        if !matches!(kind, "data" | "error") {
            return self.send(spdy::reset(stream, ResetStatus::ProtocolError)).await;
        }
        if self.connections.len() + self.requests.len() >= CONNECTIONS_MAX {
            return self.send(spdy::reset(stream, ResetStatus::RefusedStream)).await;
        }
        let reply = self.encoder.syn_reply(stream);
        self.send(reply).await?;
        let id = value("requestid").to_owned();
        let request = self.requests.entry(id.clone()).or_insert_with(|| Request { port, ..Request::default() });
        if kind == "data" {
            request.data = Some(stream);
            let (pieces, waiting) = mpsc::channel(PIECES_MAX);
            let pieces = (!fin).then_some(pieces);
            self.connections.insert(stream, Connection { pieces, task: None, waiting: Some(waiting) });
        } else {
            request.error = Some(stream);
        }
        if let Request { port, data: Some(data), error: Some(error) } = *request {
            self.requests.remove(&id);
            self.carry(port, data, error);
        }
        Some(())
    }

    fn carry(&mut self, port: u16, data: u32, error: u32) {
        // The client may have given it up before it was whole.
        let Some(connection) = self.connections.get_mut(&data) else { return };
        let Some(pieces) = connection.waiting.take() else { return };
        let (target, outgoing) = (Arc::clone(&self.target), self.outgoing.clone());
        connection.task = Some(self.tasks.spawn(async move {
            let frame = |bytes: &[u8]| spdy::data(data, false, bytes);
            let failed = carry(&target, port, pieces, &outgoing, frame).await.err();
            let text = failed.map(|why| target.failure(port, &why)).unwrap_or_default();
            for last in [spdy::data(error, true, text.as_bytes()), spdy::data(data, true, &[])] {
                let _ = outgoing.send(last).await;
            }
            data
        }));
    }
}

impl Target {
    /// What a client is told of a connection that failed, in the kubelet's words.
    fn failure(&self, port: u16, why: &str) -> String {
        format!("error forwarding port {port} to pod {}, uid {}: {why}", self.name, self.uid)
    }

    async fn dial(&self, port: u16) -> Result<ByteStream, String> {
        let to = PodPort::of(self.node.clone(), self.uid.clone(), port, Protocol::Tcp).inside();
        dialer::dial_pod_here(&self.process, &to).await.map_err(|error| error.0)
    }
}

/// Carries one connection until both ways have ended, or the pod closes its way.
async fn carry(
    target: &Target,
    port: u16,
    mut pieces: mpsc::Receiver<Bytes>,
    outgoing: &Outgoing,
    frame: impl Fn(&[u8]) -> Bytes,
) -> Result<(), String> {
    let (mut reader, mut writer) = tokio::io::split(target.dial(port).await?.compat());
    let there = async {
        while let Some(piece) = pieces.recv().await {
            if writer.write_all(&piece).await.is_err() {
                return; // what the pod still says decides
            }
        }
        let _ = writer.shutdown().await;
    };
    let back = async {
        let mut buffer = vec![0; PIECE];
        loop {
            let count = match reader.read(&mut buffer).await {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if Drained::is_cause_of(&error) => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            if outgoing.send(frame(&buffer[..count])).await.is_err() {
                return Ok(()); // the client is gone
            }
        }
    };
    let mut there: Pin<&mut (dyn Future<Output = ()> + Send)> = std::pin::pin!(there);
    let mut back = std::pin::pin!(back);
    tokio::select! {
        result = &mut back => return result,
        () = &mut there => {}
    }
    back.await
}

/// A session over numbered channels: two for each port of the query, one for its bytes and one for what goes wrong.
async fn channels(
    target: Arc<Target>,
    ports: Vec<u16>,
    outgoing: Outgoing,
    mut incoming: impl Stream<Item = Bytes> + Unpin,
) {
    let mut tasks = JoinSet::new();
    let mut senders = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        let (data, error) = (index as u8 * 2, index as u8 * 2 + 1);
        // Each channel begins with its port.
        for channel in [data, error] {
            let _ = outgoing.send(message(channel, &port.to_le_bytes())).await;
        }
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        senders.push(sender);
        let (target, outgoing) = (Arc::clone(&target), outgoing.clone());
        tasks.spawn(async move {
            let carried = carry(&target, port, pieces, &outgoing, |bytes| message(data, bytes)).await;
            if let Err(why) = carried {
                let _ = outgoing.send(message(error, target.failure(port, &why).as_bytes())).await;
            }
        });
    }
    drop(outgoing);
    loop {
        tokio::select! {
            ended = tasks.join_next() => if ended.is_none() { return },
            piece = incoming.next() => {
                let Some(mut piece) = piece else { return };
                if piece.is_empty() {
                    continue;
                }
                let channel = usize::from(piece.split_to(1)[0]);
                if let Some(sender) = senders.get(channel / 2).filter(|_| channel % 2 == 0) {
                    let _ = sender.send(piece).await;
                }
            }
        }
    }
}

fn message(channel: u8, bytes: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    message.freeze()
}
