//! Strategic merge patch: a merge patch that knows which lists merge, and by which key.
//!
//! The rules are those of Kubernetes' `strategicpatch`: they are not written down elsewhere, and `kubectl apply` computes its
//! patches against them. Directives are the keys `$patch`, `$retainKeys`, `$setElementOrder/<field>` and
//! `$deleteFromPrimitiveList/<field>`.

mod order;

use serde_json::{Map, Value};

use super::{PatchError, go_print, unexpected};
use crate::schema::{Field, PatchStrategy, Schema, Shape, TypeId};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";

/// The value that a strategic merge patch makes of another one of a type.
pub fn strategic_merge(schema: &Schema, type_id: TypeId, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else { return Err(unexpected(patch, "map[string]interface {}")) };
    let original = original.as_object().cloned().unwrap_or_default();
    let merger = Merger { schema };
    merger.merge_map(original, patch.clone(), &Shape::Object(type_id)).map(Value::Object)
}

/// How one field merges.
struct Lookup<'a> {
    shape: &'a Shape,
    strategy: PatchStrategy,
    /// The merge key; empty where none is declared.
    key: &'a str,
}

struct Merger<'a> {
    schema: &'a Schema,
}

impl<'a> Merger<'a> {
    fn lookup(&self, shape: &'a Shape, name: &str) -> Lookup<'a> {
        let plain = |shape| Lookup { shape, strategy: PatchStrategy::default(), key: "" };
        match shape {
            Shape::Object(id) => self.schema.get(*id).fields.get(name).map_or(plain(&Shape::Any), |field: &Field| {
                let key = field.merge_key.as_deref().unwrap_or_default();
                Lookup { shape: &field.shape, strategy: field.patch_strategy, key }
            }),
            Shape::Map(values) => plain(values),
            _ => plain(&Shape::Any),
        }
    }

    fn merge_map(
        &self,
        mut original: Map<String, Value>,
        mut patch: Map<String, Value>,
        shape: &'a Shape,
    ) -> Result<Map<String, Value>, PatchError> {
        if let Some(directive) = patch.get(PATCH) {
            return match directive.as_str() {
                Some("replace") => {
                    patch.remove(PATCH);
                    Ok(cleaned_map(patch))
                }
                Some("delete") => Ok(Map::new()),
                _ => Err(unknown_directive(directive, &patch)),
            };
        }
        retain_keys(&mut original, &mut patch)?;
        self.set_element_orders(&mut original, &mut patch, shape)?;
        for (key, value) in patch {
            if key.starts_with(DELETE_FROM_PRIMITIVE_LIST) {
                delete_from_list(&mut original, &key, &value)?;
            } else {
                self.merge_field(&mut original, key, value, shape)?;
            }
        }
        Ok(original)
    }

    /// Merges one field of the patch; null deletes it.
    fn merge_field(
        &self,
        original: &mut Map<String, Value>,
        key: String,
        patch: Value,
        shape: &'a Shape,
    ) -> Result<(), PatchError> {
        let merged = match (original.remove(&key), patch) {
            (_, Value::Null) => None,
            (Some(Value::Object(old)), Value::Object(new)) => {
                let field = self.lookup(shape, &key);
                Some(Value::Object(if field.strategy.replace { new } else { self.merge_map(old, new, field.shape)? }))
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                let field = self.lookup(shape, &key);
                let list = if field.strategy.merge { self.merge_list(old, new, &field, &key)? } else { new };
                Some(Value::Array(list))
            }
            (_, new) => cleaned(new),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
        Ok(())
    }

    /// Merges two lists of a field whose strategy is `merge`, and puts the items in order.
    fn merge_list(
        &self,
        original: Vec<Value>,
        patch: Vec<Value>,
        field: &Lookup<'a>,
        name: &str,
    ) -> Result<Vec<Value>, PatchError> {
        let Some(maps) = order::hold_maps(&original, &patch)? else { return Ok(original) };
        if !maps {
            let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
            for value in original.iter().chain(&patch) {
                if !merged.contains(value) {
                    merged.push(value.clone());
                }
            }
            return order::arrange(merged, &patch, &original, "");
        }
        if field.key.is_empty() {
            return Err(PatchError::NoKeyDeclared { field: name.to_owned() });
        }
        let (original, patch) = special_items(original, patch, field.key)?;
        let item = if let Shape::List(item) = field.shape { item } else { &Shape::Any };
        let mut merged = original.clone();
        for item_patch in &patch {
            let wanted = key_of(item_patch, field.key)?;
            let found = merged.iter().position(|old| old.get(field.key) == Some(wanted));
            match found {
                Some(index) => {
                    let old = std::mem::take(&mut merged[index]);
                    let (Value::Object(old), Value::Object(new)) = (old, item_patch.clone()) else {
                        unreachable!("both lists hold maps only")
                    };
                    merged[index] = Value::Object(self.merge_map(old, new, item)?);
                }
                None => merged.extend(cleaned(item_patch.clone())),
            }
        }
        order::arrange(merged, &patch, &original, field.key)
    }

    /// Carries out every `$setElementOrder/<field>`, together with the list of that field.
    fn set_element_orders(
        &self,
        original: &mut Map<String, Value>,
        patch: &mut Map<String, Value>,
        shape: &'a Shape,
    ) -> Result<(), PatchError> {
        let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
        for directive in directives {
            let wanted = list_of(patch.remove(&directive))?.unwrap_or_default();
            let name = directive.split_once('/').map(|(_, name)| name).ok_or(PatchError::SetElementOrder)?;
            let field = self.lookup(shape, name);
            let old = list_of(original.get(name).cloned())?;
            let new = list_of(patch.get(name).cloned())?;
            if let Some(new) = &new {
                order::check(new, &wanted, field.key)?;
            }
            let before = old.clone().unwrap_or_default();
            let merged = match (old, new) {
                (None, None) => continue,
                (Some(old), None) => old,
                (None, Some(new)) => new.into_iter().filter_map(cleaned).collect(),
                (Some(old), Some(new)) if field.strategy.merge => self.merge_list(old, new, &field, name)?,
                (Some(_), Some(new)) => new,
            };
            patch.remove(name);
            original.insert(name.to_owned(), Value::Array(order::arrange(merged, &wanted, &before, field.key)?));
        }
        Ok(())
    }
}

/// Takes the items with a `$patch` directive out of a list's patch: `delete` drops what it matches, `replace` drops everything.
fn special_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = key_of(&item, key)?;
                original.retain(|old| old.get(key) != Some(gone));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(PatchError::MergeDirective),
            _ => {
                return Err(PatchError::UnknownDirective { directive: go_print(directive), item: go_print(&item) });
            }
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn unknown_directive(directive: &Value, patch: &Map<String, Value>) -> PatchError {
    let item = go_print(&Value::Object(patch.clone()));
    PatchError::UnknownDirective { directive: go_print(directive), item }
}

/// The value of an item's merge key.
fn key_of<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    item.get(key).ok_or_else(|| PatchError::no_merge_key(item, key))
}

/// `$retainKeys`: deletes what it does not name; a patch that sets something else contradicts itself.
fn retain_keys(original: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<(), PatchError> {
    let retained = match patch.remove(RETAIN_KEYS) {
        None => return Ok(()),
        Some(Value::Array(retained)) => retained,
        Some(_) => return Err(PatchError::RetainKeys),
    };
    let retains = |key: &str| retained.iter().any(|name| name.as_str() == Some(key));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM_PRIMITIVE_LIST) || key.starts_with(SET_ELEMENT_ORDER);
        if !value.is_null() && !directive && !retains(key) {
            return Err(PatchError::RetainKeys);
        }
    }
    original.retain(|key, _| retains(key));
    Ok(())
}

