//! Addresses and node ports of Services: what is asked for, what is given back, what cannot be had.
//!
//! They are chosen when a write is applied; here it is only said which and where they go.

use std::net::Ipv4Addr;

use coracle_api::{ObjectKey, Status, resources};
use coracle_store::{Pool, Render, Settlement, Want};
use serde_json::Value;

use super::super::value::{items, text};
use super::{needs_health_check, needs_node_port};
use crate::ServerOptions;
use crate::strategy::StrategyContext;
use crate::validation::field::{Causes, FieldPath};

/// The pool of cluster addresses; a value is an address as a number.
const ADDRESSES: &str = "service-addresses";
/// The pool of node ports.
const NODE_PORTS: &str = "node-ports";

/// What a change of a Service asks for and gives back.
pub(super) fn settlements(options: &ServerOptions, new: &Value, old: Option<&Value>, write: usize) -> Vec<Settlement> {
    let mut plan = Plan { owner: owner_of(new), write, settlements: Vec::new() };
    plan.release(ADDRESSES, old.and_then(address_of), address_of(new));
    let (had, has) = (old.map(node_ports_of).unwrap_or_default(), node_ports_of(new));
    for port in &had {
        plan.release(NODE_PORTS, Some(*port), has.iter().find(|other| *other == port).copied());
    }
    plan.address(options, new, old);
    plan.node_ports(options, new, &had);
    plan.settlements
}

#[derive(Debug)]
struct Plan {
    owner: ObjectKey,
    write: usize,
    settlements: Vec<Settlement>,
}

impl Plan {
    fn release(&mut self, pool: &str, had: Option<u64>, has: Option<u64>) {
        if let Some(value) = had.filter(|value| has != Some(*value)) {
            self.settlements.push(Settlement::Release { pool: pool.into(), owner: self.owner.clone(), value });
        }
    }

    fn allocate(&mut self, pool: Pool, want: Want, pointers: Vec<String>, render: Render, attribute: Option<&str>) {
        self.settlements.push(Settlement::Allocate {
            pool,
            owner: self.owner.clone(),
            want,
            write: self.write,
            pointers,
            render,
            attribute: attribute.map(str::to_owned),
        });
    }

    fn address(&mut self, options: &ServerOptions, new: &Value, old: Option<&Value>) {
        let spec = &new["spec"];
        if text(spec, "type") == "ExternalName" || text(spec, "clusterIP") == "None" {
            return;
        }
        match address_of(new) {
            None if text(spec, "clusterIP").is_empty() => {
                let pointers = vec!["/spec/clusterIP".into(), "/spec/clusterIPs/-".into()];
                self.allocate(addresses(options), Want::Any, pointers, Render::Ipv4, Some("spec.clusterIP"));
            }
            Some(value) if old.and_then(address_of) != Some(value) => {
                self.allocate(addresses(options), Want::Exactly(value), Vec::new(), Render::Ipv4, None);
            }
            _ => {}
        }
    }

    fn node_ports(&mut self, options: &ServerOptions, new: &Value, had: &[u64]) {
        let spec = &new["spec"];
        if !needs_node_port(spec) {
            return;
        }
        let automatic = spec["allocateLoadBalancerNodePorts"] != false || text(spec, "type") == "NodePort";
        // What is asked for by number goes first, lest it is given away as any free one.
        let mut asked: Vec<u64> = node_ports_of(new).into_iter().filter(|port| !had.contains(port)).collect();
        asked.sort_unstable();
        asked.dedup();
        for port in asked {
            self.allocate(node_ports(options), Want::Exactly(port), Vec::new(), Render::Number, None);
        }
        let missing = |value: &Value| value.as_u64().unwrap_or(0) == 0;
        for (index, _) in items(spec, "ports").iter().enumerate().filter(|(_, p)| automatic && missing(&p["nodePort"]))
        {
            let pointers = vec![format!("/spec/ports/{index}/nodePort")];
            self.allocate(node_ports(options), Want::Any, pointers, Render::Number, None);
        }
        if needs_health_check(spec) && missing(&spec["healthCheckNodePort"]) {
            let pointers = vec!["/spec/healthCheckNodePort".into()];
            self.allocate(node_ports(options), Want::Any, pointers, Render::Number, None);
        }
    }
}

