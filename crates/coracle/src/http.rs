//! HTTP around the API server: requests become plain values, answers become responses, watches and tunnels become streams.
//!
//! Nothing is decided here about Kubernetes' semantics: `coracle-apiserver` does that.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use bytes::Bytes;
use coracle_api::{Method, Reason, Request, Status, UserInfo};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::process::{Answer, Process};
use crate::tunnel;

mod admin;
pub(crate) mod body;
pub(crate) mod listen;
mod watch;

/// Headers that the API server may read, beside those that have a field of their own.
const PASSED_HEADERS: [&str; 4] = ["if-none-match", "impersonate-user", "impersonate-group", "impersonate-uid"];

/// Who a request comes from, when the connection rather than a header says so: the in-process client.
#[derive(Clone, Debug)]
pub(crate) struct Trusted(pub(crate) UserInfo);

/// Who a connection's verified client certificate is about.
#[derive(Clone, Debug)]
pub(crate) struct Certified(UserInfo);

/// The router: one handler for everything, as paths are the API server's business.
pub(crate) fn router(process: Arc<Process>) -> axum::Router {
    axum::Router::new().fallback(move |request: http::Request<Body>| {
        let process = Arc::clone(&process);
        async move { handle(process, request).await }
    })
}

async fn handle(process: Arc<Process>, request: http::Request<Body>) -> Response<Body> {
    let started = tokio::time::Instant::now();
    let (mut parts, body) = request.into_parts();
    let method = parts.method.clone();
    let mut response = match serve(&process, &mut parts, body).await {
        Ok(response) => response,
        Err(status) => body::plain(status.into()),
    };
    if let Ok(id) = HeaderValue::from_str(&process.fork_rng().uuid()) {
        response.headers_mut().insert("audit-id", id);
    }
    process.metrics.request(method.as_str(), response.status().as_u16(), started.elapsed());
    tracing::debug!(method = %method, path = parts.uri.path(), status = response.status().as_u16(), "request");
    response
}

async fn serve(process: &Arc<Process>, parts: &mut Parts, body: Body) -> Result<Response<Body>, Status> {
    let authorization = parts.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let user = match (parts.extensions.get::<Trusted>(), parts.extensions.get::<Certified>()) {
        (Some(trusted), _) => trusted.0.clone(),
        (None, Some(certified)) => certified.0.clone(),
        (None, None) => process.authenticator.user(authorization, &process.view(), process.now().wall)?,
    };
    let path = decode_path(parts.uri.path())?;
    if path == "/metrics" || path.starts_with("/coracle/") {
        return admin::serve(process, parts, &path, &user, body).await;
    }
    // What is passed on to a pod is not read here.
    let (body, passed_on) = if tunnel::is_proxy(&path) {
        (Bytes::new(), body)
    } else {
        (read_body(body, process.options.max_body).await?, Body::empty())
    };
    let websocket = WebSocketUpgrade::from_request_parts(parts, &()).await.ok();
    let request = Request {
        method: method(&parts.method)?,
        path,
        query: query(parts.uri.query().unwrap_or_default()),
        content_type: header(&parts.headers, "content-type"),
        accept: accept(&parts.headers),
        user_agent: header(&parts.headers, "user-agent"),
        headers: passed_headers(&parts.headers),
        body: if body.is_empty() { coracle_api::Body::Empty } else { coracle_api::Body::Bytes(body) },
        user,
    };
    let head = request.method == Method::Head;
    match process.answer(request).await {
        Answer::Response(mut response) => {
            if head {
                response.body.clear();
            }
            Ok(body::respond(response, parts))
        }
        Answer::List(listing) if head => Ok(body::plain(listing.head().clone())),
        Answer::List(listing) => Ok(body::list(*listing, parts)),
        Answer::Watch(watcher) => Ok(watch::respond(process, watcher)),
        Answer::Tunnel(tunnel) => tunnel::respond(process, tunnel, websocket, parts, passed_on).await,
    }
}

pub(crate) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Status> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            let message = format!("Request entity too large: limit is {limit}");
            Err(Status::failure(413, Some(Reason::RequestEntityTooLarge), message))
        }
        Err(error) => Err(Status::bad_request(format!("the body of the request cannot be read: {error}"))),
    }
}

fn method(method: &http::Method) -> Result<Method, Status> {
    Ok(match *method {
        http::Method::GET => Method::Get,
        http::Method::HEAD => Method::Head,
        http::Method::OPTIONS => Method::Options,
        http::Method::POST => Method::Post,
        http::Method::PUT => Method::Put,
        http::Method::PATCH => Method::Patch,
        http::Method::DELETE => Method::Delete,
        _ => return Err(Status::method_not_allowed()),
    })
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Several `Accept` lines count as one.
fn accept(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> =
        headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if lines.is_empty() { None } else { Some(lines.join(",")) }
}

fn passed_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut passed = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if (PASSED_HEADERS.contains(&name) || name.starts_with("impersonate-extra-"))
            && let Ok(value) = value.to_str()
        {
            passed.push((name.to_owned(), value.to_owned()));
        }
    }
    passed
}

fn decode_path(path: &str) -> Result<String, Status> {
    percent_decode(path, false).ok_or_else(|| Status::bad_request("the path is not percent-encoded UTF-8"))
}

/// The pairs of a query; a pair that cannot be decoded is left out, as Go's parser does.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decode(name, true)?, percent_decode(value, true)?))
        })
        .collect()
}

fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push((high * 16 + low) as u8);
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_paths_are_decoded_as_go_decodes_them() {
        let pairs = query("labelSelector=app%3Dweb%2Ctier+in+(a)&watch&bad=%zz");
        assert_eq!(pairs, [("labelSelector".into(), "app=web,tier in (a)".into()), ("watch".into(), String::new())]);
        assert_eq!(decode_path("/api/v1/a%2Bb+c").unwrap(), "/api/v1/a+b+c");
    }
}
