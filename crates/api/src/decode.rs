//! Strict decoding of request bodies: JSON bytes, or a value, against the schema table, in one pass.
//!
//! The result is what a Go server would have after it read the body into its typed struct and wrote it again: unknown fields and
//! nulls are gone, zero values of `omitempty` fields too, structs that are no pointers are there (`resources: {}`), quantities and
//! times are canonical. Errors and warnings are worded as Kubernetes words them; clients and people match on these texts.
//! Defaulting and validation come later and elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::go_json;
use crate::schema::{Schema, Shape, TypeId};

mod scalar;
#[cfg(test)]
mod tests;
mod visit;

use visit::{Context, Key, Seed};

/// What is done about unknown and duplicate fields: the request parameter `fieldValidation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// They are dropped.
    Ignore,
    /// They are dropped and reported.
    #[default]
    Warn,
    /// They are an error.
    Strict,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object, with `kind` and `apiVersion` as the body had them.
    pub value: Value,
    /// The texts of warnings: `unknown field "spec.foo"`, `duplicate field "data.a"`, in the order of the body.
    pub warnings: Vec<String>,
}

/// A body that does not decode. The messages are Kubernetes' own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value is not of its field's type, or is no quantity, time or base64.
    #[error("{0}")]
    Type(String),
    /// There are unknown or duplicate fields, under [`Strictness::Strict`].
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// `apiVersion` and `kind` of a body, empty where it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeMeta {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
}

/// Decodes JSON bytes as an object of a type.
pub fn decode_json(schema: &Schema, id: TypeId, bytes: &[u8], strictness: Strictness) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(schema, strictness);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let result = Seed::new(&mut context, &Shape::Object(id))
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match result {
        Ok(value) => context.finish(value, strictness),
        Err(error) => Err(context.fail(&error, go_json::check(bytes))),
    }
}

/// Decodes a value, as a patch or a YAML document yields it, as an object of a type.
pub fn decode_value(
    schema: &Schema,
    id: TypeId,
    value: &Value,
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    let mut context = Context::new(schema, strictness);
    match Seed::new(&mut context, &Shape::Object(id)).deserialize(value) {
        Ok(value) => context.finish(value, strictness),
        Err(error) => Err(context.fail(&error, Ok(()))),
    }
}

impl TypeMeta {
    /// Reads `apiVersion` and `kind` of JSON bytes, all of which must be JSON.
    pub fn of_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut failure = None;
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let visitor = TypeMetaVisitor { failure: &mut failure };
        let result = deserializer.deserialize_any(visitor).and_then(|meta| deserializer.end().map(|()| meta));
        result.map_err(|error| match (go_json::check(bytes), failure) {
            (Err(text), _) => DecodeError::Syntax(text),
            (Ok(()), Some(text)) => DecodeError::Type(text),
            (Ok(()), None) => DecodeError::Syntax(error.to_string()),
        })
    }
}

/// The Go struct that a server reads `apiVersion` and `kind` into, as its errors name it.
const GO_TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

struct TypeMetaVisitor<'f> {
    failure: &'f mut Option<String>,
}

impl TypeMetaVisitor<'_> {
    fn mismatch<T, E: serde::de::Error>(self, found: &str) -> Result<T, E> {
        *self.failure = Some(format!("json: cannot unmarshal {found} into Go value of type {GO_TYPE_META}"));
        Err(E::custom("not an object"))
    }
}

impl<'de> Visitor<'de> for TypeMetaVisitor<'_> {
    type Value = TypeMeta;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E>(self) -> Result<TypeMeta, E> {
        Ok(TypeMeta::default())
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<TypeMeta, E> {
        self.mismatch("bool")
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<TypeMeta, E> {
        self.mismatch("number")
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<TypeMeta, E> {
        self.mismatch("number")
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<TypeMeta, E> {
        self.mismatch("number")
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<TypeMeta, E> {
        self.mismatch("string")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<TypeMeta, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.mismatch("array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TypeMeta, A::Error> {
        let mut meta = TypeMeta::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let target = match &key {
                Cow::Borrowed("kind") => &mut meta.kind,
                Cow::Borrowed("apiVersion") => &mut meta.api_version,
                Cow::Owned(name) if name == "kind" => &mut meta.kind,
                Cow::Owned(name) if name == "apiVersion" => &mut meta.api_version,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            match map.next_value::<Value>()? {
                Value::String(text) => *target = text,
                Value::Null => {}
                other => {
                    let found = visit::go_kind(&other);
                    *self.failure =
                        Some(format!("json: cannot unmarshal {found} into Go struct field .{key} of type string"));
                    return Err(serde::de::Error::custom("not a string"));
                }
            }
        }
        Ok(meta)
    }
}
