//! Leases.

use coracle_api::Cause;
use coracle_base::Now;
use serde_json::Value;

use super::value::{object_mut, text};
use super::{descriptions, table};
use crate::strategy::{Column, Row, Strategy};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::qualified_name;

/// The strategy of Leases.
#[derive(Debug)]
pub(crate) struct LeaseStrategy;

const COLUMNS: &[Column] = &[table::NAME, table::column("Holder", "string", descriptions::HOLDER), table::AGE];

impl Strategy for LeaseStrategy {
    fn default(&self, object: &mut Value) {
        object_mut(object, "spec");
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let (spec, path) = (&object["spec"], FieldPath::new("spec"));
        let mut causes = Causes::new();
        if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
            causes.invalid(&path.child("leaseDurationSeconds"), seconds, "must be greater than 0");
        }
        causes.nonnegative(&path.child("leaseTransitions"), &spec["leaseTransitions"]);
        if let Some(strategy) = spec["strategy"].as_str() {
            let path = path.child("strategy").child("strategy");
            if strategy.contains('/') {
                causes.invalid_each(&path, strategy, qualified_name(strategy));
            } else if strategy != "OldestEmulationVersion" {
                causes.not_supported(&path, strategy, &["OldestEmulationVersion"]);
            }
        }
        if !text(spec, "preferredHolder").is_empty() && text(spec, "strategy").is_empty() {
            causes.forbidden(&path.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
        causes.into_vec()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let holder = text(&object["spec"], "holderIdentity");
        table::row([table::name(object), holder.into(), table::age(object, now)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn durations_and_strategies_are_checked() {
        let object = json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1, "preferredHolder": "a"}});
        assert_eq!(
            texts(LeaseStrategy.validate(&object, None, "")),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ]
        );
    }

    #[test]
    fn the_row_shows_the_holder() {
        let object = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
        assert_eq!(cells(&LeaseStrategy, &object), json!(["l", "me", "<unknown>"]));
    }
}
