//! NetworkPolicies: whether one end may open a connection to another, by the policies of a view. It opens nothing.
//!
//! A pod that no policy selects takes and opens any connection; one that a policy selects only what a rule of any such policy allows. What
//! comes from a node itself is always let in, as in Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use coracle_api::resources::{NAMESPACES, NETWORK_POLICIES, NODES, PODS};
use coracle_api::{LabelSelector, Object, ObjectKey, Uid};
use coracle_store::View;
use serde::Deserialize;
use serde_json::Value;

use super::Protocol;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A node, or the program itself on behalf of a user whom the API server has let in.
    Node,
    /// A pod.
    Pod(Uid),
    /// An address that is no pod's.
    Address(IpAddr),
}

/// Why a connection may not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NetworkPolicy {namespace}/{name} allows no such {direction} connection")]
pub(crate) struct Denied {
    namespace: String,
    name: String,
    direction: &'static str,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Policy {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    pod_selector: Value,
    policy_types: Option<Vec<String>>,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    ports: Option<Vec<PortRule>>,
    #[serde(alias = "to")]
    from: Option<Vec<Peer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PortRule {
    protocol: Option<String>,
    port: Option<Value>,
    end_port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Peer {
    pod_selector: Option<Value>,
    namespace_selector: Option<Value>,
    ip_block: Option<Block>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    cidr: String,
    except: Option<Vec<String>>,
}

/// A pod as policies see it.
struct Seen<'a> {
    object: &'a Arc<Object>,
    value: Arc<Value>,
}

impl Seen<'_> {
    fn address(&self) -> Option<IpAddr> {
        self.value["status"]["podIP"].as_str()?.parse().ok()
    }

    /// The number of a port that it names.
    fn port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        let list = |field: &str| self.value["spec"][field].as_array().into_iter().flatten();
        let all = list("containers").chain(list("initContainers"));
        let mut ports = all.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let is_meant = |port: &&Value| port["name"] == name && protocol_of(port["protocol"].as_str()) == Some(protocol);
        u16::try_from(ports.find(is_meant)?["containerPort"].as_u64()?).ok()
    }
}

fn protocol_of(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some(_) => None,
    }
}

/// Whether a connection may be opened to a port.
pub(crate) fn check(view: &View, from: &End, to: &End, port: u16, protocol: Protocol) -> Result<(), Denied> {
    if view.count(&NETWORK_POLICIES, None) == 0 || from == to {
        return Ok(());
    }
    let (source, target) = (seen(view, from), seen(view, to));
    let asked = Asked { view, target: target.as_ref(), port, protocol };
    if let Some(source) = &source {
        let other =
            Other { pod: target.as_ref(), address: target.as_ref().map_or_else(|| address_of(to), Seen::address) };
        asked.direction("egress", source, &other, matches!(to, End::Node))?;
    }
    if let Some(target) = &target {
        let other =
            Other { pod: source.as_ref(), address: source.as_ref().map_or_else(|| address_of(from), Seen::address) };
        asked.direction("ingress", target, &other, matches!(from, End::Node))?;
    }
    Ok(())
}

/// A pod with an address of its own: one with the host's network is its node to others.
fn seen<'a>(view: &'a View, end: &End) -> Option<Seen<'a>> {
    let End::Pod(uid) = end else { return None };
    let object = view.by_uid(uid).filter(|object| object.key().resource == PODS)?;
    let value = view.decode::<Value>(object)?;
    (value["spec"]["hostNetwork"] != true).then_some(Seen { object, value })
}

fn address_of(end: &End) -> Option<IpAddr> {
    match end {
        End::Address(address) => Some(*address),
        End::Node | End::Pod(_) => None,
    }
}

/// The other end, as the rules of a policy see it.
struct Other<'a> {
    pod: Option<&'a Seen<'a>>,
    address: Option<IpAddr>,
}

struct Asked<'a> {
    view: &'a View,
    target: Option<&'a Seen<'a>>,
    port: u16,
    protocol: Protocol,
}

/// The policies that are about a pod in a direction.
fn policies<'a>(
    view: &'a View,
    pod: &'a Arc<Object>,
    direction: &'a str,
) -> impl Iterator<Item = (&'a ObjectKey, Arc<Policy>)> + 'a {
    view.list(&NETWORK_POLICIES, Some(&pod.key().namespace))
        .filter_map(|object| Some((object.key(), view.decode::<Policy>(object)?)))
        .filter(move |(_, policy)| {
            let spec = &policy.spec;
            let is_of_type = |types: &Vec<String>| types.iter().any(|kind| kind.eq_ignore_ascii_case(direction));
            spec.policy_types.as_ref().map_or(direction == "ingress", is_of_type)
                && selects(&spec.pod_selector, &pod.metadata().labels)
        })
}

fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    selector.is_null() || LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(labels))
}

