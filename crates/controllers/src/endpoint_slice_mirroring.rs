//! EndpointSlices out of Endpoints that a user writes, for Services without a selector: whoever reads slices finds them too.
//!
//! Source of the rules: Kubernetes' endpointslicemirroring controller.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::resources::{ENDPOINT_SLICE, ENDPOINT_SLICES, ENDPOINTS, ENDPOINTS_KIND, SERVICES};
use coracle_api::{Object, ObjectKey};
use coracle_base::Rng;
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{controller_reference, delete, list, patch, read, text, value_of};
use crate::{Action, Context, Controller, Outcome, Watch};

/// How many addresses of one set of ports are mirrored: Kubernetes' default, and what a slice may hold.
const ENDPOINTS_MAX: usize = 1000;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Locks of leader elections were kept in Endpoints once.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The EndpointSlice mirroring controller.
#[derive(Debug)]
pub struct EndpointSliceMirroringController {
    rng: Rng,
}

impl EndpointSliceMirroringController {
    /// A controller that draws the names of slices from `rng`.
    pub fn new(rng: Rng) -> Self {
        Self { rng }
    }
}

impl Controller for EndpointSliceMirroringController {
    fn name(&self) -> &'static str {
        "endpointslicemirroring-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::own(ENDPOINTS),
            Watch::of(SERVICES, endpoints_of_service),
            Watch::of(ENDPOINT_SLICES, endpoints_of_slice),
        ]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let mut existing = existing(context.view, key);
        let endpoints = read(context.view, key).filter(|(object, value)| is_mirrored(context.view, object, value));
        let mut actions = Vec::new();
        if let Some((object, value)) = endpoints {
            for ((family, ports), endpoints) in groups(&value) {
                let ports: Value = serde_json::from_str(&ports).unwrap_or_default();
                let known = existing.iter().position(|(_, slice)| {
                    text(&slice["addressType"]) == family && list(&slice["ports"]) == list(&ports)
                });
                match known.map(|index| existing.remove(index)) {
                    Some((slice, value)) => actions.extend(update(&object, &slice, &value, &endpoints)),
                    None => actions.push(self.create(&object, family, &ports, &endpoints)),
                }
            }
        }
        actions.extend(existing.iter().map(|(slice, _)| delete(slice, None)));
        actions.into()
    }
}

impl EndpointSliceMirroringController {
    fn create(&mut self, endpoints: &Object, family: &str, ports: &Value, addresses: &[Value]) -> Action {
        let (namespace, service) = (&endpoints.key().namespace, &endpoints.key().name);
        let name = format!("{service}-{}", self.rng.name_suffix(5));
        let object = json!({
            "kind": "EndpointSlice",
            "apiVersion": ENDPOINT_SLICE.api_version(),
            "metadata": {
                "name": name,
                "generateName": format!("{service}-"),
                "namespace": &**namespace,
                "labels": labels(endpoints),
                "ownerReferences": [controller_reference(endpoints, &ENDPOINTS_KIND)],
            },
            "addressType": family,
            "endpoints": addresses,
            "ports": ports,
        });
        Action::Create { key: ObjectKey::new(ENDPOINT_SLICES, namespace, &name), object }
    }
}

fn endpoints_of_service(_: &View, service: &Object) -> Vec<ObjectKey> {
    vec![ObjectKey::new(ENDPOINTS, &service.key().namespace, &service.key().name)]
}

fn endpoints_of_slice(_: &View, slice: &Object) -> Vec<ObjectKey> {
    let labels = &slice.metadata().labels;
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours);
    name.map(|name| ObjectKey::new(ENDPOINTS, &slice.key().namespace, name)).into_iter().collect()
}

/// Whether Endpoints are a user's own, of a Service that selects no pods.
fn is_mirrored(view: &View, endpoints: &Object, value: &Value) -> bool {
    let metadata = endpoints.metadata();
    let skipped = metadata.labels.get(SKIP).is_some_and(|skip| skip == "true");
    let lock = value["metadata"]["annotations"].get(LEADER).is_some();
    let service = read(view, &ObjectKey::new(SERVICES, &endpoints.key().namespace, &endpoints.key().name));
    let selects = |service: &Value| service["spec"]["selector"].as_object().is_some_and(|map| !map.is_empty());
    metadata.deletion_timestamp.is_none()
        && !skipped
        && !lock
        && service.is_some_and(|(service, value)| service.metadata().deletion_timestamp.is_none() && !selects(&value))
}

