//! How objects are written into answers: whole, as Tables, or their metadata alone; in JSON (indented or not) or YAML.
//!
//! Stored bytes are spliced, not decoded, wherever the form allows it.

mod indent;
mod listing;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Gvk, Object, Resource, Response, Revision};
use coracle_base::Now;
use serde_json::Value;

pub use self::listing::Listing;
use crate::request::negotiate::{Encoding, Form, Media};
use crate::strategy::Strategy;

/// From this size on, in stored bytes, a list is written while it is sent.
const LISTING_BYTES: usize = 256 << 10;

/// Whether a list is written while it is sent: a large one whose form needs no second look at the whole.
pub(crate) fn is_written_late(encoding: Encoding, objects: &[Arc<Object>]) -> bool {
    let plain = matches!(encoding.media, Media::Json) && !encoding.pretty;
    plain && objects.iter().map(|object| object.body().len()).sum::<usize>() >= LISTING_BYTES
}

/// An answer without a body, in the media type that was asked for.
pub(crate) fn head(encoding: Encoding) -> Response {
    Response { status: 200, headers: vec![("content-type", encoding.content_type().into())], body: Vec::new() }
}

/// The metadata of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    /// The revision of the state that is shown.
    pub(crate) revision: Revision,
    /// Where the next page starts.
    pub(crate) continue_token: String,
    /// How many objects come after this page; zero is left out.
    pub(crate) remaining: usize,
}

impl ListMeta {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!(r#"{{"resourceVersion":"{}""#, self.revision).as_bytes());
        if !self.continue_token.is_empty() {
            out.extend_from_slice(format!(r#","continue":"{}""#, self.continue_token).as_bytes());
        }
        if self.remaining > 0 {
            out.extend_from_slice(format!(r#","remainingItemCount":{}"#, self.remaining).as_bytes());
        }
        out.push(b'}');
    }
}

/// Writes objects of one resource in the representation that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presenter<'a> {
    /// The resource.
    pub(crate) resource: &'a Resource,
    /// What its kind adds.
    pub(crate) strategy: &'static dyn Strategy,
    /// The representation.
    pub(crate) encoding: Encoding,
    /// The time, for ages.
    pub(crate) now: Now,
}

impl Presenter<'_> {
    /// An answer with one object.
    pub(crate) fn object(&self, code: u16, object: &Object) -> Response {
        let mut out = Vec::with_capacity(object.body().len() + 256);
        match self.encoding.form {
            Form::Object => self.write_whole(object, Some(&self.resource.gvk), &mut out),
            Form::Partial => write_partial(object, &mut out),
            Form::Table => self.write_table(object, &mut out),
        }
        finish(self.encoding, code, out)
    }

    /// Appends a whole object: its stored bytes, except where the resource shows them under other names.
    pub(crate) fn write_whole(&self, object: &Object, gvk: Option<&Gvk>, out: &mut Vec<u8>) {
        if !self.resource.is_view() {
            return object.write_json(gvk, out);
        }
        let mut value = object.value(gvk);
        self.resource.from_stored(&mut value);
        out.extend_from_slice(&ordered(&value));
    }

    /// An answer with what a dry run would have stored.
    pub(crate) fn unstored(&self, code: u16, value: &Value) -> Response {
        let mut shown = value.clone();
        self.resource.from_stored(&mut shown);
        self.value(code, &shown)
    }

    /// An answer with a value that is made up for it: a Scale.
    pub(crate) fn value(&self, code: u16, value: &Value) -> Response {
        value_response(self.encoding, code, value)
    }

    /// An answer with a list, as a whole.
    pub(crate) fn list(&self, meta: &ListMeta, objects: &[Arc<Object>]) -> Response {
        let mut out = Vec::with_capacity(4096);
        self.write_list_head(meta, &mut out);
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_item(object, &mut out);
        }
        out.extend_from_slice(b"]}");
        finish(self.encoding, 200, out)
    }

    /// Appends a list up to its first item.
    fn write_list_head(&self, meta: &ListMeta, out: &mut Vec<u8>) {
        let gvk = &self.resource.gvk;
        let (kind, version) = match self.encoding.form {
            Form::Table => return self.write_table_head(meta, out),
            Form::Object => (format!("{}List", gvk.kind), gvk.api_version()),
            Form::Partial => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
        };
        out.extend_from_slice(format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":"#).as_bytes());
        meta.write(out);
        out.extend_from_slice(br#","items":["#);
    }

    /// Appends an item of a list.
    fn write_item(&self, object: &Object, out: &mut Vec<u8>) {
        match self.encoding.form {
            Form::Table => self.write_row(object, out),
            Form::Object => self.write_whole(object, None, out),
            Form::Partial => write_partial(object, out),
        }
    }
}

/// Appends a `PartialObjectMetadata`: the stored bytes of the metadata, nothing decoded.
pub(crate) fn write_partial(object: &Object, out: &mut Vec<u8>) {
    out.extend_from_slice(
        br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":""#,
    );
    object.revision().write(out);
    out.extend_from_slice(br#"","#);
    out.extend_from_slice(&object.metadata_json()[1..]);
    out.push(b'}');
}

/// An answer with any value.
pub(crate) fn value_response(encoding: Encoding, code: u16, value: &Value) -> Response {
    finish(encoding, code, ordered(value))
}

/// The value's JSON with `kind`, `apiVersion` and `metadata` first, as people expect them.
fn ordered(value: &Value) -> Vec<u8> {
    let Some(map) = value.as_object() else { return value.to_string().into_bytes() };
    let first = ["kind", "apiVersion", "metadata"];
    let mut out = vec![b'{'];
    let rest = map.keys().map(String::as_str).filter(|key| !first.contains(key));
    for key in first.into_iter().filter(|key| map.contains_key(*key)).chain(rest) {
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(Value::from(key).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(map[key].to_string().as_bytes());
    }
    out.push(b'}');
    out
}

/// An answer of JSON bytes, in the media type that was asked for.
pub(crate) fn finish(encoding: Encoding, code: u16, json: Vec<u8>) -> Response {
    let body = match encoding.media {
        Media::Json if encoding.pretty => indent::indent(&json),
        Media::Json => json,
        Media::Yaml => yaml(&json),
    };
    Response { status: code, body: vec![Bytes::from(body)], ..head(encoding) }
}

/// Indents the body of a JSON answer.
pub(crate) fn indented(mut response: Response) -> Response {
    response.body = vec![Bytes::from(indent::indent(&response.bytes()))];
    response
}

/// The value of a `Warning` header: 299 and a quoted string (RFC 9110); what is no visible ASCII is left out.
pub(crate) fn warning(text: &str) -> String {
    let mut out = String::from("299 - \"");
    for c in text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ') {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

fn yaml(json: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    crate::decode::to_yaml(&value).into_bytes()
}
