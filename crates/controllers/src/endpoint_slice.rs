//! EndpointSlices: where a Service's pods are, in slices of a hundred, so that one pod's change rewrites one slice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resources::{ENDPOINT_SLICE, ENDPOINT_SLICES, NODES, PODS, SERVICE, SERVICES};
use coracle_api::{Object, ObjectKey};
use coracle_base::Rng;
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{controller_reference, delete, list, patch, read, text, value_of};
use crate::pod::PodEntry;
use crate::service::{self, hostname, is_headless, publishes_unready, services_of_pod, target_reference};
use crate::{Action, Context, Controller, Outcome, Watch};

/// How many endpoints a slice holds: Kubernetes' default.
const SLICE_MAX: usize = 100;
/// How long a service rests per pod between two looks at all of its pods.
const REST_PER_POD: Duration = Duration::from_micros(5);
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The EndpointSlice controller.
#[derive(Debug)]
pub struct EndpointSliceController {
    rng: Rng,
}

impl EndpointSliceController {
    /// A controller that draws the names of slices from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self { rng }
    }
}

impl Controller for EndpointSliceController {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(SERVICES), Watch::of(PODS, services_of_pod), Watch::of(ENDPOINT_SLICES, service_of_slice)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        // Slices of a service that is gone are the garbage collector's.
        let Some((object, value)) = read(context.view, key) else { return Outcome::default() };
        if object.metadata().deletion_timestamp.is_some() {
            return Outcome::default();
        }
        let Some(selector) = service::selector(&value) else { return Outcome::default() };
        let pods = service::pods(context.view, &key.namespace, &selector);
        let rest = REST_PER_POD * pods.len() as u32;
        let plan = Plan { view: context.view, service: &object, value: &value };
        Outcome { actions: plan.actions(&pods, &mut self.rng), requeue_after: None, rest }
    }
}

fn service_of_slice(_: &View, slice: &Object) -> Vec<ObjectKey> {
    let labels = &slice.metadata().labels;
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours);
    name.map(|name| ObjectKey::new(SERVICES, &slice.key().namespace, name)).into_iter().collect()
}

/// Endpoints in slices, by the ports they have.
type Groups = BTreeMap<String, (Vec<Value>, Vec<Value>)>;

struct Slice {
    object: Arc<Object>,
    value: Arc<Value>,
    endpoints: Vec<Value>,
}

struct Plan<'a> {
    view: &'a View,
    service: &'a Object,
    value: &'a Value,
}

