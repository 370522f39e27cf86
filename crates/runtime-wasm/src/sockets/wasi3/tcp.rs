//! `wasi:sockets/types.tcp-socket` 0.3.

use std::future::poll_fn;
use std::iter;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::component::{
    Access, Accessor, Destination, FutureReader, Resource, Source, StreamConsumer, StreamProducer, StreamReader,
    StreamResult,
};
use wasmtime::{AsContextMut as _, StoreContextMut};
use wasmtime_wasi::p3::bindings::sockets::types::{
    Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress, TcpSocket as Handle,
};
use wasmtime_wasi::p3::sockets::SocketResult;

use super::{code, family, family_of, own, trap, whole};
use crate::sockets::connection::{Reader, Writer};
use crate::sockets::{Accepting, BUFFER, Fault, HasSockets, Sockets, TcpSocket};

impl Sockets<'_> {
    fn stream(&mut self, socket: &Resource<Handle>) -> SocketResult<&mut TcpSocket> {
        self.table.get_mut(&own(socket)).map_err(trap)
    }
}

/// Connections as they come.
struct Arriving<T> {
    accepting: Accepting,
    sockets: for<'a> fn(&'a mut T) -> Sockets<'a>,
}

/// What is waited for unless the guest takes its question back.
fn unless_taken_back(finish: bool) -> Poll<wasmtime::Result<StreamResult>> {
    if finish { Poll::Ready(Ok(StreamResult::Cancelled)) } else { Poll::Pending }
}

impl<T: 'static> StreamProducer<T> for Arriving<T> {
    type Item = Resource<Handle>;
    type Buffer = Option<Self::Item>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            // The guest only asks whether there is one.
            return match self.accepting.poll_arrived(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => unless_taken_back(finish),
            };
        }
        loop {
            match self.accepting.poll_accept(cx) {
                Poll::Ready(Ok(socket)) => {
                    let sockets = (self.sockets)(store.data_mut());
                    destination.set_buffer(Some(whole(&sockets.table.push(socket)?)));
                    return Poll::Ready(Ok(StreamResult::Completed));
                }
                // A stream of sockets cannot say that there are too many: who comes is turned away.
                Poll::Ready(Err(_)) => self.accepting.refuse(),
                Poll::Pending => return unless_taken_back(finish),
            }
        }
    }
}

type Told = oneshot::Sender<Result<(), ErrorCode>>;

/// What comes on a connection; and who is told how it ended.
struct Incoming(Option<(Reader, Told)>);

impl Incoming {
    fn end(&mut self, how: Result<(), ErrorCode>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some((_, told)) = self.0.take() {
            let _ = told.send(how);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = self.end(Ok(()));
    }
}

impl<T: 'static> StreamProducer<T> for Incoming {
    type Item = u8;
    type Buffer = bytes::BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, T>,
        destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some((reader, _)) = &mut self.0 else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        if destination.remaining(store.as_context_mut()) == Some(0) {
            return match reader.poll_fill(cx) {
                Poll::Ready(()) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => unless_taken_back(finish),
            };
        }
        let mut destination = destination.as_direct(store, BUFFER);
        let room = destination.remaining();
        match reader.poll_take(cx, room.len()) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => self.end(Ok(())),
            Poll::Ready(Ok(bytes)) => {
                room[..bytes.len()].copy_from_slice(&bytes);
                destination.mark_written(bytes.len());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(fault)) => self.end(Err(code(fault))),
            Poll::Pending => unless_taken_back(finish),
        }
    }
}

/// Where what a guest sends goes. Its end is the connection's.
struct Outgoing(Option<(Writer, Told)>);

impl Outgoing {
    fn end(&mut self, how: Result<(), ErrorCode>) -> Poll<wasmtime::Result<StreamResult>> {
        if let Some((mut writer, told)) = self.0.take() {
            writer.shut();
            let _ = told.send(how);
        }
        Poll::Ready(Ok(StreamResult::Dropped))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let _ = self.end(Ok(()));
    }
}

impl<T: 'static> StreamConsumer<T> for Outgoing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, T>,
        source: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Some((writer, _)) = &mut self.0 else { return Poll::Ready(Ok(StreamResult::Dropped)) };
        let mut source = source.as_direct(store);
        let bytes = source.remaining();
        if bytes.is_empty() {
            return match writer.poll_idle(cx) {
                Poll::Ready(_) => Poll::Ready(Ok(StreamResult::Completed)),
                Poll::Pending => unless_taken_back(finish),
            };
        }
        match writer.poll_write(cx, bytes) {
            Poll::Ready(Ok(count)) => {
                source.mark_read(count);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(fault)) => self.end(Err(code(fault))),
            Poll::Pending => unless_taken_back(finish),
        }
    }
}

