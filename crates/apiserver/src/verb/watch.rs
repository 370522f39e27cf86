//! GET of a collection with `watch`: where the stream starts.

use std::time::Duration;

use coracle_api::{Revision, Status};

use crate::context::{Context, Step};
use crate::request::negotiate::{Media, not_acceptable};
use crate::request::options::ListOptions;
use crate::verb::get::at_least;
use crate::watcher::{Begin, Watcher};

/// A watch without a `timeoutSeconds` ends after this many seconds at least, and at random up to twice as many.
const TIMEOUT_MIN_SECONDS: u64 = 1800;
/// No watch lasts longer than this, whatever the client asks for: a day.
const TIMEOUT_MAX_SECONDS: u64 = 86_400;

/// Starts the stream.
pub(crate) fn watch(context: &mut Context<'_>) -> Result<Step, Status> {
    let options = ListOptions::parse(context.request, context.resource, context.strategy, true)?;
    if context.encoding.media == Media::Yaml {
        return Err(not_acceptable());
    }
    let revision = options.revision.unwrap_or_default();
    if let Some(step) = at_least(context, revision)? {
        return Ok(step);
    }
    let from_start = revision == Revision(0);
    let begin = match options.send_initial_events {
        Some(true) => Begin::WithCurrent,
        None if from_start => Begin::WithCurrent,
        Some(false) if from_start => Begin::After(context.view.revision()),
        _ => Begin::After(revision),
    };
    let timeout = match options.timeout_seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds.min(TIMEOUT_MAX_SECONDS)),
        None => Duration::from_secs(TIMEOUT_MIN_SECONDS + context.rng.below(TIMEOUT_MIN_SECONDS)),
    };
    let namespace = Some(context.path.namespace.clone()).filter(|namespace| !namespace.is_empty());
    let watcher = Watcher::new(context, options, namespace, begin, timeout);
    Ok(Step::Watch(Box::new(watcher)))
}
