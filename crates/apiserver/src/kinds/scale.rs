//! The bodies of subresources: Scale (`/scale`) and Binding (`/binding`).

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::value::{default, object_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};

/// The strategy of Scales, which are made from the objects that they scale and never stored.
#[derive(Debug)]
pub(crate) struct ScaleStrategy;

const SCALE_COLUMNS: &[Column] = &[
    Column { format: "", ..table::NAME },
    table::column("Desired", "integer", descriptions::SCALE_DESIRED),
    table::column("Available", "integer", descriptions::SCALE_AVAILABLE),
    table::AGE,
];

impl Strategy for ScaleStrategy {
    fn default(&self, object: &mut Value) {
        object_mut(object, "spec");
        if let Some(status) = object_mut(object, "status") {
            default(status, "replicas", 0);
        }
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        causes.nonnegative(&FieldPath::new("spec").child("replicas"), &object["spec"]["replicas"]);
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        SCALE_COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let replicas = |part: &str| table::number(&object[part]["replicas"]);
        table::row([table::name(object), replicas("spec"), replicas("status"), table::age(object, now)])
    }
}

/// The strategy of Bindings, which name the node of a pod and are never stored.
#[derive(Debug)]
pub(crate) struct BindingStrategy;

impl Strategy for BindingStrategy {
    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let (target, path) = (&object["target"], FieldPath::new("target"));
        let mut causes = Causes::new();
        let kind = text(target, "kind");
        if !matches!(kind, "" | "Node") {
            causes.not_supported(&path.child("kind"), kind, &["Node", "<empty>"]);
        }
        if text(target, "name").is_empty() {
            causes.required(&path.child("name"), "");
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        &[table::NAME, table::AGE]
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row([table::name(object), table::age(object, now)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn a_scale_shows_what_is_wanted_and_what_there_is() {
        let scale = json!({"metadata": {"name": "d1", "creationTimestamp": "2026-11-22T10:31:34Z"},
            "spec": {"replicas": 3}, "status": {"replicas": 2}});
        assert_eq!(cells(&ScaleStrategy, &scale), json!(["d1", 3, 2, "0s"]));
        assert_eq!(
            texts(ScaleStrategy.validate(&json!({"spec": {"replicas": -1}}), None, "")),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
    }

    #[test]
    fn a_binding_names_a_node() {
        assert_eq!(
            texts(BindingStrategy.validate(&json!({"target": {"kind": "Pod"}}), None, "")),
            [
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
                "target.name: Required value",
            ]
        );
    }
}
