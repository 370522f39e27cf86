//! Where a pod may run and as whom: tolerations, affinity, spread, security contexts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::label::{check_labels, check_selector};
use super::name::{dns_label, label_value, qualified_name};
use crate::kinds::value::{items, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks tolerations.
pub(crate) fn check_tolerations(tolerations: &[Value], path: &FieldPath, causes: &mut Causes) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if key.is_empty() {
            if operator != "Exists" {
                let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                causes.invalid(&path.child("operator"), operator, why);
            }
        } else {
            causes.invalid_each(&path.child("key"), key, qualified_name(key));
        }
        if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            causes.invalid(&path.child("effect"), effect, why);
        }
        match operator {
            "" | "Equal" => {
                let wrong = label_value(value);
                if !wrong.is_empty() {
                    causes.invalid(&path.child("operator"), value, wrong.join(";"));
                }
            }
            "Exists" if value.is_empty() => {}
            "Exists" => {
                causes.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            _ => causes.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            check_effect(effect, &path.child("effect"), causes);
        }
    }
}

/// Checks the taints of a node.
pub(crate) fn check_taints(taints: &[Value], path: &FieldPath, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        causes.invalid_each(&path.child("key"), key, qualified_name(key));
        let wrong = label_value(value);
        if !wrong.is_empty() {
            causes.invalid(&path.child("value"), value, wrong.join(";"));
        }
        if effect.is_empty() {
            causes.required(&path.child("effect"), "");
        } else {
            check_effect(effect, &path.child("effect"), causes);
        }
        if !seen.insert((effect, key)) {
            causes.duplicate_because(&path, taint.clone(), "taints must be unique by key and effect pair");
        }
    }
}

fn check_effect(effect: &str, path: &FieldPath, causes: &mut Causes) {
    if !EFFECTS.contains(&effect) {
        causes.not_supported(path, effect, &EFFECTS);
    }
}

/// Checks `affinity`.
pub(crate) fn check_affinity(affinity: &Value, path: &FieldPath, causes: &mut Causes) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let (node, at) = (&affinity["nodeAffinity"], path.child("nodeAffinity"));
    if !node[REQUIRED].is_null() {
        check_node_selector(&node[REQUIRED], &at.child(REQUIRED), causes);
    }
    for (index, term) in items(node, PREFERRED).iter().enumerate() {
        let at = at.child(PREFERRED).index(index);
        check_weight(term, &at, causes);
        check_node_term(&term["preference"], &at.child("preference"), causes);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = path.child(kind);
        for (index, term) in items(&affinity[kind], REQUIRED).iter().enumerate() {
            check_pod_term(term, &at.child(REQUIRED).index(index), causes);
        }
        for (index, term) in items(&affinity[kind], PREFERRED).iter().enumerate() {
            let at = at.child(PREFERRED).index(index);
            check_weight(term, &at, causes);
            check_pod_term(&term["podAffinityTerm"], &at.child("podAffinityTerm"), causes);
        }
    }
}

