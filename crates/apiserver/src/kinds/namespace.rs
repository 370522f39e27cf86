//! Namespaces.

use coracle_api::{Attributes, Cause, Status, resources};
use coracle_base::Now;
use serde_json::{Value, json};

use super::table;
use super::value::{default, items, object_mut, restore, set, text};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::meta::check_known_finalizer;
use crate::validation::name::{NameRule, qualified_name};

/// Namespaces that the cluster itself needs.
const PROTECTED: [&str; 3] = ["default", "kube-system", "kube-public"];
/// The finalizer that keeps a namespace until its content is gone.
const KUBERNETES: &str = "kubernetes";

/// The strategy of Namespaces.
#[derive(Debug)]
pub(crate) struct NamespaceStrategy;

const COLUMNS: &[Column] = &[table::NAME, table::column("Status", "string", "The status of the namespace"), table::AGE];

impl Strategy for NamespaceStrategy {
    fn default(&self, object: &mut Value) {
        let name = text(&object["metadata"], "name").to_owned();
        // A generated name is not known yet when defaults are set for the first time.
        if !name.is_empty()
            && let Some(labels) = object_mut(object, "metadata").and_then(|metadata| object_mut(metadata, "labels"))
        {
            set(labels, "kubernetes.io/metadata.name", name);
        }
        object_mut(object, "spec");
        if let Some(status) = object_mut(object, "status") {
            default(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, _context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        self.default(object);
        set(object, "status", json!({"phase": "Active"}));
        if let Some(spec) = object_mut(object, "spec")
            && !items(spec, "finalizers").iter().any(|finalizer| finalizer == KUBERNETES)
        {
            let mut finalizers = items(spec, "finalizers").to_vec();
            finalizers.push(KUBERNETES.into());
            set(spec, "finalizers", finalizers);
        }
        Ok(())
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        match context.subresource {
            "status" => restore(object, old, "spec"),
            "finalize" => restore(object, old, "status"),
            _ => {
                restore(object, old, "status");
                restore(object, old, "spec");
            }
        }
        Ok(())
    }

    fn validate(&self, object: &Value, old: Option<&Value>, subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        if subresource == "status" {
            check_phase(object, &mut causes);
            return causes.into_vec();
        }
        let path = FieldPath::new("spec").child("finalizers");
        for (index, finalizer) in items(&object["spec"], "finalizers").iter().enumerate() {
            // Only `/finalize` says which finalizer it is.
            let path = if old.is_some() && subresource == "finalize" { path.index(index) } else { path.clone() };
            let name = finalizer.as_str().unwrap_or_default();
            causes.invalid_each(&path, name, qualified_name(name));
            check_known_finalizer(name, &path, &mut causes);
        }
        causes.into_vec()
    }

    fn validate_delete(&self, _context: &mut StrategyContext<'_>, object: &Value) -> Result<(), Status> {
        let name = text(&object["metadata"], "name");
        if PROTECTED.contains(&name) {
            return Err(Status::forbidden(&resources::NAMESPACES, name, "this namespace may not be deleted"));
        }
        Ok(())
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn attributes(&self, object: &Value) -> Attributes {
        let phase = text(&object["status"], "phase");
        let name = text(&object["metadata"], "name");
        Attributes::from([("name".into(), name.into()), ("status.phase".into(), phase.into())])
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["name", "status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row([table::name(object), object["status"]["phase"].clone(), table::age(object, now)])
    }
}

fn check_phase(object: &Value, causes: &mut Causes) {
    let phase = text(&object["status"], "phase");
    let path = FieldPath::new("status").child("Phase");
    if object["metadata"]["deletionTimestamp"].is_null() {
        if phase != "Active" {
            causes.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty");
        }
    } else if phase != "Terminating" {
        causes.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    #[test]
    fn a_new_namespace_is_active_and_has_its_finalizer_and_label() {
        let mut object = json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}});
        World::new().create(&NamespaceStrategy, &mut object).unwrap();
        let ready = json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        assert_eq!(object, ready);
        assert_eq!(cells(&NamespaceStrategy, &object), json!(["a", "Active", "<unknown>"]));
    }

    #[test]
    fn only_the_subresources_change_finalizers_and_phase() {
        let old =
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let change = json!({"metadata": {"name": "a"}, "spec": {}, "status": {"phase": "Terminating"}});
        let after = |subresource: &'static str| {
            let mut object = change.clone();
            World::new().update(&NamespaceStrategy, subresource, &mut object, &old).unwrap();
            object
        };
        assert_eq!((&after("")["spec"], &after("")["status"]), (&old["spec"], &old["status"]));
        assert_eq!(after("finalize")["spec"], json!({}));
        assert_eq!(after("status")["status"]["phase"], "Terminating");
        let wrong = texts(NamespaceStrategy.validate(&after("status"), Some(&old), "status"));
        assert_eq!(
            wrong,
            ["status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty"]
        );
    }

    #[test]
    fn the_namespaces_of_the_cluster_stay() {
        let refused = World::new().delete(&NamespaceStrategy, &json!({"metadata": {"name": "default"}})).unwrap_err();
        assert_eq!(refused.message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
        assert_eq!(refused.code, 403);
        World::new().delete(&NamespaceStrategy, &json!({"metadata": {"name": "mine"}})).unwrap();
    }

    #[test]
    fn a_finalizer_needs_a_domain() {
        let object = json!({"spec": {"finalizers": ["mine"]}});
        assert_eq!(
            texts(NamespaceStrategy.validate(&object, None, "")),
            [
                "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
    }
}
