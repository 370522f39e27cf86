//! What a ReplicaSet says of its pods.

use std::time::Duration;

use coracle_api::{LabelSelector, Object};
use serde_json::{Value, json};

use crate::object::{count, list, number, patch_status, set_condition};
use crate::pod::PodEntry;
use crate::{Action, Context};

/// The patch of the status, where it differs, and when a pod becomes available by the mere passing of time.
pub(super) fn of(
    context: Context<'_>,
    object: &Object,
    value: &Value,
    active: &[PodEntry],
    all: &[PodEntry],
    failure: Option<&(&'static str, String)>,
) -> (Option<Action>, Option<Duration>) {
    let now = context.now.wall;
    let min_ready = Duration::from_secs(u64::try_from(number(&value["spec"]["minReadySeconds"], 0)).unwrap_or(0));
    let template = LabelSelector::from_map(&value["spec"]["template"]["metadata"]["labels"]);
    let (mut labelled, mut ready, mut available, mut next) = (0, 0, 0, None::<Duration>);
    for entry in active {
        labelled += i64::from(template.matches(&entry.object.metadata().labels));
        ready += i64::from(entry.pod.is_ready());
        match entry.pod.available_at(min_ready) {
            Some(at) if at <= now => available += 1,
            Some(at) => next = Some(next.unwrap_or(Duration::MAX).min(at.saturating_since(now))),
            None => {}
        }
    }
    let going = all.iter().filter(|entry| entry.is_going() && !entry.pod.is_terminal()).count();
    let mut conditions = list(&value["status"]["conditions"]).to_vec();
    match failure {
        Some((reason, message)) => set_condition(&mut conditions, "ReplicaFailure", "True", reason, message, now),
        None => conditions.retain(|condition| condition["type"] != "ReplicaFailure"),
    }
    let wanted = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": count(labelled),
        "readyReplicas": count(ready),
        "availableReplicas": count(available),
        "terminatingReplicas": going,
        "observedGeneration": count(object.metadata().generation),
        "conditions": if conditions.is_empty() { Value::Null } else { conditions.into() },
    });
    (patch_status(object, value, wanted), next)
}
