//! The nodes with what their pods take of them, kept up to date change by change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_api::{Object, ObjectKey, Quantity, Uid};
use serde_json::Value;

use crate::pod_info::PodInfo;
use crate::resources::Resources;
use crate::terms::{Labels, Taint, items};

/// What a node is, apart from its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeSpec {
    pub(crate) labels: Labels,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Resources,
    pub(crate) pods_max: i64,
}

impl NodeSpec {
    pub(crate) fn of(object: &Object, node: &Value) -> Self {
        let allocatable = &node["status"]["allocatable"];
        let pods_max: Quantity = allocatable["pods"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        Self {
            labels: object.metadata().labels.clone(),
            taints: items(&node["spec"]["taints"]).iter().map(Taint::of).collect(),
            unschedulable: node["spec"]["unschedulable"] == true,
            allocatable: Resources::of(allocatable),
            pods_max: pods_max.units(),
        }
    }
}

/// A node and its pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) name: Arc<str>,
    pub(crate) spec: NodeSpec,
    pub(crate) pods: BTreeMap<ObjectKey, Arc<PodInfo>>,
    pub(crate) requested: Resources,
    pub(crate) weighed: Resources,
    /// How many pods each controller has here.
    pub(crate) by_owner: BTreeMap<Uid, i64>,
}

impl Node {
    fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.weighed.add(&pod.weights);
        if let Some(owner) = &pod.owner {
            *self.by_owner.entry(owner.clone()).or_insert(0) += 1;
        }
        self.pods.insert(pod.key.clone(), Arc::clone(pod));
    }

    fn remove(&mut self, pod: &PodInfo) {
        if self.pods.remove(&pod.key).is_none() {
            return;
        }
        self.requested.subtract(&pod.requests);
        self.weighed.subtract(&pod.weights);
        if let Some(owner) = &pod.owner
            && let Some(count) = self.by_owner.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                self.by_owner.remove(owner);
            }
        }
    }
}

/// The nodes, and every pod that has one.
#[derive(Debug, Default)]
pub(crate) struct ClusterView {
    nodes: BTreeMap<Arc<str>, Node>,
    /// Pods by key, with their node, which may not be there (yet).
    placed: BTreeMap<ObjectKey, (Arc<str>, Arc<PodInfo>)>,
    /// Those whose terms other pods must respect.
    with_terms: BTreeSet<ObjectKey>,
    /// Pods that wait for victims to leave a node, which is kept for them.
    nominated: BTreeMap<ObjectKey, (Arc<str>, Arc<PodInfo>)>,
    namespaces: BTreeMap<String, Labels>,
}

impl ClusterView {
    pub(crate) fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Whether nothing that placement looks at differs between a pod that is placed and a newer state of it.
    pub(crate) fn is_up_to_date(&self, object: &Object) -> bool {
        let (metadata, phase) = (object.metadata(), object.attribute("status.phase"));
        self.placed.get(object.key()).is_some_and(|(node, pod)| {
            !phase.is_empty()
                && !matches!(phase, "Succeeded" | "Failed")
                && **node == *object.attribute("spec.nodeName")
                && pod.node_name == **node
                && metadata.uid.as_ref() == Some(&pod.uid)
                && metadata.generation == pod.generation
                && metadata.labels == pod.labels
                && metadata.deletion_timestamp.is_some() == pod.is_going
        })
    }

    pub(crate) fn is_placed(&self, pod: &ObjectKey) -> bool {
        self.placed.contains_key(pod)
    }

    pub(crate) fn placed(&self) -> impl Iterator<Item = (&Node, &Arc<PodInfo>)> {
        self.placed.values().filter_map(|(node, pod)| Some((self.nodes.get(node)?, pod)))
    }

    pub(crate) fn placed_with_terms(&self) -> impl Iterator<Item = (&Node, &Arc<PodInfo>)> {
        let placed = self.with_terms.iter().filter_map(|key| self.placed.get(key));
        placed.filter_map(|(node, pod)| Some((self.nodes.get(node)?, pod)))
    }

    pub(crate) fn namespace_labels(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    pub(crate) fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        match labels {
            Some(labels) => self.namespaces.insert(name.to_owned(), labels),
            None => self.namespaces.remove(name),
        };
    }

    /// Sets what a node is; whether that is news.
    pub(crate) fn set_node(&mut self, name: &Arc<str>, spec: NodeSpec) -> bool {
        if let Some(node) = self.nodes.get_mut(name) {
            let changed = node.spec != spec;
            node.spec = spec;
            return changed;
        }
        let mut node = Node { name: Arc::clone(name), spec, ..Node::default() };
        for (_, pod) in self.placed.values().filter(|(at, _)| at == name) {
            node.add(pod);
        }
        self.nodes.insert(Arc::clone(name), node);
        true
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Puts a pod on a node, instead of wherever it was.
    pub(crate) fn place(&mut self, pod: &Arc<PodInfo>, node: &Arc<str>) {
        self.remove(&pod.key);
        self.nominated.remove(&pod.key);
        if let Some(node) = self.nodes.get_mut(node) {
            node.add(pod);
        }
        if pod.has_pod_terms() {
            self.with_terms.insert(pod.key.clone());
        }
        self.placed.insert(pod.key.clone(), (Arc::clone(node), Arc::clone(pod)));
    }

    /// Takes a pod off its node.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> Option<(Arc<str>, Arc<PodInfo>)> {
        let (node, pod) = self.placed.remove(key)?;
        self.with_terms.remove(key);
        if let Some(node) = self.nodes.get_mut(&node) {
            node.remove(&pod);
        }
        Some((node, pod))
    }

    pub(crate) fn nominate(&mut self, pod: &Arc<PodInfo>, node: Option<&Arc<str>>) {
        match node {
            Some(node) => self.nominated.insert(pod.key.clone(), (Arc::clone(node), Arc::clone(pod))),
            None => self.nominated.remove(&pod.key),
        };
    }

    pub(crate) fn forget_nomination(&mut self, pod: &ObjectKey) {
        self.nominated.remove(pod);
    }

    /// Pods of at least this priority that a node is kept for, other than the pod itself.
    pub(crate) fn nominated(&self, node: &str, pod: &PodInfo) -> impl Iterator<Item = &Arc<PodInfo>> {
        let (key, priority) = (pod.key.clone(), pod.priority);
        self.nominated
            .values()
            .filter(move |(at, other)| **at == *node && other.priority >= priority && other.key != key)
            .map(|(_, other)| other)
    }
}
