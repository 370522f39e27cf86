//! Roles and ClusterRoles.
//!
//! Source of the rules: `pkg/apis/rbac/validation` of Kubernetes.

use coracle_api::{Cause, Fields, Status};
use coracle_base::Now;
use serde_json::Value;

use super::generic::GenericStrategy;
use super::value::items;
use crate::authorize;
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::label::check_selector;
use crate::validation::name::NameRule;

/// The strategy of Roles and of ClusterRoles, which differ in where their rules hold.
#[derive(Debug)]
pub(crate) enum RoleStrategy {
    /// Rules of one namespace.
    Role,
    /// Rules of the cluster, or of any namespace.
    ClusterRole,
}

impl Strategy for RoleStrategy {
    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        authorize::check_role(context, object, None)
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        authorize::check_role(context, object, Some(old))
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value, _old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        for (index, rule) in items(object, "rules").iter().enumerate() {
            self.check_rule(rule, &FieldPath::new("rules").index(index), &mut causes);
        }
        if let (Self::ClusterRole, Some(aggregation)) = (self, object["aggregationRule"].as_object()) {
            let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = aggregation.get("clusterRoleSelectors").and_then(Value::as_array);
            let selectors = selectors.map_or(&[][..], Vec::as_slice);
            if selectors.is_empty() {
                causes.required(&path, "at least one clusterRoleSelector required if aggregationRule is non-nil");
            }
            for (index, selector) in selectors.iter().enumerate() {
                check_selector(selector, &path.index(index), &mut causes);
            }
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        GenericStrategy.columns()
    }

    fn row_fields(&self) -> Fields {
        GenericStrategy.row_fields()
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        GenericStrategy.row(object, now)
    }
}

impl RoleStrategy {
    fn check_rule(&self, rule: &Value, path: &FieldPath, causes: &mut Causes) {
        if items(rule, "verbs").is_empty() {
            causes.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        let filled = |field: &str| !items(rule, field).is_empty();
        if filled("nonResourceURLs") {
            let (path, urls) = (path.child("nonResourceURLs"), &rule["nonResourceURLs"]);
            if matches!(self, Self::Role) {
                causes.invalid(&path, urls.clone(), "namespaced rules cannot apply to non-resource URLs");
            }
            if filled("apiGroups") || filled("resources") || filled("resourceNames") {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                causes.invalid(&path, urls.clone(), why);
            }
            return;
        }
        if !filled("apiGroups") {
            causes.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if !filled("resources") {
            causes.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{cells, texts};

    #[test]
    fn a_rule_is_about_resources_or_about_paths() {
        let rules = json!({"rules": [
            {},
            {"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
        ]});
        let both = "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources and \
                    non-resource URLs";
        let empty = [
            "rules[0].verbs: Required value: verbs must contain at least one value",
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[0].resources: Required value: resource rules must supply at least one resource",
        ];
        assert_eq!(texts(RoleStrategy::ClusterRole.validate(&rules, None, "")), [&empty[..], &[both]].concat());
        let namespaced = "rules[1].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to \
                          non-resource URLs";
        assert_eq!(texts(RoleStrategy::Role.validate(&rules, None, "")), [&empty[..], &[namespaced, both]].concat());
    }

    #[test]
    fn an_aggregation_needs_a_selector() {
        let role = json!({"aggregationRule": {"clusterRoleSelectors": []}});
        assert_eq!(
            texts(RoleStrategy::ClusterRole.validate(&role, None, "")),
            ["aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if \
              aggregationRule is non-nil"]
        );
    }

    #[test]
    fn the_row_shows_when_the_role_was_made() {
        let role = json!({"metadata": {"name": "view", "creationTimestamp": "2026-11-22T10:31:08Z"}});
        assert_eq!(cells(&RoleStrategy::ClusterRole, &role), json!(["view", "2026-11-22T10:31:08Z"]));
    }
}
