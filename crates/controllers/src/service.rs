//! What a Service selects: the pods behind it and the ports on them, for Endpoints and EndpointSlices alike.

use std::sync::Arc;

use coracle_api::resources::{PODS, SERVICES};
use coracle_api::{LabelSelector, Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{list, text, value_of};
use crate::pod::{Container, Pod, PodEntry};

/// The services of the pod's namespace that select it.
pub(crate) fn services_of_pod(view: &View, pod: &Object) -> Vec<ObjectKey> {
    let labels = &pod.metadata().labels;
    if labels.is_empty() {
        return Vec::new();
    }
    view.list(&SERVICES, Some(&pod.key().namespace))
        .filter(|service| {
            value_of(view, service).and_then(|value| selector(&value)).is_some_and(|selector| selector.matches(labels))
        })
        .map(|service| service.key().clone())
        .collect()
}

/// The selector of a service whose endpoints are ours to keep; `None` where a user keeps them, or where there are none.
pub(crate) fn selector(service: &Value) -> Option<LabelSelector> {
    let selector = &service["spec"]["selector"];
    let selects = selector.as_object().is_some_and(|map| !map.is_empty());
    (selects && service["spec"]["type"] != "ExternalName").then(|| LabelSelector::from_map(selector))
}

/// Whether pods count before they are ready.
pub(crate) fn publishes_unready(service: &Value) -> bool {
    service["spec"]["publishNotReadyAddresses"] == true
}

/// Whether it has no address of its own.
pub(crate) fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

/// The selected pods that have an address and have not ended, in name order.
pub(crate) fn pods(view: &View, namespace: &str, selector: &LabelSelector) -> Vec<PodEntry> {
    view.list(&PODS, Some(namespace))
        .filter(|object| selector.matches(&object.metadata().labels))
        .filter_map(|object: &Arc<Object>| PodEntry::of(view, object))
        .filter(|entry| !entry.pod.is_terminal() && !entry.pod.status.pod_ip.is_empty())
        .collect()
}

/// The service's ports as they are on this pod; a named target port that the pod does not have is left out.
pub(crate) fn ports(service: &Value, pod: &Pod) -> Vec<Value> {
    list(&service["spec"]["ports"]).iter().filter_map(|port| resolve(port, pod)).collect()
}

fn resolve(port: &Value, pod: &Pod) -> Option<Value> {
    let protocol = if port["protocol"].is_null() { "TCP" } else { text(&port["protocol"]) };
    let number = match &port["targetPort"] {
        Value::String(name) => named_port(pod, name, protocol)?,
        Value::Number(number) if number.as_i64() != Some(0) => number.as_i64()?,
        _ => port["port"].as_i64()?,
    };
    let mut resolved = json!({"name": text(&port["name"]), "port": number, "protocol": protocol});
    if !port["appProtocol"].is_null() {
        resolved["appProtocol"] = port["appProtocol"].clone();
    }
    Some(resolved)
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i64> {
    let sidecar = |container: &&Container| container.restart_policy == "Always";
    let containers = pod.spec.init_containers.iter().filter(sidecar).chain(&pod.spec.containers);
    let mut ports = containers.flat_map(|container| &container.ports);
    let matches = |port: &&crate::pod::ContainerPort| {
        port.name == name && (port.protocol == protocol || (port.protocol.is_empty() && protocol == "TCP"))
    };
    ports.find(matches).map(|port| port.number)
}

/// `targetRef` of an endpoint.
pub(crate) fn target_reference(entry: &PodEntry) -> Value {
    let key = entry.object.key();
    json!({
        "kind": "Pod",
        "namespace": &*key.namespace,
        "name": &*key.name,
        "uid": entry.uid().map(coracle_api::Uid::as_str),
    })
}

/// The pod's name below the service's, where it asks for one.
pub(crate) fn hostname<'a>(service: &Object, pod: &'a Pod) -> Option<&'a str> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == *service.key().name;
    named.then_some(pod.spec.hostname.as_str())
}
