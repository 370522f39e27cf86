//! RoleBindings and ClusterRoleBindings.
//!
//! Source of the rules: `pkg/apis/rbac/validation` of Kubernetes.

use coracle_api::resources::{CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS};
use coracle_api::{Cause, GroupResource, Status};
use coracle_base::Now;
use serde_json::{Value, json};

use super::table;
use super::value::{default_zero, items, items_mut, text};
use crate::authorize;
use crate::strategy::{Column, Row, Strategy, StrategyContext};
use crate::validation::field::{Causes, FieldPath};
use crate::validation::name::{NameRule, Prefix, dns_subdomain};

/// The group of roles, and of users and groups as subjects.
const GROUP: &str = "rbac.authorization.k8s.io";

/// The strategy of RoleBindings and of ClusterRoleBindings, which differ in where they hold.
#[derive(Debug)]
pub(crate) enum RoleBindingStrategy {
    /// In one namespace.
    RoleBinding,
    /// In the whole cluster.
    ClusterRoleBinding,
}

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Role",
        "string",
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef \
         cannot be resolved, the Authorizer must return an error.",
    ),
    table::AGE,
    table::wide("Users", "Users in the roleBinding"),
    table::wide("Groups", "Groups in the roleBinding"),
    table::wide("ServiceAccounts", "ServiceAccounts in the roleBinding"),
];

const CLUSTER_COLUMNS: &[Column] = &[
    table::NAME,
    table::column(
        "Role",
        "string",
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the \
         Authorizer must return an error.",
    ),
    table::AGE,
    table::wide("Users", "Users in the clusterRoleBinding"),
    table::wide("Groups", "Groups in the clusterRoleBinding"),
    table::wide("ServiceAccounts", "ServiceAccounts in the clusterRoleBinding"),
];

impl Strategy for RoleBindingStrategy {
    fn default(&self, object: &mut Value) {
        if object["roleRef"].is_object() {
            default_zero(&mut object["roleRef"], "apiGroup", GROUP);
        }
        for subject in items_mut(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                default_zero(subject, "apiGroup", GROUP);
            }
        }
    }

    fn prepare_create(&self, context: &mut StrategyContext<'_>, object: &mut Value) -> Result<(), Status> {
        authorize::check_binding(context, &self.resource(), object, None)
    }

    fn prepare_update(&self, context: &mut StrategyContext<'_>, object: &mut Value, old: &Value) -> Result<(), Status> {
        authorize::check_binding(context, &self.resource(), object, Some(old))
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn validate(&self, object: &Value, old: Option<&Value>, _subresource: &str) -> Vec<Cause> {
        let mut causes = Causes::new();
        self.check_reference(&object["roleRef"], &mut causes);
        for (index, subject) in items(object, "subjects").iter().enumerate() {
            self.check_subject(subject, &FieldPath::new("subjects").index(index), &mut causes);
        }
        if let Some(old) = old
            && object["roleRef"] != old["roleRef"]
        {
            let part = |field| text(&object["roleRef"], field);
            let shown = json!({"APIGroup": part("apiGroup"), "Kind": part("kind"), "Name": part("name")});
            causes.invalid(&FieldPath::new("roleRef"), shown, "cannot change roleRef");
        }
        causes.into_vec()
    }

    fn columns(&self) -> &'static [Column] {
        match self {
            Self::RoleBinding => COLUMNS,
            Self::ClusterRoleBinding => CLUSTER_COLUMNS,
        }
    }

    fn row(&self, object: &Value, now: Now) -> Row {
        let role = format!("{}/{}", text(&object["roleRef"], "kind"), text(&object["roleRef"], "name"));
        let subjects = |kind: &str| {
            let of_kind = items(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
            let names = of_kind.map(|subject| match text(subject, "namespace") {
                namespace if kind == "ServiceAccount" && !namespace.is_empty() => {
                    format!("{namespace}/{}", text(subject, "name"))
                }
                _ => text(subject, "name").to_owned(),
            });
            names.collect::<Vec<_>>().join(", ").into()
        };
        let [users, groups, accounts] = ["User", "Group", "ServiceAccount"].map(subjects);
        table::row([table::name(object), role.into(), table::age(object, now), users, groups, accounts])
    }
}

