//! Making room: which pods of lower priority would have to go, and on which node the fewest of the least important.
//!
//! Source of the order: <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use std::cmp::Reverse;
use std::sync::Arc;

use coracle_base::Timestamp;

use crate::affinity::Surroundings;
use crate::cluster_view::ClusterView;
use crate::decision::Victim;
use crate::filter::refusal;
use crate::pod_info::PodInfo;
use crate::reasons::{self, Refusal, summary};

/// How many nodes are tried: Kubernetes tries a tenth of them, at least this many; here a step is bounded.
const CANDIDATES_MAX: usize = 100;

/// What came of looking for victims.
#[derive(Debug)]
pub(crate) enum Preemption {
    /// These must go from this node.
    Room { node: Arc<str>, victims: Vec<Victim> },
    /// It does not help; the sentence that follows the reasons.
    Hopeless(String),
}

/// Looks for room for a pod that no node takes, given why each does not.
pub(crate) fn preempt(cluster: &mut ClusterView, pod: &Arc<PodInfo>, refusals: &[(Arc<str>, Refusal)]) -> Preemption {
    if !pod.may_preempt {
        return Preemption::Hopeless("preemption: not eligible due to preemptionPolicy=Never.".into());
    }
    let waits = cluster
        .node(&pod.nominated_node)
        .is_some_and(|node| node.pods.values().any(|other| other.is_going && other.priority < pod.priority));
    if waits {
        let why = "preemption: not eligible due to a terminating pod on the nominated node.";
        return Preemption::Hopeless(why.into());
    }
    let mut best: Option<(Cost, Arc<str>, Vec<Arc<PodInfo>>)> = None;
    let mut outcomes = Vec::with_capacity(refusals.len());
    let mut tried = 0;
    for (node, refusal) in refusals {
        if !refusal.is_resolvable || tried >= CANDIDATES_MAX {
            outcomes.push(reasons::NOT_HELPFUL);
            continue;
        }
        tried += 1;
        let Some(victims) = victims_on(cluster, pod, node) else {
            outcomes.push(reasons::NO_VICTIMS);
            continue;
        };
        let cost = Cost::of(&victims);
        if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
            best = Some((cost, Arc::clone(node), victims));
        }
    }
    match best {
        Some((_, node, victims)) => {
            let victims = victims.iter().map(|pod| Victim { pod: pod.key.clone(), uid: pod.uid.clone() }).collect();
            Preemption::Room { node, victims }
        }
        None => Preemption::Hopeless(format!("preemption: {}", summary(refusals.len(), outcomes.into_iter()))),
    }
}

/// How bad it is to lose these: the least is the best.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    highest_priority: i64,
    sum_of_priorities: i64,
    count: usize,
    /// When the first of the most important started: the later the better.
    earliest_start: Reverse<Option<Timestamp>>,
}

impl Cost {
    fn of(victims: &[Arc<PodInfo>]) -> Self {
        let highest_priority = victims.iter().map(|pod| pod.priority).max().unwrap_or(i64::MIN);
        let important = victims.iter().filter(|pod| pod.priority == highest_priority);
        Self {
            highest_priority,
            // Moved so that more victims of a negative priority do not look like fewer.
            sum_of_priorities: victims.iter().map(|pod| pod.priority - i64::from(i32::MIN)).sum(),
            count: victims.len(),
            earliest_start: Reverse(important.filter_map(|pod| pod.started).min()),
        }
    }
}

/// The pods that must leave a node so that it takes the pod; `None` when that does not help, or none may be asked to.
/// The cluster is as before when it returns.
fn victims_on(cluster: &mut ClusterView, pod: &Arc<PodInfo>, node: &Arc<str>) -> Option<Vec<Arc<PodInfo>>> {
    let lower = |other: &&Arc<PodInfo>| other.priority < pod.priority;
    let mut candidates: Vec<Arc<PodInfo>> = cluster.node(node)?.pods.values().filter(lower).cloned().collect();
    if candidates.is_empty() {
        return None;
    }
    for other in &candidates {
        cluster.remove(&other.key);
    }
    let fits = |cluster: &ClusterView| {
        let around = Surroundings::of(cluster, pod);
        cluster.node(node).is_some_and(|node| refusal(cluster, pod, &around, node).is_none())
    };
    let possible = fits(cluster);
    // The most important, and of equal ones the oldest, are spared first.
    candidates.sort_by_key(|other| (Reverse(other.priority), other.started, other.key.clone()));
    let mut victims = Vec::new();
    for other in candidates {
        cluster.place(&other, node);
        if possible && !fits(cluster) {
            cluster.remove(&other.key);
            victims.push(other);
        }
    }
    for victim in &victims {
        cluster.place(victim, node);
    }
    possible.then_some(victims)
}
