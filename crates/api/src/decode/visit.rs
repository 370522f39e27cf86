//! The visitor that reads one value of a known shape.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, Decoded, Strictness, scalar};
use crate::schema::{Field, Schema, Shape, TypeId};

/// How many unknown and duplicate fields are reported, as in Kubernetes.
const PROBLEMS_MAX: usize = 100;

/// What is known while a body is read.
pub(super) struct Context<'s> {
    schema: &'s Schema,
    reports: bool,
    /// Where the value stands, as in `.spec.containers[0]`; kept only where it is reported.
    path: String,
    /// The names of the fields on the way, without indexes and map keys, as Go's errors have them.
    fields: Vec<&'s str>,
    /// The struct that the last of `fields` belongs to.
    parent: Option<TypeId>,
    problems: Vec<String>,
    /// Why reading stopped, where it was not the syntax.
    failure: Option<String>,
}

impl<'s> Context<'s> {
    pub(super) fn new(schema: &'s Schema, strictness: Strictness) -> Self {
        Self {
            schema,
            reports: strictness != Strictness::Ignore,
            path: String::new(),
            fields: Vec::new(),
            parent: None,
            problems: Vec::new(),
            failure: None,
        }
    }

    pub(super) fn finish(self, value: Value, strictness: Strictness) -> Result<Decoded, DecodeError> {
        if strictness == Strictness::Strict && !self.problems.is_empty() {
            return Err(DecodeError::Strict(self.problems));
        }
        Ok(Decoded { value, warnings: self.problems })
    }

    pub(super) fn fail(self, error: &serde_json::Error, syntax: Result<(), String>) -> DecodeError {
        match (syntax, self.failure) {
            (Err(text), _) => DecodeError::Syntax(text),
            (Ok(()), Some(text)) => DecodeError::Type(text),
            (Ok(()), None) => DecodeError::Syntax(error.to_string()),
        }
    }

    fn report(&mut self, what: &str, name: &str) {
        if !self.reports || self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        let path = format!("{}.{name}", self.path);
        let problem = format!("{what} field {:?}", path.trim_start_matches('.'));
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn enter(&mut self, name: &str) {
        if self.reports {
            self.path.push('.');
            self.path.push_str(name);
        }
    }

    fn enter_item(&mut self, index: usize) {
        if self.reports {
            self.path.push('[');
            self.path.push_str(&index.to_string());
            self.path.push(']');
        }
    }

    fn mismatch(&self, found: &str, wanted: &str) -> String {
        match self.parent {
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
            Some(parent) => {
                let name = self.schema.get(parent).short_name();
                let path = self.fields.join(".");
                format!("json: cannot unmarshal {found} into Go struct field {name}.{path} of type {wanted}")
            }
        }
    }

    /// The Go type of a shape, as its errors print it.
    fn go_type(&self, shape: &Shape) -> String {
        match shape {
            // Times unmarshal themselves, by way of a text; `IntOrString` by way of a number.
            Shape::String | Shape::Duration | Shape::Time | Shape::MicroTime => "string".into(),
            Shape::IntOrString => "int32".into(),
            Shape::Bytes => "[]uint8".into(),
            Shape::Integer { bits } => format!("int{bits}"),
            Shape::Number => "float64".into(),
            Shape::Boolean => "bool".into(),
            Shape::Quantity => "resource.Quantity".into(),
            Shape::Object(id) => {
                let name = &self.schema.get(*id).name;
                let from = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
                name[from..].to_owned()
            }
            Shape::List(item) => format!("[]{}", self.go_type(item)),
            Shape::Map(item) if **item == Shape::Quantity => "v1.ResourceList".into(),
            Shape::Map(item) => format!("map[string]{}", self.go_type(item)),
            Shape::Any => "interface {}".into(),
        }
    }
}

/// What Go's errors call a JSON value.
pub(super) fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// An object's key, borrowed from the text where that is possible.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(KeyVisitor)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Key<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
        Ok(Key(Cow::Owned(key.to_owned())))
    }
}

/// Reads one value of a shape.
pub(super) struct Seed<'c, 's, 'p> {
    context: &'c mut Context<'s>,
    shape: &'p Shape,
}

impl<'c, 's, 'p> Seed<'c, 's, 'p> {
    pub(super) fn new(context: &'c mut Context<'s>, shape: &'p Shape) -> Self {
        Self { context, shape }
    }

    fn mismatch<T, E: serde::de::Error>(self, found: &str) -> Result<T, E> {
        // A quantity unmarshals itself: whatever is none fails as a text that is none.
        let text = match self.shape {
            Shape::Quantity => crate::quantity::ParseQuantityError.to_string(),
            shape => self.context.mismatch(found, &self.context.go_type(shape)),
        };
        self.fail(text)
    }

    fn fail<T, E: serde::de::Error>(self, text: String) -> Result<T, E> {
        self.context.failure = Some(text);
        Err(E::custom("the value is not of its type"))
    }

    fn checked<E: serde::de::Error>(self, result: Result<Value, String>) -> Result<Value, E> {
        result.or_else(|text| self.fail(text))
    }

