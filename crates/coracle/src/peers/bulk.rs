//! What is too much for the control connection goes over connections of its own: states, requests that another member has to answer
//! because the pod is there, connections to pods, and how a member stands.
//!
//! It is HTTP/1.1, because requests are passed on as they came. The other side is a member, so it is believed who asks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use coracle_api::{Status, Uid, UserInfo};
use coracle_apiserver::NodeUsage;
use coracle_node::runtime::{ByteStream, OpenError};
use coracle_raft::{MemberId, Message as RaftMessage};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming as IncomingBody;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional;
use tokio::time::timeout;
use tokio_util::compat::{FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};
use tower::ServiceExt as _;

use super::credentials::BULK;
use super::network::{Accepted, Network, late};
use super::passage::{self, Passage};
use super::snapshot::{PIECE_BYTES, StateId};
use super::{MemberReport, SentSnapshot};
use crate::brain::Message;
use crate::dialer::{PodPort, Protocol, WhileEnding};
use crate::http::{Trusted, body as http_body_of, read_body};

/// Who asks, of a request that is passed on.
const USER: &str = "coracle-user";
/// How long the head of a request may take, and an answer that needs no pod.
const HEAD_WAIT: Duration = Duration::from_secs(10);
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How often a state is begun again where its connection broke.
const TRIES: u32 = 10;
const RETRY: Duration = Duration::from_millis(500);
/// Bodies of the own routes, other than pieces.
const BODY_BYTES_MAX: usize = 1 << 20;
/// What a member's nodes use: 10,000 containers take less than two of these.
const USAGE_BYTES_MAX: usize = 8 << 20;
/// What a connection to a pod turns into: bytes both ways, or what [`passage`] says. A member of an earlier version knows the first alone.
const TUNNEL: &str = "coracle-tunnel";
const PASSAGE: &str = "coracle-passage";

/// A user, as another member is told of him.
#[derive(Deserialize, Serialize)]
struct PassedUser {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// A piece of a state, or the question how much of it is there.
#[derive(Deserialize, Serialize)]
struct Piece {
    state: StateId,
    offset: u64,
}

/// The end of a state.
#[derive(Deserialize, Serialize)]
struct Complete {
    state: StateId,
    /// What consensus is told, base64.
    message: String,
}

/// A port of a pod.
#[derive(Deserialize, Serialize)]
struct Dial {
    node: String,
    pod: String,
    port: u16,
    /// A member of an earlier version says nothing, and means TCP.
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    while_ending: WhileEnding,
    #[serde(default)]
    from: Option<SocketAddr>,
}

impl Network {
    /// A connection for one request after another.
    async fn bulk(&self, to: MemberId) -> io::Result<SendRequest<Body>> {
        let stream = self.connect(to, BULK).await?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        self.runtime.spawn(connection.with_upgrades());
        Ok(sender)
    }

    /// How a member stands; `None` when it does not answer.
    pub(super) async fn report(&self, to: MemberId) -> Option<MemberReport> {
        let asked = async {
            let mut sender = self.bulk(to).await.ok()?;
            let response = sender.send_request(request(Method::GET, "/status", Body::empty())).await.ok()?;
            let bytes = whole(response.into_body()).await.ok()?;
            serde_json::from_slice(&bytes).ok()
        };
        timeout(super::STATUS_WAIT, asked).await.ok()?
    }

    /// What the nodes of a member use; nothing when it does not answer.
    pub(super) async fn usage(&self, of: MemberId) -> Vec<NodeUsage> {
        let asked = async {
            let mut sender = self.bulk(of).await.ok()?;
            let response = sender.send_request(request(Method::GET, "/usage", Body::empty())).await.ok()?;
            let bytes = Limited::new(response.into_body(), USAGE_BYTES_MAX).collect().await.ok()?.to_bytes();
            serde_json::from_slice(&bytes).ok()
        };
        timeout(super::STATUS_WAIT, asked).await.ok().flatten().unwrap_or_default()
    }

