//! The sockets of Ingresses: HTTP/1.1 and HTTP/2, in the clear and over TLS, with bounds on what a stranger can hold open.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::proxy::{self, Client};

/// How many connections each socket has at a time; more wait in the operating system's queue.
const CONNECTIONS_MAX: usize = 4096;
/// Streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 250;
/// How long a client may take for its TLS handshake, and for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long requests may take to end when the socket is closed.
const END_WAIT: Duration = Duration::from_secs(5);

/// Takes connections until it is closed; with an acceptor over TLS.
pub(super) async fn serve(
    shared: Arc<Shared>,
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    closed: CancellationToken,
) {
    let Ok(own) = listener.local_addr() else { return };
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to an Ingress");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (shared, acceptor, closed) = (Arc::clone(&shared), acceptor.clone(), closed.clone());
        tokio::spawn(async move {
            connection(&shared, stream, from, own.port(), acceptor, &closed).await;
            drop(permit);
        });
    }
}

async fn connection(
    shared: &Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    port: u16,
    acceptor: Option<TlsAcceptor>,
    closed: &CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let client = Client { address: from.ip(), port, is_https: acceptor.is_some() };
    let Some(acceptor) = acceptor else { return requests(shared, stream, client, closed).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(shared, stream, client, closed).await,
        Ok(Err(error)) => tracing::debug!(%from, %error, "a TLS handshake with an Ingress failed"),
        Err(_) => tracing::debug!(%from, "a TLS handshake with an Ingress took too long"),
    }
}

async fn requests(
    shared: &Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: Client,
    closed: &CancellationToken,
) {
    let service = service_fn(|request: http::Request<Incoming>| {
        let shared = Arc::clone(shared);
        async move {
            let routes = shared.routes();
            Ok::<_, Infallible>(proxy::respond(&shared.process, &routes, client, request.map(Body::new)).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to an Ingress ended");
            }
            return;
        }
        () = closed.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(END_WAIT, connection).await;
}
