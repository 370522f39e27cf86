//! Secrets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use coracle_api::{Attributes, Cause};
use coracle_base::Now;
use serde_json::Value;

use super::config_map::{DATA_MAX, check_immutable, decoded_len};
use super::value::{default_zero, entries, object_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::config_key;

/// The strategy of Secrets.
#[derive(Debug)]
pub(crate) struct SecretStrategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Type", "string", descriptions::SECRET_TYPE),
    table::column("Data", "string", descriptions::SECRET_DATA),
    table::AGE,
];

/// The annotation that a token Secret must have.
const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

impl Strategy for SecretStrategy {
    fn default(&self, object: &mut Value) {
        default_zero(object, "type", "Opaque");
        let Some(Value::Object(clear)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else {
            return;
        };
        if let Some(data) = object_mut(object, "data").filter(|_| !clear.is_empty()) {
            for (key, value) in clear {
                data[key] = BASE64_STANDARD.encode(value.as_str().unwrap_or_default()).into();
            }
        }
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if let Some(old) = old {
            causes.immutable(&FieldPath::new("type"), &object["type"], &old["type"]);
            check_immutable(object, old, &["data"], &mut causes);
        }
        let path = FieldPath::new("data");
        let mut size = 0;
        for (key, value) in entries(object, "data") {
            causes.invalid_each(&path.key(key), key.as_str(), config_key(key));
            size += decoded_len(value);
        }
        if size > DATA_MAX {
            causes.too_long(&path, DATA_MAX);
        }
        check_type(object, &path, &mut causes);
        causes.into_vec()
    }

    fn attributes(&self, object: &Value) -> Attributes {
        Attributes::from([("type".into(), text(object, "type").into())])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let keys = entries(object, "data").count();
        table::row([table::name(object), object["type"].clone(), keys.into(), table::age(object, now)])
    }
}

/// Secrets of a known type have keys that they need.
fn check_type(object: &Value, path: &FieldPath, causes: &mut Causes) {
    let has = |key: &str| object["data"].get(key).is_some();
    match text(object, "type") {
        "kubernetes.io/service-account-token"
            if text(&object["metadata"]["annotations"], SERVICE_ACCOUNT_NAME).is_empty() =>
        {
            let path = FieldPath::new("metadata").child("annotations").key(SERVICE_ACCOUNT_NAME);
            causes.required(&path, "");
        }
        "kubernetes.io/dockercfg" => check_json(object, ".dockercfg", path, causes),
        "kubernetes.io/dockerconfigjson" => check_json(object, ".dockerconfigjson", path, causes),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            causes.required(&path.key("username"), "");
            causes.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if text(&object["data"], "ssh-privatekey").is_empty() => {
            causes.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                causes.required(&path.key(key), "");
            }
        }
        _ => {}
    }
}

fn check_json(object: &Value, key: &str, path: &FieldPath, causes: &mut Causes) {
    let Some(encoded) = object["data"].get(key).and_then(Value::as_str) else {
        causes.required(&path.key(key), "");
        return;
    };
    let bytes = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        causes.invalid(&path.key(key), "<secret contents redacted>", error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn clear_text_is_merged_into_the_data_once() {
        let mut object = json!({"data": {"a": "MQ=="}, "stringData": {"a": "2", "b": "3"}});
        SecretStrategy.default(&mut object);
        let merged = json!({"type": "Opaque", "data": {"a": "Mg==", "b": "Mw=="}});
        assert_eq!(object, merged);
        SecretStrategy.default(&mut object);
        assert_eq!(object, merged);
    }

    #[test]
    fn a_typed_secret_needs_its_keys() {
        let check =
            |kind: &str, data: Value| texts(SecretStrategy.validate(&json!({"type": kind, "data": data}), None, ""));
        let tls = check("kubernetes.io/tls", json!({}));
        assert_eq!(tls, ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
        assert_eq!(check("kubernetes.io/basic-auth", json!({})).len(), 2);
        assert_eq!(check("kubernetes.io/ssh-auth", json!({})), ["data[ssh-privatekey]: Required value"]);
        assert_eq!(check("kubernetes.io/dockercfg", json!({})), ["data[.dockercfg]: Required value"]);
        let wrong = check("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "eA=="}));
        assert!(wrong[0].starts_with("data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": "));
        assert_eq!(
            check("kubernetes.io/service-account-token", json!({})),
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"]
        );
    }

    #[test]
    fn the_type_is_for_ever() {
        let (new, old) = (json!({"type": "b"}), json!({"type": "a"}));
        let wrong = texts(SecretStrategy.validate(&new, Some(&old), ""));
        assert_eq!(wrong, ["type: Invalid value: \"b\": field is immutable"]);
    }

    #[test]
    fn the_row_shows_the_type_and_counts_the_keys() {
        let object = json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": ""}});
        assert_eq!(cells(&SecretStrategy, &object), json!(["s", "Opaque", 1, "<unknown>"]));
    }
}
