//! The Leases of nodes: `kube-node-lease` shows when each node was last heard of, though heartbeats are never stored.
//!
//! They are made up for GET and LIST from what the process knows; a Lease that somebody stored under a node's name comes before.
//! A watch tells only of stored ones: a node that is alive would otherwise be an event every ten seconds for ever. Writes to them
//! find nothing there.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use coracle_api::resources::{LEASES, NODES};
use coracle_api::{Attributes, GroupResource, Object, ObjectKey};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::json;

/// Where the Leases are.
const NAMESPACE: &str = "kube-node-lease";
/// What the kubelet writes, by default.
const DURATION_SECONDS: i64 = 40;

/// When each node was last heard of: shared by who hears of nodes and who answers requests.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Arc<RwLock<BTreeMap<String, Timestamp>>>);

impl Heartbeats {
    /// Notes a sign of life of a node, if there is such a Node: a stranger's must not fill the memory.
    pub fn note(&self, view: &View, node: &str, now: Timestamp) {
        let exists = |node: &str| view.object(&ObjectKey::new(NODES, "", node)).is_some();
        if !exists(node) {
            return;
        }
        let mut heard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if heard.insert(node.to_owned(), now).is_none() {
            // One is new, so others may be gone for good.
            heard.retain(|node, _| exists(node));
        }
    }

    /// The Lease of a node, made up; `None` for a Lease of another kind, a node that is not there or was never heard of.
    pub(crate) fn lease(&self, view: &View, key: &ObjectKey) -> Option<Arc<Object>> {
        if key.resource != LEASES || &*key.namespace != NAMESPACE {
            return None;
        }
        let heard = *self.0.read().unwrap_or_else(PoisonError::into_inner).get(&*key.name)?;
        let node = view.object(&ObjectKey::new(NODES, "", &key.name))?;
        let (name, metadata) = (&*key.name, node.metadata());
        let uid = metadata.uid.as_ref()?.as_str();
        let mut value = json!({
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": format!("{uid}-lease"),
                "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
            },
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": heard.rfc3339_micro(),
            },
        });
        if let Some(created) = metadata.creation_timestamp {
            value["metadata"]["creationTimestamp"] = json!(created.rfc3339());
        }
        Some(Arc::new(Object::new(key.clone(), view.revision(), value, Attributes::new())))
    }

    /// The Leases that nobody stored, of a resource and namespace (`None`: all), in key order.
    pub(crate) fn leases(&self, view: &View, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Object>> {
        if *resource != LEASES || namespace.is_some_and(|namespace| namespace != NAMESPACE) {
            return Vec::new();
        }
        let keys = view.list(&NODES, None).map(|node| ObjectKey::new(LEASES, NAMESPACE, &node.key().name));
        keys.filter(|key| view.object(key).is_none()).filter_map(|key| self.lease(view, &key)).collect()
    }
}
