//! Requests that the API server passes on to a pod or a service, bodies streamed both ways.

use std::sync::Arc;

use axum::body::Body;
use coracle_api::resources::{PODS, SERVICES};
use coracle_api::{ObjectKey, Reason, Status};
use coracle_node::runtime::ByteStream;
use coracle_store::View;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use crate::dialer::{self, End, PodPort, Protocol, ServicePort, Via};
use crate::process::Process;

/// How many parts a path has before what is passed on: `/api/v1/namespaces/NAMESPACE/RESOURCE/NAME/proxy`.
const OWN_PARTS: usize = 7;
/// Headers of one connection (RFC 9110, 7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// What is passed on to whom.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) resource: String,
    pub(super) name: String,
    pub(super) port: Option<String>,
    pub(super) https: bool,
}

/// Whether a path asks for a request to be passed on, so that its body is not for the API server.
pub(crate) fn is_proxy(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    parts.next() == Some("api")
        && parts.nth(1) == Some("namespaces")
        && parts.nth(1).is_some_and(|resource| matches!(resource, "pods" | "services"))
        && parts.nth(1) == Some("proxy")
}

/// Passes the request on and answers with what comes back.
pub(super) async fn respond(
    process: &Arc<Process>,
    target: Target,
    parts: &Parts,
    body: Body,
) -> Result<Response<Body>, Status> {
    let Some(rest) = rest(parts.uri.path()) else { return Ok(with_slash(&parts.uri)) };
    if target.https {
        return Err(unreachable("https is not supported: use http"));
    }
    let (stream, host) = dial(process, &target).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream.compat())).await.map_err(|error| unreachable(&error.to_string()))?;
    tokio::spawn(connection);
    let request = request(parts, rest, &host, body)?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(&error.to_string()))?;
    let (mut head, body) = response.into_parts();
    head.version = Version::default();
    drop_hop_by_hop(&mut head.headers);
    let own: String = parts.uri.path().strip_suffix(rest).unwrap_or_default().into();
    relocate(&mut head.headers, &own);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// The path as it came, behind `proxy`; `None` when not even a slash is there.
fn rest(path: &str) -> Option<&str> {
    let at = path.match_indices('/').nth(OWN_PARTS)?.0;
    Some(&path[at..])
}

