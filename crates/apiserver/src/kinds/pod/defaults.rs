//! What a pod spec says where its author said nothing.
//!
//! Everything here may run again on its own result.

use coracle_api::Quantity;
use serde_json::{Map, Value, json};

use super::super::value::{default, default_zero, items_mut, object_mut, present_mut, set, text};
use super::qos;
use crate::validation::resources::quantity;

/// The permissions of files in volumes: 0644.
const FILE_MODE: i64 = 0o644;
/// The lists of containers in a spec.
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a template: its metadata and spec.
pub(crate) fn default_template(template: &mut Value) {
    object_mut(template, "metadata");
    if let Some(spec) = object_mut(template, "spec") {
        default_spec(spec);
    }
}

/// Defaults of any pod spec.
pub(crate) fn default_spec(spec: &mut Value) {
    default_zero(spec, "dnsPolicy", "ClusterFirst");
    default_zero(spec, "restartPolicy", "Always");
    object_mut(spec, "securityContext");
    default(spec, "terminationGracePeriodSeconds", 30);
    default_zero(spec, "schedulerName", "default-scheduler");
    mirror_service_account(spec);
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            default_container(container);
        }
    }
    for volume in items_mut(spec, "volumes") {
        default_volume(volume);
    }
    for field in ["overhead", "resources"] {
        if let Some(list) = present_mut(spec, field) {
            if field == "overhead" { round_list(list) } else { round_resources(list) }
        }
    }
}

/// Defaults of a pod's own spec, beyond those of a template's.
pub(super) fn default_pod_spec(spec: &mut Value) {
    default_spec(spec);
    let host_network = spec["hostNetwork"] == true;
    for list in ["containers", "initContainers"] {
        for container in items_mut(spec, list) {
            default_requests(container);
            for port in items_mut(container, "ports").iter_mut().filter(|_| host_network) {
                let number = port["containerPort"].clone();
                default_zero(port, "hostPort", number);
            }
        }
    }
    default_pod_requests(spec);
    default(spec, "enableServiceLinks", true);
}

