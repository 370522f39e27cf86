//! What a node may do: report about itself and its pods, and read what its pods refer to.
//!
//! Sources: Kubernetes' node authorizer, and its admission plugin `NodeRestriction` for what the node's own objects are.

use std::sync::LazyLock;

use coracle_api::resources::PODS;
use coracle_api::{Fields, Object, ObjectKey, Status, UserInfo};
use coracle_store::View;
use serde_json::Value;

use super::rule::PolicyRule;
use super::{Attributes, ResourceAttributes};

/// The namespace of nodes' leases.
const LEASES: &str = "kube-node-lease";

/// The name of the node that a user is.
pub(crate) fn name_of(user: &UserInfo) -> Option<&str> {
    let name = user.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
    user.groups.iter().any(|group| group == "system:nodes").then_some(name)
}

/// The rules of the ClusterRole `system:node`.
pub fn node_rules() -> &'static [PolicyRule] {
    static RULES: LazyLock<Vec<PolicyRule>> = LazyLock::new(rules);
    &RULES
}

fn rules() -> Vec<PolicyRule> {
    let texts = |text: &str| text.split(' ').map(str::to_owned).collect();
    let rule = |verbs, group: &str, resources| PolicyRule {
        verbs: texts(verbs),
        api_groups: vec![group.to_owned()],
        resources: texts(resources),
        ..PolicyRule::default()
    };
    vec![
        rule("create", "authentication.k8s.io", "tokenreviews"),
        rule("create", "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule("get list watch", "", "services"),
        rule("create get list watch", "", "nodes"),
        rule("patch update", "", "nodes/status"),
        rule("delete patch update", "", "nodes"),
        rule("create patch update", "", "events"),
        rule("get list watch", "", "pods"),
        rule("create delete", "", "pods"),
        rule("patch update", "", "pods/status"),
        rule("create", "", "pods/eviction"),
        rule("get list watch", "", "configmaps secrets"),
        rule("get", "", "endpoints"),
        rule("create delete get patch update", "coordination.k8s.io", "leases"),
        rule("create", "", "serviceaccounts/token"),
        rule("get list watch", "node.k8s.io", "runtimeclasses"),
    ]
}

/// Whether a node may do that; the error says why not.
pub(super) fn decide(view: &View, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    let Attributes::Resource(asked) = attributes else { return Err(String::new()) };
    match (asked.group, asked.resource) {
        ("", "configmaps" | "secrets") => referenced(view, node, asked),
        ("", "serviceaccounts") if asked.subresource == "token" => token(view, node, asked),
        ("", "nodes") => own_node(node, asked),
        ("", "pods") => pods(view, node, asked),
        ("coordination.k8s.io", "leases") => lease(node, asked),
        _ if node_rules().iter().any(|rule| rule.allows(attributes)) => Ok(()),
        _ => Err(String::new()),
    }
}

/// What a node may do to some objects only, although it may use the verb: its own Node and its own pods.
pub(super) fn restrict(view: &View, node: &str, asked: &ResourceAttributes<'_>) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::forbidden(&asked.group_resource(), asked.name, why));
    match (asked.group, asked.resource, asked.verb) {
        ("", "nodes", "update" | "patch") if asked.name != node => {
            refuse(format!("node {node:?} is not allowed to modify node {:?}", asked.name))
        }
        ("", "pods", "update" | "patch" | "delete" | "create") => {
            // What is not there is answered as such.
            let key = ObjectKey::new(PODS, asked.namespace, asked.name);
            match view.object(&key) {
                Some(pod) if pod.attribute("spec.nodeName") != node => refuse(match (asked.subresource, asked.verb) {
                    ("eviction", _) => format!("node {node} can only evict pods with spec.nodeName set to itself"),
                    (_, "delete") => format!("node {node:?} can only delete pods with spec.nodeName set to itself"),
                    _ => format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"),
                }),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A Node that a node creates is its own.
pub(crate) fn check_created_node(user: &UserInfo, name: &str) -> Result<(), Status> {
    match name_of(user) {
        Some(node) if node != name => {
            let why = format!("node {node:?} is not allowed to modify node {name:?}");
            Err(Status::forbidden(&coracle_api::resources::NODES, name, why))
        }
        _ => Ok(()),
    }
}

fn own_node(node: &str, asked: &ResourceAttributes<'_>) -> Result<(), String> {
    match (asked.subresource, asked.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") if asked.name == node => Ok(()),
        ("", "get" | "list" | "watch") if asked.name.is_empty() => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch") => {
            Err(format!("node '{node}' cannot read '{}', only its own Node object", asked.name))
        }
        _ => Err(String::new()),
    }
}

fn pods(view: &View, node: &str, asked: &ResourceAttributes<'_>) -> Result<(), String> {
    match (asked.subresource, asked.verb) {
        ("", "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
        ("", "list" | "watch") if asked.node_name == node => Ok(()),
        ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".into()),
        ("", "get") => match view.object(&ObjectKey::new(PODS, asked.namespace, asked.name)) {
            Some(pod) if pod.attribute("spec.nodeName") == node => Ok(()),
            _ => Err(unrelated(node)),
        },
        _ => Err(String::new()),
    }
}

fn lease(node: &str, asked: &ResourceAttributes<'_>) -> Result<(), String> {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") || !asked.subresource.is_empty() {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if asked.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    if asked.verb != "create" && asked.name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

/// Whether a pod of the node refers to the ConfigMap or Secret.
fn referenced(view: &View, node: &str, asked: &ResourceAttributes<'_>) -> Result<(), String> {
    if !matches!(asked.verb, "get" | "list" | "watch") {
        return Err("can only read resources of this type".into());
    }
    if !asked.subresource.is_empty() {
        return Err("cannot read subresource".into());
    }
    if asked.namespace.is_empty() {
        return Err("can only read namespaced object of this type".into());
    }
    if asked.name.is_empty() {
        return Err("No Object name found".into());
    }
    let mut pods = view.by_attribute(&PODS, "spec.nodeName", node).into_iter().flatten();
    let refers = |pod: &Object| &*pod.key().namespace == asked.namespace && refers_to(pod, asked.resource, asked.name);
    if pods.any(|pod| refers(pod)) { Ok(()) } else { Err(unrelated(node)) }
}

/// Whether a pod of the node runs as the ServiceAccount that a token is asked for.
fn token(view: &View, node: &str, asked: &ResourceAttributes<'_>) -> Result<(), String> {
    const ACCOUNT: Fields = Fields::Only(&[("spec", Fields::Only(&[("serviceAccountName", Fields::All)]))]);
    if asked.verb != "create" || asked.name.is_empty() {
        return Err("can only create tokens for individual service accounts".into());
    }
    let mut pods = view.by_attribute(&PODS, "spec.nodeName", node).into_iter().flatten();
    let runs_as = |pod: &Object| pod.fields(ACCOUNT)["spec"]["serviceAccountName"] == asked.name;
    let found = pods.any(|pod| &*pod.key().namespace == asked.namespace && runs_as(pod));
    if found { Ok(()) } else { Err(unrelated(node)) }
}

fn unrelated(node: &str) -> String {
    format!("no relationship found between node '{node}' and this object")
}

/// Whether a pod's spec names a ConfigMap or Secret, in a volume, in an environment, or to pull images with.
fn refers_to(pod: &Object, resource: &str, name: &str) -> bool {
    const CONTAINER: Fields = Fields::Only(&[("env", Fields::All), ("envFrom", Fields::All)]);
    const SPEC: Fields = Fields::Only(&[(
        "spec",
        Fields::Only(&[
            ("volumes", Fields::All),
            ("imagePullSecrets", Fields::All),
            ("containers", CONTAINER),
            ("initContainers", CONTAINER),
            ("ephemeralContainers", CONTAINER),
        ]),
    )]);
    let value = pod.fields(SPEC);
    let spec = &value["spec"];
    let items = |value: &'_ Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let containers = ["containers", "initContainers", "ephemeralContainers"].map(|field| items(spec, field)).concat();
    let (volume, volume_name, key, from) = match resource {
        "secrets" => ("secret", "secretName", "secretKeyRef", "secretRef"),
        _ => ("configMap", "name", "configMapKeyRef", "configMapRef"),
    };
    let in_volume = |v: &Value| {
        v[volume][volume_name] == name
            || items(&v["projected"], "sources").iter().any(|source| source[volume]["name"] == name)
    };
    let in_container = |c: &Value| {
        items(c, "env").iter().any(|variable| variable["valueFrom"][key]["name"] == name)
            || items(c, "envFrom").iter().any(|source| source[from]["name"] == name)
    };
    items(spec, "volumes").iter().any(in_volume)
        || containers.iter().any(in_container)
        || (resource == "secrets" && items(spec, "imagePullSecrets").iter().any(|secret| secret["name"] == name))
}
