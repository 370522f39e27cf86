//! What a cluster knows of itself: one object of a resource of Coracle's own, in the same store as everything else.

use std::collections::BTreeMap;

use coracle_api::{Attributes, GroupResource, Object, ObjectKey, canonical_json};
use coracle_raft::MemberId;
use coracle_store::{Precondition, Transaction, View, Write};
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
    /// The least level of its members when that was last looked at: what all of them understand. It never falls.
    pub feature_level: u32,
    /// The level of each member's program, as the member says.
    pub levels: BTreeMap<MemberId, u32>,
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

    /// The same, if nobody else has changed the record since this view.
    pub(crate) fn update(&self, view: &View) -> Transaction {
        let precondition = match view.object(&key()) {
            Some(before) => Precondition::At(key(), before.revision()),
            None => Precondition::Absent(key()),
        };
        Transaction { preconditions: vec![precondition], ..self.replace() }
    }

    fn read(object: &Object) -> Option<Self> {
        serde_json::from_value(object.value(None).get("spec")?.clone()).ok()
    }
}

fn key() -> ObjectKey {
    ObjectKey::new(CLUSTERS, "", NAME)
}