/// `serviceAccount` is an old name of `serviceAccountName`, and is always shown beside it.
fn mirror_service_account(spec: &mut Value) {
    let mut name = text(spec, "serviceAccountName").to_owned();
    if name.is_empty() {
        text(spec, "serviceAccount").clone_into(&mut name);
    }
    let name = if name.is_empty() { Value::Null } else { Value::String(name) };
    set(spec, "serviceAccountName", name.clone());
    set(spec, "serviceAccount", name);
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    default_zero(container, "imagePullPolicy", policy);
    default_zero(container, "terminationMessagePath", "/dev/termination-log");
    default_zero(container, "terminationMessagePolicy", "File");
    if let Some(resources) = object_mut(container, "resources") {
        round_resources(resources);
    }
    for port in items_mut(container, "ports") {
        default_zero(port, "protocol", "TCP");
    }
    for variable in items_mut(container, "env") {
        if let Some(from) = present_mut(variable, "valueFrom") {
            default_references(from);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = present_mut(container, probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(hook) = present_mut(container, "lifecycle").and_then(|lifecycle| present_mut(lifecycle, hook)) {
            default_handler(hook);
        }
    }
}

/// `Always` for an image whose tag is `latest` or left out; an image by digest does not change.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.rsplit_once(':') {
        Some((_, "latest")) => "Always",
        None if digest.is_none() && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Value) {
    default_zero(probe, "timeoutSeconds", 1);
    default_zero(probe, "periodSeconds", 10);
    default_zero(probe, "successThreshold", 1);
    default_zero(probe, "failureThreshold", 3);
    default_handler(probe);
}

fn default_handler(handler: &mut Value) {
    if let Some(get) = present_mut(handler, "httpGet") {
        default_zero(get, "path", "/");
        default_zero(get, "scheme", "HTTP");
    }
    if let Some(grpc) = present_mut(handler, "grpc") {
        default(grpc, "service", "");
    }
}

fn default_references(source: &mut Value) {
    if let Some(field) = present_mut(source, "fieldRef") {
        default_zero(field, "apiVersion", "v1");
    }
    if let Some(resource) = present_mut(source, "resourceFieldRef") {
        default(resource, "divisor", "0");
    }
}

fn default_volume(volume: &mut Value) {
    let sources = volume.as_object().map_or(0, |map| map.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        set(volume, "emptyDir", json!({}));
    }
    for kind in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = present_mut(volume, kind) {
            default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(source) = present_mut(volume, "hostPath") {
        default(source, "type", "");
    }
    if let Some(source) = present_mut(volume, "image") {
        let policy = pull_policy(text(source, "reference"));
        default_zero(source, "pullPolicy", policy);
    }
    if let Some(source) = present_mut(volume, "downwardAPI") {
        items_mut(source, "items").iter_mut().for_each(default_references);
    }
    if let Some(source) = present_mut(volume, "projected") {
        for projection in items_mut(source, "sources") {
            if let Some(token) = present_mut(projection, "serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(files) = present_mut(projection, "downwardAPI") {
                items_mut(files, "items").iter_mut().for_each(default_references);
            }
        }
    }
}

/// What is limited and not requested is requested as it is limited.
fn default_requests(container: &mut Value) {
    let Some(Value::Object(limits)) = container["resources"].get("limits").cloned() else { return };
    if let Some(requests) = object_mut(&mut container["resources"], "requests") {
        for (name, amount) in limits {
            default(requests, &name, amount);
        }
    }
}

/// The requests of the whole pod, where only its limits are given: what its containers request, else the limits.
fn default_pod_requests(spec: &mut Value) {
    let limits = spec["resources"].get("limits").and_then(Value::as_object).cloned().unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let requested = qos::requested_by_containers(spec);
    if let Some(requests) = object_mut(&mut spec["resources"], "requests") {
        for (name, amount) in requested.into_iter().chain(limits) {
            if matches!(name.as_str(), "cpu" | "memory") || name.starts_with("hugepages-") {
                default(requests, &name, amount);
            }
        }
    }
}

/// Writes the amounts of `limits` and `requests` as Kubernetes does.
fn round_resources(resources: &mut Value) {
    for list in ["limits", "requests"] {
        if let Some(list) = present_mut(resources, list) {
            round_list(list);
        }
    }
}

/// Writes amounts in their canonical form, rounded up to thousandths.
pub(crate) fn round_list(list: &mut Value) {
    for amount in list.as_object_mut().into_iter().flat_map(Map::values_mut) {
        let Some(exact) = quantity(amount) else { continue };
        let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
        let rounded = Quantity::from_millis(exact.millis());
        let text = if rounded == exact { text } else { format!("{}m", exact.millis()) };
        if let Ok(canonical) = Quantity::canonical(&text) {
            *amount = canonical.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        let mut resources = json!({"limits": {"cpu": 1, "memory": "1024Mi"}, "requests": {"cpu": "0.0001"}});
        round_resources(&mut resources);
        assert_eq!(resources, json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1m"}}));
    }

    #[test]
    fn limits_become_requests_of_a_pod_but_not_of_a_template() {
        let spec = json!({"containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}]});
        let (mut pod, mut template) = (spec.clone(), spec);
        default_pod_spec(&mut pod);
        default_spec(&mut template);
        assert_eq!(pod["containers"][0]["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(template["containers"][0]["resources"].get("requests"), None);
    }

    #[test]
    fn volumes_and_probes_are_completed_once() {
        let mut spec = json!({
            "containers": [{"name": "a", "image": "b", "readinessProbe": {"httpGet": {"port": 80}},
                "env": [{"name": "e", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}],
            "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
            "hostNetwork": true, "serviceAccount": "me"});
        default_pod_spec(&mut spec);
        let probe = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(spec["containers"][0]["readinessProbe"], probe);
        assert_eq!(spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(spec["volumes"][0]["emptyDir"], json!({}));
        assert_eq!(spec["volumes"][1]["configMap"]["defaultMode"], 420);
        assert_eq!(spec["volumes"][2]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3600);
        assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("me"), &json!("me")));
        let once = spec.clone();
        default_pod_spec(&mut spec);
        assert_eq!(spec, once);
    }
}
