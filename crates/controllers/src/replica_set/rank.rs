//! Which pods of a set go first when there are too many.
//!
//! Source of the order: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset>.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use coracle_api::Object;
use coracle_api::resources::{PODS, REPLICA_SETS};
use coracle_base::Timestamp;

use crate::Context;
use crate::pod::PodEntry;

/// The `surplus` pods that are deleted first.
pub(super) fn first_to_go(context: Context<'_>, set: &Object, active: &[PodEntry], surplus: usize) -> Vec<PodEntry> {
    let neighbours = neighbours(context, set);
    let mut ranked: Vec<&PodEntry> = active.iter().collect();
    ranked.sort_by_cached_key(|entry| {
        let (pod, metadata) = (&entry.pod, entry.object.metadata());
        let together = neighbours.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
        (
            !pod.spec.node_name.is_empty(),
            phase_rank(&pod.status.phase),
            pod.is_ready(),
            pod.deletion_cost(),
            Reverse(together),
            age_bucket(pod.ready_since(), context.now.wall),
            Reverse(pod.restarts()),
            age_bucket(metadata.creation_timestamp, context.now.wall),
            metadata.uid.clone(),
        )
    });
    ranked.into_iter().take(surplus).cloned().collect()
}

fn phase_rank(phase: &str) -> u8 {
    match phase {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    }
}

/// The base-2 logarithm of an age: pods of about the same age are equals, and chance (their uid) decides.
/// An unknown time counts as the youngest.
fn age_bucket(since: Option<Timestamp>, now: Timestamp) -> u32 {
    since.map_or(0, |since| 1 + now.saturating_since(since).as_nanos().checked_ilog2().unwrap_or(0))
}

/// How many pods of the set and of its siblings (other sets of the same owner) run on each node.
fn neighbours(context: Context<'_>, set: &Object) -> BTreeMap<String, usize> {
    let view = context.view;
    let siblings: Vec<_> = match set.metadata().controller() {
        Some(owner) => view
            .owned_by(&owner.uid)
            .filter(|object| object.key().resource == REPLICA_SETS)
            .filter_map(|object| object.metadata().uid.clone())
            .collect(),
        None => set.metadata().uid.iter().cloned().collect(),
    };
    let mut nodes = BTreeMap::new();
    for uid in &siblings {
        let pods = view.owned_by(uid).filter(|object| object.key().resource == PODS);
        for entry in pods.filter_map(|object| PodEntry::of(view, object)).filter(PodEntry::is_active) {
            *nodes.entry(entry.pod.spec.node_name.clone()).or_insert(0) += 1;
        }
    }
    nodes
}
