//! Who manages which field: every write is recorded in `metadata.managedFields`.

use coracle_api::apply::{UpdateOptions, track_update};
use serde_json::Value;

use crate::context::Context;
use crate::request::options::WriteOptions;

/// How a write came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A create, update or patch: whoever changes a field manages it.
    Update,
    /// A server-side apply, which has worked out the managers itself.
    Apply,
}

/// Records a write in the new object's `metadata.managedFields`.
///
/// It is called when the object is defaulted and before admission changes it: what the server adds belongs to nobody.
pub(crate) fn track(
    context: &Context<'_>,
    value: &mut Value,
    before: Option<&Value>,
    options: &WriteOptions,
    change: Change,
) {
    if change == Change::Apply {
        return;
    }
    let resource = context.resource;
    let update = UpdateOptions {
        manager: &options.manager,
        api_version: &resource.gvk.api_version(),
        subresource: &context.path.subresource,
        time: context.now.wall,
        status_subresource: resource.subresource("status").is_some(),
    };
    let schema = context.registry.schema();
    if resource.is_view() {
        // The record is of the fields as the client names them.
        let mut shown = before.cloned();
        if let Some(before) = &mut shown {
            resource.from_stored(before);
        }
        resource.from_stored(value);
        track_update(schema, resource.type_id, shown.as_ref(), value, &update);
        resource.to_stored(value);
    } else {
        track_update(schema, resource.type_id, before, value, &update);
    }
    if context.path.subresource == "scale" {
        forget_times(value);
    }
}

/// Entries of `/scale` have no time: Kubernetes loses it on the way between the Scale and its object.
fn forget_times(value: &mut Value) {
    let Some(entries) = value.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut) else { return };
    for entry in entries.iter_mut().filter(|entry| entry["subresource"] == "scale") {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
    }
}
