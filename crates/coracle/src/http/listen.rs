//! The listening socket: TLS, HTTP/1.1 and HTTP/2 on one port, with bounds on what a stranger can hold open.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::stall::{Movement, Watched};
use super::{Certified, Outside};
use crate::peers::Network;
use crate::peers::credentials::is_peer;
use crate::process::Process;
use crate::{Error, ErrorKind};

/// How long a client may take for its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is silent before the operating system asks whether anybody is there, and how often it asks then.
const SILENCE: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How large the head of a request may be.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 128;
/// How often it is looked whether bodies stall.
const STALL_LOOK: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection: client-go keeps a watch per kind on one.
const STREAMS_MAX: u32 = 1000;

/// Takes the address, or says in one line why it cannot be had.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => ": another program listens there; choose another with --listen ADDR:PORT",
            std::io::ErrorKind::PermissionDenied => ": this user may not use that port",
            _ => "",
        };
        Error::new(ErrorKind::Listen, format!("cannot listen on {address}{hint}")).because(source)
    })
}

/// Where a connection leads: to the API server, or to the member behind it.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    pub(crate) api: Arc<rustls::ServerConfig>,
    pub(crate) network: Option<Arc<Network>>,
}

/// Accepts connections until the cluster stops.
pub(crate) async fn serve(process: Arc<Process>, listener: TcpListener, doors: Doors, router: axum::Router) {
    let addresses = Arc::new(Addresses::new(process.requests.limits().connections_per_address));
    let permits = Arc::new(Semaphore::new(process.requests.limits().connections));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = process.shutdown.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: give others the time to close theirs.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = addresses.enter(from.ip()) else {
            tracing::debug!(%from, "one address has too many connections");
            continue;
        };
        let (doors, router, process) = (doors.clone(), router.clone(), Arc::clone(&process));
        tokio::spawn(async move {
            connection(&process, doors, (stream, from), router).await;
            drop((permit, place));
        });
    }
}

/// The handshake; and, where a member wants to be let in, its network.
async fn shake_hands(doors: Doors, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Option<Arc<Network>>)> {
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    match doors.network.filter(|_| is_peer(&start.client_hello())) {
        Some(network) => {
            let config = Arc::clone(&network.credentials.server);
            Ok((start.into_stream(config).await?, Some(network)))
        }
        None => Ok((start.into_stream(doors.api).await?, None)),
    }
}

async fn connection(process: &Process, doors: Doors, (stream, from): (TcpStream, SocketAddr), router: axum::Router) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(SILENCE).with_interval(ASK_EVERY);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake_hands(doors, stream));
    let stream = match handshake.await {
        Ok(Ok((stream, Some(network)))) => return network.accept(stream, from).await,
        Ok(Ok((stream, None))) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = certificate.and_then(crate::tls::user_of).map(Certified);
    let (movement, stall) = (Arc::new(Movement::default()), process.requests.limits().stall);
    let outside = Outside { movement: Arc::clone(&movement), from: from.ip() };
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(outside.clone());
        if let Some(user) = &user {
            request.extensions_mut().insert(user.clone());
        }
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&movement), stall));
    let connection = builder.serve_connection_with_upgrades(stream, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        () = stalled(&movement, stall) => return tracing::debug!("a client does not take what is sent to it"),
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(error = %error, "connection ended");
            }
            return;
        }
        () = process.shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
}

/// Ends when a body of the connection stalls.
async fn stalled(movement: &Movement, longest: Duration) {
    let mut looks = tokio::time::interval(STALL_LOOK.min(longest));
    loop {
        looks.tick().await;
        if movement.is_stalled(longest) {
            return;
        }
    }
}

/// How many connections each address has.
#[derive(Debug)]
struct Addresses {
    most: usize,
    open: Mutex<BTreeMap<IpAddr, usize>>,
}

/// One connection of an address, until it is dropped.
struct Entered {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Addresses {
    fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Entered> {
        let mut open = self.open.lock().expect("nothing panics while it holds the lock");
        let count = open.entry(address).or_default();
        (*count < self.most).then(|| {
            *count += 1;
            Entered { addresses: Arc::clone(self), address }
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.addresses.open.lock().expect("nothing panics while it holds the lock");
        let left = open.get_mut(&self.address).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            open.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_address_has_so_many_connections_and_no_more() {
        let addresses = Arc::new(Addresses::new(2));
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let open = [addresses.enter(here).unwrap(), addresses.enter(here).unwrap()];
        assert!(addresses.enter(here).is_none());
        assert!(addresses.enter(IpAddr::V4(Ipv4Addr::BROADCAST)).is_some());
        drop(open);
        assert!(addresses.enter(here).is_some());
        assert!(addresses.open.lock().unwrap().is_empty(), "who has none is forgotten");
    }
}
