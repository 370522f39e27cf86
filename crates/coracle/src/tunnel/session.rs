//! `exec` and `attach`: a client's terminal or pipes, joined to a program in a container.
//!
//! Two ways lead here: numbered channels in a WebSocket (kubectl from 1.31 on, kube-rs, the Python client), and streams of SPDY/3.1 (kubectl before).
//! In both, an error channel tells at the end how the program ended, as a `Status`.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use bytes::{BufMut as _, Bytes, BytesMut};
use coracle_api::{Reason, Status, Uid};
use coracle_apiserver::SessionStreams;
use coracle_node::runtime::{
    ByteReader, ByteWriter, OpenError, Resize, Session, SessionKind, SessionSpec, TerminalSize,
};
use futures_util::{Stream, StreamExt as _};
use http::request::Parts;
use http::{HeaderValue, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, FuturesAsyncWriteCompatExt as _};

use super::spdy::{self, Decoder, Encoder, Frame, ResetStatus};
use super::upgrade::{self, Incoming, MESSAGE_MAX, Outgoing, PIECE, PIECES_MAX};
use crate::http::fair::StreamPlace;
use crate::process::Process;

/// The protocols of channels in a WebSocket, the newest first. The fifth can say that standard input is at its end.
const WEBSOCKET_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// The protocol of streams in SPDY.
const SPDY_PROTOCOL: &str = "v4.channel.k8s.io";
/// How long a client has to open the streams that it asked for.
const STREAMS_WAIT: Duration = Duration::from_secs(30);
/// What a client says that closes a channel, before the channel's number.
const CLOSE: u8 = 255;

/// The streams of a session, numbered as the channels are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

/// What a client says.
enum Said {
    Stdin(Bytes),
    StdinEnds,
    Resize(TerminalSize),
}

/// The container at the other end.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) process: Arc<Process>,
    pub(super) node: String,
    pub(super) pod: Uid,
    pub(super) container: String,
    /// Given back when the session ends.
    pub(super) place: Option<Arc<StreamPlace>>,
}

