//! Nobody gives others more than he has: who writes a role must hold its rules, who writes a binding those of its role.
//!
//! The verbs `escalate` on the role and `bind` on the role that is bound lift that. Source: Kubernetes' policy-based storage of
//! roles and bindings.

use coracle_api::resources::{CLUSTER_ROLES, ROLES};
use coracle_api::{GroupResource, Status};
use serde_json::Value;

use super::index::role_key;
use super::rule::{PolicyRule, compact, quoted, uncovered};
use super::{Access, Attributes, ResourceAttributes, may_do_everything};
use crate::strategy::StrategyContext;

/// Checks a Role or ClusterRole that is written; `old` is there on an update.
pub(crate) fn check_role(context: &StrategyContext<'_>, role: &Value, old: Option<&Value>) -> Result<(), Status> {
    let user = &context.request.user;
    if may_do_everything(user) || old.is_some_and(|old| same_but_for_collection(role, old)) {
        return Ok(());
    }
    let (name, namespace) = (text(&role["metadata"], "name"), text(&role["metadata"], "namespace"));
    let resource = if role["kind"] == "Role" { &ROLES } else { &CLUSTER_ROLES };
    let access = Access::of(context.options, context.view);
    let escalate = ResourceAttributes {
        verb: "escalate",
        group: &resource.group,
        resource: &resource.resource,
        namespace,
        // The name as the path of the request has it: none where the role is new.
        name: if old.is_some() { name } else { "" },
        ..ResourceAttributes::default()
    };
    if access.decide(user, &Attributes::Resource(escalate)).allowed {
        return Ok(());
    }
    check_held(context, namespace, &PolicyRule::all_of(role)).map_err(|why| Status::forbidden(resource, name, why))?;
    let aggregates = |role: &Value| role["aggregationRule"].is_object();
    if (aggregates(role) || old.is_some_and(aggregates))
        && check_held(context, namespace, &PolicyRule::everything()).is_err()
    {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Status::forbidden(resource, name, why));
    }
    Ok(())
}

/// Checks a binding (of this resource) that is written; `old` is there on an update.
pub(crate) fn check_binding(
    context: &StrategyContext<'_>,
    resource: &GroupResource,
    binding: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let user = &context.request.user;
    if may_do_everything(user) || old.is_some_and(|old| same_but_for_collection(binding, old)) {
        return Ok(());
    }
    let (name, namespace) = (text(&binding["metadata"], "name"), text(&binding["metadata"], "namespace"));
    let reference = &binding["roleRef"];
    // A reference to nothing that could be there is for validation to refuse.
    let Some(key) = role_key(reference, namespace) else { return Ok(()) };
    let bind = ResourceAttributes {
        verb: "bind",
        group: &key.resource.group,
        resource: &key.resource.resource,
        namespace,
        name: &key.name,
        ..ResourceAttributes::default()
    };
    if Access::of(context.options, context.view).decide(user, &Attributes::Resource(bind)).allowed {
        return Ok(());
    }
    let Some(role) = context.view.object(&key) else { return Err(Status::not_found(&key.resource, &key.name)) };
    check_held(context, namespace, &PolicyRule::all_of(&role.value(None)))
        .map_err(|why| Status::forbidden(resource, name, why))
}

/// Whether the user holds these rules himself; the error is what Kubernetes says.
fn check_held(context: &StrategyContext<'_>, namespace: &str, rules: &[PolicyRule]) -> Result<(), String> {
    let user = &context.request.user;
    let (held, errors) = Access::of(context.options, context.view).rules_for(user, namespace);
    let missing = uncovered(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<String> = compact(missing).iter().map(ToString::to_string).collect();
    missing.sort();
    missing.dedup();
    let unresolved =
        if errors.is_empty() { String::new() } else { format!("; resolution errors: [{}]", errors.join(" ")) };
    Err(format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}{unresolved}",
        user.name,
        quoted(&user.groups),
        missing.join("\n")
    ))
}

/// Whether an update changes only what garbage collection needs: finalizers and owner references.
fn same_but_for_collection(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    without(new) == without(old)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
