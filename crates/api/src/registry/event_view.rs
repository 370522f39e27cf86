//! Events as `events.k8s.io/v1` shows them: the same objects as core/v1's, with other names for some fields.

use serde_json::{Map, Value};

use super::Resource;
use crate::resources::EVENTS;

/// The names of a field in core/v1, which is what is stored, and in events.k8s.io/v1.
const NAMES: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

impl Resource {
    /// Turns an object of this resource into what is stored; only a view (see [`Self::is_view`]) changes it.
    pub fn to_stored(&self, object: &mut Value) {
        self.rename(object, |(stored, shown)| (shown, stored));
    }

    /// Turns what is stored into an object of this resource; only a view changes it.
    pub fn from_stored(&self, object: &mut Value) {
        self.rename(object, |(stored, shown)| (stored, shown));
    }

    fn rename(
        &self,
        object: &mut Value,
        direction: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
    ) {
        if !self.is_view() || self.group_resource != EVENTS {
            return;
        }
        let Some(map) = object.as_object_mut() else { return };
        let mut renamed = Map::new();
        for (old, new) in NAMES.map(direction) {
            if let Some(value) = map.remove(old) {
                renamed.insert(new.to_owned(), value);
            }
        }
        map.append(&mut renamed);
    }
}
