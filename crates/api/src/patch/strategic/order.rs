//! The order of a merged list: the patch's items in the patch's order, the server's own items where they stood before.

use serde_json::Value;

use super::{PATCH, key_of};
use crate::patch::{PatchError, go_print};

/// Whether two lists hold maps (or scalars); `None` when both are empty.
pub(super) fn hold_maps(left: &[Value], right: &[Value]) -> Result<Option<bool>, PatchError> {
    let Some(first) = left.first().or(right.first()) else { return Ok(None) };
    if first.is_array() {
        return Err(PatchError::ListOfLists);
    }
    let kind = std::mem::discriminant(first);
    if left.iter().chain(right).any(|value| std::mem::discriminant(value) != kind) {
        let both = Value::Array(vec![Value::Array(left.to_vec()), Value::Array(right.to_vec())]);
        return Err(PatchError::MixedTypes { lists: go_print(&both) });
    }
    Ok(Some(first.is_object()))
}

/// Puts merged items in order: those that `wanted` names in its order, the others in the order of `before`.
///
/// Where both kinds meet, an item stays in front of another only if it stood in front of it in `before`; otherwise what `wanted`
/// names comes first. `key` is the merge key, empty for scalars.
pub(super) fn arrange(
    merged: Vec<Value>,
    wanted: &[Value],
    before: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    if !key.is_empty() {
        for item in merged.iter().chain(wanted).chain(before) {
            key_of(item, key)?;
        }
    }
    let position = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let mut named = Vec::new();
    let mut others = Vec::new();
    for item in merged {
        let old = position(before, &item);
        match position(wanted, &item) {
            Some(index) => named.push((index, old, item)),
            None => others.push((old, item)),
        }
    }
    named.sort_by_key(|(index, _, _)| *index);
    others.sort_by_key(|(old, _)| old.unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, old, item) in named {
        while let (Some((Some(theirs), _)), Some(ours)) = (others.peek(), old)
            && *theirs < ours
        {
            out.extend(others.next().map(|(_, item)| item));
        }
        out.push(item);
    }
    out.extend(others.map(|(_, item)| item));
    Ok(out)
}

/// Checks that a patch's items stand in the order that `$setElementOrder` gives, which must name them all.
pub(super) fn check(patch: &[Value], wanted: &[Value], key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut rest = wanted.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        if !key.is_empty() {
            key_of(item, key)?;
        }
        if !rest.any(|other| same(other, item, key)) {
            let print = |list: &[Value]| go_print(&Value::Array(list.to_vec()));
            return Err(PatchError::Order { list: print(patch), order: print(wanted) });
        }
    }
    Ok(())
}

fn same(left: &Value, right: &Value, key: &str) -> bool {
    if key.is_empty() { left == right } else { left.get(key).is_some() && left.get(key) == right.get(key) }
}

/// The Go type that a JSON value decodes to.
pub(super) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
