//! Selector terms of pods: for nodes, for other pods, tolerations and spread constraints.

use std::collections::BTreeMap;

use coracle_api::LabelSelector;
use coracle_api::selector::{Operator, Requirement};
use serde_json::Value;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// One `nodeSelectorTerm`: all of its requirements must hold; a term without any matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeTerm {
    labels: Vec<Requirement>,
    /// Requirements on `metadata.name`.
    fields: Vec<Requirement>,
}

impl NodeTerm {
    pub(crate) fn of(term: &Value) -> Self {
        Self { labels: requirements(&term["matchExpressions"]), fields: requirements(&term["matchFields"]) }
    }

    pub(crate) fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        let names = || Labels::from([("metadata.name".to_owned(), name.to_owned())]);
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && (self.fields.is_empty() || self.fields.iter().all(|requirement| requirement.matches(&names())))
    }
}

fn requirements(expressions: &Value) -> Vec<Requirement> {
    let one = |expression: &Value| {
        let operator = match text(&expression["operator"]) {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::GreaterThan,
            "Lt" => Operator::LessThan,
            _ => return None,
        };
        let values = items(&expression["values"]).iter().map(|value| text(value).to_owned()).collect();
        Some(Requirement { key: text(&expression["key"]).to_owned(), operator, values })
    };
    items(expressions).iter().filter_map(one).collect()
}

/// A toleration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toleration {
    key: String,
    exists: bool,
    value: String,
    effect: String,
}

impl Toleration {
    pub(crate) fn of(value: &Value) -> Self {
        Self {
            key: text(&value["key"]).to_owned(),
            exists: value["operator"] == "Exists",
            value: text(&value["value"]).to_owned(),
            effect: text(&value["effect"]).to_owned(),
        }
    }

    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || (!self.key.is_empty() && self.value == taint.value))
    }
}

/// A taint of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taint {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) effect: String,
}

impl Taint {
    pub(crate) fn of(value: &Value) -> Self {
        Self {
            key: text(&value["key"]).to_owned(),
            value: text(&value["value"]).to_owned(),
            effect: text(&value["effect"]).to_owned(),
        }
    }
}

/// One term of (anti-)affinity to pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PodTerm {
    selector: LabelSelector,
    namespaces: Vec<String>,
    /// Of namespaces' labels; `None` where the term has none.
    namespace_selector: Option<LabelSelector>,
    pub(crate) topology_key: String,
}

impl PodTerm {
    /// A term of a pod in `namespace` with these labels.
    pub(crate) fn of(term: &Value, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: Vec<String> = items(&term["namespaces"]).iter().map(|n| text(n).to_owned()).collect();
        let selects = !term["namespaceSelector"].is_null();
        if namespaces.is_empty() && !selects {
            namespaces.push(namespace.to_owned());
        }
        let mut selector = selector(&term["labelSelector"]);
        same_labels(&mut selector, &term["matchLabelKeys"], Operator::In, labels);
        same_labels(&mut selector, &term["mismatchLabelKeys"], Operator::NotIn, labels);
        Self {
            selector,
            namespaces,
            namespace_selector: selects.then(|| self::selector(&term["namespaceSelector"])),
            topology_key: text(&term["topologyKey"]).to_owned(),
        }
    }

    /// Whether it means a pod in `namespace` (which has `namespace_labels`) with these labels.
    pub(crate) fn matches<'a>(
        &self,
        namespace: &str,
        namespace_labels: impl Fn(&str) -> Option<&'a Labels>,
        labels: &Labels,
    ) -> bool {
        let none = Labels::new();
        let by_selector = || {
            self.namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches(namespace_labels(namespace).unwrap_or(&none)))
        };
        (self.namespaces.iter().any(|own| own == namespace) || by_selector()) && self.selector.matches(labels)
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) max_skew: i64,
    pub(crate) min_domains: usize,
    pub(crate) topology_key: String,
    /// `DoNotSchedule`, or else `ScheduleAnyway`.
    pub(crate) required: bool,
    pub(crate) selector: LabelSelector,
    /// Whether nodes that the pod's node affinity excludes are left out of the count.
    pub(crate) honors_affinity: bool,
    /// Whether nodes with taints that the pod does not tolerate are left out.
    pub(crate) honors_taints: bool,
}

impl Spread {
    pub(crate) fn of(constraint: &Value, labels: &Labels) -> Self {
        let mut selector = selector(&constraint["labelSelector"]);
        same_labels(&mut selector, &constraint["matchLabelKeys"], Operator::In, labels);
        Self {
            max_skew: constraint["maxSkew"].as_i64().unwrap_or(1),
            min_domains: constraint["minDomains"].as_u64().map_or(1, |n| n as usize),
            topology_key: text(&constraint["topologyKey"]).to_owned(),
            required: constraint["whenUnsatisfiable"] != "ScheduleAnyway",
            selector,
            honors_affinity: constraint["nodeAffinityPolicy"] != "Ignore",
            honors_taints: constraint["nodeTaintsPolicy"] == "Honor",
        }
    }
}

fn selector(value: &Value) -> LabelSelector {
    LabelSelector::from_value(value).unwrap_or_else(|_| LabelSelector::nothing())
}

/// `matchLabelKeys`: the pod's own values of these labels are added to the selector.
fn same_labels(selector: &mut LabelSelector, keys: &Value, operator: Operator, labels: &Labels) {
    for key in items(keys) {
        if let Some(value) = labels.get(text(key)) {
            let key = text(key).to_owned();
            selector.requirements.push(Requirement { key, operator, values: vec![value.clone()] });
        }
    }
}
