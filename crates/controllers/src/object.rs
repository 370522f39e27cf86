//! Small things that every controller does with objects: owner references, conditions, and patches that say only what differs.

use std::sync::Arc;

use coracle_api::{GroupResource, Gvk, LabelSelector, Object, ObjectKey, OwnerReference, Uid};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::{Map, Value, json};

use crate::{Action, Patch};

/// An object as a value, out of the view's cache.
pub(crate) fn value_of(view: &View, object: &Arc<Object>) -> Option<Arc<Value>> {
    view.decode::<Value>(object)
}

/// The value and the object of a key.
pub(crate) fn read(view: &View, key: &ObjectKey) -> Option<(Arc<Object>, Arc<Value>)> {
    let object = Arc::clone(view.object(key)?);
    let value = value_of(view, &object)?;
    Some((object, value))
}

/// The reference of a managing controller.
pub(crate) fn controller_reference(owner: &Object, gvk: &Gvk) -> Value {
    json!({
        "apiVersion": gvk.api_version(),
        "kind": gvk.kind,
        "name": &*owner.key().name,
        "uid": owner.metadata().uid.as_ref().map(Uid::as_str),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// The owner references that `keep` accepts, as values; null where there are none left, which a merge patch takes for absent.
pub(crate) fn owner_references(object: &Object, keep: impl Fn(&OwnerReference) -> bool, more: Option<Value>) -> Value {
    let kept = object.metadata().owner_references.iter().filter(|reference| keep(reference));
    let values = kept.filter_map(|reference| serde_json::to_value(reference).ok()).map(|mut value| {
        if let Some(map) = value.as_object_mut() {
            map.retain(|_, field| !field.is_null());
        }
        value
    });
    let values: Vec<Value> = values.chain(more).collect();
    if values.is_empty() { Value::Null } else { values.into() }
}

/// The key of the managing controller, where it is of this kind.
pub(crate) fn controller_key(object: &Object, resource: &GroupResource, kind: &str) -> Option<ObjectKey> {
    let reference = object.metadata().controller()?;
    (reference.kind == kind).then(|| ObjectKey::new(resource.clone(), &object.key().namespace, &reference.name))
}

/// The keys of a namespace's objects whose `spec.selector` matches the labels: who may want to adopt an object without a controller.
pub(crate) fn selecting(view: &View, resource: &GroupResource, orphan: &Object) -> Vec<ObjectKey> {
    let labels = &orphan.metadata().labels;
    view.list(resource, Some(&orphan.key().namespace))
        .filter(|object| value_of(view, object).is_some_and(|value| selector_of(&value).matches(labels)))
        .map(|object| object.key().clone())
        .collect()
}

/// `spec.selector`; one that cannot be read matches nothing.
pub(crate) fn selector_of(value: &Value) -> LabelSelector {
    LabelSelector::from_value(&value["spec"]["selector"]).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A merge patch that holds only if the object is as it was read.
pub(crate) fn patch(object: &Object, subresource: Option<&'static str>, mut body: Value) -> Action {
    if !body["metadata"].is_object() {
        body["metadata"] = json!({});
    }
    body["metadata"]["resourceVersion"] = object.revision().to_string().into();
    if let Some(uid) = &object.metadata().uid {
        body["metadata"]["uid"] = uid.as_str().into();
    }
    Action::Patch { key: object.key().clone(), subresource, patch: Patch::Merge(body) }
}

/// A patch of `status` to the wanted fields, where null means absent; `None` when all of them are so already.
pub(crate) fn patch_status(object: &Object, value: &Value, wanted: Value) -> Option<Action> {
    let status = &value["status"];
    let Value::Object(wanted) = wanted else { return None };
    let changed: Map<String, Value> =
        wanted.into_iter().filter(|(key, wanted)| status[key.as_str()] != *wanted).collect();
    (!changed.is_empty()).then(|| patch(object, Some("status"), json!({ "status": changed })))
}

/// A number of a status: zero is left out, as `omitempty` does.
pub(crate) fn count(number: i64) -> Value {
    if number == 0 { Value::Null } else { number.into() }
}

/// Deletes an object that still is the one that was read.
pub(crate) fn delete(object: &Object, propagation: Option<&'static str>) -> Action {
    Action::Delete {
        key: object.key().clone(),
        uid: object.metadata().uid.clone(),
        revision: None,
        propagation,
        grace_period: None,
    }
}

/// A whole number of an object, or what it is without one.
pub(crate) fn number(value: &Value, default: i64) -> i64 {
    value.as_i64().unwrap_or(default)
}

/// A text of an object, empty without one.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A list of an object, empty without one.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A time of an object.
pub(crate) fn time(value: &Value) -> Option<Timestamp> {
    Timestamp::parse(value.as_str()?).ok()
}

/// The condition of a type.
pub(crate) fn condition<'a>(conditions: &'a [Value], r#type: &str) -> Option<&'a Value> {
    conditions.iter().find(|condition| condition["type"] == r#type)
}

/// The status of a condition, empty without it.
pub(crate) fn condition_status<'a>(conditions: &'a [Value], r#type: &str) -> &'a str {
    condition(conditions, r#type).map_or("", |condition| text(&condition["status"]))
}

/// Sets a condition; its `lastTransitionTime` stays when its status does, and nothing changes when all but the times is equal.
pub(crate) fn set_condition(
    conditions: &mut Vec<Value>,
    r#type: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let mut new = json!({
        "type": r#type, "status": status, "reason": reason, "message": message, "lastTransitionTime": now.rfc3339(),
    });
    let Some(old) = conditions.iter_mut().find(|condition| condition["type"] == r#type) else {
        conditions.push(new);
        return;
    };
    if old["status"] == status && old["reason"] == reason && old["message"] == message {
        return;
    }
    if old["status"] == status {
        new["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    *old = new;
}
