//! A set of paths into an object, as a trie, and its JSON form FieldsV1.
//!
//! A path is in the set when the last node of it is a member: an inner node may be one too (`.` in FieldsV1), or only lead further.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::path::PathElement;

/// FieldsV1 that does not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a path element")]
pub struct DecodeError {
    /// The offending text.
    pub text: String,
}

/// A set of paths. Equal sets are equal values: no node is kept that is neither a member nor leads to one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// In the order of their elements, each once.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    element: PathElement,
    member: bool,
    children: FieldSet,
}

impl Node {
    fn is_needed(&self) -> bool {
        self.member || !self.children.is_empty()
    }
}

impl FieldSet {
    /// No path.
    pub const fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// The set of paths of field names.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::new();
        for path in paths {
            let mut one = Self::new();
            for (depth, name) in path.iter().rev().enumerate() {
                let mut parent = Self::new();
                parent.add(PathElement::Field((*name).to_owned()), depth == 0, one);
                one = parent;
            }
            set = set.union(one);
        }
        set
    }

    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds what is known of one element; elements mostly come in order, which is the fast way.
    pub(super) fn add(&mut self, element: PathElement, member: bool, children: Self) {
        let node = Node { element, member, children };
        if !node.is_needed() {
            return;
        }
        match self.nodes.last() {
            Some(last) if last.element >= node.element => {
                match self.nodes.binary_search_by(|other| other.element.cmp(&node.element)) {
                    Ok(index) => {
                        let other = &mut self.nodes[index];
                        other.member |= node.member;
                        other.children = std::mem::take(&mut other.children).union(node.children);
                    }
                    Err(index) => self.nodes.insert(index, node),
                }
            }
            _ => self.nodes.push(node),
        }
    }

    fn find(&self, element: &PathElement) -> Option<&Node> {
        self.nodes.binary_search_by(|node| node.element.cmp(element)).ok().map(|index| &self.nodes[index])
    }

    /// Whether the path of this one element is in the set, and what is under it.
    pub(super) fn under(&self, element: &PathElement) -> (bool, Option<&Self>) {
        self.find(element).map_or((false, None), |node| (node.member, Some(&node.children)))
    }

    /// Whether a path is in the set.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((last, inner)) = path.split_last() else { return false };
        let parent = inner.iter().try_fold(self, |set, element| set.find(element).map(|node| &node.children));
        parent.and_then(|set| set.find(last)).is_some_and(|node| node.member)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_empty() {
            return other;
        }
        if other.is_empty() {
            return self;
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        while let (Some(ours), Some(theirs)) = (left.peek(), right.peek()) {
            let order = ours.element.cmp(&theirs.element);
            let ours = if order == Ordering::Greater { None } else { left.next() };
            let theirs = if order == Ordering::Less { None } else { right.next() };
            nodes.extend(match (ours, theirs) {
                (Some(ours), Some(theirs)) => Some(Node {
                    element: ours.element,
                    member: ours.member || theirs.member,
                    children: ours.children.union(theirs.children),
                }),
                (ours, theirs) => ours.or(theirs),
            });
        }
        nodes.extend(left);
        nodes.extend(right);
        Self { nodes }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.filter(|node| {
            let theirs = other.find(&node.element)?;
            Some((node.member && theirs.member, node.children.intersection(&theirs.children)))
        })
    }

    /// What is in this set and not in the other; what lies under a path of the other stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.filter(|node| {
            Some(match other.find(&node.element) {
                None => (node.member, node.children.clone()),
                Some(theirs) => (node.member && !theirs.member, node.children.difference(&theirs.children)),
            })
        })
    }

    /// What is in this set and neither in the other nor under a path of the other.
    #[must_use]
    pub fn difference_with_children(&self, other: &Self) -> Self {
        self.filter(|node| match other.find(&node.element) {
            None => Some((node.member, node.children.clone())),
            Some(theirs) if theirs.member => None,
            Some(theirs) => Some((node.member, node.children.difference_with_children(&theirs.children))),
        })
    }

    fn filter(&self, keep: impl Fn(&Node) -> Option<(bool, Self)>) -> Self {
        let kept = self.nodes.iter().filter_map(|node| {
            let (member, children) = keep(node)?;
            Some(Node { element: node.element.clone(), member, children }).filter(Node::is_needed)
        });
        Self { nodes: kept.collect() }
    }

    /// The same set where every inner node is a member that `names` says so of; it is given the elements from the root.
    pub(super) fn with_inner_members<C: Copy>(
        &self,
        context: C,
        descend: &impl Fn(C, &PathElement) -> (bool, C),
    ) -> Self {
        let nodes = self.nodes.iter().map(|node| {
            let (named, inner) = descend(context, &node.element);
            Node {
                element: node.element.clone(),
                member: node.member || named,
                children: node.children.with_inner_members(inner, descend),
            }
        });
        Self { nodes: nodes.collect() }
    }

    /// Every path: at each level the members first, then what lies deeper, as Kubernetes lists conflicts.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let (mut out, mut prefix) = (Vec::new(), Vec::new());
        self.list(&mut prefix, &mut out);
        out
    }

    fn list(&self, prefix: &mut Vec<PathElement>, out: &mut Vec<Vec<PathElement>>) {
        for node in self.nodes.iter().filter(|node| node.member) {
            out.push(prefix.iter().chain([&node.element]).cloned().collect());
        }
        for node in self.nodes.iter().filter(|node| !node.children.is_empty()) {
            prefix.push(node.element.clone());
            node.children.list(prefix, out);
            prefix.pop();
        }
    }

    /// FieldsV1.
    pub fn to_json(&self) -> Value {
        Value::Object(self.encode(false))
    }

    fn encode(&self, itself: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if itself && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for node in &self.nodes {
            map.insert(node.element.encode(), Value::Object(node.children.encode(node.member)));
        }
        map
    }

    /// Reads FieldsV1; kinds of path elements that are not known are left out.
    pub fn from_json(value: &Value) -> Result<Self, DecodeError> {
        Self::decode(value).map(|(set, _)| set)
    }

    fn decode(value: &Value) -> Result<(Self, bool), DecodeError> {
        let map = value.as_object().ok_or_else(|| DecodeError { text: value.to_string() })?;
        let mut set = Self { nodes: Vec::with_capacity(map.len()) };
        let mut member = false;
        for (key, value) in map {
            if key == "." {
                member = true;
            } else if let Some(element) = PathElement::decode(key)? {
                let (children, is_member) = Self::decode(value)?;
                set.add(element, is_member, children);
            }
        }
        member |= set.is_empty();
        Ok((set, member))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_json(&value).unwrap()
    }

    #[test]
    fn fields_v1_reads_and_writes_every_kind_of_element() {
        let value = json!({"f:a": {}, "f:b": {
            ".": {}, "f:c": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:x": {}},
            "v:\"q\"": {}, "v:1.5": {}, "i:3": {}
        }});
        assert_eq!(set(value.clone()).to_json(), value);
        assert_eq!(set(json!({})), FieldSet::new());
        assert_eq!(set(json!({"x:unknown": {}, "f:a": {}})), set(json!({"f:a": {}})));
        for bad in [json!({"f": {}}), json!({"k:{": {}}), json!({"k:{\"a\":{}}": {}}), json!([]), json!({"f:a": 1})] {
            assert!(FieldSet::from_json(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_number_is_the_same_key_however_it_is_written() {
        assert_eq!(set(json!({"k:{\"port\":80.0}": {}})), set(json!({"k:{\"port\":80}": {}})));
        assert_eq!(set(json!({"k:{\"b\":1,\"a\":2}": {}})), set(json!({"k:{\"a\":2,\"b\":1}": {}})));
    }

    #[test]
    fn sets_combine() {
        let left = || set(json!({"f:a": {}, "f:b": {".": {}, "f:x": {}}, "f:c": {"f:y": {}}}));
        let right = || set(json!({"f:b": {}, "f:c": {"f:y": {}, "f:z": {}}, "f:d": {}}));
        let union = json!({"f:a": {}, "f:b": {".": {}, "f:x": {}}, "f:c": {"f:y": {}, "f:z": {}}, "f:d": {}});
        assert_eq!(left().union(right()).to_json(), union);
        assert_eq!(left().intersection(&right()).to_json(), json!({"f:b": {}, "f:c": {"f:y": {}}}));
        assert_eq!(left().difference(&right()).to_json(), json!({"f:a": {}, "f:b": {"f:x": {}}}));
        assert_eq!(left().difference_with_children(&right()).to_json(), json!({"f:a": {}}));
        assert!(left().difference(&left()).is_empty());
    }

    #[test]
    fn paths_print_as_messages_show_them() {
        let set = set(json!({"f:spec": {
            "f:replicas": {}, "f:containers": {"k:{\"name\":\"c\"}": {"f:image": {}, "f:ports": {
                "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {}
            }}}, "f:finalizers": {"v:\"x\"": {}}
        }}));
        let texts: Vec<String> =
            set.paths().iter().map(|path| path.iter().map(ToString::to_string).collect::<String>()).collect();
        assert_eq!(
            texts,
            [
                ".spec.replicas",
                r#".spec.containers[name="c"].image"#,
                r#".spec.containers[name="c"].ports[containerPort=80,protocol="TCP"]"#,
                r#".spec.finalizers[="x"]"#,
            ]
        );
        assert!(set.paths().iter().all(|path| set.contains(path)));
    }
}
