//! The quality-of-service class of a pod, and what its containers request together.
//!
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>.

use std::collections::BTreeMap;

use coracle_api::Quantity;
use serde_json::Value;

use super::super::value::{entries, items, text};
use crate::validation::resources::{quantity, quantity_text};

type Amounts = BTreeMap<String, Quantity>;

/// `Guaranteed`, `Burstable` or `BestEffort`; only processor and memory count.
pub(super) fn class_of(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    let whole = &spec["resources"];
    let lists: Vec<&Value> = if has_any(whole) {
        vec![whole]
    } else {
        ["containers", "initContainers"].iter().flat_map(|list| items(spec, list)).map(|c| &c["resources"]).collect()
    };
    for resources in lists {
        add(&mut requests, resources, "requests");
        all_limited &= add(&mut limits, resources, "limits") == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// What the containers of a pod request: the sum of those that run together, or more where an init container needs more.
pub(super) fn requested_by_containers(spec: &Value) -> BTreeMap<String, Value> {
    let mut total = BTreeMap::<String, Quantity>::new();
    let mut add_all = |container: &Value| {
        for (name, amount) in entries(&container["resources"], "requests") {
            let sum = total.entry(name.clone()).or_default();
            *sum = sum.plus(quantity(amount).unwrap_or_default());
        }
    };
    items(spec, "containers").iter().for_each(&mut add_all);
    let (sidecars, init): (Vec<_>, Vec<_>) =
        items(spec, "initContainers").iter().partition(|container| text(container, "restartPolicy") == "Always");
    sidecars.into_iter().for_each(&mut add_all);
    for (name, amount) in init.iter().flat_map(|container| entries(&container["resources"], "requests")) {
        let most = total.entry(name.clone()).or_default();
        *most = Quantity::max(*most, quantity(amount).unwrap_or_default());
    }
    total.into_iter().map(|(name, amount)| (name, quantity_text(&Value::String(amount.to_string())).into())).collect()
}

fn has_any(resources: &Value) -> bool {
    ["requests", "limits"].iter().any(|list| counted(resources, list).next().is_some())
}

fn counted<'a>(resources: &'a Value, list: &str) -> impl Iterator<Item = (&'a String, Quantity)> {
    entries(resources, list)
        .filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
        .filter_map(|(name, amount)| Some((name, quantity(amount).filter(|amount| !amount.is_zero())?)))
}

fn add(sums: &mut Amounts, resources: &Value, list: &str) -> usize {
    let mut count = 0;
    for (name, amount) in counted(resources, list) {
        let sum = sums.entry(name.clone()).or_default();
        *sum = sum.plus(amount);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(resources: &[Value]) -> &'static str {
        let containers: Vec<Value> = resources.iter().map(|resources| json!({"resources": resources})).collect();
        class_of(&json!({"containers": containers}))
    }

    #[test]
    fn the_class_follows_requests_and_limits() {
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        assert_eq!(class(&[json!({})]), "BestEffort");
        assert_eq!(class(&[json!({"limits": {"coracle.dev/fuel": "1"}})]), "BestEffort");
        assert_eq!(class(&[json!({"requests": {"cpu": "1"}})]), "Burstable");
        assert_eq!(class(&[equal.clone(), equal.clone()]), "Guaranteed");
        assert_eq!(class(&[equal, json!({})]), "Burstable");
    }
}
