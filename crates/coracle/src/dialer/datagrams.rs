//! Ways for datagrams: framed in a stream of bytes, each with its length in two bytes before it, so that they go wherever streams go.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use coracle_node::runtime::{ByteStream, OpenError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

use super::endpoints::{self, Endpoint};
use super::{Meant, Protocol, ServicePort, dial_address, dial_pod, permit_endpoint, refused};
use crate::dns;
use crate::process::Process;

/// The largest datagram.
pub(crate) const DATAGRAM_MAX: usize = 65_535;
/// How many bytes of datagrams wait in each direction: a few of the largest.
const BUFFER_BYTES: usize = 4 * DATAGRAM_MAX;

/// A way to what is meant for whoever sends from that source, and which endpoint of a service it is: its flow ends when it is no endpoint any more.
pub(crate) async fn dial_datagrams(
    process: &Arc<Process>,
    meant: &Meant,
    source: Option<SocketAddr>,
) -> Result<(ByteStream, Option<Endpoint>), OpenError> {
    match meant {
        Meant::Service(to) => dial_endpoint(process, to, source).await,
        Meant::Address(address, from) => {
            Ok((dial_address(process, from, *address, Protocol::Udp, source).await?, None))
        }
    }
}

async fn dial_endpoint(
    process: &Arc<Process>,
    to: &ServicePort,
    source: Option<SocketAddr>,
) -> Result<(ByteStream, Option<Endpoint>), OpenError> {
    // Over a stream questions and answers are framed as datagrams are.
    if to.service == dns::service() && to.port == dns::PORT {
        return Ok((dns::connect(process), None));
    }
    let view = process.view();
    let candidates = endpoints::candidates(&view, to).map_err(|error| refused(&view, to, &error))?;
    drop(view);
    let affinity = candidates.affinity;
    let mut last = OpenError("connection refused".into());
    for endpoint in process.turns.order(to, candidates, Instant::now()) {
        if let Err(denied) = permit_endpoint(process, &to.from, &endpoint, Protocol::Udp) {
            last = denied;
            continue;
        }
        let opened = match &endpoint.pod {
            Some((node, pod)) if process.nodes.runtime(node).is_some() || process.peers.elsewhere(node).is_some() => {
                dial_pod(process, &endpoint.in_pod(node, pod, Protocol::Udp).from(source)).await
            }
            _ => dial_address(process, &to.from, endpoint.place(), Protocol::Udp, source).await,
        };
        match opened {
            Ok(stream) => {
                process.turns.connected(to, &endpoint, affinity, Instant::now());
                return Ok((stream, Some(endpoint)));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether an endpoint still takes datagrams of a service.
pub(crate) fn still_takes(process: &Process, meant: &Meant, endpoint: Option<&Endpoint>) -> bool {
    let (Meant::Service(to), Some(endpoint)) = (meant, endpoint) else { return true };
    let is_same = |other: &Endpoint| other.is_at(endpoint);
    endpoints::candidates(&process.view(), to).is_ok_and(|candidates| candidates.endpoints.iter().any(is_same))
}

/// A way to an address by a socket of this machine.
pub(crate) async fn by_socket(address: SocketAddr) -> io::Result<ByteStream> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let _ = carry(&socket, ours).await;
    });
    Ok(Box::pin(theirs.compat()))
}

/// Carries datagrams between a stream and a socket until the stream ends.
async fn carry(socket: &UdpSocket, stream: DuplexStream) -> io::Result<()> {
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        loop {
            // What the other side refuses is lost, as datagrams are.
            let _ = socket.send(&read_datagram(&mut from).await?).await;
        }
    };
    let receiving = async {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            if let Ok(length) = socket.recv(&mut buffer).await {
                write_datagram(&mut to, &buffer[..length]).await?;
            }
        }
    };
    tokio::select! {
        ended = sending => ended,
        ended = receiving => ended,
    }
}

/// A datagram in a stream.
pub(crate) async fn read_datagram(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<bytes::Bytes> {
    let length = stream.read_u16().await?;
    let mut datagram = vec![0; usize::from(length)];
    stream.read_exact(&mut datagram).await?;
    Ok(datagram.into())
}

/// Writes one as it is read.
pub(crate) async fn write_datagram(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    datagram: &[u8],
) -> io::Result<()> {
    let length = u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + datagram.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(datagram);
    stream.write_all(&framed).await?;
    stream.flush().await
}
