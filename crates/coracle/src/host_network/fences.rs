//! NetworkPolicies for what never comes to the Dialer: containers of one bridge among themselves, and from containers to the outside and
//! back. The rules of the policies, as rules of the table.
//!
//! Where they cannot be kept, the policies are told so in Events.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use coracle_api::events::{EventRecord, EventType};
use coracle_api::resources::{NAMESPACES, NETWORK_POLICIES, PODS};
use coracle_api::{ObjectKey, Revision};
use coracle_store::View;

use super::ruleset::Range;
use crate::dialer::{self, Opening, Protocol};
use crate::process::Process;
use crate::reporter::Reporter;

/// How many addresses one rule may name; a rule with more opens nothing, and the log says so.
const ADDRESSES_MAX: usize = 4_096;
/// The name that events come from.
const COMPONENT: &str = "network-policy";
/// Whether the kernel shows packets between containers of one bridge to the host's rules.
const BRIDGED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// A container pod of this host that policies are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    address: Ipv4Addr,
    /// What may come in, and go out; `None`: anything.
    ingress: Option<Vec<Opening>>,
    egress: Option<Vec<Opening>>,
}

/// What fences are made of, for looking whether it has changed.
pub(super) fn changes(view: &View) -> [Revision; 3] {
    if view.count(&NETWORK_POLICIES, None) == 0 {
        return [view.last_change(&NETWORK_POLICIES), Revision(0), Revision(0)];
    }
    [NETWORK_POLICIES, PODS, NAMESPACES].map(|resource| view.last_change(&resource))
}

/// The fences of the containers on these bridges.
pub(super) fn of(view: &View, bridges: &[Range]) -> Vec<Fence> {
    if view.count(&NETWORK_POLICIES, None) == 0 {
        return Vec::new();
    }
    let here = |address: IpAddr| bridges.iter().any(|bridge| bridge.contains(address));
    let fence = |(pod, address)| {
        let IpAddr::V4(address) = address else { return None };
        let [ingress, egress] = ["ingress", "egress"].map(|direction| dialer::openings(view, pod, direction));
        (ingress.is_some() || egress.is_some()).then_some(Fence { address, ingress, egress })
    };
    let mut fences: Vec<Fence> = dialer::pods_in(view, here).filter_map(fence).collect();
    fences.sort_unstable_by_key(|fence| fence.address);
    fences
}

/// Writes the chains: one a fenced direction of a pod, and the one that leads to them.
pub(super) fn write(text: &mut String, fences: &[Fence]) {
    if fences.is_empty() {
        return;
    }
    let mut jumps = String::new();
    for Fence { address, ingress, egress } in fences {
        let name = format!("{:08x}", u32::from(*address));
        // Who sends is asked first, as the Dialer does.
        for (direction, from, to, openings) in [("out", "saddr", "daddr", egress), ("in", "daddr", "saddr", ingress)] {
            let Some(openings) = openings else { continue };
            let _ = writeln!(text, "  chain {direction}_{name} {{");
            for opening in openings {
                lines(opening, to, text);
            }
            text.push_str("    meta l4proto tcp reject with tcp reset\n    reject\n  }\n");
            let _ = writeln!(jumps, "    ip {from} {address} jump {direction}_{name}");
        }
    }
    text.push_str("  chain fences {\n    type filter hook forward priority -5; policy accept;\n");
    let _ = writeln!(text, "    ct state established,related accept\n{jumps}  }}");
}

/// The lines of an opening; `side` is where the other end's address is.
fn lines(opening: &Opening, side: &str, text: &mut String) {
    let mut peers = Vec::new();
    match &opening.peers {
        None => peers.push(String::new()),
        Some((addresses, _)) if addresses.len() > ADDRESSES_MAX => {
            tracing::warn!(
                addresses = addresses.len(),
                "a rule of a NetworkPolicy selects too many pods: it opens nothing"
            );
        }
        Some((addresses, ranges)) => {
            if !addresses.is_empty() {
                let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                peers.push(format!("ip {side} {{ {} }} ", all.join(", ")));
            }
            let range = |text: &String| Range::parse(text);
            for (network, except) in ranges {
                let Some(network) = range(network) else { continue };
                let without = except.iter().filter_map(range).map(|except| format!("ip {side} != {except} "));
                peers.push(format!("ip {side} {network} {}", without.collect::<String>()));
            }
        }
    }
    for peer in peers {
        let Some(ports) = &opening.ports else {
            let _ = writeln!(text, "    {peer}return");
            continue;
        };
        for (protocol, first, last) in ports {
            let protocol = if *protocol == Protocol::Tcp { "tcp" } else { "udp" };
            let _ = writeln!(text, "    {peer}{protocol} dport {first}-{last} return");
        }
    }
}

