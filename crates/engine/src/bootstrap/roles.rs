//! Kubernetes' default roles and bindings: created where they are missing, and given back what an update took from them.
//!
//! They are those of the user-facing roles and of the components that Coracle has. A role whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left as it is. Source: Kubernetes' bootstrap policy and its
//! reconciliation.

mod table;

use coracle_api::ObjectKey;
use coracle_api::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
use coracle_apiserver::rbac::{PolicyRule, node_rules, uncovered};
use coracle_controllers::Action;
use coracle_store::View;
use serde_json::{Value, json};

use self::table::{BINDINGS, ROLES, Rule};

const GROUP: &str = "rbac.authorization.k8s.io";
const VERSION: &str = "rbac.authorization.k8s.io/v1";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What has to be done for the default roles and bindings to be there, roles first.
pub(super) fn wanted(view: &View) -> Vec<Action> {
    let mut actions = Vec::new();
    for role in roles() {
        let key = ObjectKey::new(CLUSTER_ROLES, "", role["metadata"]["name"].as_str().unwrap_or_default());
        actions.extend(reconcile(view, key, role, complete_role));
    }
    for binding in bindings() {
        let key = ObjectKey::new(CLUSTER_ROLE_BINDINGS, "", binding["metadata"]["name"].as_str().unwrap_or_default());
        if let Some(old) = view.object(&key).map(|old| old.value(None)).filter(is_kept)
            && old["roleRef"]["name"] != binding["roleRef"]["name"]
        {
            // What a binding binds never changes: another takes its place.
            let object = binding.clone();
            actions.push(Action::Delete {
                key: key.clone(),
                uid: None,
                revision: None,
                propagation: None,
                grace_period: None,
            });
            actions.push(Action::Create { key, object });
            continue;
        }
        actions.extend(reconcile(view, key, binding, complete_binding));
    }
    actions
}

/// Whether an object is the control plane's to keep.
fn is_kept(object: &Value) -> bool {
    object["metadata"]["annotations"][AUTOUPDATE] != "false"
}

/// Creates an object, or updates it by what `complete` finds missing in it.
fn reconcile(view: &View, key: ObjectKey, wanted: Value, complete: fn(&mut Value, &Value)) -> Option<Action> {
    let Some(old) = view.object(&key) else { return Some(Action::Create { key, object: wanted }) };
    let mut object = old.value(None);
    if !is_kept(&object) {
        return None;
    }
    let before = object.clone();
    for field in ["labels", "annotations"] {
        for (name, value) in wanted["metadata"][field].as_object().into_iter().flatten() {
            object["metadata"][field][name] = value.clone();
        }
    }
    complete(&mut object, &wanted);
    if object == before {
        return None;
    }
    for field in ["kind", "apiVersion"] {
        object[field] = wanted[field].clone();
    }
    Some(Action::Update { key, subresource: None, object })
}

/// Adds the rules that a role lacks, and the selectors by which it is put together.
fn complete_role(role: &mut Value, wanted: &Value) {
    let missing = uncovered(&PolicyRule::all_of(role), &PolicyRule::all_of(wanted));
    add(role, "rules", missing.iter().map(PolicyRule::to_value).collect());
    let lacking = lacking(&role["aggregationRule"], &wanted["aggregationRule"], "clusterRoleSelectors");
    if !lacking.is_empty() {
        add(&mut role["aggregationRule"], "clusterRoleSelectors", lacking);
    }
}

fn complete_binding(binding: &mut Value, wanted: &Value) {
    let lacking = lacking(binding, wanted, "subjects");
    add(binding, "subjects", lacking);
}

/// The items of a wanted list that are not there.
fn lacking(object: &Value, wanted: &Value, field: &str) -> Vec<Value> {
    let items = |value: &Value| value[field].as_array().cloned().unwrap_or_default();
    let known = items(object);
    items(wanted).into_iter().filter(|item| !known.contains(item)).collect()
}

/// Appends to a list, which is made when there is something to append.
fn add(object: &mut Value, field: &str, items: Vec<Value>) {
    if items.is_empty() {
        return;
    }
    match &mut object[field] {
        Value::Array(list) => list.extend(items),
        other => *other = Value::Array(items),
    }
}

fn metadata(name: &str, labels: &[(&str, &str)]) -> Value {
    let mut metadata = json!({
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {AUTOUPDATE: "true"},
    });
    for (label, value) in labels {
        metadata["labels"][*label] = (*value).into();
    }
    metadata
}

fn roles() -> impl Iterator<Item = Value> {
    let of_table = ROLES.iter().map(|role| {
        let aggregated: Vec<(String, &str)> =
            role.aggregated_to.iter().map(|to| (format!("{GROUP}/aggregate-to-{to}"), "true")).collect();
        let labels: Vec<(&str, &str)> = aggregated.iter().map(|(label, value)| (label.as_str(), *value)).collect();
        let rules: Vec<Value> = role.rules.iter().map(rule).collect();
        let mut object =
            json!({"kind": "ClusterRole", "apiVersion": VERSION, "metadata": metadata(role.name, &labels)});
        match role.aggregates {
            // Its rules are put together by a controller.
            Some(of) => {
                let labels = json!({ format!("{GROUP}/aggregate-to-{of}"): "true" });
                object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            }
            None => object["rules"] = rules.into(),
        }
        object
    });
    let node = json!({
        "kind": "ClusterRole", "apiVersion": VERSION, "metadata": metadata("system:node", &[]),
        "rules": node_rules().iter().map(PolicyRule::to_value).collect::<Vec<_>>(),
    });
    of_table.chain([node])
}

fn rule(rule: &Rule) -> Value {
    let texts = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    match *rule {
        Rule::On(verbs, group, resources) => {
            json!({"verbs": texts(verbs), "apiGroups": [group], "resources": texts(resources)})
        }
        Rule::At(verbs, paths) => json!({"verbs": texts(verbs), "nonResourceURLs": texts(paths)}),
    }
}

fn bindings() -> impl Iterator<Item = Value> {
    BINDINGS.iter().map(|(name, groups)| {
        let subjects: Vec<Value> =
            groups.iter().map(|group| json!({"apiGroup": GROUP, "kind": "Group", "name": group})).collect();
        let mut binding = json!({
            "kind": "ClusterRoleBinding", "apiVersion": VERSION, "metadata": metadata(name, &[]),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        });
        if !subjects.is_empty() {
            binding["subjects"] = subjects.into();
        }
        binding
    })
}

#[cfg(test)]
mod tests;
