//! A loop that owns a store, applies transactions at once and runs request machines to their end.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use coracle_api::{Body, Method, Request, Response, UserInfo};
use coracle_apiserver::{
    Callout, Heartbeats, Next, Proposed, RequestMachine, Resume, ServerOptions, TunnelSpec, Watcher,
};
use coracle_base::{Instant, Now, Rng, Timestamp};
use coracle_store::{Applied, Entry, Refused, Store, StoreOptions, Transaction, View};
use serde_json::{Value, json};

/// How a request ended.
#[derive(Debug)]
pub(crate) enum Reply {
    /// With an answer.
    Response(Response),
    /// With a stream of events.
    Watch(Box<Watcher>),
    /// With a stream of bytes.
    Tunnel(TunnelSpec),
}

/// What a driver without a key of its own says: tokens are not signed, and only their claims are read.
fn answer(callout: Callout) -> Value {
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    match callout {
        Callout::SignToken { claims } => format!("head.{}.signature", base64.encode(claims.to_string())).into(),
        Callout::CheckToken { token } => {
            let claims = token.split('.').nth(1).and_then(|claims| base64.decode(claims).ok());
            let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
            claims.map_or(Value::Null, |claims| json!({ "claims": claims }))
        }
        other => panic!("nobody answers {other:?}"),
    }
}

/// A server without a driver.
#[derive(Debug)]
pub(crate) struct Server {
    store: Store,
    options: Arc<ServerOptions>,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) rng: Rng,
    pub(crate) now: Now,
    /// What nodes say of what they use.
    pub(crate) usage: Value,
    /// Runs between a proposal and its application, once: what another client does in between.
    meanwhile: Option<Transaction>,
    /// How many transactions were applied.
    pub(crate) applied: usize,
}

