//! `/openapi/v3`: the index and the documents of each group and version.

use coracle_api::{Registry, Request, Response, Status};

/// Answers a path below `/openapi/`.
pub(crate) fn answer(registry: &Registry, request: &Request) -> Result<Response, Status> {
    let _ = (registry, request);
    Err(Status::unknown_path())
}
