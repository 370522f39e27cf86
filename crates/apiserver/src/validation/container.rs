//! Containers and init containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::field::{Causes, FieldPath};
use super::name::{NameRule, Prefix, config_key, dns_label, dns_subdomain, env_name, port_name, port_number};
use super::probe::{Kind, check_lifecycle, check_probe};
use super::volume::{check_descending_path, check_field_ref, check_resource_ref};
use super::{placement, resources};
use crate::kinds::value::{items, text};

/// What a container may refer to in its pod.
#[derive(Debug)]
pub(crate) struct PodContext {
    /// The names of the pod's volumes that are right.
    pub(crate) volumes: BTreeSet<String>,
    /// The pod's `terminationGracePeriodSeconds`.
    pub(crate) grace: Option<i64>,
}

const PROBES: [(&str, Kind); 3] =
    [("livenessProbe", Kind::Liveness), ("readinessProbe", Kind::Readiness), ("startupProbe", Kind::Startup)];

/// Checks `containers`: there is at least one, and no two have a name or a host port in common.
pub(crate) fn check_containers(containers: &[Value], pod: &PodContext, path: &FieldPath, causes: &mut Causes) {
    if containers.is_empty() {
        causes.required(path, "");
        return;
    }
    let mut names = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        check_common(container, pod, &path, causes);
        let name = text(container, "name");
        if !names.insert(name) {
            causes.duplicate(&path.child("name"), name);
        }
        check_lifecycle(&container["lifecycle"], pod.grace, &path.child("lifecycle"), causes);
        check_probes(container, pod, &path, causes);
        check_restart_policy(container, &path, causes);
    }
    check_host_ports(containers, path, causes);
}

/// Checks `initContainers`; their names are unique among the containers too.
pub(crate) fn check_init_containers(
    init: &[Value],
    containers: &[Value],
    pod: &PodContext,
    path: &FieldPath,
    causes: &mut Causes,
) {
    let mut names: BTreeSet<&str> = containers.iter().map(|container| text(container, "name")).collect();
    for (index, container) in init.iter().enumerate() {
        let at = path.index(index);
        check_common(container, pod, &at, causes);
        check_restart_policy(container, &at, causes);
        let name = text(container, "name");
        if !name.is_empty() && !names.insert(name) {
            causes.duplicate(&at.child("name"), name);
        }
        check_host_ports(std::slice::from_ref(container), path, causes);
        if text(container, "restartPolicy") == "Always" {
            check_lifecycle(&container["lifecycle"], pod.grace, &at.child("lifecycle"), causes);
            check_probes(container, pod, &at, causes);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !container[field].is_null() {
                    let why = "may not be set for init containers without restartPolicy=Always";
                    causes.forbidden(&at.child(field), why);
                }
            }
        }
    }
}

