//! `wasi:sockets` 0.3, on the same resources of ours as 0.2.

mod tcp;
mod udp;

use std::future::poll_fn;
use std::net::IpAddr;

use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup::{self, ErrorCode as LookupCode};
use wasmtime_wasi::p3::bindings::sockets::types::{self, ErrorCode, IpAddress, IpAddressFamily};
use wasmtime_wasi::p3::sockets::SocketError;

use super::{Family, Fault, HasSockets, Lookup, LookupFault, Sockets, own};
use crate::guest::Guest;

/// Puts the pod's network in the place of the operating system's.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    ip_name_lookup::add_to_linker::<Guest, HasSockets>(linker, Guest::sockets)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl types::Host for Sockets<'_> {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

fn code(fault: Fault) -> ErrorCode {
    match fault {
        Fault::InvalidArgument => ErrorCode::InvalidArgument,
        Fault::InvalidState => ErrorCode::InvalidState,
        // 0.3 has no word for it.
        Fault::TooMany => ErrorCode::Other(Some(fault.to_string())),
        Fault::NotBindable => ErrorCode::AddressNotBindable,
        Fault::InUse => ErrorCode::AddressInUse,
        Fault::Unreachable => ErrorCode::RemoteUnreachable,
        Fault::Refused => ErrorCode::ConnectionRefused,
        Fault::Broken => ErrorCode::ConnectionBroken,
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

fn trap(error: wasmtime::component::ResourceTableError) -> SocketError {
    SocketError::trap(error)
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

impl ip_name_lookup::Host for Sockets<'_> {}

impl<T: Send> ip_name_lookup::HostWithStore<T> for HasSockets {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<IpAddress>, LookupCode>> {
        let lookup = store.with(|mut access| Lookup::new(access.get().net, &name));
        let mut lookup = match lookup {
            Ok(lookup) => lookup,
            Err(fault) => return Ok(Err(lookup_code(fault))),
        };
        let mut found = Vec::new();
        loop {
            match poll_fn(|cx| lookup.poll_next(cx)).await {
                Ok(Some(address)) => found.push(IpAddr::into(address)),
                Ok(None) => return Ok(Ok(found)),
                Err(fault) => return Ok(Err(lookup_code(fault))),
            }
        }
    }
}

fn lookup_code(fault: LookupFault) -> LookupCode {
    match fault {
        LookupFault::InvalidName => LookupCode::InvalidArgument,
        LookupFault::TooMany => LookupCode::TemporaryResolverFailure,
        LookupFault::Unresolvable => LookupCode::NameUnresolvable,
    }
}

/// The same where the handle is given to the guest, or given back.
fn whole<From, To>(handle: &Resource<From>) -> Resource<To>
where
    From: 'static,
    To: 'static,
{
    Resource::new_own(handle.rep())
}
