//! Events of parts of the process that are no controllers: counted as others are, written as that part's user.

use std::sync::Arc;

use coracle_api::events::{EventRecord, EventRecorder, EventWrite};
use coracle_api::resources::EVENTS;
use coracle_api::{Method, Request, UserInfo};
use coracle_base::Rng;

use crate::process::Process;

/// Who reports.
#[derive(Debug)]
pub(crate) struct Reporter {
    process: Arc<Process>,
    component: &'static str,
    recorder: EventRecorder,
    rng: Rng,
}

impl Reporter {
    /// A reporter by the name that its events show.
    pub(crate) fn new(process: &Arc<Process>, component: &'static str) -> Self {
        let (process, rng) = (Arc::clone(process), process.fork_rng());
        Self { process, component, recorder: EventRecorder::default(), rng }
    }

    /// Writes an Event; what cannot be written is lost.
    pub(crate) async fn report(&mut self, record: &EventRecord) {
        let now = self.process.now();
        let write = self.recorder.record(self.component, None, record, now, &mut self.rng);
        let (events, user) = (&EVENTS.resource, UserInfo::controller(self.component));
        let request = match write {
            Some(EventWrite::Create { namespace, object }) => {
                Request::new(Method::Post, format!("/api/v1/namespaces/{namespace}/{events}"), user).json(object)
            }
            Some(EventWrite::Count { namespace, name, patch }) => {
                Request::new(Method::Patch, format!("/api/v1/namespaces/{namespace}/{events}/{name}"), user)
                    .content_type("application/merge-patch+json")
                    .json(patch)
            }
            None => return,
        };
        if let Some(status) = self.process.respond(request).await.failure() {
            tracing::debug!(%status, "an event was not recorded");
        }
    }
}
