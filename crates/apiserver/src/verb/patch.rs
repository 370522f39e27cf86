//! PATCH: JSON patch, merge patch and strategic merge patch; server-side apply has a module of its own.

use coracle_api::decode::{DecodeError, decode_value};
use coracle_api::patch as patches;
use coracle_api::schema::TypeId;
use coracle_api::{Body, Reason, Request, Status, StatusDetails};
use serde_json::Value;

use crate::context::{Context, Shape, Step};
use crate::error::field_cause;
use crate::request::negotiate::media_type;
use crate::request::options::{FieldValidation, WriteOptions};
use crate::verb::create::{check_name, value_of};
use crate::verb::get::existing;
use crate::verb::update;
use crate::{decode, managed_fields};

/// The types of patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' strategic merge patch.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// The type of a request's patch, or 415.
pub(crate) fn kind_of(request: &Request) -> Result<Kind, Status> {
    Ok(match media_type(request) {
        "application/json-patch+json" => Kind::Json,
        "application/merge-patch+json" => Kind::Merge,
        "application/strategic-merge-patch+json" => Kind::Strategic,
        "application/apply-patch+yaml" => Kind::Apply,
        _ => {
            let message = "415: Unsupported Media Type";
            return Err(Status::failure(415, Some(Reason::UnsupportedMediaType), message)
                .with_details(StatusDetails::default()));
        }
    })
}

/// Changes the object that the path names, or its status.
pub(crate) fn patch(context: &mut Context<'_>) -> Result<Step, Status> {
    let kind = kind_of(context.request)?;
    let options = WriteOptions::parse(context.request, "PatchOptions", kind == Kind::Apply)?;
    if kind == Kind::Apply {
        return super::apply::apply(context, &options);
    }
    let old = existing(context)?;
    let mut before = value_of(context, old);
    context.resource.from_stored(&mut before);
    let type_id = context.resource.type_id;
    let patched = patched(context, kind, &before, type_id)?;
    if context.resource.is_view() {
        before = value_of(context, old);
    }
    let mut value = decoded(context, kind, &patched, type_id, options.validation)?;
    context.resource.to_stored(&mut value);
    check_names(context, &value)?;
    update::propose_from(context, value, (old, before), &options, managed_fields::Change::Update, Shape::Object)
}

/// What the request's patch makes of a value; `type_id` is what a strategic merge patch goes by.
pub(crate) fn patched(context: &Context<'_>, kind: Kind, before: &Value, type_id: TypeId) -> Result<Value, Status> {
    let patch = body(context.request)?;
    let schema = context.registry.schema();
    let after = match kind {
        Kind::Json => patches::json_patch(before, &patch)?,
        Kind::Strategic => patches::strategic_merge(schema, type_id, before, &patch)?,
        Kind::Merge => patches::merge_patch(before, &patch)?,
        Kind::Apply => return Err(crate::error::not_here("server-side apply of this subresource")),
    };
    Ok(after)
}

fn body(request: &Request) -> Result<Value, Status> {
    Ok(match &request.body {
        Body::Value(value) => value.clone(),
        Body::Bytes(bytes) => patches::decode(bytes)?,
        Body::Empty => patches::decode(b"")?,
    })
}

/// Reads the patched value as its type: what the patch brought in is checked here.
pub(crate) fn decoded(
    context: &mut Context<'_>,
    kind: Kind,
    patched: &Value,
    type_id: TypeId,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let refuse = |why: &DecodeError| -> Result<Value, Status> {
        let shown = match kind {
            Kind::Strategic => patches::go_print(&body(context.request)?),
            _ => patched.to_string(),
        };
        let message = format!("Invalid value: {}: {why}", Value::from(shown));
        Err(Status::invalid("", "", "", vec![field_cause("FieldValueInvalid", "patch", message)]))
    };
    match decode_value(context.registry.schema(), type_id, patched, validation.into()) {
        Ok(decoded) => {
            context.warnings.extend(decoded.warnings);
            Ok(decode::with_kind(context.resource, decoded.value))
        }
        Err(error) => refuse(&error),
    }
}

/// A patch changes neither the name nor the namespace.
pub(crate) fn check_names(context: &Context<'_>, value: &Value) -> Result<(), Status> {
    check_name(context, value)?;
    let namespace = &context.path.namespace;
    let stated = value["metadata"]["namespace"].as_str().unwrap_or_default();
    if stated != namespace {
        let message =
            format!("the namespace of the object ({stated}) does not match the namespace on the request ({namespace})");
        return Err(Status::bad_request(message));
    }
    Ok(())
}
