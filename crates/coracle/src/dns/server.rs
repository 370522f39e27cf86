//! The DNS on sockets: UDP and TCP at one address, with bounds against floods.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Answered, Transport, answer, answer_at_once, invalid};
use crate::member::Member;
use crate::process::Process;

/// How many questions over UDP wait for others outside at a time; more are dropped, and clients ask again.
const QUESTIONS_MAX: usize = 1024;
/// How many connections there are at a time; more wait in the operating system's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a client may be silent on a connection, or take nothing.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How many questions one connection may bring.
const QUESTIONS_PER_CONNECTION: usize = 1000;
/// The longest question: nobody needs more than a name and EDNS.
const QUESTION_MAX: usize = 4096;

/// Serves the DNS at an address.
///
/// # Errors
///
/// When the address cannot be had.
pub(crate) async fn start(member: &mut Member, address: SocketAddr) -> io::Result<SocketAddr> {
    let (datagrams, connections) = bind(address).await?;
    let own = datagrams.local_addr()?;
    let closed = member.process.shutdown.clone();
    member.spawn(serve_datagrams(Arc::clone(&member.process), Arc::new(datagrams), closed.clone()));
    member.spawn(serve_connections(Arc::clone(&member.process), connections, closed));
    Ok(own)
}

/// Both sockets at one port.
async fn bind(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let datagrams = UdpSocket::bind(address).await?;
    let connections = TcpListener::bind(datagrams.local_addr()?).await?;
    Ok((datagrams, connections))
}

/// Answers datagrams until it is closed.
pub(crate) async fn serve_datagrams(process: Arc<Process>, socket: Arc<UdpSocket>, closed: CancellationToken) {
    let permits = Arc::new(Semaphore::new(QUESTIONS_MAX));
    let mut buffer = vec![0; QUESTION_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = closed.cancelled() => return,
        };
        // An answer that a client refused comes back as an error; it is none of the server's.
        let Ok((length, client)) = received else { continue };
        match answer_at_once(&process, &buffer[..length], Transport::Udp) {
            // Where there is no room to send it, it is lost like any datagram.
            Answered::At(reply) => drop(socket.try_send_to(&reply, client)),
            Answered::Never => {}
            Answered::Asks(asks) => {
                let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
                let (process, socket) = (Arc::clone(&process), Arc::clone(&socket));
                tokio::spawn(async move {
                    if let Some(reply) = asks.answer(&process).await {
                        let _ = socket.send_to(&reply, client).await;
                    }
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_connections(process: Arc<Process>, listener: TcpListener, closed: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (process, closed) = (Arc::clone(&process), closed.clone());
        tokio::spawn(async move {
            closed.run_until_cancelled(serve_stream(&process, stream)).await;
            drop(permit);
        });
    }
}

/// Answers the questions of one connection, each with its length in two bytes before it, until it ends.
pub(crate) async fn serve_stream(process: &Process, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    for _ in 0..QUESTIONS_PER_CONNECTION {
        let one = tokio::time::timeout(SILENCE_MAX, serve_one(process, &mut stream)).await;
        if !matches!(one, Ok(Ok(()))) {
            return;
        }
    }
}

async fn serve_one(process: &Process, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let length = usize::from(stream.read_u16().await?);
    if length > QUESTION_MAX {
        return Err(invalid("the question is too long"));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    let reply = answer(process, &packet, Transport::Tcp).await.ok_or_else(|| invalid("that is no question"))?;
    let length = u16::try_from(reply.len()).map_err(|_| invalid("the answer is too long"))?;
    let mut framed = Vec::with_capacity(reply.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(&reply);
    stream.write_all(&framed).await?;
    stream.flush().await
}
