//! A request as a machine: it runs a verb over a view, proposes what the verb came to, and answers when that is settled.
//!
//! The verbs know nothing of conflicts: when a transaction is refused because the state has moved on, the whole request is run
//! again from the new view, which either succeeds or finds the refusal itself.

mod collection;

use std::sync::Arc;

use coracle_api::{Object, ObjectKey, Registry, Request, Response, Revision, Status};
use coracle_base::{Now, Rng};
use coracle_store::{Applied, Refused, Transaction, View};

use self::collection::Collection;
use crate::answer::{ListMeta, Listing};
use crate::authorize::{Access, effective_user};
use crate::callout::{Asked, Callout};
use crate::context::{Finish, Proposal, Shape, Step};
use crate::route::{self, Routed, Run};
use crate::watcher::Watcher;
use crate::{Heartbeats, ServerOptions, answer, error};

/// How often a request is run again after a conflict.
const RETRIES_MAX: u32 = 5;
/// How often another generated name is tried.
const NAME_RETRIES_MAX: u32 = 8;

/// What a machine is resumed with.
#[derive(Debug)]
pub enum Resume {
    /// Nothing yet: the first call.
    Start,
    /// What became of the transaction that [`Next::Propose`] gave; the view is one that has it.
    Settled(Result<Applied, Refused>),
    /// The proposal could not be settled (no leader, shutting down, time ran out): the answer to give.
    Unsettled(Status),
    /// What became of each transaction of [`Next::ProposeAll`], in their order; the view is one that has them.
    SettledAll(Vec<Proposed>),
    /// The view has reached the revision of [`Next::WaitFor`].
    Reached,
    /// It did not reach it in time (three seconds).
    NotReached,
    /// What came of a callout.
    Called(Result<serde_json::Value, Status>),
}

/// What became of one of several transactions.
#[derive(Debug)]
pub enum Proposed {
    /// It was applied, or refused.
    Settled(Result<Applied, Refused>),
    /// It could not be settled: the answer to give.
    Unsettled(Status),
}

/// What to do next. The machine is over after `Respond`, `List`, `Watch` and `Tunnel`.
#[derive(Debug)]
pub enum Next {
    /// Answer.
    Respond(Response),
    /// Answer with a large list, whose pieces are written as they are taken.
    List(Box<Listing>),
    /// Propose, and resume with [`Resume::Settled`] or [`Resume::Unsettled`].
    Propose(Transaction),
    /// Propose each of these for itself, never as one, and resume with [`Resume::SettledAll`] when all are settled.
    ProposeAll(Vec<Transaction>),
    /// Ask the world, and resume with [`Resume::Called`].
    Call(Callout),
    /// Stream a watch.
    Watch(Box<Watcher>),
    /// Join the client to a byte stream.
    Tunnel(TunnelSpec),
    /// Wait until the view is at this revision.
    WaitFor(Revision),
}

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

/// Which streams a session has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStreams {
    /// To the program.
    pub stdin: bool,
    /// From it.
    pub stdout: bool,
    /// From it; never with `tty`.
    pub stderr: bool,
    /// Whether it is a terminal.
    pub tty: bool,
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
    /// A command in a container, or the container's own streams.
    Session {
        /// The node that runs it.
        node: String,
        /// The pod's namespace, name and uid.
        pod: (String, String, coracle_api::Uid),
        /// The container.
        container: String,
        /// What to run; `None`: the client is attached to what runs.
        command: Option<Vec<String>>,
        /// Which streams the client wants.
        streams: SessionStreams,
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
    options: Arc<ServerOptions>,
    registry: Registry,
    request: Request,
    heartbeats: Heartbeats,
    rng: Rng,
    stage: Stage,
    /// How often it has been run again.
    retries: u32,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is under way.
    Idle,
    /// It waits for a later view.
    Waiting,
    /// A transaction is under way.
    Proposed(Box<Pending>),
    /// A callout is under way.
    Asked(Box<Asked>),
    /// A round of a collection's deletions is under way.
    Deleting(Box<Collection>),
    /// It has answered.
    Over,
}

/// What is needed when a transaction is settled.
#[derive(Debug)]
struct Pending {
    key: ObjectKey,
    finish: Finish,
    generated_name: bool,
    routed: Routed,
}

