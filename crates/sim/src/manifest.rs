//! Objects as text: YAML, or a line an object: `kind/name` and then `field=value` pairs, where what every object of the kind
//! needs is filled in.

use coracle_api::{Method, ObjectKey, Request, Resource, UserInfo, yaml};
use serde_json::{Value, json};

use crate::cluster::registry;

/// What a test applies: text, and the images that it is about.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub(crate) text: String,
    #[cfg(feature = "wasm")]
    pub(crate) images: Vec<(String, Vec<u8>)>,
}

impl From<&str> for Manifest {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            #[cfg(feature = "wasm")]
            images: Vec::new(),
        }
    }
}

impl From<&String> for Manifest {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

/// A pod of one container, whose image has the pod's name.
#[cfg(feature = "wasm")]
pub fn pod(name: &str) -> Manifest {
    Manifest { text: format!("pod/{name} image={name}"), images: Vec::new() }
}

#[cfg(feature = "wasm")]
impl Manifest {
    /// What it runs: a core module with `_start`, binary or text.
    ///
    /// # Panics
    ///
    /// When it is not a [`pod`].
    #[must_use]
    pub fn wasm(mut self, module: impl AsRef<[u8]>) -> Self {
        let (_, image) = self.text.rsplit_once("image=").expect("a pod names its image");
        let image = image.split_whitespace().next().unwrap_or_default().to_owned();
        self.images.push((image, module.as_ref().to_vec()));
        self
    }