impl RoleBindingStrategy {
    fn resource(&self) -> GroupResource {
        match self {
            Self::RoleBinding => ROLE_BINDINGS,
            Self::ClusterRoleBinding => CLUSTER_ROLE_BINDINGS,
        }
    }

    fn check_reference(&self, reference: &Value, causes: &mut Causes) {
        let path = FieldPath::new("roleRef");
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|field| text(reference, field));
        if group != GROUP {
            causes.not_supported(&path.child("apiGroup"), group, &[GROUP]);
        }
        let kinds: &[&str] = match self {
            Self::RoleBinding => &["Role", "ClusterRole"],
            Self::ClusterRoleBinding => &["ClusterRole"],
        };
        if !kinds.contains(&kind) {
            causes.not_supported(&path.child("kind"), kind, kinds);
        }
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        } else {
            causes.invalid_each(&path.child("name"), name, NameRule::PathSegment.check(name, Prefix::No));
        }
    }

    fn check_subject(&self, subject: &Value, path: &FieldPath, causes: &mut Causes) {
        let [kind, name, group, namespace] =
            ["kind", "name", "apiGroup", "namespace"].map(|field| text(subject, field));
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        }
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    causes.invalid_each(&path.child("name"), name, dns_subdomain(name));
                }
                if !group.is_empty() {
                    causes.not_supported(&path.child("apiGroup"), group, &[""]);
                }
                if matches!(self, Self::ClusterRoleBinding) && namespace.is_empty() {
                    causes.required(&path.child("namespace"), "");
                }
            }
            "User" | "Group" if group == GROUP => {}
            "User" | "Group" => causes.not_supported(&path.child("apiGroup"), group, &[GROUP]),
            _ => causes.not_supported(&path.child("kind"), kind, &["ServiceAccount", "User", "Group"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{cells, texts};

    fn binding() -> Value {
        json!({
            "metadata": {"name": "b"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [
                {"kind": "User", "name": "ann"}, {"kind": "User", "name": "bob"}, {"kind": "Group", "name": "dev"},
                {"kind": "ServiceAccount", "name": "app", "namespace": "shop"},
            ],
        })
    }

    fn defaulted(mut binding: Value) -> Value {
        RoleBindingStrategy::RoleBinding.default(&mut binding);
        binding
    }

    #[test]
    fn users_groups_and_roles_are_of_the_group_of_roles() {
        let binding = defaulted(binding());
        assert_eq!(binding["roleRef"]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][2]["apiGroup"], GROUP);
        assert_eq!(binding["subjects"][3].get("apiGroup"), None);
        assert!(RoleBindingStrategy::ClusterRoleBinding.validate(&binding, None, "").is_empty());
    }

    #[test]
    fn what_is_bound_is_a_role_and_to_whom_a_known_kind() {
        let mut binding = defaulted(binding());
        binding["roleRef"] = json!({"apiGroup": GROUP, "kind": "Role", "name": "a/b"});
        binding["subjects"] = json!([{"kind": "Robot", "name": "r"}, {"kind": "ServiceAccount", "name": "app"}]);
        assert_eq!(
            texts(RoleBindingStrategy::ClusterRoleBinding.validate(&binding, None, "")),
            [
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
                "subjects[1].namespace: Required value",
            ]
        );
    }

    #[test]
    fn the_role_of_a_binding_stays() {
        let (old, mut new) = (defaulted(binding()), defaulted(binding()));
        new["roleRef"]["name"] = "edit".into();
        assert_eq!(
            texts(RoleBindingStrategy::RoleBinding.validate(&new, Some(&old), "")),
            [
                "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"ClusterRole\",\"Name\":\"edit\"}: \
              cannot change roleRef"
            ]
        );
    }

    #[test]
    fn the_row_shows_the_role_and_the_subjects() {
        assert_eq!(
            cells(&RoleBindingStrategy::RoleBinding, &binding()),
            json!(["b", "ClusterRole/view", "<unknown>", "ann, bob", "dev", "shop/app"])
        );
    }
}
