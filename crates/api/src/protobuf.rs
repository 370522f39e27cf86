//! Kubernetes' protobuf, decoding only: typed clients send bodies in it and accept JSON answers.
//!
//! A body is four bytes, `k8s\0`, and a `runtime.Unknown` with the kind and the message of the object. The message is read by the
//! schema table: a field's number leads to its JSON name, and its shape to how it is written on the wire. Where protobuf nests an
//! embedded Go struct, JSON has its fields side by side; quantities, times and `IntOrString` are small messages.
//! Nothing here panics, whatever the bytes are; what it reads goes through [`decode_value`], so that a
//! body means the same in both encodings.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use coracle_base::Timestamp;
use serde_json::{Map, Number, Value};

use crate::decode::{DecodeError, Strictness, TypeMeta, decode_value};
use crate::schema::{ProtoMember, Schema, Shape, TypeId};

#[cfg(test)]
mod tests;
mod wire;

use wire::{Payload, Reader};

/// How every body in this encoding starts.
pub const PREFIX: [u8; 4] = *b"k8s\0";

/// How deep messages may nest: the deepest built-in type is below 20, and JSON schemas of custom kinds recurse.
const DEPTH_MAX: u32 = 64;

/// A body that does not decode. The messages are those of Kubernetes' own decoder, where it has one for the case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtobufError {
    /// The body does not start with [`PREFIX`].
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NoPrefix,
    /// A message ends in the middle of a field.
    #[error("unexpected EOF")]
    UnexpectedEnd,
    /// A number has more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field number is zero or too large.
    #[error("proto: illegal tag {0}")]
    IllegalTag(u64),
    /// A wire type that does not exist or is not used.
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    /// A field is not written as its type is.
    #[error("proto: wrong wireType = {found} for field {field}")]
    WrongWireType {
        /// The wire type.
        found: u8,
        /// The JSON name of the field.
        field: String,
    },
    /// A text is no UTF-8.
    #[error("proto: field {field} contains invalid UTF-8")]
    Utf8 {
        /// The JSON name of the field.
        field: String,
    },
    /// Embedded JSON is none.
    #[error("proto: field {field} contains invalid JSON")]
    Json {
        /// The JSON name of the field.
        field: String,
    },
    /// The raw object is compressed or of another media type.
    #[error("unsupported content encoding or type {0:?}")]
    Content(String),
    /// Messages nest too deep.
    #[error("proto: messages nest more than {DEPTH_MAX} deep")]
    TooDeep,
    /// The values do not fit the type.
    #[error(transparent)]
    Value(#[from] DecodeError),
}

/// The outside of a body: which kind it is, and the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion` and `kind`.
    pub type_meta: TypeMeta,
    /// The message of the object.
    pub raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens a body.
    pub fn open(body: &'a [u8]) -> Result<Self, ProtobufError> {
        let unknown = body.strip_prefix(&PREFIX).ok_or(ProtobufError::NoPrefix)?;
        let mut envelope = Envelope { type_meta: TypeMeta::default(), raw: &[] };
        let mut reader = Reader::new(unknown);
        while let Some((number, payload)) = reader.next()? {
            match number {
                1 => envelope.type_meta = type_meta(payload.message("typeMeta")?)?,
                2 => envelope.raw = payload.bytes("raw")?,
                3 | 4 => {
                    let text = payload.text("contentType")?;
                    if !text.is_empty() && text != "application/vnd.kubernetes.protobuf" {
                        return Err(ProtobufError::Content(text.to_owned()));
                    }
                }
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object as a value of a type, as [`decode_value`] leaves it, with its kind and version.
    pub fn decode(&self, schema: &Schema, id: TypeId) -> Result<Value, ProtobufError> {
        let value = Value::Object(object(schema, id, self.raw, 0)?);
        let mut decoded = decode_value(schema, id, &value, Strictness::Ignore)?.value;
        if let Some(object) = decoded.as_object_mut() {
            for (name, text) in [("apiVersion", &self.type_meta.api_version), ("kind", &self.type_meta.kind)] {
                if !text.is_empty() {
                    object.insert(name.to_owned(), Value::String(text.clone()));
                }
            }
        }
        Ok(decoded)
    }
}

fn type_meta(message: &[u8]) -> Result<TypeMeta, ProtobufError> {
    let mut meta = TypeMeta::default();
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => payload.text("apiVersion")?.clone_into(&mut meta.api_version),
            2 => payload.text("kind")?.clone_into(&mut meta.kind),
            _ => {}
        }
    }
    Ok(meta)
}

fn object(schema: &Schema, id: TypeId, message: &[u8], depth: u32) -> Result<Map<String, Value>, ProtobufError> {
    let mut object = Map::new();
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        match schema.proto_member(id, number) {
            Some(ProtoMember::Field(name)) => field(schema, id, name, &payload, &mut object, depth)?,
            Some(ProtoMember::Nested(members)) => nested(schema, id, members, &payload, &mut object, depth)?,
            None => {}
        }
    }
    Ok(object)
}

fn nested(
    schema: &Schema,
    id: TypeId,
    members: &BTreeMap<u32, String>,
    payload: &Payload<'_>,
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(payload.message("an embedded struct")?);
    while let Some((number, payload)) = reader.next()? {
        if let Some(name) = members.get(&number) {
            field(schema, id, name, &payload, object, depth)?;
        }
    }
    Ok(())
}

