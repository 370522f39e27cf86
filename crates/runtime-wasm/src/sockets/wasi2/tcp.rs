//! `wasi:sockets/tcp` and `tcp-create-socket` 0.2.

use std::task::Poll;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::{tcp, tcp_create_socket};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, DynPollable, Network, Pollable, SocketResult, TcpSocket as Handle, subscribe,
};

use super::streams::{In, Out};
use super::{Waiting, family, family_of, handle, now, own, taken, told};
use crate::sockets::{Accepting, Fault, Sockets, TcpSocket};

/// A socket as 0.2 has it: what takes time is started and finished by two calls.
struct Socket {
    tcp: TcpSocket,
    underway: Option<Underway>,
    accepting: Option<Accepting>,
    ways: Option<(In, Out)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Underway {
    Bind,
    Connect,
    Listen,
}

impl Socket {
    fn new(socket: TcpSocket) -> Self {
        Self { tcp: socket, underway: None, accepting: None, ways: None }
    }

    fn begin(&mut self, operation: Underway) -> SocketResult<()> {
        if self.underway.is_some() {
            return Err(ErrorCode::ConcurrencyConflict.into());
        }
        match operation {
            // In 0.2 a socket is bound before it listens.
            Underway::Listen if !self.tcp.is_bound() => Err(ErrorCode::InvalidState.into()),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, operation: Underway) -> SocketResult<()> {
        if self.underway != Some(operation) {
            return Err(ErrorCode::NotInProgress.into());
        }
        self.underway = None;
        Ok(())
    }

    fn ways(&mut self) -> SocketResult<(DynInputStream, DynOutputStream)> {
        let (reader, writer) = (self.tcp.take_reader()?, self.tcp.take_writer()?);
        let (from, to) = (In::new(reader), Out::new(writer));
        self.ways = Some((from.clone(), to.clone()));
        Ok((Box::new(from), Box::new(to)))
    }
}

impl Pollable for Socket {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|cx| match (self.underway, &mut self.accepting) {
            (Some(Underway::Connect), _) => self.tcp.poll_connected(cx).map(drop),
            (None, Some(accepting)) => accepting.poll_arrived(cx),
            _ => Poll::Ready(()),
        }))
    }
}

impl Sockets<'_> {
    fn tcp(&mut self, socket: &Resource<Handle>) -> SocketResult<&mut Socket> {
        Ok(self.table.get_mut(&own(socket))?)
    }
}

/// A number of nanoseconds or of tries, which has to be one.
fn positive<T: Default + PartialEq>(value: T) -> SocketResult<T> {
    if value == T::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value) }
}

impl tcp_create_socket::Host for Sockets<'_> {
    fn create_tcp_socket(&mut self, kind: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let socket = TcpSocket::new(self.net, family(kind))?;
        Ok(handle(&self.table.push(Socket::new(socket))?))
    }
}

impl tcp::Host for Sockets<'_> {}

