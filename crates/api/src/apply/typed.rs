//! Values seen through the schema: which parts are one value, which merge, and by what their items are known.

use serde_json::Value;

use super::field_set::FieldSet;
use super::path::{PathElement, Scalar};
use crate::schema::{Field, ListType, Schema, Shape, Type, TypeId};

/// How the value at one place is seen: its shape, and what its field says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec<'s> {
    pub(super) shape: &'s Shape,
    atomic: bool,
    granular: bool,
    list_type: &'s ListType,
}

/// What a value is made of under apply.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parts<'s> {
    /// One value: a scalar, or what is atomic.
    Leaf,
    /// The fields of a type.
    Fields(&'s Type),
    /// The entries of a map.
    Entries(Spec<'s>),
    /// The members of a set.
    Members,
    /// The items of a list that are known by keys.
    Items(&'s [String], Spec<'s>),
}

/// One part of an object or a map.
pub(super) struct Child<'s> {
    pub(super) spec: Spec<'s>,
    /// The declaration, for the fields of a type.
    pub(super) field: Option<&'s Field>,
}

impl<'s> Spec<'s> {
    fn plain(shape: &'s Shape) -> Self {
        Self { shape, atomic: false, granular: false, list_type: &ListType::Atomic }
    }

    pub(super) fn of_type(shape: &'s Shape) -> Self {
        Self::plain(shape)
    }

    fn of_field(field: &'s Field) -> Self {
        Self { shape: &field.shape, atomic: field.atomic, granular: field.granular, list_type: &field.list_type }
    }

    /// What a value is made of; without a schema it is deduced from the value: objects have entries, the rest is one value.
    pub(super) fn parts(self, schema: &'s Schema, value: &Value) -> Parts<'s> {
        const ANY: Spec<'static> =
            Spec { shape: &Shape::Any, atomic: false, granular: false, list_type: &ListType::Atomic };
        match self.shape {
            _ if self.atomic => Parts::Leaf,
            Shape::Object(id) => match schema.get(*id) {
                t if t.atomic && !self.granular => Parts::Leaf,
                t if t.fields.is_empty() => Parts::Entries(ANY),
                t => Parts::Fields(t),
            },
            Shape::Map(values) => Parts::Entries(Self::plain(values)),
            Shape::List(items) => match self.list_type {
                ListType::Atomic => Parts::Leaf,
                ListType::Set => Parts::Members,
                ListType::Map(keys) => Parts::Items(keys, Self::plain(items)),
            },
            Shape::Any if value.is_object() => Parts::Entries(ANY),
            _ => Parts::Leaf,
        }
    }
}

impl<'s> Parts<'s> {
    /// The part of this name.
    pub(super) fn child(self, name: &str) -> Child<'s> {
        match self {
            Parts::Fields(t) => match t.fields.get(name) {
                Some(field) => Child { spec: Spec::of_field(field), field: Some(field) },
                None => Child { spec: Spec::plain(&Shape::Any), field: None },
            },
            Parts::Entries(values) => Child { spec: values, field: None },
            Parts::Leaf | Parts::Members | Parts::Items(..) => Child { spec: Spec::plain(&Shape::Any), field: None },
        }
    }

    /// What an item of a set or a keyed list is known by, or why it is not.
    pub(super) fn element(self, schema: &Schema, item: &Value) -> Result<PathElement, String> {
        match self {
            Parts::Items(keys, spec) => keyed_element(schema, keys, spec, item),
            _ => match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(PathElement::Value(Scalar::of(scalar).unwrap_or(Scalar::Null))),
            },
        }
    }
}

/// An absent key counts with the schema's default, or not at all where it has none.
fn keyed_element(schema: &Schema, keys: &[String], spec: Spec<'_>, item: &Value) -> Result<PathElement, String> {
    let map = match item {
        Value::Object(map) => map,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let default = |key: &str| match spec.shape {
        Shape::Object(id) => schema.get(*id).fields.get(key).and_then(|field| field.default.as_ref()),
        _ => None,
    };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(value) = map.get(key).or_else(|| default(key)) {
            let scalar = Scalar::of(value).ok_or_else(|| format!("the key {key} is not a scalar"))?;
            found.push((key.clone(), scalar));
        }
    }
    if found.is_empty() {
        let quoted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
            quoted.join(" ")
        ));
    }
    found.sort();
    Ok(PathElement::Key(found))
}

