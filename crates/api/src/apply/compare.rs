//! What differs between two values of a type, as paths.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::field_set::FieldSet;
use super::path::PathElement;
use super::typed::{Parts, Spec, elements};
use crate::schema::{Field, Schema, Shape};

/// The paths that differ. What was added and what was modified are one set: every rule treats them alike.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub(super) changed: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty()
    }
}

static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
static NULL: Value = Value::Null;

/// Compares two objects; an absent one counts as an object with nothing in it.
pub(super) fn compare(schema: &Schema, spec: Spec<'_>, old: Option<&Value>, new: &Value) -> Comparison {
    difference(schema, spec, Some(old.unwrap_or(&EMPTY)), Some(new)).under
}

/// What differs at one place and under it.
#[derive(Default)]
struct Difference {
    changed: bool,
    removed: bool,
    under: Comparison,
}

impl Difference {
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let changed = new.is_some() && old != new;
        Self { changed, removed: old.is_some() && new.is_none(), ..Self::default() }
    }

    fn add(&mut self, element: PathElement, part: Self) {
        let Self { changed, removed, under } = part;
        if removed || !under.removed.is_empty() {
            self.under.removed.add(element.clone(), removed, under.removed);
        }
        if changed || !under.changed.is_empty() {
            self.under.changed.add(element, changed, under.changed);
        }
    }
}

fn difference(schema: &Schema, spec: Spec<'_>, old: Option<&Value>, new: Option<&Value>) -> Difference {
    if let (Shape::Any, Some(old), Some(new)) = (spec.shape, old, new)
        && old.is_object() != new.is_object()
    {
        return replaced(schema, spec, old, new);
    }
    let Some(shown) = new.or(old) else { return Difference::default() };
    let parts = spec.parts(schema, shown);
    let mut out = match parts {
        Parts::Leaf => return Difference::leaf(old, new),
        Parts::Fields(_) | Parts::Entries(_) => {
            let (old_map, new_map) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            if old_map.is_none_or(Map::is_empty) && new_map.is_none_or(Map::is_empty) {
                return Difference::leaf(old, new);
            }
            maps(schema, parts, old_map, new_map)
        }
        Parts::Members | Parts::Items(..) => {
            let (old_list, new_list) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if old_list.is_none_or(Vec::is_empty) && new_list.is_none_or(Vec::is_empty) {
                return Difference::leaf(old, new);
            }
            match (elements(schema, parts, old_list), elements(schema, parts, new_list)) {
                (Some(old_items), Some(new_items)) => lists(schema, parts, &old_items, &new_items),
                // Items that are known by nothing: only the list as a whole can be told apart.
                _ => return Difference::leaf(old, new),
            }
        }
    };
    out.changed |= old.is_none();
    out.removed |= new.is_none();
    out
}

/// An object became something else, or the reverse, where no schema says what belongs there.
fn replaced(schema: &Schema, spec: Spec<'_>, old: &Value, new: &Value) -> Difference {
    let gone = difference(schema, spec, Some(old), None).under.removed;
    let come = difference(schema, spec, None, Some(new)).under.changed;
    Difference { changed: true, removed: false, under: Comparison { changed: come, removed: gone } }
}

fn maps(
    schema: &Schema,
    parts: Parts<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
) -> Difference {
    let mut out = Difference::default();
    let mut part = |name: &String, old_value: Option<&Value>, new_value: Option<&Value>| {
        let child = parts.child(name);
        let implied = child.field.and_then(implied);
        let old_value = old_value.or(if old.is_some() { implied } else { None });
        let new_value = new_value.or(if new.is_some() { implied } else { None });
        let difference = difference(schema, child.spec, old_value, new_value);
        if difference.changed || difference.removed || !difference.under.is_empty() {
            out.add(PathElement::Field(name.clone()), difference);
        }
    };
    for (name, value) in new.into_iter().flatten() {
        part(name, old.and_then(|old| old.get(name)), Some(value));
    }
    for (name, value) in old.into_iter().flatten() {
        if new.is_none_or(|new| !new.contains_key(name)) {
            part(name, Some(value), None);
        }
    }
    out
}

/// What stands in an object of a built-in type for a field that is not given: Go's structs are never absent, and what lacks
/// `omitempty` is null. So a manager that fills in `spec.replicas` changes `spec`, and does not add (and own) it.
fn implied(field: &Field) -> Option<&'static Value> {
    match field.shape {
        _ if field.omit_zero => None,
        Shape::Object(_) if !field.pointer => Some(&EMPTY),
        Shape::Object(_) | Shape::List(_) | Shape::Map(_) | Shape::Any if !field.omit_empty => Some(&NULL),
        _ => None,
    }
}

/// Compares items by what they are known by; both lists are in the order of that. Items given twice are compared as a whole.
fn lists(
    schema: &Schema,
    parts: Parts<'_>,
    old: &[(PathElement, &Value)],
    new: &[(PathElement, &Value)],
) -> Difference {
    let item = |old: Option<&Value>, new: Option<&Value>| match parts {
        Parts::Items(_, spec) => difference(schema, spec, old, new),
        _ => Difference::leaf(old, new),
    };
    let mut out = Difference::default();
    let (mut old, mut new) = (old, new);
    while let Some(element) = old.first().into_iter().chain(new.first()).map(|(element, _)| element).min() {
        let old_group = take_group(&mut old, element);
        let new_group = take_group(&mut new, element);
        let difference = match (old_group, new_group) {
            ([], []) => break,
            ([], [(_, new)]) => item(None, Some(new)),
            ([(_, old)], []) => item(Some(old), None),
            ([(_, old)], [(_, new)]) => item(Some(old), Some(new)),
            ([_, _, ..], [_, _, ..]) => Difference {
                changed: !old_group.iter().map(|(_, value)| value).eq(new_group.iter().map(|(_, value)| value)),
                ..Difference::default()
            },
            ([_, _, ..], rest) => {
                let mut now = rest.first().map(|(_, new)| item(None, Some(new))).unwrap_or_default();
                now.removed = true;
                now
            }
            (rest, [_, _, ..]) => {
                let mut now = rest.first().map(|(_, old)| item(Some(old), None)).unwrap_or_default();
                now.changed = true;
                now
            }
        };
        out.add(element.clone(), difference);
    }
    out
}

/// The leading items that this element stands for.
fn take_group<'a, 'v>(
    items: &mut &'a [(PathElement, &'v Value)],
    element: &PathElement,
) -> &'a [(PathElement, &'v Value)] {
    let length = items.iter().take_while(|(other, _)| other == element).count();
    let (group, rest) = items.split_at(length);
    *items = rest;
    group
}
