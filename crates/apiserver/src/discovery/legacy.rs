//! The older discovery: APIVersions, APIGroupList, APIGroup, APIResourceList.

use coracle_api::{Registry, Resource, Subresource};
use serde_json::{Value, json};

use crate::ServerOptions;

/// `/api`.
pub(super) fn versions(options: &ServerOptions) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": options.advertise }],
    })
}

/// `/apis`.
pub(super) fn groups(registry: &Registry) -> Value {
    let mut names: Vec<&str> = Vec::new();
    for group_version in registry.group_versions() {
        if !group_version.group.is_empty() && !names.contains(&&*group_version.group) {
            names.push(&group_version.group);
        }
    }
    let groups: Vec<Value> = names.into_iter().map(|name| group_of(registry, name)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`.
pub(super) fn group(registry: &Registry, name: &str) -> Option<Value> {
    if name.is_empty() || !registry.group_versions().iter().any(|gv| gv.group == name) {
        return None;
    }
    let mut value = group_of(registry, name);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(value)
}

fn group_of(registry: &Registry, name: &str) -> Value {
    let versions: Vec<Value> = registry
        .group_versions()
        .into_iter()
        .filter(|group_version| group_version.group == name)
        .map(|gv| json!({ "groupVersion": gv.to_string(), "version": gv.version }))
        .collect();
    json!({ "name": name, "preferredVersion": versions[0], "versions": versions })
}

/// `/api/v1` and `/apis/<group>/<version>`.
pub(super) fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let group_version =
        registry.group_versions().into_iter().find(|gv| gv.group == group && gv.version == version)?.to_string();
    let mut list: Vec<Value> = Vec::new();
    for resource in registry.resources() {
        let gv = &resource.gvk.group_version;
        if gv.group == group && gv.version == version {
            list.push(entry(resource));
            list.extend(resource.subresources.iter().map(|subresource| subentry(resource, subresource)));
        }
    }
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
}

fn entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.group_resource.resource,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.gvk.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.storage_version_hash.is_empty() {
        entry["storageVersionHash"] = resource.storage_version_hash.clone().into();
    }
    entry
}

fn subentry(resource: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.group_resource.resource, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.gvk.kind,
        "verbs": subresource.verbs,
    });
    if subresource.gvk.group_version != resource.gvk.group_version {
        entry["group"] = json!(subresource.gvk.group_version.group);
        entry["version"] = json!(subresource.gvk.group_version.version);
    }
    entry
}
