//! Endpoints, for clients from before EndpointSlices: one object a Service, with at most a thousand addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_api::resources::{ENDPOINTS, ENDPOINTS_KIND, PODS, SERVICES};
use coracle_api::{Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{delete, list, patch, read};
use crate::pod::PodEntry;
use crate::service::{self, hostname, is_headless, publishes_unready, services_of_pod, target_reference};
use crate::{Action, Context, Controller, Outcome, Watch};

/// How many addresses an Endpoints object holds: Kubernetes' bound.
const ADDRESSES_MAX: usize = 1000;
/// How long a service rests per pod between two looks at all of its pods.
const REST_PER_POD: Duration = Duration::from_micros(5);
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The Endpoints controller.
#[derive(Debug, Default)]
pub struct EndpointsController;

impl Controller for EndpointsController {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(SERVICES), Watch::of(PODS, services_of_pod), Watch::of(ENDPOINTS, service_of_endpoints)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let endpoints = ObjectKey::new(ENDPOINTS, &key.namespace, &key.name);
        let current = read(context.view, &endpoints);
        let service = read(context.view, key).filter(|(object, _)| object.metadata().deletion_timestamp.is_none());
        let Some((object, value)) = service else {
            // What a user wrote for a service that never was stays.
            let ours = current.filter(|(object, _)| is_ours(object));
            return ours.map(|(object, _)| delete(&object, None)).into_iter().collect::<Vec<_>>().into();
        };
        let Some(selector) = service::selector(&value) else { return Outcome::default() };
        let pods = service::pods(context.view, &key.namespace, &selector);
        let rest = REST_PER_POD * pods.len() as u32;
        let (subsets, truncated) = subsets(&object, &value, &pods);
        let labels = labels(&object, &value);
        let now = context.now.wall.rfc3339();
        let action = match current {
            None => Some(create(endpoints, &labels, &subsets, truncated, &now)),
            Some((current, value)) => update(&current, &value, &labels, &subsets, truncated, &now),
        };
        Outcome { actions: action.into_iter().collect(), requeue_after: None, rest }
    }
}

fn is_ours(endpoints: &Object) -> bool {
    endpoints.metadata().labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER)
}

fn service_of_endpoints(_: &View, endpoints: &Object) -> Vec<ObjectKey> {
    vec![ObjectKey::new(SERVICES, &endpoints.key().namespace, &endpoints.key().name)]
}

fn labels(service: &Object, value: &Value) -> Value {
    let mut labels = json!(service.metadata().labels);
    labels[MANAGED_BY] = MANAGER.into();
    if is_headless(value) {
        labels[HEADLESS] = "".into();
    }
    labels
}

fn create(key: ObjectKey, labels: &Value, subsets: &[Value], truncated: bool, now: &str) -> Action {
    let mut annotations = json!({LAST_CHANGE: now});
    if truncated {
        annotations[OVER_CAPACITY] = "truncated".into();
    }
    let mut object = json!({
        "kind": "Endpoints",
        "apiVersion": ENDPOINTS_KIND.api_version(),
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "labels": labels, "annotations": annotations},
    });
    if !subsets.is_empty() {
        object["subsets"] = subsets.into();
    }
    Action::Create { key, object }
}

fn update(
    current: &Object,
    value: &Value,
    labels: &Value,
    subsets: &[Value],
    truncated: bool,
    now: &str,
) -> Option<Action> {
    let capacity = if truncated { Value::from("truncated") } else { Value::Null };
    let same = list(&value["subsets"]) == subsets
        && json!(current.metadata().labels) == *labels
        && value["metadata"]["annotations"][OVER_CAPACITY] == capacity;
    if same {
        return None;
    }
    let mut changed = labels.clone();
    for name in current.metadata().labels.keys().filter(|name| labels.get(name.as_str()).is_none()) {
        changed[name] = Value::Null;
    }
    let metadata = json!({"labels": changed, "annotations": {LAST_CHANGE: now, OVER_CAPACITY: capacity}});
    let subsets = if subsets.is_empty() { Value::Null } else { subsets.into() };
    Some(patch(current, None, json!({"metadata": metadata, "subsets": subsets})))
}

/// The addresses that have the same ports.
#[derive(Default)]
struct Group {
    ports: Vec<Value>,
    ready: Vec<Value>,
    unready: Vec<Value>,
}

/// Addresses grouped by the ports they have, ready ones apart; ready ones stay when there are too many.
fn subsets(service: &Object, value: &Value, pods: &[PodEntry]) -> (Vec<Value>, bool) {
    let unready_counts = publishes_unready(value);
    let mut pods: Vec<&PodEntry> = pods.iter().filter(|entry| unready_counts || !entry.is_going()).collect();
    let truncated = pods.len() > ADDRESSES_MAX;
    if truncated {
        pods.sort_by_key(|entry| !entry.pod.is_ready());
        pods.truncate(ADDRESSES_MAX);
    }
    pods.sort_by(|a, b| a.pod.status.pod_ip.cmp(&b.pod.status.pod_ip));
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for entry in pods {
        let mut ports = service::ports(value, &entry.pod);
        ports.iter_mut().for_each(drop_empty_name);
        let group =
            groups.entry(Value::from(ports.clone()).to_string()).or_insert_with(|| Group { ports, ..Group::default() });
        let ready = unready_counts || entry.pod.is_ready();
        let addresses = if ready { &mut group.ready } else { &mut group.unready };
        addresses.push(address(service, entry));
    }
    let subsets = groups.into_values().map(|Group { ports, ready, unready }| {
        let mut subset = json!({});
        for (name, items) in [("addresses", ready), ("notReadyAddresses", unready), ("ports", ports)] {
            if !items.is_empty() {
                subset[name] = items.into();
            }
        }
        subset
    });
    (subsets.collect(), truncated)
}

/// The name of a port is left out when it is empty, unlike in EndpointSlices.
fn drop_empty_name(port: &mut Value) {
    if port["name"] == ""
        && let Some(map) = port.as_object_mut()
    {
        map.remove("name");
    }
}

fn address(service: &Object, entry: &PodEntry) -> Value {
    let mut address = json!({"ip": entry.pod.status.pod_ip, "targetRef": target_reference(entry)});
    if let Some(hostname) = hostname(service, &entry.pod) {
        address["hostname"] = hostname.into();
    }
    if !entry.pod.spec.node_name.is_empty() {
        address["nodeName"] = entry.pod.spec.node_name.as_str().into();
    }
    address
}

#[cfg(test)]
mod tests;