fn check_weight(term: &Value, path: &FieldPath, causes: &mut Causes) {
    let weight = term["weight"].as_i64().unwrap_or(0);
    if !(1..=100).contains(&weight) {
        causes.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn check_node_selector(selector: &Value, path: &FieldPath, causes: &mut Causes) {
    let (terms, path) = (items(selector, "nodeSelectorTerms"), path.child("nodeSelectorTerms"));
    if terms.is_empty() {
        causes.required(&path, "must have at least one node selector term");
    }
    for (index, term) in terms.iter().enumerate() {
        check_node_term(term, &path.index(index), causes);
    }
}

fn check_node_term(term: &Value, path: &FieldPath, causes: &mut Causes) {
    for (index, requirement) in items(term, "matchExpressions").iter().enumerate() {
        check_node_requirement(requirement, &path.child("matchExpressions").index(index), causes);
    }
    for (index, requirement) in items(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(index);
        let (operator, key) = (text(requirement, "operator"), text(requirement, "key"));
        if !matches!(operator, "In" | "NotIn") {
            causes.invalid(&path.child("operator"), operator, "not a valid selector operator");
        } else if items(requirement, "values").len() != 1 {
            let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            causes.required(&path.child("values"), why);
        }
        if key != "metadata.name" {
            causes.invalid(&path.child("key"), key, "not a valid field selector key");
        }
    }
}

fn check_node_requirement(requirement: &Value, path: &FieldPath, causes: &mut Causes) {
    let (operator, values) = (text(requirement, "operator"), items(requirement, "values"));
    let at = path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            causes.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            causes.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            causes.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => causes.invalid(&path.child("operator"), operator, "not a valid selector operator"),
    }
    let key = text(requirement, "key");
    causes.invalid_each(&path.child("key"), key, qualified_name(key));
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        causes.invalid_each(&at.index(index), value, label_value(value));
    }
}

fn check_pod_term(term: &Value, path: &FieldPath, causes: &mut Causes) {
    check_selector(&term["labelSelector"], &path.child("labelSelector"), causes);
    check_selector(&term["namespaceSelector"], &path.child("namespaceSelector"), causes);
    for name in items(term, "namespaces").iter().filter_map(Value::as_str) {
        causes.invalid_each(&path.child("namespace"), name, dns_label(name));
    }
    let (key, at) = (text(term, "topologyKey"), path.child("topologyKey"));
    if key.is_empty() {
        causes.required(&at, "can not be empty");
    }
    causes.invalid_each(&at, key, qualified_name(key));
}

