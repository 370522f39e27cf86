//! ControllerRevisions: what a controller keeps of an earlier template.

use coracle_api::{Cause, GroupVersion, Metadata};
use coracle_base::Now;
use serde_json::Value;

use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};

/// The strategy of ControllerRevisions.
#[derive(Debug)]
pub(crate) struct ControllerRevisionStrategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Controller", "string", "Controller of the object"),
    table::column("Revision", "string", descriptions::REVISION),
    table::AGE,
];

impl Strategy for ControllerRevisionStrategy {
    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        let data = FieldPath::new("data");
        causes.nonnegative(&FieldPath::new("revision"), &object["revision"]);
        if let Some(old) = old {
            causes.immutable(&data, &object["data"], &old["data"]);
        } else if object["data"].is_null() {
            causes.required(&data, "data is mandatory");
        } else if !object["data"].is_object() {
            causes.required(&data, "data must be a valid JSON object");
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let metadata = Metadata::of(object);
        let controller = metadata.controller().map_or_else(
            || "<none>".to_owned(),
            |owner| {
                let group = GroupVersion::parse(&owner.api_version).map(|gv| gv.group.into_owned()).unwrap_or_default();
                let dot = if group.is_empty() { "" } else { "." };
                format!("{}{dot}{group}/{}", owner.kind.to_lowercase(), owner.name)
            },
        );
        let revision = table::number(&object["revision"]);
        table::row([table::name(object), controller.into(), revision, table::age(object, now)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn the_data_is_an_object_for_ever() {
        let check = |object: Value, old: Option<&Value>| texts(ControllerRevisionStrategy.validate(&object, old, ""));
        assert_eq!(check(json!({}), None), ["data: Required value: data is mandatory"]);
        assert_eq!(check(json!({"data": 1}), None), ["data: Required value: data must be a valid JSON object"]);
        let old = json!({"data": {"a": 1}});
        let changed = check(json!({"data": {"a": 2}}), Some(&old));
        assert_eq!(changed, ["data: Invalid value: {\"a\":2}: field is immutable"]);
    }

    #[test]
    fn the_row_names_the_controller() {
        let object = json!({"metadata": {"name": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]}, "revision": 2});
        let row = cells(&ControllerRevisionStrategy, &object);
        assert_eq!(row, json!(["r", "statefulset.apps/db", 2, "<unknown>"]));
    }
}
