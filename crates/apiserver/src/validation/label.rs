//! Labels and label selectors.

use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::name::{label_value, qualified_name};

/// Checks a map of labels; every fault is one of the map itself, as Kubernetes reports it.
pub(crate) fn check_labels(labels: &Value, path: &FieldPath, causes: &mut Causes) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        causes.invalid_each(path, key.as_str(), qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        causes.invalid_each(path, value, label_value(value));
    }
}

/// Checks a `metav1.LabelSelector`.
pub(crate) fn check_selector(selector: &Value, path: &FieldPath, causes: &mut Causes) {
    check_labels(&selector["matchLabels"], &path.child("matchLabels"), causes);
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        check_requirement(expression, &path.child("matchExpressions").index(index), causes);
    }
}

fn check_requirement(requirement: &Value, path: &FieldPath, causes: &mut Causes) {
    let operator = requirement["operator"].as_str().unwrap_or_default();
    let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            causes.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            causes.forbidden(&path.child("values"), why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => causes.invalid(&path.child("operator"), operator, "not a valid selector operator"),
    }
    let key = requirement["key"].as_str().unwrap_or_default();
    causes.invalid_each(&path.child("key"), key, qualified_name(key));
    for (index, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        causes.invalid_each(&path.child("values").index(index), value, label_value(value));
    }
}

/// Whether a selector selects by nothing at all.
pub(crate) fn is_empty_selector(selector: &Value) -> bool {
    let empty = |field: &str| selector[field].as_object().is_none_or(serde_json::Map::is_empty);
    empty("matchLabels") && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_is_checked_term_by_term() {
        let mut causes = Causes::new();
        let selector = json!({"matchLabels": {"a": "-"}, "matchExpressions": [
            {"key": "a", "operator": "In"}, {"key": "a", "operator": "Exists", "values": ["b"]}, {"key": "", "operator": "x"}]});
        check_selector(&selector, &FieldPath::new("spec").child("selector"), &mut causes);
        let texts: Vec<String> = causes.into_vec().iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        assert!(texts[0].starts_with("spec.selector.matchLabels: Invalid value: \"-\": a valid label must be"));
        assert_eq!(
            texts[1],
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
        );
        assert!(texts[2].starts_with("spec.selector.matchExpressions[1].values: Forbidden: may not be specified"));
        assert_eq!(
            texts[3],
            "spec.selector.matchExpressions[2].operator: Invalid value: \"x\": not a valid selector operator"
        );
        assert_eq!(texts[4], "spec.selector.matchExpressions[2].key: Invalid value: \"\": name part must be non-empty");
    }
}
