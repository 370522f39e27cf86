//! Reviews: questions about users and their rights, answered at once and never stored.

use coracle_api::apply::{UpdateOptions, track_update};
use coracle_api::{Cause, Gvk, Status, UserInfo};
use serde_json::{Value, json};

use crate::answer::value_response;
use crate::authorize::{Access, Attributes, ResourceAttributes};
use crate::callout::{Asked, Callout, Purpose};
use crate::context::Step;
use crate::decode;
use crate::error::{invalid_cause, required_cause};
use crate::request::negotiate::negotiate;
use crate::request::options::WriteOptions;
use crate::request::{ResourcePath, Verb};
use crate::route::Run;

/// Answers a review; `None` when the path is none.
pub(crate) fn answer(run: &mut Run<'_>, path: &ResourcePath, verb: Verb) -> Option<Result<Step, Status>> {
    if path.version != "v1" || !path.subresource.is_empty() {
        return None;
    }
    let kind = match (path.group.as_str(), path.resource.as_str()) {
        ("authentication.k8s.io", "selfsubjectreviews") => "SelfSubjectReview",
        ("authentication.k8s.io", "tokenreviews") => "TokenReview",
        ("authorization.k8s.io", "selfsubjectaccessreviews") => "SelfSubjectAccessReview",
        ("authorization.k8s.io", "selfsubjectrulesreviews") => "SelfSubjectRulesReview",
        ("authorization.k8s.io", "subjectaccessreviews") => "SubjectAccessReview",
        ("authorization.k8s.io", "localsubjectaccessreviews") => "LocalSubjectAccessReview",
        _ => return None,
    };
    if verb != Verb::Create || !path.name.is_empty() {
        return Some(Err(Status::method_not_allowed()));
    }
    let group = if path.group == "authentication.k8s.io" { "authentication.k8s.io" } else { "authorization.k8s.io" };
    Some(review(run, path, Gvk::builtin(group, "v1", kind)))
}

fn review(run: &mut Run<'_>, path: &ResourcePath, gvk: Gvk) -> Result<Step, Status> {
    let encoding = negotiate(run.request, false)?;
    let type_id = decode::type_of(run.registry, &gvk)?;
    let options = WriteOptions::parse(run.request, "CreateOptions", false)?;
    let decoded = decode::read(run.registry, run.request, &gvk, type_id, options.validation)?;
    run.warnings.extend(decoded.warnings);
    let mut value = decoded.value;
    if !value["metadata"].is_object() {
        value["metadata"] = json!({});
    }
    if let Some(map) = value.as_object_mut() {
        // The status is the server's to say.
        map.remove("status");
    }
    let update = UpdateOptions {
        manager: &options.manager,
        api_version: &gvk.api_version(),
        subresource: "",
        time: run.now.wall,
        status_subresource: false,
    };
    track_update(run.registry.schema(), type_id, None, &mut value, &update);
    if gvk.kind == "TokenReview" {
        let token = value["spec"]["token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let asked = Asked { object: value, encoding, purpose: Purpose::Review };
        return Ok(Step::Call(Callout::CheckToken { token }, Box::new(asked)));
    }
    let user = &run.request.user;
    let authority = Access::of(run.options, run.view);
    value["status"] = match &*gvk.kind {
        "SelfSubjectReview" => {
            value["metadata"]["creationTimestamp"] = run.now.wall.rfc3339().into();
            json!({ "userInfo": user_info(user) })
        }
        "SelfSubjectRulesReview" => rules(authority, user, &value["spec"])?,
        kind => {
            let own = kind == "SelfSubjectAccessReview";
            let causes = wrong(&value["spec"], own);
            if !causes.is_empty() {
                return Err(Status::invalid("authorization.k8s.io", kind, "", causes));
            }
            if kind == "LocalSubjectAccessReview" {
                check_namespace(path, &value)?;
            }
            if own {
                access(authority, user, &value["spec"])
            } else {
                access(authority, &subject(&value["spec"]), &value["spec"])
            }
        }
    };
    Ok(Step::Respond(value_response(encoding, 201, &value)))
}

fn check_namespace(path: &ResourcePath, value: &Value) -> Result<(), Status> {
    let stated = value["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default();
    if stated == path.namespace {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "spec.resourceAttributes.namespace must match metadata.namespace: {stated:?}, {:?}",
        path.namespace
    )))
}

pub(crate) fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.clone().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn subject(spec: &Value) -> UserInfo {
    let text = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let texts =
        |list: &Value| list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let extra = spec["extra"].as_object().into_iter().flatten();
    UserInfo {
        name: text("user"),
        uid: text("uid"),
        groups: texts(&spec["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    }
}

/// What is wrong with the spec of an access review.
fn wrong(spec: &Value, own: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (of_resource, of_path) = (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object());
    if of_resource && of_path {
        let why = "cannot be specified in combination with resourceAttributes";
        causes.push(invalid_cause("spec.nonResourceAttributes", &spec["nonResourceAttributes"], why));
    }
    if !of_resource && !of_path {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(invalid_cause("spec.resourceAttributes", &Value::Null, why));
    }
    let someone = spec["user"].as_str().is_some_and(|user| !user.is_empty())
        || spec["groups"].as_array().is_some_and(|groups| !groups.is_empty());
    if !own && !someone {
        causes.push(required_cause("spec.user", "at least one of user or group must be specified"));
    }
    causes
}

/// Whether the user may do what the spec describes.
fn access(authority: Access<'_>, user: &UserInfo, spec: &Value) -> Value {
    let of = |at: &Value, name: &str| at[name].as_str().unwrap_or_default().to_owned();
    let decision = if spec["nonResourceAttributes"].is_object() {
        let at = &spec["nonResourceAttributes"];
        let (verb, path) = (of(at, "verb"), of(at, "path"));
        authority.decide(user, &Attributes::Path { verb: &verb, path: &path })
    } else {
        let at = &spec["resourceAttributes"];
        let (verb, group, resource) = (of(at, "verb"), of(at, "group"), of(at, "resource"));
        let (subresource, namespace, name) = (of(at, "subresource"), of(at, "namespace"), of(at, "name"));
        let attributes = ResourceAttributes {
            verb: &verb,
            group: &group,
            resource: &resource,
            subresource: &subresource,
            namespace: &namespace,
            name: &name,
            node_name: selected_node(&at["fieldSelector"]),
        };
        authority.decide(user, &Attributes::Resource(attributes))
    };
    let mut status = json!({ "allowed": decision.allowed });
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    status
}

/// The `spec.nodeName` that a review's field selector asks for.
fn selected_node(selector: &Value) -> &str {
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let mut of_node = requirements.filter(|one| one["key"] == "spec.nodeName" && one["operator"] == "In");
    match of_node.next().and_then(|one| one["values"].as_array()).map(Vec::as_slice) {
        Some([one]) => one.as_str().unwrap_or_default(),
        _ => "",
    }
}

/// What the user may do in a namespace, as rules.
fn rules(authority: Access<'_>, user: &UserInfo, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, errors) = authority.rules_for(user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        let value = rule.to_value();
        if !rule.resources.is_empty() {
            resources.push(value);
        } else if !rule.non_resource_urls.is_empty() {
            paths.push(value);
        }
    }
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": !errors.is_empty() });
    if !errors.is_empty() {
        status["evaluationError"] = errors.join(", ").into();
    }
    Ok(status)
}
