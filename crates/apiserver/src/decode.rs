//! Bodies as values: JSON, YAML or protobuf, checked against the schema table, with Kubernetes' words for what is wrong.

use std::fmt::Write as _;

use coracle_api::decode::{DecodeError, Decoded, Strictness, TypeMeta, decode_json, decode_value};
use coracle_api::protobuf::Envelope;
use coracle_api::schema::TypeId;
use coracle_api::{Body, GroupVersion, Gvk, Registry, Resource, Status, yaml};
use serde_json::Value;

use crate::context::Context;
use crate::request::negotiate::{BodyMedia, body_media};
use crate::request::options::{FieldValidation, has_body};

/// How much of a body that cannot be read is shown.
const SUMMARY_BYTES: usize = 30;

impl From<FieldValidation> for Strictness {
    fn from(validation: FieldValidation) -> Self {
        match validation {
            FieldValidation::Ignore => Self::Ignore,
            FieldValidation::Warn => Self::Warn,
            FieldValidation::Strict => Self::Strict,
        }
    }
}

/// The request's body as an object of its resource, in the form in which it is stored.
pub(crate) fn object(context: &mut Context<'_>, validation: FieldValidation) -> Result<Value, Status> {
    let (gvk, type_id) = (&context.resource.gvk, context.resource.type_id);
    let mut decoded = read(context.registry, context.request, gvk, type_id, validation)?;
    context.warnings.extend(decoded.warnings);
    context.resource.to_stored(&mut decoded.value);
    Ok(decoded.value)
}

/// The request's body as an object of a kind that is no resource of its own.
pub(crate) fn of_kind(
    context: &mut Context<'_>,
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    validation: FieldValidation,
) -> Result<Value, Status> {
    let gvk = Gvk::builtin(group, version, kind);
    let type_id = type_of(context.registry, &gvk)?;
    let decoded = read(context.registry, context.request, &gvk, type_id, validation)?;
    context.warnings.extend(decoded.warnings);
    Ok(decoded.value)
}

/// The type of a built-in kind.
pub(crate) fn type_of(registry: &Registry, gvk: &Gvk) -> Result<TypeId, Status> {
    let GroupVersion { group, version } = &gvk.group_version;
    let package = internal_package(group);
    let name = format!("io.k8s.api.{package}.{version}.{}", gvk.kind);
    registry.schema().find(&name).ok_or_else(|| Status::internal(format!("type {name} is not known")))
}

/// The `DeleteOptions` of the request's body, where it has one.
pub(crate) fn delete_options(context: &mut Context<'_>) -> Result<Option<Value>, Status> {
    if !has_body(context.request) {
        return Ok(None);
    }
    let name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    let type_id =
        context.registry.schema().find(name).ok_or_else(|| Status::internal(format!("type {name} is not known")))?;
    let schema = context.registry.schema();
    let options = Gvk::builtin("meta.k8s.io", "v1", "DeleteOptions");
    let result = match (&context.request.body, body_media(context.request)?) {
        (Body::Value(body), _) => decode_value(schema, type_id, body, Strictness::Warn),
        (Body::Bytes(body), BodyMedia::Json) => decode_json(schema, type_id, body, Strictness::Warn),
        (Body::Bytes(body), BodyMedia::Yaml) => decode_value(schema, type_id, &from_yaml(body)?, Strictness::Warn),
        (Body::Bytes(body), BodyMedia::Protobuf) => {
            let decoded = Envelope::open(body).and_then(|envelope| envelope.decode(schema, type_id));
            return decoded.map(Some).map_err(|error| unreadable(&options, &error));
        }
        (Body::Empty, _) => return Ok(None),
    };
    result.map(|decoded| Some(decoded.value)).map_err(|error| unreadable(&options, &error))
}

/// A protobuf body of whatever kind it says, in full; none where it cannot be read.
pub(crate) fn any(registry: &Registry, body: &[u8]) -> Option<Value> {
    let envelope = Envelope::open(body).ok()?;
    let GroupVersion { group, version } = GroupVersion::parse(&envelope.type_meta.api_version)?;
    let gvk = registry.by_gvk(&group, &version, &envelope.type_meta.kind)?.gvk.clone();
    let mut value = envelope.decode(registry.schema(), type_of(registry, &gvk).ok()?).ok()?;
    value["kind"] = envelope.type_meta.kind.into();
    value["apiVersion"] = envelope.type_meta.api_version.into();
    Some(value)
}

