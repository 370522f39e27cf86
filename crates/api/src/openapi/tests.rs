use super::*;

#[track_caller]
fn of(group: &'static str) -> Value {
    let registry = Registry::builtin();
    let bytes = document(&registry, &GroupVersion::builtin(group, "v1"), "v1.36.1", &no_descriptions);
    serde_json::from_slice(&bytes).expect("a document is JSON")
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.insert(target.clone());
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn kubectl_finds_the_patch_operation_of_a_kind() {
    let document = of("apps");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
}

#[test]
fn every_persisted_kind_of_every_document_can_be_validated_by_the_server() {
    let registry = Registry::builtin();
    for resource in registry.resources().iter().filter(|resource| resource.has_verb("patch")) {
        let group = resource.gvk.group_version.group.to_string();
        let document = of(group.leak());
        let wanted = group_version_kind(&[
            resource.gvk.group_version.group.to_string(),
            resource.gvk.group_version.version.to_string(),
            resource.gvk.kind.to_string(),
        ]);
        let paths = document["paths"].as_object().unwrap();
        assert!(
            paths.values().any(|item| item["patch"]["x-kubernetes-group-version-kind"] == wanted
                && item["patch"]["parameters"].to_string().contains("fieldValidation")),
            "{wanted}"
        );
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let kinds = |schema: &Value| schema["x-kubernetes-group-version-kind"].as_array().cloned().unwrap_or_default();
        assert_eq!(schemas.values().filter(|schema| kinds(schema).contains(&wanted)).count(), 1, "{wanted}");
    }
}

#[test]
fn every_reference_leads_to_a_schema() {
    for group in ["", "apps", "events.k8s.io", "authentication.k8s.io", "discovery.k8s.io"] {
        let document = of(group);
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for target in found {
            let name = target.strip_prefix("#/components/schemas/").expect("references stay inside the document");
            assert!(schemas.contains_key(name), "{name}");
        }
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = of("");
    let mut seen = BTreeSet::new();
    for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        if let Some(id) = operation["operationId"].as_str() {
            assert!(seen.insert(id.to_owned()), "{id}");
        }
    }
    assert!(seen.contains("createCoreV1NamespacedPodEviction") && seen.contains("listCoreV1PodForAllNamespaces"));
}

#[test]
fn a_schema_says_how_its_fields_merge() {
    let schemas = &of("apps")["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(
        containers,
        &json!({
            "type": "array",
            "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge",
            "x-kubernetes-patch-merge-key": "name",
        })
    );
    assert_eq!(schemas["io.k8s.api.core.v1.PodSpec"]["required"], json!(["containers"]));
    let policy = &schemas["io.k8s.api.core.v1.Container"]["properties"]["imagePullPolicy"];
    assert_eq!(policy, &json!({"type": "string", "enum": ["Always", "Never", "IfNotPresent"]}));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"]["x-kubernetes-map-type"], "atomic");
}

#[test]
fn descriptions_come_from_outside() {
    let describe = |name: &str, field: Option<&str>| {
        name.ends_with(".Deployment").then(|| field.map_or("a deployment".to_owned(), |field| format!("its {field}")))
    };
    let registry = Registry::builtin();
    let bytes = document(&registry, &GroupVersion::builtin("apps", "v1"), "v1.36.1", &describe);
    let document: Value = serde_json::from_slice(&bytes).unwrap();
    let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["description"], "a deployment");
    assert_eq!(deployment["properties"]["spec"]["description"], "its spec");
}

#[test]
fn the_index_leads_to_documents_by_hash() {
    let document = of("apps").to_string();
    let hash = hash(document.as_bytes());
    assert!(hash.len() == 128 && hash.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte)));
    let path = document_path(&GroupVersion::builtin("apps", "v1"));
    let index: Value = serde_json::from_slice(&super::index(&[(path, hash.clone())].into())).unwrap();
    assert_eq!(
        index,
        json!({"paths": {"apis/apps/v1": {"serverRelativeURL": format!("/openapi/v3/apis/apps/v1?hash={hash}")}}})
    );
    assert_eq!(document_path(&GroupVersion::builtin("", "v1")), "api/v1");
}
