//! UDP to a pod: datagrams in a stream of bytes, each with its length in two bytes before it, as the port of runtimes has them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use coracle_node::runtime::ByteStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::UdpSocket;
use tokio_util::compat::TokioAsyncReadCompatExt as _;

/// The largest datagram.
const DATAGRAM_MAX: usize = 65_535;
/// How many bytes of datagrams wait in each direction: a few of the largest.
const BUFFER_BYTES: usize = 4 * DATAGRAM_MAX;

/// A way to an address, as long as the stream is there.
pub(crate) async fn open(address: SocketAddr) -> io::Result<ByteStream> {
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
            let length = from.read_u16().await?;
            let mut datagram = vec![0; usize::from(length)];
            from.read_exact(&mut datagram).await?;
            // What the other side refuses is lost, as datagrams are.
            let _ = socket.send(&datagram).await;
        }
    };
    let receiving = async {
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            if let Ok(length) = socket.recv(&mut buffer).await {
                to.write_u16(length as u16).await?;
                to.write_all(&buffer[..length]).await?;
                to.flush().await?;
            }
        }
    };
    tokio::select! {
        ended = sending => ended,
        ended = receiving => ended,
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::FuturesAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn datagrams_keep_their_bounds_both_ways() {
        let pod = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = open(pod.local_addr().unwrap()).await.unwrap().compat();
        stream.write_all(&[0, 3, b'o', b'n', b'e', 0, 0, 0, 1, b'2']).await.unwrap();
        let mut buffer = [0; 16];
        for expected in ["one", "", "2"] {
            let (length, from) = pod.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], expected.as_bytes());
            pod.send_to(expected.as_bytes(), from).await.unwrap();
        }
        let mut answers = [0; 10];
        stream.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, [0, 3, b'o', b'n', b'e', 0, 0, 0, 1, b'2']);
    }
}
