//! ReplicaSets.

use coracle_api::{Attributes, Cause, Status};
use coracle_base::Now;
use serde_json::{Value, json};

use super::deployment::{check_counts, check_selector_and_template};
use super::pod::{default_template, warnings};
use super::value::{default, object_mut, restore, set};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};

/// The strategy of ReplicaSets.
#[derive(Debug)]
pub(crate) struct ReplicaSetStrategy;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Desired", "integer", descriptions::REPLICA_SET_DESIRED),
    table::column("Current", "integer", descriptions::REPLICA_SET_CURRENT),
    table::column("Ready", "integer", descriptions::REPLICA_SET_READY),
    table::AGE,
    table::wide("Containers", "Names of each container in the template."),
    table::wide("Images", "Images referenced by each container in the template."),
    table::wide("Selector", descriptions::REPLICA_SET_SELECTOR),
];

impl Strategy for ReplicaSetStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object_mut(object, "spec") else { return };
        default(spec, "replicas", 1);
        if let Some(template) = object_mut(spec, "template") {
            default_template(template);
        }
        if let Some(status) = object_mut(object, "status") {
            default(status, "replicas", 0);
        }
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        context.warnings.extend(warnings::of_name(object, "Pod names and hostnames"));
        context.warnings.extend(warnings::of_template(&object["spec"]["template"], "spec.template."));
        set(object, "status", json!({"replicas": 0}));
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        restore(object, old, if context.subresource == "status" { "spec" } else { "status" });
        Ok(())
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if subresource == "status" {
            let counts = [
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ];
            let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            check_counts(&object["status"], &FieldPath::new("status"), &counts, &parts, &mut causes);
            return causes.into_vec();
        }
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        for field in ["replicas", "minReadySeconds"] {
            causes.nonnegative(&path.child(field), &spec[field]);
        }
        check_selector_and_template(spec, &path, &mut causes);
        if let Some(old) = old {
            causes.immutable(&path.child("selector"), &spec["selector"], &old["spec"]["selector"]);
        }
        causes.into_vec()
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let replicas = object["status"]["replicas"].as_i64().unwrap_or(0);
        Attributes::from([("status.replicas".into(), replicas.to_string())])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let (spec, status) = (&object["spec"], &object["status"]);
        let [containers, images] = table::containers(&spec["template"]["spec"]);
        let selector = table::selector(&spec["selector"]);
        table::row([
            table::name(object),
            table::number(&spec["replicas"]),
            table::number(&status["replicas"]),
            table::number(&status["readyReplicas"]),
            table::age(object, now),
            containers,
            images,
            table::or(&selector, "<none>").into(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    fn replica_set() -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"app": "r"}}, "template": {
            "metadata": {"labels": {"app": "r"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
    }

    #[test]
    fn a_new_one_wants_one_pod_and_has_none() {
        let mut object = replica_set();
        World::new().create(&ReplicaSetStrategy, &mut object).unwrap();
        assert_eq!((&object["spec"]["replicas"], &object["status"]), (&json!(1), &json!({"replicas": 0})));
        assert!(ReplicaSetStrategy.validate(&object, None, "").is_empty());
        assert_eq!(cells(&ReplicaSetStrategy, &object), json!(["r", 1, 0, 0, "<unknown>", "c", "i:1", "app=r"]));
        assert_eq!(ReplicaSetStrategy.attributes(&object)["status.replicas"], "0");
    }

    #[test]
    fn it_needs_a_selector() {
        let mut object = replica_set();
        set(&mut object["spec"], "selector", Value::Null);
        ReplicaSetStrategy.default(&mut object);
        assert_eq!(texts(ReplicaSetStrategy.validate(&object, None, "")), ["spec.selector: Required value"]);
    }
}