/// Checks `topologySpreadConstraints`.
pub(crate) fn check_spread(constraints: &[Value], path: &FieldPath, causes: &mut Causes) {
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        check_positive(constraint["maxSkew"].as_i64().unwrap_or(0), &path.child("maxSkew"), causes);
        if key.is_empty() {
            causes.required(&path.child("topologyKey"), "can not be empty");
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            causes.not_supported(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        }
        let again = |other: &&Value| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action;
        if constraints[index + 1..].iter().any(|other| again(&other)) {
            causes.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            check_positive(domains, &path.child("minDomains"), causes);
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                causes.invalid(&path.child("minDomains"), domains, why);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint[field].as_str().filter(|policy| !matches!(*policy, "Honor" | "Ignore")) {
                causes.not_supported(&path.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        check_selector(&constraint["labelSelector"], &path.child("labelSelector"), causes);
    }
}

fn check_positive(number: i64, path: &FieldPath, causes: &mut Causes) {
    if number <= 0 {
        causes.invalid(path, number, "must be greater than 0");
    }
}

/// Checks a pod's `nodeSelector`.
pub(crate) fn check_node_labels(selector: &Value, path: &FieldPath, causes: &mut Causes) {
    check_labels(selector, path, causes);
}

/// Checks a pod's `securityContext`.
pub(crate) fn check_pod_security_context(context: &Value, pod_spec: &Value, path: &FieldPath, causes: &mut Causes) {
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        check_id(&context[field], &path.child(field), causes);
    }
    for (index, group) in items(context, "supplementalGroups").iter().enumerate() {
        check_id(group, &path.child("supplementalGroups").index(index), causes);
    }
    if pod_spec["shareProcessNamespace"] == true && pod_spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        causes.invalid(&path.child("shareProcessNamespace"), true, why);
    }
    if let Some(policy) = context["fsGroupChangePolicy"].as_str()
        && !matches!(policy, "Always" | "OnRootMismatch")
    {
        causes.not_supported(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    check_seccomp(&context["seccompProfile"], &path.child("seccompProfile"), causes);
}

/// Checks a container's `securityContext`.
pub(crate) fn check_security_context(context: &Value, path: &FieldPath, causes: &mut Causes) {
    for field in ["runAsUser", "runAsGroup"] {
        check_id(&context[field], &path.child(field), causes);
    }
    if let Some(mount) = context["procMount"].as_str().filter(|mount| !matches!(*mount, "Default" | "Unmasked")) {
        causes.not_supported(&path.child("procMount"), mount, &["Default", "Unmasked"]);
    }
    check_seccomp(&context["seccompProfile"], &path.child("seccompProfile"), causes);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            causes.invalid(path, context.clone(), why);
        }
        if items(&context["capabilities"], "add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            causes.invalid(path, context.clone(), why);
        }
    }
}

fn check_id(id: &Value, path: &FieldPath, causes: &mut Causes) {
    if let Some(id) = id.as_i64().filter(|id| !(0..=i64::from(i32::MAX)).contains(id)) {
        causes.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}

fn check_seccomp(profile: &Value, path: &FieldPath, causes: &mut Causes) {
    if profile.is_null() {
        return;
    }
    let local = text(profile, "localhostProfile");
    match text(profile, "type") {
        "Localhost" if local.is_empty() => {
            causes.required(&path.child("localhostProfile"), "must be set when seccomp type is Localhost");
        }
        "Localhost" => {}
        "RuntimeDefault" | "Unconfined" if local.is_empty() => {}
        "RuntimeDefault" | "Unconfined" => {
            causes.invalid(&path.child("localhostProfile"), local, "can only be set when seccomp type is Localhost");
        }
        other => causes.one_of(&path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::texts;

    fn wrong(check: impl FnOnce(&FieldPath, &mut Causes)) -> Vec<String> {
        let mut causes = Causes::new();
        check(&FieldPath::new("x"), &mut causes);
        texts(causes.into_vec())
    }

    #[test]
    fn tolerations_and_taints_are_checked() {
        let tolerations = json!([{}, {"key": "a", "operator": "Exists", "value": "b", "tolerationSeconds": 1},
            {"key": "a", "operator": "Like", "effect": "Never"}]);
        assert_eq!(
            wrong(|path, causes| check_tolerations(tolerations.as_array().unwrap(), path, causes)),
            [
                "x[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which means \"match all \
                 values and all keys\"",
                "x[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                "x[1].operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
                "x[2].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
                "x[2].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \
                 \"NoExecute\"",
            ]
        );
        let taints = json!([{"key": "a", "effect": "NoExecute"}, {"key": "a", "effect": "NoExecute"}, {"key": "b"}]);
        assert_eq!(
            wrong(|path, causes| check_taints(taints.as_array().unwrap(), path, causes)),
            [
                "x[1]: Duplicate value: {\"effect\":\"NoExecute\",\"key\":\"a\"}: taints must be unique by key and effect pair",
                "x[2].effect: Required value",
            ]
        );
    }

    #[test]
    fn affinity_and_spread_are_checked() {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "a"}}]}});
        assert_eq!(
            wrong(|path, causes| check_affinity(&affinity, path, causes)),
            [
                "x.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have \
                 at least one node selector term",
                "x.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in \
                 the range 1-100",
            ]
        );
        let spread = json!([{"maxSkew": 0, "whenUnsatisfiable": "x"}]);
        assert_eq!(
            wrong(|path, causes| check_spread(spread.as_array().unwrap(), path, causes)),
            [
                "x[0].maxSkew: Invalid value: 0: must be greater than 0",
                "x[0].topologyKey: Required value: can not be empty",
                "x[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ]
        );
    }

    #[test]
    fn security_contexts_are_checked() {
        let context = json!({"runAsUser": -1, "privileged": true, "allowPrivilegeEscalation": false, "seccompProfile": {"type": "Localhost"}});
        let texts = wrong(|path, causes| check_security_context(&context, path, causes));
        assert_eq!(texts[0], "x.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive");
        assert_eq!(
            texts[1],
            "x.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost"
        );
        assert!(texts[2].ends_with("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"));
    }
}