/// Relative links of a page need the slash: a browser is sent there.
fn with_slash(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn dial(process: &Arc<Process>, target: &Target) -> Result<(ByteStream, String), Status> {
    let view = process.view();
    let refused = |error: coracle_node::runtime::OpenError| unreachable(&error.0);
    if target.resource == "services" {
        let to = service_port(&view, target)?;
        let host = format!("{}.{}.svc:{}", target.name, target.namespace, to.port);
        return Ok((dialer::dial_service(process, to).await.map_err(refused)?, host));
    }
    let (node, uid, address, port) = pod_port(&view, target)?;
    let to = PodPort::of(node, uid, port, Protocol::Tcp);
    Ok((dialer::dial_pod(process, &to).await.map_err(refused)?, format!("{address}:{port}")))
}

fn service_port(view: &View, target: &Target) -> Result<ServicePort, Status> {
    let service = ObjectKey::new(SERVICES, &target.namespace, &target.name);
    let port = dialer::service_port(view, &service, target.port.as_deref());
    let to = ServicePort {
        service,
        port: port.unwrap_or_default(),
        protocol: Protocol::Tcp,
        peer: "apiserver".into(),
        via: Via::Anyhow,
        from: End::Node,
    };
    match (&target.port, port) {
        (Some(port), None) => Err(unavailable(format!("no service port {port:?} found for service {:?}", target.name))),
        _ if port.is_none() || !dialer::has_endpoints(view, &to) => {
            Err(unavailable(format!("no endpoints available for service {:?}", target.name)))
        }
        _ => Ok(to),
    }
}

/// The pod's node, uid, address and port: the one that is asked for, or the first that it names, or 80.
fn pod_port(view: &View, target: &Target) -> Result<(String, coracle_api::Uid, String, u16), Status> {
    let key = ObjectKey::new(PODS, &target.namespace, &target.name);
    let not_found = || Status::not_found(&key.resource, &target.name);
    let (node, uid) = dialer::pod(view, &target.namespace, &target.name).ok_or_else(not_found)?;
    let pod = view.object(&key).ok_or_else(not_found)?.value(None);
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = |port: &serde_json::Value| port["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match target.port.as_deref() {
        None => ports.next().and_then(number).or(Some(80)),
        Some(text) => text.parse().ok().or_else(|| ports.find(|port| port["name"] == text).and_then(number)),
    };
    let unknown =
        || unreachable(&format!("dial tcp: lookup tcp/{}: unknown port", target.port.as_deref().unwrap_or("")));
    let address = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    Ok((node, uid, address, port.ok_or_else(unknown)?))
}

/// The request as it is passed on: without what is between the client and the API server only, its credentials first of all.
fn request(parts: &Parts, rest: &str, host: &str, body: Body) -> Result<Request<Body>, Status> {
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = format!("{rest}{query}").parse().map_err(|_| Status::bad_request("the path is not valid"))?;
    let headers = request.headers_mut();
    headers.clone_from(&parts.headers);
    drop_hop_by_hop(headers);
    let credentials = |name: &HeaderName| {
        *name == header::AUTHORIZATION
            || name.as_str().starts_with("impersonate-")
            || name.as_str().starts_with("x-remote-")
    };
    for name in headers.keys().filter(|name| credentials(name)).cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
    if let Some(original) = parts.headers.get(header::HOST) {
        headers.insert("x-forwarded-host", original.clone());
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Ok(uri) = HeaderValue::from_str(parts.uri.path()) {
        headers.insert("x-forwarded-uri", uri);
    }
    let host = HeaderValue::from_str(host).map_err(|_| Status::bad_request("the name is no host name"))?;
    headers.insert(header::HOST, host);
    // One request a connection.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if matches!(parts.method, Method::GET | Method::HEAD) && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        *request.body_mut() = Body::empty();
    }
    Ok(request)
}

/// Drops the headers that are of one connection.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().map(HeaderName::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// A redirection within the target stays behind the proxy's path.
fn relocate(headers: &mut HeaderMap, own: &str) {
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let inside = location.filter(|location| location.starts_with('/') && !location.starts_with("//"));
    if let Some(Ok(moved)) = inside.map(|path| HeaderValue::from_str(&format!("{own}{path}"))) {
        headers.insert(header::LOCATION, moved);
    }
}

fn unavailable(message: impl Into<String>) -> Status {
    Status::failure(503, Some(Reason::ServiceUnavailable), message)
}

fn unreachable(why: &str) -> Status {
    unavailable(format!("error trying to reach service: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/api/v1/namespaces/shop/services/web:http/proxy/a%20b/c";

    fn parts(path: &str) -> Parts {
        let request = Request::builder()
            .uri(format!("{path}?q=1"))
            .header("host", "127.0.0.1:6443")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "somebody")
            .header("connection", "keep-alive, x-mine")
            .header("x-mine", "1")
            .header("te", "trailers")
            .header("accept", "text/plain");
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn only_the_proxy_of_pods_and_services_gets_bodies() {
        assert!(is_proxy(PATH));
        assert!(is_proxy("/api/v1/namespaces/shop/pods/web/proxy"));
        for path in
            ["/api/v1/namespaces/shop/pods/proxy", "/api/v1/namespaces/proxy", "/api/v1/namespaces/shop/pods/web/log"]
        {
            assert!(!is_proxy(path), "{path}");
        }
    }

    #[test]
    fn a_request_is_passed_on_without_credentials_and_with_its_path_as_it_came() {
        let parts = parts(PATH);
        let request = request(&parts, rest(PATH).unwrap(), "web.shop.svc:80", Body::empty()).unwrap();
        assert_eq!(request.uri(), "/a%20b/c?q=1");
        let headers = request.headers();
        for dropped in ["authorization", "impersonate-user", "x-mine", "te"] {
            assert!(!headers.contains_key(dropped), "{dropped}");
        }
        assert_eq!(headers["host"], "web.shop.svc:80");
        assert_eq!(headers["x-forwarded-host"], "127.0.0.1:6443");
        assert_eq!(headers["accept"], "text/plain");
    }

    #[test]
    fn a_path_without_a_slash_is_sent_to_the_one_with_it() {
        let path = "/api/v1/namespaces/shop/pods/web/proxy";
        assert_eq!(rest(path), None);
        assert_eq!(with_slash(&parts(path).uri).headers()["location"], format!("{path}/?q=1"));
    }

    #[test]
    fn redirections_stay_behind_the_proxy() {
        let mut headers = HeaderMap::new();
        headers.insert("location", HeaderValue::from_static("/login"));
        relocate(&mut headers, "/api/v1/namespaces/shop/pods/web/proxy");
        assert_eq!(headers["location"], "/api/v1/namespaces/shop/pods/web/proxy/login");
        headers.insert("location", HeaderValue::from_static("https://example.com/"));
        relocate(&mut headers, "/x");
        assert_eq!(headers["location"], "https://example.com/");
    }
}
