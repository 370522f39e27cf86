//! The host's network, where this process may change it: Services and pods of other nodes are reached by their addresses from the host and
//! from its containers.
//!
//! One nftables table redirects what goes into the cluster to sockets of this process, which asks the Dialer; two routes lead the ranges
//! here. Both are ours alone, are put back when somebody removes them, and go with the process. One process a host (a network namespace)
//! has them; others, and those without the privilege, say so in a condition of their node, and all else works.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{NODES, SERVICES};
use coracle_api::{Method, ObjectKey, Request, Revision, UserInfo};
use coracle_store::View;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::dialer::{Protocol, Service};
use crate::member::Member;
use crate::process::Process;

mod fences;
mod redirected;
mod ruleset;
mod tools;

use fences::Unfenced;
use redirected::Sockets;
use ruleset::{Plan, Range, ruleset};

/// How often it is looked whether the rules and routes are still there.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// When it is tried again to have the host's network.
const RETRY_AFTER: Duration = Duration::from_secs(10);
/// The name of the lock: an abstract socket, which the kernel gives to one process of a network namespace and takes back when it ends.
const LOCK: &[u8] = b"coracle-host-network";
/// How many UDP ports of services have a socket; more are left to the transparent proxy.
const KNOWN_MAX: usize = 1024;
/// The type of the node's condition.
const CONDITION: &str = "coracle.dev/HostNetwork";

/// Why the host's network cannot be had; a reason and a sentence of the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refusal(&'static str, String);

/// Keeps the host's network for a member, as long as it runs.
pub(crate) fn start(member: &mut Member) {
    let process = Arc::clone(&member.process);
    member.spawn(async move {
        let unfenced = Unfenced::new(&process);
        let mut host = HostNetwork { process, known: BTreeMap::new(), told: None, unfenced };
        host.run().await;
    });
}

/// Says to policies what they do not hold for on a member that leaves its host's network alone.
#[cfg(feature = "docker")]
pub(crate) fn start_without(member: &mut Member) {
    let process = Arc::clone(&member.process);
    member.spawn(async move {
        let mut unfenced = Unfenced::new(&process);
        let mut views = process.views.clone();
        loop {
            let view = views.borrow_and_update().clone();
            let seen = fences::changes(&view);
            unfenced.tell(&view, "it leaves the host's network alone").await;
            drop(view);
            tokio::select! {
                changed = views.wait_for(|view| fences::changes(view) != seen) => if changed.is_err() { return },
                () = process.shutdown.cancelled() => return,
            }
        }
    });
}