impl Server {
    /// A server with the namespaces that every cluster has.
    pub(crate) fn new() -> Self {
        let wall = Timestamp::parse("2026-11-22T10:31:08Z").unwrap();
        let mut server = Self {
            store: Store::new(StoreOptions::default()),
            options: Arc::new(ServerOptions::default()),
            heartbeats: Heartbeats::default(),
            rng: Rng::seeded(7),
            now: Now { mono: Instant::from_nanos(1), wall },
            usage: json!([]),
            meanwhile: None,
            applied: 0,
        };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let body = json!({"metadata": {"name": name}});
            server.ok(Method::Post, "/api/v1/namespaces", body);
            let account = json!({"metadata": {"name": "default"}});
            server.ok(Method::Post, &format!("/api/v1/namespaces/{name}/serviceaccounts"), account);
        }
        server
    }

    /// The current state.
    pub(crate) fn view(&self) -> View {
        self.store.view()
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    /// What another client does between the next proposal and its application.
    pub(crate) fn meanwhile(&mut self, transaction: Transaction) {
        self.meanwhile = Some(transaction);
    }

    /// Runs a request to its end.
    pub(crate) fn run(&mut self, request: Request) -> Reply {
        let mut machine = RequestMachine::new(self.options.clone(), request, self.rng.fork());
        machine = machine.with_heartbeats(self.heartbeats.clone());
        let mut resume = Resume::Start;
        loop {
            match machine.advance(&self.store.view(), self.now, resume) {
                Next::Respond(response) => return Reply::Response(response),
                Next::List(listing) => return Reply::Response(listing.into_response()),
                Next::Watch(watcher) => return Reply::Watch(watcher),
                Next::Tunnel(tunnel) => return Reply::Tunnel(tunnel),
                Next::Propose(transaction) => {
                    if let Some(other) = self.meanwhile.take() {
                        self.apply(other).unwrap();
                    }
                    resume = Resume::Settled(self.apply(transaction));
                }
                Next::ProposeAll(transactions) => {
                    if let Some(other) = self.meanwhile.take() {
                        self.apply(other).unwrap();
                    }
                    let settled = transactions.into_iter().map(|one| Proposed::Settled(self.apply(one)));
                    resume = Resume::SettledAll(settled.collect());
                }
                Next::WaitFor(_) => resume = Resume::NotReached,
                Next::Call(Callout::Usage) => resume = Resume::Called(Ok(self.usage.clone())),
                Next::Call(callout) => resume = Resume::Called(Ok(answer(callout))),
            }
        }
    }

    /// What a request proposes first, without applying it.
    #[track_caller]
    pub(crate) fn proposed(&mut self, request: Request) -> Transaction {
        let mut machine = RequestMachine::new(self.options.clone(), request, self.rng.fork());
        match machine.advance(&self.store.view(), self.now, Resume::Start) {
            Next::Propose(transaction) => transaction,
            other => panic!("not a proposal: {other:?}"),
        }
    }

    fn apply(&mut self, transaction: Transaction) -> Result<Applied, Refused> {
        let entry = Entry { transactions: vec![transaction], ..Entry::at(self.now.wall) };
        self.applied += 1;
        self.store.apply(1, &entry).remove(0)
    }

    /// Runs a request that is answered.
    #[track_caller]
    pub(crate) fn response(&mut self, request: Request) -> Response {
        match self.run(request) {
            Reply::Response(response) => response,
            other => panic!("not an answer: {other:?}"),
        }
    }

    /// Runs a request of the administrator with a value as its body, and gives the answer.
    #[track_caller]
    pub(crate) fn send(&mut self, method: Method, path: &str, body: Value) -> Response {
        let mut request = request(method, path);
        if !body.is_null() {
            request = request.json(body);
        }
        self.response(request)
    }

    /// The same for a request that succeeds; gives the answer's body.
    #[track_caller]
    pub(crate) fn ok(&mut self, method: Method, path: &str, body: Value) -> Value {
        let response = self.send(method, path, body);
        assert!(response.is_success(), "{path}: {}", String::from_utf8_lossy(&response.bytes()));
        response.value()
    }

    /// The same for a request that fails; gives the code and the message.
    #[track_caller]
    pub(crate) fn fails(&mut self, method: Method, path: &str, body: Value) -> (u16, String) {
        let response = self.send(method, path, body);
        let status = response.failure().unwrap_or_else(|| panic!("{path} succeeded"));
        (response.status, status.message)
    }

    /// GET.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Value {
        self.ok(Method::Get, path, Value::Null)
    }

    /// A merge patch.
    #[track_caller]
    pub(crate) fn merge(&mut self, path: &str, patch: Value) -> Response {
        self.response(request(Method::Patch, path).content_type("application/merge-patch+json").json(patch))
    }

    /// A watch.
    #[track_caller]
    pub(crate) fn watch(&mut self, path: &str) -> Box<Watcher> {
        match self.run(request(Method::Get, path)) {
            Reply::Watch(watcher) => watcher,
            other => panic!("not a watch: {other:?}"),
        }
    }

    /// What a watch has to tell, as values, and whether it has closed.
    pub(crate) fn poll(&mut self, watcher: &mut Watcher) -> (Vec<Value>, bool) {
        let mut events = Vec::new();
        loop {
            let poll = watcher.poll(&self.store.view(), self.now);
            events.extend(poll.frames.iter().map(|frame| serde_json::from_slice::<Value>(frame).unwrap()));
            if poll.closed || poll.wake_at != Some(self.now.mono) {
                return (events, poll.closed);
            }
        }
    }
}

/// A request of the administrator; the path may have a query.
pub(crate) fn request(method: Method, path: &str) -> Request {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut admin = UserInfo::admin("admin");
    admin.uid = "admin".into();
    let mut request = Request::new(method, path, admin);
    request.user_agent = Some("probe/1".into());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        request = request.query(name, decoded(value));
    }
    request
}

/// A body of bytes.
pub(crate) fn bytes(text: &str) -> Body {
    Body::Bytes(text.as_bytes().to_vec().into())
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex: Vec<u8> = bytes.by_ref().take(2).collect();
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).unwrap()
}

/// The ConfigMaps of the namespace that tests write to.
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A ConfigMap with one value.
pub(crate) fn config_map(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": value}})
}

/// The names of a list.
pub(crate) fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().into()).collect()
}
