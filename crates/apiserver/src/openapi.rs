//! `/openapi/v3`: the index and the documents of each group and version, made once; an empty one of version 2.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use coracle_api::openapi::{self, DescriptionTable};
use coracle_api::{Method, Registry, Request, Response, Status};

use crate::ServerOptions;
use crate::request::negotiate::{clauses, not_acceptable};

/// The documents of the built-in kinds, made when one is first asked for: most programs that embed a cluster never do.
#[derive(Debug)]
pub struct OpenApi {
    descriptions: fn() -> String,
    documents: OnceLock<Documents>,
}

impl Default for OpenApi {
    fn default() -> Self {
        Self::described_by(String::new)
    }
}

impl OpenApi {
    /// Documents with descriptions out of a text in the form of [`DescriptionTable`]: it is asked for once, and kept only
    /// as far as the documents have it.
    pub fn described_by(descriptions: fn() -> String) -> Self {
        Self { descriptions, documents: OnceLock::new() }
    }

    fn documents(&self, version: &str) -> &Documents {
        self.documents.get_or_init(|| Documents::new(&Registry::builtin(), version, &(self.descriptions)()))
    }
}

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
    fn new(registry: &Registry, version: &str, descriptions: &str) -> Self {
        let table = DescriptionTable::of(descriptions);
        let describe = |type_name: &str, field: Option<&str>| table.find(type_name, field);
        let mut by_path = BTreeMap::new();
        for group_version in registry.group_versions() {
            let body = openapi::document(registry, group_version, version, &describe);
            let hash = openapi::hash(&body);
            by_path.insert(openapi::document_path(group_version), Document { body: body.into(), hash });
        }
        let hashes = by_path.iter().map(|(path, document)| (path.clone(), document.hash.clone())).collect();
        Self { index: openapi::index(&hashes).into(), by_path }
    }
}

/// Answers a path below `/openapi/`.
pub(crate) fn answer(options: &ServerOptions, request: &Request) -> Result<Response, Status> {
    let path = request.path.trim_end_matches('/');
    if path == "/openapi/v2" && request.method == Method::Get {
        return Ok(version_2(&options.git_version));
    }
    let Some(below) = path.strip_prefix("/openapi/v3") else { return Err(Status::unknown_path()) };
    if !matches!(request.method, Method::Get | Method::Head) {
        return Err(Status::method_not_allowed());
    }
    let documents = options.openapi.documents(&options.git_version);
    if below.is_empty() {
        return Ok(Response::text(200, documents.index.clone()));
    }
    let name = below.trim_start_matches('/');
    let document = documents.by_path.get(name).ok_or_else(Status::unknown_path)?;
    if !accepts_json(request) {
        return Err(not_acceptable());
    }
    Ok(answer_with(request, name, document))
}

/// The older document, with nothing in it. kubectl asks it about kinds that the documents of version 3 do not have, and
/// says of a mistyped `kind` what is wrong only when it is told here, too, that there is none. In protobuf, the one
/// form in which clients ask for it: `swagger` (1), `info` (2) with `title` (1) and `version` (2).
fn version_2(version: &str) -> Response {
    let mut info = Vec::new();
    text_field(1, "Kubernetes", &mut info);
    text_field(2, version, &mut info);
    let mut document = Vec::new();
    text_field(1, "2.0", &mut document);
    document.extend([2 << 3 | 2, info.len() as u8]);
    document.extend(info);
    let kind = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf".to_owned();
    Response { status: 200, headers: vec![("content-type", kind)], body: vec![document.into()] }
}

/// A protobuf field of a short text (its length takes one byte).
fn text_field(number: u8, text: &str, out: &mut Vec<u8>) {
    assert!(text.len() < 64, "a longer text needs a longer length");
    out.extend([number << 3 | 2, text.len() as u8]);
    out.extend(text.bytes());
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
