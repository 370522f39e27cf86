//! What a node's agent needs to hear of the cluster: its Node, its pods, the ConfigMaps and Secrets that these name,
//! and all Services and RuntimeClasses.
//!
//! A feed serves every node of a process at once. It reads only views, so it lives as well beside a leader as beside a follower;
//! for a node on another machine the same is a handful of watches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_api::resources::{CONFIG_MAPS, NODES, PODS, RUNTIME_CLASSES, SECRETS, SERVICES};
use coracle_api::{Fields, GroupResource, Object, ObjectKey, Revision, WatchEvent};
use coracle_store::{Change, View};
use serde_json::Value;

const NODE_NAME: &str = "spec.nodeName";

/// What names others in a container.
const IN_CONTAINER: Fields = Fields::Only(&[("env", Fields::All), ("envFrom", Fields::All)]);

/// What of a pod names ConfigMaps and Secrets.
const NAMES: Fields = Fields::Only(&[(
    "spec",
    Fields::Only(&[
        ("volumes", Fields::All),
        ("initContainers", IN_CONTAINER),
        ("containers", IN_CONTAINER),
        ("ephemeralContainers", IN_CONTAINER),
        ("imagePullSecrets", Fields::All),
    ]),
)]);

/// The feed of some nodes.
#[derive(Debug, Default)]
pub struct NodeFeed {
    position: Option<Revision>,
    nodes: BTreeMap<String, Interests>,
}

/// What one node's pods name, and how many of them name it.
#[derive(Debug, Default)]
struct Interests {
    counts: BTreeMap<ObjectKey, usize>,
    by_pod: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// What a node is told: for whom, and what.
pub(crate) type NodeNews = Vec<(String, WatchEvent)>;

impl NodeFeed {
    /// Adds a node and returns everything that it must know now; after these it is in sync with `view`.
    ///
    /// The feed must be polled up to `view` before: otherwise the node would hear of some changes twice.
    pub fn add(&mut self, view: &View, node: &str) -> Vec<WatchEvent> {
        self.position.get_or_insert(view.revision());
        self.nodes.insert(node.to_owned(), Interests::default());
        let mut news = NodeNews::new();
        let own = ObjectKey::new(NODES, "", node);
        if let Some(object) = view.object(&own) {
            news.push((node.to_owned(), WatchEvent::Added(Arc::clone(object))));
        }
        for object in view.list(&SERVICES, None).chain(view.list(&RUNTIME_CLASSES, None)) {
            news.push((node.to_owned(), WatchEvent::Added(Arc::clone(object))));
        }
        let pods: Vec<Arc<Object>> = match view.by_attribute(&PODS, NODE_NAME, node) {
            Some(pods) => pods.cloned().collect(),
            None => view.list(&PODS, None).filter(|pod| pod.attribute(NODE_NAME) == node).cloned().collect(),
        };
        for pod in pods {
            self.pod_changed(view, &Change { revision: pod.revision(), old: None, new: Some(pod) }, &mut news);
        }
        news.into_iter().map(|(_, event)| event).collect()
    }

