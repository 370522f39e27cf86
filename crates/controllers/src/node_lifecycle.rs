//! Nodes that fall silent, and what a node's conditions mean for the pods on it.
//!
//! Heartbeats are not objects: the engine calls [`Controller::heartbeat`], and only a transition is written. Who leads has heard
//! of nobody at first, so every node gets a whole grace period from then, and again
//! after the clock jumped. A node that is heard of again reports its own
//! conditions; this controller never writes that one is ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{NODES, PODS};
use coracle_api::settings::{ClusterSettings, SETTINGS, SettingsObject};
use coracle_api::{Object, ObjectKey, Uid};
use coracle_base::{Instant, Now};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{condition, condition_status, list, patch, patch_status, read, text, value_of};
use crate::{Action, Context, Controller, EventRecord, EventType, Outcome, Watch};

/// How long a new node may take to report for the first time.
const STARTUP_GRACE: Duration = Duration::from_mins(1);
/// How far apart evictions of nodes are (0.1 nodes a second), and in a large cluster of which more than half is ill (0.01).
const EVICTION_INTERVAL: Duration = Duration::from_secs(10);
const EVICTION_INTERVAL_ILL: Duration = Duration::from_secs(100);
/// A cluster is ill when more than two nodes and this share of all are not ready; if it is no larger than this, none is evicted then.
const ILL_PERCENT: usize = 55;
const SMALL_CLUSTER: usize = 50;
/// How many pods are marked at once, with an event each: what the manager takes.
const PODS_MAX: usize = 40;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that keep pods away, the status in which they do, and the taint that says so.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The node lifecycle controller.
#[derive(Debug, Default)]
pub struct NodeLifecycleController {
    /// When each node was heard of last, or noticed first.
    heard: BTreeMap<String, Instant>,
    /// What each node's Ready condition was at the last look.
    ready: BTreeMap<String, String>,
    /// Nodes whose registration was told of.
    registered: BTreeMap<String, Option<Uid>>,
    /// When the next node may be evicted.
    next_eviction: Instant,
}

impl Controller for NodeLifecycleController {
    fn name(&self) -> &'static str {
        "node-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(NODES), Watch::of(PODS, silent_node_of_pod), Watch::of(SETTINGS, all_nodes)]
    }

    fn heartbeat(&mut self, node: &str, now: Now) {
        // Only nodes that exist are remembered: a stranger's heartbeat must not fill the memory.
        if let Some(heard) = self.heard.get_mut(node) {
            *heard = now.mono;
        }
    }

    fn clock_jumped(&mut self, now: Now) {
        self.heard.values_mut().for_each(|heard| *heard = now.mono);
        self.next_eviction = self.next_eviction.max(now.mono + EVICTION_INTERVAL);
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let name: &str = &key.name;
        let Some((object, value)) = read(context.view, key) else {
            self.heard.remove(name);
            self.ready.remove(name);
            self.registered.remove(name);
            return Outcome::default();
        };
        let mut actions = Vec::new();
        if self.registered.insert(name.to_owned(), object.metadata().uid.clone()) != Some(object.metadata().uid.clone())
        {
            let message = format!("Node {name} event: Registered Node {name} in Controller");
            actions.push(node_event(&object, EventType::Normal, "RegisteredNode", message));
        }
        let ready = condition_status(list(&value["status"]["conditions"]), "Ready");
        let before = self.ready.insert(name.to_owned(), ready.to_owned());
        let heard = self.heard.entry(name.to_owned()).or_insert(context.now.mono);
        if before.is_some_and(|before| before != ready) && ready != "Unknown" {
            // Only the node itself says whether it is ready: that is a sign of life, though its next heartbeat is still to come.
            *heard = context.now.mono;
        }
        let heard = *heard;
        let silence = context.now.mono.saturating_since(heard);
        let never_reported = condition(list(&value["status"]["conditions"]), "Ready").is_none();
        let grace = if never_reported { STARTUP_GRACE } else { settings(context.view).node_grace() };
        if silence >= grace
            && let Some(action) = mark_unknown(context, &object, &value, never_reported)
        {
            actions.push(action);
            let message = format!("Node {name} status is now: NodeNotReady");
            actions.push(node_event(&object, EventType::Normal, "NodeNotReady", message));
            // Taints follow the condition, at the next look.
            return actions.into();
        }
        let (evict, wait) = self.may_evict(context, &value);
        actions.extend(set_taints(context, &object, &value, evict));
        if !never_reported && ready != "True" {
            actions.extend(mark_pods(context, name));
        }
        let silent_at = grace.checked_sub(silence).filter(|left| !left.is_zero());
        Outcome { actions, requeue_after: [silent_at, wait].into_iter().flatten().min(), rest: Duration::ZERO }
    }
}

/// What was set concerns every node.
fn all_nodes(view: &View, _settings: &Object) -> Vec<ObjectKey> {
    view.list(&NODES, None).map(|node| node.key().clone()).collect()
}

/// What the cluster's user has set.
fn settings(view: &View) -> ClusterSettings {
    view.typed::<SettingsObject>(&ClusterSettings::key()).map_or_else(ClusterSettings::default, |object| object.spec)
}

/// A pod of a node that is not ready: it may have come to the node after that, or turned ready.
fn silent_node_of_pod(view: &View, pod: &Object) -> Vec<ObjectKey> {
    let node = pod.attribute("spec.nodeName");
    if node.is_empty() {
        return Vec::new();
    }
    let key = ObjectKey::new(NODES, "", node);
    let silent = view.object(&key).and_then(|object| value_of(view, object)).is_some_and(|value| {
        let ready = condition_status(list(&value["status"]["conditions"]), "Ready").to_owned();
        !ready.is_empty() && ready != "True"
    });
    if silent { vec![key] } else { Vec::new() }
}

