//! Coracle's own routes beside Kubernetes': metrics, the images of the node, the members, certificates of users, backups. Who may use them the roles say:
//! by default `system:masters` all of them, and `system:monitoring` the metrics.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use coracle_api::{Reason, Request, Status, UserInfo};
use coracle_apiserver::rbac::check_path;
use coracle_engine::MemberRecord;
use coracle_raft::MemberId;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::{body, method, passed_headers, query, read_body};
use crate::brain::Message;
use crate::images::IMAGE_BYTES_MAX;
use crate::process::Process;

/// Who may take the cluster's keys away in a backup, whatever roles say.
const MASTERS: &str = "system:masters";
/// How long the name of an image or a user may be.
const NAME_MAX: usize = 512;
/// The body of a request for a user's certificate, and for how many days one is signed.
const USER_BYTES_MAX: usize = 64 << 10;
const DAYS_DEFAULT: i64 = 365;
const DAYS_MAX: i64 = 3650;

pub(super) async fn serve(
    process: &Arc<Process>,
    parts: &Parts,
    path: &str,
    user: &UserInfo,
    body: Body,
) -> Result<Response<Body>, Status> {
    let mut request = Request::new(method(&parts.method)?, path, user.clone());
    request.headers = passed_headers(&parts.headers);
    let user = check_path(&process.options, &process.view(), &request)?;
    match (path, &parts.method) {
        ("/metrics", &Method::GET) => {
            let text = process.metrics.text(process.view().revision().0);
            let mut response = coracle_api::Response::text(200, text);
            response.headers =
                vec![("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8".into())];
            Ok(body::plain(response))
        }
        ("/coracle/v1/images", &Method::GET) => Ok(json_response(&json!({ "images": process.images.list()? }))),
        ("/coracle/v1/images", &Method::PUT) => {
            let name = name(parts)?;
            let bytes = read_body(process, body, IMAGE_BYTES_MAX).await?;
            let process = Arc::clone(process);
            let imported = tokio::task::spawn_blocking(move || process.images.import(&name, &bytes)).await;
            let record =
                imported.map_err(|error| Status::internal(format!("the image was not imported: {error}")))??;
            Ok(json_response(&json!(record)))
        }
        ("/coracle/v1/images", &Method::DELETE) => {
            process.images.remove(&name(parts)?)?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/members", &Method::GET) => Ok(json_response(&members(process).await)),
        ("/coracle/v1/members/transfer-leader", &Method::POST) => {
            transfer_lead(process, parts).await?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/users", &Method::POST) => {
            let body = read_body(process, body, USER_BYTES_MAX).await?;
            Ok(json_response(&sign_user(process, &body)?))
        }
        ("/coracle/v1/snapshot", &Method::POST) => {
            let body = read_body(process, body, USER_BYTES_MAX).await?;
            snapshot(process, &user, &body).await
        }
        ("/coracle/v1/shutdown", &Method::POST) => {
            tracing::info!(user = user.name, "asked to stop");
            process.cluster_shutdown.cancel();
            Ok(json_response(&json!({})))
        }
        (
            "/metrics"
            | "/coracle/v1/images"
            | "/coracle/v1/shutdown"
            | "/coracle/v1/snapshot"
            | "/coracle/v1/users"
            | "/coracle/v1/members"
            | "/coracle/v1/members/transfer-leader",
            _,
        ) => Err(Status::method_not_allowed()),
        _ => Err(Status::unknown_path()),
    }
}

/// The list of members, and how those stand that run.
async fn members(process: &Process) -> Value {
    let mut members = Vec::new();
    for record in MemberRecord::all(&process.view()) {
        let status = process.peers.status(record.id).await;
        members.push(json!({ "id": record.id, "name": record.name, "addresses": record.addresses, "status": status }));
    }
    json!({ "members": members })
}

/// Asks that the member of the query leads.
async fn transfer_lead(process: &Process, parts: &Parts) -> Result<(), Status> {
    let pairs = query(parts.uri.query().unwrap_or_default());
    let id = pairs.iter().find(|(key, _)| key == "id").and_then(|(_, value)| value.parse().ok()).map(MemberId);
    let member = id.and_then(|id| MemberRecord::find(&process.view(), id));
    let member = member.ok_or_else(|| Status::bad_request("the query must have the id of a member"))?;
    let sent = process.brain.send(Message::TransferLead(member.id)).await;
    sent.map_err(|_| Status::internal("the member is stopping"))
}

/// A certificate for a user: `user`, `group`, `days` and the certificate `request` that his key signed.
fn sign_user(process: &Process, body: &[u8]) -> Result<Value, Status> {
    let asked: Value = serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?;
    let user = asked["user"].as_str().unwrap_or_default();
    if user.is_empty() || user.len() > NAME_MAX || user.starts_with("system:") {
        let why = format!("a user's name has 1 to {NAME_MAX} bytes and does not begin with \"system:\"");
        return Err(Status::bad_request(why));
    }
    let days = asked["days"].as_i64().unwrap_or(DAYS_DEFAULT);
    if !(1..=DAYS_MAX).contains(&days) {
        return Err(Status::bad_request(format!("a certificate is valid for 1 to {DAYS_MAX} days")));
    }
    let request = asked["request"].as_str().unwrap_or_default();
    let signed = process
        .authority
        .sign_user(request, (user, asked["group"].as_str()), days)
        .map_err(|error| Status::bad_request(format!("the certificate request cannot be signed: {error}")))?;
    tracing::info!(user, group = asked["group"].as_str(), "a certificate was signed");
    Ok(json!({ "certificate": signed.certificate, "expires": signed.expires.rfc3339() }))
}

/// A backup, as a stream: of the cluster's keys, so that it is for those alone who may do everything anyway. The body may have a
/// `passphrase` to seal it with.
async fn snapshot(process: &Arc<Process>, user: &UserInfo, body: &[u8]) -> Result<Response<Body>, Status> {
    if !user.groups.iter().any(|group| group == MASTERS) {
        let message =
            format!("forbidden: User {:?} is not in the group {MASTERS:?}, and a backup has its keys", user.name);
        return Err(Status::failure(403, Some(Reason::Forbidden), message));
    }
    let asked: Value = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?,
    };
    let pieces = process.save(asked["passphrase"].as_str().map(str::to_owned)).await?;
    tracing::info!(user = user.name, "a backup is saved");
    let mut response = Response::new(Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

fn name(parts: &Parts) -> Result<String, Status> {
    let pairs = query(parts.uri.query().unwrap_or_default());
    let name = pairs.into_iter().find(|(key, _)| key == "name").map(|(_, value)| value).unwrap_or_default();
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Status::bad_request(format!("the query must have the image's name, of 1 to {NAME_MAX} bytes")));
    }
    Ok(name)
}

fn json_response(value: &serde_json::Value) -> Response<Body> {
    body::plain(coracle_api::Response::json(200, value.to_string()))
}
