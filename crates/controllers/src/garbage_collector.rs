//! The garbage collector: objects whose owners are gone go too, and deletions that wait for dependents are finished.
//!
//! It works on owner references alone, over every resource there is, custom ones included; the store keeps the graph.
//! The rules are those of <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use std::sync::Arc;

use coracle_api::{Object, ObjectKey, OwnerReference};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{owner_references, patch};
use crate::{Action, Context, Controller, EventRecord, EventType, Outcome, Watch};

/// An object with this finalizer goes after its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// An object with this finalizer leaves its dependents behind.
const ORPHAN: &str = "orphan";
/// How many dependents are handled at once; the manager takes no more.
const BATCH_MAX: usize = 100;

/// The garbage collector.
#[derive(Debug, Default)]
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "generic-garbage-collector"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::every(concerned)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some(object) = context.view.object(key) else { return Outcome::default() };
        let has = |finalizer: &str| object.metadata().finalizers.iter().any(|own| own == finalizer);
        let going = object.metadata().deletion_timestamp.is_some();
        if going && has(ORPHAN) {
            return orphan_dependents(context.view, object).into();
        }
        if going && has(FOREGROUND) {
            return delete_dependents(context.view, object).into();
        }
        if going || object.metadata().owner_references.is_empty() {
            return Outcome::default();
        }
        collect(context.view, object).into()
    }
}

/// Who must be looked at after a change: the object itself; its dependents, once it is gone;
/// and its owners that wait for it.
fn concerned(view: &View, object: &Object) -> Vec<ObjectKey> {
    let metadata = object.metadata();
    let mut keys = Vec::new();
    let waits = |owner: &Object| {
        let finalizers = &owner.metadata().finalizers;
        owner.metadata().deletion_timestamp.is_some() && finalizers.iter().any(|f| f == FOREGROUND || f == ORPHAN)
    };
    if waits(object) || !metadata.owner_references.is_empty() {
        keys.push(object.key().clone());
    }
    let owners = metadata.owner_references.iter().filter_map(|reference| view.by_uid(&reference.uid));
    keys.extend(owners.filter(|owner| waits(owner)).map(|owner| owner.key().clone()));
    if let Some(uid) = &metadata.uid
        && (waits(object) || view.by_uid(uid).is_none())
    {
        keys.extend(view.owned_by(uid).map(|dependent| dependent.key().clone()));
    }
    keys
}

/// What an owner reference leads to.
enum Owner {
    /// It is there, and stays.
    Solid,
    /// There is no such object (any more), or it may not own this one.
    Gone,
    /// It is there and waits for its dependents to go.
    Waiting,
}

fn owner_of(view: &View, dependent: &Object, reference: &OwnerReference) -> Owner {
    let Some(owner) = view.by_uid(&reference.uid) else { return Owner::Gone };
    if dependent.key().namespace.is_empty() && !owner.key().namespace.is_empty() {
        // A cluster-scoped object cannot be owned from within a namespace: nobody knows what was meant, so it stays.
        return Owner::Solid;
    }
    let reachable = owner.key().namespace.is_empty() || owner.key().namespace == dependent.key().namespace;
    if !reachable || *owner.key().name != reference.name {
        return Owner::Gone;
    }
    let metadata = owner.metadata();
    let foreground = metadata.finalizers.iter().any(|finalizer| finalizer == FOREGROUND);
    if metadata.deletion_timestamp.is_some() && foreground { Owner::Waiting } else { Owner::Solid }
}

/// Deletes an object none of whose owners stays, or drops the references to those that are gone.
fn collect(view: &View, object: &Arc<Object>) -> Vec<Action> {
    let (mut solid, mut lost, mut waiting) = (0, Vec::new(), false);
    let mut actions = Vec::new();
    for reference in &object.metadata().owner_references {
        match owner_of(view, object, reference) {
            Owner::Solid => solid += 1,
            Owner::Gone => lost.push(reference),
            Owner::Waiting => {
                waiting = true;
                lost.push(reference);
            }
        }
        actions.extend(complain(view, object, reference));
    }
    if solid > 0 {
        if !lost.is_empty() {
            actions.push(without_references(object, |reference| lost.contains(&reference)));
        }
        return actions;
    }
    let has_dependents = object.metadata().uid.as_ref().is_some_and(|uid| view.owned_by(uid).next().is_some());
    let has = |finalizer: &str| object.metadata().finalizers.iter().any(|own| own == finalizer);
    let propagation = if has(ORPHAN) {
        "Orphan"
    } else if has(FOREGROUND) || (waiting && has_dependents) {
        "Foreground"
    } else {
        "Background"
    };
    actions.push(Action::Delete {
        key: object.key().clone(),
        uid: object.metadata().uid.clone(),
        // Owners may have been added since: then it is looked at again.
        revision: Some(object.revision()),
        propagation: Some(propagation),
        grace_period: None,
    });
    actions
}

/// An owner in another namespace is no owner; people should hear of it.
fn complain(view: &View, object: &Object, reference: &OwnerReference) -> Option<Action> {
    let owner = view.by_uid(&reference.uid)?;
    let (theirs, own) = (&owner.key().namespace, &object.key().namespace);
    if theirs.is_empty() || theirs == own {
        return None;
    }
    let message = format!(
        "ownerRef [{}/{}, namespace: {own}, name: {}, uid: {}] does not exist in namespace {own:?}",
        reference.api_version, reference.kind, reference.name, reference.uid
    );
    let uid = object.metadata().uid.as_ref();
    Some(Action::Event(EventRecord::new(object.key(), uid, EventType::Warning, "OwnerRefInvalidNamespace", message)))
}

/// `Orphan`: dependents forget the owner, then the owner goes.
fn orphan_dependents(view: &View, owner: &Arc<Object>) -> Vec<Action> {
    let Some(uid) = &owner.metadata().uid else { return Vec::new() };
    let dependents: Vec<Action> = view
        .owned_by(uid)
        .take(BATCH_MAX)
        .map(|dependent| without_references(dependent, |reference| reference.uid == *uid))
        .collect();
    if dependents.is_empty() { vec![without_finalizer(owner, ORPHAN)] } else { dependents }
}

/// `Foreground`: dependents are deleted, and the owner goes when none of those that block it is left.
fn delete_dependents(view: &View, owner: &Arc<Object>) -> Vec<Action> {
    let Some(uid) = &owner.metadata().uid else { return Vec::new() };
    let blocks = |dependent: &Arc<Object>| {
        let references = &dependent.metadata().owner_references;
        references.iter().any(|reference| reference.uid == *uid && reference.block_owner_deletion == Some(true))
    };
    // Dependents are keys of their own, woken with the owner: here is only the end.
    if view.owned_by(uid).any(blocks) { Vec::new() } else { vec![without_finalizer(owner, FOREGROUND)] }
}

fn without_references(object: &Object, drop: impl Fn(&OwnerReference) -> bool) -> Action {
    let kept = owner_references(object, |reference| !drop(reference), None);
    patch(object, None, json!({"metadata": {"ownerReferences": kept}}))
}

fn without_finalizer(object: &Object, finalizer: &str) -> Action {
    let kept: Vec<&String> = object.metadata().finalizers.iter().filter(|own| *own != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    patch(object, None, json!({"metadata": {"finalizers": kept}}))
}

#[cfg(test)]
mod tests;