/// Why packets between containers of one bridge are not seen, where they are not.
pub(super) fn blind() -> Option<String> {
    let shown = std::fs::read_to_string(BRIDGED).is_ok_and(|text| text.trim() == "1");
    (!shown).then(|| format!("the kernel shows the host's rules no packets within a bridge ({BRIDGED} is not 1)"))
}

/// Tells policies that they do not hold here.
#[derive(Debug)]
pub(super) struct Unfenced {
    process: Arc<Process>,
    reporter: Reporter,
    told: BTreeSet<(ObjectKey, Revision)>,
}

impl Unfenced {
    pub(super) fn new(process: &Arc<Process>) -> Self {
        Self { process: Arc::clone(process), reporter: Reporter::new(process, COMPONENT), told: BTreeSet::new() }
    }

    /// Says of each policy about a container of this node that it does not hold for all, and why; once of each version.
    pub(super) async fn tell(&mut self, view: &View, why: &str) {
        if view.count(&NETWORK_POLICIES, None) == 0 {
            self.told.clear();
            return;
        }
        let bridge = super::own_bridge(view, &self.process.node);
        let here = |address: IpAddr| bridge.is_some_and(|bridge| bridge.contains(address));
        let policies: BTreeSet<ObjectKey> = dialer::pods_in(view, here)
            .flat_map(|(pod, _)| dialer::about(view, pod).cloned().collect::<Vec<_>>())
            .collect();
        let mut told = BTreeSet::new();
        for key in policies {
            let Some(policy) = view.object(&key) else { continue };
            let version = (key.clone(), policy.revision());
            if !self.told.contains(&version) {
                let message = format!(
                    "node {} does not hold its containers to it among themselves and to the outside: {why}",
                    self.process.node
                );
                let uid = policy.metadata().uid.as_ref();
                let record = EventRecord::new(&key, uid, EventType::Warning, "NotEnforced", message);
                self.reporter.report(&record).await;
            }
            told.insert(version);
        }
        self.told = told;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fenced_pod_has_a_chain_a_direction_that_ends_in_a_refusal() {
        let peers = (
            BTreeSet::from([Ipv4Addr::new(10, 42, 1, 5)]),
            vec![("192.0.2.0/24".to_owned(), vec!["192.0.2.7/32".to_owned()]), ("fd00::/8".to_owned(), Vec::new())],
        );
        let opening = Opening { peers: Some(peers), ports: Some(vec![(Protocol::Tcp, 80, 90)]) };
        let fence = Fence {
            address: Ipv4Addr::new(10, 42, 1, 2),
            ingress: Some(vec![opening]),
            egress: Some(vec![Opening::default()]),
        };
        let mut text = String::new();
        write(&mut text, &[fence]);
        assert_eq!(
            text,
            "  chain out_0a2a0102 {\n    return\n    meta l4proto tcp reject with tcp reset\n    reject\n  }\n  \
             chain in_0a2a0102 {\n    ip saddr { 10.42.1.5 } tcp dport 80-90 return\n    \
             ip saddr 192.0.2.0/24 ip saddr != 192.0.2.7/32 tcp dport 80-90 return\n    \
             meta l4proto tcp reject with tcp reset\n    reject\n  }\n  \
             chain fences {\n    type filter hook forward priority -5; policy accept;\n    \
             ct state established,related accept\n    ip saddr 10.42.1.2 jump out_0a2a0102\n    \
             ip daddr 10.42.1.2 jump in_0a2a0102\n  }\n"
        );
        let mut nothing = String::new();
        write(&mut nothing, &[]);
        assert_eq!(nothing, "");
    }
}
