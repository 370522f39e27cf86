//! `components.schemas`: every type that the paths name, and what these lead to.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Descriptions, Kinds, group_version_kind, reference};
use crate::schema::{Field, ListType, Schema, Shape, Type, TypeId};

pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";

/// The schemas of the types that are named, and of all that these refer to.
pub(super) fn reachable(schema: &Schema, kinds: &Kinds, descriptions: Descriptions<'_>) -> Map<String, Value> {
    let mut found = scalars(descriptions);
    let mut seen: BTreeSet<TypeId> = kinds.named.clone();
    let mut open: Vec<TypeId> = kinds.named.iter().copied().collect();
    while let Some(id) = open.pop() {
        let t = schema.get(id);
        let mut object = of_type(schema, t, descriptions);
        if let Some(of_type) = kinds.kinds.get(&id) {
            let of_type: Vec<Value> = of_type.iter().map(group_version_kind).collect();
            object.insert("x-kubernetes-group-version-kind".into(), Value::Array(of_type));
        }
        found.insert(t.name.clone(), Value::Object(object));
        for target in t.fields.values().filter_map(|field| target(&field.shape)) {
            if seen.insert(target) {
                open.push(target);
            }
        }
    }
    found
}

/// The types whose values are scalars, or anything.
fn scalars(descriptions: Descriptions<'_>) -> Map<String, Value> {
    [
        (PATCH, json!({"type": "object"})),
        (QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})),
        (INT_OR_STRING, json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})),
        (TIME, json!({"type": "string", "format": "date-time"})),
        (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
    ]
    .into_iter()
    .map(|(name, mut schema)| {
        describe(&mut schema, descriptions(name, None));
        (name.to_owned(), schema)
    })
    .collect()
}

fn target(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Object(id) => Some(*id),
        Shape::List(item) | Shape::Map(item) => target(item),
        _ => None,
    }
}

fn of_type(schema: &Schema, t: &Type, descriptions: Descriptions<'_>) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("type".into(), "object".into());
    if let Some(text) = descriptions(&t.name, None) {
        object.insert("description".into(), text.into());
    }
    let property = |field: &Field| {
        let mut property = of_field(schema, field);
        describe(&mut property, descriptions(&t.name, Some(&field.name)));
        (field.name.clone(), property)
    };
    if !t.fields.is_empty() {
        object.insert("properties".into(), t.fields.values().map(property).collect::<Map<_, _>>().into());
    }
    let required: Vec<&str> =
        t.fields.values().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    if !required.is_empty() {
        object.insert("required".into(), required.into());
    }
    if t.atomic {
        object.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    object
}

fn describe(property: &mut Value, text: Option<String>) {
    if let Some(text) = text {
        property["description"] = text.into();
    }
}

fn of_field(schema: &Schema, field: &Field) -> Value {
    let mut property = of_shape(schema, &field.shape);
    if let Some(default) = &field.default {
        property["default"] = default.clone();
    } else if matches!(field.shape, Shape::Object(_)) && !field.pointer {
        property["default"] = json!({});
    }
    if !field.enumeration.is_empty() {
        // The values of a list are its items'.
        let target = if matches!(field.shape, Shape::List(_)) { &mut property["items"] } else { &mut property };
        target["enum"] = field.enumeration.clone().into();
    }
    match (&field.shape, &field.list_type) {
        (Shape::List(_), ListType::Atomic) => property["x-kubernetes-list-type"] = "atomic".into(),
        (Shape::List(_), ListType::Set) => property["x-kubernetes-list-type"] = "set".into(),
        (Shape::List(_), ListType::Map(keys)) => {
            property["x-kubernetes-list-type"] = "map".into();
            property["x-kubernetes-list-map-keys"] = keys.clone().into();
        }
        _ if field.atomic => property["x-kubernetes-map-type"] = "atomic".into(),
        _ => {}
    }
    let strategy = field.patch_strategy;
    let words = [(strategy.merge, "merge"), (strategy.retain_keys, "retainKeys"), (strategy.replace, "replace")];
    let words: Vec<&str> = words.into_iter().filter_map(|(set, word)| set.then_some(word)).collect();
    if !words.is_empty() {
        property["x-kubernetes-patch-strategy"] = words.join(",").into();
    }
    if let Some(key) = &field.merge_key {
        property["x-kubernetes-patch-merge-key"] = key.clone().into();
    }
    property
}

fn of_shape(schema: &Schema, shape: &Shape) -> Value {
    // A reference stands in `allOf`, because nothing may stand beside a `$ref`.
    let all_of = |name: &str| json!({"allOf": [reference(name)]});
    match shape {
        Shape::String | Shape::Duration => json!({"type": "string"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Integer { bits } => json!({"type": "integer", "format": format!("int{bits}")}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Quantity => all_of(QUANTITY),
        Shape::IntOrString => all_of(INT_OR_STRING),
        Shape::Time => all_of(TIME),
        Shape::MicroTime => all_of(MICRO_TIME),
        Shape::Object(id) => all_of(&schema.get(*id).name),
        Shape::List(item) => json!({"type": "array", "items": of_shape(schema, item)}),
        Shape::Map(item) => json!({"type": "object", "additionalProperties": of_shape(schema, item)}),
        Shape::Any => json!({"type": "object"}),
    }
}