fn check_common(container: &Value, pod: &PodContext, path: &FieldPath, causes: &mut Causes) {
    let (name, at) = (text(container, "name"), path.child("name"));
    if name.is_empty() {
        causes.required(&at, "");
    } else {
        causes.invalid_each(&at, name, dns_label(name));
    }
    if text(container, "image").is_empty() {
        causes.required(&path.child("image"), "");
    }
    let policy = text(container, "terminationMessagePolicy");
    causes.one_of(&path.child("terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    check_ports(items(container, "ports"), &path.child("ports"), causes);
    check_env(items(container, "env"), &path.child("env"), causes);
    check_env_from(items(container, "envFrom"), &path.child("envFrom"), causes);
    check_mounts(container, pod, &path.child("volumeMounts"), causes);
    let policy = text(container, "imagePullPolicy");
    causes.one_of(&path.child("imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    resources::check(&container["resources"], &path.child("resources"), causes);
    placement::check_security_context(&container["securityContext"], &path.child("securityContext"), causes);
}

fn check_probes(container: &Value, pod: &PodContext, path: &FieldPath, causes: &mut Causes) {
    for (field, kind) in PROBES {
        check_probe(&container[field], kind, pod.grace, &path.child(field), causes);
    }
}

fn check_restart_policy(container: &Value, path: &FieldPath, causes: &mut Causes) {
    const POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
    let at = path.child("restartPolicy");
    match container["restartPolicy"].as_str() {
        None if !items(container, "restartPolicyRules").is_empty() => {
            causes.required(&at, "must specify restartPolicy when restart rules are used");
        }
        Some(policy) if !POLICIES.contains(&policy) => causes.not_supported(&at, policy, &POLICIES),
        _ => {}
    }
}

fn check_ports(ports: &[Value], path: &FieldPath, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            let wrong = port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                causes.duplicate(&path.child("name"), name);
            }
            causes.invalid_each(&path.child("name"), name, wrong);
        }
        match port["containerPort"].as_i64().unwrap_or(0) {
            0 => causes.required(&path.child("containerPort"), ""),
            number => causes.invalid_each(&path.child("containerPort"), number, port_number(number)),
        }
        if let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) {
            causes.invalid_each(&path.child("hostPort"), number, port_number(number));
        }
        causes.one_of(&path.child("protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

/// No two ports of a pod take the same port of the host.
fn check_host_ports(containers: &[Value], path: &FieldPath, causes: &mut Causes) {
    let mut taken = BTreeSet::new();
    for (container_index, container) in containers.iter().enumerate() {
        for (port_index, port) in items(container, "ports").iter().enumerate() {
            let Some(number) = port["hostPort"].as_i64().filter(|number| *number != 0) else { continue };
            let this = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if !taken.insert(this.clone()) {
                let at = path.index(container_index).child("ports").index(port_index).child("hostPort");
                causes.duplicate(&at, this);
            }
        }
    }
}

fn check_env(variables: &[Value], path: &FieldPath, causes: &mut Causes) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        let (name, at) = (text(variable, "name"), path.child("name"));
        if name.is_empty() {
            causes.required(&at, "");
        } else {
            causes.invalid_each(&at, name, env_name(name));
        }
        if !variable["valueFrom"].is_null() {
            check_value_from(variable, &path.child("valueFrom"), causes);
        }
    }
}

fn check_value_from(variable: &Value, path: &FieldPath, causes: &mut Causes) {
    const FIELDS: [&str; 9] = [
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let from = &variable["valueFrom"];
    let mut count = 0;
    for source in SOURCES.into_iter().filter(|source| !from[*source].is_null()) {
        count += 1;
        let (reference, path) = (&from[source], path.child(source));
        match source {
            "fieldRef" => check_field_ref(reference, &FIELDS, &path, causes),
            "resourceFieldRef" => check_resource_ref(reference, &path, causes),
            "fileKeyRef" => {}
            _ => check_key_ref(reference, &path, causes),
        }
    }
    if count == 0 {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        causes.invalid(path, "", why);
    } else if !text(variable, "value").is_empty() {
        causes.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        causes.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn check_key_ref(reference: &Value, path: &FieldPath, causes: &mut Causes) {
    let (name, key) = (text(reference, "name"), text(reference, "key"));
    causes.invalid_each(&path.child("name"), name, dns_subdomain(name));
    if key.is_empty() {
        causes.required(&path.child("key"), "");
    } else {
        causes.invalid_each(&path.child("key"), key, config_key(key));
    }
}

fn check_env_from(sources: &[Value], list: &FieldPath, causes: &mut Causes) {
    for (index, source) in sources.iter().enumerate() {
        let path = list.index(index);
        let prefix = text(source, "prefix");
        if !prefix.is_empty() {
            causes.invalid_each(&path.child("prefix"), prefix, env_name(prefix));
        }
        let given: Vec<&str> = ["configMapRef", "secretRef"].into_iter().filter(|f| !source[*f].is_null()).collect();
        for field in &given {
            let (name, at) = (text(&source[*field], "name"), path.child(field).child("name"));
            if name.is_empty() {
                causes.required(&at, "");
            } else {
                causes.invalid_each(&at, name, NameRule::Subdomain.check(name, Prefix::Yes));
            }
        }
        match given.len() {
            0 => causes.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => causes.invalid(list, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_mounts(container: &Value, pod: &PodContext, list: &FieldPath, causes: &mut Causes) {
    let mut targets = BTreeSet::new();
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let path = list.index(index);
        let (name, target) = (text(mount, "name"), text(mount, "mountPath"));
        if name.is_empty() {
            causes.required(&path.child("name"), "");
        }
        if !pod.volumes.contains(name) {
            causes.not_found(&path.child("name"), name);
        }
        if target.is_empty() {
            causes.required(&path.child("mountPath"), "");
        }
        if !targets.insert(target) {
            causes.invalid(&path.child("mountPath"), target, "must be unique");
        }
        let (sub, expression) = (text(mount, "subPath"), text(mount, "subPathExpr"));
        check_descending_path(sub, &list.child("subPath"), causes);
        if !expression.is_empty() && !sub.is_empty() {
            let why = "subPathExpr and subPath are mutually exclusive";
            causes.invalid(&path.child("subPathExpr"), expression, why);
        }
        check_descending_path(expression, &list.child("subPathExpr"), causes);
        if let Some(mode) = mount["mountPropagation"].as_str() {
            check_propagation(mode, container, &list.child("mountPropagation"), causes);
        }
    }
}

fn check_propagation(mode: &str, container: &Value, path: &FieldPath, causes: &mut Causes) {
    const MODES: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
    if !MODES.contains(&mode) {
        causes.not_supported(path, mode, &MODES);
    }
    if mode == "Bidirectional" && container["securityContext"]["privileged"] != true {
        causes.forbidden(path, "Bidirectional mount propagation is available only to privileged containers");
    }
}
