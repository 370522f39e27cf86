//! What may change in a pod, and what may not.

use serde_json::Value;

use super::super::value::{items, items_mut, restore, set, text};
use crate::validation::field::{Causes, FieldPath, same};
use crate::validation::name::{dns_subdomain, qualified_name};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Checks a change of a pod's spec; the new spec itself is right.
pub(super) fn check_spec(new: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    for list in ["containers", "initContainers"] {
        if !check_containers(items(new, list), items(old, list), &path.child(list), causes) {
            return;
        }
    }
    if !check_deadline(new, old, &path.child("activeDeadlineSeconds"), causes) {
        return;
    }
    check_tolerations(items(new, "tolerations"), items(old, "tolerations"), &path.child("tolerations"), causes);
    let had = |name: &str| items(old, "schedulingGates").iter().any(|gate| text(gate, "name") == name);
    for (index, gate) in items(new, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !had(name) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            causes.forbidden(&path.child("schedulingGates").index(index).child("name"), &why);
        }
    }
    check_rest(new, old, path, causes);
}

/// Gives whether it makes sense to look further.
fn check_containers(new: &[Value], old: &[Value], path: &FieldPath, causes: &mut Causes) -> bool {
    if new.len() != old.len() {
        causes.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (index, container) in new.iter().enumerate() {
        let (image, at) = (text(container, "image"), path.index(index).child("image"));
        if image.is_empty() {
            causes.required(&at, "");
        }
        if image.trim() != image {
            causes.invalid(&at, image, "must not have leading or trailing whitespace");
        }
    }
    true
}

fn check_deadline(new: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) -> bool {
    let (new, old) = (new["activeDeadlineSeconds"].as_i64(), old["activeDeadlineSeconds"].as_i64());
    match (new, old) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            causes.invalid(path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if old < new => {
            causes.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            causes.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

/// Tolerations may be added, and their seconds changed.
fn check_tolerations(new: &[Value], old: &[Value], path: &FieldPath, causes: &mut Causes) {
    let bare = |toleration: &Value| {
        let mut bare = toleration.clone();
        set(&mut bare, "tolerationSeconds", Value::Null);
        bare
    };
    if old.iter().any(|old| !new.iter().any(|new| bare(new) == bare(old))) {
        causes.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// Puts back everything that may change; what differs still may not.
fn check_rest(new: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    let mut kept = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, old) in items_mut(&mut kept, list).iter_mut().zip(items(old, list)) {
            restore(container, old, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        restore(&mut kept, old, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if old[grace].as_i64().is_some_and(|seconds| seconds < 0) && kept[grace] == 1 {
        restore(&mut kept, old, grace);
    }
    if !items(old, "schedulingGates").is_empty() {
        relax_gated(&mut kept, old, path, causes);
    }
    if !equal(&kept, old) {
        let why = format!("pod updates may not change fields other than {UPDATABLE}\n{}", difference(old, &kept));
        causes.forbidden(path, &why);
    }
}

/// A pod that is not scheduled yet may still be narrowed down.
fn relax_gated(kept: &mut Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    let (new_labels, old_labels) = (&kept["nodeSelector"], &old["nodeSelector"]);
    if !same(new_labels, old_labels) {
        let kept_all = old_labels.as_object().is_none_or(|map| map.iter().all(|(k, v)| new_labels.get(k) == Some(v)));
        if !kept_all {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            causes.invalid(&path.child("nodeSelector"), new_labels.clone(), why);
        }
        restore(kept, old, "nodeSelector");
    }
}

/// Checks a new status.
pub(super) fn check_status(new: &Value, old: &Value, causes: &mut Causes) {
    let (status, was, path) = (&new["status"], &old["status"], FieldPath::new("status"));
    for (index, condition) in items(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        let at = path.child("conditions").index(index);
        if let Some(generation) = condition["observedGeneration"].as_i64().filter(|generation| *generation < 0) {
            causes.invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer");
        }
        causes.invalid_each(&at.child("Type"), kind, qualified_name(kind));
    }
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(was, "nominatedNodeName") {
        causes.invalid_each(&path.child("nominatedNodeName"), nominated, dns_subdomain(nominated));
    }
    causes.immutable(&path.child("qosClass"), &status["qosClass"], &was["qosClass"]);
    check_restarts(new, old, &path.child("containerStatuses"), causes);
}

/// A container that is not to be restarted stays ended.
fn check_restarts(new: &Value, old: &Value, path: &FieldPath, causes: &mut Causes) {
    let ended = |container: &Value| !container["state"]["terminated"].is_null();
    for (index, was) in items(&old["status"], "containerStatuses").iter().enumerate() {
        let name = text(was, "name");
        let find = |list: &[Value]| list.iter().find(|container| text(container, "name") == name).cloned();
        let Some(is) = find(items(&new["status"], "containerStatuses")) else { continue };
        if !ended(was) || ended(&is) {
            continue;
        }
        let own = find(items(&old["spec"], "containers")).map(|c| text(&c, "restartPolicy").to_owned());
        let own = own.filter(|policy| !policy.is_empty());
        let policy = own.unwrap_or_else(|| text(&old["spec"], "restartPolicy").to_owned());
        let failed = was["state"]["terminated"]["exitCode"].as_i64().unwrap_or(0) != 0;
        if policy == "Never" || (policy == "OnFailure" && !failed) {
            causes.forbidden(&path.index(index).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// Of a change through `/resize` only the resources of the containers stand.
pub(super) fn keep_resources_only(object: &mut Value, old: &Value) {
    let asked = object["spec"].clone();
    restore(object, old, "spec");
    restore(object, old, "status");
    for list in ["containers", "initContainers"] {
        for container in items_mut(&mut object["spec"], list) {
            let name = text(container, "name").to_owned();
            if let Some(asked) = items(&asked, list).iter().find(|asked| text(asked, "name") == name) {
                restore(container, asked, "resources");
            }
        }
    }
}

/// Whether two specs mean the same, where an absent field and an empty one do.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            left.keys().chain(right.keys()).all(|key| equal(&a[key.as_str()], &b[key.as_str()]))
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| equal(a, b))
        }
        (Value::Null, Value::Object(map)) | (Value::Object(map), Value::Null) => {
            map.values().all(|value| equal(value, &Value::Null))
        }
        (Value::Null, Value::Bool(false)) | (Value::Bool(false), Value::Null) => true,
        _ => same(a, b),
    }
}

/// The lines that differ, as one hunk of a unified diff with three lines around it.
fn difference(old: &Value, new: &Value) -> String {
    const AROUND: usize = 3;
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
    let (old, new) = (pretty(old), pretty(new));
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let shortest = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(shortest).take_while(|(a, b)| a == b).count();
    let start = head.saturating_sub(AROUND);
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let end = (old_end + AROUND).min(old.len());
    let (old_count, new_count) = (end - start, new_end + (end - old_end) - start);
    let line = start + 1;
    let mut text = format!("@@ -{line},{old_count} +{line},{new_count} @@\n");
    let lines = old[start..head].iter().map(|line| (' ', line));
    let lines = lines.chain(old[head..old_end].iter().map(|line| ('-', line)));
    let lines = lines.chain(new[head..new_end].iter().map(|line| ('+', line)));
    for (mark, line) in lines.chain(old[old_end..end].iter().map(|line| (' ', line))) {
        text.push(mark);
        text.push_str(line);
        text.push('\n');
    }
    text
}
