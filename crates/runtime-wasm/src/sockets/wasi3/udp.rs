//! `wasi:sockets/types.udp-socket` 0.3.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::PoisonError;

use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi::p3::bindings::sockets::types::{
    ErrorCode, HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress, UdpSocket as Handle,
};
use wasmtime_wasi::p3::sockets::SocketResult;

use super::{family, family_of, own, trap, whole};
use crate::sockets::{Fault, HasSockets, Sockets, UdpSocket};

impl Sockets<'_> {
    fn datagrams(&mut self, socket: &Resource<Handle>) -> SocketResult<&mut UdpSocket> {
        self.table.get_mut(&own(socket)).map_err(trap)
    }
}

impl<T: Send> HostUdpSocketWithStore<T> for HasSockets {
    async fn send(
        store: &Accessor<T, Self>,
        socket: Resource<Handle>,
        data: Vec<u8>,
        remote_address: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        store.with(|mut access| {
            let mut here = access.get();
            let socket = here.datagrams(&socket)?;
            socket.bind_anywhere()?;
            let to = match (remote_address.map(SocketAddr::from), socket.remote()) {
                (Some(named), Some(to)) if named != to => return Err(Fault::InvalidArgument.into()),
                (named, to) => named.or(to).ok_or(Fault::InvalidArgument)?,
            };
            Ok(socket.port()?.send(data.into(), to)?)
        })
    }

    async fn receive(store: &Accessor<T, Self>, socket: Resource<Handle>) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let (inbox, only, kind) = store.with(|mut access| {
            let mut here = access.get();
            let socket = here.datagrams(&socket)?;
            let only = socket.remote().map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()));
            SocketResult::Ok((socket.inbox()?, only, socket.family))
        })?;
        let (bytes, from) =
            poll_fn(|cx| inbox.lock().unwrap_or_else(PoisonError::into_inner).poll_receive(cx, only)).await;
        Ok((bytes.into(), kind.show(from).into()))
    }
}

impl HostUdpSocket for Sockets<'_> {
    async fn bind(&mut self, socket: Resource<Handle>, local_address: IpSocketAddress) -> SocketResult<()> {
        Ok(self.datagrams(&socket)?.bind(local_address.into())?)
    }

    async fn connect(&mut self, socket: Resource<Handle>, remote_address: IpSocketAddress) -> SocketResult<()> {
        let socket = self.datagrams(&socket)?;
        socket.connect(Some(remote_address.into()))?;
        Ok(socket.bind_anywhere()?)
    }

    async fn create(&mut self, kind: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let socket = UdpSocket::new(self.net, family(kind))?;
        Ok(whole(&self.table.push(socket).map_err(trap)?))
    }

    fn disconnect(&mut self, socket: Resource<Handle>) -> SocketResult<()> {
        let socket = self.datagrams(&socket)?;
        socket.remote().ok_or(Fault::InvalidState)?;
        Ok(socket.connect(None)?)
    }

    fn get_local_address(&mut self, socket: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        Ok(self.datagrams(&socket)?.local_address()?.into())
    }

    fn get_remote_address(&mut self, socket: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        Ok(self.datagrams(&socket)?.remote().ok_or(Fault::InvalidState)?.into())
    }

    fn get_address_family(&mut self, socket: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(family_of(self.table.get::<UdpSocket>(&own(&socket))?.family))
    }

    fn get_unicast_hop_limit(&mut self, socket: Resource<Handle>) -> SocketResult<u8> {
        Ok(self.datagrams(&socket)?.hops)
    }

    fn set_unicast_hop_limit(&mut self, socket: Resource<Handle>, value: u8) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.datagrams(&socket)?.hops = value;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, socket: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.datagrams(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<Handle>, value: u64) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.datagrams(&socket)?.receive_buffer = value;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, socket: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.datagrams(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<Handle>, value: u64) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.datagrams(&socket)?.send_buffer = value;
        Ok(())
    }

    fn drop(&mut self, socket: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<UdpSocket>(whole(&socket))?;
        Ok(())
    }
}