/// Reads one occurrence of a field: an item of a list, an entry of a map, or the value.
fn field(
    schema: &Schema,
    id: TypeId,
    name: &str,
    payload: &Payload<'_>,
    object: &mut Map<String, Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    let Some(field) = schema.get(id).fields.get(name) else { return Ok(()) };
    match &field.shape {
        Shape::List(item) => {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = list {
                push_items(schema, name, item, payload, items, depth)?;
            }
        }
        Shape::Map(item) => {
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(entries) = map {
                let (key, value) = entry(schema, name, item, payload, depth)?;
                entries.insert(key, value);
            }
        }
        shape => {
            object.insert(name.to_owned(), value(schema, name, shape, payload, depth)?);
        }
    }
    Ok(())
}

fn push_items(
    schema: &Schema,
    name: &str,
    item: &Shape,
    payload: &Payload<'_>,
    items: &mut Vec<Value>,
    depth: u32,
) -> Result<(), ProtobufError> {
    // Numbers may come packed: many in one field.
    if let (Shape::Integer { .. } | Shape::Boolean, Payload::Bytes(packed)) = (item, payload) {
        let mut reader = Reader::new(packed);
        while !reader.is_empty() {
            let number = Payload::Varint(reader.varint()?);
            items.push(value(schema, name, item, &number, depth)?);
        }
        return Ok(());
    }
    items.push(value(schema, name, item, payload, depth)?);
    Ok(())
}

fn entry(
    schema: &Schema,
    name: &str,
    item: &Shape,
    payload: &Payload<'_>,
    depth: u32,
) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut found) = (String::new(), None);
    let mut reader = Reader::new(payload.message(name)?);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => payload.text(name)?.clone_into(&mut key),
            2 => found = Some(map_value(schema, name, item, &payload, depth)?),
            _ => {}
        }
    }
    // A value left out is the zero value; decode_value knows which that is.
    Ok((key, found.unwrap_or(Value::Null)))
}

/// A map's value. A list as a value is a message with the list in it (`ExtraValue`).
fn map_value(
    schema: &Schema,
    name: &str,
    item: &Shape,
    payload: &Payload<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    let Shape::List(inner) = item else { return value(schema, name, item, payload, depth) };
    let mut items = Vec::new();
    let mut reader = Reader::new(payload.message(name)?);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            push_items(schema, name, inner, &payload, &mut items, depth)?;
        }
    }
    Ok(Value::Array(items))
}

fn value(
    schema: &Schema,
    name: &str,
    shape: &Shape,
    payload: &Payload<'_>,
    depth: u32,
) -> Result<Value, ProtobufError> {
    Ok(match shape {
        Shape::String => Value::from(payload.text(name)?),
        Shape::Bytes => Value::String(BASE64_STANDARD.encode(payload.bytes(name)?)),
        // Negative numbers are written as 64 bits whatever their type; 32 bits are cut as Go cuts them.
        Shape::Integer { bits: 32 } => Value::from(payload.varint(name)? as i32),
        Shape::Integer { .. } => Value::from(payload.varint(name)?.cast_signed()),
        Shape::Boolean => Value::Bool(payload.varint(name)? != 0),
        Shape::Number => Number::from_f64(payload.double(name)?).map_or(Value::Null, Value::Number),
        Shape::Quantity => Value::from(quantity(payload.message(name)?)?),
        Shape::IntOrString => int_or_string(payload.message(name)?)?,
        Shape::Time => time(payload.message(name)?, Timestamp::rfc3339)?,
        Shape::MicroTime => time(payload.message(name)?, Timestamp::rfc3339_micro)?,
        Shape::Any => embedded_json(name, payload.message(name)?)?,
        Shape::Object(_) if depth >= DEPTH_MAX => return Err(ProtobufError::TooDeep),
        Shape::Object(id) => Value::Object(object(schema, *id, payload.message(name)?, depth + 1)?),
        // No built-in field has a list in a list, a map in a map, or a duration.
        Shape::List(_) | Shape::Map(_) | Shape::Duration => Value::Null,
    })
}

fn quantity(message: &[u8]) -> Result<String, ProtobufError> {
    let mut text = "0";
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            text = payload.text("quantity")?;
        }
    }
    // An empty text is the zero quantity.
    Ok(if text.is_empty() { "0".to_owned() } else { text.to_owned() })
}

fn int_or_string(message: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, "");
    let mut reader = Reader::new(message);
    while let Some((field, payload)) = reader.next()? {
        match field {
            1 => is_text = payload.varint("type")? == 1,
            2 => number = payload.varint("intVal")? as i32,
            3 => text = payload.text("strVal")?,
            _ => {}
        }
    }
    Ok(if is_text { Value::from(text) } else { Value::from(number) })
}

/// A time; an empty message is none.
fn time(message: &[u8], format: impl Fn(Timestamp) -> String) -> Result<Value, ProtobufError> {
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        match number {
            1 => seconds = payload.varint("seconds")?.cast_signed(),
            2 => nanos = i64::from(payload.varint("nanos")? as i32),
            _ => {}
        }
    }
    let all = seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
    Ok(Value::String(format(Timestamp::from_nanos(all))))
}

/// `RawExtension` and `FieldsV1`: JSON bytes in a message.
fn embedded_json(name: &str, message: &[u8]) -> Result<Value, ProtobufError> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(message);
    while let Some((number, payload)) = reader.next()? {
        if number == 1 {
            raw = payload.bytes(name)?;
        }
    }
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(raw).map_err(|_| ProtobufError::Json { field: name.to_owned() })
}
