//! Revisions: which set has which template, the annotations that `kubectl rollout history` and `undo` read, and how long old sets stay.

use coracle_api::canonical_json;
use coracle_api::resources::{REPLICA_SET, REPLICA_SETS};
use coracle_api::{ObjectKey, Uid};
use serde_json::{Map, Value, json};

use super::{ReplicaSet, Rollout};
use crate::object::{controller_reference, count, delete, number, patch};
use crate::{Action, Context};

/// How many pods the deployment wanted when a set was last sized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it allowed at most then.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";
const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of a deployment that are not its sets'.
const NOT_COPIED: [&str; 6] = [
    DESIRED,
    MAX,
    REVISION,
    REVISION_HISTORY,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
];
/// How many bytes of earlier revisions a set keeps.
const HISTORY_BYTES_MAX: usize = 2000;
/// How many old sets are kept where `revisionHistoryLimit` says nothing.
const HISTORY_DEFAULT: i64 = 10;
/// The label that tells the pods of one set from those of another.
const HASH_LABEL: &str = "pod-template-hash";
/// No vowels, so that no word appears: the alphabet of generated names.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Whether a set was made from the deployment's template: equal but for the hash.
pub(super) fn same_template(set: &Value, deployment: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    prune(&mut template);
    let mut wanted = deployment["spec"]["template"].clone();
    if let Some(labels) = wanted["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    prune(&mut wanted);
    template == wanted
}

/// Empty metadata is the same whether it is written or not.
fn prune(template: &mut Value) {
    if let Some(metadata) = template["metadata"].as_object_mut() {
        metadata.retain(|_, value| !value.is_null() && value.as_object().is_none_or(|map| !map.is_empty()));
    }
}

/// A hash of a template: FNV-1a over its canonical bytes and the number of collisions, in digits of [`ALPHABET`].
pub(super) fn template_hash(template: &Value, collisions: i64) -> String {
    let mut bytes = canonical_json(template);
    if collisions > 0 {
        bytes.extend(collisions.to_le_bytes());
    }
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{hash:010}").bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

impl ReplicaSet {
    fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

impl Rollout<'_> {
    /// Keeps the new set's annotations and the deployment's revision right. Without a new set, makes it if `create` is asked for;
    /// whether there was a set already.
    pub(super) fn keep_revisions(&mut self, create: bool) -> bool {
        let revision = 1 + self.old().map(|index| self.sets[index].revision()).max().unwrap_or(0);
        let Some(index) = self.new else {
            if create {
                self.create_set(revision);
            }
            return false;
        };
        let set = &self.sets[index];
        let mut changed = self.annotations_to_copy();
        changed.retain(|name, value| set.annotation(name) != value.as_str());
        if set.revision() < revision {
            changed.insert(REVISION.into(), revision.to_string().into());
            if let Some(history) = history_with(set) {
                changed.insert(REVISION_HISTORY.into(), history.into());
            }
        }
        let min_ready = number(&self.value["spec"]["minReadySeconds"], 0);
        let ready_differs = number(&set.value["spec"]["minReadySeconds"], 0) != min_ready;
        let revision = revision.max(set.revision());
        if !changed.is_empty() || ready_differs {
            let mut body = json!({"metadata": {"annotations": changed}});
            if ready_differs {
                body["spec"] = json!({"minReadySeconds": min_ready});
            }
            // Its size is set in the next step: two patches of one set at once would conflict.
            self.actions.push(patch(&set.object, None, body));
            self.sets[index].target = set.replicas;
        }
        self.number_deployment(revision);
        self.note_found_set();
        true
    }

    fn number_deployment(&mut self, revision: i64) {
        let text = Value::from(revision.to_string());
        if self.value["metadata"]["annotations"][REVISION] != text {
            let body = json!({"metadata": {"annotations": {REVISION: text}}});
            let key = self.object.key().clone();
            // It goes out behind the status, and without a precondition: the status has one. As a write of the status it
            // does not raise the generation, which an annotation of the Deployment itself would.
            self.numbering = Some(Action::Patch { key, subresource: Some("status"), patch: crate::Patch::Merge(body) });
        }
    }

    fn annotations_to_copy(&self) -> Map<String, Value> {
        let own = self.value["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        own.into_iter().filter(|(name, _)| !NOT_COPIED.contains(&name.as_str())).collect()
    }

    fn create_set(&mut self, revision: i64) {
        let collisions = number(&self.value["status"]["collisionCount"], 0);
        let hash = template_hash(&self.value["spec"]["template"], collisions);
        let namespace = &self.object.key().namespace;
        let key = ObjectKey::new(REPLICA_SETS, namespace, &format!("{}-{hash}", self.object.key().name));
        if self.context.view.object(&key).is_some() {
            // The name belongs to a set of another owner or template: the next hash has another number in it.
            let body = json!({"status": {"collisionCount": collisions + 1}});
            self.actions.push(patch(self.object, Some("status"), body));
            return;
        }
        let replicas = self.size_of_new_set(0);
        let mut template = self.value["spec"]["template"].clone();
        let mut selector = self.value["spec"]["selector"].clone();
        template["metadata"]["labels"][HASH_LABEL] = hash.as_str().into();
        selector["matchLabels"][HASH_LABEL] = hash.as_str().into();
        let mut annotations = self.annotations_to_copy();
        annotations.insert(REVISION.into(), revision.to_string().into());
        annotations.extend(self.size_annotations().as_object().cloned().unwrap_or_default());
        let mut spec = json!({"replicas": replicas, "selector": selector, "template": template});
        let min_ready = count(number(&self.value["spec"]["minReadySeconds"], 0));
        if !min_ready.is_null() {
            spec["minReadySeconds"] = min_ready;
        }
        let object = json!({
            "kind": "ReplicaSet",
            "apiVersion": REPLICA_SET.api_version(),
            "metadata": {
                "name": &*key.name,
                "namespace": &**namespace,
                "labels": template["metadata"]["labels"],
                "annotations": annotations,
                "ownerReferences": [controller_reference(self.object, &coracle_api::resources::DEPLOYMENT)],
            },
            "spec": spec,
        });
        let name = key.name.clone();
        self.actions.push(Action::Create { key, object });
        if replicas > 0 {
            self.actions.push(self.scaling_event(&name, 0, replicas));
        }
        self.note_new_set(&name);
        self.number_deployment(revision);
    }

    /// Deletes the old sets that are more than `revisionHistoryLimit`, of the lowest revisions, if nothing runs in them.
    pub(super) fn clean_up(&mut self) {
        let limit = number(&self.value["spec"]["revisionHistoryLimit"], HISTORY_DEFAULT);
        let alive = |set: &ReplicaSet| set.object.metadata().deletion_timestamp.is_none();
        let mut old: Vec<&ReplicaSet> = self.old().map(|index| &self.sets[index]).filter(|set| alive(set)).collect();
        let surplus = old.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        old.sort_by_key(|set| (set.revision(), set.object.metadata().creation_timestamp));
        let idle = |set: &&ReplicaSet| {
            set.replicas == 0
                && set.target == 0
                && set.reported("replicas") == 0
                && set.reported("observedGeneration") >= set.object.metadata().generation
        };
        let deletions: Vec<Action> =
            old.into_iter().take(surplus).filter(idle).map(|set| delete(&set.object, None)).collect();
        self.actions.extend(deletions);
    }
}

/// The earlier revisions of a set that becomes the newest again.
fn history_with(set: &ReplicaSet) -> Option<String> {
    let last = set.annotation(REVISION)?;
    let Some(before) = set.annotation(REVISION_HISTORY).filter(|text| !text.is_empty()) else {
        return Some(last.to_owned());
    };
    let mut history = format!("{before},{last}");
    while history.len() > HISTORY_BYTES_MAX {
        let Some((_, rest)) = history.split_once(',') else { break };
        history = rest.to_owned();
    }
    Some(history)
}

/// Whether any pod of the old sets may still run: what `Recreate` waits for.
pub(super) fn runs(context: Context<'_>, set: &ReplicaSet) -> bool {
    let pods_of = |uid: &Uid| -> bool {
        let pods = context.view.owned_by(uid).filter(|object| object.key().resource == coracle_api::resources::PODS);
        pods.filter_map(|object| crate::pod::PodEntry::of(context.view, object)).any(|entry| !entry.pod.is_terminal())
    };
    set.object.metadata().uid.as_ref().is_some_and(pods_of)
}
