//! Merge patch (RFC 7386).

use serde_json::Value;

use super::{PatchError, unexpected};

/// The value that a merge patch makes of another one: null deletes, objects merge, everything else replaces.
pub fn merge_patch(value: &Value, patch: &Value) -> Result<Value, PatchError> {
    if !patch.is_object() {
        return Err(unexpected(patch, "map[string]interface {}"));
    }
    let mut patched = value.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}