impl Asked<'_> {
    fn direction(
        &self,
        direction: &'static str,
        pod: &Seen<'_>,
        other: &Other<'_>,
        is_node: bool,
    ) -> Result<(), Denied> {
        let mut denied = None;
        for (key, policy) in policies(self.view, pod.object, direction) {
            let rules = if direction == "ingress" { &policy.spec.ingress } else { &policy.spec.egress };
            let allowed = |rule: &Rule| self.has_port(rule) && self.has_peer(rule, &key.namespace, other);
            if is_node || rules.iter().flatten().any(allowed) {
                return Ok(());
            }
            denied.get_or_insert_with(|| Denied {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                direction,
            });
        }
        denied.map_or(Ok(()), Err)
    }

    fn has_port(&self, rule: &Rule) -> bool {
        let Some(ports) = rule.ports.as_ref().filter(|ports| !ports.is_empty()) else { return true };
        ports.iter().any(|port| {
            protocol_of(port.protocol.as_deref()) == Some(self.protocol)
                && match (&port.port, port.end_port) {
                    (None, _) => true,
                    (Some(Value::String(name)), _) => {
                        self.target.and_then(|target| target.port(name, self.protocol)) == Some(self.port)
                    }
                    (Some(number), last) => {
                        let first = number.as_u64().and_then(|number| u16::try_from(number).ok());
                        first.is_some_and(|first| (first..=last.unwrap_or(first)).contains(&self.port))
                    }
                }
        })
    }

    fn has_peer(&self, rule: &Rule, namespace: &str, other: &Other<'_>) -> bool {
        let Some(peers) = rule.from.as_ref().filter(|peers| !peers.is_empty()) else { return true };
        peers.iter().any(|peer| match &peer.ip_block {
            Some(block) => other.address.is_some_and(|address| has_address(block, address)),
            None => other.pod.is_some_and(|pod| self.is_selected(peer, namespace, pod.object)),
        })
    }

    /// Whether a peer is pods, this one among them.
    fn is_selected_by(&self, peer: &Peer, namespace: &str, pod: &Object) -> bool {
        peer.ip_block.is_none() && self.is_selected(peer, namespace, pod)
    }

    fn is_selected(&self, peer: &Peer, namespace: &str, pod: &Object) -> bool {
        let own = &pod.key().namespace;
        let in_namespace = match &peer.namespace_selector {
            None => **own == *namespace,
            Some(selector) => {
                let object = self.view.object(&ObjectKey::new(NAMESPACES, "", own));
                object.is_some_and(|object| selects(selector, &object.metadata().labels))
            }
        };
        in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| selects(selector, &pod.metadata().labels))
    }
}

/// What a rule lets through, in numbers: from or to these addresses, at these ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Single addresses, and ranges with what is left out of them; `None`: any.
    pub(crate) peers: Option<(BTreeSet<Ipv4Addr>, Vec<Except>)>,
    /// First and last ports; `None`: any, of any protocol.
    pub(crate) ports: Option<Vec<(Protocol, u16, u16)>>,
}

/// A range in CIDR notation, without these ranges.
pub(crate) type Except = (String, Vec<String>);

/// What may come in (`ingress`) or go out (`egress`) of a pod; `None`: no policy is about that, and everything may.
pub(crate) fn openings(view: &View, pod: &Arc<Object>, direction: &str) -> Option<Vec<Opening>> {
    let value = view.decode::<Value>(pod)?;
    let own = Seen { object: pod, value };
    let (mut openings, mut any) = (Vec::new(), false);
    for (key, policy) in policies(view, pod, direction) {
        any = true;
        let rules = if direction == "ingress" { &policy.spec.ingress } else { &policy.spec.egress };
        for rule in rules.iter().flatten() {
            open(view, rule, &key.namespace, (direction == "ingress").then_some(&own), &mut openings);
        }
    }
    any.then_some(openings)
}

