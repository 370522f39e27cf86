//! Coracle's own routes beside Kubernetes': metrics, the images of the node, the members, certificates of users, backups. Who may use them the roles say:
//! by default `system:masters` all of them, and `system:monitoring` the metrics.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use coracle_api::{Reason, Request, Status, UserInfo};
use coracle_apiserver::rbac::check_path;
use coracle_engine::{ClusterRecord, MemberRecord, Wants};
use coracle_raft::MemberId;
use coracle_store::View;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use serde_json::{Value, json};

use super::{body, method, passed_headers, query, read_body};
use crate::brain::Message;
use crate::images::IMAGE_BYTES_MAX;
use crate::join::{self, CA_PATH, JOIN_PATH};
use crate::process::{Order, Process};
use crate::settings;

/// Who may take the cluster's keys away in a backup, whatever roles say.
const MASTERS: &str = "system:masters";
/// How long the name of an image or a user may be.
const NAME_MAX: usize = 512;
/// How often a change of a member is tried, where others change it at the same time.
const CHANGE_TRIES: u32 = 5;
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
        ("/coracle/v1/images", &Method::GET) if parts.uri.query().is_some() => {
            let (name, process) = (name(parts)?, Arc::clone(process));
            let found = tokio::task::spawn_blocking(move || process.images.inspect(&name)).await;
            let found = found.map_err(|error| Status::internal(format!("the image was not read: {error}")))??;
            Ok(json_response(&json!(found)))
        }
        ("/coracle/v1/images", &Method::GET) => {
            let mut images = process.images.list()?;
            images.extend(process.images.list_containers().await);
            Ok(json_response(&json!({ "images": images })))
        }
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
        ("/coracle/v1/members/remove", &Method::POST) => {
            change_member(process, parts, Wants::Removed).await?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/members/promote", &Method::POST) => {
            change_member(process, parts, Wants::Voter).await?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/members/stop", &Method::POST) => stop_member(process, parts, &user).await,
        ("/coracle/v1/members/start", &Method::POST) => {
            let member = named_member(&process.view(), parts)?;
            order(process, Order::Start(member.id), &member)?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/tokens", &Method::POST) => {
            if process.gate.is_none() {
                let message = "no other machine can join this cluster: it is in memory, or its members share a process";
                return Err(Status::bad_request(message));
            }
            let body = read_body(process, body, USER_BYTES_MAX).await?;
            let asked = serde_json::from_slice(&body).map_err(|error| Status::bad_request(error.to_string()))?;
            Ok(json_response(&join::create(process, &asked).await?))
        }
        ("/coracle/v1/tokens", &Method::GET) => Ok(json_response(&join::list(process))),
        ("/coracle/v1/tokens", &Method::DELETE) => {
            let pairs = query(parts.uri.query().unwrap_or_default());
            let id = pairs.iter().find(|(key, _)| key == "id").map_or("", |(_, value)| value);
            join::revoke(process, id).await?;
            Ok(json_response(&json!({})))
        }
        ("/coracle/v1/settings", &Method::GET) => Ok(json_response(&json!(settings::of(&process.view())))),
        ("/coracle/v1/settings", &Method::PUT) => {
            let body = read_body(process, body, USER_BYTES_MAX).await?;
            Ok(json_response(&json!(settings::change(process, &body).await?)))
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
            stop_soon(process);
            Ok(json_response(&json!({})))
        }
        (
            "/metrics"
            | "/coracle/v1/images"
            | "/coracle/v1/shutdown"
            | "/coracle/v1/snapshot"
            | "/coracle/v1/users"
            | "/coracle/v1/members"
            | "/coracle/v1/members/remove"
            | "/coracle/v1/members/promote"
            | "/coracle/v1/members/transfer-leader"
            | "/coracle/v1/members/stop"
            | "/coracle/v1/members/start"
            | "/coracle/v1/settings"
            | "/coracle/v1/tokens",
            _,
        ) => Err(Status::method_not_allowed()),
        _ => Err(Status::unknown_path()),
    }
}

/// What a machine asks that wants to join: which cluster this is, and to be let in. Everybody may ask.
pub(super) async fn let_in(process: &Process, parts: &Parts, body: Body) -> Result<Response<Body>, Status> {
    match (parts.uri.path(), &parts.method) {
        (CA_PATH, &Method::GET) => {
            let mut response = coracle_api::Response::text(200, process.authority.certificate.clone());
            response.headers = vec![("content-type", "application/pem-certificate-chain".into())];
            Ok(body::plain(response))
        }
        (JOIN_PATH, &Method::POST) => {
            let Some(gate) = &process.gate else {
                let message =
                    "this cluster cannot have other machines: it is in memory, or its members share a process";
                return Err(Status::bad_request(message));
            };
            let asked = read_body(process, body, USER_BYTES_MAX).await?;
            let admission = gate.admit(process, &asked).await?;
            Ok(json_response(&json!(admission)))
        }
        _ => Err(Status::method_not_allowed()),
    }
}

