//! `apidiscovery.k8s.io/v2` APIGroupDiscoveryList: everything in one answer.

use coracle_api::{Gvk, Registry, Resource};
use serde_json::{Value, json};

/// The core group alone, or all the others.
pub(super) fn list(registry: &Registry, core: bool) -> Value {
    let mut groups: Vec<&str> = Vec::new();
    for group_version in registry.group_versions() {
        let group = &*group_version.group;
        if group.is_empty() == core && !groups.contains(&group) {
            groups.push(group);
        }
    }
    let items: Vec<Value> = groups.into_iter().map(|group| group_item(registry, group)).collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

fn group_item(registry: &Registry, group: &str) -> Value {
    let versions: Vec<Value> = registry
        .group_versions()
        .into_iter()
        .filter(|group_version| group_version.group == group)
        .map(|group_version| {
            let of_version = registry.resources().iter().filter(|r| r.gvk.group_version == *group_version);
            let resources: Vec<Value> = of_version.map(resource_item).collect();
            json!({ "version": group_version.version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.is_empty() { json!({}) } else { json!({ "name": group }) };
    json!({ "metadata": metadata, "versions": versions })
}

fn resource_item(resource: &Resource) -> Value {
    let mut item = json!({
        "resource": resource.group_resource.resource,
        "responseKind": kind(&resource.gvk),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        item["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        item["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let all = resource
            .subresources
            .iter()
            .map(|sub| json!({ "subresource": sub.name, "responseKind": kind(&sub.gvk), "verbs": sub.verbs }));
        item["subresources"] = all.collect();
    }
    item
}

fn kind(gvk: &Gvk) -> Value {
    json!({ "group": gvk.group_version.group, "version": gvk.group_version.version, "kind": gvk.kind })
}
