//! The state at one revision: objects by resource, their indexes, and the pools, in persistent maps that revisions share.
//!
//! Copying a root is constant in time; changing a copy leaves the original as it was.

use std::ops::Bound;
use std::sync::Arc;

use coracle_api::{GroupResource, Object, ObjectKey, Revision, Uid};
use imbl::{OrdMap, OrdSet};

use crate::pools::Pools;

/// What the name of an index begins with that goes by a label instead of an attribute.
const LABELS: &str = "metadata.labels.";

/// The state at one revision.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) revision: Revision,
    /// Everything up to here was declared forgotten, of every resource.
    pub(crate) compacted: Revision,
    pub(crate) pools: Pools,
    /// Resource (its `Display` form) and attribute of every attribute index, as the options name them.
    indexed: Arc<[(String, String)]>,
    /// A resource stays here when its last object is gone, for its last change: there are as many as kinds were ever stored.
    tables: OrdMap<Arc<GroupResource>, Arc<Table>>,
    /// Who names an owner.
    owned: OrdMap<Uid, OrdSet<Arc<ObjectKey>>>,
    /// Uids are unique: the API server draws them.
    uids: OrdMap<Uid, Arc<ObjectKey>>,
}

/// The objects of one resource.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Table {
    pub(crate) last_change: Revision,
    count: usize,
    namespaces: OrdMap<Arc<str>, Namespace>,
    attributes: Vec<AttributeIndex>,
}

/// The objects of a resource in one namespace by name; never empty within a table.
type Namespace = OrdMap<Arc<str>, Arc<Object>>;

/// The namespaces and names of a resource's objects by the value of one attribute.
#[derive(Clone, Debug, PartialEq)]
struct AttributeIndex {
    attribute: Arc<str>,
    keys: OrdMap<Arc<str>, OrdSet<NamespacedName>>,
}

/// A namespace and a name.
type NamespacedName = (Arc<str>, Arc<str>);

impl Root {
    pub(crate) fn new(indexed: &[(String, String)]) -> Self {
        Self {
            revision: Revision(0),
            compacted: Revision(0),
            pools: Pools::default(),
            indexed: indexed.into(),
            tables: OrdMap::new(),
            owned: OrdMap::new(),
            uids: OrdMap::new(),
        }
    }

    pub(crate) fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.table(&key.resource)?.namespaces.get(&*key.namespace)?.get(&*key.name)
    }

    pub(crate) fn table(&self, resource: &GroupResource) -> Option<&Table> {
        self.tables.get(resource).map(|table| &**table)
    }

    pub(crate) fn tables(&self) -> impl ExactSizeIterator<Item = (&Arc<GroupResource>, &Arc<Table>)> {
        self.tables.iter()
    }

    pub(crate) fn by_uid(&self, uid: &Uid) -> Option<&Arc<Object>> {
        self.object(self.uids.get(uid)?)
    }

    pub(crate) fn owned_by<'a>(&'a self, owner: &Uid) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.owned.get(owner).into_iter().flatten().filter_map(|key| self.object(key))
    }

    /// Whether the options ask for an index.
    pub(crate) fn is_indexed(&self, resource: &GroupResource, attribute: &str) -> bool {
        let name = resource.to_string();
        self.indexed.iter().any(|(r, a)| *r == name && a == attribute)
    }

    /// Puts an object in place; `revision` is the change's. Returns what was there.
    pub(crate) fn put(&mut self, object: Arc<Object>, revision: Revision) -> Option<Arc<Object>> {
        let table = self.table_mut(&object.key().resource);
        table.last_change = revision;
        let old = table.put(&object);
        match &old {
            Some(old) if same_references(old, &object) => {}
            old => {
                if let Some(old) = old {
                    self.unlink(old);
                }
                self.link(&object);
            }
        }
        old
    }

    /// Takes an object away; `revision` is the change's. Returns what was there.
    pub(crate) fn remove(&mut self, key: &ObjectKey, revision: Revision) -> Option<Arc<Object>> {
        self.object(key)?;
        let table = self.table_mut(&key.resource);
        table.last_change = revision;
        let old = table.remove(key)?;
        self.unlink(&old);
        Some(old)
    }

    /// Says when a resource last changed.
    pub(crate) fn touch(&mut self, resource: &GroupResource, revision: Revision) {
        self.table_mut(resource).last_change = revision;
    }

    /// The last change of a resource; what was declared forgotten may have changed anything.
    pub(crate) fn last_change(&self, resource: &GroupResource) -> Revision {
        self.table(resource).map_or(self.compacted, |table| table.last_change.max(self.compacted))
    }

    fn table_mut(&mut self, resource: &GroupResource) -> &mut Table {
        if !self.tables.contains_key(resource) {
            let name = resource.to_string();
            let of_resource = self.indexed.iter().filter(|(indexed, _)| *indexed == name);
            let attributes = of_resource
                .map(|(_, attribute)| AttributeIndex { attribute: attribute.as_str().into(), keys: OrdMap::new() })
                .collect();
            let table = Table { last_change: Revision(0), count: 0, namespaces: OrdMap::new(), attributes };
            self.tables.insert(Arc::new(resource.clone()), Arc::new(table));
        }
        Arc::make_mut(self.tables.get_mut(resource).expect("the table is there"))
    }

    fn link(&mut self, object: &Object) {
        let meta = object.metadata();
        if meta.uid.is_none() && meta.owner_references.is_empty() {
            return;
        }
        let key = Arc::new(object.key().clone());
        for owner in &meta.owner_references {
            self.owned.entry(owner.uid.clone()).or_default().insert(key.clone());
        }
        if let Some(uid) = &meta.uid {
            self.uids.insert(uid.clone(), key);
        }
    }

    fn unlink(&mut self, object: &Object) {
        for owner in &object.metadata().owner_references {
            if let Some(keys) = self.owned.get_mut(&owner.uid) {
                keys.remove(object.key());
                if keys.is_empty() {
                    self.owned.remove(&owner.uid);
                }
            }
        }
        if let Some(uid) = &object.metadata().uid {
            self.uids.remove(uid);
        }
    }
}

