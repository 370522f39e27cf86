//! `pods/binding`: the scheduler's write, which gives a pod its node.

use std::sync::Arc;

use coracle_api::resources::{POD, PODS};
use coracle_api::{GroupResource, Object, ObjectKey, Response, Status};
use coracle_store::{Precondition, Transaction};
use serde_json::{Value, json};

use crate::context::{Context, Finish, Proposal, Step};
use crate::decode;
use crate::error::{invalid_cause, required_cause};
use crate::kinds::strategy_of;
use crate::request::options::WriteOptions;
use crate::verb::create::{check_namespace, put};

/// How conflicts of a binding name it.
const BINDINGS: GroupResource = GroupResource::builtin("", "pods/binding");

/// Binds the pod that the path, or the body, names to the node of the body.
pub(crate) fn bind(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = WriteOptions::parse(context.request, "CreateOptions", false)?;
    let binding = decode::of_kind(context, "", "v1", "Binding", options.validation)?;
    check_namespace(context, &binding)?;
    let name = check(context, &binding)?;
    let pod_key = ObjectKey::new(PODS, &context.path.namespace, &name);
    let old = context.view.object(&pod_key).ok_or_else(|| Status::not_found(&PODS, &name))?;
    check_pod(old, &binding)?;
    let mut pod = old.value(Some(&POD));
    let node = binding["target"]["name"].clone();
    pod["spec"]["nodeName"] = node;
    copy_annotations(&binding, &mut pod);
    set_scheduled(&mut pod, &context.now.wall.rfc3339());
    let answer = success();
    if options.dry_run {
        return Ok(Step::Respond(answer));
    }
    let key = old.key().clone();
    let preconditions = vec![Precondition::At(key.clone(), old.revision())];
    let transaction = Transaction { preconditions, ..put(strategy_of(&PODS), &key, pod) };
    let finish = Finish::Answer(answer);
    Ok(Step::Propose(Box::new(Proposal { transaction, key, finish, generated_name: false })))
}

/// 201: `Status` with success.
pub(super) fn success() -> Response {
    let status = Status { status: "Success".into(), message: String::new(), reason: None, details: None, code: 201 };
    Response::from(status)
}

/// Gives the pod's name: the path's, or the binding's own when it was posted to the collection `bindings`.
fn check(context: &Context<'_>, binding: &Value) -> Result<String, Status> {
    let mut causes = Vec::new();
    let target = &binding["target"];
    if let Some(kind) = target["kind"].as_str().filter(|kind| !kind.is_empty() && *kind != "Node") {
        causes.push(crate::error::not_supported_cause("target.kind", kind, &["Node", "<empty>"]));
    }
    if target["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(required_cause("target.name", ""));
    }
    let stated = binding["metadata"]["name"].as_str().unwrap_or_default();
    let name = if context.path.name.is_empty() { stated } else { &context.path.name };
    if !stated.is_empty() && stated != name {
        causes.push(invalid_cause(
            "metadata.name",
            &stated.into(),
            "name in URL does not match name in Binding object",
        ));
    }
    if causes.is_empty() { Ok(name.to_owned()) } else { Err(Status::invalid("", "Binding", name, causes)) }
}

fn check_pod(pod: &Arc<Object>, binding: &Value) -> Result<(), Status> {
    let name = &*pod.key().name;
    let conflict = |why: String| Err(Status::conflict(&BINDINGS, name, why));
    let stated = |field: &str| binding["metadata"][field].as_str().filter(|text| !text.is_empty());
    let have = pod.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(uid) = stated("uid").filter(|uid| *uid != have) {
        return conflict(format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"));
    }
    if let Some(version) = stated("resourceVersion").filter(|version| *version != pod.revision().to_string()) {
        let record = pod.revision();
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in object meta: {record}"
        ));
    }
    if pod.metadata().deletion_timestamp.is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let value = pod.value(None);
    if let Some(node) = value["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    if value["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    Ok(())
}

fn copy_annotations(binding: &Value, pod: &mut Value) {
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        pod["metadata"]["annotations"][key] = value.clone();
    }
}

/// The condition `PodScheduled` becomes true; the others stay as they are.
fn set_scheduled(pod: &mut Value, now: &str) {
    let condition = json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now,
        "observedGeneration": pod["metadata"]["generation"],
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
        Some(found) => *found = condition,
        None => conditions.push(condition),
    }
}
