//! A request as a machine.

use coracle_api::{Request, Response, Revision, Status};
use coracle_base::{Now, Rng};
use coracle_store::{Applied, Refused, Transaction, View};
use std::sync::Arc;

use crate::ServerOptions;

/// What a machine is resumed with.
#[derive(Debug)]
pub enum Resume {
    /// Nothing yet: the first call.
    Start,
    /// What became of the transaction that [`Next::Propose`] gave; the view is one that has it.
    Settled(Result<Applied, Refused>),
    /// The proposal could not be settled (no leader, shutting down, time ran out): the answer to give.
    Unsettled(Status),
    /// The view has reached the revision of [`Next::WaitFor`].
    Reached,
    /// It did not reach it in time (three seconds).
    NotReached,
    /// What came of a callout.
    Called(Result<serde_json::Value, Status>),
}

/// What to do next. The machine is over after `Respond`, `Watch` and `Tunnel`.
#[derive(Debug)]
pub enum Next {
    /// Answer.
    Respond(Response),
    /// Propose, and resume with [`Resume::Settled`] or [`Resume::Unsettled`].
    Propose(Transaction),
    /// Ask the world, and resume with [`Resume::Called`].
    Call(Callout),
    /// Stream a watch.
    Watch(Box<crate::machine::WatchStart>),
    /// Join the client to a byte stream.
    Tunnel(TunnelSpec),
    /// Wait until the view is at this revision.
    WaitFor(Revision),
}

/// Placeholder of the watch machine.
#[derive(Debug)]
pub struct WatchStart;

/// A question to the world, as plain data: webhooks, token reviews and signing come here.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Callout {}

/// Which part of a container's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep sending what comes.
    pub follow: bool,
    /// The instance before the current one.
    pub previous: bool,
    /// Coracle's own `instance` parameter: `first` or `1` (latest ended) to `5`.
    pub instance: Option<String>,
    /// Only what is newer, in seconds.
    pub since_seconds: Option<i64>,
    /// Only what is newer than a time.
    pub since_time: Option<coracle_base::Timestamp>,
    /// At most so many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// A time in front of each line.
    pub timestamps: bool,
    /// `Stdout` or `Stderr` alone.
    pub stream: Option<String>,
}

/// A byte stream that the driver joins to the client; everything about it is checked already.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelSpec {
    /// A container's log.
    Log {
        /// The node that has it.
        node: String,
        /// The pod's namespace, name and uid.
        pod: (String, String, coracle_api::Uid),
        /// The container.
        container: String,
        /// Which part.
        options: LogOptions,
    },
    /// A port-forward session of a pod (WebSocket with SPDY inside, or WebSocket channels with `ports`).
    PortForward {
        /// The node that runs it.
        node: String,
        /// The pod's namespace, name and uid.
        pod: (String, String, coracle_api::Uid),
        /// The ports of the query, for the WebSocket channel protocol.
        ports: Vec<u16>,
    },
    /// An HTTP request passed on to a pod or a service.
    Proxy {
        /// Namespace.
        namespace: String,
        /// `pods` or `services`.
        resource: String,
        /// The name.
        name: String,
        /// The port, by number or name, where given.
        port: Option<String>,
        /// Whether the target speaks TLS.
        https: bool,
        /// The path behind `/proxy`.
        path: String,
    },
}

/// One request on its way.
#[derive(Debug)]
pub struct RequestMachine {
    _private: (),
}

#[expect(unused_variables, clippy::todo, reason = "being written")]
impl RequestMachine {
    /// A machine for a request; `rng` gives uids and generated names.
    pub fn new(options: Arc<ServerOptions>, request: Request, rng: Rng) -> Self {
        todo!()
    }

    /// Goes on until the world is needed or the request is over.
    pub fn advance(&mut self, view: &View, now: Now, resume: Resume) -> Next {
        todo!()
    }
}