impl tcp::HostTcpSocket for Sockets<'_> {
    async fn start_bind(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        local_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let _ = self.table.get(&network)?;
        let socket = self.tcp(&this)?;
        socket.begin(Underway::Bind)?;
        socket.tcp.bind(local_address.into())?;
        socket.underway = Some(Underway::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        self.tcp(&this)?.finish(Underway::Bind)
    }

    fn start_connect(
        &mut self,
        this: Resource<Handle>,
        network: Resource<Network>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        let _ = self.table.get(&network)?;
        let socket = self.tcp(&this)?;
        socket.begin(Underway::Connect)?;
        socket.tcp.start_connect(remote_address.into())?;
        socket.underway = Some(Underway::Connect);
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<Handle>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.tcp(&this)?;
        if socket.underway != Some(Underway::Connect) {
            return Err(ErrorCode::NotInProgress.into());
        }
        let Poll::Ready(connected) = now(|cx| socket.tcp.poll_connected(cx)) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        socket.underway = None;
        connected?;
        let (from, to) = socket.ways()?;
        let parent = own::<_, Socket>(&this);
        Ok((self.table.push_child(from, &parent)?, self.table.push_child(to, &parent)?))
    }

    async fn start_listen(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        let socket = self.tcp(&this)?;
        socket.begin(Underway::Listen)?;
        socket.accepting = Some(socket.tcp.listen()?);
        socket.underway = Some(Underway::Listen);
        Ok(())
    }

    fn finish_listen(&mut self, this: Resource<Handle>) -> SocketResult<()> {
        self.tcp(&this)?.finish(Underway::Listen)
    }

    fn accept(
        &mut self,
        this: Resource<Handle>,
    ) -> SocketResult<(Resource<Handle>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let accepting = self.tcp(&this)?.accepting.as_mut().ok_or(Fault::InvalidState)?;
        let Poll::Ready(accepted) = now(|cx| accepting.poll_accept(cx)) else {
            return Err(ErrorCode::WouldBlock.into());
        };
        let mut socket = Socket::new(accepted?);
        let (from, to) = socket.ways()?;
        let socket = self.table.push(socket)?;
        let from = self.table.push_child(from, &socket)?;
        let to = self.table.push_child(to, &socket)?;
        Ok((handle(&socket), from, to))
    }

    fn local_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        told(self.tcp(&this)?.tcp.local_address())
    }

    fn remote_address(&mut self, this: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        told(self.tcp(&this)?.tcp.remote_address())
    }

    fn is_listening(&mut self, this: Resource<Handle>) -> wasmtime::Result<bool> {
        Ok(self.table.get::<Socket>(&own(&this))?.tcp.is_listening())
    }

    fn address_family(&mut self, this: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(family_of(self.table.get::<Socket>(&own(&this))?.tcp.family))
    }

    fn set_listen_backlog_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        Ok(self.tcp(&this)?.tcp.set_backlog(value)?)
    }

    fn keep_alive_enabled(&mut self, this: Resource<Handle>) -> SocketResult<bool> {
        Ok(self.tcp(&this)?.tcp.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, this: Resource<Handle>, value: bool) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.tcp.options.idle)
    }

    fn set_keep_alive_idle_time(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.idle = positive(value)?;
        Ok(())
    }

    fn keep_alive_interval(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.tcp.options.interval)
    }

    fn set_keep_alive_interval(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.interval = positive(value)?;
        Ok(())
    }

    fn keep_alive_count(&mut self, this: Resource<Handle>) -> SocketResult<u32> {
        Ok(self.tcp(&this)?.tcp.options.count)
    }

    fn set_keep_alive_count(&mut self, this: Resource<Handle>, value: u32) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.count = positive(value)?;
        Ok(())
    }

    fn hop_limit(&mut self, this: Resource<Handle>) -> SocketResult<u8> {
        Ok(self.tcp(&this)?.tcp.options.hops)
    }

    fn set_hop_limit(&mut self, this: Resource<Handle>, value: u8) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.hops = positive(value)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.tcp.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.receive_buffer = positive(value)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, this: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.tcp(&this)?.tcp.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, this: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.tcp(&this)?.tcp.options.send_buffer = positive(value)?;
        Ok(())
    }

    fn subscribe(&mut self, this: Resource<Handle>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Socket>(self.table, own(&this))
    }

    fn shutdown(&mut self, this: Resource<Handle>, how: tcp::ShutdownType) -> SocketResult<()> {
        let (from, to) = self.tcp(&this)?.ways.as_ref().ok_or(Fault::InvalidState)?;
        if matches!(how, tcp::ShutdownType::Receive | tcp::ShutdownType::Both) {
            from.shut();
        }
        if matches!(how, tcp::ShutdownType::Send | tcp::ShutdownType::Both) {
            to.shut();
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<Socket>(taken(&this))?;
        Ok(())
    }
}
