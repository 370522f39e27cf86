//! What must hold for the metadata of every kind.
//!
//! Source of rules and texts: `k8s.io/apimachinery/pkg/api/validation` (`objectmeta.go`).

use std::collections::BTreeSet;

use coracle_api::{Cause, GroupVersion};
use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::label;
use super::name::{NameRule, Prefix, dns_label, qualified_name};

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_MAX: usize = 256 << 10;
/// `metadata.managedFields[].manager` in bytes.
const MANAGER_MAX: usize = 128;
/// `metadata.managedFields[].subresource` in bytes.
const SUBRESOURCE_MAX: usize = 256;

/// Whether objects of a kind live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// They have a `metadata.namespace`.
    Namespaced,
    /// They have none.
    Cluster,
}

/// What is wrong with the metadata of a new object, whose name has been generated already where it asks for that.
pub fn check_new(object: &Value, scope: Scope, rule: NameRule) -> Vec<Cause> {
    let (meta, path) = (&object["metadata"], FieldPath::new("metadata"));
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    let mut causes = Causes::new();
    let generate_name = text("generateName");
    if !generate_name.is_empty() {
        causes.invalid_each(&path.child("generateName"), generate_name, rule.check(generate_name, Prefix::Yes));
    }
    let name = text("name");
    if name.is_empty() {
        causes.required(&path.child("name"), "name or generateName is required");
    } else {
        causes.invalid_each(&path.child("name"), name, rule.check(name, Prefix::No));
    }
    let (namespace, at) = (text("namespace"), path.child("namespace"));
    match scope {
        Scope::Namespaced if namespace.is_empty() => causes.required(&at, ""),
        Scope::Namespaced => causes.invalid_each(&at, namespace, dns_label(namespace)),
        Scope::Cluster if !namespace.is_empty() => causes.forbidden(&at, "not allowed on this type"),
        Scope::Cluster => {}
    }
    causes.nonnegative(&path.child("generation"), &meta["generation"]);
    label::check_labels(&meta["labels"], &path.child("labels"), &mut causes);
    check_annotations(&meta["annotations"], &path.child("annotations"), &mut causes);
    check_owner_references(&meta["ownerReferences"], &path.child("ownerReferences"), &mut causes);
    check_finalizers(&meta["finalizers"], &path.child("finalizers"), &mut causes);
    check_managed_fields(&meta["managedFields"], &path.child("managedFields"), &mut causes);
    causes.into_vec()
}

/// What is wrong with the metadata of an update. An absent `resourceVersion` is the caller's to judge.
pub fn check_update(new: &Value, old: &Value) -> Vec<Cause> {
    let (meta, was, path) = (&new["metadata"], &old["metadata"], FieldPath::new("metadata"));
    let mut causes = Causes::new();
    if !was["deletionTimestamp"].is_null() {
        check_no_new_finalizers(&meta["finalizers"], &was["finalizers"], &path.child("finalizers"), &mut causes);
    }
    if meta["generation"].as_i64().unwrap_or(0) < was["generation"].as_i64().unwrap_or(0) {
        causes.invalid(&path.child("generation"), meta["generation"].clone(), "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        causes.immutable(&path.child(field), &meta[field], &was[field]);
    }
    label::check_labels(&meta["labels"], &path.child("labels"), &mut causes);
    check_annotations(&meta["annotations"], &path.child("annotations"), &mut causes);
    check_owner_references(&meta["ownerReferences"], &path.child("ownerReferences"), &mut causes);
    check_finalizers(&meta["finalizers"], &path.child("finalizers"), &mut causes);
    check_managed_fields(&meta["managedFields"], &path.child("managedFields"), &mut causes);
    causes.into_vec()
}

pub(crate) fn check_annotations(annotations: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        // Unlike labels, the keys of annotations may have capitals in their prefix.
        causes.invalid_each(path, key.as_str(), qualified_name(&key.to_lowercase()));
    }
    if size > ANNOTATIONS_MAX {
        causes.too_long(path, ANNOTATIONS_MAX);
    }
}