/// A decoded body of a stated kind and type.
pub(crate) fn read(
    registry: &Registry,
    request: &coracle_api::Request,
    gvk: &Gvk,
    type_id: TypeId,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    let schema = registry.schema();
    let strictness = Strictness::from(validation);
    let (meta, decoded) = match (&request.body, body_media(request)?) {
        (Body::Value(body), _) => (meta_of(body), decode_value(schema, type_id, body, strictness)),
        (Body::Bytes(body), BodyMedia::Json) => {
            let meta = TypeMeta::of_json(body).map_err(|error| unrecognized(gvk, &error, body))?;
            check_kind(registry, &meta, gvk)?;
            (meta, decode_json(schema, type_id, body, strictness))
        }
        (Body::Bytes(body), BodyMedia::Yaml) => {
            let value = from_yaml(body)?;
            (meta_of(&value), decode_value(schema, type_id, &value, strictness))
        }
        (Body::Bytes(body), BodyMedia::Protobuf) => {
            let envelope = Envelope::open(body).map_err(|error| unreadable(gvk, &error))?;
            check_kind(registry, &envelope.type_meta, gvk)?;
            let value = envelope.decode(schema, type_id).map_err(|error| unreadable(gvk, &error))?;
            (envelope.type_meta, Ok(Decoded { value, warnings: Vec::new() }))
        }
        (Body::Empty, _) => {
            let error = TypeMeta::of_json(b"").err().unwrap_or(DecodeError::Syntax("EOF".into()));
            return Err(unrecognized(gvk, &error, b""));
        }
    };
    check_kind(registry, &meta, gvk)?;
    let Decoded { mut value, warnings } = decoded.map_err(|error| unreadable(gvk, &error))?;
    set_kind(gvk, &mut value);
    Ok(Decoded { value, warnings })
}

/// 400: a body that is not what its kind says.
fn unreadable(gvk: &Gvk, error: &dyn std::fmt::Display) -> Status {
    let (kind, version) = (&gvk.kind, &gvk.group_version.version);
    Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

/// A value with the kind and `apiVersion` of a resource.
pub(crate) fn with_kind(resource: &Resource, mut value: Value) -> Value {
    set_kind(&resource.gvk, &mut value);
    value
}

fn set_kind(gvk: &Gvk, value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.insert("kind".into(), gvk.kind.to_string().into());
        map.insert("apiVersion".into(), gvk.api_version().into());
    }
}

fn meta_of(value: &Value) -> TypeMeta {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    TypeMeta { api_version: text("apiVersion"), kind: text("kind") }
}

/// The body's kind and version, where it states them, must be those that the path is for.
pub(crate) fn check_kind(registry: &Registry, meta: &TypeMeta, gvk: &Gvk) -> Result<(), Status> {
    let kind = if meta.kind.is_empty() { gvk.kind.to_string() } else { meta.kind.clone() };
    let expected = gvk.api_version();
    let stated = if meta.api_version.is_empty() { expected.clone() } else { meta.api_version.clone() };
    if kind == gvk.kind && stated == expected {
        return Ok(());
    }
    let parsed = GroupVersion::parse(&stated);
    let version = parsed.as_ref().map_or(stated.as_str(), |gv| &gv.version);
    let known = parsed.as_ref().is_some_and(|gv| registry.by_gvk(&gv.group, &gv.version, &kind).is_some());
    let why = match parsed.as_ref().filter(|_| known) {
        None => format!("no kind {kind:?} is registered for version {stated:?} in scheme \"builtin\""),
        Some(_) if kind == gvk.kind => {
            return Err(Status::bad_request(format!(
                "the API version in the data ({stated}) does not match the expected API version ({expected})"
            )));
        }
        Some(gv) => format!(
            "converting ({version}.{kind}) to ({}.{}): unknown conversion",
            internal_package(&gv.group),
            gvk.kind
        ),
    };
    Err(Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {}: {why}", gvk.kind)))
}

/// The name of a group's package: its first label, `core` for the core group.
fn internal_package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" => "core",
        first => first,
    }
}

fn unrecognized(gvk: &Gvk, error: &DecodeError, body: &[u8]) -> Status {
    let shown = match body {
        [] => "<empty>".to_owned(),
        [b'{', ..] => {
            let end = body.len().min(SUMMARY_BYTES);
            let more = if body.len() > SUMMARY_BYTES { " ..." } else { "" };
            format!("{}{more}", String::from_utf8_lossy(&body[..end]))
        }
        _ => {
            let mut hex = String::new();
            for byte in body.iter().take(SUMMARY_BYTES) {
                write!(hex, "{byte:02x}").expect("a text is written to memory");
            }
            if body.len() > SUMMARY_BYTES { format!("{hex} ...") } else { hex }
        }
    };
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error} ({shown})",
        gvk.kind
    ))
}

/// A YAML body as a value.
fn from_yaml(body: &[u8]) -> Result<Value, Status> {
    yaml::parse(body).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))
}

/// A value as YAML.
pub(crate) fn to_yaml(value: &Value) -> String {
    yaml::to_string(value)
}
