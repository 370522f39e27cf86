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

    /// The reference of the managing controller, where there is one.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|reference| reference.controller == Some(true))
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
