//! `/version`, `/healthz`, `/livez`, `/readyz`, and the list of paths at `/`.

use std::fmt::Write as _;

use coracle_api::{Method, Registry, Request, Response, Status};
use serde_json::{Value, json};

use crate::ServerOptions;
use crate::answer::value_response;
use crate::request::negotiate::{Encoding, pretty};
use crate::request::options::flag;

/// The checks that a server which answers has passed: it answers out of its state, and has read that.
const CHECKS: [&str; 2] = ["ping", "state"];

/// Answers one of these paths; `None` for any other.
pub(crate) fn answer(
    options: &ServerOptions,
    registry: &Registry,
    request: &Request,
) -> Option<Result<Response, Status>> {
    let path = request.path.trim_end_matches('/');
    let known = matches!(path, "" | "/version") || check_of(path).is_some();
    if !known {
        return None;
    }
    if !matches!(request.method, Method::Get | Method::Head) {
        return Some(Err(Status::method_not_allowed()));
    }
    let encoding = Encoding { pretty: pretty(request), ..Encoding::JSON };
    Some(match path {
        "" => Ok(value_response(encoding, 200, &json!({ "paths": paths(registry) }))),
        "/version" => Ok(value_response(encoding, 200, &version(options))),
        _ => check_of(path)
            .map_or_else(|| Err(Status::unknown_path()), |(endpoint, check)| health(request, endpoint, check)),
    })
}

/// The endpoint and the check that a path names; an empty check is all of them.
fn check_of(path: &str) -> Option<(&'static str, &str)> {
    ["/healthz", "/livez", "/readyz"].into_iter().find_map(|endpoint| {
        let rest = path.strip_prefix(endpoint)?;
        if rest.is_empty() { Some((endpoint, "")) } else { Some((endpoint, rest.strip_prefix('/')?)) }
    })
}

fn health(request: &Request, endpoint: &str, check: &str) -> Result<Response, Status> {
    if !check.is_empty() {
        return if CHECKS.contains(&check) { Ok(Response::text(200, "ok")) } else { Err(Status::unknown_path()) };
    }
    if !flag(request, "verbose") {
        return Ok(Response::text(200, "ok"));
    }
    let excluded: Vec<&str> =
        request.query.iter().filter(|(name, _)| name == "exclude").map(|(_, value)| value.as_str()).collect();
    let mut text = String::new();
    for check in CHECKS {
        let outcome = if excluded.contains(&check) { "excluded: ok" } else { "ok" };
        writeln!(text, "[+]{check} {outcome}").expect("a text is written to memory");
    }
    writeln!(text, "{} check passed", &endpoint[1..]).expect("a text is written to memory");
    Ok(Response::text(200, text))
}

fn version(options: &ServerOptions) -> Value {
    let numbers = options.git_version.trim_start_matches('v');
    let mut parts = numbers.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let before = minor.parse::<u32>().unwrap_or(1).saturating_sub(1).to_string();
    json!({
        "major": major,
        "minor": minor,
        "emulationMajor": major,
        "emulationMinor": minor,
        "minCompatibilityMajor": major,
        "minCompatibilityMinor": before,
        "gitVersion": options.git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "rust",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    })
}

/// The architecture in Go's words, which is what clients compare.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn paths(registry: &Registry) -> Vec<String> {
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for endpoint in ["/healthz", "/livez", "/readyz"] {
        paths.extend(CHECKS.iter().map(|check| format!("{endpoint}/{check}")));
    }
    for group_version in registry.group_versions() {
        if group_version.group.is_empty() {
            paths.push(format!("/api/{}", group_version.version));
        } else {
            paths.push(format!("/apis/{}", group_version.group));
            paths.push(format!("/apis/{group_version}"));
        }
    }
    paths.sort();
    paths.dedup();
    paths
}
