//! Whether a node can take a pod. The first filter that says no gives the reasons.

use crate::affinity::Surroundings;
use crate::cluster_view::{ClusterView, Node};
use crate::pod_info::PodInfo;
use crate::reasons::{self, Refusal};
use crate::resources::Resources;
use crate::terms::Taint;

/// The taint that `spec.unschedulable` stands for: a pod may tolerate it.
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Why a node does not take a pod; `None` when it does.
pub(crate) fn refusal(cluster: &ClusterView, pod: &PodInfo, around: &Surroundings, node: &Node) -> Option<Refusal> {
    if node.spec.unschedulable && !tolerates_unschedulable(pod) {
        return Some(Refusal::for_good(reasons::UNSCHEDULABLE));
    }
    if !pod.node_name.is_empty() && *pod.node_name != *node.name {
        return Some(Refusal::for_good(reasons::NODE_NAME));
    }
    if !tolerates_node(pod, node) {
        return Some(Refusal::for_good(reasons::TAINTS));
    }
    if !matches_node_affinity(pod, node) {
        return Some(Refusal::for_good(reasons::NODE_AFFINITY));
    }
    if !has_free_ports(pod, node) {
        return Some(Refusal::for_now(reasons::PORTS));
    }
    lacks_resources(cluster, pod, node)
        .or_else(|| breaks_spread(pod, around, node))
        .or_else(|| breaks_pod_affinity(pod, around, node))
}

fn tolerates_unschedulable(pod: &PodInfo) -> bool {
    let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), value: String::new(), effect: "NoSchedule".into() };
    pod.tolerations.iter().any(|toleration| toleration.tolerates(&taint))
}

/// Whether the pod tolerates every taint that keeps pods off the node.
pub(crate) fn tolerates_node(pod: &PodInfo, node: &Node) -> bool {
    let mut strict =
        node.spec.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    strict.all(|taint| pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)))
}

/// Whether the node is one that the pod's selector and required affinity mean.
pub(crate) fn matches_node_affinity(pod: &PodInfo, node: &Node) -> bool {
    let labels = &node.spec.labels;
    pod.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        && pod.required_nodes.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(&node.name, labels)))
}

fn has_free_ports(pod: &PodInfo, node: &Node) -> bool {
    pod.host_ports.is_empty()
        || !node
            .pods
            .values()
            .flat_map(|other| &other.host_ports)
            .any(|taken| pod.host_ports.iter().any(|port| port.conflicts(taken)))
}

fn lacks_resources(cluster: &ClusterView, pod: &PodInfo, node: &Node) -> Option<Refusal> {
    let mut pods = node.pods.len() as i64;
    let mut kept: Option<Resources> = None;
    for other in cluster.nominated(&node.name, pod) {
        pods += 1;
        kept.get_or_insert_with(Resources::default).add(&other.requests);
    }
    let kept = kept.unwrap_or_default();
    let mut refusal = Refusal { reasons: Vec::new(), is_resolvable: true };
    if pods + 1 > node.spec.pods_max {
        refusal.reasons.push(reasons::TOO_MANY_PODS.to_owned());
        refusal.is_resolvable &= node.spec.pods_max > 0;
    }
    let (wants, has, taken) = (&pod.requests, &node.spec.allocatable, &node.requested);
    let mut need = |name: &str, wanted: i64, all: i64, taken: i64| {
        if wanted > 0 && wanted > all - taken {
            refusal.reasons.push(format!("Insufficient {name}"));
            refusal.is_resolvable &= wanted <= all;
        }
    };
    need("cpu", wants.milli_cpu, has.milli_cpu, taken.milli_cpu + kept.milli_cpu);
    need("memory", wants.memory, has.memory, taken.memory + kept.memory);
    need(
        "ephemeral-storage",
        wants.ephemeral_storage,
        has.ephemeral_storage,
        taken.ephemeral_storage + kept.ephemeral_storage,
    );
    for (name, wanted) in &wants.extended {
        let of = |resources: &Resources| resources.extended.get(name).copied().unwrap_or(0);
        need(name, *wanted, of(has), of(taken) + of(&kept));
    }
    (!refusal.reasons.is_empty()).then_some(refusal)
}

fn breaks_spread(pod: &PodInfo, around: &Surroundings, node: &Node) -> Option<Refusal> {
    for (constraint, counts) in pod.spread.iter().zip(&around.spread).filter(|(constraint, _)| constraint.required) {
        let Some(value) = node.spec.labels.get(&constraint.topology_key) else {
            return Some(Refusal::for_good(reasons::SPREAD_LABEL));
        };
        let own = i64::from(constraint.selector.matches(&pod.labels));
        let here = counts.counts.get(value).copied().unwrap_or(0);
        if here + own - counts.least(constraint) > constraint.max_skew {
            return Some(Refusal::for_now(reasons::SPREAD));
        }
    }
    None
}

fn breaks_pod_affinity(pod: &PodInfo, around: &Surroundings, node: &Node) -> Option<Refusal> {
    let labels = &node.spec.labels;
    for (term, places) in pod.affinity.iter().zip(&around.attracted) {
        let value = labels.get(&term.topology_key);
        if !value.is_some_and(|value| places.contains(value) || around.is_first_of_group) {
            return Some(Refusal::for_good(reasons::AFFINITY));
        }
    }
    let is_in = |(key, value): &(String, String)| labels.get(key) == Some(value);
    if around.repelled.iter().any(is_in) {
        return Some(Refusal::for_now(reasons::ANTI_AFFINITY));
    }
    around.repelled_by_others.iter().any(is_in).then(|| Refusal::for_now(reasons::EXISTING_ANTI_AFFINITY))
}
