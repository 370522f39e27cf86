//! ConfigMaps.

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::value::entries;
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath, same};
use crate::validation::name::config_key;

/// How many bytes the values of a ConfigMap or a Secret have at most, together.
pub(crate) const DATA_MAX: usize = 1 << 20;
/// Why nothing of an immutable ConfigMap or Secret may change.
pub(crate) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// The strategy of ConfigMaps.
#[derive(Debug)]
pub(crate) struct ConfigMapStrategy;

const COLUMNS: &[Column] = &[table::NAME, table::column("Data", "string", descriptions::CONFIG_DATA), table::AGE];

impl Strategy for ConfigMapStrategy {
    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if let Some(old) = old {
            check_immutable(object, old, &["data", "binaryData"], &mut causes);
        }
        let mut size = 0;
        for (key, value) in entries(object, "data") {
            let path = FieldPath::new("data").key(key);
            causes.invalid_each(&path, key.as_str(), config_key(key));
            if object["binaryData"].get(key).is_some() {
                causes.invalid(&path, key.as_str(), "duplicate of key present in binaryData");
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in entries(object, "binaryData") {
            causes.invalid_each(&FieldPath::new("binaryData").key(key), key.as_str(), config_key(key));
            size += decoded_len(value);
        }
        if size > DATA_MAX {
            // The sum belongs to no field, and Kubernetes prints the path without a name like this: `[]`.
            causes.too_long(&FieldPath::default().key(""), DATA_MAX);
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let keys = entries(object, "data").count() + entries(object, "binaryData").count();
        table::row([table::name(object), keys.into(), table::age(object, now)])
    }
}

/// Nothing of what is marked immutable may change, nor the mark be taken away.
pub(crate) fn check_immutable(object: &Value, old: &Value, fields: &[&str], causes: &mut Causes) {
    if old["immutable"] != true {
        return;
    }
    if object["immutable"] != true {
        causes.forbidden(&FieldPath::new("immutable"), IMMUTABLE);
    }
    for field in fields {
        if !same(&object[*field], &old[*field]) {
            causes.forbidden(&FieldPath::new(field), IMMUTABLE);
        }
    }
}

/// How many bytes a base64 text stands for.
pub(crate) fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take_while(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn keys_and_sizes_are_checked() {
        let object = json!({"data": {"a b": "", "x": ""}, "binaryData": {"x": "eHg="}});
        let wrong = texts(ConfigMapStrategy.validate(&object, None, ""));
        assert!(wrong[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist of"));
        assert_eq!(wrong[1], "data[x]: Invalid value: \"x\": duplicate of key present in binaryData");
        let large = json!({"data": {"x": "x".repeat(DATA_MAX + 1)}});
        let wrong = texts(ConfigMapStrategy.validate(&large, None, ""));
        assert_eq!(wrong, ["[]: Too long: may not be more than 1048576 bytes"]);
    }

    #[test]
    fn an_immutable_one_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}});
        assert_eq!(
            texts(ConfigMapStrategy.validate(&new, Some(&old), "")),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
        assert!(ConfigMapStrategy.validate(&old, Some(&old), "").is_empty());
    }

    #[test]
    fn the_row_counts_the_keys() {
        let object = json!({"metadata": {"name": "c"}, "data": {"a": "1"}, "binaryData": {"b": ""}});
        assert_eq!(cells(&ConfigMapStrategy, &object), json!(["c", 2, "<unknown>"]));
    }
}
