//! Services on the machine: node ports, ports of load balancers, external addresses. What comes in at one the dialer takes to a ready
//! endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::ObjectKey;
use coracle_api::events::{EventRecord, EventType};
use coracle_api::resources::SERVICES;
use coracle_store::View;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::DropGuard;

use crate::dialer::Protocol;
use crate::member::Member;
use crate::process::Process;
use crate::reporter::Reporter;

mod datagrams;
mod door;
mod health;
mod wanted;

#[cfg(target_os = "linux")]
pub(crate) use datagrams::{Flow, Flows};
use wanted::{Behind, Door, Purpose};

/// When a port that could not be had is tried again, and it is looked again which addresses the machine has.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The name that events come from.
const COMPONENT: &str = "coracle-node-ports";

/// Who opens node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    /// This member, always.
    Always,
    /// This member while it leads: others of the same process would want the same ports.
    WhileLeading,
}

/// Opens node ports on an address; without one they stay closed.
pub(crate) fn start(member: &mut Member, address: Option<IpAddr>, opens: Opens) {
    if let Some(address) = address {
        let process = Arc::clone(&member.process);
        member.spawn(Ports::new(process, address, opens).run());
    }
}

/// A port that is wanted.
#[derive(Debug)]
struct Slot {
    behind: Behind,
    /// Closes the listener and its connections when it is dropped; `None` while the port cannot be had.
    open: Option<DropGuard>,
}

#[derive(Debug)]
struct Ports {
    process: Arc<Process>,
    address: IpAddr,
    opens: Opens,
    slots: BTreeMap<Door, Slot>,
    /// The services that were told that another has their port.
    clashed: BTreeSet<(Door, ObjectKey)>,
    reporter: Reporter,
}

impl Ports {
    fn new(process: Arc<Process>, address: IpAddr, opens: Opens) -> Self {
        let reporter = Reporter::new(&process, COMPONENT);
        Self { process, address, opens, slots: BTreeMap::new(), clashed: BTreeSet::new(), reporter }
    }

    async fn run(mut self) {
        let process = Arc::clone(&self.process);
        let mut views = process.views.clone();
        let mut leads = process.leads.clone();
        loop {
            let view = views.borrow_and_update().clone();
            let seen = view.last_change(&SERVICES);
            if *leads.borrow_and_update() || self.opens == Opens::Always {
                self.follow(&view).await;
            } else {
                self.slots.clear();
            }
            drop(view);
            let retry = Instant::now() + RETRY_AFTER;
            let is_incomplete = self.slots.values().any(|slot| slot.open.is_none());
            tokio::select! {
                changed = views.wait_for(|view| view.last_change(&SERVICES) != seen) => if changed.is_err() { return },
                () = sleep_until(retry), if is_incomplete => {}
                changed = leads.changed() => if changed.is_err() { return },
                () = process.shutdown.cancelled() => return,
            }
        }
    }

    /// Opens and closes what the services of a view ask for.
    async fn follow(&mut self, view: &View) {
        let own: BTreeSet<IpAddr> =
            if_addrs::get_if_addrs().unwrap_or_default().iter().map(if_addrs::Interface::ip).collect();
        let wanted = wanted::wanted(view, self.address, &own);
        self.slots.retain(|door, slot| wanted.doors.get(door) == Some(&slot.behind));
        for (door, behind) in wanted.doors {
            let slot = self.slots.get(&door);
            if slot.is_some_and(|slot| slot.open.is_some()) {
                continue;
            }
            let is_new = slot.is_none();
            let open = match self.open(door, &behind).await {
                Ok(open) => Some(open),
                Err(error) => {
                    if is_new {
                        self.failed(view, door, &behind, &error).await;
                    }
                    None
                }
            };
            self.slots.insert(door, Slot { behind, open });
        }
        let clashes = wanted.clashes.into_iter();
        let before = std::mem::take(&mut self.clashed);
        for (door, behind, owner) in clashes {
            let clash = (door, behind.service.clone());
            if !before.contains(&clash) {
                self.clash(view, door, &behind, &owner).await;
            }
            self.clashed.insert(clash);
        }
    }

    async fn open(&self, door: Door, behind: &Behind) -> std::io::Result<DropGuard> {
        let closed = self.process.shutdown.child_token();
        let address = SocketAddr::new(door.address, door.port);
        let process = Arc::clone(&self.process);
        match door.protocol {
            Protocol::Udp => {
                let socket = UdpSocket::bind(address).await?;
                tokio::spawn(datagrams::serve(process, socket, behind.clone(), closed.clone()));
            }
            Protocol::Tcp => {
                let listener = TcpListener::bind(address).await?;
                if behind.purpose == Purpose::Health {
                    tokio::spawn(health::serve(process, listener, behind.service.clone(), closed.clone()));
                } else {
                    tokio::spawn(door::accept(process, listener, behind.clone(), closed.clone()));
                }
            }
        }
        Ok(closed.drop_guard())
    }

    /// Says once that a port cannot be had.
    async fn failed(&mut self, view: &View, door: Door, behind: &Behind, error: &std::io::Error) {
        let (service, name) = (&behind.service, behind.purpose.name());
        tracing::warn!(%service, address = %SocketAddr::new(door.address, door.port), %error, "cannot open a {name}");
        let reason = match behind.purpose {
            Purpose::NodePort => "FailedToOpenNodePort",
            _ => "FailedToOpenPort",
        };
        let message = format!("cannot open {name} {} on {}: {error}; it is tried again", door.port, door.address);
        self.report(view, service, reason, message).await;
    }

    /// Says once that a port is another service's.
    async fn clash(&mut self, view: &View, door: Door, behind: &Behind, owner: &ObjectKey) {
        let (namespace, name) = (&owner.namespace, &owner.name);
        let message = format!(
            "{} {} on {} is not opened: service {namespace}/{name} has it",
            behind.purpose.name(),
            door.port,
            door.address
        );
        self.report(view, &behind.service, "PortAlreadyTaken", message).await;
    }

    async fn report(&mut self, view: &View, service: &ObjectKey, reason: &'static str, message: String) {
        let uid = view.object(service).and_then(|object| object.metadata().uid.clone());
        let record = EventRecord::new(service, uid.as_ref(), EventType::Warning, reason, message);
        self.reporter.report(&record).await;
    }
}