/// The address that a Service has, as a number.
fn address_of(object: &Value) -> Option<u64> {
    let address: Ipv4Addr = text(&object["spec"], "clusterIP").parse().ok()?;
    Some(u32::from(address).into())
}

/// The node ports that a Service has.
fn node_ports_of(object: &Value) -> Vec<u64> {
    let spec = &object["spec"];
    if !needs_node_port(spec) {
        return Vec::new();
    }
    let ports = items(spec, "ports").iter().map(|port| &port["nodePort"]).chain([&spec["healthCheckNodePort"]]);
    ports.filter_map(Value::as_u64).filter(|port| *port != 0).collect()
}

/// Every address of the service range but its first and last.
fn addresses(options: &ServerOptions) -> Pool {
    let first = u64::from(u32::from(options.service_network));
    let size = 1u64 << (32 - options.service_prefix.min(30));
    Pool { name: ADDRESSES.into(), low: first + 1, high: first + size - 2 }
}

fn node_ports(options: &ServerOptions) -> Pool {
    let (low, high) = options.node_ports;
    Pool { name: NODE_PORTS.into(), low: low.into(), high: high.into() }
}

/// Refuses addresses and ports that lie outside their ranges or are another's; those that the object had already are its own.
///
/// Two that ask for the same at the same time both pass here: the settlement decides then.
pub(super) fn check(context: &StrategyContext<'_>, object: &Value, old: Option<&Value>) -> Result<(), Status> {
    let mut causes = Causes::new();
    if let Some(value) = address_of(object).filter(|_| old.and_then(address_of).is_none()) {
        let options = context.options;
        let range = format!("{}/{}", options.service_network, options.service_prefix);
        let address = text(&object["spec"], "clusterIP");
        match state(context, &addresses(options), object, value) {
            State::Outside => {
                let why =
                    format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}");
                address_fault(object, &why, &mut causes);
            }
            State::Taken => address_fault(object, "provided IP is already allocated", &mut causes),
            State::Free => {}
        }
    }
    let had = old.map(node_ports_of).unwrap_or_default();
    let pool = node_ports(context.options);
    for value in node_ports_of(object).into_iter().filter(|value| !had.contains(value)) {
        match state(context, &pool, object, value) {
            State::Outside => {
                let (low, high) = (pool.low, pool.high);
                let why = format!("provided port is not in the valid range. The range of valid ports is {low}-{high}");
                port_fault(object, value, &why, &mut causes);
            }
            State::Taken => port_fault(object, value, "provided port is already allocated", &mut causes),
            State::Free => {}
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("", "Service", text(&object["metadata"], "name"), causes.into_vec()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Taken,
    Outside,
}

fn state(context: &StrategyContext<'_>, pool: &Pool, object: &Value, value: u64) -> State {
    if !(pool.low..=pool.high).contains(&value) {
        return State::Outside;
    }
    let owner = owner_of(object);
    let taken = context.view.allocations(&pool.name).iter().any(|(held, by)| *held == value && *by != owner);
    if taken { State::Taken } else { State::Free }
}

/// Who holds what a Service is given.
fn owner_of(object: &Value) -> ObjectKey {
    let meta = &object["metadata"];
    ObjectKey::new(resources::SERVICES, text(meta, "namespace"), text(meta, "name"))
}

fn address_fault(object: &Value, why: &str, causes: &mut Causes) {
    let spec = &object["spec"];
    let path = FieldPath::new("spec").child("clusterIPs");
    let why = format!("failed to allocate IP {}: {why}", text(spec, "clusterIP"));
    causes.invalid(&path, spec["clusterIPs"].clone(), why);
}

fn port_fault(object: &Value, value: u64, why: &str, causes: &mut Causes) {
    let ports = items(&object["spec"], "ports");
    let index = ports.iter().position(|port| port["nodePort"].as_u64() == Some(value));
    let spec = FieldPath::new("spec");
    let path =
        index.map_or_else(|| spec.child("healthCheckNodePort"), |i| spec.child("ports").index(i).child("nodePort"));
    causes.invalid(&path, value, why);
}