fn existing(view: &View, endpoints: &ObjectKey) -> Vec<(Arc<Object>, Arc<Value>)> {
    view.list(&ENDPOINT_SLICES, Some(&endpoints.namespace))
        .filter(|slice| endpoints_of_slice(view, slice).first() == Some(endpoints))
        .filter(|slice| slice.metadata().deletion_timestamp.is_none())
        .filter_map(|slice| Some((Arc::clone(slice), value_of(view, slice)?)))
        .collect()
}

/// The endpoints by the type of their addresses and their ports (as JSON), ready ones first.
fn groups(endpoints: &Value) -> BTreeMap<(&'static str, String), Vec<Value>> {
    let mut groups: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for subset in list(&endpoints["subsets"]) {
        let ports: Vec<Value> = list(&subset["ports"]).iter().map(port).collect();
        let ports = Value::from(ports).to_string();
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in list(&subset[field]) {
                let Ok(ip) = text(&address["ip"]).parse::<IpAddr>() else { continue };
                let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
                let group = groups.entry((family, ports.clone())).or_default();
                if group.len() < ENDPOINTS_MAX {
                    group.push(endpoint(address, ready));
                }
            }
        }
    }
    groups
}

fn port(port: &Value) -> Value {
    let mut own = json!({"name": text(&port["name"]), "port": port["port"], "protocol": "TCP"});
    for field in ["protocol", "appProtocol"] {
        if port[field].is_string() {
            own[field] = port[field].clone();
        }
    }
    own
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}

fn labels(endpoints: &Object) -> Value {
    let mut labels = json!(endpoints.metadata().labels);
    labels[SERVICE_NAME] = (*endpoints.key().name).into();
    labels[MANAGED_BY] = MANAGER.into();
    labels
}

fn update(endpoints: &Object, slice: &Object, value: &Value, wanted: &[Value]) -> Option<Action> {
    let labels = labels(endpoints);
    let has =
        |(name, label): (&String, &Value)| slice.metadata().labels.get(name).map(String::as_str) == label.as_str();
    if list(&value["endpoints"]) == wanted && labels.as_object().into_iter().flatten().all(has) {
        return None;
    }
    Some(patch(slice, None, json!({"metadata": {"labels": labels}, "endpoints": wanted})))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::Harness;

    const SUBSETS: &str = r#"subsets=[{"addresses":[{"ip":"192.168.1.7"}],"notReadyAddresses":[{"ip":"192.168.1.8"}],"ports":[{"port":5432}]}]"#;

    fn harness(fixture: &str) -> Harness {
        Harness::new(vec![Box::new(EndpointSliceMirroringController::new(Rng::seeded(1)))], fixture)
    }

    #[test]
    fn endpoints_of_a_service_without_a_selector_are_mirrored_and_follow() {
        let mut h = harness(&format!("service/db spec.selector=null\nendpoints/db {SUBSETS}"));
        h.settle();
        let name = h.world.names(&ENDPOINT_SLICES).remove(0);
        let slice = format!("slice/{name}");
        expect![[r#"
            [{"addresses":["192.168.1.7"],"conditions":{"ready":true}},{"addresses":["192.168.1.8"],"conditions":{"ready":false}}]
            [{"name":"","port":5432,"protocol":"TCP"}]
        "#]]
        .assert_eq(&format!("{}\n{}\n", h.world.field(&slice, "endpoints"), h.world.field(&slice, "ports")));
        assert!(h.world.field(&slice, "metadata.labels").contains("\"kubernetes.io/service-name\":\"db\""));
        h.apply(r#"endpoints/db subsets=[{"addresses":[{"ip":"192.168.1.9"}],"ports":[{"port":5432}]}]"#);
        h.settle();
        assert!(h.world.field(&slice, "endpoints").contains("192.168.1.9"));
        assert_eq!(h.world.names(&ENDPOINT_SLICES), [name]);
        h.apply("endpoints/db subsets=[]");
        h.settle();
        assert!(h.world.names(&ENDPOINT_SLICES).is_empty());
    }

    #[test]
    fn endpoints_that_others_keep_are_not_mirrored() {
        let mut h = harness(&format!("service/web\nendpoints/web {SUBSETS}\nendpoints/alone {SUBSETS}"));
        h.settle();
        assert!(h.world.names(&ENDPOINT_SLICES).is_empty());
        h.apply("service/web spec.selector=null");
        h.settle();
        assert_eq!(h.world.names(&ENDPOINT_SLICES).len(), 1);
        h.apply(r#"service/web spec.selector={"app":"web"}"#);
        h.settle();
        assert!(h.world.names(&ENDPOINT_SLICES).is_empty());
    }
}
