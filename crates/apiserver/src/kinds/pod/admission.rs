//! What admission does to a new pod: service account, priority, runtime class, tolerations.
//!
//! Sources: Kubernetes' admission plugins ServiceAccount, Priority, DefaultTolerationSeconds and RuntimeClass.

use std::fmt::Display;
use std::sync::Arc;

use coracle_api::settings::{ClusterSettings, SettingsObject};
use coracle_api::{GroupResource, ObjectKey, Status, resources};
use coracle_base::Rng;
use coracle_store::View;
use serde_json::{Value, json};

use super::super::value::{entries, items, items_mut, object_mut, set, text};
use crate::kinds::priority_class;
use crate::strategy::StrategyContext;
use crate::validation::field::same;

/// Where containers find the token, the CA certificate and the namespace.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How the names of volumes that hold them start.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// The lifetime of a token in seconds: an hour and seven seconds, by which they are told from others.
const TOKEN_SECONDS: i64 = 3607;
/// Pods that a node runs from a file of its own carry this annotation and are left as they are.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Admits a new pod, or says why not.
pub(super) fn admit(context: &mut StrategyContext<'_>, pod: &mut Value) -> Result<(), Status> {
    object_mut(pod, "spec");
    admit_service_account(context, pod)?;
    admit_priority(context, pod)?;
    add_tolerations(&mut pod["spec"], toleration_seconds(context.view));
    admit_runtime_class(context, pod)
}

fn forbidden(pod: &Value, why: impl Display) -> Status {
    let meta = &pod["metadata"];
    let name = [text(meta, "name"), text(meta, "generateName"), "Unknown"];
    let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
    Status::forbidden(&resources::PODS, name, why)
}

/// The value of an object, in the namespace of the pod where there is one.
fn look_up(context: &StrategyContext<'_>, resource: GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
    context.view.typed(&ObjectKey::new(resource, namespace, name))
}

fn admit_service_account(context: &mut StrategyContext<'_>, pod: &mut Value) -> Result<(), Status> {
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        if text(&pod["spec"], "serviceAccountName").is_empty() {
            return Ok(());
        }
        return Err(forbidden(pod, "a mirror pod may not reference service accounts"));
    }
    if text(&pod["spec"], "serviceAccountName").is_empty() {
        set(&mut pod["spec"], "serviceAccountName", "default");
    }
    let namespace = text(&pod["metadata"], "namespace").to_owned();
    let name = text(&pod["spec"], "serviceAccountName").to_owned();
    let Some(account) = look_up(context, resources::SERVICE_ACCOUNTS, &namespace, &name) else {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(forbidden(pod, why));
    };
    let spec = &mut pod["spec"];
    let wants = spec["automountServiceAccountToken"].as_bool();
    if wants.or(account["automountServiceAccountToken"].as_bool()).unwrap_or(true) {
        mount_token(spec, context.rng);
    }
    if items(spec, "imagePullSecrets").is_empty() {
        let secrets = items(&account, "imagePullSecrets").iter().map(|secret| json!({"name": secret["name"]}));
        let secrets: Vec<Value> = secrets.collect();
        if !secrets.is_empty() {
            set(spec, "imagePullSecrets", secrets);
        }
    }
    Ok(())
}

/// Mounts the account's token into every container that has nothing else at its place.
fn mount_token(spec: &mut Value, rng: &mut Rng) {
    let existing = items(spec, "volumes").iter().map(|volume| text(volume, "name"));
    let existing = existing.into_iter().find(|name| name.starts_with(TOKEN_VOLUME)).map(str::to_owned);
    let name = existing.clone().unwrap_or_else(|| format!("{TOKEN_VOLUME}{}", rng.name_suffix(5)));
    let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            if items(container, "volumeMounts").iter().all(|mount| mount["mountPath"] != TOKEN_PATH) {
                push(container, "volumeMounts", mount.clone());
                mounted = true;
            }
        }
    }
    if mounted && existing.is_none() {
        push(spec, "volumes", json!({"name": name, "projected": token_source()}));
    }
}

