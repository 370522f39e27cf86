//! Pods that nobody else removes: those of a node that is gone, those that go without ever having been placed,
//! and ended ones beyond a number.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coracle_api::resources::{NODES, PODS};
use coracle_api::{Object, ObjectKey};
use coracle_base::{Instant, Timestamp};
use coracle_store::View;
use serde_json::json;

use crate::object::{list, patch_status, set_condition, value_of};
use crate::pod::PodEntry;
use crate::{Action, Context, Controller, Outcome, Watch};

/// How many ended pods are kept: Kubernetes' `--terminated-pod-gc-threshold`.
const TERMINATED_MAX: usize = 12_500;
/// How long a node must be missing before its pods go: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// The pod garbage collector.
#[derive(Debug)]
pub struct PodGarbageCollector {
    terminated_max: usize,
    /// Ended pods, the oldest first.
    terminated: BTreeSet<(Option<Timestamp>, ObjectKey)>,
    created: BTreeMap<ObjectKey, Option<Timestamp>>,
    /// Since when a node that pods name is missing.
    missing: BTreeMap<String, Instant>,
}

impl Default for PodGarbageCollector {
    fn default() -> Self {
        Self::keeping(TERMINATED_MAX)
    }
}

impl PodGarbageCollector {
    /// A collector that keeps this many ended pods.
    pub fn keeping(terminated_max: usize) -> Self {
        Self { terminated_max, terminated: BTreeSet::new(), created: BTreeMap::new(), missing: BTreeMap::new() }
    }

    fn forget(&mut self, key: &ObjectKey) {
        if let Some(created) = self.created.remove(key) {
            self.terminated.remove(&(created, key.clone()));
        }
    }

    fn note_ended(&mut self, pod: &Object) {
        let (key, created) = (pod.key().clone(), pod.metadata().creation_timestamp);
        self.forget(&key);
        self.created.insert(key.clone(), created);
        self.terminated.insert((created, key));
    }

    fn surplus(&self) -> Vec<Action> {
        let surplus = self.terminated.len().saturating_sub(self.terminated_max);
        self.terminated.iter().take(surplus).map(|(_, key)| force(key, None)).collect()
    }
}

impl Controller for PodGarbageCollector {
    fn name(&self) -> &'static str {
        "pod-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(PODS), Watch::of(NODES, pods_of_gone_node)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some(entry) = context.view.object(key).and_then(|object| PodEntry::of(context.view, object)) else {
            self.forget(key);
            return Outcome::default();
        };
        if entry.pod.is_terminal() && !entry.is_going() {
            self.note_ended(&entry.object);
        } else {
            self.forget(key);
        }
        let node = &entry.pod.spec.node_name;
        if node.is_empty() {
            let abandoned = entry.is_going();
            return if abandoned { vec![force(key, Some(&entry.object))].into() } else { self.surplus().into() };
        }
        if context.view.object(&ObjectKey::new(NODES, "", node)).is_some() {
            self.missing.remove(node);
            return self.surplus().into();
        }
        let since = *self.missing.entry(node.clone()).or_insert(context.now.mono);
        let missing = context.now.mono.saturating_since(since);
        if missing < QUARANTINE {
            return Outcome {
                actions: self.surplus(),
                requeue_after: Some(QUARANTINE.saturating_sub(missing)),
                ..Outcome::default()
            };
        }
        fail_and_force(context, &entry).into()
    }
}

fn pods_of_gone_node(view: &View, node: &Object) -> Vec<ObjectKey> {
    if view.object(node.key()).is_some() {
        return Vec::new();
    }
    let pods = view.by_attribute(&PODS, "spec.nodeName", &node.key().name);
    pods.into_iter().flatten().map(|pod| pod.key().clone()).collect()
}

/// Deletes at once: nobody is there to end the pod gracefully.
fn force(key: &ObjectKey, pod: Option<&Object>) -> Action {
    let uid = pod.and_then(|pod| pod.metadata().uid.clone());
    Action::Delete { key: key.clone(), uid, revision: None, propagation: None, grace_period: Some(0) }
}

fn fail_and_force(context: Context<'_>, entry: &PodEntry) -> Vec<Action> {
    let mut actions = Vec::new();
    if !entry.pod.is_terminal()
        && let Some(value) = value_of(context.view, &entry.object)
    {
        let mut conditions = list(&value["status"]["conditions"]).to_vec();
        let message = "PodGC: node no longer exists";
        set_condition(&mut conditions, "DisruptionTarget", "True", "DeletionByPodGC", message, context.now.wall);
        actions.extend(patch_status(&entry.object, &value, json!({"phase": "Failed", "conditions": conditions})));
    }
    actions.push(force(entry.object.key(), Some(&entry.object)));
    actions
}

#[cfg(test)]
mod tests;
