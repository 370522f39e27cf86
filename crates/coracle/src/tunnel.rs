//! Byte streams between a client and a pod: logs, commands, port-forwards, and requests passed on.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::WebSocketUpgrade;
use coracle_api::resources::PODS;
use coracle_api::{ObjectKey, Reason, Status, Uid};
use coracle_apiserver::{LogOptions, TunnelSpec};
use coracle_raft::MemberId;
use futures_util::stream;
use http::Response;
use http::request::Parts;
use serde_json::Value;

use crate::http::fair::StreamPlace;
use crate::logs::{Instance, LogQuery, LogStore};
use crate::peers::Network;
use crate::process::Process;

mod port_forward;
mod proxy;
mod session;
mod spdy;
mod upgrade;

pub(crate) use proxy::{drop_hop_by_hop, is_proxy};

/// Joins a client to what its request turned into. The body is that of a request to be passed on.
pub(crate) async fn respond(
    process: &Arc<Process>,
    tunnel: TunnelSpec,
    websocket: Option<WebSocketUpgrade>,
    (parts, place): (&Parts, Option<Arc<StreamPlace>>),
    body: Body,
) -> Result<Response<Body>, Status> {
    match tunnel {
        TunnelSpec::Log { pod: (namespace, name, uid), container, options, .. } => {
            log(process, &namespace, &name, &uid, &container, options)
        }
        TunnelSpec::PortForward { node, pod: (_, name, uid), ports } => {
            let target = port_forward::Target { process: Arc::clone(process), node, name, uid, _place: place };
            port_forward::respond(target, ports, websocket, parts)
        }
        TunnelSpec::Session { node, pod: (_, _, pod), container, command, streams } => {
            let target = session::Target { process: Arc::clone(process), node, pod, container, place };
            session::respond(target, command, streams, websocket, parts).await
        }
        TunnelSpec::Proxy { namespace, resource, name, port, https, .. } => {
            let target = proxy::Target { namespace, resource, name, port, https };
            proxy::respond(process, target, parts, body).await
        }
        _ => Err(Status::failure(501, Some(Reason::ServiceUnavailable), "this stream is not served yet")),
    }
}

/// The member on another machine that has what a request turned into, where it is not here. Requests to be passed on to a pod are
/// not: the dialer reaches it from anywhere.
pub(crate) fn elsewhere(process: &Process, tunnel: &TunnelSpec) -> Option<(Arc<Network>, MemberId)> {
    match tunnel {
        TunnelSpec::Log { node, .. } | TunnelSpec::PortForward { node, .. } | TunnelSpec::Session { node, .. } => {
            process.peers.elsewhere(node)
        }
        _ => None,
    }
}

/// The log of a container as text, chunk by chunk.
fn log(
    process: &Arc<Process>,
    namespace: &str,
    name: &str,
    uid: &Uid,
    container: &str,
    options: LogOptions,
) -> Result<Response<Body>, Status> {
    let previous = options.previous;
    let mut query = LogQuery::new(uid, container, options).map_err(Status::bad_request)?;
    if query.instance == Instance::Previous && is_waiting(process, namespace, name, container) {
        // Between two runs the newest instance is the one before the next.
        query.instance = Instance::Ended(1);
    }
    let Some(reader) = LogStore::read(&process.logs, query.clone(), process.now()) else {
        if previous || query.instance != Instance::Current {
            let message = format!("previous terminated container {container:?} in pod {name:?} not found");
            return Err(Status::bad_request(message));
        }
        return Ok(text(Body::empty())); // it has not written anything yet
    };
    let shutdown = process.shutdown.clone();
    let pieces = stream::unfold((reader, shutdown), |(mut reader, shutdown)| async move {
        let piece = tokio::select! {
            piece = reader.next() => piece?,
            () = shutdown.cancelled() => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(piece), (reader, shutdown)))
    });
    Ok(text(Body::from_stream(pieces)))
}

fn text(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let content_type = http::HeaderValue::from_static("text/plain");
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

/// Whether a container waits to be started again.
fn is_waiting(process: &Process, namespace: &str, name: &str, container: &str) -> bool {
    let view = process.view();
    let Some(pod) = view.object(&ObjectKey::new(PODS, namespace, name)) else { return false };
    let status = &pod.value(None)["status"];
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(|list| status[list].as_array().into_iter().flatten())
        .any(|status| status["name"] == container && matches!(status["state"]["waiting"], Value::Object(_)))
}