impl<T: Send + 'static> HostTcpSocketWithStore<T> for HasSockets {
    async fn connect(
        store: &Accessor<T, Self>,
        socket: Resource<Handle>,
        remote_address: IpSocketAddress,
    ) -> SocketResult<()> {
        store
            .with(|mut access| SocketResult::Ok(access.get().stream(&socket)?.start_connect(remote_address.into())?))?;
        poll_fn(|cx| {
            store.with(|mut access| match access.get().stream(&socket) {
                Ok(socket) => socket.poll_connected(cx).map_err(Into::into),
                Err(error) => Poll::Ready(Err(error)),
            })
        })
        .await
    }

    async fn listen(
        mut store: Access<'_, T, Self>,
        socket: Resource<Handle>,
    ) -> SocketResult<StreamReader<Resource<Handle>>> {
        let sockets = store.getter();
        let mut here = store.get();
        let socket = here.stream(&socket)?;
        if !socket.is_bound() {
            socket.bind_anywhere()?;
        }
        let accepting = socket.listen()?;
        StreamReader::new(&mut store, Arriving { accepting, sockets })
            .map_err(wasmtime_wasi::p3::sockets::SocketError::trap)
    }

    fn send(
        mut store: Access<'_, T, Self>,
        socket: Resource<Handle>,
        mut data: StreamReader<u8>,
    ) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
        let writer = store.get().table.get_mut::<TcpSocket>(&own(&socket))?.take_writer();
        match writer {
            Ok(writer) => {
                let (told, result) = oneshot::channel();
                data.pipe(&mut store, Outgoing(Some((writer, told))))?;
                FutureReader::new(&mut store, result)
            }
            Err(fault) => {
                data.close(&mut store)?;
                failed(&mut store, fault)
            }
        }
    }

    fn receive(
        mut store: Access<'_, T, Self>,
        socket: Resource<Handle>,
    ) -> wasmtime::Result<(StreamReader<u8>, FutureReader<Result<(), ErrorCode>>)> {
        let reader = store.get().table.get_mut::<TcpSocket>(&own(&socket))?.take_reader();
        match reader {
            Ok(reader) => {
                let (told, result) = oneshot::channel();
                let stream = StreamReader::new(&mut store, Incoming(Some((reader, told))))?;
                Ok((stream, FutureReader::new(&mut store, result)?))
            }
            Err(fault) => Ok((StreamReader::new(&mut store, iter::empty())?, failed(&mut store, fault)?)),
        }
    }
}

fn failed<T: 'static>(
    store: &mut Access<'_, T, HasSockets>,
    fault: Fault,
) -> wasmtime::Result<FutureReader<Result<(), ErrorCode>>> {
    FutureReader::new(store, async move { Ok::<_, wasmtime::Error>(Err(code(fault))) })
}

/// A number that has to be one.
fn positive<N: Default + PartialEq>(value: N) -> SocketResult<N> {
    if value == N::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value) }
}

impl HostTcpSocket for Sockets<'_> {
    async fn bind(&mut self, socket: Resource<Handle>, local_address: IpSocketAddress) -> SocketResult<()> {
        Ok(self.stream(&socket)?.bind(local_address.into())?)
    }

    fn create(&mut self, kind: IpAddressFamily) -> SocketResult<Resource<Handle>> {
        let socket = TcpSocket::new(self.net, family(kind))?;
        Ok(whole(&self.table.push(socket).map_err(trap)?))
    }

    fn get_local_address(&mut self, socket: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        Ok(self.stream(&socket)?.local_address()?.into())
    }

    fn get_remote_address(&mut self, socket: Resource<Handle>) -> SocketResult<IpSocketAddress> {
        Ok(self.stream(&socket)?.remote_address()?.into())
    }

    fn get_is_listening(&mut self, socket: Resource<Handle>) -> wasmtime::Result<bool> {
        Ok(self.table.get::<TcpSocket>(&own(&socket))?.is_listening())
    }

    fn get_address_family(&mut self, socket: Resource<Handle>) -> wasmtime::Result<IpAddressFamily> {
        Ok(family_of(self.table.get::<TcpSocket>(&own(&socket))?.family))
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<Handle>, value: u64) -> SocketResult<()> {
        Ok(self.stream(&socket)?.set_backlog(value)?)
    }

    fn get_keep_alive_enabled(&mut self, socket: Resource<Handle>) -> SocketResult<bool> {
        Ok(self.stream(&socket)?.options.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, socket: Resource<Handle>, value: bool) -> SocketResult<()> {
        self.stream(&socket)?.options.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, socket: Resource<Handle>) -> SocketResult<Duration> {
        Ok(self.stream(&socket)?.options.idle)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Resource<Handle>, value: Duration) -> SocketResult<()> {
        self.stream(&socket)?.options.idle = positive(value)?;
        Ok(())
    }

    fn get_keep_alive_interval(&mut self, socket: Resource<Handle>) -> SocketResult<Duration> {
        Ok(self.stream(&socket)?.options.interval)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<Handle>, value: Duration) -> SocketResult<()> {
        self.stream(&socket)?.options.interval = positive(value)?;
        Ok(())
    }

    fn get_keep_alive_count(&mut self, socket: Resource<Handle>) -> SocketResult<u32> {
        Ok(self.stream(&socket)?.options.count)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<Handle>, value: u32) -> SocketResult<()> {
        self.stream(&socket)?.options.count = positive(value)?;
        Ok(())
    }

    fn get_hop_limit(&mut self, socket: Resource<Handle>) -> SocketResult<u8> {
        Ok(self.stream(&socket)?.options.hops)
    }

    fn set_hop_limit(&mut self, socket: Resource<Handle>, value: u8) -> SocketResult<()> {
        self.stream(&socket)?.options.hops = positive(value)?;
        Ok(())
    }

    fn get_receive_buffer_size(&mut self, socket: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.stream(&socket)?.options.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.stream(&socket)?.options.receive_buffer = positive(value)?;
        Ok(())
    }

    fn get_send_buffer_size(&mut self, socket: Resource<Handle>) -> SocketResult<u64> {
        Ok(self.stream(&socket)?.options.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<Handle>, value: u64) -> SocketResult<()> {
        self.stream(&socket)?.options.send_buffer = positive(value)?;
        Ok(())
    }

    fn drop(&mut self, socket: Resource<Handle>) -> wasmtime::Result<()> {
        self.table.delete::<TcpSocket>(whole(&socket))?;
        Ok(())
    }
}
