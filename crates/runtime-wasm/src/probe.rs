//! Probes, made through the same ports and the same dialer as everything else; texts are the kubelet's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::Uid;
use coracle_node::runtime::{ByteStream, Destination, ProbeAction, ProbeResult};
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::pipe::Inside;
use crate::shared::Shared;

/// Whom to probe.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) pod: Uid,
    pub(crate) address: IpAddr,
}

/// Where a probe goes, as texts and the `host` header have it.
fn authority(address: IpAddr, host: Option<&str>, port: u16) -> String {
    match host {
        Some(host) => format!("{host}:{port}"),
        None => SocketAddr::new(address, port).to_string(),
    }
}

impl Target {
    async fn connect(&self, shared: &Arc<Shared>, host: Option<&str>, port: u16) -> Result<ByteStream, String> {
        let opened = match host {
            Some(host) => shared.host.connect(&self.pod, Destination { host: host.to_owned(), port }).await,
            None => shared.ports.open(shared, &self.pod, port),
        };
        opened.map_err(|error| error.0)
    }
}

/// Makes a probe.
pub(crate) async fn probe(shared: Arc<Shared>, target: Target, action: ProbeAction, timeout: Duration) -> ProbeResult {
    match action {
        ProbeAction::Http { https: true, .. } | ProbeAction::Grpc { .. } | ProbeAction::Exec { .. } => {
            unsupported(&action)
        }
        ProbeAction::Http { host, port, path, headers, https: false } => {
            let url = format!("http://{}{}", authority(target.address, host.as_deref(), port), rooted(&path));
            let get = get(&shared, &target, host.as_deref(), port, &path, &headers);
            match tokio::time::timeout(timeout, get).await {
                Err(_) => ProbeResult::Failure(format!(
                    "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                )),
                Ok(Err(Failed::Transport(error))) => ProbeResult::Failure(format!("Get \"{url}\": {error}")),
                Ok(Err(Failed::Request(error))) => ProbeResult::Error(error),
                Ok(Ok(200..400)) => ProbeResult::Success,
                Ok(Ok(status)) => ProbeResult::Failure(format!("HTTP probe failed with statuscode: {status}")),
            }
        }
        ProbeAction::Tcp { host, port } => {
            match tokio::time::timeout(timeout, target.connect(&shared, host.as_deref(), port)).await {
                Ok(Ok(_)) => ProbeResult::Success,
                Ok(Err(error)) => ProbeResult::Failure(error),
                Err(_) => {
                    let at = authority(target.address, host.as_deref(), port);
                    ProbeResult::Failure(format!("dial tcp {at}: i/o timeout"))
                }
            }
        }
    }
}

/// What a probe is told that cannot be made here.
fn unsupported(action: &ProbeAction) -> ProbeResult {
    let why = match action {
        ProbeAction::Grpc { .. } => "gRPC probes of Wasm pods are not supported yet",
        ProbeAction::Exec { .. } => "a Wasm container cannot run a second command: exec probes are not supported",
        ProbeAction::Http { .. } | ProbeAction::Tcp { .. } => "HTTPS probes of Wasm pods are not supported yet",
    };
    ProbeResult::Error(why.to_owned())
}

/// What comes of a probe where nobody listens.
pub(crate) fn unheard(address: IpAddr, action: &ProbeAction) -> ProbeResult {
    match action {
        ProbeAction::Http { host: Some(host), .. } | ProbeAction::Tcp { host: Some(host), .. } => {
            ProbeResult::Error(format!("probes of other hosts ({host}) are not simulated"))
        }
        ProbeAction::Http { port, path, https: false, .. } => {
            let at = authority(address, None, *port);
            let url = format!("http://{at}{}", rooted(path));
            ProbeResult::Failure(format!("Get \"{url}\": dial tcp {at}: connect: connection refused"))
        }
        ProbeAction::Tcp { port, .. } => {
            let at = authority(address, None, *port);
            ProbeResult::Failure(format!("dial tcp {at}: connect: connection refused"))
        }
        ProbeAction::Http { .. } | ProbeAction::Grpc { .. } | ProbeAction::Exec { .. } => unsupported(action),
    }
}

enum Failed {
    /// The probe cannot be made as the pod asks for it.
    Request(String),
    /// Nobody answered.
    Transport(String),
}

async fn get(
    shared: &Arc<Shared>,
    target: &Target,
    host: Option<&str>,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<u16, Failed> {
    let request = request(&authority(target.address, host, port), path, headers)?;
    let stream = target.connect(shared, host, port).await.map_err(Failed::Transport)?;
    let transport = |error: hyper::Error| Failed::Transport(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(Inside(stream))).await.map_err(transport)?;
    let answer = sender.send_request(request);
    tokio::pin!(connection, answer);
    // The connection is driven until the answer's head is there; the body is nobody's.
    tokio::select! {
        biased;
        answer = &mut answer => Ok(answer.map_err(transport)?.status().as_u16()),
        closed = &mut connection => match answer.await {
            Ok(answer) => Ok(answer.status().as_u16()),
            Err(error) => Err(closed.map_or_else(transport, |()| transport(error))),
        }
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The kubelet's request: its user agent, and the pod's headers, of which `Host` replaces the address.
fn request(authority: &str, path: &str, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, Failed> {
    let invalid = |what: &str| Failed::Request(format!("invalid probe: {what}"));
    let mut request = Request::get(rooted(path)).body(Empty::new()).map_err(|error| invalid(&error.to_string()))?;
    let map = request.headers_mut();
    map.insert(http::header::HOST, HeaderValue::from_str(authority).map_err(|error| invalid(&error.to_string()))?);
    map.insert(http::header::USER_AGENT, HeaderValue::from_static("kube-probe/1.36"));
    map.insert(http::header::ACCEPT, HeaderValue::from_static("*/*"));
    map.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(&format!("header {name:?}")))?;
        let value = HeaderValue::from_str(value).map_err(|_| invalid(&format!("the value of header {name}")))?;
        map.insert(name, value);
    }
    Ok(request)
}
