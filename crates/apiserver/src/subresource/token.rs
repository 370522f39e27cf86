//! `serviceaccounts/token`: a token of the account, for the time and the audiences that are asked for.
//!
//! The rules are the TokenRequest API's (<https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>).

use std::sync::Arc;
use std::time::Duration;

use coracle_api::apply::{UpdateOptions, track_update};
use coracle_api::resources::{NODES, PODS, SECRETS};
use coracle_api::{Cause, GroupResource, GroupVersion, Gvk, Object, ObjectKey, Status};
use serde_json::{Value, json};

use crate::answer::value_response;
use crate::callout::{Asked, Callout, Purpose};
use crate::context::{Context, Step};
use crate::decode;
use crate::error::invalid_cause;
use crate::request::options::WriteOptions;
use crate::service_account::{self, Bound, ISSUER};
use crate::verb::create::metadata_of;
use crate::verb::get::existing;

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// How long a token is valid when nothing is said, and the bounds, in seconds.
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
const SECONDS_MAX: i64 = 1 << 32;
/// What kubelets ask for: the token lives longer, so that a client that never reads it again goes on for a year.
const SECONDS_EXTENDED: (i64, i64) = (3607, 365 * 24 * 60 * 60);

/// Answers with the request and, in its status, a signed token.
pub(super) fn create(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = WriteOptions::parse(context.request, "CreateOptions", false)?;
    let mut request = decode::of_kind(context, GROUP, "v1", KIND, options.validation)?;
    let account = existing(context)?;
    track(context, &options, &mut request)?;
    complete(context, &mut request)?;
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
    let bound = bound(context, &spec["boundObjectRef"])?;
    let bound: Vec<Bound<'_>> = bound.iter().map(|(kind, object)| (*kind, &**object)).collect();
    let of_pod = bound.iter().any(|(kind, _)| *kind == "pod");
    let extended = of_pod && seconds == SECONDS_EXTENDED.0 && audiences == [ISSUER];
    let (valid, warn_after) = if extended { (SECONDS_EXTENDED.1, Some(seconds)) } else { (seconds, None) };
    let now = context.now.wall;
    let claims = service_account::claims(account, &bound, &audiences, (now, valid, warn_after), &context.rng.uuid());
    let ends = now + Duration::from_secs(seconds.unsigned_abs());
    request["status"] = json!({ "token": "", "expirationTimestamp": ends.rfc3339() });
    if options.dry_run {
        return Ok(Step::Respond(value_response(context.encoding, 201, &request)));
    }
    let asked = Asked { object: request, encoding: context.encoding, purpose: Purpose::Token };
    Ok(Step::Call(Callout::SignToken { claims }, Box::new(asked)))
}

/// Notes who set which fields, as of any object that is created.
fn track(context: &Context<'_>, options: &WriteOptions, request: &mut Value) -> Result<(), Status> {
    if let Some(map) = request.as_object_mut() {
        // The status is the server's to say.
        map.remove("status");
    }
    let spec = &mut request["spec"];
    spec["expirationSeconds"] = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT).into();
    metadata_of(request);
    let gvk = Gvk::builtin(GROUP, "v1", KIND);
    let update = UpdateOptions {
        manager: &options.manager,
        api_version: &gvk.api_version(),
        subresource: "token",
        time: context.now.wall,
        status_subresource: false,
    };
    track_update(context.registry.schema(), decode::type_of(context.registry, &gvk)?, None, request, &update);
    Ok(())
}

/// Fills in what may be left out, and refuses what is wrong.
fn complete(context: &mut Context<'_>, request: &mut Value) -> Result<(), Status> {
    let (name, namespace) = (context.path.name.as_str(), context.path.namespace.as_str());
    let metadata = metadata_of(request);
    for (field, expected) in [("name", name), ("namespace", namespace)] {
        let stated = metadata.get(field).and_then(Value::as_str).unwrap_or_default();
        if !stated.is_empty() && stated != expected {
            let why = format!("must match the service account {field} if specified");
            let cause = invalid_cause(&format!("metadata.{field}"), &stated.into(), &why);
            return Err(Status::invalid(GROUP, KIND, name, vec![cause]));
        }
        metadata.insert(field.into(), expected.into());
    }
    metadata.insert("creationTimestamp".into(), context.now.wall.rfc3339().into());
    metadata.insert("uid".into(), context.rng.uuid().into());
    let spec = &mut request["spec"];
    if spec.get("boundObjectRef").is_none() {
        spec["boundObjectRef"] = Value::Null;
    }
    if spec["audiences"].as_array().is_none_or(Vec::is_empty) {
        spec["audiences"] = json!([ISSUER]);
    }
    let causes = wrong(spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT));
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, KIND, "", causes)) }
}

fn wrong(seconds: i64) -> Vec<Cause> {
    let why = match seconds {
        ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
        SECONDS_MIN..=SECONDS_MAX => return Vec::new(),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    vec![invalid_cause("spec.expirationSeconds", &seconds.into(), why)]
}

/// What the token lives and dies with: the object that is named, and a pod's node for information.
fn bound(context: &Context<'_>, reference: &Value) -> Result<Vec<(&'static str, Arc<Object>)>, Status> {
    if !reference.is_object() {
        return Ok(Vec::new());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (version, kind, name) = (text("apiVersion"), text("kind"), text("name"));
    let core = GroupVersion::parse(version).is_some_and(|version| version.group.is_empty());
    let (word, resource): (_, GroupResource) = match kind {
        "Pod" if core => ("pod", PODS),
        "Node" if core => ("node", NODES),
        "Secret" if core => ("secret", SECRETS),
        _ => {
            let message = format!("cannot bind token to object of type {version}, Kind={kind}");
            return Err(Status::bad_request(message));
        }
    };
    let namespace = if word == "node" { "" } else { &context.path.namespace };
    let get = |resource: GroupResource, namespace: &str, name: &str| {
        context.view.object(&ObjectKey::new(resource, namespace, name)).cloned()
    };
    let object = get(resource.clone(), namespace, name).ok_or_else(|| Status::not_found(&resource, name))?;
    let mut bound = Vec::new();
    if word == "pod" {
        let spec = &object.value(None)["spec"];
        if spec["serviceAccountName"] != context.path.name {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                context.path.name
            )));
        }
        bound.extend(spec["nodeName"].as_str().and_then(|node| Some(("node", get(NODES, "", node)?))));
    }
    let uid = object.metadata().uid.as_ref().map(ToString::to_string).unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let kinds = GroupResource { group: "".into(), resource: kind.to_owned().into() };
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(&kinds, name, why));
    }
    bound.push((word, object));
    Ok(bound)
}
