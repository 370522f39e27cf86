//! The part of `ObjectMeta` that the store, the garbage collector and every list need, read once when an object is written.

use std::collections::BTreeMap;

use coracle_base::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Uid;

/// `metav1.OwnerReference`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// The owner's `apiVersion`.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name, in the dependent's namespace or cluster-scoped.
    pub name: String,
    /// The owner's uid.
    pub uid: Uid,
    /// Whether the owner is the managing controller.
    #[serde(default)]
    pub controller: Option<bool>,
    /// Whether a foreground deletion of the owner waits for this dependent.
    #[serde(default)]
    pub block_owner_deletion: Option<bool>,
}

/// What is read out of an object's `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// `metadata.uid`, empty when there is none.
    pub uid: Option<Uid>,
    /// `metadata.generation`, zero where the kind has none.
    pub generation: i64,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    pub owner_references: Vec<OwnerReference>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<String>,
    /// `metadata.creationTimestamp`.
    pub creation_timestamp: Option<Timestamp>,
    /// `metadata.deletionTimestamp`: when the object's grace ends; the object is going away.
    pub deletion_timestamp: Option<Timestamp>,
    /// `metadata.deletionGracePeriodSeconds`.
    pub deletion_grace_period_seconds: Option<i64>,
}

impl Metadata {
    /// Reads the metadata of an object; what is absent or of another type counts as absent.
    pub fn of(object: &Value) -> Self {
        let meta = &object["metadata"];
        let time = |name: &str| meta[name].as_str().and_then(|text| Timestamp::parse(text).ok());
        let strings = |name: &str| -> Vec<String> {
            meta[name].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        Self {
            uid: meta["uid"].as_str().map(Uid::from),
            generation: meta["generation"].as_i64().unwrap_or(0),
            labels: string_map(&meta["labels"]),
            owner_references: meta["ownerReferences"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|reference| OwnerReference::deserialize(reference).ok())
                .collect(),
            finalizers: strings("finalizers"),
            creation_timestamp: time("creationTimestamp"),
            deletion_timestamp: time("deletionTimestamp"),
            deletion_grace_period_seconds: meta["deletionGracePeriodSeconds"].as_i64(),
        }
    }

    /// Reads the metadata out of an object's JSON without building the rest of it; the rest is only checked to be JSON.
    pub(crate) fn of_json(object: &str) -> Result<Self, serde_json::Error> {
        match serde_json::from_str::<Regular>(object) {
            Ok(Regular { metadata }) => Ok(metadata.into()),
            // Something is of another type than it should be, or the text is no JSON: the tolerant way tells.
            Err(_) => Ok(Self::of(&serde_json::from_str(object)?)),
        }
    }

    /// The reference of the managing controller, where there is one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|reference| reference.controller == Some(true))
    }
}

/// An object all of whose metadata has the right types: read in one pass, its other fields skipped.
#[derive(Deserialize)]
struct Regular {
    metadata: RegularMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegularMetadata {
    uid: Option<Uid>,
    generation: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    deletion_grace_period_seconds: Option<i64>,
}

impl From<RegularMetadata> for Metadata {
    fn from(meta: RegularMetadata) -> Self {
        let time = |text: Option<String>| text.and_then(|text| Timestamp::parse(&text).ok());
        Self {
            uid: meta.uid,
            generation: meta.generation.unwrap_or(0),
            labels: meta.labels.unwrap_or_default(),
            owner_references: meta.owner_references.unwrap_or_default(),
            finalizers: meta.finalizers.unwrap_or_default(),
            creation_timestamp: time(meta.creation_timestamp),
            deletion_timestamp: time(meta.deletion_timestamp),
            deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        }
    }
}

fn string_map(value: &Value) -> BTreeMap<String, String> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn both_ways(object: &Value) -> Metadata {
        let read = Metadata::of_json(&object.to_string()).unwrap();
        assert_eq!(read, Metadata::of(object));
        read
    }

    #[test]
    fn metadata_reads_the_same_from_text_as_from_a_value() {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u1", "controller": true});
        let read = both_ways(&json!({"spec": {"x": [1, null]}, "metadata": {
            "name": "web-0", "uid": "u2", "generation": 3, "labels": {"app": "web"}, "ownerReferences": [owner],
            "finalizers": ["a/b"], "creationTimestamp": "2026-11-22T10:31:34Z",
            "deletionTimestamp": "2026-11-22T10:32:04Z", "deletionGracePeriodSeconds": 30, "managedFields": [{}]}}));
        assert_eq!(read.controller().unwrap().name, "web");
        assert_eq!(read.deletion_grace_period_seconds, Some(30));
        both_ways(&json!({"metadata": {"labels": null, "creationTimestamp": null}}));
    }

    #[test]
    fn what_is_of_another_type_counts_as_absent() {
        let read = both_ways(&json!({"metadata": {"uid": "u", "labels": {"a": 1, "b": "c"}, "generation": "x",
            "ownerReferences": [{"name": "incomplete"}], "finalizers": [1, "f"], "deletionTimestamp": "soon"}}));
        assert_eq!((read.labels.len(), read.finalizers.len(), read.owner_references.len()), (1, 1, 0));
        both_ways(&json!({"metadata": 1}));
        both_ways(&json!({}));
        assert!(Metadata::of_json("{\"metadata\":{}").is_err());
    }
}
