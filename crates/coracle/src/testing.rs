//! A view of objects that a test writes down, for what only reads.

use coracle_api::resources as r;
use coracle_api::{Attributes, GroupResource, ObjectKey, canonical_json};
use coracle_base::Timestamp;
use coracle_store::{Entry, Store, StoreOptions, Transaction, View, Write};
use serde_json::Value;

/// The resource of a kind that tests use.
#[track_caller]
fn resource(kind: &str) -> GroupResource {
    match kind {
        "EndpointSlice" => r::ENDPOINT_SLICES,
        "Ingress" => r::INGRESSES,
        "IngressClass" => r::INGRESS_CLASSES,
        "Namespace" => r::NAMESPACES,
        "NetworkPolicy" => r::NETWORK_POLICIES,
        "Node" => r::NODES,
        "Pod" => r::PODS,
        "Secret" => r::SECRETS,
        "Service" => r::SERVICES,
        other => panic!("{other} is none of the kinds that tests use"),
    }
}

/// The view of a store that has these objects.
#[track_caller]
pub(crate) fn view_of(objects: &[Value]) -> View {
    let mut store = Store::new(StoreOptions::default());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let put = |object: &Value| {
        let meta = &object["metadata"];
        let key = ObjectKey::new(resource(&text(&object["kind"])), &text(&meta["namespace"]), &text(&meta["name"]));
        let attribute = |field: &str| (format!("spec.{field}"), text(&object["spec"][field]));
        let attributes = Attributes::from([attribute("clusterIP"), attribute("nodeName")]);
        Write::Put { key, body: canonical_json(object).into(), attributes }
    };
    let transaction = Transaction { writes: objects.iter().map(put).collect(), ..Transaction::default() };
    store.apply(1, &Entry { time: Timestamp::EPOCH, transactions: vec![transaction] }).remove(0).unwrap();
    store.view()
}
