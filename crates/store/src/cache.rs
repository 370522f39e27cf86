//! Typed views of objects, decoded once and shared by all views of a store.
//!
//! A cache changes no result: what falls out of it is decoded again.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use coracle_api::{Object, Revision};
use serde::de::DeserializeOwned;

/// How much larger a decoded object and its entry are than the body, roughly.
const DECODED_FACTOR: usize = 4;

/// A bounded cache; the oldest entry leaves first.
pub(crate) struct TypedCache {
    bytes_max: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    bytes: usize,
    typed: BTreeMap<Key, Typed>,
    order: VecDeque<Key>,
}

/// The body's address stands for its bytes: the entry holds the body, so no other body gets the address meanwhile.
type Key = (usize, Revision, TypeId);

struct Typed {
    body: Bytes,
    value: Arc<dyn Any + Send + Sync>,
}

impl TypedCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, entries: Mutex::default() }
    }

    /// The typed view of an object; `None` when it does not decode.
    pub(crate) fn decode<T: DeserializeOwned + Send + Sync + 'static>(&self, object: &Object) -> Option<Arc<T>> {
        let key = (object.body().as_ptr().addr(), object.revision(), TypeId::of::<T>());
        let same_body = |typed: &&Typed| typed.body.len() == object.body().len();
        let cached = self.lock().typed.get(&key).filter(same_body).map(|typed| typed.value.clone());
        if let Some(value) = cached {
            return value.downcast().ok();
        }
        match object.decode::<T>() {
            Ok(value) => {
                let value = Arc::new(value);
                self.insert(key, Typed { body: object.body().clone(), value: value.clone() });
                Some(value)
            }
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(key = %object.key(), source, "{error}");
                None
            }
        }
    }

    fn insert(&self, key: Key, typed: Typed) {
        let mut entries = self.lock();
        entries.bytes += typed.cost();
        match entries.typed.insert(key, typed) {
            // Another thread decoded the same at the same time.
            Some(twin) => entries.bytes -= twin.cost(),
            None => entries.order.push_back(key),
        }
        while entries.bytes > self.bytes_max
            && let Some(oldest) = entries.order.pop_front()
        {
            if let Some(typed) = entries.typed.remove(&oldest) {
                entries.bytes -= typed.cost();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Nothing that can panic runs under the lock halfway through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Typed {
    fn cost(&self) -> usize {
        self.body.len() * DECODED_FACTOR
    }
}

impl fmt::Debug for TypedCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.lock();
        f.debug_struct("TypedCache").field("entries", &entries.typed.len()).field("bytes", &entries.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::resources::CONFIG_MAPS;
    use coracle_api::{Attributes, ObjectKey};
    use serde_json::{Value, json};

    use super::*;

    fn object(name: &str, revision: u64) -> Object {
        let key = ObjectKey::new(CONFIG_MAPS, "default", name);
        Object::new(key, Revision(revision), json!({"metadata": {"name": name}}), Attributes::new())
    }

    #[test]
    fn an_object_is_decoded_once_for_each_type_and_revision() {
        let cache = TypedCache::new(1 << 20);
        let a = object("a", 1);
        let first = cache.decode::<Value>(&a).unwrap();
        assert!(Arc::ptr_eq(&first, &cache.decode::<Value>(&a).unwrap()));
        let later = cache.decode::<Value>(&a.clone().at(Revision(2))).unwrap();
        assert_eq!(later["metadata"]["resourceVersion"], "2");
        assert!(cache.decode::<serde_json::Map<String, Value>>(&a).is_some());
        assert!(cache.decode::<Vec<String>>(&a).is_none());
    }

    #[test]
    fn the_oldest_leaves_when_the_cache_is_full() {
        let objects: Vec<Object> = (0..10).map(|n| object(&n.to_string(), 1)).collect();
        let cache = TypedCache::new(objects[0].body().len() * DECODED_FACTOR * 2);
        let decoded: Vec<_> = objects.iter().map(|o| cache.decode::<Value>(o).unwrap()).collect();
        assert_eq!(cache.lock().order.len(), 2);
        assert!(Arc::ptr_eq(&decoded[9], &cache.decode::<Value>(&objects[9]).unwrap()));
        assert!(!Arc::ptr_eq(&decoded[0], &cache.decode::<Value>(&objects[0]).unwrap()));
    }
}
