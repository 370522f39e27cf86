//! Pods that do not tolerate a `NoExecute` taint of their node, or not for long, are deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{NODES, PODS};
use coracle_api::{Object, ObjectKey};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{delete, list, patch_status, read, set_condition, text, time, value_of};
use crate::pod::{PodEntry, Toleration};
use crate::{Action, Context, Controller, EventRecord, EventType, Outcome, Watch};

/// The taint eviction controller.
#[derive(Debug, Default)]
pub struct TaintEvictionController {
    /// Pods that will be deleted, to tell of it when they are not.
    waiting: BTreeSet<ObjectKey>,
}

impl Controller for TaintEvictionController {
    fn name(&self) -> &'static str {
        "taint-eviction-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of(PODS, bound_pod), Watch::of(NODES, pods_of_node)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some(entry) = context.view.object(key).and_then(|object| PodEntry::of(context.view, object)) else {
            self.waiting.remove(key);
            return Outcome::default();
        };
        if entry.is_going() || entry.pod.is_terminal() {
            self.waiting.remove(key);
            return Outcome::default();
        }
        let node = read(context.view, &ObjectKey::new(NODES, "", &entry.pod.spec.node_name));
        let taints = node.as_ref().map_or(&[][..], |(_, value)| list(&value["spec"]["taints"]));
        let now = context.now.wall;
        match deadline(&entry.pod.spec.tolerations, taints, now) {
            None if self.waiting.remove(key) => vec![event(&entry.object, "Cancelling deletion of Pod")].into(),
            None => Outcome::default(),
            Some(at) if at <= now => {
                self.waiting.remove(key);
                evict(context, &entry.object).into()
            }
            Some(at) => {
                self.waiting.insert(key.clone());
                Outcome { requeue_after: Some(at.saturating_since(now)), ..Outcome::default() }
            }
        }
    }
}

/// Only pods of a node that drives pods away are of interest, and those that wait to be.
fn bound_pod(view: &View, pod: &Object) -> Vec<ObjectKey> {
    let node = view.object(&ObjectKey::new(NODES, "", pod.attribute("spec.nodeName")));
    let drives = node.is_some_and(|node| has_no_execute(view, node));
    if drives { vec![pod.key().clone()] } else { Vec::new() }
}

fn has_no_execute(view: &View, node: &Arc<Object>) -> bool {
    value_of(view, node)
        .is_some_and(|node| list(&node["spec"]["taints"]).iter().any(|taint| taint["effect"] == "NoExecute"))
}

/// Called for the node before and after a change, so that pods are woken when a taint comes and when it goes.
fn pods_of_node(view: &View, node: &Object) -> Vec<ObjectKey> {
    // The body is searched, not decoded: the state before a change is in no cache.
    let mentions = node.body().windows(NO_EXECUTE.len()).any(|window| window == NO_EXECUTE);
    if !mentions {
        return Vec::new();
    }
    let pods = view.by_attribute(&PODS, "spec.nodeName", &node.key().name);
    pods.into_iter().flatten().map(|pod| pod.key().clone()).collect()
}

const NO_EXECUTE: &[u8] = br#""effect":"NoExecute""#;

/// When a pod must go: `None` for never, which is also what a toleration without seconds says.
fn deadline(tolerations: &[Toleration], taints: &[Value], now: Timestamp) -> Option<Timestamp> {
    let mut earliest: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint["effect"] == "NoExecute") {
        let (key, value) = (text(&taint["key"]), text(&taint["value"]));
        let mut matching = tolerations.iter().filter(|t| t.tolerates(key, value, "NoExecute")).peekable();
        let added = time(&taint["timeAdded"]).unwrap_or(now);
        let at = if matching.peek().is_none() {
            Some(now)
        } else {
            let seconds = matching.filter_map(|toleration| toleration.seconds).min();
            seconds.map(|seconds| added + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
        };
        earliest = [earliest, at].into_iter().flatten().min();
    }
    earliest
}

fn event(pod: &Object, what: &str) -> Action {
    let message = format!("{what} {}/{}", pod.key().namespace, pod.key().name);
    let uid = pod.metadata().uid.as_ref();
    Action::Event(EventRecord::new(pod.key(), uid, EventType::Normal, "TaintManagerEviction", message))
}

fn evict(context: Context<'_>, pod: &Arc<Object>) -> Vec<Action> {
    let mut actions = vec![event(pod, "Marking for deletion Pod")];
    if let Some(value) = value_of(context.view, pod) {
        let mut conditions = list(&value["status"]["conditions"]).to_vec();
        let message = "Taint manager: deleting due to NoExecute taint";
        set_condition(&mut conditions, "DisruptionTarget", "True", "DeletionByTaintManager", message, context.now.wall);
        actions.extend(patch_status(pod, &value, json!({ "conditions": conditions })));
    }
    actions.push(delete(pod, None));
    actions
}

#[cfg(test)]
mod tests;
