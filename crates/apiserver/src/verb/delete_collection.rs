//! DELETE of a collection: one bounded transaction an object.

use coracle_api::{ObjectKey, Status};

use crate::context::{Context, Step};
use crate::decode;
use crate::request::options::{DeleteOptions, ListOptions};
use crate::verb::delete::{self, Plan};
use crate::verb::list::{self, Unread};

/// Lists what is to be deleted; the answer is the list as it was before.
pub(crate) fn delete_collection(context: &mut Context<'_>) -> Result<Step, Status> {
    let body = decode::delete_options(context)?;
    let deletion = DeleteOptions::parse(context.request, body.as_ref())?;
    let options = ListOptions::parse(context.request, context.resource, context.strategy, false)?;
    let page = match list::read(context, &options) {
        Ok(page) => page,
        Err(Unread::Refused(status)) => return Err(status),
        Err(Unread::Answer(response)) => return Ok(Step::Respond(*response)),
    };
    let answer = context.presenter().list(&page.meta, &page.objects);
    if deletion.dry_run {
        return Ok(Step::Respond(answer));
    }
    let keys = page.objects.iter().map(|object| object.key().clone()).collect();
    Ok(Step::DeleteAll(keys, answer))
}

/// The deletion of one of them; `None` when it is gone or going already.
pub(crate) fn delete_one(context: &mut Context<'_>, key: &ObjectKey) -> Result<Option<Step>, Status> {
    let body = decode::delete_options(context)?;
    let options = DeleteOptions::parse(context.request, body.as_ref())?;
    let Some(object) = context.view.object(key) else { return Ok(None) };
    match delete::plan(context, object, &options)? {
        Plan::Write(proposal) => Ok(Some(Step::Propose(proposal))),
        Plan::Answer(_) => Ok(None),
    }
}
