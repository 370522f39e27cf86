//! Audit: who did what, as Kubernetes writes it down. The policy says what of a request is recorded; here are its rules and the
//! events, as values. Where they go is the driver's business.
//!
//! Source: `k8s.io/apiserver/pkg/audit` and `audit.k8s.io/v1`.

mod policy;

use coracle_api::{Body, Registry, Request, Status, UserInfo, yaml};
use coracle_base::Timestamp;
use coracle_store::View;
use serde_json::{Map, Value, json};

pub use policy::{Level, Policy, Stage};

use crate::ServerOptions;
use crate::authorize::{Access, Attributes, Decision, effective_user};
use crate::request::path::{self, Target};
use crate::request::{Verb, method_word};
use crate::route::resource_attributes;
use policy::Recorded;

/// The longest user agent that is written down (Kubernetes' `maxUserAgentLength`).
const USER_AGENT_MAX: usize = 1024;
/// An event that is longer loses its bodies, as with Kubernetes' `--audit-log-truncate-enabled`.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// What the driver knows of a request beside the request itself.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// The `Audit-Id` of the answer.
    pub id: String,
    /// The path and the query as they came.
    pub uri: String,
    /// Where it came from; empty for a request of the same process.
    pub source: String,
    /// When.
    pub received: Timestamp,
}

/// How a request ended, or began to.
#[derive(Clone, Debug)]
pub enum Answered {
    /// With this code and, where it is kept, this object.
    Code(u16, Option<Value>),
    /// With a failure.
    Failed(Status),
}

/// What is written of one request.
#[derive(Debug)]
pub struct Record {
    recorded: Recorded,
    event: Map<String, Value>,
    received: Timestamp,
}

impl Record {
    /// The record of a request, unless the policy wants none.
    pub fn begin(policy: &Policy, request: &Request, arrival: &Arrival) -> Option<Self> {
        let target = path::parse(&request.path);
        let verb = verb_of(request, &target);
        let recorded = policy.recorded(&request.user, verb, &request.path, &target)?;
        let mut event = Map::new();
        event.insert("kind".into(), json!("Event"));
        event.insert("apiVersion".into(), json!("audit.k8s.io/v1"));
        event.insert("level".into(), json!(recorded.level.as_str()));
        event.insert("auditID".into(), json!(arrival.id));
        event.insert("requestURI".into(), json!(arrival.uri));
        event.insert("verb".into(), json!(verb));
        event.insert("user".into(), user(&request.user));
        if !arrival.source.is_empty() {
            event.insert("sourceIPs".into(), json!([arrival.source]));
        }
        if let Some(agent) = request.user_agent.as_deref().filter(|agent| !agent.is_empty()) {
            event.insert("userAgent".into(), json!(shortened(agent)));
        }
        if let Target::Resource(found) = &target {
            let mut reference = Map::new();
            for (field, value) in [
                ("resource", found.resource.as_str()),
                ("namespace", found.scope()),
                ("name", &found.name),
                ("apiGroup", &found.group),
                ("apiVersion", &found.version),
                ("subresource", &found.subresource),
            ] {
                if !value.is_empty() {
                    reference.insert(field.into(), json!(value));
                }
            }
            event.insert("objectRef".into(), Value::Object(reference));
        }
        event.insert("requestReceivedTimestamp".into(), json!(arrival.received.rfc3339_micro()));
        Some(Self { recorded, event, received: arrival.received })
    }

    /// Whether answers that are objects are to be kept.
    pub fn keeps_answers(&self) -> bool {
        self.recorded.level >= Level::RequestResponse && self.event.contains_key("objectRef")
    }

    /// What is known when the whole request is there: its object, whom it acts as, and whether it may.
    pub fn arrived(&mut self, options: &ServerOptions, view: &View, request: &Request) {
        let access = Access::of(options, view);
        let acts_as = effective_user(access, request);
        if let Ok(acts_as) = &acts_as
            && *acts_as != request.user
        {
            self.event.insert("impersonatedUser".into(), user(acts_as));
        }
        if let Ok(acts_as) = acts_as {
            let decision = decide(access, &Request { user: acts_as, ..request.clone() });
            let word = if decision.allowed { "allow" } else { "forbid" };
            let annotations =
                json!({ "authorization.k8s.io/decision": word, "authorization.k8s.io/reason": decision.reason });
            self.event.insert("annotations".into(), annotations);
        }
        if self.event.contains_key("objectRef")
            && let Some(object) = body(request)
        {
            self.refer_to(&object);
            if self.recorded.level >= Level::Request {
                self.event.insert("requestObject".into(), self.kept(object));
            }
        }
    }

