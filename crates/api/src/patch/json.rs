//! JSON patch (RFC 6902).

use json_patch::{PatchOperation, patch_unsafe};
use serde::Deserialize;
use serde_json::Value;

use super::{PatchError, unexpected};

/// How many operations one patch may have: Kubernetes' own bound, against patches that cost far more than their size.
pub const OPERATIONS_MAX: usize = 10_000;

/// The value that a JSON patch makes of another one; nothing is changed when one of its operations fails.
pub fn json_patch(value: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = match patch {
        Value::Array(operations) => operations.as_slice(),
        Value::Null => &[],
        other => return Err(unexpected(other, "[]handlers.jsonPatchOp")),
    };
    if operations.len() > OPERATIONS_MAX {
        return Err(PatchError::TooManyOperations { operations: operations.len() });
    }
    if let Some(other) = operations.iter().find(|operation| !operation.is_object()) {
        return Err(unexpected(other, "handlers.jsonPatchOp"));
    }
    let mut patched = value.clone();
    for operation in operations {
        let operation = PatchOperation::deserialize(operation).map_err(|_| PatchError::Rejected)?;
        if !tests_absence(&patched, &operation) {
            patch_unsafe(&mut patched, &[operation]).map_err(|_| PatchError::Rejected)?;
        }
    }
    Ok(patched)
}

/// The library that Kubernetes uses lets a test for null pass where there is nothing.
fn tests_absence(value: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    test.value.is_null() && value.pointer(test.path.as_str()).is_none()
}
