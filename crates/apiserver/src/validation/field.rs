//! Field paths, and the causes of an `Invalid` status in Kubernetes' words.
//!
//! Source of the texts: `k8s.io/apimachinery/pkg/util/validation/field`.

use std::fmt::{self, Display};

use coracle_api::Cause;
use serde_json::Value;

/// The path of a field, as in `spec.containers[0].ports[1].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of a field of the object itself.
    pub fn new(field: &str) -> Self {
        Self(field.to_owned())
    }

    /// A field of what this path leads to.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        if self.0.is_empty() { Self::new(field) } else { Self(format!("{}.{field}", self.0)) }
    }

    /// A field of a field: both names at once.
    #[must_use]
    pub fn children(&self, fields: &[&str]) -> Self {
        fields.iter().fold(self.clone(), |path, field| path.child(field))
    }

    /// An item of the list that this path leads to.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// An entry of the map that this path leads to.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// Whether this is the root, before any field.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An error without a field is printed as one about `<nil>`.
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// Collects what is wrong, in the order in which it is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes(Vec<Cause>);

impl Causes {
    /// Nothing is wrong yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `Required value`, with `: <why>` where there is more to say.
    pub fn required(&mut self, path: &FieldPath, why: &str) {
        self.push("FieldValueRequired", "Required value".into(), path, why);
    }

    /// `Invalid value: <value>: <why>`.
    pub fn invalid(&mut self, path: &FieldPath, value: impl Into<Value>, why: impl AsRef<str>) {
        self.push("FieldValueInvalid", format!("Invalid value: {}", value.into()), path, why.as_ref());
    }

    /// One `Invalid value` for each of the texts that a rule gave.
    pub fn invalid_each(&mut self, path: &FieldPath, value: impl Into<Value>, why: Vec<String>) {
        let value = value.into();
        for text in why {
            self.invalid(path, value.clone(), text);
        }
    }

    /// `Unsupported value: <value>: supported values: "a", "b"`.
    pub fn not_supported(&mut self, path: &FieldPath, value: impl Into<Value>, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let why = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        self.push("FieldValueNotSupported", format!("Unsupported value: {}", value.into()), path, &why);
    }

    /// `Duplicate value: <value>`.
    pub fn duplicate(&mut self, path: &FieldPath, value: impl Into<Value>) {
        self.push("FieldValueDuplicate", format!("Duplicate value: {}", value.into()), path, "");
    }

    /// `Duplicate value: <value>: <why>`.
    pub fn duplicate_because(&mut self, path: &FieldPath, value: impl Into<Value>, why: &str) {
        self.push("FieldValueDuplicate", format!("Duplicate value: {}", value.into()), path, why);
    }

    /// `Forbidden: <why>`.
    pub fn forbidden(&mut self, path: &FieldPath, why: &str) {
        self.push("FieldValueForbidden", "Forbidden".into(), path, why);
    }

    /// `Not found: <value>`.
    pub fn not_found(&mut self, path: &FieldPath, value: impl Into<Value>) {
        self.push("FieldValueNotFound", format!("Not found: {}", value.into()), path, "");
    }

    /// `Too long: may not be more than <limit> bytes`.
    pub fn too_long(&mut self, path: &FieldPath, limit: usize) {
        self.push("FieldValueTooLong", "Too long".into(), path, &format!("may not be more than {limit} bytes"));
    }

    /// `Too many: <actual>: must have at most <limit> items`.
    pub fn too_many(&mut self, path: &FieldPath, actual: usize, limit: usize) {
        let why = format!("must have at most {limit} item{}", if limit == 1 { "" } else { "s" });
        self.push("FieldValueTooMany", format!("Too many: {actual}"), path, &why);
    }

    /// The field may not be another value than it was: `Invalid value: <new>: field is immutable`.
    pub fn immutable(&mut self, path: &FieldPath, new: &Value, old: &Value) {
        if !same(new, old) {
            self.invalid(path, new.clone(), "field is immutable");
        }
    }

    /// A number that must not be below zero.
    pub fn nonnegative(&mut self, path: &FieldPath, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number < 0) {
            self.invalid(path, number, "must be greater than or equal to 0");
        }
    }

    /// A text that must be one of a set; `Required value` when it is empty.
    pub fn one_of(&mut self, path: &FieldPath, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// Adds what another check found.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much is wrong.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The causes, for a status.
    pub fn into_vec(self) -> Vec<Cause> {
        self.0
    }

    fn push(&mut self, reason: &str, mut message: String, path: &FieldPath, why: &str) {
        if !why.is_empty() {
            message.push_str(": ");
            message.push_str(why);
        }
        self.0.push(Cause { reason: reason.to_owned(), message, field: path.to_string() });
    }
}

/// Whether two values mean the same: an absent field, a null, an empty list and an empty object are one.
pub fn same(a: &Value, b: &Value) -> bool {
    a == b || (is_empty(a) && is_empty(b))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_cause_has_the_text_and_reason_that_kubernetes_gives() {
        let path = FieldPath::new("spec").child("ports").index(1).child("name");
        let mut causes = Causes::new();
        causes.required(&path, "");
        causes.required(&path, "name or generateName is required");
        causes.invalid(&path, "A b", "must be lower case");
        causes.invalid(&path, 70_000, "must be between 1 and 65535, inclusive");
        causes.invalid(&path, json!({"a": "c"}), "no match");
        causes.not_supported(&path, "x", &["A", "B"]);
        causes.duplicate(&path, "x");
        causes.forbidden(&path, "not now");
        causes.not_found(&path, "x");
        causes.too_long(&path, 63);
        causes.too_many(&path, 9, 8);
        let texts: Vec<String> = causes.into_vec().into_iter().map(|c| format!("{} {}", c.reason, c.message)).collect();
        assert_eq!(
            texts,
            [
                "FieldValueRequired Required value",
                "FieldValueRequired Required value: name or generateName is required",
                "FieldValueInvalid Invalid value: \"A b\": must be lower case",
                "FieldValueInvalid Invalid value: 70000: must be between 1 and 65535, inclusive",
                "FieldValueInvalid Invalid value: {\"a\":\"c\"}: no match",
                "FieldValueNotSupported Unsupported value: \"x\": supported values: \"A\", \"B\"",
                "FieldValueDuplicate Duplicate value: \"x\"",
                "FieldValueForbidden Forbidden: not now",
                "FieldValueNotFound Not found: \"x\"",
                "FieldValueTooLong Too long: may not be more than 63 bytes",
                "FieldValueTooMany Too many: 9: must have at most 8 items",
            ]
        );
        assert_eq!(path.to_string(), "spec.ports[1].name");
    }

    #[test]
    fn an_absent_map_is_the_same_as_an_empty_one() {
        assert!(same(&Value::Null, &json!({})) && same(&json!([]), &Value::Null) && !same(&json!(0), &Value::Null));
    }
}