/// `$deleteFromPrimitiveList/<field>`: takes scalars out of a list.
fn delete_from_list(original: &mut Map<String, Value>, directive: &str, gone: &Value) -> Result<(), PatchError> {
    let (_, name) = directive.split_once('/').ok_or(PatchError::PrimitiveList)?;
    let Value::Array(gone) = gone else { return Err(PatchError::PrimitiveList) };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|value| !gone.contains(value));
    }
    Ok(())
}

fn list_of(value: Option<Value>) -> Result<Option<Vec<Value>>, PatchError> {
    match value {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(PatchError::WrongType { expected: "[]interface {}", actual: order::go_type(&other) }),
    }
}

/// A value of the patch that meets nothing to merge with: without nulls, and without whatever carries a directive.
fn cleaned(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(PATCH) => None,
        Value::Object(map) => Some(Value::Object(cleaned_map(map))),
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(cleaned).collect())),
        scalar => Some(scalar),
    }
}

fn cleaned_map(map: Map<String, Value>) -> Map<String, Value> {
    map.into_iter()
        .filter(|(key, value)| {
            let directive = [RETAIN_KEYS, SET_ELEMENT_ORDER, DELETE_FROM_PRIMITIVE_LIST];
            !value.is_null() && !directive.iter().any(|prefix| key.starts_with(prefix))
        })
        .filter_map(|(key, value)| Some((key, cleaned(value)?)))
        .collect()
}
