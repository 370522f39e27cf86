//! `paths`: the operations of a resource and its subresources.

use serde_json::{Map, Value, json};

use super::{Kinds, group_version_kind, reference, schemas};
use crate::schema::TypeId;
use crate::{GroupVersion, Gvk, Registry, Resource, Subresource};

const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";

/// The media types of patches.
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// What an operation answers or takes.
#[derive(Clone, Copy)]
struct Bodies<'a> {
    request: Option<&'a str>,
    response: Option<&'a str>,
}

/// What the operations of a path share.
struct Target<'a> {
    gvk: &'a Gvk,
    /// What the ids of its operations end with: `AppsV1NamespacedDeploymentScale`.
    id: String,
}

/// Adds the paths of a resource, and the types that they name.
pub(super) fn add(registry: &Registry, resource: &Resource, paths: &mut Map<String, Value>, kinds: &mut Kinds) {
    let schema = registry.schema();
    let type_name = schema.get(resource.type_id).name.as_str();
    let list_name = format!("{type_name}List");
    kinds.add(resource.type_id, Some(key(&resource.gvk)));
    for name in [DELETE_OPTIONS, STATUS] {
        if let Some(id) = schema.find(name) {
            kinds.add(id, Some([String::new(), "v1".into(), short(name).into()]));
        }
    }
    let list_type = schema.find(&list_name);
    if let Some(id) = list_type {
        let [group, version, kind] = key(&resource.gvk);
        kinds.add(id, Some([group, version, format!("{kind}List")]));
    }
    let list = list_type.map(|_| list_name.as_str());
    let target = Target { gvk: &resource.gvk, id: operation_id(resource, resource.namespaced) };
    let collection = collection_path(resource, resource.namespaced);
    let parameters = path_parameters(&collection);
    paths.insert(collection.clone(), item(collection_operations(resource, &target, type_name, list), parameters));
    if resource.namespaced && resource.has_verb("list") {
        let everywhere = collection_path(resource, false);
        let target = Target { gvk: &resource.gvk, id: format!("{}ForAllNamespaces", operation_id(resource, false)) };
        let get = operation(&target, "list", "list", Bodies { request: None, response: list });
        paths.insert(everywhere, item([("get".to_owned(), get)].into_iter().collect(), Vec::new()));
    }
    let one = format!("{collection}/{{name}}");
    let operations = object_operations(&resource.verbs, &target, Some(type_name));
    if !operations.is_empty() {
        let parameters = path_parameters(&one);
        paths.insert(one.clone(), item(operations, parameters));
    }
    for subresource in &resource.subresources {
        add_subresource(registry, resource, subresource, &one, paths, kinds);
    }
}

fn add_subresource(
    registry: &Registry,
    resource: &Resource,
    subresource: &Subresource,
    parent: &str,
    paths: &mut Map<String, Value>,
    kinds: &mut Kinds,
) {
    let id = subresource_type(registry, subresource);
    if let Some(id) = id {
        kinds.add(id, Some(key(&subresource.gvk)));
    }
    let type_name = id.map(|id| registry.schema().get(id).name.as_str());
    let path = format!("{parent}/{}", subresource.name);
    let suffix = capitalised(&subresource.name);
    let target =
        Target { gvk: &subresource.gvk, id: format!("{}{suffix}", operation_id(resource, resource.namespaced)) };
    let mut operations = object_operations(&subresource.verbs, &target, type_name);
    if subresource.verbs.iter().any(|verb| verb == "create") {
        let bodies = Bodies { request: type_name, response: type_name };
        let action = if type_name.is_some() { "post" } else { "connect" };
        operations.insert("post".into(), operation(&target, "create", action, bodies));
    }
    let parameters = path_parameters(&path);
    paths.insert(path, item(operations, parameters));
}

/// The type of a subresource's bodies; streams and proxies have none.
fn subresource_type(registry: &Registry, subresource: &Subresource) -> Option<TypeId> {
    let GroupVersion { group, version } = &subresource.gvk.group_version;
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    registry.schema().find(&format!("io.k8s.api.{package}.{version}.{}", subresource.gvk.kind))
}

fn collection_path(resource: &Resource, in_namespace: bool) -> String {
    let prefix = super::document_path(&resource.gvk.group_version);
    let namespace = if in_namespace { "/namespaces/{namespace}" } else { "" };
    format!("/{prefix}{namespace}/{}", resource.group_resource.resource)
}

