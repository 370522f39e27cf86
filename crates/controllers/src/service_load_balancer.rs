//! Services of type LoadBalancer: the nodes are the load balancer. Every node opens their ports, so their address is that of all nodes
//! that are Ready, or with the policy Local of those that have an endpoint.
//!
//! Of two services that want the same port the older has it, and the other has no address; who opens the ports says so in an Event.

use std::collections::BTreeSet;

use coracle_api::resources::{ENDPOINT_SLICES, NODES, SERVICES};
use coracle_api::{Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{list, patch_status, read, text, value_of};
use crate::{Context, Controller, Outcome, Watch};

const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// A node with this label is behind no load balancer.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A node with this annotation has no machine, and opens nothing.
const FAKE: &str = "kwok.x-k8s.io/node";

/// The controller.
#[derive(Debug)]
pub struct ServiceLoadBalancerController;

impl Controller for ServiceLoadBalancerController {
    fn name(&self) -> &'static str {
        "service-lb-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::of(SERVICES, with_neighbours),
            Watch::of(NODES, |view, _| balanced(view)),
            Watch::of(ENDPOINT_SLICES, service_of_slice),
        ]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some((object, value)) = read(context.view, key) else { return Outcome::default() };
        if !is_ours(&value) || object.metadata().deletion_timestamp.is_some() {
            return Outcome::default();
        }
        let is_taken = has_taken_port(context.view, &object, &value);
        let addresses = if is_taken { BTreeSet::new() } else { addresses(context.view, key, &value) };
        let ingress: Vec<Value> =
            addresses.into_iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
        let balancer = if ingress.is_empty() { json!({}) } else { json!({"ingress": ingress}) };
        let before = list(&value["status"]["loadBalancer"]["ingress"]);
        let mut actions = Vec::new();
        if before != ingress.as_slice() {
            // A merge patch keeps what it does not name.
            let wanted = if ingress.is_empty() { json!({"ingress": null}) } else { balancer };
            actions.extend(patch_status(&object, &value, json!({ "loadBalancer": wanted })));
        }
        Outcome { actions, ..Outcome::default() }
    }
}

/// Whether the nodes are its load balancer: one with a class is somebody else's.
fn is_ours(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["loadBalancerClass"].is_null()
}

/// Every service that the nodes balance.
fn balanced(view: &View) -> Vec<ObjectKey> {
    let ours = view.list(&SERVICES, None).filter(|object| value_of(view, object).is_some_and(|value| is_ours(&value)));
    ours.map(|object| object.key().clone()).collect()
}

/// A service, and where it is or was balanced those that may want its ports.
fn with_neighbours(view: &View, service: &Object) -> Vec<ObjectKey> {
    if !is_ours(&service.value(None)) {
        return Vec::new();
    }
    let mut keys = balanced(view);
    if !keys.contains(service.key()) {
        keys.push(service.key().clone());
    }
    keys
}

fn service_of_slice(view: &View, slice: &Object) -> Vec<ObjectKey> {
    let name = slice.metadata().labels.get(SERVICE_NAME);
    let key = name.map(|name| ObjectKey::new(SERVICES, &slice.key().namespace, name));
    let stays_local = |key: &ObjectKey| read(view, key).is_some_and(|(_, value)| is_ours(&value) && is_local(&value));
    key.filter(stays_local).into_iter().collect()
}

fn is_local(service: &Value) -> bool {
    service["spec"]["externalTrafficPolicy"] == "Local"
}

/// Whether an older service has one of the service's ports.
fn has_taken_port(view: &View, service: &Object, value: &Value) -> bool {
    let rank = |object: &Object| (object.metadata().creation_timestamp, object.key().clone());
    let ports = ports(value);
    view.list(&SERVICES, None)
        .filter(|other| rank(other) < rank(service) && other.metadata().deletion_timestamp.is_none())
        .filter_map(|other| value_of(view, other))
        .any(|value| is_ours(&value) && !self::ports(&value).is_disjoint(&ports))
}

/// `80/TCP` and so on.
fn ports(service: &Value) -> BTreeSet<String> {
    let protocol = |port: &Value| port["protocol"].as_str().unwrap_or("TCP").to_owned();
    list(&service["spec"]["ports"]).iter().map(|port| format!("{}/{}", port["port"], protocol(port))).collect()
}

/// The addresses of the nodes behind the load balancer: those outside where any node has one, else those inside.
fn addresses(view: &View, key: &ObjectKey, service: &Value) -> BTreeSet<String> {
    let local = is_local(service).then(|| nodes_with_endpoints(view, key));
    let nodes: Vec<Value> = view
        .list(&NODES, None)
        .filter(|node| local.as_ref().is_none_or(|local| local.contains(&*node.key().name)))
        .filter(|node| !node.metadata().labels.contains_key(EXCLUDED) && node.metadata().deletion_timestamp.is_none())
        .filter_map(|node| value_of(view, node).map(|value| (*value).clone()))
        .filter(|node| is_ready(node) && node["metadata"]["annotations"][FAKE].is_null())
        .collect();
    let of_type = |wanted: &str| -> BTreeSet<String> {
        let all = nodes.iter().flat_map(|node| list(&node["status"]["addresses"]));
        all.filter(|address| address["type"] == wanted).map(|address| text(&address["address"]).to_owned()).collect()
    };
    let outside = of_type("ExternalIP");
    if outside.is_empty() { of_type("InternalIP") } else { outside }
}

fn is_ready(node: &Value) -> bool {
    let conditions = list(&node["status"]["conditions"]);
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn nodes_with_endpoints(view: &View, key: &ObjectKey) -> BTreeSet<String> {
    let of_service = |slice: &&std::sync::Arc<Object>| {
        slice.metadata().labels.get(SERVICE_NAME).map(String::as_str) == Some(&*key.name)
    };
    let slices = view.list(&ENDPOINT_SLICES, Some(&key.namespace)).filter(of_service);
    let values = slices.filter_map(|slice| value_of(view, slice));
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] != false;
    values
        .flat_map(|slice| {
            let endpoints = list(&slice["endpoints"]).iter().filter(ready);
            endpoints.filter_map(|e| e["nodeName"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests;
