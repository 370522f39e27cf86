//! Which ports the Services of a view want open on this machine, and what is behind each. It opens none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use coracle_api::ObjectKey;
use coracle_api::resources::SERVICES;
use coracle_store::View;

use crate::dialer::{Protocol, Service};

/// A port of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Door {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) protocol: Protocol,
}

/// Why a port is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A service's node port: the allocator gives each to one service only.
    NodePort,
    /// It tells load balancers whether the node has endpoints of a service with the policy Local.
    Health,
    /// A service of type LoadBalancer.
    LoadBalancer,
    /// One of a service's external addresses is this machine's.
    ExternalAddress,
}

impl Purpose {
    /// What it is called in a sentence.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NodePort => "node port",
            Self::Health => "health check node port",
            Self::LoadBalancer => "load balancer port",
            Self::ExternalAddress => "external port",
        }
    }
}

/// What is behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) service: ObjectKey,
    /// The service's port.
    pub(super) port: u16,
    pub(super) purpose: Purpose,
    /// From where clients may come; empty: from anywhere.
    pub(super) sources: Vec<String>,
}

/// The open ports that are wanted, and those that a service does not get because another has them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) doors: BTreeMap<Door, Behind>,
    /// The port, who does not get it, and who has it.
    pub(super) clashes: Vec<(Door, Behind, ObjectKey)>,
}

/// What all services want, on an address that node ports are opened at, of a machine with these addresses.
pub(super) fn wanted(view: &View, address: IpAddr, own: &BTreeSet<IpAddr>) -> Wanted {
    let mut wishes = Vec::new();
    for object in view.list(&SERVICES, None) {
        if object.metadata().deletion_timestamp.is_some() {
            continue;
        }
        let Some(service) = view.decode::<Service>(object) else { continue };
        let age = (object.metadata().creation_timestamp, object.key().clone());
        let of_service = wishes_of(object.key(), &service, address, own);
        wishes.extend(of_service.into_iter().map(|(door, behind)| ((behind.purpose, age.clone()), door, behind)));
    }
    // Ports that were given by number come first; the others go to the oldest service.
    wishes.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let mut wanted = Wanted::default();
    for (_, door, behind) in wishes {
        match wanted.doors.get(&door) {
            None => drop(wanted.doors.insert(door, behind)),
            Some(owner) if owner.service == behind.service => {}
            Some(owner) => wanted.clashes.push((door, behind, owner.service.clone())),
        }
    }
    wanted
}

fn wishes_of(key: &ObjectKey, service: &Service, address: IpAddr, own: &BTreeSet<IpAddr>) -> Vec<(Door, Behind)> {
    let spec = &service.spec;
    let mut wishes = Vec::new();
    let mut wish = |address, port, protocol, behind, purpose| {
        let sources = match purpose {
            Purpose::LoadBalancer => spec.load_balancer_source_ranges.clone().unwrap_or_default(),
            _ => Vec::new(),
        };
        wishes
            .push((Door { address, port, protocol }, Behind { service: key.clone(), port: behind, purpose, sources }));
    };
    let is_balanced = spec.kind == "LoadBalancer" && spec.load_balancer_class.is_none();
    for port in spec.ports.iter().flatten() {
        let (Some(number), Some(protocol)) = (port.port, port.protocol()) else { continue };
        if let Some(node_port) = port.node_port.filter(|node_port| *node_port != 0) {
            wish(address, node_port, protocol, number, Purpose::NodePort);
        }
        if is_balanced {
            wish(address, number, protocol, number, Purpose::LoadBalancer);
        }
        for external in spec.external_ips.iter().flatten() {
            // Where node ports are for this machine alone, so are these.
            if own.contains(external) && (address.is_unspecified() || address == *external) {
                wish(*external, number, protocol, number, Purpose::ExternalAddress);
            }
        }
    }
    if let Some(port) = spec.health_check_node_port.filter(|port| *port != 0)
        && spec.external_traffic_policy.as_deref() == Some("Local")
    {
        wish(address, port, Protocol::Tcp, 0, Purpose::Health);
    }
    wishes
}

#[cfg(test)]
mod tests;
