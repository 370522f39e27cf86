//! PriorityClasses.

use std::sync::Arc;

use coracle_api::{Cause, Status, resources};
use coracle_base::Now;
use coracle_store::View;
use serde_json::{Value, json};

use super::value::{default_zero, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};

/// The strategy of PriorityClasses.
#[derive(Debug)]
pub(crate) struct PriorityClassStrategy;

/// The highest priority that users may give.
const USER_MAX: i64 = 1_000_000_000;
/// The classes of the cluster's own pods, which are there without an object.
const BUILT_IN: [(&str, i64); 2] =
    [("system-node-critical", 2 * USER_MAX + 1000), ("system-cluster-critical", 2 * USER_MAX)];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Value", "integer", descriptions::PRIORITY_VALUE),
    table::column("Global-Default", "boolean", descriptions::PRIORITY_GLOBAL_DEFAULT),
    table::AGE,
    table::column("PreemptionPolicy", "string", descriptions::PRIORITY_PREEMPTION),
];

impl Strategy for PriorityClassStrategy {
    fn default(&self, object: &mut Value) {
        default_zero(object, "preemptionPolicy", "PreemptLowerPriority");
        super::value::default(object, "value", 0);
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        check_single_default(context, object)
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, _: &Value) -> Result<(), Status> {
        check_single_default(context, object)
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        let (value, path) = (object["value"].as_i64().unwrap_or(0), FieldPath::new("value"));
        let policy = FieldPath::new("preemptionPolicy");
        if let Some(old) = old {
            if value != old["value"].as_i64().unwrap_or(0) {
                causes.forbidden(&path, "may not be changed in an update.");
            }
            causes.immutable(&policy, &object["preemptionPolicy"], &old["preemptionPolicy"]);
            return causes.into_vec();
        }
        let name = text(&object["metadata"], "name");
        if name.starts_with("system-") {
            check_system_class(object, name, value, &mut causes);
        } else if value > USER_MAX {
            causes.forbidden(&path, &format!("maximum allowed value of a user defined priority is {USER_MAX}"));
        }
        causes.one_of(&policy, text(object, "preemptionPolicy"), &["PreemptLowerPriority", "Never"]);
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        table::row([
            table::name(object),
            table::number(&object["value"]),
            (object["globalDefault"] == true).into(),
            table::age(object, now),
            text(object, "preemptionPolicy").into(),
        ])
    }
}

/// The class of pods that name none: the least of those marked as default.
pub(super) fn default_class(view: &View) -> Option<Arc<Value>> {
    let classes = view.list(&resources::PRIORITY_CLASSES, None).filter_map(|class| view.decode::<Value>(class));
    let defaults = classes.filter(|class| class["globalDefault"] == true);
    defaults.min_by_key(|class| class["value"].as_i64().unwrap_or(0))
}

/// A class that needs no object.
pub(super) fn built_in(name: &str) -> Option<Value> {
    let (name, value) = BUILT_IN.into_iter().find(|(class, _)| *class == name)?;
    Some(json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": "PreemptLowerPriority"}))
}

fn check_single_default(context: &StrategyContext<'_>, object: &Value) -> Result<(), Status> {
    let name = text(&object["metadata"], "name");
    if object["globalDefault"] != true {
        return Ok(());
    }
    match default_class(context.view) {
        Some(class) if text(&class["metadata"], "name") != name => {
            let other = text(&class["metadata"], "name");
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(Status::forbidden(&resources::PRIORITY_CLASSES, name, why))
        }
        _ => Ok(()),
    }
}

fn check_system_class(object: &Value, name: &str, value: i64, causes: &mut Causes) {
    let why = match BUILT_IN.into_iter().find(|(class, _)| *class == name) {
        None => format!("{name} is not a known system priority class"),
        Some((_, known)) if known != value => format!("value of {name} PriorityClass must be {known}"),
        Some(_) if object["globalDefault"] == true => format!("globalDefault of {name} PriorityClass must be false"),
        Some(_) => return,
    };
    let path = FieldPath::new("metadata").child("name");
    let why = format!("priority class names with 'system-' prefix are reserved for system use only. error: {why}");
    causes.forbidden(&path, &why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{World, cells, texts};

    fn class(name: &str, value: i64) -> Value {
        json!({"metadata": {"name": name}, "value": value, "preemptionPolicy": "Never"})
    }

    #[test]
    fn values_have_a_limit_and_system_names_are_taken() {
        let check = |class: &Value| texts(PriorityClassStrategy.validate(class, None, ""));
        assert_eq!(
            check(&class("a", USER_MAX + 1)),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
        assert_eq!(
            check(&class("system-mine", 1)),
            [
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: \
              system-mine is not a known system priority class"
            ]
        );
        assert!(check(&class("system-node-critical", 2_000_001_000)).is_empty());
    }

    #[test]
    fn a_value_never_changes() {
        let wrong = PriorityClassStrategy.validate(&class("a", 1), Some(&class("a", 2)), "");
        assert_eq!(texts(wrong), ["value: Forbidden: may not be changed in an update."]);
    }

    #[test]
    fn there_is_one_default() {
        let mut default = class("a", 1);
        default["globalDefault"] = true.into();
        let mut world = World::new().with(&resources::PRIORITY_CLASSES, default.clone());
        default["metadata"]["name"] = "b".into();
        assert_eq!(
            world.create(&PriorityClassStrategy, &mut default).unwrap_err().message,
            "priorityclasses.scheduling.k8s.io \"b\" is forbidden: PriorityClass a is already marked as default. Only one \
             default can exist"
        );
    }

    #[test]
    fn the_row_shows_value_and_policy() {
        assert_eq!(cells(&PriorityClassStrategy, &class("a", 1)), json!(["a", 1, false, "<unknown>", "Never"]));
    }
}