    /// Completes what the path does not say of the object.
    fn refer_to(&mut self, object: &Value) {
        let Some(reference) = self.event.get_mut("objectRef").and_then(Value::as_object_mut) else { return };
        for field in ["namespace", "name", "uid", "resourceVersion"] {
            if let Some(value) = object["metadata"][field].as_str().filter(|value| !value.is_empty()) {
                reference.entry(field).or_insert_with(|| json!(value));
            }
        }
    }

    /// The line of a stage, if the policy wants it.
    pub fn line(&mut self, stage: Stage, answered: Option<Answered>, now: Timestamp) -> Option<String> {
        if let Some(answered) = answered {
            let (status, object) = match answered {
                Answered::Code(code, object) => (json!({ "metadata": {}, "code": code }), object),
                Answered::Failed(status) => (response_status(&status), None),
            };
            self.event.insert("responseStatus".into(), status);
            if let Some(object) = object.filter(|_| self.keeps_answers()) {
                let object = self.kept(object);
                self.event.insert("responseObject".into(), object);
            }
        }
        if self.recorded.omitted.contains(&stage) {
            return None;
        }
        let at = if stage == Stage::RequestReceived { self.received } else { now };
        self.event.insert("stage".into(), json!(stage.as_str()));
        self.event.insert("stageTimestamp".into(), json!(at.rfc3339_micro()));
        let mut line = Value::Object(self.event.clone()).to_string();
        if line.len() > EVENT_BYTES_MAX {
            let mut shorter = self.event.clone();
            shorter.remove("requestObject");
            shorter.remove("responseObject");
            let annotations = shorter.entry("annotations").or_insert_with(|| json!({}));
            annotations["audit.k8s.io/truncated"] = json!("true");
            line = Value::Object(shorter).to_string();
        }
        Some(line)
    }

    /// An object as it is written down.
    fn kept(&self, mut object: Value) -> Value {
        if self.recorded.omits_managed_fields {
            omit_managed_fields(&mut object);
        }
        object
    }
}

/// An object's, or those of a list's or table's objects.
fn omit_managed_fields(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        omit_managed_fields(item);
    }
    for row in object.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(object) = row.get_mut("object") {
            omit_managed_fields(object);
        }
    }
}

fn verb_of(request: &Request, target: &Target) -> &'static str {
    match target {
        Target::Resource(path) => Verb::of(request, path).map_or("", Verb::as_str),
        Target::Path => method_word(request.method),
    }
}

fn decide(access: Access<'_>, request: &Request) -> Decision {
    match path::parse(&request.path) {
        Target::Path => {
            let verb = method_word(request.method);
            access.decide(&request.user, &Attributes::Path { verb, path: &request.path })
        }
        Target::Resource(path) => match Verb::of(request, &path) {
            Some(verb) => resource_attributes(request, &path, verb, |asked| access.decide(&request.user, asked)),
            None => Decision::default(),
        },
    }
}

/// The body as a value, whatever it is written in; none where it cannot be read, which its answer says.
fn body(request: &Request) -> Option<Value> {
    let bytes = match &request.body {
        Body::Empty => return None,
        Body::Value(value) => return Some(value.clone()),
        Body::Bytes(bytes) => bytes,
    };
    let media = request.content_type.as_deref().unwrap_or_default();
    if media.contains("protobuf") {
        return crate::decode::any(&Registry::builtin(), bytes);
    }
    if media.contains("yaml") { yaml::parse(bytes).ok() } else { serde_json::from_slice(bytes).ok() }
}

/// As `authentication.k8s.io/v1` has a user.
fn user(user: &UserInfo) -> Value {
    let mut fields = Map::new();
    if !user.name.is_empty() {
        fields.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        fields.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        fields.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        fields.insert("extra".into(), json!(user.extra));
    }
    Value::Object(fields)
}

/// A failure without what has no bound.
fn response_status(status: &Status) -> Value {
    let whole: Value = serde_json::from_slice(&status.to_json()).unwrap_or_default();
    let mut kept = Map::from_iter([("metadata".to_owned(), json!({}))]);
    for field in ["status", "message", "reason", "details", "code"] {
        if let Some(value) = whole.get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(kept)
}

fn shortened(agent: &str) -> String {
    if agent.len() <= USER_AGENT_MAX {
        return agent.to_owned();
    }
    let cut = (0..=USER_AGENT_MAX).rev().find(|at| agent.is_char_boundary(*at)).unwrap_or(0);
    format!("{}...TRUNCATED", &agent[..cut])
}

#[cfg(test)]
mod tests;
