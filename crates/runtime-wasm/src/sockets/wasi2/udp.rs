//! `wasi:sockets/udp` and `udp-create-socket` 0.2.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::udp::{
    self, IncomingDatagram, IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream,
};
use wasmtime_wasi::p2::bindings::sockets::udp_create_socket;
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, SocketError, SocketResult, UdpSocket as Handle, subscribe};

use super::{Waiting, family, family_of, handle, now, own, taken, told};
use crate::sockets::{Family, Fault, Inbox, Port, Sockets, UdpSocket};

/// Datagrams that are taken or given by one call.
const AT_ONCE: u64 = 16;

struct Socket {
    socket: UdpSocket,
    binding: bool,
}

struct In {
    inbox: Arc<Mutex<Inbox>>,
    only: Option<SocketAddr>,
    family: Family,
}

struct Out {
    port: Port,
    to: Option<SocketAddr>,
    permitted: u64,
}

impl Pollable for Socket {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::ready(()))
    }
}

impl Pollable for In {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|cx| {
            self.inbox.lock().unwrap_or_else(PoisonError::into_inner).poll_arrived(cx, self.only)
        }))
    }
}

/// A datagram that finds no room is lost: sending never waits.
impl Pollable for Out {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::ready(()))
    }
}

impl Sockets<'_> {
    fn udp(&mut self, socket: &Resource<Handle>) -> SocketResult<&mut Socket> {
        Ok(self.table.get_mut(&own(socket))?)
    }
}

impl udp_create_socket::Host for Sockets<'_> {
    async fn create_udp_socket(&mut self, kind: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let socket = UdpSocket::new(self.net, family(kind))?;
        Ok(handle(&self.table.push(Socket { socket, binding: false })?))
    }
}

impl udp::Host for Sockets<'_> {}

impl udp::HostUdpSocket for Sockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let _ = self.table.get(&network)?;
        let socket = self.udp(&this)?;
        if socket.binding {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        socket.socket.bind(local_address.into())?;
        socket.binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let socket = self.udp(&this)?;
        if !std::mem::take(&mut socket.binding) {
            return Err(ErrorCode::NotInProgress.into());
        }
        Ok(())
    }

    async fn stream(
        &mut self,
        this: Resource<Handle>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<IncomingDatagramStream>, Resource<OutgoingDatagramStream>)> {
        let parent = own::<_, Socket>(&this);
        if self.table.iter_children(&parent)?.any(|child| child.is::<In>() || child.is::<Out>()) {
            return Err(SocketError::trap(wasmtime::Error::msg("the socket's streams are not dropped yet")));
        }
        let socket = &mut self.udp(&this)?.socket;
        let (inbox, port) = (socket.inbox()?, socket.port()?);
        socket.connect(remote_address.map(SocketAddr::from))?;
        let (to, family) = (socket.remote(), socket.family);
        let only = to.map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()));
        let from = self.table.push_child(In { inbox, only, family }, &parent)?;
        let to = self.table.push_child(Out { port, to, permitted: 0 }, &parent)?;
        Ok((handle(&from), handle(&to)))
    }

    fn local_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        told(self.udp(&this)?.socket.local_address())
    }

    fn remote_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        told(self.udp(&this)?.socket.remote().ok_or(Fault::InvalidState))
    }

    fn address_family(&mut self, this: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(family_of(self.table.get::<Socket>(&own(&this))?.socket.family))
    }

    fn unicast_hop_limit(&mut self, this: Resource<Handle>) -> SocketResult<u8> {
        Ok(self.udp(&this)?.socket.hops)
    }

    fn set_unicast_hop_limit(&mut self, this: Resource<Handle>, value: u8) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.udp(&this)?.socket.hops = value;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.socket.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.udp(&this)?.socket.receive_buffer = value;
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.udp(&this)?.socket.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.udp(&this)?.socket.send_buffer = value;
        Ok(())
    }

    fn subscribe(&mut self, this: Resource<Handle>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Socket>(self.table, own(&this))
    }

    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<Socket>(taken(&this))?;
        Ok(())
    }
}

impl udp::HostIncomingDatagramStream for Sockets<'_> {
    fn receive(
        &mut self,
        this: Resource<IncomingDatagramStream>,
        max_results: u64,
    ) -> SocketResult<Vec<IncomingDatagram>> {
        let stream: &mut In = self.table.get_mut(&own(&this))?;
        let mut inbox = stream.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut received = Vec::new();
        while (received.len() as u64) < max_results.min(AT_ONCE) {
            let Poll::Ready((bytes, from)) = now(|cx| inbox.poll_receive(cx, stream.only)) else { break };
            let remote_address = stream.family.show(from).into();
            received.push(IncomingDatagram { data: bytes.into(), remote_address });
        }
        Ok(received)
    }

    fn subscribe(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<In>(self.table, own(&this))
    }

    fn drop(&mut self, this: Resource<IncomingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete::<In>(taken(&this))?;
        Ok(())
    }
}

impl udp::HostOutgoingDatagramStream for Sockets<'_> {
    fn check_send(&mut self, this: Resource<OutgoingDatagramStream>) -> SocketResult<u64> {
        self.table.get_mut::<Out>(&own(&this))?.permitted = AT_ONCE;
        Ok(AT_ONCE)
    }

    fn send(&mut self, this: Resource<OutgoingDatagramStream>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let stream: &mut Out = self.table.get_mut(&own(&this))?;
        if datagrams.len() as u64 > std::mem::take(&mut stream.permitted) && !datagrams.is_empty() {
            return Err(SocketError::trap(wasmtime::Error::msg("the guest sends more than it may at once")));
        }
        let mut sent = 0;
        for OutgoingDatagram { data, remote_address } in datagrams {
            let named = remote_address.map(SocketAddr::from);
            let to = match (named, stream.to) {
                (Some(named), Some(to)) if named != to => Err(Fault::InvalidArgument),
                (named, to) => named.or(to).ok_or(Fault::InvalidArgument),
            };
            match to.and_then(|to| stream.port.send(data.into(), to)) {
                Ok(()) => sent += 1,
                // What was sent before it is told first.
                Err(_) if sent > 0 => break,
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(sent)
    }

    fn subscribe(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Out>(self.table, own(&this))
    }

    async fn drop(&mut self, this: Resource<OutgoingDatagramStream>) -> wasmtime::Result<()> {
        self.table.delete::<Out>(taken(&this))?;
        Ok(())
    }
}