/// The openings of a rule. Names of ports are `target`'s, or each peer's own.
fn open(view: &View, rule: &Rule, namespace: &str, target: Option<&Seen<'_>>, openings: &mut Vec<Opening>) {
    let asked = Asked { view, target: None, port: 0, protocol: Protocol::Tcp };
    let selectors: Vec<&Peer> = rule.from.iter().flatten().collect();
    let is_meant = |pod: &Seen<'_>| selectors.iter().any(|peer| asked.is_selected_by(peer, namespace, pod.object));
    let pods: Vec<Seen<'_>> =
        if selectors.is_empty() { Vec::new() } else { with_addresses(view).filter(is_meant).collect() };
    let blocks = selectors.iter().filter_map(|peer| peer.ip_block.as_ref());
    let blocks = blocks.map(|block| (block.cidr.clone(), block.except.clone().unwrap_or_default())).collect();
    let address = |pod: &Seen<'_>| pod.address().and_then(|address| address.to_string().parse::<Ipv4Addr>().ok());
    let peers = (!selectors.is_empty()).then(|| (pods.iter().filter_map(address).collect(), blocks));
    let Some(ports) = rule.ports.as_ref().filter(|ports| !ports.is_empty()) else {
        openings.push(Opening { peers, ports: None });
        return;
    };
    let mut numbers = Vec::new();
    for port in ports {
        let Some(protocol) = protocol_of(port.protocol.as_deref()) else { continue };
        match (&port.port, target) {
            (None, _) => numbers.push((protocol, 0, u16::MAX)),
            (Some(Value::String(name)), Some(target)) => {
                numbers.extend(target.port(name, protocol).map(|port| (protocol, port, port)));
            }
            (Some(Value::String(name)), None) => openings.extend(pods.iter().filter_map(|pod| {
                let (address, port) = (address(pod)?, pod.port(name, protocol)?);
                let peers = Some((BTreeSet::from([address]), Vec::new()));
                Some(Opening { peers, ports: Some(vec![(protocol, port, port)]) })
            })),
            (Some(number), _) => {
                let first = number.as_u64().and_then(|number| u16::try_from(number).ok());
                numbers.extend(first.map(|first| (protocol, first, port.end_port.unwrap_or(first))));
            }
        }
    }
    if !numbers.is_empty() {
        openings.push(Opening { peers, ports: Some(numbers) });
    }
}

/// The pods that have an address of their own.
fn with_addresses(view: &View) -> impl Iterator<Item = Seen<'_>> {
    let all = view.list(&PODS, None).filter_map(|object| Some(Seen { object, value: view.decode::<Value>(object)? }));
    all.filter(|pod| {
        let ended = matches!(pod.value["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        !ended && pod.value["spec"]["hostNetwork"] != true && pod.address().is_some()
    })
}

/// The pods with an address of their own in one of these ranges.
pub(crate) fn pods_in<'a>(
    view: &'a View,
    is_in: impl Fn(IpAddr) -> bool + 'a,
) -> impl Iterator<Item = (&'a Arc<Object>, IpAddr)> {
    with_addresses(view).filter_map(move |pod| Some((pod.object, pod.address().filter(|address| is_in(*address))?)))
}

/// The policies that are about a pod.
pub(crate) fn about<'a>(view: &'a View, pod: &'a Arc<Object>) -> impl Iterator<Item = &'a ObjectKey> + 'a {
    ["ingress", "egress"].into_iter().flat_map(move |direction| policies(view, pod, direction).map(|(key, _)| key))
}

fn has_address(block: &Block, address: IpAddr) -> bool {
    is_within(&block.cidr, address) && !block.except.iter().flatten().any(|except| is_within(except, address))
}

/// Whether a range in CIDR notation has an address.
pub(crate) fn is_within(range: &str, address: IpAddr) -> bool {
    let Some((network, prefix)) = range.split_once('/') else { return false };
    let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<u32>()) else { return false };
    let kept = |bits: u128, width: u32| bits.checked_shr(width.saturating_sub(prefix)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let bits = |address: std::net::Ipv4Addr| kept(u32::from(address).into(), 32);
            bits(network) == bits(address)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => kept(network.into(), 128) == kept(address.into(), 128),
        _ => false,
    }
}

/// Whether an address is a node's own.
pub(crate) fn is_node(view: &View, address: IpAddr) -> bool {
    let text = address.to_string();
    let has = |node: &Arc<Object>| {
        let value = view.decode::<Value>(node);
        let addresses = value.as_ref().and_then(|value| value["status"]["addresses"].as_array());
        addresses.is_some_and(|addresses| addresses.iter().any(|address| address["address"] == text.as_str()))
    };
    address.is_loopback() || view.list(&NODES, None).any(has)
}

#[cfg(test)]
mod tests;
