//! GET of one object.

use std::sync::Arc;

use coracle_api::{Object, Revision, Status};

use crate::context::{Context, Step};
use crate::error;
use crate::request::options::parse_revision;

/// Answers with the object; a `resourceVersion` asks for a state at least that late.
pub(crate) fn get(context: &mut Context<'_>) -> Result<Step, Status> {
    let revision = parse_revision(context.request.param("resourceVersion").unwrap_or_default())?;
    if let Some(step) = at_least(context, revision.unwrap_or_default())? {
        return Ok(step);
    }
    let made_up = context.heartbeats.lease(context.view, &context.key());
    let object = match (existing(context), &made_up) {
        (Err(_), Some(lease)) => lease,
        (object, _) => object?,
    };
    Ok(Step::Respond(context.presenter().object(200, object)))
}

/// The object that the path names, or 404.
pub(crate) fn existing<'a>(context: &Context<'a>) -> Result<&'a Arc<Object>, Status> {
    let key = context.key();
    context.view.object(&key).ok_or_else(|| Status::not_found(&key.resource, &key.name))
}

/// Waits for a state at least this late; 504 when that was tried.
pub(crate) fn at_least(context: &Context<'_>, revision: Revision) -> Result<Option<Step>, Status> {
    if revision <= context.view.revision() {
        Ok(None)
    } else if context.waited {
        Err(error::too_large(revision.0, context.view.revision().0))
    } else {
        Ok(Some(Step::WaitFor(revision)))
    }
}