    /// Sends a whole state, and begins again where a connection broke; false when it did not get there.
    pub(super) async fn send_state(&self, to: MemberId, snapshot: SentSnapshot) -> bool {
        let state = StateId::of(snapshot.mark, &snapshot.state);
        for attempt in 1..=TRIES {
            match self.try_state(to, &state, &snapshot).await {
                Ok(()) => return true,
                Err(error) => {
                    tracing::debug!(?to, attempt, %error, "a state did not get to another member");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        tracing::warn!(?to, index = state.mark.index, "a state did not get to another member");
        false
    }

    async fn try_state(&self, to: MemberId, state: &StateId, snapshot: &SentSnapshot) -> io::Result<()> {
        let mut sender = self.bulk(to).await?;
        let mut have = None;
        loop {
            let offset = have.unwrap_or(0);
            let rest = usize::try_from(offset).unwrap_or(usize::MAX).min(snapshot.state.len());
            let end = snapshot.state.len().min(rest + PIECE_BYTES);
            // The first question brings nothing: some of it may be there.
            let bytes = if have.is_some() { snapshot.state.slice(rest..end) } else { Bytes::new() };
            let piece = serde_json::to_string(&Piece { state: state.clone(), offset })?;
            let mut put = request(Method::PUT, "/state", Body::from(bytes));
            put.headers_mut().insert("coracle-piece", HeaderValue::from_str(&piece).map_err(io::Error::other)?);
            let now: u64 = answered(&mut sender, put).await?;
            if now >= state.total {
                break;
            }
            if have.is_some() && now <= offset {
                return Err(io::Error::other("the other member does not take it"));
            }
            have = Some(now);
        }
        let complete = Complete { state: state.clone(), message: STANDARD.encode(snapshot.message.encode()) };
        let end = request(Method::POST, "/state", Body::from(serde_json::to_vec(&complete)?));
        answered(&mut sender, end).await
    }

    /// A connection to a port of a pod that a node of another member runs.
    pub(super) async fn dial(&self, to: MemberId, target: &PodPort) -> Result<ByteStream, OpenError> {
        let PodPort { node, pod, port, protocol, while_ending, from } = target.clone();
        let failed = |error: &dyn std::fmt::Display| OpenError(format!("node {node:?} is not reachable: {error}"));
        let dial = Dial { node: node.clone(), pod: pod.to_string(), port, protocol, while_ending, from };
        let dialing = async {
            let mut sender = self.bulk(to).await.map_err(|error| failed(&error))?;
            let body = serde_json::to_vec(&dial).unwrap_or_default();
            let mut request = request(Method::POST, "/dial", Body::from(body));
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(PASSAGE));
            let mut response = sender.send_request(request).await.map_err(|error| failed(&error))?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let why = whole(response.into_body()).await.unwrap_or_default();
                return Err(OpenError(String::from_utf8_lossy(&why).into_owned()));
            }
            let is_passage = response.headers().get(header::UPGRADE).is_some_and(|value| value == PASSAGE);
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(|error| failed(&error))?;
            let stream = TokioIo::new(upgraded);
            Ok::<ByteStream, _>(if is_passage { Box::pin(Passage::new(stream)) } else { Box::pin(stream.compat()) })
        };
        timeout(ANSWER_WAIT, dialing).await.map_err(|_| failed(&late()))?
    }

    /// Has a member answer a request of a user as if it had come there.
    pub(crate) async fn pass_on(
        &self,
        to: MemberId,
        user: &UserInfo,
        parts: &mut Parts,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let unreachable = |error: &dyn std::fmt::Display| {
            let message = format!("the pod's node cannot be asked, it belongs to member {}: {error}", to.0);
            Status::failure(502, Some(coracle_api::Reason::InternalError), message)
        };
        let mut sender = self.bulk(to).await.map_err(|error| unreachable(&error))?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| Status::bad_request("the path is not valid"))?;
        request.headers_mut().clone_from(&parts.headers);
        // The credentials were looked at here, and what the body was is said anew.
        for name in [header::AUTHORIZATION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            request.headers_mut().remove(name);
        }
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("kubernetes"));
        request.headers_mut().insert(USER, passed_user(user)?);
        let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let there = hyper::upgrade::on(&mut response);
            if let Some(here) = upgrade {
                self.runtime.spawn(async move {
                    if let (Ok(here), Ok(there)) = (here.await, there.await) {
                        let _ = copy_bidirectional(&mut TokioIo::new(here), &mut TokioIo::new(there)).await;
                    }
                });
            }
            return Ok(response.map(|_| Body::empty()));
        }
        let (mut head, body) = response.into_parts();
        // What is said of this connection is not for the client's.
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::DATE] {
            head.headers.remove(name);
        }
        head.version = http::Version::default();
        let connected = Connected { _sender: sender, body };
        Ok(Response::from_parts(head, Body::new(connected)))
    }
}

