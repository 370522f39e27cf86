//! One request on its way to the backend that the rules give it, and its answer back, bodies streamed both ways.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::routes::{Routes, Target};
use crate::dialer::{self, Protocol, ServicePort, Via};
use crate::process::Process;
use crate::tunnel::drop_hop_by_hop;

/// How long a backend may take until its answer begins.
const ANSWER_WAIT: Duration = Duration::from_mins(1);

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The port that it came to.
    pub(super) port: u16,
    pub(super) is_https: bool,
}

/// Why a request is answered here.
type Refusal = (StatusCode, String);

/// Answers a request.
pub(super) async fn respond(
    process: &Arc<Process>,
    routes: &Routes,
    client: Client,
    request: Request<Body>,
) -> Response<Body> {
    match pass_on(process, routes, client, request).await {
        Ok(response) => response,
        Err((code, why)) => {
            let mut response = Response::new(Body::from(format!("{why}\n")));
            *response.status_mut() = code;
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            response
        }
    }
}

async fn pass_on(
    process: &Arc<Process>,
    routes: &Routes,
    client: Client,
    mut request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    let host = host_of(&request).ok_or((StatusCode::BAD_REQUEST, "the request names no host".into()))?;
    let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(&*host, |(name, _)| name);
    let target = routes.find(name, request.uri().path());
    let target = target.ok_or((StatusCode::NOT_FOUND, "no Ingress has this host and path".into()))?;
    let to = service_port(process, target, client.address)?;
    let unavailable =
        |why: &dyn std::fmt::Display| (StatusCode::SERVICE_UNAVAILABLE, format!("no backend answers: {why}"));
    let stream = dialer::dial_service(process, to).await.map_err(|error| unavailable(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream.compat())).await.map_err(|error| unavailable(&error))?;
    tokio::spawn(connection.with_upgrades());
    let upgrade = upgrade_of(request.headers());
    let theirs = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let request = forwarded(request, client, &host, upgrade)?;
    let answer = tokio::time::timeout(ANSWER_WAIT, sender.send_request(request)).await;
    let answer = answer.map_err(|_| (StatusCode::GATEWAY_TIMEOUT, "the backend does not answer".into()))?;
    let mut answer = answer.map_err(|error| (StatusCode::BAD_GATEWAY, format!("the backend fails: {error}")))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let ours = hyper::upgrade::on(&mut answer);
        let theirs = theirs.ok_or((StatusCode::BAD_GATEWAY, "the backend switches protocols unasked".into()))?;
        tokio::spawn(async move {
            if let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) {
                let _ = copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
            }
        });
        return Ok(answer.map(|_| Body::empty()));
    }
    let (mut head, body) = answer.into_parts();
    head.version = Version::default();
    drop_hop_by_hop(&mut head.headers);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// The host that is asked for, with the port where one is named.
fn host_of(request: &Request<Body>) -> Option<String> {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(ToString::to_string).or_else(|| named.map(str::to_owned))
}

fn service_port(process: &Process, target: &Target, client: IpAddr) -> Result<ServicePort, Refusal> {
    let unavailable = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
    let service = target.service.clone().ok_or_else(|| unavailable("the backend is no Service".into()))?;
    let view = process.view();
    if view.object(&service).is_none() {
        return Err(unavailable(format!("there is no Service {:?}", service.name)));
    }
    let port = dialer::service_port(&view, &service, Some(&target.port));
    let port = port.ok_or_else(|| unavailable(format!("Service {:?} has no port {:?}", service.name, target.port)))?;
    let from = dialer::end_at(process, &view, client);
    Ok(ServicePort { service, port, protocol: Protocol::Tcp, peer: client.to_string(), via: Via::Anyhow, from })
}

/// The protocol that the connection is to become, where one is asked for.
fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let connection = headers.get(header::CONNECTION)?.to_str().ok()?;
    let asks = connection.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

/// The request as the backend gets it: with who asked for what in `X-Forwarded-*`, whatever the client said there.
fn forwarded(
    request: Request<Body>,
    client: Client,
    host: &str,
    upgrade: Option<HeaderValue>,
) -> Result<Request<Body>, Refusal> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    parts.uri = path.into();
    parts.version = Version::HTTP_11;
    drop_hop_by_hop(&mut parts.headers);
    let headers = &mut parts.headers;
    for name in ["forwarded", "x-forwarded-server"] {
        headers.remove(name);
    }
    let bad = |_| (StatusCode::BAD_REQUEST, "the host is none".to_owned());
    let value = |text: &str| HeaderValue::from_str(text).map_err(bad);
    headers.insert("x-forwarded-for", value(&client.address.to_string())?);
    headers.insert("x-real-ip", value(&client.address.to_string())?);
    headers.insert("x-forwarded-host", value(host)?);
    headers.insert("x-forwarded-port", HeaderValue::from(client.port));
    headers.insert("x-forwarded-proto", HeaderValue::from_static(if client.is_https { "https" } else { "http" }));
    headers.insert(header::HOST, value(host)?);
    match upgrade {
        Some(protocol) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, protocol);
        }
        // One request a connection.
        None => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
    }
    Ok(Request::from_parts(parts, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client { address: "192.0.2.9".parse().unwrap(), port: 443, is_https: true }
    }

    #[test]
    fn the_backend_hears_who_asked_and_not_what_the_client_pretends() {
        let request = Request::builder()
            .uri("https://shop.example/a?b=c")
            .header("x-forwarded-for", "203.0.113.1")
            .header("forwarded", "for=203.0.113.1")
            .header("connection", "keep-alive, x-mine")
            .header("x-mine", "1")
            .header("accept", "text/plain")
            .body(Body::empty())
            .unwrap();
        assert_eq!(host_of(&request).as_deref(), Some("shop.example"));
        let request = forwarded(request, client(), "shop.example", None).unwrap();
        assert_eq!(request.uri(), "/a?b=c");
        let headers = request.headers();
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.9"),
            ("x-real-ip", "192.0.2.9"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
            ("host", "shop.example"),
            ("connection", "close"),
            ("accept", "text/plain"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert!(!headers.contains_key("forwarded") && !headers.contains_key("x-mine"));
    }

    #[test]
    fn a_change_of_protocol_is_passed_on() {
        let request = Request::builder().uri("/ws").header("host", "h:80").header("connection", "Upgrade");
        let request = request.header("upgrade", "websocket").body(Body::empty()).unwrap();
        let upgrade = upgrade_of(request.headers());
        assert_eq!(upgrade, Some(HeaderValue::from_static("websocket")));
        let request = forwarded(request, client(), "h:80", upgrade).unwrap();
        assert_eq!(
            (&request.headers()["connection"], &request.headers()["upgrade"]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }
}
