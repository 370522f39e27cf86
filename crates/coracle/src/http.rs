//! HTTP around the API server: requests become plain values, answers become responses, watches and tunnels become streams.
//!
//! Nothing is decided here about Kubernetes' semantics: `coracle-apiserver` does that.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, WebSocketUpgrade};
use bytes::Bytes;
use coracle_api::{Method, Reason, Request, Status, UserInfo};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::join::{CA_PATH, JOIN_PATH};
use crate::process::{Answer, Process};
use crate::tunnel;
use audited::Audited;
use stall::{Movement, Moving};

mod admin;
mod audited;
pub(crate) mod body;
pub(crate) mod fair;
pub(crate) mod listen;
mod stall;
mod watch;

/// Headers that the API server may read, beside those that have a field of their own.
const PASSED_HEADERS: [&str; 4] = ["if-none-match", "impersonate-user", "impersonate-group", "impersonate-uid"];

/// Who a request comes from, when the connection rather than a header says so: the in-process client.
#[derive(Clone, Debug)]
pub(crate) struct Trusted(pub(crate) UserInfo);

/// Who a connection's verified client certificate is about.
#[derive(Clone, Debug)]
pub(crate) struct Certified(UserInfo);

/// A request that came over a socket: what clients may take is counted, and how its connection moves is watched.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    movement: Arc<Movement>,
    /// Where it came from.
    from: IpAddr,
}

/// Paths that are answered however much is asked for: others watch the member by them.
const ALWAYS_ANSWERED: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

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
    let outside = parts.extensions.get::<Outside>().cloned();
    let id = process.fork_rng().uuid();
    let mut response = match serve(&process, &mut parts, body, &id).await {
        Ok(response) => response,
        Err(status) => body::plain(status.into()),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("audit-id", id);
    }
    process.metrics.request(method.as_str(), response.status().as_u16(), started.elapsed());
    tracing::debug!(method = %method, path = parts.uri.path(), status = response.status().as_u16(), "request");
    let Some(Outside { movement, .. }) = outside else { return response };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        movement.become_tunnel();
        return response;
    }
    response.map(|body| Body::new(Moving::new(body, movement)))
}

async fn serve(
    process: &Arc<Process>,
    parts: &mut Parts,
    body: Body,
    audit_id: &str,
) -> Result<Response<Body>, Status> {
    if let CA_PATH | JOIN_PATH = parts.uri.path() {
        let nobody = UserInfo::anonymous();
        let audited = Audited::begin(process, parts, audit_id, parts.uri.path(), &nobody).await;
        let answered = match process.requests.take(&nobody.name).await {
            Ok(_turn) => admin::let_in(process, parts, body).await,
            Err(status) => Err(status),
        };
        return audited.ended(answered).await;
    }
    let authorization = parts.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let user = match (parts.extensions.get::<Trusted>(), parts.extensions.get::<Certified>()) {
        (Some(trusted), _) => Ok(trusted.0.clone()),
        (None, Some(certified)) => Ok(certified.0.clone()),
        (None, None) => process.authenticator.user(authorization, &process.view(), process.now().wall),
    };
    let user = match user {
        Ok(user) => user,
        Err(status) => return Err(audited::sent_away(process, parts, audit_id, status).await),
    };
    let path = decode_path(parts.uri.path())?;
    let mut audited = Audited::begin(process, parts, audit_id, &path, &user).await;
    let answered = answer(process, parts, (user, path), body, &mut audited).await;
    audited.ended(answered).await
}

async fn answer(
    process: &Arc<Process>,
    parts: &mut Parts,
    (user, path): (UserInfo, String),
    body: Body,
    audited: &mut Audited,
) -> Result<Response<Body>, Status> {
    let counted = parts.extensions.get::<Outside>().is_some() && !is_always_answered(&path);
    let turn = if counted { Some(process.requests.take(&user.name).await?) } else { None };
    let client = user.name.clone();
    if path == "/metrics" || path.starts_with("/coracle/") {
        return admin::serve(process, parts, &path, &user, body).await;
    }
    // What is passed on to a pod is not read here.
    let (body, passed_on) = if tunnel::is_proxy(&path) {
        (Bytes::new(), body)
    } else {
        (read_body(process, body, process.options.max_body).await?, Body::empty())
    };
    let request = Request {
        method: method(&parts.method)?,
        path,
        query: query(parts.uri.query().unwrap_or_default()),
        content_type: header(&parts.headers, "content-type"),
        accept: accept(&parts.headers),
        user_agent: header(&parts.headers, "user-agent"),
        headers: passed_headers(&parts.headers),
        body: if body.is_empty() { coracle_api::Body::Empty } else { coracle_api::Body::Bytes(body) },
        user: user.clone(),
    };
    audited.arrived(&request);
    let head = request.method == Method::Head;
    let answer = match process.answer(request).await {
        Answer::List(listing) if audited.keeps_answers() => Answer::Response(listing.into_response()),
        answer => answer,
    };
    // What follows goes at the client's own pace.
    drop(turn);
    let place = || counted.then(|| process.requests.stream(&client)).transpose();
    match answer {
        Answer::Response(mut response) => {
            audited.answered(&response);
            if head {
                response.body.clear();
            }
            Ok(body::respond(response, parts))
        }
        Answer::List(listing) if head => Ok(body::plain(listing.head().clone())),
        Answer::List(listing) => Ok(body::list(*listing, parts)),
        Answer::Watch(watcher) => {
            audited.streams();
            Ok(watch::respond(process, watcher, place()?))
        }
        Answer::Tunnel(tunnel) => {
            audited.streams();
            let place = place()?;
            let response = if let Some((network, member)) = tunnel::elsewhere(process, &tunnel) {
                network.pass_on(member, &user, parts, passed_on).await?
            } else {
                let websocket = WebSocketUpgrade::from_request_parts(parts, &()).await.ok();
                tunnel::respond(process, tunnel, websocket, (parts, place.clone()), passed_on).await?
            };
            Ok(response.map(|body| body::holding(body, place)))
        }
    }
}

