//! What the table redirects here: connections and datagrams of the host and its containers into the cluster, with the addresses that they
//! were meant for.

use std::io;
use std::io::IoSliceMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{Interest, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use tokio_util::sync::CancellationToken;

use crate::dialer::{self, DATAGRAM_MAX, Protocol};
use crate::dns;
use crate::process::Process;
use crate::services::{Flow, Flows};

/// How many connections there are at a time; more wait in the operating system's queue.
const CONNECTIONS_MAX: usize = 8192;
/// How many questions to the DNS are worked on at a time; more are lost, and clients ask again.
const QUESTIONS_MAX: usize = 1024;

/// The sockets that the table leads to.
#[derive(Debug)]
pub(super) struct Sockets {
    connections: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    /// At ports that are free.
    pub(super) fn open() -> io::Result<Self> {
        let connections = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        connections.set_nonblocking(true)?;
        connections.bind(&any(0).into())?;
        connections.listen(1024)?;
        let datagrams = transparent(any(0))?;
        setsockopt(&datagrams, sockopt::Ipv4OrigDstAddr, &true).map_err(io::Error::from)?;
        Ok(Self { connections: TcpListener::from_std(connections.into())?, datagrams })
    }

    /// The ports: of connections, of datagrams.
    pub(super) fn ports(&self) -> io::Result<(u16, u16)> {
        Ok((self.connections.local_addr()?.port(), self.datagrams.local_addr()?.port()))
    }

    /// Takes what comes until it is closed.
    pub(super) async fn serve(self, process: Arc<Process>, closed: CancellationToken) {
        let connections = accept(&process, &self.connections, &closed);
        let datagrams = receive(&process, &self.datagrams, &closed);
        tokio::select! {
            () = connections => {}
            () = datagrams => {}
        }
    }
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

/// A socket for datagrams of addresses that are not the host's.
fn transparent(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

async fn accept(process: &Arc<Process>, listener: &TcpListener, closed: &CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closed.cancelled() => return,
        };
        let Ok((stream, from)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (process, closed) = (Arc::clone(process), closed.clone());
        tokio::spawn(async move {
            closed.run_until_cancelled(join(&process, stream, from.ip())).await;
            drop(permit);
        });
    }
}

/// Where a connection was meant to go; `None` for one that was opened to this port itself.
fn meant_for(stream: &TcpStream) -> Option<SocketAddr> {
    let original = SockRef::from(stream).original_dst_v4().ok()?.as_socket()?;
    (Some(original) != stream.local_addr().ok()).then_some(original)
}

async fn join(process: &Arc<Process>, mut client: TcpStream, from: IpAddr) {
    // Who is refused is told so as by a closed port, not by an end.
    let refuse = |client: &TcpStream| drop(SockRef::from(client).set_linger(Some(Duration::ZERO)));
    let Some(to) = meant_for(&client).filter(|to| may_enter(process, to.ip())) else { return refuse(&client) };
    let _ = client.set_nodelay(true);
    let dialed = if is_dns(process, to) {
        Ok(dns::connect(process))
    } else {
        dialer::dial_meant(process, &dialer::meant(process, from, to, Protocol::Tcp)).await
    };
    match dialed {
        Ok(stream) => {
            let mut stream = stream.compat();
            if let Err(error) = copy_bidirectional(&mut client, &mut stream).await {
                tracing::debug!(%from, %to, %error, "a connection into the cluster broke");
            }
        }
        Err(error) => {
            tracing::debug!(%from, %to, %error, "a connection into the cluster is refused");
            refuse(&client);
        }
    }
}

/// Takes datagrams for one address until it is closed; gives the port where.
pub(super) fn know(process: &Arc<Process>, to: SocketAddr, closed: &CancellationToken) -> io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&any(0).into())?;
    let socket = Arc::new(UdpSocket::from_std(socket.into())?);
    let port = socket.local_addr()?.port();
    let (process, closed) = (Arc::clone(process), closed.clone());
    if is_dns(&process, to) {
        tokio::spawn(dns::serve_datagrams(process, socket, closed));
    } else {
        tokio::spawn(take(process, socket, to, closed));
    }
    Ok(port)
}

/// The same for a port of a service.
async fn take(process: Arc<Process>, socket: Arc<UdpSocket>, to: SocketAddr, closed: CancellationToken) {
    let flows = Flows::default();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = closed.cancelled() => return,
        };
        let Ok((length, from)) = received else { continue };
        let (datagram, ends) = (Bytes::copy_from_slice(&buffer[..length]), (from, to));
        // The port is open to others, too; only the host and its containers are led here.
        let end = dialer::end_at(&process, &process.view(), from.ip());
        if matches!(end, dialer::End::Address(_)) || flows.pass(&ends, &datagram) {
            continue;
        }
        let meant = dialer::meant(&process, from.ip(), to, Protocol::Udp);
        flows.begin(&process, Flow { ends, to: meant, socket: Arc::clone(&socket) }, datagram, &closed);
    }
}

/// Whether an address is one that this process answers for: nobody gets anywhere else by this port.
fn may_enter(process: &Process, to: IpAddr) -> bool {
    process.is_in_cluster(to) || dialer::is_external(&process.view(), to)
}

/// Whether a packet is for the DNS: its Service, or port 53 of the host's address among containers.
fn is_dns(process: &Process, to: SocketAddr) -> bool {
    to.port() == dns::PORT && {
        let view = process.view();
        dialer::service_at(&view, to.ip()) == Some(dns::service()) || super::is_gateway(&view, to.ip())
    }
}

async fn receive(process: &Arc<Process>, socket: &UdpSocket, closed: &CancellationToken) {
    let (flows, questions) = (Flows::default(), Arc::new(Semaphore::new(QUESTIONS_MAX)));
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let received = tokio::select! {
            received = socket.async_io(Interest::READABLE, || receive_one(socket, &mut buffer)) => received,
            () = closed.cancelled() => return,
        };
        let Ok((length, from, to)) = received else { continue };
        let datagram = Bytes::copy_from_slice(&buffer[..length]);
        if !process.is_in_cluster(to.ip()) || flows.pass(&(from, to), &datagram) {
            continue;
        }
        // Answers come from the address that was asked.
        let Ok(reply) = transparent(to) else { continue };
        if is_dns(process, to) {
            let Ok(permit) = Arc::clone(&questions).try_acquire_owned() else { continue };
            let process = Arc::clone(process);
            tokio::spawn(async move {
                if let Some(answer) = dns::answer(&process, &datagram, dns::Transport::Udp).await {
                    let _ = reply.send_to(&answer, from).await;
                }
                drop(permit);
            });
            continue;
        }
        let (ends, to) = ((from, to), dialer::meant(process, from.ip(), to, Protocol::Udp));
        flows.begin(process, Flow { ends, to, socket: Arc::new(reply) }, datagram, closed);
    }
}

/// One datagram: its length, who sent it, and whom it was meant for.
fn receive_one(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, SocketAddr)> {
    let mut control = nix::cmsg_space!(nix::libc::sockaddr_in);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received = recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let from = received.address.map(|address| SocketAddr::V4(address.into()));
    let to = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(address) => {
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port))))
        }
        _ => None,
    });
    match (from, to) {
        (Some(from), Some(to)) => Ok((received.bytes, from, to)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
