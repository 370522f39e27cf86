//! Whose turn it is: among a service's endpoints each in turn, and a client that stays with its endpoint as long as its service says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::time::Duration;

use coracle_api::ObjectKey;
use tokio::time::Instant;

use super::ServicePort;
use super::endpoints::{Candidates, Endpoint};

/// How many services' turns are remembered; beyond, all begin anew.
const TURNS_MAX: usize = 10_000;
/// How many clients' endpoints are remembered; beyond, those whose time is over are forgotten, and all if none is.
const CLIENTS_MAX: usize = 65_536;

/// What is remembered of a process's connections to services.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    turns: Mutex<BTreeMap<ObjectKey, usize>>,
    clients: Mutex<BTreeMap<(ObjectKey, String), Stay>>,
}

/// The endpoint that a client stays with, and until when.
#[derive(Clone, Copy, Debug)]
struct Stay {
    address: IpAddr,
    until: Instant,
}

impl Turns {
    /// Puts the endpoints into the order in which they are tried: first the one whose turn it is, or that the client stays with.
    pub(super) fn order(&self, to: &ServicePort, candidates: Candidates, now: Instant) -> Vec<Endpoint> {
        let Candidates { mut endpoints, affinity } = candidates;
        let stay = affinity.and_then(|_| self.stay(to)).filter(|stay| stay.until > now);
        if let Some(at) = stay.and_then(|stay| endpoints.iter().position(|endpoint| endpoint.address == stay.address)) {
            endpoints.swap(0, at);
        } else if let count @ 2.. = endpoints.len() {
            endpoints.rotate_left(self.next(&to.service) % count);
        }
        endpoints
    }

    /// A client was connected: it stays for a time where its service wants that.
    pub(super) fn connected(&self, to: &ServicePort, endpoint: &Endpoint, affinity: Option<Duration>, now: Instant) {
        let Some(affinity) = affinity else { return };
        let key = (to.service.clone(), to.peer.clone());
        let mut clients = self.clients.lock().expect("nothing panics while it holds the lock");
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&key) {
            clients.retain(|_, stay| stay.until > now);
            if clients.len() >= CLIENTS_MAX {
                clients.clear();
            }
        }
        clients.insert(key, Stay { address: endpoint.address, until: now + affinity });
    }

    fn stay(&self, to: &ServicePort) -> Option<Stay> {
        let clients = self.clients.lock().expect("nothing panics while it holds the lock");
        clients.get(&(to.service.clone(), to.peer.clone())).copied()
    }

    fn next(&self, service: &ObjectKey) -> usize {
        let mut turns = self.turns.lock().expect("nothing panics while it holds the lock");
        if turns.len() >= TURNS_MAX && !turns.contains_key(service) {
            turns.clear();
        }
        let turn = turns.entry(service.clone()).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }
}
