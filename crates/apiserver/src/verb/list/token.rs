//! The `continue` token of a page: the revision of the first page, and the last object that was shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coracle_api::{Reason, Response, Revision, Status};
use serde_json::{Value, json};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The revision to read at; `None` for the current one.
    pub(super) revision: Option<Revision>,
    /// The namespace of the last object shown.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
}

impl Token {
    /// The token behind an object; within one namespace only the name is told.
    pub(super) fn encode(revision: Revision, within: Option<&str>, namespace: &str, name: &str) -> String {
        let scope = if within.is_some() || namespace.is_empty() { String::new() } else { format!("/{namespace}") };
        let number = i64::try_from(revision.0).unwrap_or(i64::MAX);
        Self::encode_start(number, &format!("{scope}/{name}\0"))
    }

    fn encode_start(revision: i64, start: &str) -> String {
        // The keys stand in Kubernetes' order, which a `Value` would not keep.
        let text = format!(r#"{{"v":"meta.k8s.io/v1","rv":{revision},"start":{}}}"#, Value::from(start));
        URL_SAFE_NO_PAD.encode(text)
    }

    /// Reads a token; an empty one is none.
    pub(super) fn decode(token: &str, within: Option<&str>) -> Result<Option<Self>, Status> {
        if token.is_empty() {
            return Ok(None);
        }
        let value = value_of(token)?;
        if value["v"] != "meta.k8s.io/v1" {
            return Err(invalid(format!("server does not recognize this encoded version {}", value["v"])));
        }
        let revision = match value["rv"].as_i64() {
            Some(-1) => None,
            Some(number) if number > 0 => Some(Revision(number.cast_unsigned())),
            _ => return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into())),
        };
        let start = value["start"].as_str().unwrap_or_default();
        let start = start.strip_prefix('/').unwrap_or(start);
        let start = start.strip_suffix('\0').unwrap_or(start);
        let (namespace, name) = match (within, start.split_once('/')) {
            (Some(namespace), None) => (namespace, start),
            (None, Some((namespace, name))) => (namespace, name),
            (None, None) => ("", start),
            (Some(_), Some(_)) => return Err(invalid("start key is outside of the requested namespace".into())),
        };
        if name.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)".into()));
        }
        Ok(Some(Self { revision, namespace: namespace.to_owned(), name: name.to_owned() }))
    }
}

fn value_of(token: &str) -> Result<Value, Status> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| {
        let position = match error {
            base64::DecodeError::InvalidByte(position, _) | base64::DecodeError::InvalidLastSymbol(position, _) => {
                position
            }
            _ => token.len(),
        };
        invalid(format!("illegal base64 data at input byte {position}"))
    })?;
    serde_json::from_slice(&bytes).map_err(|_| {
        let first = bytes.first().copied().map_or(' ', char::from);
        invalid(format!("invalid character '{first}' looking for beginning of value"))
    })
}

fn invalid(why: String) -> Status {
    Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
}

/// 410 for a token whose revision is no longer kept, with one in its metadata that goes on at the current revision.
pub(super) fn expired(token: &str) -> Response {
    let start = value_of(token).ok().and_then(|value| value["start"].as_str().map(str::to_owned)).unwrap_or_default();
    let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
        without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
        Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted \
        between the time the first chunk was returned and now may show up in the list.";
    let status = Status::failure(410, Some(Reason::Expired), message);
    let mut value: Value = serde_json::from_slice(&status.to_json()).unwrap_or_default();
    value["metadata"] = json!({ "continue": Token::encode_start(-1, &start) });
    Response::json(410, value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_back_to_the_object_it_was_made_of() {
        let token = Token::encode(Revision(306), None, "default", "kube-root-ca.crt");
        assert_eq!(
            token,
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MzA2LCJzdGFydCI6Ii9kZWZhdWx0L2t1YmUtcm9vdC1jYS5jcnRcdTAwMDAifQ"
        );
        let read = Token::decode(&token, None).unwrap().unwrap();
        assert_eq!(
            (read.revision, &*read.namespace, &*read.name),
            (Some(Revision(306)), "default", "kube-root-ca.crt")
        );
        let within = Token::encode(Revision(1), Some("a"), "a", "x");
        assert_eq!(Token::decode(&within, Some("a")).unwrap().unwrap().namespace, "a");
    }

    #[test]
    fn junk_is_refused_in_kubernetes_words() {
        let error = Token::decode("abc", None).unwrap_err();
        assert_eq!(
            error.message,
            "invalid continue token: continue key is not valid: invalid character 'i' looking for beginning of value"
        );
    }
}
