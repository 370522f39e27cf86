//! What connects server-side apply with client-side `kubectl apply`: the annotation that holds the last applied configuration.

use serde_json::{Map, Value};

use super::compare::compare;
use super::field_set::FieldSet;
use super::typed::{Spec, field_set};
use crate::canonical::write_canonical_json;
use crate::schema::Schema;

/// The manager that takes its own client-side past over.
pub(super) const KUBECTL: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How large all annotations of an object may be together, in bytes.
const ANNOTATIONS_SIZE_MAX: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// The fields that are still as client-side apply left them; `kubectl` may take them over without force.
pub(super) fn unchanged_since(schema: &Schema, spec: Spec<'_>, live: &Value, api_version: &str) -> Option<FieldSet> {
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) {
        return None;
    }
    let comparison = compare(schema, spec, Some(&last), live);
    Some(field_set(schema, spec, &last).difference(&comparison.changed).difference(&comparison.removed))
}

/// Brings the annotation up to date, where the object has it; it is dropped if it would make the annotations too large.
pub(super) fn refresh(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let text = render(config);
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    annotations.remove(ANNOTATION);
    if size(annotations) + ANNOTATION.len() + text.len() <= ANNOTATIONS_SIZE_MAX {
        annotations.insert(ANNOTATION.to_owned(), Value::String(text));
    }
}

/// The configuration without the annotation, as `kubectl` writes it: sorted keys and a line feed.
fn render(config: &Value) -> String {
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let mut out = b"{".to_vec();
    let mut entries: Vec<(&String, &Value)> = config.as_object().into_iter().flatten().collect();
    entries.sort_by_key(|(name, _)| name.as_str());
    for (index, (name, value)) in entries.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_canonical_json(&Value::String(name.clone()), &mut out);
        out.push(b':');
        write_canonical_json(value, &mut out);
    }
    out.extend_from_slice(b"}\n");
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn size(annotations: &Map<String, Value>) -> usize {
    annotations.iter().map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum()
}
