//! What must be known of all nodes before one pod can be filtered and scored: how its kin are spread, and who attracts or repels it.
//!
//! Worked out once a pod, and only as far as some term or constraint asks for it.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster_view::{ClusterView, Node};
use crate::filter::{matches_node_affinity, tolerates_node};
use crate::pod_info::PodInfo;
use crate::terms::{PodTerm, Spread};

/// A topology key and a value of it: all nodes with this label are one place.
type Place = (String, String);

/// How many pods that a constraint selects each place of its topology has.
#[derive(Debug)]
pub(crate) struct SpreadCounts {
    pub(crate) counts: BTreeMap<String, i64>,
}

impl SpreadCounts {
    /// The least that any place has; zero while there are fewer places than there must be.
    pub(crate) fn least(&self, constraint: &Spread) -> i64 {
        if self.counts.len() < constraint.min_domains {
            return 0;
        }
        self.counts.values().copied().min().unwrap_or(0)
    }
}

/// What the cluster means to one pod.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    /// For each of the pod's constraints, in order.
    pub(crate) spread: Vec<SpreadCounts>,
    /// Places that pods with required anti-affinity to this one keep it out of.
    pub(crate) repelled_by_others: BTreeSet<Place>,
    /// Places with pods that this one keeps away from.
    pub(crate) repelled: BTreeSet<Place>,
    /// For each of the pod's required terms, the places with a pod that matches.
    pub(crate) attracted: Vec<BTreeSet<String>>,
    /// Nobody matches, and the pod itself does: the first of a group that keeps together.
    pub(crate) is_first_of_group: bool,
    /// How much each place is preferred.
    pub(crate) preferred: BTreeMap<Place, i64>,
}

impl Surroundings {
    pub(crate) fn of(cluster: &ClusterView, pod: &PodInfo) -> Self {
        let mut surroundings = Self { attracted: vec![BTreeSet::new(); pod.affinity.len()], ..Self::default() };
        surroundings.spread = pod.spread.iter().map(|constraint| count(cluster, pod, constraint)).collect();
        if pod.has_pod_terms() {
            for (node, other) in cluster.placed() {
                surroundings.weigh_other(cluster, pod, node, other);
            }
        }
        for (node, other) in cluster.placed_with_terms() {
            surroundings.weigh_terms_of(cluster, pod, node, other);
        }
        let nobody = surroundings.attracted.iter().all(BTreeSet::is_empty);
        surroundings.is_first_of_group = nobody && pod.affinity.iter().all(|term| means(cluster, term, pod));
        surroundings
    }

    /// The pod's own terms against a pod that is there.
    fn weigh_other(&mut self, cluster: &ClusterView, pod: &PodInfo, node: &Node, other: &PodInfo) {
        for term in pod.anti_affinity.iter().filter(|term| means(cluster, term, other)) {
            self.repelled.extend(place(term, node));
        }
        for (term, places) in pod.affinity.iter().zip(&mut self.attracted) {
            if means(cluster, term, other) {
                places.extend(place(term, node).map(|(_, value)| value));
            }
        }
        for (weight, term) in pod.preferred_pods.iter().filter(|(_, term)| means(cluster, term, other)) {
            if let Some(place) = place(term, node) {
                *self.preferred.entry(place).or_insert(0) += weight;
            }
        }
    }

    /// The terms of a pod that is there against the pod. A required affinity counts as a preference of weight 1.
    fn weigh_terms_of(&mut self, cluster: &ClusterView, pod: &PodInfo, node: &Node, other: &PodInfo) {
        for term in other.anti_affinity.iter().filter(|term| means(cluster, term, pod)) {
            self.repelled_by_others.extend(place(term, node));
        }
        let required = other.affinity.iter().map(|term| (1, term));
        let preferred = other.preferred_pods.iter().map(|(weight, term)| (*weight, term));
        for (weight, term) in required.chain(preferred).filter(|(_, term)| means(cluster, term, pod)) {
            if let Some(place) = place(term, node) {
                *self.preferred.entry(place).or_insert(0) += weight;
            }
        }
    }
}

fn means(cluster: &ClusterView, term: &PodTerm, pod: &PodInfo) -> bool {
    term.matches(&pod.key.namespace, |name| cluster.namespace_labels(name), &pod.labels)
}

fn place(term: &PodTerm, node: &Node) -> Option<Place> {
    let value = node.spec.labels.get(&term.topology_key)?;
    Some((term.topology_key.clone(), value.clone()))
}

fn count(cluster: &ClusterView, pod: &PodInfo, constraint: &Spread) -> SpreadCounts {
    let mut counts = BTreeMap::new();
    for node in cluster.nodes() {
        let counted = (!constraint.honors_affinity || matches_node_affinity(pod, node))
            && (!constraint.honors_taints || tolerates_node(pod, node));
        let Some(value) = node.spec.labels.get(&constraint.topology_key).filter(|_| counted) else { continue };
        let selected = |other: &&std::sync::Arc<PodInfo>| {
            !other.is_going && other.key.namespace == pod.key.namespace && constraint.selector.matches(&other.labels)
        };
        *counts.entry(value.clone()).or_insert(0) += node.pods.values().filter(selected).count() as i64;
    }
    SpreadCounts { counts }
}
