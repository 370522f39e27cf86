//! Volumes of a pod: each has a name of its own and exactly one source.

use std::collections::BTreeSet;

use coracle_api::Quantity;
use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::name::{dns_label, qualified_name};
use super::resources::quantity;
use crate::kinds::value::{items, text};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Every source that a volume can have, in the order in which Kubernetes looks for them.
const SOURCES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
    "flexVolume",
];

/// Checks the volumes and gives the names that a mount may use: those of the volumes that are right.
pub(crate) fn check_volumes(volumes: &[Value], path: &FieldPath, causes: &mut Causes) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let (name, at) = (text(volume, "name"), path.child("name"));
        let mut wrong = Causes::new();
        check_source(volume, &path, &mut wrong);
        if name.is_empty() {
            wrong.required(&at, "");
        } else {
            wrong.invalid_each(&at, name, dns_label(name));
        }
        if names.contains(name) {
            wrong.duplicate(&at, name);
        }
        if wrong.is_empty() {
            names.insert(name.to_owned());
        } else {
            causes.extend(wrong);
        }
    }
    names
}

fn check_source(volume: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut first = true;
    for kind in SOURCES {
        let (source, path) = (&volume[kind], path.child(kind));
        if source.is_null() {
            continue;
        }
        if !first {
            causes.forbidden(&path, "may not specify more than 1 volume type");
            continue;
        }
        first = false;
        check_one(kind, source, &path, causes);
    }
    if first {
        causes.required(path, "must specify a volume type");
    }
}

fn check_one(kind: &str, source: &Value, path: &FieldPath, causes: &mut Causes) {
    let required = |field: &str, causes: &mut Causes| {
        if text(source, field).is_empty() {
            causes.required(&path.child(field), "");
        }
    };
    match kind {
        "emptyDir" if quantity(&source["sizeLimit"]).is_some_and(Quantity::is_negative) => {
            causes.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        "hostPath" => check_host_path(source, path, causes),
        "secret" => {
            required("secretName", causes);
            check_keys(source, path, causes);
        }
        "configMap" => {
            required("name", causes);
            check_keys(source, path, causes);
        }
        "persistentVolumeClaim" => required("claimName", causes),
        "nfs" => {
            required("server", causes);
            required("path", causes);
            if !text(source, "path").is_empty() && !text(source, "path").starts_with('/') {
                causes.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
            }
        }
        "csi" => required("driver", causes),
        "downwardAPI" => {
            check_mode(&source["defaultMode"], &path.child("defaultMode"), causes);
            for file in items(source, "items") {
                check_downward_file(file, path, causes);
            }
        }
        "projected" => {
            check_mode(&source["defaultMode"], &path.child("defaultMode"), causes);
            check_projections(source, path, causes);
        }
        _ => {}
    }
}

fn check_host_path(source: &Value, path: &FieldPath, causes: &mut Causes) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let target = text(source, "path");
    if target.is_empty() {
        causes.required(&path.child("path"), "");
        return;
    }
    check_no_backsteps(target, &path.child("path"), causes);
    if let Some(kind) = source["type"].as_str().filter(|kind| !TYPES.contains(kind)) {
        causes.not_supported(&path.child("type"), kind, &TYPES);
    }
}

fn check_keys(source: &Value, path: &FieldPath, causes: &mut Causes) {
    check_mode(&source["defaultMode"], &path.child("defaultMode"), causes);
    for (index, item) in items(source, "items").iter().enumerate() {
        check_key_to_path(item, &path.child("items").index(index), causes);
    }
}

fn check_key_to_path(item: &Value, path: &FieldPath, causes: &mut Causes) {
    for field in ["key", "path"] {
        if text(item, field).is_empty() {
            causes.required(&path.child(field), "");
        }
    }
    check_local_path(text(item, "path"), &path.child("path"), causes);
    check_mode(&item["mode"], &path.child("mode"), causes);
}

