//! What a cluster knows of itself: one object of a resource of Coracle's own, in the same store as everything else.

use coracle_api::{Attributes, GroupResource, Object, ObjectKey, canonical_json};
use coracle_store::{Transaction, View, Write};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The resource of the record.
pub const CLUSTERS: GroupResource = GroupResource::builtin("coracle.dev", "clusters");
/// Its only object.
const NAME: &str = "cluster";

/// A cluster, as it knows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClusterRecord {
    /// Tells lives of the cluster apart: empty in the first, and another random text after each time that it was restored or recovered.
    pub incarnation: String,
}

impl ClusterRecord {
    /// The record of a state; the default where there is none.
    pub fn of(view: &View) -> Self {
        view.object(&key()).and_then(|object| Self::read(object)).unwrap_or_default()
    }

    /// Puts the record into the state, whatever is there.
    pub(crate) fn replace(&self) -> Transaction {
        let body = json!({"metadata": {"name": NAME}, "spec": self});
        let put = Write::Put { key: key(), body: canonical_json(&body).into(), attributes: Attributes::new() };
        Transaction { writes: vec![put], ..Transaction::default() }
    }

    fn read(object: &Object) -> Option<Self> {
        serde_json::from_value(object.value(None).get("spec")?.clone()).ok()
    }
}

fn key() -> ObjectKey {
    ObjectKey::new(CLUSTERS, "", NAME)
}