    /// Forgets a node.
    pub fn remove(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// What has happened since the last call, in the order of revisions within a resource; what a pod names comes before the pod.
    ///
    /// When the window no longer reaches back that far every node is told everything anew, deletions excepted: these cannot
    /// be known, and the agent compares (the second value is true then).
    pub fn poll(&mut self, view: &View) -> (NodeNews, bool) {
        let mut news = NodeNews::new();
        let Some(position) = self.position.replace(view.revision()) else { return (news, false) };
        if position == view.revision() {
            return (news, false);
        }
        for resource in [NODES, SERVICES, RUNTIME_CLASSES, CONFIG_MAPS, SECRETS, PODS] {
            if view.last_change(&resource) <= position {
                continue;
            }
            let Ok(changes) = view.changes_after(&resource, position) else { return (self.again(view), true) };
            for change in &changes {
                self.changed(view, &resource, change, &mut news);
            }
        }
        (news, false)
    }

    fn again(&mut self, view: &View) -> NodeNews {
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        let mut news = NodeNews::new();
        for node in nodes {
            news.extend(self.add(view, &node).into_iter().map(|event| (node.clone(), event)));
        }
        news
    }

    fn changed(&mut self, view: &View, resource: &GroupResource, change: &Change, news: &mut NodeNews) {
        if *resource == PODS {
            return self.pod_changed(view, change, news);
        }
        let (Some(event), Some(key)) = (event(change), key(change)) else { return };
        for (node, interests) in &self.nodes {
            let interested = match resource {
                resource if *resource == NODES => *node == *key.name,
                resource if [SERVICES, RUNTIME_CLASSES].contains(resource) => true,
                _ => interests.counts.contains_key(key),
            };
            if interested {
                news.push((node.clone(), event.clone()));
            }
        }
    }

    fn pod_changed(&mut self, view: &View, change: &Change, news: &mut NodeNews) {
        let node_of = |object: &Option<Arc<Object>>| {
            object.as_ref().map(|pod| pod.attribute(NODE_NAME).to_owned()).unwrap_or_default()
        };
        let (before, after) = (node_of(&change.old), node_of(&change.new));
        if let (Some(interests), Some(pod)) = (self.nodes.get_mut(&after), &change.new) {
            for key in interests.add(pod) {
                if let Some(object) = view.object(&key) {
                    news.push((after.clone(), WatchEvent::Added(Arc::clone(object))));
                }
            }
            let event = if before == after { WatchEvent::Modified } else { WatchEvent::Added };
            news.push((after, event(Arc::clone(pod))));
        } else if let (Some(interests), Some(pod)) = (self.nodes.get_mut(&before), &change.old) {
            interests.remove(pod.key());
            let last = pod.as_ref().clone().at(change.revision);
            news.push((before, WatchEvent::Deleted(Arc::new(last))));
        }
    }
}

impl Interests {
    /// Notes what a pod names and returns what nobody on the node named before.
    fn add(&mut self, pod: &Object) -> Vec<ObjectKey> {
        if self.by_pod.contains_key(pod.key()) {
            return Vec::new(); // what a pod names cannot change
        }
        let named = references(&pod.key().namespace, &pod.fields(NAMES));
        let mut new = Vec::new();
        for key in &named {
            let count = self.counts.entry(key.clone()).or_default();
            if *count == 0 {
                new.push(key.clone());
            }
            *count += 1;
        }
        self.by_pod.insert(pod.key().clone(), named);
        new
    }

    fn remove(&mut self, pod: &ObjectKey) {
        for key in self.by_pod.remove(pod).into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
    }
}

fn key(change: &Change) -> Option<&ObjectKey> {
    change.new.as_ref().or(change.old.as_ref()).map(|object| object.key())
}

fn event(change: &Change) -> Option<WatchEvent> {
    Some(match (&change.old, &change.new) {
        (None, Some(new)) => WatchEvent::Added(Arc::clone(new)),
        (Some(_), Some(new)) => WatchEvent::Modified(Arc::clone(new)),
        (Some(old), None) => WatchEvent::Deleted(Arc::new(old.as_ref().clone().at(change.revision))),
        (None, None) => return None,
    })
}

/// The ConfigMaps and Secrets that a pod's volumes, environment and pull secrets name.
fn references(namespace: &str, pod: &Value) -> BTreeSet<ObjectKey> {
    let spec = &pod["spec"];
    let mut named = BTreeSet::new();
    let mut add = |resource: &GroupResource, name: &Value| {
        if let Some(name) = name.as_str() {
            named.insert(ObjectKey::new(resource.clone(), namespace, name));
        }
    };
    for volume in items(&spec["volumes"]) {
        add(&CONFIG_MAPS, &volume["configMap"]["name"]);
        add(&SECRETS, &volume["secret"]["secretName"]);
        for source in items(&volume["projected"]["sources"]) {
            add(&CONFIG_MAPS, &source["configMap"]["name"]);
            add(&SECRETS, &source["secret"]["name"]);
        }
    }
    for container in
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(&spec[list]))
    {
        for from in items(&container["envFrom"]) {
            add(&CONFIG_MAPS, &from["configMapRef"]["name"]);
            add(&SECRETS, &from["secretRef"]["name"]);
        }
        for variable in items(&container["env"]) {
            add(&CONFIG_MAPS, &variable["valueFrom"]["configMapKeyRef"]["name"]);
            add(&SECRETS, &variable["valueFrom"]["secretKeyRef"]["name"]);
        }
    }
    for secret in items(&spec["imagePullSecrets"]) {
        add(&SECRETS, &secret["name"]);
    }
    named
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