fn check_projections(source: &Value, path: &FieldPath, causes: &mut Causes) {
    const KINDS: [&str; 6] =
        ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];
    let mut paths = BTreeSet::new();
    for (index, projection) in items(source, "sources").iter().enumerate() {
        let at = path.child("sources").index(index);
        for kind in KINDS.into_iter().filter(|kind| !projection[*kind].is_null()) {
            check_projection(kind, &projection[kind], path, &at.child(kind), &mut paths, causes);
        }
        if KINDS.into_iter().filter(|kind| !projection[*kind].is_null()).count() > 1 {
            causes.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

fn check_projection(
    kind: &str,
    source: &Value,
    volume: &FieldPath,
    path: &FieldPath,
    paths: &mut BTreeSet<String>,
    causes: &mut Causes,
) {
    match kind {
        "secret" | "configMap" => {
            if text(source, "name").is_empty() {
                causes.required(&path.child("name"), "");
            }
            for (index, item) in items(source, "items").iter().enumerate() {
                check_key_to_path(item, &path.child("items").index(index), causes);
                check_unique(text(item, "path"), text(source, "name"), volume, paths, causes);
            }
        }
        "downwardAPI" => {
            for file in items(source, "items") {
                check_downward_file(file, path, causes);
                check_unique(text(file, "path"), text(file, "path"), volume, paths, causes);
            }
        }
        "serviceAccountToken" => {
            let (seconds, at) = (source["expirationSeconds"].as_i64().unwrap_or(0), path.child("expirationSeconds"));
            if seconds < 600 {
                causes.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                causes.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            let (target, at) = (text(source, "path"), volume.child("path"));
            if target.is_empty() {
                causes.required(&at, "");
            } else {
                check_local_path(target, &at, causes);
            }
        }
        _ => {}
    }
}

fn check_unique(target: &str, value: &str, volume: &FieldPath, paths: &mut BTreeSet<String>, causes: &mut Causes) {
    if !target.is_empty() && !paths.insert(target.to_owned()) {
        causes.invalid(volume, value, "conflicting duplicate paths");
    }
}

fn check_downward_file(file: &Value, path: &FieldPath, causes: &mut Causes) {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    if text(file, "path").is_empty() {
        causes.required(&path.child("path"), "");
    }
    check_local_path(text(file, "path"), &path.child("path"), causes);
    let (field, resource) = (&file["fieldRef"], &file["resourceFieldRef"]);
    if !field.is_null() {
        check_field_ref(field, &FIELDS, &path.child("fieldRef"), causes);
        if !resource.is_null() {
            causes.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.is_null() {
        causes.required(path, "one of fieldRef and resourceFieldRef is required");
    } else {
        let path = path.child("resourceFieldRef");
        if text(resource, "containerName").is_empty() {
            causes.required(&path.child("containerName"), "");
        } else {
            check_resource_ref(resource, &path, causes);
        }
    }
    check_mode(&file["mode"], &path.child("mode"), causes);
}

/// Checks a `fieldRef` against the fields that its place supports.
pub(crate) fn check_field_ref(field: &Value, supported: &[&str], path: &FieldPath, causes: &mut Causes) {
    for part in ["apiVersion", "fieldPath"] {
        if text(field, part).is_empty() {
            causes.required(&path.child(part), "");
            return;
        }
    }
    let target = text(field, "fieldPath");
    if let Some((map, key)) = target.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        match map {
            "metadata.annotations" => {
                causes.invalid_each(path, key.to_lowercase(), qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => causes.invalid_each(path, key, qualified_name(key)),
            _ => causes.invalid(path, map, "does not support subscript"),
        }
    } else if !supported.contains(&target) {
        if is_known_field(target) {
            causes.not_supported(&path.child("fieldPath"), target, supported);
        } else {
            let why = format!("error converting fieldPath: field label not supported: {target}");
            causes.invalid(&path.child("fieldPath"), target, why);
        }
    }
}

fn is_known_field(target: &str) -> bool {
    const KNOWN: [&str; 14] = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    KNOWN.contains(&target)
}

/// Checks a `resourceFieldRef`'s resource.
pub(crate) fn check_resource_ref(reference: &Value, path: &FieldPath, causes: &mut Causes) {
    const SUPPORTED: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let resource = text(reference, "resource");
    if resource.is_empty() {
        causes.required(&path.child("resource"), "");
    } else if !SUPPORTED.contains(&resource)
        && !["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| resource.starts_with(prefix))
    {
        causes.not_supported(&path.child("resource"), resource, &SUPPORTED);
    }
}

fn check_mode(mode: &Value, path: &FieldPath, causes: &mut Causes) {
    if let Some(mode) = mode.as_i64().filter(|mode| !(0..=0o777).contains(mode)) {
        causes.invalid(path, mode, FILE_MODE);
    }
}

/// A path inside a volume: relative, without steps back.
pub(crate) fn check_descending_path(target: &str, path: &FieldPath, causes: &mut Causes) {
    if target.starts_with('/') {
        causes.invalid(path, target, "must be a relative path");
    }
    check_no_backsteps(target, path, causes);
}

fn check_local_path(target: &str, path: &FieldPath, causes: &mut Causes) {
    check_descending_path(target, path, causes);
    if target.starts_with("..") && !target.starts_with("../") && target != ".." {
        causes.invalid(path, target, "must not start with '..'");
    }
}

fn check_no_backsteps(target: &str, path: &FieldPath, causes: &mut Causes) {
    if target.split('/').any(|step| step == "..") {
        causes.invalid(path, target, "must not contain '..'");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::texts;

    fn wrong(volumes: &Value) -> Vec<String> {
        let mut causes = Causes::new();
        check_volumes(volumes.as_array().unwrap(), &FieldPath::new("v"), &mut causes);
        texts(causes.into_vec())
    }

    #[test]
    fn a_volume_has_exactly_one_source_and_a_name_of_its_own() {
        let volumes = json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}, {"emptyDir": {}},
            {"name": "b"}, {"name": "c", "emptyDir": {}, "hostPath": {}}]);
        assert_eq!(
            wrong(&volumes),
            [
                "v[1].name: Duplicate value: \"a\"",
                "v[2].name: Required value",
                "v[3]: Required value: must specify a volume type",
                "v[4].hostPath: Forbidden: may not specify more than 1 volume type",
            ]
        );
    }

    #[test]
    fn sources_are_checked() {
        let volumes = json!([
            {"name": "a", "configMap": {"defaultMode": 512, "items": [{"key": "k", "path": "../x"}]}},
            {"name": "b", "secret": {"secretName": "s", "items": [{"path": "/x"}]}},
            {"name": "c", "hostPath": {"path": "/", "type": "Pipe"}},
            {"name": "d", "downwardAPI": {"items": [{"path": "p"}, {"path": "q", "fieldRef": {"apiVersion": "v1", "fieldPath": "x"}}]}},
            {"name": "e", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 1, "path": "..t"}, "secret": {}}]}},
        ]);
        assert_eq!(
            wrong(&volumes),
            [
                "v[0].configMap.name: Required value",
                "v[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                "v[0].configMap.items[0].path: Invalid value: \"../x\": must not contain '..'",
                "v[1].secret.items[0].key: Required value",
                "v[1].secret.items[0].path: Invalid value: \"/x\": must be a relative path",
                "v[2].hostPath.type: Unsupported value: \"Pipe\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
                 \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                "v[3].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
                "v[3].downwardAPI.fieldRef.fieldPath: Invalid value: \"x\": error converting fieldPath: field label not \
                 supported: x",
                "v[4].projected.sources[0].secret.name: Required value",
                "v[4].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a \
                 duration less than 10 minutes",
                "v[4].projected.path: Invalid value: \"..t\": must not start with '..'",
                "v[4].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source",
            ]
        );
    }
}