#[derive(Debug)]
struct HostNetwork {
    process: Arc<Process>,
    /// Where datagrams for addresses with a port of their own come in.
    known: Known,
    /// The condition that was told last.
    told: Option<(bool, &'static str, String)>,
    unfenced: Unfenced,
}

impl HostNetwork {
    async fn run(&mut self) {
        let shutdown = self.process.shutdown.clone();
        loop {
            let Refusal(reason, message) = match acquire() {
                Ok(lock) => match self.hold(lock).await {
                    Ok(()) => return,
                    Err(refusal) => refusal,
                },
                Err(refusal) => refusal,
            };
            let view = self.process.view();
            self.unfenced.tell(&view, &message).await;
            drop(view);
            self.tell(false, reason, message).await;
            tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Has the network until the member stops (`Ok`) or it cannot be kept.
    async fn hold(&mut self, _lock: UnixListener) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal("RulesFailed", error.to_string());
        let sockets = Sockets::open().map_err(failed)?;
        let ports = sockets.ports().map_err(failed)?;
        let closed = self.process.shutdown.child_token();
        let _guard = closed.clone().drop_guard();
        tokio::spawn(sockets.serve(Arc::clone(&self.process), closed.clone()));
        let kept = self.keep(ports, &closed).await;
        for range in ranges(&self.process) {
            if let Err(error) = tools::remove_route(range).await {
                tracing::debug!(%error, "a route is not removed");
            }
        }
        if let Err(error) = tools::remove().await {
            tracing::debug!(%error, "the table is not removed");
        }
        kept
    }

    /// Puts rules and routes there, and back when they are gone or the nodes change.
    async fn keep(&mut self, ports: (u16, u16), closed: &CancellationToken) -> Result<(), Refusal> {
        let failed = |error: io::Error| Refusal("RulesFailed", error.to_string());
        let mut views = self.process.views.clone();
        let mut applied: Option<(Plan, String)> = None;
        loop {
            let view = views.borrow_and_update().clone();
            let seen = changes(&view);
            self.follow(&view).map_err(failed)?;
            let mut plan = plan(&self.process, &view, ports, &self.known);
            if let Some(why) = fences::blind() {
                self.unfenced.tell(&view, &why).await;
            }
            drop(view);
            let routes = tools::routes().await.map_err(failed)?;
            plan.neighbours = tools::neighbours(&routes, &plan.bridges);
            let known = [&plan.bridges[..], &plan.neighbours].concat();
            if let Some(route) = tools::foreign_route(&routes, &plan.cluster, &known) {
                let message =
                    format!("the machine has a route into the cluster's addresses ({route}): it is left alone");
                return Err(Refusal("RangeInUse", message));
            }
            let is_there = match &applied {
                Some((was, listed)) if *was == plan => tools::listed().await.is_ok_and(|now| now == *listed),
                _ => false,
            };
            if !is_there {
                if applied.as_ref().is_some_and(|(was, _)| *was == plan) {
                    tracing::warn!("somebody changed the table inet coracle: it is put back");
                }
                tools::apply(&ruleset(&plan)).await.map_err(failed)?;
                applied = Some((plan.clone(), tools::listed().await.map_err(failed)?));
            }
            if !tools::are_led(&routes, &plan.cluster) {
                for range in &plan.cluster {
                    tools::add_route(*range).await.map_err(failed)?;
                }
            }
            self.tell(true, "Held", "the host and its containers reach Services and pods".into()).await;
            let check = Instant::now() + CHECK_INTERVAL;
            tokio::select! {
                changed = views.wait_for(|view| changes(view) != seen) => if changed.is_err() { return Ok(()) },
                () = sleep_until(check) => {}
                () = closed.cancelled() => return Ok(()),
            }
        }
    }

    /// Has a socket for each service's UDP port, and for the DNS.
    ///
    /// A transparent proxy could take them all at one port, but where bridged packets go by the host's rules (`br_netfilter`, which Docker
    /// loads) the kernel forgets what was proxied; what is translated it remembers.
    fn follow(&mut self, view: &View) -> io::Result<()> {
        let wanted = datagrams(view, &self.process.node);
        self.known.retain(|at, _| wanted.contains(at));
        for at in wanted {
            if let Entry::Vacant(vacant) = self.known.entry(at) {
                let closed = self.process.shutdown.child_token();
                let port = redirected::know(&self.process, at.into(), &closed)?;
                vacant.insert((port, closed.drop_guard()));
            }
        }
        Ok(())
    }

    /// Says in the node's condition how it is, where that has changed.
    async fn tell(&mut self, holds: bool, reason: &'static str, message: String) {
        let told = Some((holds, reason, message));
        if self.told == told {
            return;
        }
        let (_, _, message) = told.as_ref().expect("it is something");
        if holds {
            tracing::info!(reason, message, "the host's network is held");
        } else {
            tracing::warn!(reason, message, "containers and the host do not reach Services");
        }
        let node = &self.process.node;
        let now = self.process.now().wall.rfc3339();
        let condition = json!({
            "type": CONDITION, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        let request = Request::new(Method::Patch, format!("/api/v1/nodes/{node}/status"), UserInfo::node(node))
            .content_type("application/strategic-merge-patch+json")
            .json(json!({"status": {"conditions": [condition]}}));
        match self.process.respond(request).await.failure() {
            None => self.told = told,
            Some(status) => tracing::debug!(%status, "the condition is not written"),
        }
    }
}

/// What a start says of the host's network: `None` where it can be had, or why not.
pub(crate) fn missing() -> Option<String> {
    (!tools::is_privileged()).then(no_privilege)
}

fn no_privilege() -> String {
    "it takes root (CAP_NET_ADMIN) to lead containers and this machine to Services and pods by their addresses".into()
}

fn acquire() -> Result<UnixListener, Refusal> {
    if !tools::is_privileged() {
        return Err(Refusal("NoPrivilege", no_privilege()));
    }
    let failed = |error: io::Error| Refusal("RulesFailed", error.to_string());
    let address = UnixAddress::from_abstract_name(LOCK).map_err(failed)?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            Refusal("HeldByAnotherProcess", "another process of this host has the host's network".into())
        }
        _ => failed(error),
    })
}

/// The ranges of pods and services.
fn ranges(process: &Process) -> Vec<Range> {
    let options = &process.options;
    vec![
        Range { network: options.pod_network, prefix: options.pod_prefix },
        Range { network: options.service_network, prefix: options.service_prefix },
    ]
}

/// What rules depend on.
fn changes(view: &View) -> ([Revision; 2], [Revision; 3]) {
    ([view.last_change(&NODES), view.last_change(&SERVICES)], fences::changes(view))
}

type Known = BTreeMap<(Ipv4Addr, u16), (u16, DropGuard)>;

fn plan(process: &Process, view: &View, (tcp, udp): (u16, u16), known: &Known) -> Plan {
    let bridges = bridges(view, &process.node);
    let datagrams = known.iter().map(|(at, (port, _))| (*at, *port)).collect();
    let fences = fences::of(view, &bridges);
    let (cluster, external) = (ranges(process), external(view));
    Plan { cluster, external, bridges, neighbours: Vec::new(), fences, tcp, udp, datagrams }
}

/// The addresses and UDP ports of services, and port 53 of the host among its containers; the first [`KNOWN_MAX`] of them.
fn datagrams(view: &View, own: &str) -> BTreeSet<(Ipv4Addr, u16)> {
    let mut all: BTreeSet<(Ipv4Addr, u16)> =
        bridges(view, own).into_iter().map(|bridge| (bridge.gateway(), crate::dns::PORT)).collect();
    for service in view.list(&SERVICES, None).filter_map(|object| view.decode::<Service>(object)) {
        let ports = service.spec.ports.iter().flatten().filter(|port| port.protocol() == Some(Protocol::Udp));
        let ports: Vec<u16> = ports.filter_map(|port| port.port).collect();
        let addresses = service.address().into_iter().chain(service.spec.external_ips.iter().flatten().copied());
        for address in addresses {
            if let IpAddr::V4(address) = address {
                all.extend(ports.iter().map(|port| (address, *port)));
            }
        }
    }
    all.into_iter().take(KNOWN_MAX).collect()
}

/// The ranges of the containers of all nodes on this host: those that booted with it and have its address.
fn bridges(view: &View, own: &str) -> Vec<Range> {
    let host = |node: &Value| {
        let boot = node["status"]["nodeInfo"]["bootID"].as_str().filter(|boot| !boot.is_empty())?.to_owned();
        let mut addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let address =
            addresses.find(|address| address["type"] == "InternalIP").map(|address| address["address"].clone());
        Some((boot, address))
    };
    let here = view.object(&ObjectKey::new(NODES, "", own)).and_then(|node| host(&*view.decode::<Value>(node)?));
    let mut bridges: Vec<Range> = view
        .list(&NODES, None)
        .filter_map(|node| Some((&*node.key().name == own, view.decode::<Value>(node)?)))
        .filter(|(is_own, node)| *is_own || (here.is_some() && host(node) == here))
        .filter_map(|(_, node)| Range::parse(node["spec"]["podCIDR"].as_str()?))
        .map(Range::lower_half)
        .collect();
    bridges.sort_unstable();
    bridges
}

/// The range of a node's containers.
fn own_bridge(view: &View, node: &str) -> Option<Range> {
    let node = view.object(&ObjectKey::new(NODES, "", node))?.value(None);
    Range::parse(node["spec"]["podCIDR"].as_str()?).map(Range::lower_half)
}

/// Whether an address is the host's own among containers of some node.
fn is_gateway(view: &View, address: IpAddr) -> bool {
    let nodes = view.list(&NODES, None).filter_map(|node| view.decode::<Value>(node));
    let ranges = nodes.filter_map(|node| Range::parse(node["spec"]["podCIDR"].as_str()?));
    ranges.map(|range| IpAddr::V4(range.gateway())).any(|gateway| gateway == address)
}

/// The external addresses of services with their TCP ports. Addresses of load balancers are the nodes' own, where ports are opened.
fn external(view: &View) -> Vec<(Ipv4Addr, u16)> {
    let mut all: Vec<_> = view
        .list(&SERVICES, None)
        .filter_map(|object| view.decode::<Service>(object))
        .flat_map(|service| {
            let addresses = service.spec.external_ips.iter().flatten().filter_map(|address| match address {
                IpAddr::V4(address) => Some(*address),
                IpAddr::V6(_) => None,
            });
            let ports: Vec<u16> = service.spec.ports.iter().flatten().filter_map(|port| port.port).collect();
            addresses
                .flat_map(|address| ports.iter().map(move |port| (address, *port)).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
