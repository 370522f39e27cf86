//! `matchLabelKeys` and `mismatchLabelKeys`: the pod's own labels, written into the selectors of its affinity and spread.

use serde_json::{Value, json};

use super::super::value::{items, items_mut, object_mut, present_mut};

/// Writes the values of a new pod's labels into the selectors that name their keys.
pub(super) fn resolve(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].clone();
    let Some(spec) = present_mut(pod, "spec") else { return };
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        extend(constraint, &labels);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = present_mut(spec, "affinity").and_then(|affinity| present_mut(affinity, kind)) else {
            continue;
        };
        for term in items_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            extend(term, &labels);
        }
        for term in items_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = present_mut(term, "podAffinityTerm") {
                extend(term, &labels);
            }
        }
    }
}

/// A term without a selector selects nothing, whatever its keys.
fn extend(term: &mut Value, labels: &Value) {
    if term["labelSelector"].is_null() {
        return;
    }
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term, list).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if let Some(selector) = object_mut(term, "labelSelector").filter(|_| !added.is_empty()) {
        let mut all = items(selector, "matchExpressions").to_vec();
        all.extend(added);
        selector["matchExpressions"] = all.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_of_the_pod_complete_its_selectors() {
        let term = json!({"labelSelector": {}, "matchLabelKeys": ["app", "absent"], "mismatchLabelKeys": ["tier"]});
        let mut pod = json!({"metadata": {"labels": {"app": "web", "tier": "a"}}, "spec": {
            "topologySpreadConstraints": [{"matchLabelKeys": ["app"], "labelSelector": {}}, {"matchLabelKeys": ["app"]}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}});
        resolve(&mut pod);
        let app = json!({"key": "app", "operator": "In", "values": ["web"]});
        let tier = json!({"key": "tier", "operator": "NotIn", "values": ["a"]});
        let constraints = &pod["spec"]["topologySpreadConstraints"];
        assert_eq!(constraints[0]["labelSelector"], json!({"matchExpressions": [app]}));
        assert_eq!(constraints[1].get("labelSelector"), None);
        let term = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        assert_eq!(term["labelSelector"]["matchExpressions"], json!([app, tier]));
    }
}
