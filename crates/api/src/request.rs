//! Requests and responses as plain values: what a driver reads off a socket, and what a controller returns.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use crate::Status;

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Method {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user's name, as in `admin` or `system:controller:deployment-controller`.
    pub name: String,
    /// The user's uid, mostly empty.
    pub uid: String,
    /// The groups the user is in.
    pub groups: Vec<String>,
    /// What the authenticator knows beside.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..Self::default() }
    }

    /// A user in `system:masters`, who may do everything.
    pub fn admin(name: &str) -> Self {
        let groups = vec!["system:masters".into(), "system:authenticated".into()];
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// A controller of the control plane: `system:controller:<name>`.
    pub fn controller(name: &str) -> Self {
        Self::admin(&format!("system:controller:{name}"))
    }

    /// A node's agent: `system:node:<name>`.
    pub fn node(name: &str) -> Self {
        let groups = vec!["system:nodes".into(), "system:authenticated".into()];
        Self { name: format!("system:node:{name}"), groups, ..Self::default() }
    }
}

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Body {
    /// No body.
    #[default]
    Empty,
    /// Bytes in the request's content type.
    Bytes(Bytes),
    /// A value that never was bytes: a request made in the process. It counts as JSON.
    Value(Value),
}

/// A request, as plain data.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, percent-decoded, without the query.
    pub path: String,
    /// The query's pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// `Content-Type`, whole.
    pub content_type: Option<String>,
    /// `Accept`, whole.
    pub accept: Option<String>,
    /// `User-Agent`, whole: the default field manager is its part before `/`.
    pub user_agent: Option<String>,
    /// Other headers that a handler may read, names in lower case (`if-none-match`, `impersonate-user`, ...).
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Body,
    /// Who asks.
    pub user: UserInfo,
}

impl Request {
    /// A request made in the process: JSON in, JSON out.
    pub fn new(method: Method, path: impl Into<String>, user: UserInfo) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            content_type: None,
            accept: None,
            user_agent: None,
            headers: Vec::new(),
            body: Body::Empty,
            user,
        }
    }

    /// Adds a pair to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Sets the body to a value; the content type is JSON unless one is given.
    #[must_use]
    pub fn json(mut self, value: Value) -> Self {
        self.body = Body::Value(value);
        self.content_type.get_or_insert_with(|| "application/json".into());
        self
    }

    /// Sets the content type.
    #[must_use]
    pub fn content_type(mut self, content_type: &str) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a header; `name` is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A whole response, as plain data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status code.
    pub status: u16,
    /// The headers, names in lower case; `content-type` is among them where there is a body.
    pub headers: Vec<(&'static str, String)>,
    /// The body in pieces, so that a list is not copied together.
    pub body: Vec<Bytes>,
}

impl Response {
    /// A JSON response of bytes that are JSON already.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, headers: vec![("content-type", "application/json".into())], body: vec![body.into()] }
    }

    /// A plain text response.
    pub fn text(status: u16, body: impl Into<Bytes>) -> Self {
        let headers = vec![("content-type", "text/plain; charset=utf-8".into())];
        Self { status, headers, body: vec![body.into()] }
    }

    /// Whether the status code is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body in one piece.
    pub fn bytes(&self) -> Bytes {
        match self.body.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => many.concat().into(),
        }
    }

    /// The body as a value; null when it is no JSON.
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.bytes()).unwrap_or(Value::Null)
    }

    /// The body as a `Status`, when the response is a failure.
    pub fn failure(&self) -> Option<Status> {
        if self.is_success() {
            return None;
        }
        let bytes = self.bytes();
        let text = || Status::failure(self.status, None, String::from_utf8_lossy(&bytes).into_owned());
        Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }
}

impl From<Status> for Response {
    fn from(status: Status) -> Self {
        let code = if status.code == 0 { 200 } else { status.code };
        let mut response = Self::json(code, status.to_json());
        if let Some(details) = &status.details
            && details.retry_after_seconds > 0
        {
            response.headers.push(("retry-after", details.retry_after_seconds.to_string()));
        }
        response
    }
}
