//! Short texts about the state, for tests to compare.

use std::fmt::Write as _;
use std::time::Duration;

use coracle_api::resources::{DEPLOYMENTS, EVENTS, PODS, REPLICA_SETS};
use coracle_api::{Object, ObjectKey};
use coracle_base::Instant;
use coracle_store::View;
use serde_json::Value;

use crate::timeline::{Timeline, state};

/// How long after: `+10s`.
fn after(at: Instant, from: Instant) -> String {
    format!("+{}s", at.saturating_since(from).as_secs())
}

/// A line for each instance of a pod's containers: when it started (from the pod's creation), and how it ended.
pub(crate) fn timeline(timeline: &Timeline) -> String {
    let several = timeline.runs.iter().any(|run| run.id.container != timeline.runs[0].id.container);
    let mut text = String::new();
    for run in &timeline.runs {
        let container = if several { format!("{} ", run.id.container) } else { String::new() };
        let ended = match &run.ended {
            None => "running".to_owned(),
            Some((at, reason)) if at.saturating_since(run.started) < Duration::from_secs(1) => {
                format!("exited reason={reason}")
            }
            Some((at, reason)) => format!("exited {} reason={reason}", after(*at, timeline.created)),
        };
        let started = after(run.started, timeline.created);
        line(&mut text, format_args!("{started:<6} {container}started restarts={:<3} {ended}", run.id.instance));
    }
    text
}

/// A line for each change of a pod's phase or of its containers' states in the API.
pub(crate) fn states(timeline: &Timeline) -> String {
    let mut text = String::new();
    for (at, state) in &timeline.states {
        line(&mut text, format_args!("{:<6} {state}", after(*at, timeline.created)));
    }
    text
}

/// The Events of an object, in the order of their first time, to the millisecond; its uid, which is drawn, is `UID` in them.
pub(crate) fn events(view: &View, key: &ObjectKey) -> String {
    let mut events: Vec<Value> = view
        .list(&EVENTS, None)
        .map(|event| event.value(None))
        .filter(|event| event["involvedObject"]["name"] == *key.name && is_of(event, key))
        .collect();
    // An Event's name ends in the time of its first occurrence, whose last 20 bits (a millisecond) are drawn.
    events.sort_by_key(|event| {
        let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let name = event["metadata"]["name"].as_str().unwrap_or_default();
        let nanos = name.rsplit('.').next().and_then(|nanos| u64::from_str_radix(nanos, 16).ok()).unwrap_or_default();
        (nanos >> 20, text("reason"), text("message"))
    });
    let mut text = String::new();
    for event in &events {
        let word = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let count = event["count"].as_u64().unwrap_or(1);
        let message = match event["involvedObject"]["uid"].as_str().filter(|uid| !uid.is_empty()) {
            Some(uid) => word("message").replace(uid, "UID"),
            None => word("message"),
        };
        line(&mut text, format_args!("{} {} x{count} {message}", word("type"), word("reason")));
    }
    text
}

fn is_of(event: &Value, key: &ObjectKey) -> bool {
    let kind = event["involvedObject"]["kind"].as_str().unwrap_or_default();
    let namespace = event["involvedObject"]["namespace"].as_str().unwrap_or_default();
    crate::manifest::resource(kind).group_resource == key.resource && namespace == &*key.namespace
}

/// A line for each condition: `Available=True MinimumReplicasAvailable`.
pub(crate) fn conditions(view: &View, key: &ObjectKey) -> String {
    let object = view.object(key).map(|object| object.value(None)).unwrap_or_default();
    let mut text = String::new();
    for condition in object["status"]["conditions"].as_array().into_iter().flatten() {
        let word = |field: &str| condition[field].as_str().unwrap_or_default();
        let what = format!("{}={} {}", word("type"), word("status"), word("reason"));
        line(&mut text, format_args!("{}", what.trim_end()));
    }
    text
}

/// A line for each pod (of a Deployment, with `owner`): image, node and state. Names are drawn, so that they are left out
/// for a Deployment's.
pub(crate) fn pods(view: &View, owner: Option<&ObjectKey>) -> String {
    let mut lines = Vec::new();
    for pod in view.list(&PODS, None) {
        if owner.is_some_and(|owner| !is_owned(view, pod, owner)) {
            continue;
        }
        let value = pod.value(None);
        let name = if owner.is_none() { format!("{} ", pod.key().name) } else { String::new() };
        let going = if pod.metadata().deletion_timestamp.is_some() { " terminating" } else { "" };
        let image = value["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
        let node = value["spec"]["nodeName"].as_str().unwrap_or("-");
        lines.push(format!("{name}{image} {node} {}{going}", state(&value["status"])));
    }
    lines.sort();
    lines.into_iter().fold(String::new(), |text, line| text + &line + "\n")
}

/// Whether a Deployment (or ReplicaSet) owns a pod.
fn is_owned(view: &View, pod: &Object, owner: &ObjectKey) -> bool {
    let controller = |object: &Object| {
        let owners = &object.metadata().owner_references;
        owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.name.clone())
    };
    let Some(set) = controller(pod) else { return false };
    if owner.resource == REPLICA_SETS {
        return set == *owner.name;
    }
    let set = view.object(&ObjectKey::new(REPLICA_SETS, &pod.key().namespace, &set));
    set.and_then(|set| controller(set)).is_some_and(|deployment| deployment == *owner.name)
}

/// Whether every Deployment is as it should be, and nothing is on its way out.
pub(crate) fn is_converged(view: &View) -> bool {
    let rolled_out = |deployment: &Value| {
        let number = |part: &str, field: &str| deployment[part][field].as_i64().unwrap_or(0);
        let wanted = number("spec", "replicas");
        let ready = ["replicas", "updatedReplicas", "availableReplicas"].map(|field| number("status", field));
        number("status", "observedGeneration") == number("metadata", "generation") && ready == [wanted; 3]
    };
    view.list(&DEPLOYMENTS, None).all(|deployment| rolled_out(&deployment.value(None)))
        && view
            .resources()
            .iter()
            .all(|resource| view.list(resource, None).all(|object| object.metadata().deletion_timestamp.is_none()))
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes any text");
}
