//! The patches a client may send: JSON patch, merge patch and strategic merge patch, as pure functions on JSON values.
//!
//! Nothing here defaults, validates or stores. A patched value may hold fields that no schema knows: decoding it is the caller's.
//! Server-side apply is not a patch in this sense; it lives in [`crate::apply`].

mod go_print;
mod json;
mod merge;
mod strategic;

use serde_json::Value;

pub use go_print::go_print;
pub use json::{OPERATIONS_MAX, json_patch};
pub use merge::merge_patch;
pub use strategic::strategic_merge;

use crate::{Reason, Status, StatusDetails};

/// Why a patch was refused; the texts are Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatchError {
    /// 400: the body is not JSON, or not of the form that its content type asks for.
    #[error("error decoding patch: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: String,
    },
    /// 413: a JSON patch of too many operations.
    #[error(
        "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {operations}"
    )]
    TooManyOperations {
        /// How many there are.
        operations: usize,
    },
    /// 422: an operation of a JSON patch fails; the client is not told which.
    #[error("the server rejected our request due to an error in our request")]
    Rejected,
    /// 400: a strategic merge patch whose `$deleteFromPrimitiveList/<field>` is no list of scalars.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// 400: a strategic merge patch that sets a key which its `$retainKeys` does not name.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// 400: a strategic merge patch whose `$setElementOrder/<field>` is malformed.
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    /// 422: a list of lists that would have to be merged.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// 500 without a reason: an item of a merging list has no merge key.
    #[error("map: {item} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The item as Go prints it.
        item: String,
        /// The key.
        key: String,
    },
    /// 500 without a reason: a `$patch` directive that is unknown.
    #[error("unknown patch type: {directive} in map: {item}")]
    UnknownDirective {
        /// The directive.
        directive: String,
        /// The map it stands in, as Go prints it.
        item: String,
    },
    /// 500 without a reason: `$patch: merge` on an item of a list.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// 500 without a reason: a value of another type than the directive beside it needs.
    #[error("expected a {expected}, but received a {actual}")]
    WrongType {
        /// The Go type wanted.
        expected: &'static str,
        /// The Go type found.
        actual: &'static str,
    },
    /// 500 without a reason: the lists to merge hold values of several types.
    #[error("list element types are not identical: {lists}")]
    MixedTypes {
        /// Both lists as Go prints them.
        lists: String,
    },
    /// 500 without a reason: a list of objects that merges, but for which no merge key is declared.
    #[error("cannot merge lists without merge key for {field}")]
    NoKeyDeclared {
        /// The field.
        field: String,
    },
    /// 500 without a reason: the items of a list are not in the order that `$setElementOrder` gives, or not named by it.
    #[error("The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order {
        /// The list as Go prints it.
        list: String,
        /// The order as Go prints it.
        order: String,
    },
}

impl PatchError {
    fn no_merge_key(item: &Value, key: &str) -> Self {
        Self::NoMergeKey { item: go_print(item), key: key.to_owned() }
    }
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Self {
        let message = error.to_string();
        match error {
            PatchError::Malformed { .. }
            | PatchError::PrimitiveList
            | PatchError::RetainKeys
            | PatchError::SetElementOrder => Self::bad_request(message),
            PatchError::TooManyOperations { .. } => Self::failure(413, Some(Reason::RequestEntityTooLarge), message),
            // Kubernetes answers both with its generic text and keeps the cause to itself.
            PatchError::Rejected | PatchError::ListOfLists => {
                Self::failure(422, Some(Reason::Invalid), PatchError::Rejected.to_string())
                    .with_details(StatusDetails::default())
            }
            _ => Self::failure(500, None, message),
        }
    }
}

/// Reads the body of a patch.
pub fn decode(body: &[u8]) -> Result<Value, PatchError> {
    serde_json::from_slice(body).map_err(|error| {
        let reason = if error.is_eof() { "unexpected end of JSON input".to_owned() } else { error.to_string() };
        PatchError::Malformed { reason }
    })
}

/// What Go's decoder says to a body of the wrong JSON type.
fn unexpected(value: &Value, wanted: &str) -> PatchError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    PatchError::Malformed { reason: format!("json: cannot unmarshal {found} into Go value of type {wanted}") }
}

#[cfg(test)]
mod tests;
