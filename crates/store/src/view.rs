//! What everybody reads: an immutable state at a revision, cheap to clone, with its indexes and the watch window behind it.

use std::sync::Arc;

use coracle_api::{GroupResource, Object, ObjectKey, Revision, Uid};
use coracle_base::Timestamp;
use serde::de::DeserializeOwned;

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
    /// The object before; `None` when it was created.
    pub old: Option<Arc<Object>>,
    /// The object after; `None` when it was deleted.
    pub new: Option<Arc<Object>>,
}

/// The state at one revision.
#[derive(Clone, Debug)]
pub struct View {
    _private: (),
}

#[expect(unused_variables, clippy::todo, reason = "being written")]
impl View {
    /// The revision of this view.
    pub fn revision(&self) -> Revision {
        todo!()
    }

    /// The wall time of the last applied entry.
    pub fn time(&self) -> Timestamp {
        todo!()
    }

    /// The object of a key.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        todo!()
    }

    /// The objects of a resource in key order: in one namespace, or in all with `None`.
    pub fn list<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        todo!()
    }

    /// The same, behind the given namespace and name (exclusive): for `continue`.
    pub fn list_after<'a>(
        &'a self,
        resource: &GroupResource,
        namespace: Option<&str>,
        after: (&str, &str),
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        todo!()
    }

    /// How many objects of a resource there are, in one namespace or in all.
    pub fn count(&self, resource: &GroupResource, namespace: Option<&str>) -> usize {
        todo!()
    }

    /// The resources that have objects.
    pub fn resources(&self) -> Vec<GroupResource> {
        todo!()
    }

    /// The objects that name `owner` in their owner references, of any resource.
    pub fn owned_by<'a>(&'a self, owner: &Uid) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        todo!()
    }

    /// The object with this uid.
    pub fn by_uid(&self, uid: &Uid) -> Option<&Arc<Object>> {
        todo!()
    }

    /// The objects of a resource one of whose indexed attributes has this value (pods by `spec.nodeName`).
    /// `None` when the attribute is not indexed: then list and filter.
    pub fn by_attribute<'a>(
        &'a self,
        resource: &GroupResource,
        attribute: &str,
        value: &str,
    ) -> Option<Box<dyn Iterator<Item = &'a Arc<Object>> + 'a>> {
        todo!()
    }

    /// The state at an earlier revision, as long as the window keeps it (its own window is empty).
    pub fn at(&self, revision: Revision) -> Result<Self, Expired> {
        todo!()
    }

    /// The changes of a resource after a revision, oldest first, up to this view's revision.
    /// Each transaction's changes have its revision; a resource without changes gives an empty list.
    pub fn changes_after(&self, resource: &GroupResource, after: Revision) -> Result<Vec<Change>, Expired> {
        todo!()
    }

    /// The revision of the last change of a resource (zero when it never changed): what a watcher compares to know whether to look.
    pub fn last_change(&self, resource: &GroupResource) -> Revision {
        todo!()
    }

    /// A typed, read-only view of an object, out of a cache that is bounded in bytes and shared by all views of a store.
    /// An object that does not decode is a defect of who wrote it; it is logged and `None`.
    pub fn decode<T: DeserializeOwned + Send + Sync + 'static>(&self, object: &Arc<Object>) -> Option<Arc<T>> {
        todo!()
    }

    /// [`Self::object`] and [`Self::decode`] in one.
    pub fn typed<T: DeserializeOwned + Send + Sync + 'static>(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.decode(self.object(key)?)
    }

    /// The values of a pool that are held, and by whom.
    pub fn allocations(&self, pool: &str) -> Vec<(u64, ObjectKey)> {
        todo!()
    }
}
