//! What the audit log is told of a request on its way through.

use std::sync::Arc;

use axum::body::Body;
use coracle_api::{Reason, Request, Status, UserInfo};
use coracle_apiserver::audit::{Answered, Arrival, Record, Stage};
use http::Response;
use http::request::Parts;

use super::{Outside, body, header, method, query};
use crate::audit::AuditLog;
use crate::process::Process;

/// The record of a request; none where nothing is to be recorded.
pub(super) struct Audited(Option<Recording>);

struct Recording {
    log: Arc<AuditLog>,
    process: Arc<Process>,
    record: Record,
    /// How the answer begins, where that is known before it is made.
    answered: Option<Answered>,
    /// The answer goes on after its head.
    is_stream: bool,
}

impl Audited {
    /// A request is here, from this user.
    pub(super) async fn begin(process: &Arc<Process>, parts: &Parts, id: &str, path: &str, user: &UserInfo) -> Self {
        let Some(log) = &process.audit else { return Self(None) };
        let Ok(method) = method(&parts.method) else { return Self(None) };
        let mut request = Request::new(method, path, user.clone());
        request.query = query(parts.uri.query().unwrap_or_default());
        request.user_agent = header(&parts.headers, "user-agent");
        let arrival = Arrival {
            id: id.to_owned(),
            uri: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
            source: parts.extensions.get::<Outside>().map(|outside| outside.from.to_string()).unwrap_or_default(),
            received: process.now().wall,
        };
        let Some(mut record) = Record::begin(&log.policy, &request, &arrival) else { return Self(None) };
        log.write(record.line(Stage::RequestReceived, None, arrival.received)).await;
        let (log, process) = (Arc::clone(log), Arc::clone(process));
        Self(Some(Recording { log, process, record, answered: None, is_stream: false }))
    }

    /// The whole request is here.
    pub(super) fn arrived(&mut self, request: &Request) {
        if let Some(Recording { process, record, .. }) = &mut self.0 {
            record.arrived(&process.options, &process.view(), request);
        }
    }

    /// Whether the answer's object is wanted.
    pub(super) fn keeps_answers(&self) -> bool {
        self.0.as_ref().is_some_and(|recording| recording.record.keeps_answers())
    }

    /// It is answered with a whole response.
    pub(super) fn answered(&mut self, response: &coracle_api::Response) {
        let Some(recording) = &mut self.0 else { return };
        let object = || recording.record.keeps_answers().then(|| response.value()).filter(|object| !object.is_null());
        let answered = response.failure().map(Answered::Failed);
        recording.answered = Some(answered.unwrap_or_else(|| Answered::Code(response.status, object())));
    }

    /// It is answered with a stream.
    pub(super) fn streams(&mut self) {
        if let Some(recording) = &mut self.0 {
            recording.is_stream = true;
        }
    }

    /// What is known of the answer when its head goes out. The end of a stream is recorded when its body is dropped.
    pub(super) async fn ended(self, answer: Result<Response<Body>, Status>) -> Result<Response<Body>, Status> {
        let Some(mut recording) = self.0 else { return answer };
        let answered = match (&answer, recording.answered.take()) {
            (Err(status), _) => Answered::Failed(status.clone()),
            (Ok(_), Some(answered)) => answered,
            (Ok(response), None) => Answered::Code(response.status().as_u16(), None),
        };
        let now = recording.process.now().wall;
        if recording.is_stream
            && let Ok(response) = answer
        {
            let line = recording.record.line(Stage::ResponseStarted, Some(answered), now);
            recording.log.write(line).await;
            return Ok(response.map(|body| body::holding(body, Some(Ending(recording)))));
        }
        let line = recording.record.line(Stage::ResponseComplete, Some(answered), now);
        recording.log.write(line).await;
        answer
    }
}

/// Writes the end of a stream when it is dropped.
struct Ending(Recording);

impl Drop for Ending {
    fn drop(&mut self) {
        let now = self.0.process.now().wall;
        let line = self.0.record.line(Stage::ResponseComplete, None, now);
        self.0.log.write_now(line);
    }
}

/// Somebody whom nobody knows was sent away.
pub(super) async fn sent_away(process: &Arc<Process>, parts: &Parts, id: &str, status: Status) -> Status {
    let nobody = UserInfo::default();
    let mut audited = Audited::begin(process, parts, id, parts.uri.path(), &nobody).await;
    if let Some(recording) = &mut audited.0 {
        let message = "Authentication failed, attempted: bearer";
        recording.answered = Some(Answered::Failed(Status::failure(401, Some(Reason::Unauthorized), message)));
    }
    // Without a body: the answer is the status.
    let _ = audited.ended(Ok(Response::new(Body::empty()))).await;
    status
}