/// Opens a session in the way that the client asks for.
pub(super) async fn respond(
    target: Target,
    command: Option<Vec<String>>,
    streams: SessionStreams,
    websocket: Option<WebSocketUpgrade>,
    parts: &Parts,
) -> Result<Response<Body>, Status> {
    let websocket = websocket.map(|upgrade| upgrade.protocols(WEBSOCKET_PROTOCOLS).max_message_size(MESSAGE_MAX));
    let protocol = websocket.as_ref().map(|upgrade| upgrade.selected_protocol().map(HeaderValue::as_bytes).is_some());
    if protocol == Some(false) {
        let spoken = WEBSOCKET_PROTOCOLS.join(" or ");
        let why = format!("unable to upgrade: none of the requested subprotocols is supported: want {spoken}");
        return Err(Status::bad_request(why));
    }
    if websocket.is_none() && !parts.headers.contains_key(http::header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let shutdown = target.process.shutdown.clone();
    let (session, place) = open(target, command, streams).await?;
    let Some(websocket) = websocket else {
        return upgrade::to_spdy(parts, &[SPDY_PROTOCOL], shutdown, move |_, outgoing, incoming| async move {
            let _place = place;
            over_spdy(session, streams, outgoing, incoming).await;
        });
    };
    Ok(websocket.on_upgrade(move |socket| async move {
        let _place = place;
        let (outgoing, incoming) = upgrade::messages(socket);
        shutdown.run_until_cancelled(over_channels(session, streams, outgoing, incoming)).await;
    }))
}

async fn open(
    target: Target,
    command: Option<Vec<String>>,
    streams: SessionStreams,
) -> Result<(Session, Option<Arc<StreamPlace>>), Status> {
    let Target { process, node, pod, container, place } = target;
    let failed = |why: &str| Status::bad_request(format!("unable to upgrade connection: {why}"));
    let runtime = process.nodes.runtime(&node).ok_or_else(|| {
        let why = format!("node {node:?} has no containers that a client could be joined to");
        Status::failure(503, Some(Reason::ServiceUnavailable), why)
    })?;
    let SessionStreams { stdin, stdout, stderr, tty } = streams;
    let kind = command.map_or(SessionKind::Attach, SessionKind::Exec);
    let spec = SessionSpec { pod, container, kind, stdin, stdout, stderr, tty };
    let session = runtime.session(spec).await.map_err(|OpenError(why)| failed(&why))?;
    Ok((session, place))
}

/// A session over numbered channels.
async fn over_channels(session: Session, streams: SessionStreams, outgoing: Outgoing, incoming: Incoming) {
    let frame = |channel: Channel, bytes: &[u8], fin: bool| {
        if fin && bytes.is_empty() {
            return Bytes::new();
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(channel as u8);
        message.put_slice(bytes);
        message.freeze()
    };
    // That the session is open is told by an empty message.
    let first = match streams {
        SessionStreams { stdout: true, .. } => Channel::Stdout,
        SessionStreams { stderr: true, .. } => Channel::Stderr,
        _ => Channel::Error,
    };
    if outgoing.send(frame(first, b"", false)).await.is_err() {
        return;
    }
    let said = incoming.filter_map(|mut message| {
        std::future::ready((!message.is_empty()).then(|| message.split_to(1)[0]).and_then(|channel| match channel {
            0 => Some(Said::Stdin(message)),
            4 => size(&message).map(Said::Resize),
            CLOSE if message.first() == Some(&(Channel::Stdin as u8)) => Some(Said::StdinEnds),
            _ => None,
        }))
    });
    join(session, said, &outgoing, frame).await;
}

/// A terminal's size, as clients tell it.
fn size(text: &[u8]) -> Option<TerminalSize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let Size { width, height } = serde_json::from_slice(text).ok()?;
    Some(TerminalSize { width, height })
}

/// A session over SPDY: first the client opens a stream for each channel.
async fn over_spdy(session: Session, wanted: SessionStreams, outgoing: Outgoing, mut incoming: Incoming) {
    let mut decoder = Decoder::default();
    let opened = tokio::time::timeout(STREAMS_WAIT, streams(wanted, &outgoing, &mut incoming, &mut decoder)).await;
    let Ok(Some((channels, early))) = opened else {
        return tracing::debug!("a client did not open the streams of its session");
    };
    let of = channels.clone();
    let frame = move |channel: Channel, bytes: &[u8], fin: bool| {
        // A channel that the client did not open is not written to: there is none for it to be lost on.
        of.get(&channel).map_or_else(Bytes::new, |stream| spdy::data(*stream, fin, bytes))
    };
    let by_stream: BTreeMap<u32, Channel> = channels.into_iter().map(|(channel, stream)| (stream, channel)).collect();
    let pings = outgoing.clone();
    let frames = futures_util::stream::unfold((decoder, incoming), |(mut decoder, mut incoming)| async move {
        loop {
            match decoder.next() {
                Ok(Some(Frame::GoAway)) | Err(_) => return None,
                Ok(Some(frame)) => return Some((frame, (decoder, incoming))),
                Ok(None) => decoder.feed(&incoming.next().await?),
            }
        }
    });
    let said = futures_util::stream::iter(early).chain(frames).filter_map(move |frame| {
        let (by_stream, pings) = (by_stream.clone(), pings.clone());
        async move {
            match frame {
                Frame::Data { stream, fin, bytes } => match by_stream.get(&stream)? {
                    Channel::Stdin if fin && bytes.is_empty() => Some(vec![Said::StdinEnds]),
                    Channel::Stdin if fin => Some(vec![Said::Stdin(bytes), Said::StdinEnds]),
                    Channel::Stdin => Some(vec![Said::Stdin(bytes)]),
                    Channel::Resize => Some(vec![Said::Resize(size(&bytes)?)]),
                    _ => None,
                },
                Frame::Ping(id) => {
                    let _ = pings.send(spdy::ping(id)).await;
                    None
                }
                _ => None,
            }
        }
    });
    let said = said.flat_map(futures_util::stream::iter);
    join(session, Box::pin(said), &outgoing, frame).await;
}

/// Takes the client's streams until all that it asked for are there; also what it said meanwhile. `None`: it goes, or makes no sense.
async fn streams(
    wanted: SessionStreams,
    outgoing: &Outgoing,
    incoming: &mut Incoming,
    decoder: &mut Decoder,
) -> Option<(BTreeMap<Channel, u32>, Vec<Frame>)> {
    let mut expected = vec![Channel::Error];
    for (channel, wanted) in [
        (Channel::Stdin, wanted.stdin),
        (Channel::Stdout, wanted.stdout),
        (Channel::Stderr, wanted.stderr),
        (Channel::Resize, wanted.tty),
    ] {
        if wanted {
            expected.push(channel);
        }
    }
    let mut encoder = Encoder::default();
    let (mut channels, mut early) = (BTreeMap::new(), Vec::new());
    while channels.len() < expected.len() {
        let frame = loop {
            match decoder.next().ok()? {
                Some(frame) => break frame,
                None => decoder.feed(&incoming.next().await?),
            }
        };
        match frame {
            Frame::SynStream { stream, headers, .. } => {
                let kind = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("streamtype"));
                let channel = match kind.map_or("", |(_, value)| value.as_str()) {
                    "error" => Channel::Error,
                    "stdin" => Channel::Stdin,
                    "stdout" => Channel::Stdout,
                    "stderr" => Channel::Stderr,
                    "resize" => Channel::Resize,
                    _ => {
                        outgoing.send(spdy::reset(stream, ResetStatus::ProtocolError)).await.ok()?;
                        continue;
                    }
                };
                outgoing.send(encoder.syn_reply(stream)).await.ok()?;
                if expected.contains(&channel) {
                    channels.insert(channel, stream);
                }
            }
            Frame::Ping(id) => outgoing.send(spdy::ping(id)).await.ok()?,
            Frame::GoAway => return None,
            // A client that is quick may have begun; it is bounded by what it sends while it opens five streams.
            frame if early.len() < PIECES_MAX => early.push(frame),
            _ => return None,
        }
    }
    Some((channels, early))
}

