//! The ConfigMaps, Secrets, Services and RuntimeClasses that the API server told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use bytes::Bytes;
use coracle_api::resources::{CONFIG_MAPS, RUNTIME_CLASSES, SECRETS, SERVICES};
use coracle_api::{Attributes, GroupResource, Object, ObjectKey, Revision};
use serde_json::Value;

use crate::ObjectCheckpoint;

/// What pods read: objects by key. Its bound is the API server's: it holds what is watched.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    by_key: BTreeMap<ObjectKey, Arc<Object>>,
}

/// A ConfigMap's or a Secret's data: keys with their contents.
pub(crate) type Data = BTreeMap<String, Bytes>;

impl Objects {
    /// Whether objects of a resource are kept here.
    pub(crate) fn keeps(resource: &GroupResource) -> bool {
        [CONFIG_MAPS, RUNTIME_CLASSES, SECRETS, SERVICES].contains(resource)
    }

    /// Takes an object, unless a newer state of it is known.
    pub(crate) fn insert(&mut self, object: Arc<Object>) {
        let known = self.by_key.get(object.key());
        if known.is_none_or(|known| known.revision() <= object.revision()) {
            self.by_key.insert(object.key().clone(), object);
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.by_key.remove(key);
    }

    /// The data of a ConfigMap, `binaryData` included.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Data> {
        let object = self.by_key.get(&ObjectKey::new(CONFIG_MAPS, namespace, name))?.value(None);
        let mut data: Data = entries(&object["data"]).map(|(k, v)| (k, Bytes::from(v.to_owned()))).collect();
        data.extend(entries(&object["binaryData"]).filter_map(|(k, v)| Some((k, decode(v)?))));
        Some(data)
    }

    /// The data of a Secret, decoded.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<Data> {
        let object = self.by_key.get(&ObjectKey::new(SECRETS, namespace, name))?.value(None);
        Some(entries(&object["data"]).filter_map(|(k, v)| Some((k, decode(v)?))).collect())
    }

    /// The type and the data of a Secret, decoded.
    pub(crate) fn secret_of_type(&self, namespace: &str, name: &str) -> Option<(String, Data)> {
        let object = self.by_key.get(&ObjectKey::new(SECRETS, namespace, name))?.value(None);
        let kind = object["type"].as_str().unwrap_or("Opaque").to_owned();
        Some((kind, self.secret(namespace, name)?))
    }

    /// The handler of a RuntimeClass.
    pub(crate) fn runtime_handler(&self, class: &str) -> Option<String> {
        let object = self.by_key.get(&ObjectKey::new(RUNTIME_CLASSES, "", class))?.value(None);
        object["handler"].as_str().map(str::to_owned)
    }

    /// One Service.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<Value> {
        self.by_key.get(&ObjectKey::new(SERVICES, namespace, name)).map(|service| service.value(None))
    }

    /// The Services of a namespace with their names, in name order.
    pub(crate) fn services<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = (&'a str, Value)> {
        self.by_key
            .range(ObjectKey::new(SERVICES, namespace, "")..)
            .take_while(move |(key, _)| key.resource == SERVICES && &*key.namespace == namespace)
            .map(|(key, service)| (&*key.name, service.value(None)))
    }

    /// The objects that pods read, for the checkpoint: `wanted` says of which key.
    pub(crate) fn checkpoint(&self, wanted: impl Fn(&ObjectKey) -> bool) -> Vec<ObjectCheckpoint> {
        self.by_key
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(key, object)| ObjectCheckpoint {
                resource: key.resource.clone(),
                object: Arc::new(object.value(None)),
            })
            .collect()
    }

    /// Takes an object of a checkpoint, unless it is known already.
    pub(crate) fn restore(&mut self, checkpoint: ObjectCheckpoint) {
        let text = |name: &str| checkpoint.object["metadata"][name].as_str().unwrap_or_default().to_owned();
        let key = ObjectKey::new(checkpoint.resource.clone(), &text("namespace"), &text("name"));
        let revision = checkpoint.object["metadata"]["resourceVersion"].as_str().and_then(Revision::parse);
        let object =
            Object::new(key, revision.unwrap_or_default(), Arc::unwrap_or_clone(checkpoint.object), Attributes::new());
        self.insert(Arc::new(object));
    }

    /// Forgets what is not among `seen`.
    pub(crate) fn retain(&mut self, seen: impl Fn(&ObjectKey) -> bool) {
        self.by_key.retain(|key, _| seen(key));
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (String, &str)> {
    map.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?)))
}

fn decode(text: &str) -> Option<Bytes> {
    base64::engine::general_purpose::STANDARD.decode(text).ok().map(Bytes::from)
}
