//! `metav1.Status`: the error (or bare success) that a client sees.
//!
//! Messages and reasons follow `k8s.io/apimachinery/pkg/api/errors`; clients test the reason, people read the message.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::GroupResource;

/// Why a request failed, as clients test it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// 409: the name is taken.
    AlreadyExists,
    /// 400: the request cannot be understood.
    BadRequest,
    /// 409: the object is not what the request was made for.
    Conflict,
    /// 410: the revision is no longer kept.
    Expired,
    /// 403: the user may not do that, or admission refuses it.
    Forbidden,
    /// 410: the object will not come back.
    Gone,
    /// 500: something in the server went wrong.
    InternalError,
    /// 422: a field is not valid.
    Invalid,
    /// 405: the resource has no such method.
    MethodNotAllowed,
    /// 406: no representation that the client accepts.
    NotAcceptable,
    /// 404: there is no such object.
    NotFound,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 503: nobody can answer now.
    ServiceUnavailable,
    /// 500: the server ran out of time and the request may be tried again.
    ServerTimeout,
    /// 504: the request ran out of time.
    Timeout,
    /// 429: too many requests.
    TooManyRequests,
    /// 401: nobody knows this user.
    Unauthorized,
    /// 415: the body is of a type that is not understood.
    UnsupportedMediaType,
}

/// One of the reasons of a failure, mostly a field that is not valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldManagerConflict`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Which field, as in `spec.containers[0].name`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a status is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource (its kind where the reason is `Invalid`).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every reason of the failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_no_code(code: &u16) -> bool {
    *code == 0
}

/// The body of an answer that is no object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `Success` or `Failure`.
    pub status: String,
    /// What happened, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Why, for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// The HTTP status code; zero for a bare success.
    #[serde(default, skip_serializing_if = "is_no_code")]
    pub code: u16,
}

impl Status {
    /// A failure with a code, a reason (some of Kubernetes' have none) and a message.
    pub fn failure(code: u16, reason: Option<Reason>, message: impl Into<String>) -> Self {
        Self { status: "Failure".into(), message: message.into(), reason, details: None, code }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.details = Some(details);
        self
    }

    /// 404: `<resource> "<name>" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::failure(404, Some(Reason::NotFound), format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// 404 for a path that leads nowhere.
    pub fn unknown_path() -> Self {
        Self::failure(404, Some(Reason::NotFound), "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409: `<resource> "<name>" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::failure(409, Some(Reason::AlreadyExists), format!("{resource} {name:?} already exists"))
            .about(resource, name)
    }

    /// 409: `Operation cannot be fulfilled on <resource> "<name>": <why>`.
    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::failure(409, Some(Reason::Conflict), message).about(resource, name)
    }

    /// The conflict of a stale `resourceVersion`.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// 403: `<resource> "<name>" is forbidden: <why>`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let subject = if name.is_empty() { resource.to_string() } else { format!("{resource} {name:?}") };
        Self::failure(403, Some(Reason::Forbidden), format!("{subject} is forbidden: {why}")).about(resource, name)
    }

    /// 400 with a free text.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::failure(400, Some(Reason::BadRequest), message)
    }

    /// 500: `Internal error occurred: <why>`.
    pub fn internal(why: impl fmt::Display) -> Self {
        let message = format!("Internal error occurred: {why}");
        let cause = Cause { message: why.to_string(), ..Cause::default() };
        Self::failure(500, Some(Reason::InternalError), message)
            .with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() })
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::failure(405, Some(Reason::MethodNotAllowed), message).with_details(StatusDetails::default())
    }

    /// 422: `<Kind>[.group] "<name>" is invalid: <causes>`, with every cause in the details.
    ///
    /// `kind` and `group` are the object's; a cause's message is joined to its field as Kubernetes prints field errors.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let subject = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let each: Vec<String> = causes
            .iter()
            .map(|cause| {
                if cause.field.is_empty() {
                    cause.message.clone()
                } else {
                    format!("{}: {}", cause.field, cause.message)
                }
            })
            .collect();
        let joined = if each.len() == 1 { each[0].clone() } else { format!("[{}]", each.join(", ")) };
        let details = StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..StatusDetails::default()
        };
        Self::failure(422, Some(Reason::Invalid), format!("{subject} {name:?} is invalid: {joined}"))
            .with_details(details)
    }

    /// Whether it is a failure with this reason.
    pub fn is(&self, reason: Reason) -> bool {
        self.reason == Some(reason)
    }

    fn about(self, resource: &GroupResource, name: &str) -> Self {
        self.with_details(StatusDetails {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.resource.to_string(),
            ..StatusDetails::default()
        })
    }

    /// The JSON that a client sees: `kind`, `apiVersion` and an empty `metadata` around it.
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            kind: &'static str,
            api_version: &'static str,
            metadata: serde_json::Map<String, serde_json::Value>,
            #[serde(flatten)]
            status: &'a Status,
        }
        let wire = Wire { kind: "Status", api_version: "v1", metadata: serde_json::Map::new(), status: self };
        serde_json::to_vec(&wire).expect("a status is written to memory")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}