fn node_event(node: &Object, event_type: EventType, reason: &'static str, message: String) -> Action {
    Action::Event(EventRecord::new(node.key(), node.metadata().uid.as_ref(), event_type, reason, message))
}

/// The conditions of a node that nobody hears of; `None` when they are unknown already.
fn mark_unknown(context: Context<'_>, node: &Object, value: &Value, never_reported: bool) -> Option<Action> {
    let now = context.now.wall.rfc3339();
    let (reason, message) = if never_reported {
        ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
    } else {
        ("NodeStatusUnknown", "Kubelet stopped posting node status.")
    };
    let mut conditions = list(&value["status"]["conditions"]).to_vec();
    for r#type in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let unknown = json!({
            "type": r#type, "status": "Unknown", "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        });
        match conditions.iter_mut().find(|condition| condition["type"] == r#type) {
            Some(old) if old["status"] == "Unknown" => {}
            Some(old) => {
                let heartbeat = old["lastHeartbeatTime"].clone();
                *old = unknown;
                old["lastHeartbeatTime"] = heartbeat;
            }
            None => conditions.push(unknown),
        }
    }
    patch_status(node, value, json!({ "conditions": conditions }))
}

impl NodeLifecycleController {
    /// Whether pods may be driven off this node now, and when to ask again.
    fn may_evict(&mut self, context: Context<'_>, node: &Value) -> (bool, Option<Duration>) {
        let Some(key) = silence_taint(node) else { return (false, None) };
        if has_taint(node, key, "NoExecute") {
            return (true, None);
        }
        let (mut total, mut ill) = (0, 0);
        for object in context.view.list(&NODES, None) {
            total += 1;
            ill += usize::from(value_of(context.view, object).is_some_and(|value| silence_taint(&value).is_some()));
        }
        let mostly_ill = ill > 2 && ill * 100 >= ILL_PERCENT * total;
        if ill == total || (mostly_ill && total <= SMALL_CLUSTER) {
            // If nobody is left, the fault is rather here: pods stay where they are.
            return (false, Some(EVICTION_INTERVAL));
        }
        let now = context.now.mono;
        if now < self.next_eviction {
            return (false, Some(self.next_eviction.saturating_since(now)));
        }
        self.next_eviction = now + if mostly_ill { EVICTION_INTERVAL_ILL } else { EVICTION_INTERVAL };
        (true, None)
    }
}

/// The taint of a node that is not ready, or not heard of.
fn silence_taint(node: &Value) -> Option<&'static str> {
    match condition_status(list(&node["status"]["conditions"]), "Ready") {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

fn has_taint(node: &Value, key: &str, effect: &str) -> bool {
    list(&node["spec"]["taints"]).iter().any(|taint| taint["key"] == key && taint["effect"] == effect)
}

/// Makes the taints that conditions stand for those that the node has; all others stay.
fn set_taints(context: Context<'_>, object: &Object, node: &Value, evict: bool) -> Option<Action> {
    let conditions = list(&node["status"]["conditions"]);
    // Until it reports it keeps the taint that it registered with.
    condition(conditions, "Ready")?;
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    if let Some(key) = silence_taint(node) {
        wanted.push((key, "NoSchedule"));
        if evict {
            wanted.push((key, "NoExecute"));
        }
    }
    wanted.extend(
        PRESSURES
            .iter()
            .filter(|(c, _)| condition_status(conditions, c) == "True")
            .map(|(_, key)| (*key, "NoSchedule")),
    );
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let ours = |taint: &Value| {
        let key = text(&taint["key"]);
        let known =
            [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, own)| *own == key);
        known
            && (taint["effect"] == "NoSchedule"
                || (taint["effect"] == "NoExecute" && [NOT_READY, UNREACHABLE].contains(&key)))
    };
    let before = list(&node["spec"]["taints"]);
    let is_wanted =
        |taint: &Value| wanted.iter().any(|(key, effect)| taint["key"] == *key && taint["effect"] == *effect);
    let mut after: Vec<Value> = before.iter().filter(|taint| !ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in wanted {
        if !has_taint(node, key, effect) {
            after.push(json!({"key": key, "effect": effect, "timeAdded": context.now.wall.rfc3339()}));
        }
    }
    if before == after.as_slice() {
        return None;
    }
    let taints = if after.is_empty() { Value::Null } else { after.into() };
    Some(patch(object, None, json!({"spec": {"taints": taints}})))
}

/// Pods of a silent node count as not ready, so that services leave them out.
fn mark_pods(context: Context<'_>, node: &str) -> Vec<Action> {
    let pods = context.view.by_attribute(&PODS, "spec.nodeName", node).into_iter().flatten();
    let mut actions = Vec::new();
    for object in pods.filter(|object| is_ready(context.view, object)).take(PODS_MAX) {
        let Some(value) = value_of(context.view, object) else { continue };
        let mut conditions = list(&value["status"]["conditions"]).to_vec();
        for ready in conditions.iter_mut().filter(|condition| condition["type"] == "Ready") {
            ready["status"] = "False".into();
            ready["lastTransitionTime"] = context.now.wall.rfc3339().into();
        }
        let uid = object.metadata().uid.as_ref();
        actions.extend(patch_status(object, &value, json!({ "conditions": conditions })));
        let event = EventRecord::new(object.key(), uid, EventType::Warning, "NodeNotReady", "Node is not ready");
        actions.push(Action::Event(event));
    }
    actions
}

fn is_ready(view: &View, pod: &Arc<Object>) -> bool {
    view.decode::<crate::pod::Pod>(pod).is_some_and(|pod| pod.is_ready())
}

#[cfg(test)]
mod tests;