/// Carries a session until its program has ended, or the client goes.
async fn join(
    session: Session,
    said: impl Stream<Item = Said> + Unpin,
    outgoing: &Outgoing,
    frame: impl Fn(Channel, &[u8], bool) -> Bytes,
) {
    let Session { stdin, stdout, stderr, resize, exit } = session;
    let (pieces, waiting) = mpsc::channel(PIECES_MAX);
    let ends = async {
        let outputs = async {
            tokio::join!(
                carry(stdout, Channel::Stdout, outgoing, &frame),
                carry(stderr, Channel::Stderr, outgoing, &frame)
            )
        };
        let (_, code) = tokio::join!(outputs, exit);
        // The last word, after everything that the program wrote.
        let status = serde_json::to_vec(&status(code)).unwrap_or_default();
        let _ = outgoing.send(frame(Channel::Error, &status, true)).await;
    };
    let mut ends = std::pin::pin!(ends);
    let mut feeds: Pin<&mut (dyn Future<Output = ()> + Send)> = std::pin::pin!(feed(stdin, waiting));
    let mut hears = std::pin::pin!(hear(said, pieces, resize));
    let mut fed = false;
    loop {
        tokio::select! {
            biased;
            () = &mut ends => return,
            () = &mut feeds, if !fed => fed = true,
            // Without a client nobody waits for the program: what exec began may end.
            () = &mut hears => return,
        }
    }
}

/// Brings what the client says to the program, until the client goes.
async fn hear(mut said: impl Stream<Item = Said> + Unpin, pieces: mpsc::Sender<Bytes>, mut resize: Option<Resize>) {
    let mut pieces = Some(pieces);
    while let Some(said) = said.next().await {
        match said {
            Said::Stdin(bytes) => {
                if let Some(pieces) = pieces.as_ref().filter(|_| !bytes.is_empty()) {
                    // A program that reads nothing more has closed its end; how it ends is told elsewhere.
                    let _ = pieces.send(bytes).await;
                }
            }
            Said::StdinEnds => pieces = None,
            Said::Resize(size) => {
                if let Some(resize) = &mut resize {
                    resize(size);
                }
            }
        }
    }
}

async fn feed(stdin: Option<ByteWriter>, mut pieces: mpsc::Receiver<Bytes>) {
    let Some(stdin) = stdin else { return };
    let mut stdin = stdin.compat_write();
    while let Some(piece) = pieces.recv().await {
        if stdin.write_all(&piece).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
    let _ = stdin.shutdown().await;
}

async fn carry(
    output: Option<ByteReader>,
    channel: Channel,
    outgoing: &Outgoing,
    frame: &impl Fn(Channel, &[u8], bool) -> Bytes,
) {
    let Some(output) = output else { return };
    let mut output = output.compat();
    let mut buffer = vec![0; PIECE];
    loop {
        let count = output.read(&mut buffer).await.unwrap_or_default();
        let framed = frame(channel, &buffer[..count], count == 0);
        // Where the transport has no word for the end of a channel there is nothing to send.
        if !framed.is_empty() && outgoing.send(framed).await.is_err() || count == 0 {
            return;
        }
    }
}

/// How a program ended, as clients expect to be told.
fn status(exit: Result<i32, OpenError>) -> Value {
    match exit {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(OpenError(why)) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("Internal error occurred: {why}"), "details": {"causes": [{"message": why}]},
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_told_as_a_cause() {
        let status = status(Ok(3));
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(super::status(Ok(0)), json!({"metadata": {}, "status": "Success"}));
        assert_eq!(super::status(Err(OpenError("gone".into())))["reason"], "InternalError");
    }

    #[test]
    fn a_size_is_read_as_clients_write_it() {
        assert_eq!(size(br#"{"Width":80,"Height":24}"#), Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(size(b"80x24"), None);
    }
}
