//! Names, as the node's resolver knows them.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinHandle;

use super::GuestNetwork;

/// The longest name, in bytes.
const NAME_MAX: usize = 253;

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupFault {
    /// It is no name.
    InvalidName,
    /// The pod looks up as many as it may.
    TooMany,
    /// Nobody has it.
    Unresolvable,
}

/// A name that is being looked up.
#[derive(Debug)]
pub(crate) struct Lookup {
    state: State,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum State {
    Asking(JoinHandle<Result<Vec<IpAddr>, LookupFault>>),
    Found(Result<std::vec::IntoIter<IpAddr>, LookupFault>),
}

impl Lookup {
    /// Begins to look a name up; an address stands for itself.
    pub(crate) fn new(net: &GuestNetwork, name: &str) -> Result<Self, LookupFault> {
        let name = name.trim();
        if name.is_empty() || name.trim_end_matches('.').len() > NAME_MAX || name.contains(['/', '\0', ' ']) {
            return Err(LookupFault::InvalidName);
        }
        let permit = net.pod.socket().ok_or(LookupFault::TooMany)?;
        let state = if let Ok(address) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            State::Found(Ok(vec![address].into_iter()))
        } else {
            let resolving = net.host.resolve(&net.uid, name);
            State::Asking(net.io.spawn(async move { resolving.await.map_err(|_| LookupFault::Unresolvable) }))
        };
        Ok(Self { state, _permit: permit })
    }

    /// Ready when the answer is there.
    pub(crate) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Asking(task) = &mut self.state {
            let answered = ready!(Pin::new(task).poll(cx)).unwrap_or(Err(LookupFault::Unresolvable));
            self.state = State::Found(answered.map(Vec::into_iter));
        }
        Poll::Ready(())
    }

    /// The next address.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<IpAddr>, LookupFault>> {
        ready!(self.poll_found(cx));
        Poll::Ready(match &mut self.state {
            State::Found(Ok(addresses)) => Ok(addresses.next()),
            State::Found(Err(fault)) => Err(*fault),
            State::Asking(_) => return Poll::Pending,
        })
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let State::Asking(task) = &self.state {
            task.abort();
        }
    }
}