impl RequestMachine {
    /// A machine for a request; `rng` gives uids and generated names.
    pub fn new(options: Arc<ServerOptions>, request: Request, rng: Rng) -> Self {
        let registry = Registry::builtin();
        let heartbeats = Heartbeats::default();
        Self { options, registry, request, heartbeats, rng, stage: Stage::Idle, retries: 0, warnings: Vec::new() }
    }

    /// What the process knows of nodes' heartbeats: without it nodes have no Leases.
    #[must_use]
    pub fn with_heartbeats(mut self, heartbeats: Heartbeats) -> Self {
        self.heartbeats = heartbeats;
        self
    }

    /// Goes on until the world is needed or the request is over.
    ///
    /// # Panics
    ///
    /// When it is resumed after its end, or with something that it did not ask for: that is a defect of the driver.
    pub fn advance(&mut self, view: &View, now: Now, resume: Resume) -> Next {
        match (std::mem::replace(&mut self.stage, Stage::Over), resume) {
            (Stage::Idle, Resume::Start) => {
                if let Err(status) = self.admit(view) {
                    return self.respond(Response::from(status));
                }
                self.run(view, now, false)
            }
            (Stage::Waiting, Resume::Reached) => self.run(view, now, false),
            (Stage::Waiting, Resume::NotReached) => self.run(view, now, true),
            (Stage::Proposed(pending), Resume::Settled(Ok(applied))) => self.applied(now, *pending, applied),
            (Stage::Proposed(pending), Resume::Settled(Err(refused))) => self.refused(view, now, *pending, refused),
            (Stage::Proposed(_), Resume::Unsettled(status)) => self.respond(Response::from(status)),
            (Stage::Asked(asked), Resume::Called(outcome)) => self.respond(asked.answer(outcome, view, now)),
            (Stage::Deleting(mut collection), Resume::SettledAll(outcomes)) => match collection.settled(outcomes) {
                Ok(()) => self.delete(view, now, collection),
                Err(status) => self.respond(Response::from(status)),
            },
            (stage, resume) => panic!("a request in stage {stage:?} was resumed with {resume:?}"),
        }
    }

    /// What is checked once, before anything else.
    fn admit(&mut self, view: &View) -> Result<(), Status> {
        self.request.user = effective_user(Access::of(&self.options, view), &self.request)?;
        if let coracle_api::Body::Bytes(bytes) = &self.request.body
            && bytes.len() > self.options.max_body
        {
            let message = format!("Request entity too large: limit is {}", self.options.max_body);
            return Err(Status::failure(413, Some(coracle_api::Reason::RequestEntityTooLarge), message));
        }
        Ok(())
    }

    fn run(&mut self, view: &View, now: Now, waited: bool) -> Next {
        self.warnings.clear();
        let mut run = Run {
            options: &self.options,
            registry: &self.registry,
            request: &self.request,
            view,
            heartbeats: &self.heartbeats,
            now,
            rng: &mut self.rng,
            warnings: &mut self.warnings,
            waited,
        };
        match route::run(&mut run) {
            Ok((step, routed)) => self.take(view, now, step, routed),
            Err(status) => self.respond(Response::from(status)),
        }
    }

    fn take(&mut self, view: &View, now: Now, step: Step, routed: Option<Routed>) -> Next {
        match (step, routed) {
            (Step::Respond(response), _) => self.respond(response),
            (Step::List(meta, objects), Some(routed)) => self.list(routed, now, meta, objects),
            (Step::Watch(watcher), _) => Next::Watch(watcher),
            (Step::Tunnel(tunnel), _) => Next::Tunnel(tunnel),
            (Step::Call(callout, asked), _) => {
                self.stage = Stage::Asked(asked);
                Next::Call(callout)
            }
            (Step::WaitFor(revision), _) => {
                self.stage = Stage::Waiting;
                Next::WaitFor(revision)
            }
            (Step::Propose(proposal), Some(routed)) => self.propose(*proposal, routed),
            (Step::DeleteAll(keys, response), Some(routed)) => {
                self.delete(view, now, Box::new(Collection::new(routed, keys, response)))
            }
            (Step::List(..) | Step::Propose(_) | Step::DeleteAll(..), None) => {
                unreachable!("only resources are listed and written")
            }
        }
    }

