//! Discovery: which groups, versions and resources there are, in the aggregated form and in the older one.

mod aggregated;
mod legacy;

use coracle_api::{Method, Registry, Request, Response, Status, openapi};

use crate::ServerOptions;
use crate::answer::value_response;
use crate::request::negotiate::{Encoding, clauses, not_acceptable, pretty};

/// The content type of the aggregated form.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a discovery path; 404 for any other.
pub(crate) fn answer(options: &ServerOptions, registry: &Registry, request: &Request) -> Result<Response, Status> {
    let path = request.path.trim_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    let value = match parts.as_slice() {
        ["api" | "apis"] if wants_aggregated(request) => {
            check_method(request)?;
            return Ok(aggregated(registry, request, parts[0] == "api"));
        }
        ["api"] => Some(legacy::versions(options)),
        ["apis"] => Some(legacy::groups(registry)),
        ["api", version] => legacy::resources(registry, "", version),
        ["apis", group] => legacy::group(registry, group),
        ["apis", group, version] => legacy::resources(registry, group, version),
        _ => None,
    };
    let value = value.ok_or_else(Status::unknown_path)?;
    check_method(request)?;
    check_accept(request)?;
    Ok(value_response(Encoding { pretty: pretty(request), ..Encoding::JSON }, 200, &value))
}

fn check_method(request: &Request) -> Result<(), Status> {
    if matches!(request.method, Method::Get | Method::Head) { Ok(()) } else { Err(Status::method_not_allowed()) }
}

fn check_accept(request: &Request) -> Result<(), Status> {
    let accept = request.accept.as_deref().unwrap_or_default();
    let plain = |media: &str| {
        matches!(media, "application/json" | "application/vnd.kubernetes.protobuf" | "*/*" | "application/*")
    };
    if accept.trim().is_empty() || clauses(accept).iter().any(|clause| plain(clause.media)) {
        return Ok(());
    }
    Err(not_acceptable())
}

/// Whether the first clause that can be honoured asks for the aggregated form.
fn wants_aggregated(request: &Request) -> bool {
    let accept = request.accept.as_deref().unwrap_or_default();
    for clause in clauses(accept) {
        if clause.media != "application/json" {
            continue;
        }
        match (clause.param("as"), clause.param("g"), clause.param("v")) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return true,
            ("", _, _) => return false,
            _ => {}
        }
    }
    false
}

fn aggregated(registry: &Registry, request: &Request, core: bool) -> Response {
    let body = aggregated::list(registry, core).to_string();
    let etag = format!("\"{}\"", openapi::hash(body.as_bytes()));
    let headers = vec![
        ("content-type", AGGREGATED.to_owned()),
        ("etag", etag.clone()),
        ("vary", "Accept".to_owned()),
        ("cache-control", "public".to_owned()),
    ];
    if request.header("if-none-match") == Some(etag.as_str()) {
        return Response { status: 304, headers, body: Vec::new() };
    }
    Response { status: 200, headers, body: vec![body.into()] }
}
