//! Whether a node takes a pod at all: pods may be bound by hand, past the scheduler.
//!
//! A pod that is refused is `Failed` at once, with the kubelet's reason. What runs already is never asked again.
//!
//! Source of the rules and texts: the kubelet's `predicateAdmitHandler` and its lifecycle handlers.

use std::collections::BTreeMap;

use coracle_api::Quantity;
use coracle_api::selector::{Operator, Requirement};
use serde_json::Value;

use crate::NodeConfig;
use crate::pod_spec::PodView;

/// Resources of this domain are settings of a pod's runtime, not something a node runs out of.
const OWN_DOMAIN: &str = "coracle.dev/";

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// `status.reason`.
    pub(crate) reason: &'static str,
    /// The Event's message, and what follows `Pod was rejected: ` in `status.message`.
    pub(crate) message: String,
}

/// Amounts by resource: thousandths for `cpu`, else whole units.
type Amounts = BTreeMap<String, i64>;

/// Whether a node with these labels takes `pod` beside the pods that it has.
pub(crate) fn check<'a>(
    pod: &PodView,
    others: impl Iterator<Item = &'a PodView>,
    config: &NodeConfig,
    labels: &BTreeMap<String, String>,
) -> Result<(), Rejection> {
    let spec = &pod.value["spec"];
    let (mut used, mut pods) = (Amounts::new(), 0);
    for other in others {
        pods += 1;
        combine(&mut used, requests(&other.value["spec"]), i64::saturating_add);
    }
    let limit = i64::from(config.capacity.pods);
    if pods >= limit {
        return Err(insufficient("pods", 1, pods, limit));
    }
    for (resource, requested) in requests(spec).into_iter().filter(|(_, requested)| *requested > 0) {
        let (used, capacity) = (used.get(&resource).copied().unwrap_or_default(), capacity(config, &resource));
        if requested > capacity.saturating_sub(used) {
            return Err(insufficient(&resource, requested, used, capacity));
        }
    }
    if !selects(spec, &config.name, labels) {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Err(Rejection { reason: "NodeAffinity", message: message.into() });
    }
    let os = spec["os"]["name"].as_str();
    if os.is_some_and(|os| labels.get("kubernetes.io/os").is_some_and(|own| own != os)) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Rejection { reason: "PodOSNotSupported", message: message.into() });
    }
    Ok(())
}

fn capacity(config: &NodeConfig, resource: &str) -> i64 {
    let amount = match resource {
        "cpu" => config.capacity.cpu_millis,
        "memory" => config.capacity.memory,
        other => config.extended.get(other).copied().unwrap_or_default(),
    };
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn insufficient(resource: &str, requested: i64, used: i64, capacity: i64) -> Rejection {
    let reason = match resource {
        "cpu" => "OutOfcpu",
        "memory" => "OutOfmemory",
        "pods" => "OutOfpods",
        "ephemeral-storage" => "OutOfephemeral-storage",
        // A device that nobody here can allocate.
        _ => "UnexpectedAdmissionError",
    };
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Rejection { reason, message }
}

/// What a pod asks for: its containers together, or the most that its init containers need at once; `spec.resources` instead
/// where it says so; and its overhead.
fn requests(spec: &Value) -> Amounts {
    let (mut sum, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in items(&spec["containers"]) {
        combine(&mut sum, amounts(&container["resources"]["requests"]), i64::saturating_add);
    }
    for container in items(&spec["initContainers"]) {
        let own = amounts(&container["resources"]["requests"]);
        let mut at_once = sidecars.clone();
        combine(&mut at_once, own.clone(), i64::saturating_add);
        combine(&mut peak, at_once, i64::max);
        if container["restartPolicy"] == "Always" {
            combine(&mut sidecars, own, i64::saturating_add);
        }
    }
    combine(&mut sum, sidecars, i64::saturating_add);
    combine(&mut sum, peak, i64::max);
    sum.extend(amounts(&spec["resources"]["requests"]));
    combine(&mut sum, amounts(&spec["overhead"]), i64::saturating_add);
    sum
}

fn combine(into: &mut Amounts, other: Amounts, with: impl Fn(i64, i64) -> i64) {
    for (resource, amount) in other {
        let own = into.entry(resource).or_default();
        *own = with(*own, amount);
    }
}

/// Reads a `ResourceList`; what is no quantity counts as nothing.
fn amounts(list: &Value) -> Amounts {
    let named = list.as_object().into_iter().flatten().filter(|(name, _)| !name.starts_with(OWN_DOMAIN));
    let amount = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quantity: Quantity = text.parse().unwrap_or_default();
        (name.clone(), if name == "cpu" { quantity.millis() } else { quantity.units() })
    };
    named.map(amount).collect()
}

/// Whether `nodeSelector` and the required node affinity mean this node.
fn selects(spec: &Value, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let selector = spec["nodeSelector"].as_object().into_iter().flatten();
    let selected = selector.into_iter().all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    selected && (required.is_null() || items(&required["nodeSelectorTerms"]).any(|term| meets(term, name, labels)))
}

/// Whether a node meets all of a term; a term without requirements means no node.
fn meets(term: &Value, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let fields = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    let holds = |list: &Value, of: &BTreeMap<String, String>| {
        items(list).all(|expression| requirement(expression).is_some_and(|requirement| requirement.matches(of)))
    };
    let (expressions, on_fields) = (&term["matchExpressions"], &term["matchFields"]);
    items(expressions).chain(items(on_fields)).next().is_some()
        && holds(expressions, labels)
        && holds(on_fields, &fields)
}

fn requirement(expression: &Value) -> Option<Requirement> {
    let operator = match expression["operator"].as_str()? {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    let values = items(&expression["values"]).filter_map(|value| value.as_str().map(str::to_owned)).collect();
    Some(Requirement { key: expression["key"].as_str()?.to_owned(), operator, values })
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