/// The body of an answer, and the connection that it comes over.
struct Connected {
    _sender: SendRequest<Body>,
    body: IncomingBody,
}

impl http_body::Body for Connected {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, hyper::Error>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn request(method: Method, path: &str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap_or_default();
    request.headers_mut().insert(header::HOST, HeaderValue::from_static("member"));
    request
}

/// The value that a request is answered with.
async fn answered<T: serde::de::DeserializeOwned>(
    sender: &mut SendRequest<Body>,
    request: Request<Body>,
) -> io::Result<T> {
    let asked = async {
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let code = response.status();
        let bytes = whole(response.into_body()).await?;
        if !code.is_success() {
            return Err(io::Error::other(format!("{code}: {}", String::from_utf8_lossy(&bytes))));
        }
        serde_json::from_slice(&bytes).map_err(io::Error::from)
    };
    timeout(ANSWER_WAIT, asked).await.map_err(|_| late())?
}

/// A short body.
async fn whole(body: IncomingBody) -> io::Result<Bytes> {
    Ok(Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes())
}

fn passed_user(user: &UserInfo) -> Result<HeaderValue, Status> {
    let UserInfo { name, uid, groups, extra } = user.clone();
    let text = serde_json::to_vec(&PassedUser { name, uid, groups, extra }).unwrap_or_default();
    HeaderValue::from_str(&STANDARD.encode(text)).map_err(|error| Status::internal(error.to_string()))
}

fn user_of(value: &HeaderValue) -> Option<UserInfo> {
    let text = STANDARD.decode(value.as_bytes()).ok()?;
    let PassedUser { name, uid, groups, extra } = serde_json::from_slice(&text).ok()?;
    Some(UserInfo { name, uid, groups, extra })
}

/// Answers a member, until its connection ends.
pub(super) async fn serve(network: &Arc<Network>, from: MemberId, stream: Accepted) {
    let service = hyper::service::service_fn(|request: Request<IncomingBody>| {
        let network = Arc::clone(network);
        async move {
            let answered = answer(&network, from, request.map(Body::new)).await;
            Ok::<_, std::convert::Infallible>(answered.unwrap_or_else(|(code, why)| text(code, why)))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let ending = async {
        match network.process() {
            Some(process) => process.shutdown.clone().cancelled_owned().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(member = from.0, %error, "a connection of another member ended");
        },
        () = ending => {}
    }
}

type Answered = Result<Response<Body>, (StatusCode, String)>;

async fn answer(network: &Arc<Network>, from: MemberId, mut request: Request<Body>) -> Answered {
    let process = network.process().ok_or((StatusCode::SERVICE_UNAVAILABLE, "it is starting".to_owned()))?;
    if let Some(user) = request.headers_mut().remove(USER) {
        let user = user_of(&user).ok_or_else(|| bad("who asks cannot be read"))?;
        request.extensions_mut().insert(Trusted(user));
        let router = crate::http::router(process);
        return Ok(router.oneshot(request).await.unwrap_or_else(|never| match never {}));
    }
    match (request.method().clone(), request.uri().path()) {
        (Method::GET, "/status") => {
            let (reply, status) = tokio::sync::oneshot::channel();
            let _ = process.brain.send(Message::Status(reply)).await;
            let status = status.await.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, "it is stopping".to_owned()))?;
            Ok(json(&MemberReport { status, version: env!("CARGO_PKG_VERSION").into() }))
        }
        (Method::GET, "/usage") => Ok(json(&process.nodes.usage.all())),
        (Method::PUT, "/state") => {
            let head = request.headers().get("coracle-piece").and_then(|value| value.to_str().ok()).unwrap_or_default();
            let Piece { state, offset } = serde_json::from_str(head).map_err(bad)?;
            sound(&state)?;
            let piece =
                read_body(&process, request.into_body(), PIECE_BYTES).await.map_err(|status| bad(status.message))?;
            let network = Arc::clone(network);
            blocking(move || network.incoming.add(from, &state, offset, &piece)).await
        }
        (Method::POST, "/state") => {
            let body =
                read_body(&process, request.into_body(), BODY_BYTES_MAX).await.map_err(|status| bad(status.message))?;
            let Complete { state: id, message } = serde_json::from_slice(&body).map_err(bad)?;
            sound(&id)?;
            let message = STANDARD.decode(message).map_err(bad)?;
            let message = RaftMessage::decode(&message).map_err(bad)?;
            if message.snapshot_mark() != Some(id.mark) {
                return Err(bad("the message is about another state"));
            }
            let (incoming, mark) = (Arc::clone(network), id.mark);
            let state = tokio::task::spawn_blocking(move || incoming.incoming.finish(from, &id)).await;
            let state = state.map_err(failed)?.map_err(failed)?;
            let snapshot = SentSnapshot { from, message, mark, state };
            process.brain.send(Message::Snapshot(Box::new(snapshot))).await.map_err(failed)?;
            Ok(json(&()))
        }
        (Method::POST, "/dial") => {
            let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or_else(|| bad("no upgrade"))?;
            let is_passage = request.headers().get(header::UPGRADE).is_some_and(|value| value == PASSAGE);
            let body =
                read_body(&process, request.into_body(), BODY_BYTES_MAX).await.map_err(|status| bad(status.message))?;
            let Dial { node, pod, port, protocol, while_ending, from: client } =
                serde_json::from_slice(&body).map_err(bad)?;
            let target = PodPort { node, pod: Uid::from(pod.as_str()), port, protocol, while_ending, from: client };
            let opened = crate::dialer::dial_pod_here(&process, &target).await;
            let stream = opened.map_err(|error| (StatusCode::BAD_GATEWAY, error.0))?;
            tokio::spawn(async move {
                if let Ok(upgraded) = upgrade.await {
                    let mut upgraded = TokioIo::new(upgraded);
                    let carried = if is_passage {
                        passage::carry(upgraded, stream).await
                    } else {
                        copy_bidirectional(&mut upgraded, &mut stream.compat()).await.map(drop)
                    };
                    if let Err(error) = carried {
                        tracing::debug!(member = from.0, %error, "a connection to a pod broke");
                    }
                }
            });
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            let protocol = if is_passage { PASSAGE } else { TUNNEL };
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
            Ok(response)
        }
        _ => Err((StatusCode::NOT_FOUND, "members do not ask for that".to_owned())),
    }
}

fn sound(state: &StateId) -> Result<(), (StatusCode, String)> {
    if state.is_sound() { Ok(()) } else { Err(bad("no such state can be")) }
}

async fn blocking<T: Serialize + Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Answered {
    let done = tokio::task::spawn_blocking(work).await.map_err(failed)?.map_err(failed)?;
    Ok(json(&done))
}

fn bad(why: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, why.to_string())
}

fn failed(why: impl std::fmt::Display) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, why.to_string())
}

fn json(value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(value).unwrap_or_default();
    http_body_of::plain(coracle_api::Response::json(200, text))
}

fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response
}