fn collection_operations(
    resource: &Resource,
    target: &Target<'_>,
    type_name: &str,
    list: Option<&str>,
) -> Map<String, Value> {
    let mut operations = Map::new();
    let mut add = |verb: &str, method: &str, action: &str, bodies| {
        if resource.has_verb(verb) {
            operations.insert(method.to_owned(), operation(target, verb, action, bodies));
        }
    };
    add("list", "get", "list", Bodies { request: None, response: list });
    add("create", "post", "post", Bodies { request: Some(type_name), response: Some(type_name) });
    let delete = Bodies { request: Some(DELETE_OPTIONS), response: Some(STATUS) };
    add("deletecollection", "delete", "deletecollection", delete);
    operations
}

fn object_operations(verbs: &[String], target: &Target<'_>, type_name: Option<&str>) -> Map<String, Value> {
    let mut operations = Map::new();
    let mut add = |verb: &str, method: &str, bodies| {
        if verbs.iter().any(|v| v == verb) {
            let action = if type_name.is_some() { method } else { "connect" };
            operations.insert(method.to_owned(), operation(target, verb, action, bodies));
        }
    };
    add("get", "get", Bodies { request: None, response: type_name });
    add("update", "put", Bodies { request: type_name, response: type_name });
    add("patch", "patch", Bodies { request: type_name.map(|_| schemas::PATCH), response: type_name });
    let delete = Bodies { request: type_name.map(|_| DELETE_OPTIONS), response: type_name.map(|_| STATUS) };
    add("delete", "delete", delete);
    operations
}

fn item(mut operations: Map<String, Value>, parameters: Vec<Value>) -> Value {
    if !parameters.is_empty() {
        operations.insert("parameters".into(), parameters.into());
    }
    Value::Object(operations)
}

fn operation(target: &Target<'_>, verb: &str, action: &str, bodies: Bodies<'_>) -> Value {
    let answer = bodies.response.map_or_else(|| json!({"type": "string"}), reference);
    let mut operation = json!({
        "operationId": format!("{}{}", operation_word(verb), target.id),
        "responses": {
            "200": {"description": "OK", "content": {
                "application/json": {"schema": answer},
                "application/yaml": {"schema": answer},
            }},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": group_version_kind(&key(target.gvk)),
    });
    let parameters: Vec<Value> = query_parameters(verb).iter().map(|(name, of)| parameter(name, "query", of)).collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = bodies.request {
        let types: &[&str] = if verb == "patch" { &PATCHES } else { &["*/*"] };
        let content: Map<String, Value> =
            types.iter().map(|of| ((*of).to_owned(), json!({"schema": reference(body)}))).collect();
        let is_optional = body == DELETE_OPTIONS;
        operation["requestBody"] = json!({"content": content, "required": !is_optional});
    }
    operation
}

/// The query parameters of a verb, with their types.
fn query_parameters(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "create" | "update" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "list" | "deletecollection" => &[
            ("allowWatchBookmarks", "boolean"),
            ("continue", "string"),
            ("fieldSelector", "string"),
            ("labelSelector", "string"),
            ("limit", "integer"),
            ("resourceVersion", "string"),
            ("resourceVersionMatch", "string"),
            ("sendInitialEvents", "boolean"),
            ("timeoutSeconds", "integer"),
            ("watch", "boolean"),
        ],
        _ => &[],
    }
}

fn parameter(name: &str, place: &str, of: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place, "schema": {"type": of, "uniqueItems": true}});
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

fn path_parameters(path: &str) -> Vec<Value> {
    ["name", "namespace"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")))
        .map(|name| parameter(name, "path", "string"))
        .collect()
}

fn operation_word(verb: &str) -> &str {
    match verb {
        "get" => "read",
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        other => other,
    }
}

/// `AppsV1NamespacedDeployment`.
fn operation_id(resource: &Resource, in_namespace: bool) -> String {
    let GroupVersion { group, version } = &resource.gvk.group_version;
    let group = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
    let namespaced = if in_namespace { "Namespaced" } else { "" };
    format!("{}{}{namespaced}{}", capitalised(group), capitalised(version), resource.gvk.kind)
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

fn key(gvk: &Gvk) -> [String; 3] {
    let GroupVersion { group, version } = &gvk.group_version;
    [group.to_string(), version.to_string(), gvk.kind.to_string()]
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
