//! The canonical encoding of what is stored: `metadata` first, then every key in byte order, no spaces.
//!
//! It does not depend on `serde_json`'s features: another crate of the build may turn on `preserve_order`,
//! and two members must write the same bytes for the same object.

use serde_json::{Map, Value};

/// The canonical bytes of an object.
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_canonical_json(value, &mut out);
    out
}

/// Appends the canonical bytes of a value; `metadata` comes first in the outermost object only.
pub fn write_canonical_json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) if map.contains_key("metadata") => write_object(map, Some("metadata"), out),
        other => write_value(other, out),
    }
}

fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => write_object(map, None, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out);
            }
            out.push(b']');
        }
        scalar => serde_json::to_writer(out, scalar).expect("a scalar is written to memory"),
    }
}

fn write_object(map: &Map<String, Value>, first: Option<&str>, out: &mut Vec<u8>) {
    // Most maps are in order already: that of `serde_json` is sorted but with that feature.
    if first.is_none() && map.keys().is_sorted() {
        return write_entries(map.iter(), out);
    }
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_by_key(|(key, _)| (first != Some(key.as_str()), key.as_str()));
    write_entries(entries.into_iter(), out);
}

fn write_entries<'a>(entries: impl Iterator<Item = (&'a String, &'a Value)>, out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (key, value)) in entries.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).expect("a key is written to memory");
        out.push(b':');
        write_value(value, out);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_comes_first_and_the_rest_is_sorted() {
        let value =
            json!({"spec": {"b": 1, "a": [true, null]}, "metadata": {"name": "x"}, "data": {"metadata": 1, "a": "\n"}});
        let text = String::from_utf8(canonical_json(&value)).unwrap();
        assert_eq!(text, r#"{"metadata":{"name":"x"},"data":{"a":"\n","metadata":1},"spec":{"a":[true,null],"b":1}}"#);
    }
}
