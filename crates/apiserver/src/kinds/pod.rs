//! Pods.

mod admission;
mod defaults;
mod match_labels;
mod qos;
mod table;
mod update;
pub(crate) mod warnings;

use coracle_api::{Attributes, Cause, Fields, Status};
use coracle_base::Now;
use serde_json::{Value, json};

#[cfg(test)]
pub(crate) use defaults::default_spec;
pub(crate) use defaults::{default_template, round_list};

use super::value::{items, object_mut, restore, set, text};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::pod_spec::{self, Owner};

/// The strategy of Pods.
#[derive(Debug)]
pub(crate) struct PodStrategy;

const SELECTABLE: &[&str] = &[
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

impl Strategy for PodStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object_mut(object, "spec") {
            defaults::default_pod_spec(spec);
        }
        object_mut(object, "status");
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        admission::admit(context, object)?;
        match_labels::resolve(object);
        self.default(object);
        set(object, "status", json!({"phase": "Pending", "qosClass": qos::class_of(&object["spec"])}));
        if !items(&object["spec"], "schedulingGates").is_empty() {
            let gated = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates", "observedGeneration": 1,
                "lastProbeTime": null, "lastTransitionTime": null}]);
            set(&mut object["status"], "conditions", gated);
        }
        context.warnings.extend(warnings::of_pod(object));
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        match context.subresource {
            "status" => {
                restore(object, old, "spec");
                for field in ["ownerReferences", "deletionTimestamp"] {
                    restore(&mut object["metadata"], &old["metadata"], field);
                }
                // A node that rejects a pod writes a status of its own without it.
                if text(&object["status"], "qosClass").is_empty() {
                    restore(&mut object["status"], &old["status"], "qosClass");
                }
            }
            "binding" => {}
            "ephemeralcontainers" => {
                let added = object["spec"]["ephemeralContainers"].take();
                restore(object, old, "spec");
                restore(object, old, "status");
                set(&mut object["spec"], "ephemeralContainers", added);
            }
            "resize" => update::keep_resources_only(object, old),
            _ => {
                restore(object, old, "status");
                for field in ["priority", "preemptionPolicy"] {
                    if object["spec"][field].is_null() {
                        restore(&mut object["spec"], &old["spec"], field);
                    }
                }
            }
        }
        Ok(())
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn generation_changed(&self, new: &Value, old: &Value) -> bool {
        // Binding a pod to a node is not a change of what was asked for.
        let asked = |object: &Value| {
            let mut spec = object["spec"].clone();
            set(&mut spec, "nodeName", Value::Null);
            spec
        };
        asked(new) != asked(old)
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        let path = FieldPath::new("spec");
        match (old, subresource) {
            (Some(old), "status") => update::check_status(object, old, &mut causes),
            (Some(_), "binding") => {}
            (Some(old), _) => {
                pod_spec::check(&object["spec"], Owner::Pod, &path, &mut causes);
                if subresource.is_empty() {
                    update::check_spec(&object["spec"], &old["spec"], &path, &mut causes);
                }
            }
            (None, _) => {
                let spec = &object["spec"];
                pod_spec::check(spec, Owner::Pod, &path, &mut causes);
                if !items(spec, "ephemeralContainers").is_empty() {
                    causes.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
                }
                if !text(spec, "nodeName").is_empty() && !items(spec, "schedulingGates").is_empty() {
                    let why = "cannot be set until all schedulingGates have been cleared";
                    causes.forbidden(&path.child("nodeName"), why);
                }
            }
        }
        causes.into_vec()
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let value = |field: &str| match field.split_once('.') {
            Some(("spec", "hostNetwork")) => (object["spec"]["hostNetwork"] == true).to_string(),
            Some((_, "podIP" | "podIPs")) => pod_ip(object).to_owned(),
            Some((part, field)) => text(&object[part], field).to_owned(),
            None => String::new(),
        };
        SELECTABLE.iter().map(|field| ((*field).to_owned(), value(field))).collect()
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        table::COLUMNS
    }

    fn row_fields(&self) -> Fields {
        table::FIELDS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row(object, now)
    }
}

/// A pod's first address, empty where it has none yet.
fn pod_ip(object: &Value) -> &str {
    let status = &object["status"];
    items(status, "podIPs").first().map_or_else(|| text(status, "podIP"), |address| text(address, "ip"))
}

#[cfg(test)]
mod tests;
