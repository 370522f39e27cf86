//! What the API server is told of a pod: its status, one patch at a time, and at the end that it may go.

use std::time::Duration;

use coracle_api::{Fields, Method, Request, Response, Revision, UserInfo};
use coracle_base::{Backoff, Instant};
use serde_json::{Value, json};

use super::setup::Sandbox;
use super::{Context, PodWorker, Step};
use crate::RequestId;
use crate::context::Purpose;
use crate::status::{Condition, StatusParts};

/// The waits between tries to reach the API server.
const RETRY_INITIAL: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is read of an answer.
const VERSION: Fields = Fields::Only(&[("metadata", Fields::Only(&[("resourceVersion", Fields::All)]))]);

/// What was sent and what came of it.
#[derive(Debug)]
pub(super) struct Report {
    conditions: Vec<Condition>,
    /// The status that the API server has, and the revision that wrote it.
    acknowledged: Option<Value>,
    revision: Revision,
    /// The request without an answer.
    in_flight: Option<(RequestId, Sent)>,
    backoff: Backoff,
    /// When what is new goes out: once nothing else happens, or after a refusal.
    due: Option<Instant>,
    /// The status was final before the agent started: it stays as it is.
    frozen: bool,
    /// The pod was deleted, as far as the agent can.
    deleted: bool,
}

#[derive(Debug)]
enum Sent {
    Status(Value),
    Delete,
}

impl Report {
    /// Nothing was sent yet; `status` is what the API server has.
    pub(super) fn new(status: &Value) -> Self {
        Self {
            conditions: Condition::known(status),
            acknowledged: None,
            revision: Revision::default(),
            in_flight: None,
            backoff: Backoff::new(RETRY_INITIAL, RETRY_MAX),
            due: None,
            frozen: false,
            deleted: false,
        }
    }

    pub(super) fn freeze(&mut self) {
        self.frozen = true;
    }

    /// The pod changed in the API: what somebody else wrote over a condition of this node's (that a pod is not Ready because its
    /// node was not heard of) is put right again.
    pub(super) fn compare(&mut self, revision: Revision, status: &Value) {
        let Some(own) = self.acknowledged.as_ref().filter(|_| revision > self.revision) else { return };
        let list = |status: &Value| status["conditions"].as_array().cloned().unwrap_or_default();
        let theirs = list(status);
        let is_there = |own: &Value| theirs.iter().any(|c| c["type"] == own["type"] && c["status"] == own["status"]);
        if !list(own).iter().all(is_there) {
            self.acknowledged = None;
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<Instant> {
        self.due
    }
}

impl PodWorker {
    /// Sends what is new, once nothing else happens and no answer is waited for: what has come together meanwhile goes in one.
    pub(super) fn report(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        if self.gone || self.report.deleted || self.report.in_flight.is_some() {
            return;
        }
        if !context.shared.quiet || self.report.due.is_some_and(|due| due > now.mono) {
            self.report.due.get_or_insert(now.mono);
            return;
        }
        self.report.due = None;
        if !self.report.frozen {
            let mut conditions = std::mem::take(&mut self.report.conditions);
            let status = self.status_parts(&context.shared.config).build(&mut conditions, now.wall);
            self.report.conditions = conditions;
            if self.report.acknowledged.as_ref() != Some(&status) {
                return self.send_status(status, context);
            }
        }
        if self.deleting && self.step == Step::Ended && self.sandbox == Sandbox::Removed {
            self.send_delete(context);
        }
    }

    fn status_parts<'a>(&'a self, config: &'a crate::NodeConfig) -> StatusParts<'a> {
        StatusParts {
            pod: &self.pod,
            config,
            runtime: self.runtime,
            containers: &self.containers,
            address: self.address,
            started_at: self.started_at,
            sandboxed: self.sandbox == Sandbox::Ready,
            initialized: self.initialized,
            ended: self.step == Step::Ended,
            verdict: self.verdict.as_ref(),
        }
    }

    fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.pod.namespace(), self.pod.name())
    }

    fn send_status(&mut self, status: Value, context: &mut Context<'_>) {
        let user = UserInfo::node(&context.shared.config.name);
        let patch = json!({"metadata": {"uid": self.pod.uid.as_str()}, "status": status});
        let request = Request::new(Method::Patch, format!("{}/status", self.path()), user)
            .content_type("application/strategic-merge-patch+json")
            .json(patch);
        let id = context.request(Purpose::Pod(self.pod.uid.clone()), request);
        self.report.in_flight = Some((id, Sent::Status(status)));
    }

    fn send_delete(&mut self, context: &mut Context<'_>) {
        let options = json!({
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": self.pod.uid.as_str()},
        });
        let user = UserInfo::node(&context.shared.config.name);
        let request = Request::new(Method::Delete, self.path(), user).json(options);
        let id = context.request(Purpose::Pod(self.pod.uid.clone()), request);
        self.report.in_flight = Some((id, Sent::Delete));
    }

    /// The API server answered. 404 and 409 mean that it has another pod of this name or none: the watch will say so.
    pub(crate) fn answered(&mut self, id: RequestId, response: &Response, context: &Context<'_>) {
        if self.tokens.answered(id, response, context.now) {
            self.objects_changed = true;
            return;
        }
        let Some((_, sent)) = self.report.in_flight.take_if(|(sent, _)| *sent == id) else { return };
        let settled = response.is_success() || response.status == 404 || response.status == 409;
        if !settled {
            tracing::warn!(pod = %self.pod.key, status = response.status, "the API server refused a report");
            self.report.due = Some(context.now.mono + self.report.backoff.next_wait());
            return;
        }
        self.report.backoff.reset();
        match sent {
            Sent::Status(status) => {
                let written = VERSION.read(&response.bytes()).unwrap_or_default();
                let revision = written["metadata"]["resourceVersion"].as_str().and_then(Revision::parse);
                self.report.revision = revision.unwrap_or_default();
                self.report.acknowledged = Some(status);
                // The watch may have told of a later write already.
                self.report.compare(self.pod.revision, &self.pod.value["status"]);
            }
            Sent::Delete => self.report.deleted = true,
        }
    }
}
