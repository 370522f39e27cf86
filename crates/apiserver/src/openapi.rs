//! `/openapi/v3`: the index and the documents of each group and version, made once.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use bytes::Bytes;
use coracle_api::{Method, Registry, Request, Response, Status, openapi};

use crate::ServerOptions;
use crate::request::negotiate::{clauses, not_acceptable};

/// The documents of the built-in kinds, by their path below `/openapi/v3/`.
static DOCUMENTS: LazyLock<Documents> = LazyLock::new(|| Documents::new(&Registry::builtin()));

#[derive(Debug)]
struct Documents {
    index: Bytes,
    by_path: BTreeMap<String, Document>,
}

#[derive(Debug)]
struct Document {
    body: Bytes,
    hash: String,
}

impl Documents {
    fn new(registry: &Registry) -> Self {
        let version = ServerOptions::default().git_version;
        let mut by_path = BTreeMap::new();
        for group_version in registry.group_versions() {
            let body = openapi::document(registry, group_version, &version, &openapi::no_descriptions);
            let hash = openapi::hash(&body);
            by_path.insert(openapi::document_path(group_version), Document { body: body.into(), hash });
        }
        let hashes = by_path.iter().map(|(path, document)| (path.clone(), document.hash.clone())).collect();
        Self { index: openapi::index(&hashes).into(), by_path }
    }
}

/// Answers a path below `/openapi/`.
pub(crate) fn answer(request: &Request) -> Result<Response, Status> {
    let path = request.path.trim_end_matches('/');
    if path == "/openapi/v2" {
        // Clients that want this one document of everything fall back to version 3.
        return Err(Status::unknown_path());
    }
    let Some(below) = path.strip_prefix("/openapi/v3") else { return Err(Status::unknown_path()) };
    if !matches!(request.method, Method::Get | Method::Head) {
        return Err(Status::method_not_allowed());
    }
    if below.is_empty() {
        return Ok(Response::text(200, DOCUMENTS.index.clone()));
    }
    let name = below.trim_start_matches('/');
    let document = DOCUMENTS.by_path.get(name).ok_or_else(Status::unknown_path)?;
    if !accepts_json(request) {
        return Err(not_acceptable());
    }
    Ok(answer_with(request, name, document))
}

fn accepts_json(request: &Request) -> bool {
    let accept = request.accept.as_deref().unwrap_or_default();
    let json = |media: &str| matches!(media, "application/json" | "application/*" | "*/*");
    accept.trim().is_empty() || clauses(accept).iter().any(|clause| json(clause.media))
}

/// The document; under its own hash it never changes, under another the right one is told.
fn answer_with(request: &Request, name: &str, document: &Document) -> Response {
    let etag = format!("\"{}\"", document.hash);
    let mut headers =
        vec![("content-type", "application/json".to_owned()), ("etag", etag.clone()), ("vary", "Accept".to_owned())];
    match request.param("hash").filter(|hash| !hash.is_empty()) {
        Some(hash) if hash != document.hash => {
            headers.push(("location", format!("/openapi/v3/{name}?hash={}", document.hash)));
            return Response { status: 301, headers, body: Vec::new() };
        }
        Some(_) => headers.push(("cache-control", "public, immutable, max-age=31536000".to_owned())),
        None => {}
    }
    if request.header("if-none-match") == Some(etag.as_str()) {
        return Response { status: 304, headers, body: Vec::new() };
    }
    Response { status: 200, headers, body: vec![document.body.clone()] }
}
