//! Reading some fields of a JSON text: what is left out is skipped without being built.
//!
//! It is for who needs a few cells of many objects; whoever needs an object reads it whole.

mod reader;

use serde_json::Value;

use self::reader::Reader;

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
    /// Reads them. What is left out is not checked: the text is one that was written as JSON.
    ///
    /// # Errors
    ///
    /// When the text ends early, or what is read of it is no JSON.
    pub fn read(self, json: &[u8]) -> Result<Value, serde_json::Error> {
        let mut reader = Reader::new(json);
        let value = reader.value(self)?;
        reader.end()?;
        Ok(value.unwrap_or_default())
    }

    fn below(self, name: &[u8]) -> Self {
        let (named, other) = match self {
            Self::All => return Self::All,
            Self::Nothing => return Self::Nothing,
            Self::Only(named) => (named, Self::Nothing),
            Self::Except(named) => (named, Self::All),
        };
        named.iter().find(|(known, _)| known.as_bytes() == name).map_or(other, |(_, fields)| *fields)
    }
}

/// The first value of a text that starts with one, brackets and quotes included; nothing in it is decoded.
pub(crate) fn first_value(json: &[u8]) -> Result<&[u8], serde_json::Error> {
    Reader::new(json).raw()
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
    }

    #[test]
    fn text_with_quotes_and_brackets_in_it_ends_where_it_ends() {
        let value = json!({
            "skipped": [{"}": "]"}, "a \" and a \\", "", "exactly8", "a text that is longer than a word \\\""],
            "taken": {"\"": "\\", "long": "another text that is longer than a word, with a \" in it"},
            "é": "ü\u{1}",
        });
        let text = value.to_string();
        let fields = Fields::Except(&[("skipped", Fields::Nothing)]);
        assert_eq!(fields.read(text.as_bytes()).unwrap(), json!({"taken": value["taken"], "é": value["é"]}));
        assert_eq!(Fields::Except(&[]).read(text.as_bytes()).unwrap(), value);
        assert_eq!(first_value(&text.as_bytes()[11..]).unwrap(), value["skipped"].to_string().as_bytes());
    }

    #[test]
    fn a_text_that_ends_early_is_an_error_wherever_it_ends() {
        let text = json!({"a": {"x": [1, "two\""]}, "b": [true, null, {"n": "1"}]}).to_string();
        for fields in [Fields::Only(&[("b", Fields::All)]), Fields::Except(&[("a", Fields::Nothing)]), Fields::All] {
            assert!(fields.read(text.as_bytes()).is_ok());
            for end in 0..text.len() {
                assert!(fields.read(&text.as_bytes()[..end]).is_err(), "{}", &text[..end]);
            }
            assert!(fields.read(format!("{text} 1").as_bytes()).is_err());
        }
    }
}
