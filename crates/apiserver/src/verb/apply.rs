//! Server-side apply: the body is everything that a manager wants of an object.

use coracle_api::apply::ApplyOptions;
use coracle_api::decode::{Strictness, decode_value};
use coracle_api::{Body, Request, Status, apply as applying, yaml};
use serde_json::Value;

use crate::context::{Context, Shape, Step};
use crate::decode::with_kind;
use crate::error;
use crate::managed_fields::Change;
use crate::request::options::WriteOptions;
use crate::verb::create::{self, metadata_of, value_of};
use crate::verb::patch::check_names;
use crate::verb::update;

/// Applies the body to the object that the path names, or creates it.
pub(crate) fn apply(context: &mut Context<'_>, options: &WriteOptions) -> Result<Step, Status> {
    let config = body(context.request)?;
    let old = context.view.object(&context.key());
    let before = old.map(|old| {
        let mut value = value_of(context, old);
        context.resource.from_stored(&mut value);
        value
    });
    let (schema, resource) = (context.registry.schema(), context.resource);
    let apply = ApplyOptions {
        manager: &options.manager,
        force: options.force == Some(true),
        api_version: &resource.gvk.api_version(),
        kind: &resource.gvk.kind,
        subresource: &context.path.subresource,
        time: context.now.wall,
        status_subresource: resource.subresource("status").is_some(),
    };
    let applied = applying::apply(schema, resource.type_id, before.as_ref(), &config, &apply)?;
    let decoded = decode_value(schema, resource.type_id, &applied, Strictness::Ignore).map_err(|error| {
        let (kind, version) = (&resource.gvk.kind, &resource.gvk.group_version.version);
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
    })?;
    let mut value = with_kind(resource, decoded.value);
    resource.to_stored(&mut value);
    let namespace = context.path.namespace.clone();
    if resource.namespaced && value["metadata"]["namespace"].is_null() {
        metadata_of(&mut value).insert("namespace".into(), namespace.into());
    }
    check_names(context, &value)?;
    match old {
        Some(old) => update::propose(context, value, old, options, Change::Apply, Shape::Object),
        None if context.path.subresource.is_empty() => create(context, value, options),
        None => {
            let key = context.key();
            Err(Status::not_found(&key.resource, &key.name))
        }
    }
}

fn create(context: &mut Context<'_>, mut value: Value, options: &WriteOptions) -> Result<Step, Status> {
    let key = context.key();
    let metadata = metadata_of(&mut value);
    if let Some(uid) = metadata.get("uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
        return Err(error::uid_mismatch(&key, uid, ""));
    }
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(Status::modified(&key.resource, &key.name));
    }
    create::propose(context, value, options, Change::Apply)
}

fn body(request: &Request) -> Result<Value, Status> {
    match &request.body {
        Body::Value(value) => Ok(value.clone()),
        Body::Bytes(bytes) => {
            yaml::parse(bytes).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
        }
        Body::Empty => Err(Status::bad_request("error decoding YAML: the body is empty")),
    }
}
