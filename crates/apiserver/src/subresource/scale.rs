//! `/scale`: `autoscaling/v1` Scale as another face of an object with `spec.replicas`.

use std::sync::Arc;

use coracle_api::{Cause, Gvk, LabelSelector, Object, Status};
use serde_json::{Value, json};

use crate::context::{Context, Shape, Step};
use crate::error::{field_cause, required_cause};
use crate::request::options::WriteOptions;
use crate::verb::create::{metadata_of, value_of};
use crate::verb::get::existing;
use crate::verb::{patch, update as whole};
use crate::{decode, managed_fields};

/// The Scale of an object.
pub(crate) fn scale_of(object: &Value) -> Value {
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    let replicas = |value: &Value| value.as_i64().unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {},
        "status": { "replicas": replicas(&object["status"]["replicas"]) },
    });
    // Go leaves a zero out of the spec but not out of the status.
    if replicas(&object["spec"]["replicas"]) != 0 {
        scale["spec"]["replicas"] = replicas(&object["spec"]["replicas"]).into();
    }
    let selector = LabelSelector::from_value(&object["spec"]["selector"]).unwrap_or_default().to_string();
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    scale
}

/// GET.
pub(super) fn get(context: &mut Context<'_>) -> Result<Step, Status> {
    let value = value_of(context, existing(context)?);
    Ok(Step::Respond(context.presenter().value(200, &scale_of(&value))))
}

/// PUT.
pub(super) fn update(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = WriteOptions::parse(context.request, "UpdateOptions", false)?;
    let old = existing(context)?;
    let scale = decode::of_kind(context, "autoscaling", "v1", "Scale", options.validation)?;
    store(context, old, &scale, &options)
}

/// PATCH.
pub(super) fn patch(context: &mut Context<'_>) -> Result<Step, Status> {
    let kind = patch::kind_of(context.request)?;
    let options = WriteOptions::parse(context.request, "PatchOptions", kind == patch::Kind::Apply)?;
    let old = existing(context)?;
    let before = scale_of(&value_of(context, old));
    let scale_type = decode::type_of(context.registry, &Gvk::builtin("autoscaling", "v1", "Scale"))?;
    let patched = patch::patched(context, kind, &before, scale_type)?;
    let scale = patch::decoded(context, kind, &patched, scale_type, options.validation)?;
    store(context, old, &scale, &options)
}

fn store(context: &mut Context<'_>, old: &Arc<Object>, scale: &Value, options: &WriteOptions) -> Result<Step, Status> {
    let name = context.path.name.clone();
    let causes = wrong(scale, &name);
    if !causes.is_empty() {
        return Err(Status::invalid("autoscaling", "Scale", &name, causes));
    }
    let mut value = value_of(context, old);
    value["spec"]["replicas"] = scale["spec"]["replicas"].as_i64().unwrap_or(0).into();
    let metadata = metadata_of(&mut value);
    for field in ["resourceVersion", "uid"] {
        if let Some(stated) = scale["metadata"].get(field).filter(|stated| stated.as_str() != Some("")) {
            metadata.insert(field.into(), stated.clone());
        }
    }
    whole::propose(context, value, old, options, managed_fields::Change::Update, Shape::Scale)
}

fn wrong(scale: &Value, name: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if scale["metadata"]["name"].as_str() != Some(name) {
        causes.push(required_cause("metadata.name", ""));
    }
    if let Some(replicas) = scale["spec"]["replicas"].as_i64().filter(|replicas| *replicas < 0) {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        causes.push(field_cause("FieldValueInvalid", "spec.replicas", message));
    }
    causes
}
