//! Sockets of guests on the virtual network: what `wasi:sockets` means here, whichever version a guest speaks.
//!
//! A guest listens at its pod's own address, loopback or both. It connects within its pod directly and to everybody else through the
//! host, whose Dialer knows services and policies. What the host holds for a socket counts as memory of the container: a guest that opens
//! more than it may have ends; what others send and there is no room for is refused or lost.

pub(crate) mod connection;
mod lookup;
mod tcp;
mod udp;
mod wasi2;
mod wasi3;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use coracle_api::Uid;
use coracle_node::runtime::{OpenError, RuntimeHost};
use wasmtime::component::{HasData, Resource, ResourceTable};

use crate::account::{MemoryAccount, MemoryExceeded};
use crate::network::{Network, PodNetwork};
use crate::placement::Spawner;

pub(crate) use self::lookup::{Lookup, LookupFault};
pub(crate) use self::tcp::{Accepting, Arrivals, TcpSocket};
pub(crate) use self::udp::{Inbox, Mailbox, Port, UdpSocket};
pub(crate) use self::wasi2::add_to_linker as add_wasi2_to_linker;
pub(crate) use self::wasi3::add_to_linker as add_wasi3_to_linker;

/// Bytes in flight each way of a connection before the writer waits.
const BUFFER: usize = 32 << 10;
/// What a connection is charged with: what is read ahead, and what is not written yet.
const CONNECTION_BYTES: usize = 2 * BUFFER;
/// What one is charged with that a guest accepts: the buffer between the ends is here, too, each way.
const ACCEPTED_BYTES: usize = 2 * CONNECTION_BYTES;

/// The network as one instance of a guest has it.
#[derive(Clone)]
pub(crate) struct GuestNetwork {
    pub(crate) network: Arc<Network>,
    pub(crate) host: Arc<dyn RuntimeHost>,
    pub(crate) io: Spawner,
    pub(crate) uid: Uid,
    pub(crate) pod: Arc<PodNetwork>,
    pub(crate) memory: Arc<MemoryAccount>,
}

impl fmt::Debug for GuestNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestNetwork").field("uid", &self.uid).field("pod", &self.pod).finish_non_exhaustive()
    }
}

/// The sockets of a guest.
pub(crate) struct Sockets<'a> {
    pub(crate) net: &'a GuestNetwork,
    pub(crate) table: &'a mut ResourceTable,
}

/// Says to a linker what the sockets' functions are given.
pub(crate) struct HasSockets;

impl HasData for HasSockets {
    type Data<'a> = Sockets<'a>;
}

/// The kind of a socket's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// Whether an address is of this kind.
    fn has(self, address: IpAddr) -> bool {
        address.is_ipv6() == (self == Self::V6)
    }

    /// An address as a socket of this kind tells it.
    fn show(self, address: SocketAddr) -> SocketAddr {
        match (self, address.ip()) {
            (Self::V6, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
            _ => address,
        }
    }
}

/// Why something about a socket fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("invalid argument")]
    InvalidArgument,
    #[error("invalid state")]
    InvalidState,
    #[error("the pod has as many sockets as it may")]
    TooMany,
    #[error("the address is not the pod's")]
    NotBindable,
    #[error("address already in use")]
    InUse,
    #[error("no route to host")]
    Unreachable,
    #[error("connection refused")]
    Refused,
    #[error("the connection is broken")]
    Broken,
    #[error("timed out")]
    Timeout,
    #[error("the datagram is too large")]
    TooLarge,
    /// It ends the guest.
    #[error(transparent)]
    Exceeded(#[from] MemoryExceeded),
}

impl From<&OpenError> for Fault {
    fn from(error: &OpenError) -> Self {
        let says = |words: &str| error.0.contains(words);
        match () {
            () if says("i/o timeout") || says("timed out") => Self::Timeout,
            () if says("no route to host") || says("unreachable") || says("not reachable") => Self::Unreachable,
            () => Self::Refused,
        }
    }
}

/// Whether a socket can be connected to an address, or send to it.
fn is_remote(address: SocketAddr) -> bool {
    let is_one = match address.ip().to_canonical() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast(),
    };
    is_one && address.port() != 0
}

/// What a handle of the bindings names.
fn own<Theirs, Ours>(handle: &Resource<Theirs>) -> Resource<Ours>
where
    Theirs: 'static,
    Ours: 'static,
{
    Resource::new_borrow(handle.rep())
}