/// Whether the uid and owner indexes hold the same for both.
fn same_references(a: &Object, b: &Object) -> bool {
    let (a, b) = (a.metadata(), b.metadata());
    a.uid == b.uid && a.owner_references.iter().map(|o| &o.uid).eq(b.owner_references.iter().map(|o| &o.uid))
}

impl Table {
    /// How many objects there are, in one namespace or in all.
    pub(crate) fn count(&self, namespace: Option<&str>) -> usize {
        match namespace {
            Some(namespace) => self.namespaces.get(namespace).map_or(0, OrdMap::len),
            None => self.count,
        }
    }

    /// The objects in key order behind a namespace and name, in one namespace or in all.
    pub(crate) fn list<'a>(
        &'a self,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        match (namespace, after) {
            (None, None) => Box::new(self.namespaces.values().flat_map(OrdMap::values)),
            (None, Some((namespace, name))) => {
                let rest = self.namespaces.range::<_, str>((Bound::Excluded(namespace), Bound::Unbounded));
                Box::new(self.behind(namespace, name).chain(rest.flat_map(|(_, objects)| objects.values())))
            }
            (Some(namespace), Some((after, name))) if namespace == after => Box::new(self.behind(namespace, name)),
            (Some(namespace), Some((after, _))) if namespace < after => Box::new(std::iter::empty()),
            (Some(namespace), _) => Box::new(self.namespaces.get(namespace).into_iter().flat_map(OrdMap::values)),
        }
    }

    /// The objects with this value of an indexed attribute; `None` when it is not indexed.
    pub(crate) fn by_attribute<'a>(
        &'a self,
        attribute: &str,
        value: &str,
    ) -> Option<impl Iterator<Item = &'a Arc<Object>> + use<'a>> {
        let index = self.attributes.iter().find(|index| *index.attribute == *attribute)?;
        let keys = index.keys.get(value).into_iter().flatten();
        Some(keys.filter_map(|(namespace, name)| self.namespaces.get(namespace)?.get(name)))
    }

    fn behind<'a>(&'a self, namespace: &str, name: &str) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        let objects = self.namespaces.get(namespace);
        let range = objects.map(|objects| objects.range::<_, str>((Bound::Excluded(name), Bound::Unbounded)));
        range.into_iter().flatten().map(|(_, object)| object)
    }

    fn put(&mut self, object: &Arc<Object>) -> Option<Arc<Object>> {
        let key = object.key();
        let old = self.namespaces.entry(key.namespace.clone()).or_default().insert(key.name.clone(), object.clone());
        if old.is_none() {
            self.count += 1;
        }
        for index in &mut self.attributes {
            let value = value_of(object, &index.attribute);
            match old.as_ref().map(|old| value_of(old, &index.attribute)) {
                Some(same) if same == value => continue,
                Some(other) => index.remove(other, key),
                None => {}
            }
            let keys = match index.keys.get_mut(value) {
                Some(keys) => keys,
                None => index.keys.entry(value.into()).or_default(),
            };
            keys.insert((key.namespace.clone(), key.name.clone()));
        }
        old
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<Object>> {
        let objects = self.namespaces.get_mut(&*key.namespace)?;
        let old = objects.remove(&*key.name)?;
        if objects.is_empty() {
            self.namespaces.remove(&*key.namespace);
        }
        self.count -= 1;
        for index in &mut self.attributes {
            index.remove(value_of(&old, &index.attribute), key);
        }
        Some(old)
    }
}

/// What an index goes by: an attribute, or a label by `metadata.labels.` and its key.
fn value_of<'a>(object: &'a Object, attribute: &str) -> &'a str {
    match attribute.strip_prefix(LABELS) {
        Some(label) => object.metadata().labels.get(label).map_or("", String::as_str),
        None => object.attribute(attribute),
    }
}

impl AttributeIndex {
    fn remove(&mut self, value: &str, key: &ObjectKey) {
        if let Some(keys) = self.keys.get_mut(value) {
            keys.remove(&(key.namespace.clone(), key.name.clone()));
            if keys.is_empty() {
                self.keys.remove(value);
            }
        }
    }
}

#[cfg(test)]
impl Root {
    /// Checks every index and count against the objects.
    #[track_caller]
    pub(crate) fn assert_indexes_hold(&self) {
        let mut again = Self::new(&self.indexed);
        for (resource, table) in self.tables() {
            for object in table.list(None, None) {
                again.put(object.clone(), object.revision());
            }
            again.touch(resource, table.last_change);
        }
        assert_eq!(again.tables, self.tables);
        assert_eq!(again.owned, self.owned);
        assert_eq!(again.uids, self.uids);
    }
}
