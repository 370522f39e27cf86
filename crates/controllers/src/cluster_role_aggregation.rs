//! Puts ClusterRoles together out of others: `admin`, `edit` and `view` are the sums of what is labelled for them.
//!
//! Source: Kubernetes' clusterrole-aggregation controller.

use coracle_api::resources::CLUSTER_ROLES;
use coracle_api::{LabelSelector, Object, ObjectKey};
use coracle_store::View;
use serde_json::{Value, json};

use crate::object::{patch, read};
use crate::{Context, Controller, Outcome, Watch};

/// Keeps the rules of ClusterRoles that have an `aggregationRule`.
#[derive(Debug, Default)]
pub struct ClusterRoleAggregationController;

impl Controller for ClusterRoleAggregationController {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::of(CLUSTER_ROLES, aggregating)]
    }

    fn reconcile(&mut self, context: Context<'_>, key: &ObjectKey) -> Outcome {
        let Some((object, role)) = read(context.view, key) else { return Outcome::default() };
        if role["aggregationRule"].is_null() {
            return Outcome::default();
        }
        let rules = sum(context.view, &role, key);
        if role["rules"].as_array().map_or(&[][..], Vec::as_slice) == rules {
            return Outcome::default();
        }
        vec![patch(&object, None, json!({ "rules": rules }))].into()
    }
}

/// Any role may be part of any that is put together, so that a change of one wakes all of these: there are few.
fn aggregating(view: &View, _: &Object) -> Vec<ObjectKey> {
    let roles = view.list(&CLUSTER_ROLES, None).filter(|role| !role.value(None)["aggregationRule"].is_null());
    roles.map(|role| role.key().clone()).collect()
}

/// The rules of the roles that are selected, by selector and name, each rule once.
fn sum(view: &View, role: &Value, key: &ObjectKey) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for selector in role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten() {
        // Validation has refused what is no selector.
        let Ok(selector) = LabelSelector::from_value(selector) else { continue };
        let selected = view.list(&CLUSTER_ROLES, None).filter(|other| other.key() != key);
        for other in selected.filter(|other| selector.matches(&other.metadata().labels)) {
            for rule in other.value(None)["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests;
