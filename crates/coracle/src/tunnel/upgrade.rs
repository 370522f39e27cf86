//! Connections that stop speaking HTTP: a WebSocket's messages and SPDY's bytes, both as pieces each way.

use std::pin::Pin;

use axum::body::Body;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use coracle_api::Status;
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How much is read of a pod at a time.
pub(super) const PIECE: usize = 32 << 10;
/// How many pieces wait for the client, and for each stream's pod. Beyond, who sends them waits.
pub(super) const PIECES_MAX: usize = 16;
/// How long a message of a client may be.
pub(super) const MESSAGE_MAX: usize = 4 << 20;

/// Pieces for the client, in the transport's own framing.
pub(super) type Outgoing = mpsc::Sender<Bytes>;
/// Pieces from the client.
pub(super) type Incoming = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A WebSocket as pieces both ways. It is closed when the sender and all its clones are gone.
pub(super) fn messages(socket: WebSocket) -> (Outgoing, Incoming) {
    let (mut sink, source) = socket.split();
    let (outgoing, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
    tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            if sink.send(Message::Binary(piece)).await.is_err() {
                return;
            }
        }
        // Without a code clients take it for a broken connection.
        let _ = sink.send(Message::Close(Some(CloseFrame { code: close_code::NORMAL, reason: "".into() }))).await;
        let _ = sink.close().await;
    });
    let incoming = source.take_while(|message| std::future::ready(message.is_ok())).filter_map(|message| {
        std::future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(bytes),
            // Some clients send what is text as text.
            Ok(Message::Text(text)) => Some(text.into()),
            _ => None,
        })
    });
    (outgoing, Box::pin(incoming))
}

/// The upgrade of a whole connection to SPDY/3.1, in the first of these protocols that the client speaks.
pub(super) fn to_spdy<Run, Running>(
    parts: &Parts,
    protocols: &[&'static str],
    shutdown: CancellationToken,
    run: Run,
) -> Result<Response<Body>, Status>
where
    Run: FnOnce(&'static str, Outgoing, Incoming) -> Running + Send + 'static,
    Running: Future<Output = ()> + Send,
{
    let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
    let Some(upgrade) = upgrade.filter(|_| text("upgrade").eq_ignore_ascii_case("SPDY/3.1")) else {
        return Err(Status::bad_request("Upgrade request required"));
    };
    let versions = parts.headers.get_all("x-stream-protocol-version");
    let asked: Vec<&str> =
        versions.iter().filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',').map(str::trim)).collect();
    let Some(protocol) = protocols.iter().copied().find(|protocol| asked.contains(protocol)) else {
        let spoken = protocols.join(" and ");
        return Err(Status::bad_request(format!("unable to upgrade: the server speaks {spoken} only")));
    };
    tokio::spawn(async move {
        let connection = match upgrade.await {
            Ok(connection) => TokioIo::new(connection),
            Err(error) => return tracing::debug!(%error, "a connection was not upgraded"),
        };
        let (reader, mut writer) = tokio::io::split(connection);
        let (outgoing, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
        tokio::spawn(async move {
            while let Some(piece) = pieces.recv().await {
                if writer.write_all(&piece).await.is_err() {
                    return;
                }
            }
            let _ = writer.shutdown().await;
        });
        let incoming = Box::pin(stream::unfold(reader, |mut reader| async move {
            let mut piece = BytesMut::with_capacity(PIECE);
            match reader.read_buf(&mut piece).await {
                Ok(0) | Err(_) => None,
                Ok(_) => Some((piece.freeze(), reader)),
            }
        }));
        shutdown.run_until_cancelled(run(protocol, outgoing, incoming)).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
    Ok(response)
}
