//! How objects are written into answers: whole, as Tables, or their metadata alone; in JSON (indented or not) or YAML.
//!
//! Stored bytes are spliced, not decoded, wherever the form allows it.

mod indent;
mod table;

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{Gvk, Object, Resource, Response, Revision};
use coracle_base::Now;
use serde_json::Value;

use crate::request::negotiate::{Encoding, Form, Media};
use crate::strategy::Strategy;

/// Lists are cut into pieces of about this many bytes, so that no answer needs one large allocation.
const PIECE_BYTES: usize = 256 << 10;

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

    /// An answer with a list.
    pub(crate) fn list(&self, meta: &ListMeta, objects: &[Arc<Object>]) -> Response {
        let mut body = Vec::new();
        let mut out = Vec::with_capacity(4096);
        match self.encoding.form {
            Form::Table => {
                self.write_table_head(meta, &mut out);
                items(objects, |object, out| self.write_row(object, out), &mut out, &mut body);
            }
            Form::Object => {
                let gvk = &self.resource.gvk;
                let head = format!(r#"{{"kind":"{}List","apiVersion":"{}","metadata":"#, gvk.kind, gvk.api_version());
                out.extend_from_slice(head.as_bytes());
                meta.write(&mut out);
                out.extend_from_slice(br#","items":["#);
                items(objects, |object, out| self.write_whole(object, None, out), &mut out, &mut body);
            }
            Form::Partial => {
                let head = r#"{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":"#;
                out.extend_from_slice(head.as_bytes());
                meta.write(&mut out);
                out.extend_from_slice(br#","items":["#);
                items(objects, write_partial, &mut out, &mut body);
            }
        }
        body.push(Bytes::from(out));
        finish_pieces(self.encoding, 200, body)
    }
}

/// Appends the items of a list and its end; what is large enough becomes a piece of the body.
fn items(objects: &[Arc<Object>], write: impl Fn(&Object, &mut Vec<u8>), out: &mut Vec<u8>, body: &mut Vec<Bytes>) {
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(object, out);
        if out.len() >= PIECE_BYTES {
            // The next piece has room for what this one has: no byte is copied twice.
            let next = Vec::with_capacity(out.capacity().min(2 * PIECE_BYTES));
            body.push(Bytes::from(std::mem::replace(out, next)));
        }
    }
    out.extend_from_slice(b"]}");
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
    finish_pieces(encoding, code, vec![Bytes::from(json)])
}

fn finish_pieces(encoding: Encoding, code: u16, pieces: Vec<Bytes>) -> Response {
    let body = match encoding.media {
        Media::Json if encoding.pretty => vec![Bytes::from(indent::indent(&pieces.concat()))],
        Media::Json => pieces,
        Media::Yaml => vec![Bytes::from(yaml(&pieces.concat()))],
    };
    Response { status: code, headers: vec![("content-type", encoding.content_type().into())], body }
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
