//! The steps of a path into an object: a field's name, an item's keys, a set's value, an index; and their texts.
//!
//! Two texts exist: FieldsV1's (`f:spec`, `k:{"name":"c"}`), which is stored, and the one in messages (`.spec`, `[name="c"]`).

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

use super::field_set::DecodeError;

/// A scalar that identifies an item. Whole numbers are one value however they were written, as JSON has them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar {
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(Float),
    /// A text.
    Text(String),
    /// True or false.
    Bool(bool),
    /// Null.
    Null,
}

/// A number with the total order that a key needs.
#[derive(Clone, Copy, Debug)]
pub struct Float(f64);

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Float {}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl Scalar {
    /// The scalar of a value; `None` for lists and objects.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(*flag),
            Value::String(text) => Self::Text(text.clone()),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Self::Integer(whole),
                // Beyond 2^53 a float names no single whole number, so it stays one.
                (None, Some(float)) if float.fract() == 0.0 && float.abs() < 9e15 => Self::Integer(float as i64),
                (None, float) => Self::Float(Float(float.unwrap_or(f64::MAX))),
            },
            Value::Array(_) | Value::Object(_) => return None,
        })
    }

    fn to_value(&self) -> Value {
        match self {
            Self::Integer(whole) => Value::from(*whole),
            Self::Float(float) => Value::from(float.0),
            Self::Text(text) => Value::from(text.as_str()),
            Self::Bool(flag) => Value::from(*flag),
            Self::Null => Value::Null,
        }
    }
}

/// The JSON text: messages quote the same way for every text that names an item.
impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_value(), f)
    }
}

/// One step of a path. The order is that of FieldsV1: fields, keyed items, values, indexes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(String),
    /// An item of a list, by its keys in the order of their names.
    Key(Vec<(String, Scalar)>),
    /// A member of a set.
    Value(Scalar),
    /// An item of a list by its place.
    Index(usize),
}

impl PathElement {
    /// FieldsV1's text.
    pub fn encode(&self) -> String {
        match self {
            Self::Field(name) => {
                let mut out = String::with_capacity(name.len() + 2);
                out.push_str("f:");
                out.push_str(name);
                out
            }
            Self::Key(keys) => {
                let mut out = String::from("k:{");
                for (index, (name, value)) in keys.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push(':');
                    out.push_str(&value.to_string());
                }
                out.push('}');
                out
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads FieldsV1's text; `None` for a kind of step that is not known, which is skipped.
    pub(super) fn decode(text: &str) -> Result<Option<Self>, DecodeError> {
        let error = || DecodeError { text: text.to_owned() };
        let (kind, rest) = text.split_at_checked(2).ok_or_else(error)?;
        Ok(Some(match kind {
            "f:" => Self::Field(rest.to_owned()),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|_| error())?;
                let keys = keys.into_iter().map(|(name, value)| Some((name, Scalar::of(&value)?)));
                let mut keys: Vec<_> = keys.collect::<Option<_>>().ok_or_else(error)?;
                keys.sort();
                Self::Key(keys)
            }
            "v:" => {
                let value: Value = serde_json::from_str(rest).map_err(|_| error())?;
                Self::Value(Scalar::of(&value).ok_or_else(error)?)
            }
            "i:" => Self::Index(rest.parse().map_err(|_| error())?),
            other if other.ends_with(':') => return Ok(None),
            _ => return Err(error()),
        }))
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (index, (name, value)) in keys.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}
