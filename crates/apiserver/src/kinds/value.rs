//! Small accessors for objects as JSON values.
//!
//! Go's zero value counts as absent where Kubernetes has no pointer: an empty text, a zero.

use serde_json::{Map, Value};

/// The text of a field, empty where it is absent.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The items of a list field.
pub(crate) fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// The items of a list field, to change them.
pub(crate) fn items_mut<'a>(value: &'a mut Value, field: &str) -> &'a mut [Value] {
    value.get_mut(field).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// The entries of a map field.
pub(crate) fn entries<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value[field].as_object().into_iter().flatten()
}

/// An object field, made empty where it is absent or null. What is no object at all is left alone.
pub(crate) fn object_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let slot = value.as_object_mut()?.entry(field).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    Some(slot)
}

/// A field where it is there and not null.
pub(crate) fn present_mut<'a>(value: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    value.get_mut(field).filter(|field| !field.is_null())
}

/// Sets a field that is absent or null.
pub(crate) fn default(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() {
            *slot = to.into();
        }
    }
}

/// Sets a field that is absent, null, an empty text or zero.
pub(crate) fn default_zero(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(field).or_insert(Value::Null);
        if slot.is_null() || slot.as_str() == Some("") || slot.as_i64() == Some(0) {
            *slot = to.into();
        }
    }
}

/// Sets a field; null removes it.
pub(crate) fn set(value: &mut Value, field: &str, to: impl Into<Value>) {
    if let Some(map) = value.as_object_mut() {
        match to.into() {
            Value::Null => {
                map.remove(field);
            }
            to => {
                map.insert(field.to_owned(), to);
            }
        }
    }
}

/// Puts a field back to what it was: its old value, or absent.
pub(crate) fn restore(value: &mut Value, old: &Value, field: &str) {
    set(value, field, old.get(field).cloned().unwrap_or_default());
}