/// The whole body of a request, which has to come within the time that a client may stall.
pub(crate) async fn read_body(process: &Process, body: Body, limit: usize) -> Result<Bytes, Status> {
    let mut body = Limited::new(body, limit);
    let (mut pieces, mut began) = (Vec::new(), tokio::time::Instant::now());
    let stall = process.requests.limits().stall;
    loop {
        let late = |_| Status::failure(408, Some(Reason::Timeout), "the body of the request did not come in time");
        match tokio::time::timeout_at(began + stall, body.frame()).await.map_err(late)? {
            None => return Ok(joined(pieces)),
            Some(Ok(frame)) => pieces.extend(frame.into_data().ok()),
            Some(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                let message = format!("Request entity too large: limit is {limit}");
                return Err(Status::failure(413, Some(Reason::RequestEntityTooLarge), message));
            }
            Some(Err(error)) => {
                return Err(Status::bad_request(format!("the body of the request cannot be read: {error}")));
            }
        }
        // An image may take its time, as long as it goes on.
        if limit > process.options.max_body {
            began = tokio::time::Instant::now();
        }
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() }
}

/// Whether a path is one of health or version.
fn is_always_answered(path: &str) -> bool {
    let below = |root: &&str| path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ALWAYS_ANSWERED.iter().any(below)
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
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{Cluster, Limits};

    /// A cluster's router as a user reaches it over a socket.
    fn outside(cluster: &Cluster, user: &str) -> impl Fn(&str) -> BoxFuture<'static, Response<Body>> + use<> {
        let router = router(cluster.process());
        let trusted = Trusted(UserInfo::admin(user));
        move |uri| {
            let mut request = http::Request::get(uri).body(Body::empty()).unwrap();
            request.extensions_mut().insert(trusted.clone());
            request.extensions_mut().insert(Outside { movement: Arc::default(), from: [192, 0, 2, 1].into() });
            Box::pin(router.clone().oneshot(request).map(Result::unwrap))
        }
    }

    fn narrow() -> Limits {
        Limits { requests: 4, requests_per_client: 3, waiting_per_client: 5_000, ..Limits::default() }
    }

    #[tokio::test]
    async fn a_client_that_floods_does_not_slow_another() {
        let cluster = Cluster::builder().nodes(0).limits(narrow()).start().await.unwrap();
        let flood = outside(&cluster, "flood");
        let done = Arc::new(AtomicUsize::new(0));
        let flooding: Vec<_> = (0..4_000)
            .map(|_| {
                let (answer, done) = (flood("/api/v1/configmaps"), Arc::clone(&done));
                tokio::spawn(async move {
                    let status = answer.await.status();
                    done.fetch_add(1, Ordering::Relaxed);
                    status
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let calm = outside(&cluster, "calm");
        let before = done.load(Ordering::Relaxed);
        for _ in 0..20 {
            assert_eq!(calm("/api/v1/namespaces/default").await.status(), 200);
        }
        let meanwhile = done.load(Ordering::Relaxed) - before;
        assert!(meanwhile < 2_000, "{meanwhile} of the flood went before 20 requests of somebody else");
        for answer in flooding {
            assert_eq!(answer.await.unwrap(), 200);
        }
        cluster.shutdown().await;
    }

    #[tokio::test]
    async fn a_client_beyond_its_bounds_is_told_when_to_try_again_and_health_is_always_told() {
        let limits = Limits { rate_per_client: 1, streams_per_client: 1, ..narrow() };
        let cluster = Cluster::builder().nodes(0).limits(limits).start().await.unwrap();
        let ask = outside(&cluster, "jane");
        let watch = ask("/api/v1/configmaps?watch=1").await;
        let second = ask("/api/v1/configmaps?watch=1").await;
        assert_eq!((watch.status().as_u16(), second.status().as_u16()), (200, 429));
        let refused = ask("/api/v1/configmaps").await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["retry-after"]),
            (429, &HeaderValue::from_static("1"))
        );
        for path in ["/readyz", "/livez/ping", "/version"] {
            assert_eq!(ask(path).await.status(), 200, "{path}");
        }
        drop(watch);
        let other = outside(&cluster, "joe");
        assert_eq!(other("/api/v1/configmaps?watch=1").await.status(), 200);
        let zero = Cluster::builder().limits(Limits { streams: 0, ..Limits::default() }).start().await.unwrap_err();
        assert_eq!(zero.to_string(), "a limit of zero would shut everybody out");
        cluster.shutdown().await;
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let limits = Limits { stall: std::time::Duration::from_millis(50), ..narrow() };
        let cluster = Cluster::builder().nodes(0).limits(limits).start().await.unwrap();
        let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let refused = read_body(&cluster.process(), body, 100).await.unwrap_err();
        assert_eq!(refused.code, 408);
        cluster.shutdown().await;
    }

    #[test]
    fn queries_and_paths_are_decoded_as_go_decodes_them() {
        let pairs = query("labelSelector=app%3Dweb%2Ctier+in+(a)&watch&bad=%zz");
        assert_eq!(pairs, [("labelSelector".into(), "app=web,tier in (a)".into()), ("watch".into(), String::new())]);
        assert_eq!(decode_path("/api/v1/a%2Bb+c").unwrap(), "/api/v1/a+b+c");
    }
}
