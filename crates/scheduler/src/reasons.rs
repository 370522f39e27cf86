//! Why a pod does not fit on a node, in the scheduler's words.

use std::collections::BTreeMap;

pub(crate) const UNSCHEDULABLE: &str = "node(s) were unschedulable";
pub(crate) const NODE_NAME: &str = "node(s) didn't match the requested node name";
pub(crate) const TAINTS: &str = "node(s) had untolerated taint(s)";
pub(crate) const NODE_AFFINITY: &str = "node(s) didn't match Pod's node affinity/selector";
pub(crate) const PORTS: &str = "node(s) didn't have free ports for the requested pod ports";
pub(crate) const TOO_MANY_PODS: &str = "Too many pods";
pub(crate) const SPREAD: &str = "node(s) didn't match pod topology spread constraints";
pub(crate) const SPREAD_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
pub(crate) const AFFINITY: &str = "node(s) didn't match pod affinity rules";
pub(crate) const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
pub(crate) const EXISTING_ANTI_AFFINITY: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
pub(crate) const NO_NODES: &str = "no nodes available to schedule pods";
pub(crate) const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
pub(crate) const NO_VICTIMS: &str = "No preemption victims found for incoming pod";

/// Why one node does not take the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// At least one reason.
    pub(crate) reasons: Vec<String>,
    /// Whether the node would take it if other pods left.
    pub(crate) is_resolvable: bool,
}

impl Refusal {
    pub(crate) fn for_good(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], is_resolvable: false }
    }

    pub(crate) fn for_now(reason: &str) -> Self {
        Self { reasons: vec![reason.to_owned()], is_resolvable: true }
    }
}

/// `0/3 nodes are available: 1 Too many pods, 2 Insufficient cpu.`
pub(crate) fn summary<'a>(nodes: usize, reasons: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    let mut parts: Vec<String> = counts.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}
