//! Namespaces that are deleted: what is in them goes first, pods before all, then they go themselves.
//!
//! It knows no kind: it deletes whatever the store has in the namespace.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_api::resources::{KEY_VALUES, NAMESPACE, NAMESPACES, PODS};
use coracle_api::{GroupResource, Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{delete, list, patch_status, read, set_condition};
use crate::{Action, Context, Controller, Outcome, Watch};

/// How many objects are deleted at once; the manager takes no more.
const BATCH_MAX: usize = 100;
/// The finalizer that this controller removes.
const KUBERNETES: &str = "kubernetes";

/// The namespace controller.
#[derive(Debug, Default)]
pub struct NamespaceController;

impl Controller for NamespaceController {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::own(NAMESPACES), Watch::every(terminating_namespace_of)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some((object, value)) = read(context.view, key) else { return Outcome::default() };
        if object.metadata().deletion_timestamp.is_none() || !holds(&value) {
            return Outcome::default();
        }
        if value["status"]["phase"] != "Terminating" {
            let phase = json!({"phase": "Terminating"});
            return patch_status(&object, &value, phase).into_iter().collect::<Vec<_>>().into();
        }
        let content = Content::of(context.view, &key.name);
        if content.is_empty() {
            return vec![finalize(&object)].into();
        }
        let deletions = content.deletions();
        if !deletions.is_empty() {
            return deletions.into();
        }
        let mut conditions = list(&value["status"]["conditions"]).to_vec();
        for (r#type, status, reason, message) in content.conditions() {
            set_condition(&mut conditions, r#type, status, reason, &message, context.now.wall);
        }
        patch_status(&object, &value, json!({"conditions": conditions})).into_iter().collect::<Vec<_>>().into()
    }
}

fn terminating_namespace_of(view: &View, object: &Object) -> Vec<ObjectKey> {
    let namespace = &object.key().namespace;
    if namespace.is_empty() {
        return Vec::new();
    }
    let key = ObjectKey::new(NAMESPACES, "", namespace);
    let terminates = view.object(&key).is_some_and(|namespace| namespace.metadata().deletion_timestamp.is_some());
    if terminates { vec![key] } else { Vec::new() }
}

/// Whether the namespace still waits for this controller.
fn holds(namespace: &Value) -> bool {
    list(&namespace["spec"]["finalizers"]).iter().any(|finalizer| finalizer == KUBERNETES)
}

fn finalize(namespace: &Object) -> Action {
    let mut object = namespace.value(Some(&NAMESPACE));
    if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != KUBERNETES);
    }
    Action::Update { key: namespace.key().clone(), subresource: Some("finalize"), object }
}

/// What a namespace has in it, up to a bound of objects to delete.
#[derive(Debug)]
struct Content {
    counts: BTreeMap<GroupResource, usize>,
    /// Finalizers, and how many objects wait for each.
    finalizers: BTreeMap<String, usize>,
    /// Objects that are not being deleted yet, pods before all others.
    standing: Vec<Arc<Object>>,
}

impl Content {
    fn of(view: &View, namespace: &str) -> Self {
        let mut content = Self { counts: BTreeMap::new(), finalizers: BTreeMap::new(), standing: Vec::new() };
        let mut resources = view.resources();
        resources.sort_by_key(|resource| *resource != PODS);
        for resource in resources {
            let count = view.count(&resource, Some(namespace));
            if count == 0 {
                continue;
            }
            // Nobody serves these: the leader removes them itself.
            if resource != KEY_VALUES {
                content.add(view.list(&resource, Some(namespace)));
            }
            let only_pods_for_now = resource == PODS;
            content.counts.insert(resource, count);
            if only_pods_for_now {
                break;
            }
        }
        content
    }

    fn add<'a>(&mut self, objects: impl Iterator<Item = &'a Arc<Object>>) {
        for object in objects {
            if object.metadata().deletion_timestamp.is_none() {
                self.standing.push(Arc::clone(object));
                if self.standing.len() >= BATCH_MAX {
                    return;
                }
            }
            for finalizer in &object.metadata().finalizers {
                *self.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    fn deletions(&self) -> Vec<Action> {
        self.standing.iter().take(BATCH_MAX).map(|object| delete(object, Some("Background"))).collect()
    }

    /// The conditions of a namespace that waits: type, status, reason and message.
    fn conditions(&self) -> Vec<(&'static str, &'static str, &'static str, String)> {
        let remaining: Vec<String> = self
            .counts
            .iter()
            .map(|(resource, count)| format!("{}.{} has {count} resource instances", resource.resource, resource.group))
            .collect();
        let finalizers: Vec<String> = self
            .finalizers
            .iter()
            .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
            .collect();
        vec![
            (
                "NamespaceDeletionDiscoveryFailure",
                "False",
                "ResourcesDiscovered",
                "All resources successfully discovered".into(),
            ),
            (
                "NamespaceDeletionGroupVersionParsingFailure",
                "False",
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed".into(),
            ),
            (
                "NamespaceDeletionContentFailure",
                "False",
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization".into(),
            ),
            (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                format!("Some resources are remaining: {}", remaining.join(", ")),
            ),
            if finalizers.is_empty() {
                (
                    "NamespaceFinalizersRemaining",
                    "False",
                    "ContentHasNoFinalizers",
                    "All content-preserving finalizers finished".into(),
                )
            } else {
                (
                    "NamespaceFinalizersRemaining",
                    "True",
                    "SomeFinalizersRemain",
                    format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", ")),
                )
            },
        ]
    }
}

#[cfg(test)]
mod tests;
