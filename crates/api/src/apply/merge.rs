//! Lays an applied configuration over the live value.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::PathElement;
use super::typed::{Parts, Spec};
use crate::schema::{Schema, Shape};

/// The live value with the configuration over it; `None` if nothing is left, because null stands for nothing.
///
/// Objects, maps, sets and keyed lists merge; everything else is the configuration's. Items that the configuration names stand in
/// its order; the live value's own stay behind the item that they stood behind.
pub(super) fn merge(schema: &Schema, spec: Spec<'_>, live: Option<&Value>, config: &Value) -> Option<Value> {
    if config.is_null() {
        return nothing_given(schema, spec, live);
    }
    let parts = spec.parts(schema, config);
    match (parts, config) {
        (Parts::Fields(_) | Parts::Entries(_), Value::Object(config)) => {
            Some(Value::Object(merge_maps(schema, parts, live.and_then(Value::as_object), config)))
        }
        (Parts::Members | Parts::Items(..), Value::Array(config)) => {
            let live = live.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            Some(Value::Array(merge_lists(schema, parts, live, config)))
        }
        _ => Some(config.clone()),
    }
}

/// An explicit null takes one value away, but says nothing of what merges.
fn nothing_given(schema: &Schema, spec: Spec<'_>, live: Option<&Value>) -> Option<Value> {
    match live {
        Some(live) if !matches!(spec.parts(schema, live), Parts::Leaf) => Some(live.clone()),
        _ if *spec.shape == Shape::Any => Some(Value::Null),
        _ => None,
    }
}

fn merge_maps(
    schema: &Schema,
    parts: Parts<'_>,
    live: Option<&Map<String, Value>>,
    config: &Map<String, Value>,
) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, value) in live.into_iter().flatten() {
        if !config.contains_key(name) {
            out.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in config {
        let merged = merge(schema, parts.child(name).spec, live.and_then(|live| live.get(name)), value);
        out.extend(merged.map(|value| (name.clone(), value)));
    }
    out
}

fn merge_lists(schema: &Schema, parts: Parts<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let keys = |list: &[Value]| -> Result<Vec<PathElement>, String> {
        list.iter().map(|item| parts.element(schema, item)).collect()
    };
    // The configuration was checked before; a live list that cannot be told apart gives way to it.
    let (Ok(live_keys), Ok(config_keys)) = (keys(live), keys(config)) else { return config.to_vec() };
    let given: BTreeMap<&PathElement, &Value> = config_keys.iter().zip(config).collect();
    let mut known: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (key, item) in live_keys.iter().zip(live) {
        // Of an item that is there twice nothing is kept.
        known.entry(key).and_modify(|old| *old = None).or_insert(Some(item));
    }
    let lay = |key: &PathElement, item: &Value| match parts {
        Parts::Items(_, spec) => merge(schema, spec, known.get(key).copied().flatten(), item),
        _ => Some(item.clone()),
    };
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    let mut shared = config_keys.iter().filter(|key| known.contains_key(key)).peekable();
    let (mut behind, mut ahead) = (live_keys.iter().zip(live).peekable(), config_keys.iter().zip(config).peekable());
    loop {
        match (behind.peek(), ahead.peek()) {
            (None, None) => return out,
            // An item of the live value's own.
            (Some((key, item)), next) if !given.contains_key(key) && next.is_none_or(|(next, _)| next != key) => {
                out.push((*item).clone());
                behind.next();
            }
            // The next item of both is another one than the live value has here, which moved and comes in its turn.
            (Some((key, _)), Some((next, _))) if key != next && shared.peek().is_some_and(|other| other != key) => {
                behind.next();
            }
            (Some(_), None) => {
                behind.next();
            }
            (here, Some((key, item))) => {
                // With nothing shared left to come, what stands here was laid before.
                let done = here.is_some_and(|(here, _)| here == key || shared.peek().is_none());
                out.extend(lay(key, item));
                if shared.peek() == Some(key) {
                    shared.next();
                }
                ahead.next();
                if done {
                    behind.next();
                }
            }
        }
    }
}