    fn number<E: serde::de::Error>(self, number: Number) -> Result<Value, E> {
        let whole = number.as_i64();
        match self.shape {
            Shape::Any | Shape::Number => Ok(Value::Number(number)),
            Shape::Quantity => self.checked(scalar::quantity(&number.to_string())),
            Shape::Integer { bits: 64 } if whole.is_some() => Ok(Value::Number(number)),
            Shape::Integer { .. } | Shape::IntOrString if whole.is_some_and(|n| i32::try_from(n).is_ok()) => {
                Ok(Value::Number(number))
            }
            Shape::Integer { .. } | Shape::IntOrString => self.mismatch(&format!("number {number}")),
            _ => self.mismatch("number"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.shape {
            Shape::Any => Value::deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.shape {
            Shape::Boolean => Ok(Value::Bool(value)),
            _ => self.mismatch("bool"),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Value, E> {
        self.number(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        self.number(number.into())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        match Number::from_f64(number) {
            Some(number) => self.number(number),
            None => self.mismatch("number"),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        match self.shape {
            Shape::String | Shape::IntOrString | Shape::Duration => Ok(Value::String(text.to_owned())),
            Shape::Bytes => self.checked(scalar::base64(text)),
            Shape::Quantity => self.checked(scalar::quantity(text)),
            Shape::Time => self.checked(scalar::time(text)),
            Shape::MicroTime => self.checked(scalar::micro_time(text)),
            _ => self.mismatch("string"),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let Shape::List(item) = self.shape else { return self.mismatch("array") };
        let context = self.context;
        let length = context.path.len();
        let mut items = Vec::new();
        loop {
            context.enter_item(items.len());
            let next = seq.next_element_seed(Seed::new(&mut *context, item))?;
            context.path.truncate(length);
            match next {
                None => return Ok(Value::Array(items)),
                Some(Value::Null) => items.push(zero(context.schema, item)),
                Some(value) => items.push(value),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::Object(id) => read_object(self.context, *id, map),
            Shape::Map(item) => read_map(self.context, item, map),
            _ => self.mismatch("object"),
        }
    }
}

fn read_object<'de, A: MapAccess<'de>>(context: &mut Context<'_>, id: TypeId, mut map: A) -> Result<Value, A::Error> {
    let schema = context.schema;
    let fields = &schema.get(id).fields;
    let length = context.path.len();
    let parent = context.parent;
    let mut seen: Vec<&str> = Vec::with_capacity(8);
    let mut object = Map::new();
    while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
        let Some(field) = fields.get(key.as_ref()) else {
            context.report("unknown", &key);
            map.next_value::<IgnoredAny>()?;
            continue;
        };
        if seen.contains(&field.name.as_str()) {
            context.report("duplicate", &key);
        } else {
            seen.push(&field.name);
        }
        context.enter(&field.name);
        context.fields.push(&field.name);
        context.parent = Some(id);
        let value = map.next_value_seed(Seed::new(&mut *context, &field.shape))?;
        context.fields.pop();
        context.path.truncate(length);
        if value.is_null() || is_omitted(field, &value) {
            object.remove(&field.name);
        } else {
            object.insert(field.name.clone(), value);
        }
    }
    context.parent = parent;
    fill(schema, id, &mut object);
    Ok(Value::Object(object))
}

fn read_map<'de, A: MapAccess<'de>>(context: &mut Context<'_>, item: &Shape, mut map: A) -> Result<Value, A::Error> {
    let length = context.path.len();
    let mut object = Map::new();
    while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
        if object.contains_key(key.as_ref()) {
            context.report("duplicate", &key);
        }
        context.enter(&key);
        let value = map.next_value_seed(Seed::new(&mut *context, item))?;
        context.path.truncate(length);
        let value = if value.is_null() { zero(context.schema, item) } else { value };
        object.insert(key.into_owned(), value);
    }
    Ok(Value::Object(object))
}

/// Whether Go's `omitempty` leaves a value out. Pointers are left out only when nothing was given; structs never are, but for
/// `IntOrString`: a zero `targetPort` means that none was given.
fn is_omitted(field: &Field, value: &Value) -> bool {
    if !field.omit_empty || field.pointer {
        return false;
    }
    match (&field.shape, value) {
        (Shape::Object(_) | Shape::Any | Shape::Quantity | Shape::Time | Shape::MicroTime, _) => false,
        (_, Value::String(text)) => text.is_empty(),
        (_, Value::Bool(value)) => !value,
        (_, Value::Number(number)) => number.as_f64() == Some(0.0),
        (_, Value::Array(items)) => items.is_empty(),
        (_, Value::Object(map)) => map.is_empty(),
        (_, Value::Null) => true,
    }
}

/// Adds what Go writes although nothing was given for it.
fn fill(schema: &Schema, id: TypeId, object: &mut Map<String, Value>) {
    let fields = &schema.get(id).fields;
    for name in schema.written_when_absent(id) {
        if !object.contains_key(name) {
            let field = &fields[name];
            let nil = field.pointer || matches!(field.shape, Shape::Bytes);
            object.insert(name.clone(), if nil { Value::Null } else { zero(schema, &field.shape) });
        }
    }
}

/// Go's zero value of a shape, as it writes it.
fn zero(schema: &Schema, shape: &Shape) -> Value {
    match shape {
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Integer { .. } | Shape::Number | Shape::IntOrString => Value::from(0),
        Shape::Boolean => Value::Bool(false),
        Shape::Quantity => Value::from("0"),
        Shape::Duration => Value::from("0s"),
        Shape::Time | Shape::MicroTime | Shape::List(_) | Shape::Map(_) | Shape::Any => Value::Null,
        Shape::Object(id) => {
            let mut object = Map::new();
            fill(schema, *id, &mut object);
            Value::Object(object)
        }
    }
}
