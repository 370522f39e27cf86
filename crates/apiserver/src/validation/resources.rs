//! Requests and limits of containers: names, amounts, and that no request is more than its limit.

use coracle_api::Quantity;
use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::name::qualified_name;
use crate::kinds::value::entries;

/// Checks `resources` of a container: limits first, then requests, as Kubernetes does.
pub(crate) fn check(resources: &Value, path: &FieldPath, causes: &mut Causes) {
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    for (name, amount) in entries(resources, "limits") {
        check_entry(name, amount, &limits.key(name), causes);
    }
    for (name, amount) in entries(resources, "requests") {
        check_entry(name, amount, &requests.key(name), causes);
        check_against_limit(name, amount, resources, path, causes);
    }
    let has = |test: fn(&str) -> bool| {
        entries(resources, "limits").chain(entries(resources, "requests")).any(|(name, _)| test(name))
    };
    if has(is_huge_page) && !has(|name| matches!(name, "cpu" | "memory")) {
        causes.forbidden(path, "HugePages require cpu or memory");
    }
}

/// Checks a plain list of amounts, as in `overhead`: Kubernetes reports it as if it were limits.
pub(crate) fn check_overhead(list: &Value, path: &FieldPath, causes: &mut Causes) {
    for (name, amount) in list.as_object().into_iter().flatten() {
        check_entry(name, amount, &path.child("limits").key(name), causes);
    }
}

/// Checks an amount that must not be negative, and be whole where only whole ones make sense.
pub(crate) fn check_amount(name: &str, amount: &Value, path: &FieldPath, causes: &mut Causes) {
    let Some(quantity) = quantity(amount) else { return };
    if quantity.is_negative() {
        causes.invalid(path, quantity_text(amount), "must be greater than or equal to 0");
    }
    if is_integer(name) && quantity.millis() % 1000 != 0 {
        causes.invalid(path, quantity_text(amount), "must be an integer");
    }
}

fn check_entry(name: &str, amount: &Value, path: &FieldPath, causes: &mut Causes) {
    check_name(name, path, causes);
    check_amount(name, amount, path, causes);
}

fn check_name(name: &str, path: &FieldPath, causes: &mut Causes) {
    let wrong = qualified_name(name);
    let malformed = !wrong.is_empty();
    causes.invalid_each(path, name, wrong);
    if name.contains('/') {
        if !is_native(name) && !is_extended(name) {
            causes.invalid(path, name, "doesn't follow extended resource name standard");
        }
    } else if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
        if !malformed && !matches!(name, "storage" | "pods" | "services" | "secrets" | "configmaps") {
            causes.invalid(path, name, "must be a standard resource type or fully qualified");
        }
        causes.invalid(path, name, "must be a standard resource for containers");
    }
}

fn check_against_limit(name: &str, amount: &Value, resources: &Value, path: &FieldPath, causes: &mut Causes) {
    let overcommit = is_native(name) && !is_huge_page(name);
    let limit_value = &resources["limits"][name];
    let Some(limit) = quantity(limit_value) else {
        if !overcommit {
            causes.required(&path.child("limits"), "Limit must be set for non overcommitable resources");
        }
        return;
    };
    let Some(request) = quantity(amount) else { return };
    let path = path.child("requests");
    if request != limit && !overcommit {
        let why = format!("must be equal to {name} limit of {}", quantity_text(limit_value));
        causes.invalid(&path, quantity_text(amount), why);
    } else if request > limit {
        let why = format!("must be less than or equal to {name} limit of {}", quantity_text(limit_value));
        causes.invalid(&path, quantity_text(amount), why);
    }
}

/// The amount that a text or a number stands for.
pub(crate) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// An amount as Kubernetes writes it.
pub(crate) fn quantity_text(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Quantity::canonical(&text).unwrap_or(text)
}

/// Kubernetes' own resources: without a domain, or in `kubernetes.io`.
pub(crate) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_empty()
}

/// Resources that are counted, not measured.
fn is_integer(name: &str) -> bool {
    is_extended(name)
        || matches!(name, "pods" | "services" | "secrets" | "configmaps" | "resourcequotas" | "persistentvolumeclaims")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::texts;

    fn wrong(resources: &Value) -> Vec<String> {
        let mut causes = Causes::new();
        check(resources, &FieldPath::new("resources"), &mut causes);
        texts(causes.into_vec())
    }

    #[test]
    fn a_request_is_never_more_than_its_limit() {
        let resources = json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}});
        assert_eq!(
            wrong(&resources),
            ["resources.requests: Invalid value: \"1500m\": must be less than or equal to cpu limit of 1"]
        );
        assert!(wrong(&json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1000m"}})).is_empty());
    }

    #[test]
    fn what_cannot_be_overcommitted_is_requested_as_it_is_limited() {
        let resources = json!({"limits": {"coracle.dev/fuel": "2"}, "requests": {"coracle.dev/fuel": "1"}});
        assert_eq!(
            wrong(&resources),
            ["resources.requests: Invalid value: \"1\": must be equal to coracle.dev/fuel limit of 2"]
        );
        assert_eq!(
            wrong(&json!({"requests": {"coracle.dev/fuel": "1"}})),
            ["resources.limits: Required value: Limit must be set for non overcommitable resources"]
        );
        assert_eq!(
            wrong(&json!({"limits": {"coracle.dev/fuel": "500m"}})),
            ["resources.limits[coracle.dev/fuel]: Invalid value: \"500m\": must be an integer"]
        );
    }

    #[test]
    fn names_and_signs_are_checked() {
        assert_eq!(
            wrong(&json!({"limits": {"cpu": "-1"}})),
            ["resources.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"]
        );
        assert_eq!(
            wrong(&json!({"limits": {"gpu": "1"}})),
            [
                "resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            ]
        );
        assert_eq!(
            wrong(&json!({"limits": {"hugepages-2Mi": "2Mi"}})),
            ["resources: Forbidden: HugePages require cpu or memory"]
        );
    }
}