    /// Sets a field as a line of [`TestCluster::apply`](crate::TestCluster::apply) does: `restartPolicy`, `Never`.
    #[must_use]
    pub fn with(mut self, field: &str, value: &str) -> Self {
        self.text = format!("{} {field}={value}", self.text);
        self
    }
}

/// The resource of any of its names: plural, singular, short name or kind.
#[track_caller]
pub(crate) fn resource(name: &str) -> Resource {
    let lower = name.to_lowercase();
    let named = |resource: &&Resource| {
        resource.group_resource.resource == lower || resource.singular == lower || resource.short_names.contains(&lower)
    };
    let registry = registry();
    let found = registry.resources().iter().find(named).cloned();
    found.unwrap_or_else(|| panic!("there is no resource {name:?}"))
}

/// The path of an object, or of its collection when its name is empty.
pub(crate) fn path(resource: &Resource, key: &ObjectKey) -> String {
    let version = &resource.gvk.group_version;
    let root = if version.group.is_empty() { "/api" } else { "/apis" };
    let mut path = format!("{root}/{version}");
    if resource.namespaced {
        path = format!("{path}/namespaces/{}", key.namespace);
    }
    path = format!("{path}/{}", key.resource.resource);
    if key.name.is_empty() { path } else { format!("{path}/{}", key.name) }
}

/// The requests that apply a text.
#[track_caller]
pub(crate) fn requests(text: &str, exists: impl Fn(&ObjectKey) -> bool) -> Vec<Request> {
    if text.contains("apiVersion") {
        let documents = yaml::parse_documents(text.as_bytes()).expect("the manifest is YAML");
        return documents.into_iter().map(server_side).collect();
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| of_line(line, &exists)).collect()
}

fn server_side(object: Value) -> Request {
    let kind = object["kind"].as_str().expect("an object has a kind");
    let resource = resource(kind);
    let name = object["metadata"]["name"].as_str().expect("an object has a name");
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    let key = ObjectKey::new(resource.group_resource.clone(), namespace, name);
    Request::new(Method::Patch, path(&resource, &key), UserInfo::default())
        .query("fieldManager", "test")
        .query("force", "true")
        .query("fieldValidation", "Strict")
        .content_type("application/apply-patch+yaml")
        .json(object)
}

fn of_line(line: &str, exists: &impl Fn(&ObjectKey) -> bool) -> Request {
    let mut words = line.split_whitespace();
    let (kind, name) = words.next().and_then(|word| word.split_once('/')).expect("a line starts with KIND/NAME");
    let resource = resource(kind);
    let fields: Vec<(&str, &str)> = words.map(|word| word.split_once('=').expect("a field is NAME=VALUE")).collect();
    let namespace = fields.iter().find(|(field, _)| *field == "namespace").map_or("default", |(_, value)| value);
    let key = ObjectKey::new(resource.group_resource.clone(), if resource.namespaced { namespace } else { "" }, name);
    let there = exists(&key);
    let mut object = if there { json!({}) } else { template(&resource, &key) };
    for (field, value) in fields.into_iter().filter(|(field, _)| *field != "namespace") {
        set(&mut object, &resource, field, value);
    }
    if there {
        return Request::new(Method::Patch, path(&resource, &key), UserInfo::default())
            .content_type("application/strategic-merge-patch+json")
            .json(object);
    }
    let collection = ObjectKey::new(key.resource.clone(), &key.namespace, "");
    Request::new(Method::Post, path(&resource, &collection), UserInfo::default())
        .query("fieldValidation", "Strict")
        .json(object)
}

/// What every object of a kind has.
fn template(resource: &Resource, key: &ObjectKey) -> Value {
    let name = &*key.name;
    let mut object = json!({
        "kind": resource.gvk.kind, "apiVersion": resource.gvk.api_version(), "metadata": {"name": name},
    });
    if resource.namespaced {
        object["metadata"]["namespace"] = (*key.namespace).into();
    }
    let pod = json!({"containers": [{"name": "c", "image": "v1"}]});
    match &*resource.gvk.kind {
        "Deployment" | "ReplicaSet" => {
            object["metadata"]["labels"] = json!({"app": name});
            object["spec"] = json!({
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
            });
        }
        "Pod" => {
            object["metadata"]["labels"] = json!({"app": name});
            object["spec"] = pod;
        }
        "Service" => object["spec"] = json!({"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}),
        _ => {}
    }
    object
}

/// Sets a field: one of a workload's pods, one of a Deployment's strategy, or any other by its path from the root.
fn set(object: &mut Value, resource: &Resource, field: &str, text: &str) {
    let parsed = if field.starts_with("data.") { Value::from(text) } else { yaml_scalar(text) };
    let is_pod = resource.gvk.kind == "Pod";
    let pod = if is_pod { "spec" } else { "spec.template.spec" };
    match field {
        "maxSurge" | "maxUnavailable" => at(object, &format!("spec.strategy.rollingUpdate.{field}"), parsed),
        "replicas" | "progressDeadlineSeconds" | "minReadySeconds" | "paused" | "revisionHistoryLimit" => {
            at(object, &format!("spec.{field}"), parsed);
        }
        "restartPolicy" | "terminationGracePeriodSeconds" | "nodeName" => at(object, &format!("{pod}.{field}"), parsed),
        "image" => container(object, pod, "image", parsed),
        "limits" => {
            let limits = text.split(',').map(|limit| limit.split_once(':').expect("a limit is NAME:QUANTITY"));
            let limits: serde_json::Map<String, Value> =
                limits.map(|(name, quantity)| (name.to_owned(), quantity.into())).collect();
            container(object, pod, "resources", json!({"limits": limits}));
        }
        "cpu" => container(object, pod, "resources", json!({"requests": {"cpu": text}})),
        "probe" => container(
            object,
            pod,
            "readinessProbe",
            json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": parsed}),
        ),
        "configMap" => container(object, pod, "envFrom", json!([{"configMapRef": {"name": text}}])),
        path => at(object, path, parsed),
    }
}

fn container(object: &mut Value, pod: &str, field: &str, value: Value) {
    let spec = pod.split('.').fold(object, |value, part| &mut value[part]);
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    spec["containers"][0][field] = value;
}

fn at(object: &mut Value, path: &str, value: Value) {
    *path.split('.').fold(object, |value, part| &mut value[part]) = value;
}

fn yaml_scalar(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}
