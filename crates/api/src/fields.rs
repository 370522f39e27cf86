//! Reading some fields of a JSON text: what is left out is skipped without being built.
//!
//! It is for who needs a few cells of many objects; whoever needs an object reads it whole.

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Which fields to read. Elements of a list are all read alike.
#[derive(Clone, Copy, Debug)]
pub enum Fields {
    /// Everything.
    All,
    /// Nothing: the field is absent.
    Nothing,
    /// Only these.
    Only(&'static [(&'static str, Fields)]),
    /// Everything, but these only as far as they say.
    Except(&'static [(&'static str, Fields)]),
}

impl Fields {
    /// Reads them.
    ///
    /// # Errors
    ///
    /// When the text is no JSON.
    pub fn read(self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    fn below(self, name: &str) -> Self {
        let (named, other) = match self {
            Self::All => return Self::All,
            Self::Nothing => return Self::Nothing,
            Self::Only(named) => (named, Self::Nothing),
            Self::Except(named) => (named, Self::All),
        };
        named.iter().find(|(known, _)| *known == name).map_or(other, |(_, fields)| *fields)
    }
}

impl<'de> DeserializeSeed<'de> for Fields {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Self::All => serde::Deserialize::deserialize(deserializer),
            Self::Nothing => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null),
            Self::Only(_) | Self::Except(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Fields {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(wanted) = access.next_key_seed(Name(self))? {
            match wanted {
                None => _ = access.next_value::<IgnoredAny>()?,
                Some((name, fields)) => _ = map.insert(name, access.next_value_seed(fields)?),
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// The name of a field, where it is to be read at all: others are not even copied.
struct Name(Fields);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<(String, Fields)>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<(String, Fields)>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let fields = self.0.below(name);
        Ok((!matches!(fields, Fields::Nothing)).then(|| (name.to_owned(), fields)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_named_fields_are_read_in_every_element_of_a_list() {
        let text = br#"{"a": {"x": 1, "y": [2]}, "b": [{"n": "1", "m": {}}, {"n": null}], "c": true}"#;
        let fields = Fields::Only(&[("a", Fields::All), ("b", Fields::Only(&[("n", Fields::All)]))]);
        assert_eq!(fields.read(text).unwrap(), json!({"a": {"x": 1, "y": [2]}, "b": [{"n": "1"}, {"n": null}]}));
        let fields = Fields::Except(&[("a", Fields::Except(&[("y", Fields::Nothing)])), ("b", Fields::Nothing)]);
        assert_eq!(fields.read(text).unwrap(), json!({"a": {"x": 1}, "c": true}));
    }

    #[test]
    fn a_value_of_another_type_than_expected_is_read_as_it_is() {
        let fields = Fields::Only(&[("a", Fields::Only(&[("x", Fields::All)]))]);
        for value in [json!({"a": "text \" quoted"}), json!({"a": -3}), json!({"a": 1.5}), json!({"a": null})] {
            assert_eq!(fields.read(value.to_string().as_bytes()).unwrap(), value);
        }
        assert!(fields.read(b"{").is_err());
    }
}
