//! An object as it is stored and passed around: canonical bytes, what was read out of them, and a revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Map, Value};

use crate::fields::first_value;
use crate::{Fields, Gvk, Metadata, ObjectKey, Revision, canonical_json};

/// The values of an object's selectable fields beyond name and namespace (`spec.nodeName`, `status.phase`, ...):
/// worked out by who prepares a write, so that the store needs no schema.
pub type Attributes = BTreeMap<String, String>;

/// How every stored body starts: readers splice `resourceVersion` in behind it.
const BODY_START: &[u8] = br#"{"metadata":{"#;
/// Where its metadata starts.
const METADATA_START: usize = br#"{"metadata":"#.len();
/// What readers splice in, at most about.
const SPLICED_BYTES: usize = 128;

/// The bytes of an object are not what its kind says.
#[derive(Debug, thiserror::Error)]
#[error("{key} does not decode")]
pub struct DecodeError {
    /// Which object.
    pub key: ObjectKey,
    /// Why.
    #[source]
    pub source: serde_json::Error,
}

/// An immutable stored object. Its body is canonical JSON in the storage version, without `kind`, `apiVersion` and `resourceVersion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    key: ObjectKey,
    revision: Revision,
    metadata: Metadata,
    attributes: Attributes,
    body: Bytes,
}

impl Object {
    /// An object from its value; `kind`, `apiVersion` and `metadata.resourceVersion` in it are dropped.
    ///
    /// The value must have a `metadata` object with at least a name: who prepares a write has checked that.
    pub fn new(key: ObjectKey, revision: Revision, mut value: Value, attributes: Attributes) -> Self {
        strip(&mut value);
        let metadata = Metadata::of(&value);
        let body = Bytes::from(canonical_json(&value));
        assert!(body.starts_with(BODY_START), "{key} has no metadata");
        Self { key, revision, metadata, attributes, body }
    }

    /// An object from canonical bytes that [`Self::body`] gave out, as a log or a snapshot carries them.
    pub fn from_body(
        key: ObjectKey,
        revision: Revision,
        body: Bytes,
        attributes: Attributes,
    ) -> Result<Self, DecodeError> {
        match read_body(&body) {
            Ok(metadata) => Ok(Self { key, revision, metadata, attributes, body }),
            Err(source) => Err(DecodeError { key, source }),
        }
    }

    /// The same object at another revision.
    #[must_use]
    pub fn at(mut self, revision: Revision) -> Self {
        self.revision = revision;
        self
    }

    /// The key.
    pub fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// The revision that wrote it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What was read out of its metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Its selectable fields.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// One selectable field, empty when it is absent.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The canonical bytes.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The canonical bytes of its metadata, without `resourceVersion`.
    pub fn metadata_json(&self) -> &[u8] {
        first_value(&self.body[METADATA_START..]).expect("a stored body is JSON")
    }

    /// Appends the object as a client sees it, with `kind` and `apiVersion` where `gvk` is given (lists leave them out).
    pub fn write_json(&self, gvk: Option<&Gvk>, out: &mut Vec<u8>) {
        out.reserve(self.body.len() + SPLICED_BYTES);
        out.push(b'{');
        if let Some(gvk) = gvk {
            out.extend_from_slice(br#""kind":""#);
            out.extend_from_slice(gvk.kind.as_bytes());
            out.extend_from_slice(br#"","apiVersion":""#);
            out.extend_from_slice(gvk.api_version().as_bytes());
            out.extend_from_slice(br#"","#);
        }
        out.extend_from_slice(br#""metadata":{"resourceVersion":""#);
        self.revision.write(out);
        out.extend_from_slice(br#"","#);
        out.extend_from_slice(&self.body[BODY_START.len()..]);
    }

    /// The object as a value, with `metadata.resourceVersion`, and with `kind` and `apiVersion` where `gvk` is given.
    pub fn value(&self, gvk: Option<&Gvk>) -> Value {
        let mut value: Value = serde_json::from_slice(&self.body).expect("a stored body is JSON");
        value["metadata"]["resourceVersion"] = Value::String(self.revision.to_string());
        if let (Some(gvk), Some(map)) = (gvk, value.as_object_mut()) {
            map.insert("kind".into(), Value::String(gvk.kind.to_string()));
            map.insert("apiVersion".into(), Value::String(gvk.api_version()));
        }
        value
    }

    /// Some fields of the object as it is stored: without `kind`, `apiVersion` and `resourceVersion`.
    pub fn fields(&self, fields: Fields) -> Value {
        fields.read(&self.body).expect("a stored body is JSON")
    }

    /// The object as a typed, read-only view, with its `resourceVersion`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        let mut bytes = Vec::new();
        self.write_json(None, &mut bytes);
        serde_json::from_slice(&bytes).map_err(|source| DecodeError { key: self.key.clone(), source })
    }
}

/// Checks that readers can splice into the body, and reads its metadata.
fn read_body(body: &[u8]) -> Result<Metadata, serde_json::Error> {
    let text = std::str::from_utf8(body).map_err(serde_json::Error::custom)?;
    if !body.starts_with(BODY_START) || body.get(BODY_START.len()) != Some(&b'"') {
        return Err(serde_json::Error::custom("the body does not start with metadata"));
    }
    Metadata::of_json(text)
}

fn strip(value: &mut Value) {
    let Some(map) = value.as_object_mut() else { return };
    map.remove("kind");
    map.remove("apiVersion");
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        remove_resource_version(metadata);
    }
}

fn remove_resource_version(metadata: &mut Map<String, Value>) {
    metadata.remove("resourceVersion");
}

/// A change that a watcher is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The object is new to the watcher.
    Added(Arc<Object>),
    /// The object changed.
    Modified(Arc<Object>),
    /// The object is gone, or no longer matches; this is its last state, at the revision that took it away.
    Deleted(Arc<Object>),
    /// Everything up to this revision has been told.
    Bookmark(Revision),
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{CONFIG_MAP, CONFIG_MAPS};

    #[test]
    fn a_stored_body_lacks_what_readers_splice_in() {
        let value = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "resourceVersion": "1"}, "data": {"k": "v"}});
        let object = Object::new(ObjectKey::new(CONFIG_MAPS, "default", "a"), Revision(7), value, Attributes::new());
        assert_eq!(&object.body()[..], br#"{"metadata":{"name":"a"},"data":{"k":"v"}}"#);
        let mut out = Vec::new();
        object.write_json(Some(&CONFIG_MAP), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a"},"data":{"k":"v"}}"#
        );
        assert_eq!(object.metadata_json(), br#"{"name":"a"}"#);
        assert_eq!(object.value(Some(&CONFIG_MAP)), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn a_body_that_readers_cannot_splice_into_is_refused() {
        let read = |body: &'static [u8]| {
            let key = ObjectKey::new(CONFIG_MAPS, "default", "a");
            Object::from_body(key, Revision(7), Bytes::from_static(body), Attributes::new())
        };
        assert!(read(br#"{"metadata":{"name":"a"},"data":{}}"#).is_ok());
        let broken: [&[u8]; 5] =
            [b"", b"{}", br#"{"metadata":{}}"#, br#"{"metadata":{"name":"a"}"#, b"{\"metadata\":{\"name\":\"\xff\"}}"];
        for body in broken {
            assert!(read(body).is_err(), "{body:?}");
        }
    }
}