/// The items of a list with what they are known by, in the order of that; `None` if one of them is not known by anything.
pub(super) fn elements<'v>(
    schema: &Schema,
    parts: Parts<'_>,
    list: Option<&'v Vec<Value>>,
) -> Option<Vec<(PathElement, &'v Value)>> {
    let items = list.map_or(&[][..], Vec::as_slice);
    let mut out = Vec::with_capacity(items.len());
    for item in items {
        out.push((parts.element(schema, item).ok()?, item));
    }
    out.sort_by(|left, right| left.0.cmp(&right.0));
    Some(out)
}

/// The paths of a value, which are what its author owns under apply.
pub(super) fn field_set(schema: &Schema, spec: Spec<'_>, value: &Value) -> FieldSet {
    owned(schema, spec, value).1
}

/// The paths of a value of a type: what a manager that applies it owns.
pub fn to_field_set(schema: &Schema, type_id: TypeId, value: &Value) -> FieldSet {
    field_set(schema, Spec::of_type(&Shape::Object(type_id)), value)
}

/// Whether the place itself is owned, and what is owned under it.
fn owned(schema: &Schema, spec: Spec<'_>, value: &Value) -> (bool, FieldSet) {
    let parts = spec.parts(schema, value);
    let mut set = FieldSet::new();
    match (parts, value) {
        (Parts::Leaf, _) => return (true, set),
        (Parts::Fields(_) | Parts::Entries(_), Value::Object(map)) => {
            for (name, value) in map {
                let child = parts.child(name);
                let (member, children) = owned(schema, child.spec, value);
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                set.add(PathElement::Field(name.clone()), member || empty || child.field.is_none(), children);
            }
        }
        (Parts::Members | Parts::Items(..), Value::Array(list)) => {
            for group in elements(schema, parts, Some(list)).unwrap_or_default().chunk_by(|a, b| a.0 == b.0) {
                let children = match (parts, group) {
                    (Parts::Items(_, spec), [(_, item)]) => field_set(schema, spec, item),
                    // Of items that are given twice nothing finer can be owned.
                    _ => FieldSet::new(),
                };
                set.add(group[0].0.clone(), true, children);
            }
        }
        _ => {}
    }
    (false, set)
}

/// The set where every field of a type that leads to a member is a member itself.
pub(super) fn with_named_fields(schema: &Schema, spec: Spec<'_>, set: &FieldSet) -> FieldSet {
    // Without a value at hand, an undeclared part counts as an object, so that paths can lead on through it.
    let object = Value::Object(serde_json::Map::new());
    set.with_inner_members(
        spec,
        &|spec: Spec<'_>, element: &PathElement| match (spec.parts(schema, &object), element) {
            (Parts::Items(_, item), PathElement::Key(_)) => (false, item),
            (parts, PathElement::Field(name)) => {
                let child = parts.child(name);
                (child.field.is_some(), child.spec)
            }
            _ => (false, Spec::plain(&Shape::Any)),
        },
    )
}

/// What is left of a value without the paths of a set; `None` if that is nothing.
pub(super) fn without(schema: &Schema, spec: Spec<'_>, value: &Value, gone: &FieldSet) -> Option<Value> {
    let parts = spec.parts(schema, value);
    match (parts, value) {
        (Parts::Fields(_) | Parts::Entries(_), Value::Object(map)) if !map.is_empty() => {
            let mut out = serde_json::Map::new();
            for (name, value) in map {
                let kept = match gone.under(&PathElement::Field(name.clone())) {
                    (true, _) => None,
                    (false, Some(inner)) => without(schema, parts.child(name).spec, value, inner),
                    (false, None) => Some(value.clone()),
                };
                out.extend(kept.map(|value| (name.clone(), value)));
            }
            Some(Value::Object(out)).filter(|out| out.as_object().is_some_and(|map| !map.is_empty()))
        }
        (Parts::Members | Parts::Items(..), Value::Array(list)) if !list.is_empty() => {
            let mut out = Vec::with_capacity(list.len());
            for item in list {
                let found = parts.element(schema, item).map_or((false, None), |element| gone.under(&element));
                out.extend(match (found, parts) {
                    ((true, _), _) => None,
                    ((false, Some(inner)), Parts::Items(_, spec)) => without(schema, spec, item, inner),
                    _ => Some(item.clone()),
                });
            }
            Some(Value::Array(out)).filter(|out| out.as_array().is_some_and(|list| !list.is_empty()))
        }
        _ => Some(value.clone()),
    }
}
