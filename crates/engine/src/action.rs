//! From what a controller or the scheduler wants to a request of the API server.

use coracle_api::registry::Registry;
use coracle_api::{Method, ObjectKey, Request, UserInfo};
use coracle_controllers::{Action, Patch};
use serde_json::{Value, json};

/// Which request of the control plane an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId(pub u64);

/// The path of an object (or of its collection, when its name is empty), with a subresource.
pub(crate) fn path(registry: &Registry, key: &ObjectKey, subresource: Option<&str>) -> Option<String> {
    let resource = registry.by_group_resource(&key.resource)?;
    let version = &resource.gvk.group_version;
    let mut path =
        if version.group.is_empty() { format!("/api/{}", version.version) } else { format!("/apis/{version}") };
    if resource.namespaced {
        path.push_str("/namespaces/");
        path.push_str(&key.namespace);
    }
    for part in [&*key.resource.resource, &*key.name, subresource.unwrap_or_default()] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    Some(path)
}

/// The request of an action, made by `user`; `None` for a resource that is not served, and for Events (the recorder makes those).
pub(crate) fn request(registry: &Registry, user: UserInfo, manager: &str, action: Action) -> Option<Request> {
    let new = |method, path| Request { user_agent: Some(manager.to_owned()), ..Request::new(method, path, user) };
    Some(match action {
        Action::Create { key, object } => {
            let collection = ObjectKey::new(key.resource.clone(), &key.namespace, "");
            new(Method::Post, path(registry, &collection, None)?).json(object)
        }
        Action::Update { key, subresource, object } => {
            new(Method::Put, path(registry, &key, subresource)?).json(object)
        }
        Action::Patch { key, subresource, patch } => {
            let (content_type, body) = match patch {
                Patch::Merge(body) => ("application/merge-patch+json", body),
                Patch::Json(body) => ("application/json-patch+json", body),
                Patch::Strategic(body) => ("application/strategic-merge-patch+json", body),
            };
            new(Method::Patch, path(registry, &key, subresource)?).content_type(content_type).json(body)
        }
        Action::Delete { key, uid, revision, propagation, grace_period } => {
            let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
            let mut preconditions = json!({});
            if let Some(uid) = uid {
                preconditions["uid"] = Value::from(uid.as_str());
            }
            if let Some(revision) = revision {
                preconditions["resourceVersion"] = Value::from(revision.to_string());
            }
            if preconditions.as_object().is_some_and(|map| !map.is_empty()) {
                options["preconditions"] = preconditions;
            }
            if let Some(propagation) = propagation {
                options["propagationPolicy"] = Value::from(propagation);
            }
            if let Some(seconds) = grace_period {
                options["gracePeriodSeconds"] = Value::from(seconds);
            }
            new(Method::Delete, path(registry, &key, None)?).json(options)
        }
        Action::Bind { pod, uid, node } => {
            let body = json!({
                "kind": "Binding", "apiVersion": "v1",
                "metadata": {"name": &*pod.name, "namespace": &*pod.namespace, "uid": uid.as_str()},
                "target": {"kind": "Node", "name": node},
            });
            new(Method::Post, path(registry, &pod, Some("binding"))?).json(body)
        }
        Action::Event(_) => return None,
    })
}
