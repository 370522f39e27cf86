//! Which of the nodes that can take a pod is the best: 0 to 100 from each plugin, times its weight.

use std::collections::BTreeMap;

use crate::affinity::Surroundings;
use crate::cluster_view::Node;
use crate::pod_info::PodInfo;

const MAX: i64 = 100;
/// The weights of Kubernetes' default plugins.
const TAINT_TOLERATION: i64 = 3;
const NODE_AFFINITY: i64 = 2;
const LEAST_ALLOCATED: i64 = 1;
const BALANCED_ALLOCATION: i64 = 1;
const SPREAD: i64 = 2;
const POD_AFFINITY: i64 = 2;
/// Where pods of one controller are spread by default: over nodes with a skew of 3, over zones with one of 5.
const DEFAULT_TOPOLOGIES: [(&str, i64); 2] = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// The score of each node, in their order.
pub(crate) fn scores(pod: &PodInfo, around: &Surroundings, nodes: &[&Node]) -> Vec<i64> {
    let mut totals: Vec<i64> = nodes
        .iter()
        .map(|node| LEAST_ALLOCATED * least_allocated(pod, node) + BALANCED_ALLOCATION * balanced(pod, node))
        .collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    };
    if nodes.iter().any(|node| node.spec.taints.iter().any(|taint| taint.effect == "PreferNoSchedule")) {
        add(TAINT_TOLERATION, fewest(nodes.iter().map(|node| untolerated(pod, node)).collect()));
    }
    if !pod.preferred_nodes.is_empty() {
        add(NODE_AFFINITY, most(nodes.iter().map(|node| preference(pod, node)).collect()));
    }
    if pod.spread.iter().any(|constraint| !constraint.required) {
        add(SPREAD, fewest(nodes.iter().map(|node| crowd(pod, around, node)).collect()));
    } else if pod.spread.is_empty() && pod.owner.is_some() {
        add(SPREAD, fewest(siblings(pod, nodes)));
    }
    if !around.preferred.is_empty() {
        add(POD_AFFINITY, between(nodes.iter().map(|node| company(around, node)).collect()));
    }
    totals
}

fn least_allocated(pod: &PodInfo, node: &Node) -> i64 {
    let free =
        |all: i64, taken: i64, own: i64| if all <= 0 { None } else { Some((all - taken - own).max(0) * MAX / all) };
    let all = &node.spec.allocatable;
    let parts = [
        free(all.milli_cpu, node.weighed.milli_cpu, pod.weights.milli_cpu),
        free(all.memory, node.weighed.memory, pod.weights.memory),
    ];
    let known: Vec<i64> = parts.into_iter().flatten().collect();
    if known.is_empty() { 0 } else { known.iter().sum::<i64>() / known.len() as i64 }
}

fn balanced(pod: &PodInfo, node: &Node) -> i64 {
    let share = |all: i64, taken: i64| if all <= 0 { 1.0 } else { (taken as f64 / all as f64).min(1.0) };
    let cpu = share(node.spec.allocatable.milli_cpu, node.requested.milli_cpu + pod.requests.milli_cpu);
    let memory = share(node.spec.allocatable.memory, node.requested.memory + pod.requests.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

fn untolerated(pod: &PodInfo, node: &Node) -> i64 {
    let soft = node.spec.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint))).count() as i64
}

fn preference(pod: &PodInfo, node: &Node) -> i64 {
    let matching = pod.preferred_nodes.iter().filter(|(_, term)| term.matches(&node.name, &node.spec.labels));
    matching.map(|(weight, _)| weight).sum()
}

/// How many pods that the constraints select are where this node is; places with many nodes weigh more.
fn crowd(pod: &PodInfo, around: &Surroundings, node: &Node) -> i64 {
    let soft = pod.spread.iter().zip(&around.spread).filter(|(constraint, _)| !constraint.required);
    let parts = soft.map(|(constraint, counts)| {
        let value = node.spec.labels.get(&constraint.topology_key);
        // A node outside the topology is the worst of all.
        let here = value.map_or(i64::from(i32::MAX), |value| counts.counts.get(value).copied().unwrap_or(0));
        weigh(here, counts.counts.len(), constraint.max_skew)
    });
    parts.sum()
}

fn weigh(count: i64, places: usize, max_skew: i64) -> i64 {
    (count as f64 * ((places + 2) as f64).ln()).round() as i64 + max_skew - 1
}

/// The default spread: how many pods of the same controller are where each node is.
fn siblings(pod: &PodInfo, nodes: &[&Node]) -> Vec<i64> {
    let here = |node: &Node| pod.owner.as_ref().and_then(|owner| node.by_owner.get(owner)).copied().unwrap_or(0);
    let mut sums = vec![0; nodes.len()];
    for (topology, max_skew) in DEFAULT_TOPOLOGIES {
        let mut places: BTreeMap<&str, i64> = BTreeMap::new();
        for node in nodes {
            if let Some(value) = node.spec.labels.get(topology) {
                *places.entry(value).or_insert(0) += here(node);
            }
        }
        for (sum, node) in sums.iter_mut().zip(nodes) {
            if let Some(value) = node.spec.labels.get(topology) {
                *sum += weigh(places[value.as_str()], places.len(), max_skew);
            }
        }
    }
    sums
}

fn company(around: &Surroundings, node: &Node) -> i64 {
    let is_in = |(key, value): &(String, String)| node.spec.labels.get(key) == Some(value);
    around.preferred.iter().filter(|(place, _)| is_in(place)).map(|(_, weight)| weight).sum()
}

/// The most gets 100, none gets 0.
fn most(values: Vec<i64>) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    values.into_iter().map(|value| if max <= 0 { 0 } else { value * MAX / max }).collect()
}

/// The fewest get the most: `100 * (max + min - value) / max`.
fn fewest(values: Vec<i64>) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    let min = values.iter().copied().min().unwrap_or(0);
    values.into_iter().map(|value| if max <= 0 { MAX } else { MAX * (max + min - value) / max }).collect()
}

/// The most gets 100, the least 0.
fn between(values: Vec<i64>) -> Vec<i64> {
    let max = values.iter().copied().max().unwrap_or(0);
    let min = values.iter().copied().min().unwrap_or(0);
    values.into_iter().map(|value| if max == min { 0 } else { (value - min) * MAX / (max - min) }).collect()
}
