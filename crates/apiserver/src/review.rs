//! Reviews: questions about users and their rights, answered at once and never stored.

use coracle_api::apply::{UpdateOptions, track_update};
use coracle_api::{Gvk, Status, UserInfo};
use serde_json::{Value, json};

use crate::answer::value_response;
use crate::authorize::{self, Attributes};
use crate::callout::{Asked, Callout, Purpose};
use crate::context::Step;
use crate::decode;
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
    value["status"] = match &*gvk.kind {
        "SelfSubjectReview" => {
            value["metadata"]["creationTimestamp"] = run.now.wall.rfc3339().into();
            json!({ "userInfo": user_info(user) })
        }
        "SelfSubjectRulesReview" => rules(user),
        "SelfSubjectAccessReview" => access(user, &value["spec"]),
        kind => {
            let subject = subject(&value["spec"]);
            if subject.name.is_empty() && subject.groups.is_empty() {
                let why = "at least one of user or group must be specified";
                let cause = crate::error::required_cause("spec.user", why);
                return Err(Status::invalid("authorization.k8s.io", kind, "", vec![cause]));
            }
            if kind == "LocalSubjectAccessReview" {
                check_namespace(path, &value)?;
            }
            access(&subject, &value["spec"])
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
    let groups = spec["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str().map(str::to_owned));
    UserInfo { name: text("user"), uid: text("uid"), groups: groups.collect(), ..UserInfo::default() }
}

/// Whether the user may do what the spec describes.
fn access(user: &UserInfo, spec: &Value) -> Value {
    let of = |at: &'static str, name: &str| spec[at][name].as_str().unwrap_or_default().to_owned();
    let allowed = if spec["nonResourceAttributes"].is_object() {
        let (verb, path) = (of("nonResourceAttributes", "verb"), of("nonResourceAttributes", "path"));
        authorize::allowed(user, Attributes::Path { verb: &verb, path: &path })
    } else {
        let at = "resourceAttributes";
        let (verb, group, resource) = (of(at, "verb"), of(at, "group"), of(at, "resource"));
        let (subresource, namespace, name) = (of(at, "subresource"), of(at, "namespace"), of(at, "name"));
        authorize::allowed(
            user,
            Attributes::Resource {
                verb: &verb,
                group: &group,
                resource: &resource,
                subresource: &subresource,
                namespace: &namespace,
                name: &name,
            },
        )
    };
    json!({ "allowed": allowed })
}

fn rules(user: &UserInfo) -> Value {
    let (resources, paths) = if authorize::may_do_everything(user) {
        (
            json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]),
            json!([{ "verbs": ["*"], "nonResourceURLs": ["*"] }]),
        )
    } else {
        let known = user.groups.iter().any(|group| group == "system:authenticated");
        let own = json!([
            { "verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"] },
            { "verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"] },
        ]);
        let paths = json!([{ "verbs": ["get"], "nonResourceURLs": authorize::readable_paths(user) }]);
        (if known { own } else { json!([]) }, paths)
    };
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}
