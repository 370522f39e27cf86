//! What everybody reads: an immutable state at a revision, cheap to clone, with its indexes and the watch window behind it.

use std::sync::Arc;
use std::{fmt, iter};

use coracle_api::{GroupResource, Object, ObjectKey, Revision, Uid};
use coracle_base::Timestamp;
use serde::de::DeserializeOwned;

use crate::cache::TypedCache;
use crate::root::Root;
use crate::window::Window;

/// A revision that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The revision that was asked for.
    pub asked: Revision,
    /// The oldest that is kept.
    pub oldest: Revision,
}

/// One change in the watch window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The revision that made it.
    pub revision: Revision,
    /// The object before; `None` when it was created. Of a deletion it has the deletion's revision, as watchers are told of it.
    pub old: Option<Arc<Object>>,
    /// The object after; `None` when it was deleted.
    pub new: Option<Arc<Object>>,
}

/// The state at one revision.
#[derive(Clone)]
pub struct View {
    root: Arc<Root>,
    time: Timestamp,
    window: Arc<Window>,
    cache: Arc<TypedCache>,
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("revision", &self.root.revision).field("time", &self.time).finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(root: Arc<Root>, time: Timestamp, window: Arc<Window>, cache: Arc<TypedCache>) -> Self {
        Self { root, time, window, cache }
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// The revision of this view.
    pub fn revision(&self) -> Revision {
        self.root.revision
    }

    /// The wall time of the last applied entry.
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// The object of a key.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.root.object(key)
    }

    /// The objects of a resource in key order: in one namespace, or in all with `None`.
    pub fn list<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        self.list_from(resource, namespace, None)
    }

    /// The same, behind the given namespace and name (exclusive): for `continue`.
    pub fn list_after<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
        after: (&str, &str),
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        self.list_from(resource, namespace, Some(after))
    }

    fn list_from<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
        after: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        match self.root.table(resource) {
            Some(table) => table.list(namespace, after),
            None => Box::new(iter::empty()),
        }
    }

    /// How many objects of a resource there are, in one namespace or in all.
    pub fn count(&self, resource: &GroupResource, namespace: Option<&str>) -> usize {
        self.root.table(resource).map_or(0, |table| table.count(namespace))
    }

    /// The resources that have objects.
    pub fn resources(&self) -> Vec<GroupResource> {
        let used = self.root.tables().filter(|(_, table)| table.count(None) > 0);
        used.map(|(resource, _)| GroupResource::clone(resource)).collect()
    }

    /// The objects that name `owner` in their owner references, of any resource.
    pub fn owned_by<'a>(&'a self, owner: &Uid) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        Box::new(self.root.owned_by(owner))
    }

    /// The object with this uid.
    pub fn by_uid(&self, uid: &Uid) -> Option<&Arc<Object>> {
        self.root.by_uid(uid)
    }

    /// The objects of a resource one of whose indexed attributes has this value (pods by `spec.nodeName`), or a label by
    /// `metadata.labels.` and its key; the empty value stands for an absent one too. `None` when the attribute is not indexed: then list and filter.
    pub fn by_attribute<'a>(
        &'a self,
        resource: &GroupResource,
        attribute: &str,
        value: &str,
    ) -> Option<Box<dyn Iterator<Item = &'a Arc<Object>> + 'a>> {
        match self.root.table(resource) {
            Some(table) => Some(Box::new(table.by_attribute(attribute, value)?)),
            None => self.root.is_indexed(resource, attribute).then(|| Box::new(iter::empty()) as Box<_>),
        }
    }

    /// The state at an earlier revision, as long as the window keeps it (its own window is empty).
    /// A revision that is still to come is `Expired` too: wait for it first.
    pub fn at(&self, revision: Revision) -> Result<Self, Expired> {
        if revision == self.root.revision {
            return Ok(self.clone());
        }
        let step = self.window.at(revision)?;
        let window = Window::starting_at(step.root.clone(), step.time, revision);
        Ok(Self::new(step.root.clone(), step.time, Arc::new(window), self.cache.clone()))
    }

    /// The changes of a resource after a revision, oldest first, up to this view's revision.
    /// Each transaction's changes have its revision; a resource without changes gives an empty list.
    /// Only what was trimmed of this very resource expires a revision, so that a watcher of a quiet resource never does.
    pub fn changes_after(&self, resource: &GroupResource, after: Revision) -> Result<Vec<Change>, Expired> {
        self.window.changes_after(resource, after)
    }

    /// The revision of the last change of a resource (zero when it never changed, a bump's where it came later): what a watcher compares to know whether to look.
    pub fn last_change(&self, resource: &GroupResource) -> Revision {
        self.root.last_change(resource)
    }

    /// A typed, read-only view of an object, out of a cache that is bounded in bytes and shared by all views of a store.
    /// An object that does not decode is a defect of who wrote it; it is logged and `None`.
    pub fn decode<T: DeserializeOwned + Send + Sync + 'static>(&self, object: &Arc<Object>) -> Option<Arc<T>> {
        self.cache.decode(object)
    }

    /// [`Self::object`] and [`Self::decode`] in one.
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.decode(self.object(key)?)
    }

    /// The values of a pool that are held, and by whom.
    pub fn allocations(&self, pool: &str) -> Vec<(u64, ObjectKey)> {
        self.root.pools.values(pool).map(|(value, owner)| (value, ObjectKey::clone(owner))).collect()
    }
}
