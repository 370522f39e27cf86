//! `wasi:sockets` 0.2. Handles of guests name resources of ours: the types in wasmtime's bindings only tell kinds of handles apart, and no
//! socket of the operating system is behind them.

mod streams;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{self, ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress};
use wasmtime_wasi::p2::bindings::sockets::{
    tcp as tcp_bindings, tcp_create_socket, udp as udp_bindings, udp_create_socket,
};
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, SocketError, SocketResult, subscribe};

use super::{Family, Fault, HasSockets, Lookup, LookupFault, Sockets, own};
use crate::guest::Guest;

/// Puts the pod's network in the place of the operating system's.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    tcp_bindings::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    tcp_create_socket::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    udp_bindings::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    udp_create_socket::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    ip_name_lookup::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl network::Host for Sockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    /// Streams of sockets fail with a code of ours, or not in a way that has a code.
    fn network_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<Fault>().map(|fault| code(*fault)))
    }
}

impl network::HostNetwork for Sockets<'_> {
    fn drop(&mut self, handle: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

fn code(fault: Fault) -> ErrorCode {
    match fault {
        Fault::InvalidArgument => ErrorCode::InvalidArgument,
        Fault::InvalidState => ErrorCode::InvalidState,
        Fault::TooMany => ErrorCode::NewSocketLimit,
        Fault::NotBindable => ErrorCode::AddressNotBindable,
        Fault::InUse => ErrorCode::AddressInUse,
        Fault::Unreachable => ErrorCode::RemoteUnreachable,
        Fault::Refused => ErrorCode::ConnectionRefused,
        Fault::Broken => ErrorCode::ConnectionReset,
        Fault::Timeout => ErrorCode::Timeout,
        Fault::TooLarge => ErrorCode::DatagramTooLarge,
        Fault::Exceeded(_) => ErrorCode::OutOfMemory,
    }
}

impl From<Fault> for SocketError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Exceeded(exceeded) => Self::trap(wasmtime::Error::new(exceeded)),
            fault => code(fault).into(),
        }
    }
}

fn family(family: IpAddressFamily) -> Family {
    match family {
        IpAddressFamily::Ipv4 => Family::V4,
        IpAddressFamily::Ipv6 => Family::V6,
    }
}

fn family_of(family: Family) -> IpAddressFamily {
    match family {
        Family::V4 => IpAddressFamily::Ipv4,
        Family::V6 => IpAddressFamily::Ipv6,
    }
}

/// The same where the guest gives the handle back.
fn taken<Theirs, Ours>(handle: &Resource<Theirs>) -> Resource<Ours>
where
    Theirs: 'static,
    Ours: 'static,
{
    Resource::new_own(handle.rep())
}

/// Something of ours as a handle of the bindings.
fn handle<Ours, Theirs>(own: &Resource<Ours>) -> Resource<Theirs>
where
    Theirs: 'static,
    Ours: 'static,
{
    Resource::new_own(own.rep())
}

/// What is not ready now is asked for again.
fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(Waker::noop()))
}

impl ip_name_lookup::Host for Sockets<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<Network>,
        name: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        let _ = self.table.get(&network)?;
        let lookup = Lookup::new(self.net, &name).map_err(lookup_code)?;
        Ok(handle(&self.table.push(lookup)?))
    }
}

impl ip_name_lookup::HostResolveAddressStream for Sockets<'_> {
    fn resolve_next_address(&mut self, stream: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        let lookup: &mut Lookup = self.table.get_mut(&own(&stream))?;
        match now(|cx| lookup.poll_next(cx)) {
            Poll::Ready(Ok(address)) => Ok(address.map(IpAddr::into)),
            Poll::Ready(Err(fault)) => Err(lookup_code(fault).into()),
            Poll::Pending => Err(ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe::<Lookup>(self.table, own(&stream))
    }

    fn drop(&mut self, stream: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        self.table.delete::<Lookup>(taken(&stream))?;
        Ok(())
    }
}

fn lookup_code(fault: LookupFault) -> ErrorCode {
    match fault {
        LookupFault::InvalidName => ErrorCode::InvalidArgument,
        LookupFault::TooMany => ErrorCode::NewSocketLimit,
        LookupFault::Unresolvable => ErrorCode::NameUnresolvable,
    }
}

/// A future of something that can be waited for, as the trait of pollables has it.
type Waiting<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

impl Pollable for Lookup {
    fn ready<'life, 'future>(&'life mut self) -> Waiting<'future>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(std::future::poll_fn(|cx| self.poll_found(cx)))
    }
}

fn told(address: Result<SocketAddr, Fault>) -> SocketResult<IpSocketAddress> {
    Ok(address?.into())
}