    fn list(&mut self, routed: Routed, now: Now, meta: ListMeta, objects: Vec<Arc<Object>>) -> Next {
        if !answer::is_written_late(routed.encoding, &objects) {
            let response = routed.presenter(now).list(&meta, &objects);
            return self.respond(response);
        }
        let head = self.finished(answer::head(routed.encoding));
        Next::List(Box::new(Listing::new(head, routed, now, meta, objects)))
    }

    fn propose(&mut self, proposal: Proposal, routed: Routed) -> Next {
        let Proposal { transaction, key, finish, generated_name } = proposal;
        self.stage = Stage::Proposed(Box::new(Pending { key, finish, generated_name, routed }));
        Next::Propose(transaction)
    }

    fn applied(&mut self, now: Now, pending: Pending, applied: Applied) -> Next {
        let Pending { key, finish, routed, .. } = pending;
        let presenter = routed.presenter(now);
        let response = match finish {
            Finish::Answer(response) => response,
            Finish::Removed(value) => {
                let object = Object::new(key, applied.revision, *value, coracle_api::Attributes::new());
                presenter.object(200, &object)
            }
            Finish::Written { code, write, shape } => match applied.objects.get(write) {
                Some(Some(object)) if shape == Shape::Object => presenter.object(code, object),
                Some(Some(object)) => {
                    let value = object.value(Some(&routed.resource().gvk));
                    presenter.value(code, &crate::subresource::scale::scale_of(&value))
                }
                _ => Response::from(Status::internal("the write left no object")),
            },
        };
        self.respond(response)
    }

    fn refused(&mut self, view: &View, now: Now, pending: Pending, refused: Refused) -> Next {
        let retries_max = if pending.generated_name { NAME_RETRIES_MAX } else { RETRIES_MAX };
        // What somebody else took in between is seen in the new view, and refused there with what is wrong.
        if refused.moved_on() && self.retries < retries_max {
            self.retries += 1;
            return self.run(view, now, false);
        }
        let mut status = error::refused(pending.routed.resource(), &pending.key, refused);
        if pending.generated_name && status.is(coracle_api::Reason::AlreadyExists) {
            status.message.push_str(", the server was not able to generate a unique name for the object");
            if let Some(details) = &mut status.details {
                details.retry_after_seconds = 1;
            }
        }
        self.respond(Response::from(status))
    }

    /// Proposes the next round of a collection's deletions, or answers when there is none.
    fn delete(&mut self, view: &View, now: Now, mut collection: Box<Collection>) -> Next {
        let mut run = Run {
            options: &self.options,
            registry: &self.registry,
            request: &self.request,
            view,
            heartbeats: &self.heartbeats,
            now,
            rng: &mut self.rng,
            warnings: &mut self.warnings,
            waited: false,
        };
        match collection.next(&mut run) {
            Ok(transactions) if transactions.is_empty() => self.respond(collection.into_response()),
            Ok(transactions) => {
                self.stage = Stage::Deleting(collection);
                Next::ProposeAll(transactions)
            }
            Err(status) => self.respond(Response::from(status)),
        }
    }

    fn respond(&mut self, response: Response) -> Next {
        Next::Respond(self.finished(response))
    }

    /// The last touches that every answer gets.
    fn finished(&mut self, mut response: Response) -> Response {
        let failed = !response.is_success();
        if response.status == 500 {
            let (method, path, user) = (self.request.method, &self.request.path, &self.request.user.name);
            let body = response.bytes();
            tracing::warn!(?method, path, user, answer = %String::from_utf8_lossy(&body), "a request failed");
        } else {
            tracing::debug!(method = ?self.request.method, path = self.request.path, status = response.status, "answered");
        }
        if failed && crate::request::negotiate::pretty(&self.request) && is_json(&response) {
            response = answer::indented(response);
        }
        if !response.headers.iter().any(|(name, _)| *name == "cache-control") {
            response.headers.push(("cache-control", "no-cache, private".into()));
        }
        for warning in self.warnings.drain(..) {
            response.headers.push(("warning", answer::warning(&warning)));
        }
        response
    }
}

fn is_json(response: &Response) -> bool {
    response.headers.iter().any(|(name, value)| *name == "content-type" && value == "application/json")
}