/// The list of members, and how those stand that run.
async fn members(process: &Process) -> Value {
    let view = process.view();
    let cluster = ClusterRecord::of(&view);
    let records = MemberRecord::all(&view).into_iter().filter(stays);
    let members = records.map(|record| {
        let level = cluster.levels.get(&record.id).copied();
        member(process, record, level)
    });
    json!({ "members": futures_util::future::join_all(members).await, "featureLevel": cluster.feature_level })
}

async fn member(process: &Process, record: MemberRecord, level: Option<u32>) -> Value {
    let report = process.peers.report(record.id).await;
    let (status, version) = report.map_or((None, None), |report| (Some(report.status), Some(report.version)));
    json!({
        "id": record.id, "name": record.name, "addresses": record.addresses, "wants": record.wants,
        "status": status, "version": version, "featureLevel": level,
    })
}

/// Changes what a member is to be. The leader brings the group to it.
async fn change_member(process: &Process, parts: &Parts, wants: Wants) -> Result<(), Status> {
    for _ in 0..CHANGE_TRIES {
        let view = process.view();
        let mut record = named_member(&view, parts)?;
        if wants == Wants::Removed && MemberRecord::all(&view).iter().filter(|other| stays(other)).count() == 1 {
            return Err(Status::bad_request("the last member of a cluster cannot be removed"));
        }
        record.wants = wants;
        let gone = || Status::bad_request(format!("member {} was removed already", record.id.0));
        let transaction = record.update(&view).ok_or_else(gone)?;
        if process.propose(transaction).await?.is_ok() {
            tracing::info!(member = record.id.0, ?wants, "a member is to be something else");
            if wants == Wants::Removed {
                forget_node(process, &record.name).await?;
            }
            return Ok(());
        }
    }
    Err(Status::failure(409, Some(Reason::Conflict), "the member is changed by others at the same time; try again"))
}

/// Stops this process once another member leads, so that whoever asked has his answer first.
fn stop_soon(process: &Arc<Process>) {
    let process = Arc::clone(process);
    tokio::spawn(async move {
        process.hand_over().await;
        process.cluster_shutdown.cancel();
    });
}

/// Stops a member: of this process by whoever started it, on another machine by asking it to shut down.
async fn stop_member(process: &Arc<Process>, parts: &Parts, user: &UserInfo) -> Result<Response<Body>, Status> {
    let member = named_member(&process.view(), parts)?;
    let Some(network) = process.peers.network() else {
        order(process, Order::Stop(member.id), &member)?;
        return Ok(json_response(&json!({})));
    };
    if member.id == network.me {
        stop_soon(process);
        return Ok(json_response(&json!({})));
    }
    let shutdown = http::Request::post("/coracle/v1/shutdown").body(());
    let (mut parts, ()) = shutdown.map_err(|error| Status::internal(error.to_string()))?.into_parts();
    network.pass_on(member.id, user, &mut parts, Body::empty()).await
}

/// Has the program do something with a member of its own.
fn order(process: &Process, order: Order, member: &MemberRecord) -> Result<(), Status> {
    if process.peers.network().is_some() {
        let message = format!("member {} is started where its data is: `coracle up` on {}", member.id.0, member.name);
        return Err(Status::bad_request(message));
    }
    process.orders.try_send(order).map_err(|_| Status::bad_request("the program does not stop or start its members"))
}

fn stays(record: &MemberRecord) -> bool {
    record.wants != Wants::Removed
}

/// Who is removed has no node any more: its pods are replaced.
async fn forget_node(process: &Process, name: &str) -> Result<(), Status> {
    let user = UserInfo::admin("system:coracle:members");
    let request = Request::new(coracle_api::Method::Delete, format!("/api/v1/nodes/{name}"), user);
    match process.respond(request).await.failure() {
        Some(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

fn named_member(view: &View, parts: &Parts) -> Result<MemberRecord, Status> {
    let pairs = query(parts.uri.query().unwrap_or_default());
    let id = pairs.iter().find(|(key, _)| key == "id").and_then(|(_, value)| value.parse().ok()).map(MemberId);
    let member = id.and_then(|id| MemberRecord::find(view, id)).filter(stays);
    member.ok_or_else(|| Status::bad_request("there is no such member; `coracle members` shows those that there are"))
}

/// Asks that the member of the query leads.
async fn transfer_lead(process: &Process, parts: &Parts) -> Result<(), Status> {
    let member = named_member(&process.view(), parts)?;
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
