//! The frames of a watch: `{"type":"ADDED","object":{...}}`, one line each.

use bytes::Bytes;
use coracle_api::{Object, Status};
use coracle_base::Now;
use serde_json::{Value, json};

use super::Watcher;
use crate::answer::write_partial;
use crate::request::negotiate::Form;

/// Whether a bookmark is the one that ends the initial events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InitialEventsEnd {
    Yes,
    No,
}

impl Watcher {
    pub(super) fn event(&mut self, kind: &str, object: &Object, now: Now) -> Bytes {
        let mut out = start(kind, object.body().len());
        match self.encoding.form {
            Form::Object => self.presenter(now).write_whole(object, Some(&self.resource.gvk), &mut out),
            Form::Partial => write_partial(object, &mut out),
            Form::Table => {
                let columns = !self.columns_told;
                self.presenter(now).write_event_table(object, columns, &mut out);
                self.columns_told = true;
            }
        }
        end(out)
    }

    pub(super) fn bookmark(&self, now: Now, initial: InitialEventsEnd) -> Bytes {
        let mut metadata = json!({ "resourceVersion": self.position.to_string() });
        if initial == InitialEventsEnd::Yes {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let mut out = start("BOOKMARK", 128);
        let object = match self.encoding.form {
            Form::Table => {
                self.presenter(now).write_bookmark_table(&metadata, &mut out);
                return end(out);
            }
            Form::Partial => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            Form::Object => {
                let gvk = &self.resource.gvk;
                json!({ "kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata })
            }
        };
        out.extend_from_slice(object.to_string().as_bytes());
        end(out)
    }
}

/// The frame that ends a watch in failure.
pub(super) fn error(status: &Status) -> Bytes {
    let mut out = start("ERROR", 256);
    out.extend_from_slice(&status.to_json());
    end(out)
}

fn start(kind: &str, object_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(object_bytes + 160);
    out.extend_from_slice(br#"{"type":"#);
    out.extend_from_slice(Value::from(kind).to_string().as_bytes());
    out.extend_from_slice(br#","object":"#);
    out
}

fn end(mut out: Vec<u8>) -> Bytes {
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}
