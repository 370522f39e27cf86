//! `pods/eviction`: a deletion that a disruption budget may refuse. There are no budgets yet, so none does.

use coracle_api::Status;
use serde_json::Value;

use super::binding::success;
use crate::context::{Context, Finish, Step};
use crate::decode;
use crate::error::invalid_cause;
use crate::request::options::{DeleteOptions, WriteOptions};
use crate::verb::delete::{self, Plan};
use crate::verb::get::existing;

/// Deletes the pod that the path names, with the options that the body gives.
pub(super) fn evict(context: &mut Context<'_>) -> Result<Step, Status> {
    let write = WriteOptions::parse(context.request, "CreateOptions", false)?;
    let eviction = decode::of_kind(context, "policy", "v1", "Eviction", write.validation)?;
    let stated = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !stated.is_empty() && stated != context.path.name {
        let cause =
            invalid_cause("metadata.name", &Value::from(stated), "name in URL does not match name in Eviction object");
        return Err(Status::invalid("policy", "Eviction", stated, vec![cause]));
    }
    let mut options = DeleteOptions::from_value(context.request, &eviction["deleteOptions"])?;
    options.dry_run |= write.dry_run;
    let pod = existing(context)?;
    Ok(match delete::plan(context, pod, &options)? {
        Plan::Answer(_) => Step::Respond(success()),
        Plan::Write(mut proposal) => {
            proposal.finish = Finish::Answer(success());
            Step::Propose(proposal)
        }
    })
}