fn token_source() -> Value {
    json!({"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]})
}

fn push(value: &mut Value, list: &str, item: Value) {
    if let Some(map) = value.as_object_mut() {
        let slot = map.entry(list).or_insert(Value::Null);
        match slot {
            Value::Array(items) => items.push(item),
            other => *other = Value::Array(vec![item]),
        }
    }
}

fn admit_priority(context: &StrategyContext<'_>, pod: &mut Value) -> Result<(), Status> {
    let name = text(&pod["spec"], "priorityClassName");
    let class = if name.is_empty() {
        priority_class::default_class(context.view)
    } else {
        let class = look_up(context, resources::PRIORITY_CLASSES, "", name)
            .or_else(|| priority_class::built_in(name).map(Arc::new));
        Some(class.ok_or_else(|| forbidden(pod, format!("no PriorityClass with name {name} was found")))?)
    };
    let (class_name, priority, policy) = match &class {
        Some(class) => {
            let policy = text(class, "preemptionPolicy");
            (text(&class["metadata"], "name"), class["value"].as_i64().unwrap_or(0), policy)
        }
        None => ("", 0, "PreemptLowerPriority"),
    };
    let spec = &pod["spec"];
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != priority) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {priority} from the given PriorityClass name"
        );
        return Err(forbidden(pod, why));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| !policy.is_empty() && *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {policy} from the given PriorityClass name"
        );
        return Err(forbidden(pod, why));
    }
    let spec = &mut pod["spec"];
    if !class_name.is_empty() {
        set(spec, "priorityClassName", class_name);
    }
    set(spec, "priority", priority);
    if !policy.is_empty() {
        set(spec, "preemptionPolicy", policy);
    }
    Ok(())
}

/// How long pods stay on a node that fails, as the cluster's user has set it.
fn toleration_seconds(view: &View) -> u64 {
    let settings = view.typed::<SettingsObject>(&ClusterSettings::key());
    settings.map_or_else(ClusterSettings::default, |object| object.spec).pod_toleration_seconds
}

/// A pod tolerates a failing node for a while, unless it says otherwise.
fn add_tolerations(spec: &mut Value, seconds: u64) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerates = |toleration: &Value| {
            let (taint, effect) = (text(toleration, "key"), text(toleration, "effect"));
            (taint == key || taint.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if !items(spec, "tolerations").iter().any(tolerates) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds});
            push(spec, "tolerations", toleration);
        }
    }
}

fn admit_runtime_class(context: &StrategyContext<'_>, pod: &mut Value) -> Result<(), Status> {
    let class = match pod["spec"]["runtimeClassName"].as_str() {
        None => Arc::default(),
        Some(name) => match look_up(context, resources::RUNTIME_CLASSES, "", name) {
            Some(class) => class,
            None => return Err(forbidden(pod, format!("pod rejected: RuntimeClass {name:?} not found"))),
        },
    };
    admit_overhead(&class["overhead"]["podFixed"], pod)?;
    for (key, value) in entries(&class["scheduling"], "nodeSelector") {
        let wanted = value.as_str().unwrap_or_default();
        if let Some(given) = pod["spec"]["nodeSelector"][key.as_str()].as_str().filter(|given| *given != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {given}"
            );
            return Err(forbidden(pod, why));
        }
        if let Some(selector) = object_mut(&mut pod["spec"], "nodeSelector") {
            set(selector, key, wanted);
        }
    }
    for toleration in items(&class["scheduling"], "tolerations") {
        if !items(&pod["spec"], "tolerations").contains(toleration) {
            push(&mut pod["spec"], "tolerations", toleration.clone());
        }
    }
    Ok(())
}

fn admit_overhead(fixed: &Value, pod: &mut Value) -> Result<(), Status> {
    let given = &pod["spec"]["overhead"];
    let none_given = same(given, &Value::Null);
    if fixed.is_null() {
        if none_given {
            return Ok(());
        }
        let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        return Err(forbidden(pod, why));
    }
    if !none_given && given != fixed {
        return Err(forbidden(pod, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"));
    }
    set(&mut pod["spec"], "overhead", fixed.clone());
    Ok(())
}