impl Plan<'_> {
    fn actions(&self, pods: &[PodEntry], rng: &mut Rng) -> Vec<Action> {
        let mut groups: Groups = BTreeMap::new();
        for entry in pods {
            let ports = service::ports(self.value, &entry.pod);
            let (_, endpoints) = groups.entry(Value::from(ports.clone()).to_string()).or_insert((ports, Vec::new()));
            endpoints.push(self.endpoint(entry));
        }
        if groups.is_empty() {
            // A slice without endpoints says that the service is known and has nobody.
            groups.insert("[]".into(), (Vec::new(), Vec::new()));
        }
        let mut existing = self.existing();
        let mut actions = Vec::new();
        for (ports, endpoints) in groups.into_values() {
            let (of_group, others) =
                existing.into_iter().partition(|slice: &Slice| list(&slice.value["ports"]) == ports.as_slice());
            existing = others;
            self.place(&ports, endpoints, of_group, rng, &mut actions);
        }
        actions.extend(existing.iter().map(|slice| delete(&slice.object, None)));
        actions
    }

    fn existing(&self) -> Vec<Slice> {
        let service = &self.service.key().name;
        self.view
            .list(&ENDPOINT_SLICES, Some(&self.service.key().namespace))
            .filter(|object| service_of_slice(self.view, object).first().is_some_and(|key| key.name == *service))
            .filter(|object| object.metadata().deletion_timestamp.is_none())
            .filter_map(|object| {
                Some(Slice { object: Arc::clone(object), value: value_of(self.view, object)?, endpoints: Vec::new() })
            })
            .collect()
    }

    /// Leaves every endpoint in the slice it is in, fills the holes with new ones, and opens slices for the rest.
    fn place(
        &self,
        ports: &[Value],
        endpoints: Vec<Value>,
        mut slices: Vec<Slice>,
        rng: &mut Rng,
        actions: &mut Vec<Action>,
    ) {
        let uid = |endpoint: &Value| text(&endpoint["targetRef"]["uid"]).to_owned();
        let mut wanted: BTreeMap<String, Value> = endpoints.iter().map(|e| (uid(e), e.clone())).collect();
        for slice in &mut slices {
            let stay = list(&slice.value["endpoints"]).iter().filter_map(|old| wanted.remove(&uid(old)));
            slice.endpoints = stay.collect();
        }
        // In pod order, not in uid order.
        let mut rest = endpoints.into_iter().filter(|endpoint| wanted.contains_key(&uid(endpoint))).peekable();
        for slice in &mut slices {
            let room = SLICE_MAX.saturating_sub(slice.endpoints.len());
            slice.endpoints.extend(rest.by_ref().take(room));
        }
        let nothing_else = slices.is_empty() && rest.peek().is_none();
        let keeps_none = slices.iter().all(|slice| slice.endpoints.is_empty()) && rest.peek().is_none();
        for (index, slice) in slices.iter().enumerate() {
            if slice.endpoints.is_empty() && (!keeps_none || index > 0) {
                actions.push(delete(&slice.object, None));
            } else {
                actions.extend(self.update(slice));
            }
        }
        if nothing_else {
            actions.push(self.create(ports, Vec::new(), rng));
        }
        while rest.peek().is_some() {
            let chunk: Vec<Value> = rest.by_ref().take(SLICE_MAX).collect();
            actions.push(self.create(ports, chunk, rng));
        }
    }

    fn update(&self, slice: &Slice) -> Option<Action> {
        let labels = self.labels();
        let mut changed = serde_json::Map::new();
        for (name, value) in labels.as_object().into_iter().flatten() {
            if slice.object.metadata().labels.get(name).map(String::as_str) != value.as_str() {
                changed.insert(name.clone(), value.clone());
            }
        }
        let same = list(&slice.value["endpoints"]) == slice.endpoints.as_slice();
        if same && changed.is_empty() {
            return None;
        }
        Some(patch(&slice.object, None, json!({"metadata": {"labels": changed}, "endpoints": slice.endpoints})))
    }

    fn create(&self, ports: &[Value], endpoints: Vec<Value>, rng: &mut Rng) -> Action {
        let (namespace, service) = (&self.service.key().namespace, &self.service.key().name);
        let name = format!("{service}-{}", rng.name_suffix(5));
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": ENDPOINT_SLICE.api_version(),
            "metadata": {
                "name": name,
                "generateName": format!("{service}-"),
                "namespace": &**namespace,
                "labels": self.labels(),
                "ownerReferences": [controller_reference(self.service, &SERVICE)],
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        });
        Action::Create { key: ObjectKey::new(ENDPOINT_SLICES, namespace, &name), object }
    }

    fn labels(&self) -> Value {
        let mut labels = json!(self.service.metadata().labels);
        labels[SERVICE_NAME] = (*self.service.key().name).into();
        labels[MANAGED_BY] = MANAGER.into();
        if is_headless(self.value) {
            labels[HEADLESS] = "".into();
        }
        labels
    }

    fn endpoint(&self, entry: &PodEntry) -> Value {
        let pod = &entry.pod;
        let (serving, terminating) = (pod.is_ready(), entry.is_going());
        let ready = publishes_unready(self.value) || (serving && !terminating);
        let mut endpoint = json!({
            "addresses": [pod.status.pod_ip],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "targetRef": target_reference(entry),
        });
        if let Some(hostname) = hostname(self.service, pod) {
            endpoint["hostname"] = hostname.into();
        }
        if !pod.spec.node_name.is_empty() {
            endpoint["nodeName"] = pod.spec.node_name.as_str().into();
            let node = self.view.object(&ObjectKey::new(NODES, "", &pod.spec.node_name));
            if let Some(zone) = node.and_then(|node| node.metadata().labels.get("topology.kubernetes.io/zone")) {
                endpoint["zone"] = zone.as_str().into();
            }
        }
        if ready {
            self.hint(&mut endpoint);
        }
        endpoint
    }

    /// Says for whom an endpoint is meant first, where `trafficDistribution` asks for that.
    fn hint(&self, endpoint: &mut Value) {
        let wanted = text(&self.value["spec"]["trafficDistribution"]);
        let named = |value: &Value| value.as_str().map(|name| json!([{ "name": name }]));
        let zones = named(&endpoint["zone"]);
        let nodes = named(&endpoint["nodeName"]).filter(|_| wanted == "PreferSameNode");
        let is_near = matches!(wanted, "PreferClose" | "PreferSameZone" | "PreferSameNode");
        if let Some(zones) = zones.filter(|_| is_near) {
            endpoint["hints"]["forZones"] = zones;
        }
        if let Some(nodes) = nodes {
            endpoint["hints"]["forNodes"] = nodes;
        }
    }
}

#[cfg(test)]
mod tests;