fn check_owner_references(references: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut controller: Option<String> = None;
    for reference in references.as_array().into_iter().flatten() {
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let version = GroupVersion::parse(text("apiVersion"));
        if version.is_none() {
            causes.invalid(&path.child("apiVersion"), text("apiVersion"), "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if text(field).is_empty() {
                causes.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            causes.invalid(path, reference.clone(), "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference["controller"] == true {
            let this = format!("{}/{}", text("kind"), text("name"));
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                causes.invalid(path, references.clone(), why);
            } else {
                controller = Some(this);
            }
        }
    }
}

fn check_finalizers(finalizers: &Value, path: &FieldPath, causes: &mut Causes) {
    let names: Vec<&str> = finalizers.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for name in &names {
        causes.invalid_each(path, *name, qualified_name(name));
    }
    for (index, name) in names.iter().enumerate() {
        check_known_finalizer(name, &path.index(index), causes);
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        causes.invalid(path, finalizers.clone(), why);
    }
}

/// A finalizer without a domain must be one of Kubernetes' own.
pub(crate) fn check_known_finalizer(name: &str, path: &FieldPath, causes: &mut Causes) {
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        causes.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn check_no_new_finalizers(new: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    let set = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let old = set(old);
    let extra: Vec<String> = set(new).difference(&old).map(|name| format!("{name:?}")).collect();
    if !extra.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            extra.join(", ")
        );
        causes.forbidden(path, &why);
    }
}

fn check_managed_fields(entries: &Value, path: &FieldPath, causes: &mut Causes) {
    for (index, entry) in entries.as_array().into_iter().flatten().enumerate() {
        let path = path.index(index);
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            causes.invalid(&path.child("operation"), text("operation"), "must be `Apply` or `Update`");
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            causes.invalid(&path.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`");
        }
        if text("manager").len() > MANAGER_MAX {
            causes.too_long(&path.child("manager"), MANAGER_MAX);
        }
        if text("manager").chars().any(char::is_control) {
            causes.invalid(&path.child("manager"), text("manager"), "should only contain printable characters");
        }
        if text("subresource").len() > SUBRESOURCE_MAX {
            causes.too_long(&path.child("subresource"), SUBRESOURCE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(causes: Vec<Cause>) -> Vec<String> {
        causes.into_iter().map(|c| format!("{}: {}", c.field, c.message)).collect()
    }

    fn new(meta: Value) -> Vec<String> {
        texts(check_new(&json!({"metadata": meta}), Scope::Namespaced, NameRule::Subdomain))
    }

    #[test]
    fn an_object_needs_a_name_and_a_namespace() {
        assert_eq!(
            new(json!({})),
            ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value",]
        );
        let cluster = check_new(&json!({"metadata": {"name": "a", "namespace": "b"}}), Scope::Cluster, NameRule::Label);
        assert_eq!(texts(cluster), ["metadata.namespace: Forbidden: not allowed on this type"]);
    }

    #[test]
    fn two_controllers_are_one_too_many() {
        let owner = |name: &str| json!({"apiVersion": "v1", "kind": "K", "name": name, "uid": "u", "controller": true});
        let wrong = new(json!({"name": "a", "namespace": "b", "ownerReferences": [owner("x"), owner("y")]}));
        assert!(wrong[0].ends_with("Found \"true\" in references for K/x and K/y"), "{wrong:?}");
        let wrong = new(json!({"name": "a", "namespace": "b", "ownerReferences": [{}]}));
        assert_eq!(wrong.len(), 4);
        assert_eq!(wrong[0], "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must not be empty");
    }

    #[test]
    fn annotations_and_finalizers_have_rules_too() {
        let large = "x".repeat(ANNOTATIONS_MAX);
        let wrong = new(json!({"name": "a", "namespace": "b", "annotations": {"Ex.io/A": large},
            "finalizers": ["orphan", "foregroundDeletion"], "managedFields": [{"operation": "x"}]}));
        assert_eq!(wrong[0], "metadata.annotations: Too long: may not be more than 262144 bytes");
        assert!(wrong[1].ends_with("finalizer orphan and foregroundDeletion cannot be both set"));
        assert_eq!(wrong[2], "metadata.managedFields[0].operation: Invalid value: \"x\": must be `Apply` or `Update`");
    }

    #[test]
    fn identity_cannot_be_changed_and_a_dying_object_gets_no_new_finalizers() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-11-22T10:31:34Z"}});
        let mut changed = old.clone();
        changed["metadata"]["uid"] = "2".into();
        changed["metadata"]["finalizers"] = json!(["a.b/c"]);
        assert_eq!(
            texts(check_update(&changed, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{\"a.b/c\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
        assert!(check_update(&old, &old).is_empty());
    }
}
