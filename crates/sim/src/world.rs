//! The driver: a heap of events under a virtual clock, and the machines that they are for.
//!
//! Events of one instant come in the order in which they were made; timers of that instant come after them. Nothing here
//! decides anything about Kubernetes: inputs go to the machines, and what these want is carried out in the world's own way.

mod event_writer;
mod logs;
mod member;
mod node;
mod request;
mod runtime;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::Response;
use coracle_apiserver::{Resume, ServerOptions};
use coracle_base::{DelayQueue, Instant, Now, Rng, Timestamp};
use coracle_engine::{ControlPlaneOptions, Input, NodeFeed};
use coracle_node::RequestId;
use coracle_node::fake::Script;
use coracle_node::runtime::RuntimeEvent;
use coracle_raft::{Config, MemberId, PersistId};
use coracle_store::{Change, StoreOptions, View};

use crate::history::History;
use crate::invariants::Invariants;
use crate::timeline::Timelines;
use crate::trace::Trace;

pub(crate) use member::Member;
pub(crate) use node::Seat;
pub(crate) use request::{Flow, Origin};

/// When every world begins.
const START: &str = "2026-11-22T10:00:00Z";
/// The longest that a request, an answer or a watch event is on its way, in microseconds: a home network's millisecond or two.
const NETWORK_MICROS_MAX: u64 = 2_000;

/// Something that is going to happen.
pub(crate) enum Event {
    /// The brain is told something.
    Brain { boot: u64, input: Input },
    /// A batch is durable.
    Persisted { boot: u64, id: PersistId },
    /// A snapshot is durable.
    Snapshot { boot: u64, index: u64, term: u64, bytes: Vec<u8> },
    /// A request reaches the API server.
    Arrive(Box<Flow>),
    /// A request goes on.
    Resume { flow: u64, resume: Resume },
    /// A request has waited long enough for a revision.
    Deadline { flow: u64 },
    /// A node's agent is answered.
    Answer { node: String, agent: u64, id: RequestId, response: Response },
    /// An Event of a node was written, or not.
    Recorded { node: String, agent: u64, success: bool },
    /// Something happens in a node's runtime; `later`: it was only a matter of time, nobody waits for it.
    Runtime { node: String, power: u64, event: RuntimeEvent, later: bool },
    /// A node's checkpoint is durable.
    Checkpoint { node: String, power: u64, bytes: Vec<u8> },
    /// The nodes are told what has changed.
    Look,
}

impl Event {
    /// Whether it is work under way, and not a timer.
    fn is_work(&self) -> bool {
        !matches!(self, Self::Runtime { later: true, .. })
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Brain { input: Input::Answered(id, response), .. } => {
                write!(f, "brain answered {} {}", id.0, response.status)
            }
            Self::Brain { input: Input::Heartbeat(node), .. } => write!(f, "brain heartbeat {node}"),
            Self::Brain { input: Input::Submit(id, transaction), .. } => {
                let writes: Vec<String> = transaction.writes.iter().map(|write| write.key().to_string()).collect();
                write!(f, "brain submit {} {}", id.0, writes.join(", "))
            }
            Self::Brain { input, .. } => write!(f, "brain {input:?}"),
            Self::Persisted { id, .. } => write!(f, "disk persisted {}", id.0),
            Self::Snapshot { index, bytes, .. } => write!(f, "disk snapshot {index} of {} bytes", bytes.len()),
            Self::Arrive(flow) => write!(f, "request {:?} {} of {}", flow.method, flow.path, flow.user),
            Self::Resume { flow, resume } => {
                let how = match resume {
                    Resume::Start => "starts",
                    Resume::Settled(Ok(_)) => "is applied",
                    Resume::Settled(Err(_)) => "is refused",
                    Resume::SettledAll(_) => "has its round settled",
                    _ => "goes on",
                };
                write!(f, "flow {flow} {how}")
            }
            Self::Deadline { flow } => write!(f, "flow {flow} has waited long enough"),
            Self::Recorded { node, success, .. } => write!(f, "{node} event written {success}"),
            Self::Answer { node, response, .. } => write!(f, "{node} answered {}", response.status),
            Self::Runtime { node, event, .. } => match event {
                RuntimeEvent::ContainerStarted { id, result } => write!(f, "{node} started {id} {}", result.is_ok()),
                RuntimeEvent::ContainerExited { id, exit } => write!(f, "{node} exited {id} {}", exit.code),
                RuntimeEvent::ImageReady { image, result, .. } => write!(f, "{node} image {image} {}", result.is_ok()),
                other => write!(f, "{node} {other:?}"),
            },
            Self::Checkpoint { node, bytes, .. } => write!(f, "{node} checkpoint of {} bytes", bytes.len()),
            Self::Look => f.write_str("nodes look"),
        }
    }
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) now: Now,
    pub(crate) member: Member,
    pub(crate) seats: BTreeMap<String, Seat>,
    pub(crate) scripts: BTreeMap<String, Script>,
    /// The modules that nodes run; `None`: their containers follow scripts.
    #[cfg(feature = "wasm")]
    pub(crate) images: Option<coracle_runtime_wasm::simulated::SimulatedImages>,
    pub(crate) history: History,
    pub(crate) timelines: Timelines,
    pub(crate) trace: Trace,
    /// How many events have happened.
    pub(crate) steps: u64,
    options: Arc<ServerOptions>,
    rng: Rng,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// How many of the events are work under way.
    work: usize,
    timers: DelayQueue<String>,
    feed: NodeFeed,
    looking: bool,
    flows: BTreeMap<u64, Flow>,
    next_flow: u64,
    waiting: request::Waiting,
    invariants: Invariants,
    /// The state as it was last looked at.
    seen: View,
}

impl World {
    /// A world with one member and nothing else.
    pub(crate) fn new(seed: u64, snapshot_after: usize) -> Self {
        let mut rng = Rng::seeded(seed);
        let options = Arc::new(ServerOptions { advertise: String::new(), ..ServerOptions::default() });
        let wall = Timestamp::parse(START).expect("a constant");
        let now = Now { mono: Instant::ZERO, wall };
        let member = Member::new(rng.fork(), snapshot_after);
        let seen = coracle_store::Store::new(StoreOptions::default()).view();
        let mut world = Self {
            seed,
            now,
            member,
            seats: BTreeMap::new(),
            scripts: BTreeMap::new(),
            #[cfg(feature = "wasm")]
            images: None,
            history: History::default(),
            timelines: Timelines::default(),
            trace: Trace::default(),
            steps: 0,
            options,
            rng,
            events: BTreeMap::new(),
            next_event: 0,
            work: 0,
            timers: DelayQueue::default(),
            feed: NodeFeed::default(),
            looking: false,
            flows: BTreeMap::new(),
            next_flow: 0,
            waiting: request::Waiting::new(),
            invariants: Invariants::default(),
            seen,
        };
        world.start_member();
        world
    }

    /// How a control plane of this world is set up.
    fn plane_options(&self, seed: u64, snapshot_after: usize) -> ControlPlaneOptions {
        ControlPlaneOptions {
            raft: Config::single(MemberId(1)),
            autopilot: coracle_engine::AutopilotOptions::default(),
            server: Arc::clone(&self.options),
            store: StoreOptions::default(),
            controllers: coracle_engine::default_controllers,
            seed,
            snapshot_after,
        }
    }

    /// The state as everybody reads it; while the member is down, as it last was.
    pub(crate) fn view(&self) -> &View {
        &self.seen
    }

    /// Makes something happen after a time.
    pub(crate) fn schedule(&mut self, after: Duration, event: Event) {
        self.schedule_at(self.now.mono + after, event);
    }

    fn schedule_at(&mut self, at: Instant, event: Event) {
        self.work += usize::from(event.is_work());
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    /// How long something is on its way this time.
    fn network(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(NETWORK_MICROS_MAX))
    }

    /// Whether nothing is under way: what is left are timers.
    pub(crate) fn is_settled(&self) -> bool {
        self.work == 0 && self.next_due().is_none_or(|due| due > self.now.mono)
    }

    /// When the next event or timer is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        [event, self.timers.next(), self.member.next_wakeup()]
            .into_iter()
            .flatten()
            .min()
            .map(|due| due.max(self.now.mono))
    }

    /// Lets time pass to an instant at which nothing happens.
    pub(crate) fn pass_to(&mut self, at: Instant) {
        self.now = self.now.after(at.saturating_since(self.now.mono));
    }

    /// Does the next thing, if it is due by `until`; then the invariants are looked at.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let Some(due) = self.next_due().filter(|due| *due <= until) else { return false };
        self.pass_to(due);
        self.steps += 1;
        if let Some(event) = self.pop() {
            self.trace.note(due, format_args!("{event:?}"));
            self.happen(event);
        } else if let Some(node) = self.timers.pop(due) {
            self.trace.note(due, format_args!("{node} timer"));
            self.tick_node(&node);
        } else {
            self.trace.note(due, format_args!("brain timer"));
            self.step_member(Input::Tick);
        }
        self.observe();
        true
    }

    fn pop(&mut self) -> Option<Event> {
        let first = self.events.first_entry().filter(|entry| entry.key().0 <= self.now.mono)?;
        let event = first.remove();
        self.work -= usize::from(event.is_work());
        Some(event)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Brain { boot, input } => {
                if boot == self.member.boot {
                    self.step_member(input);
                }
            }
            Event::Persisted { boot, id } => self.persisted(boot, id),
            Event::Snapshot { boot, index, term, bytes } => self.snapshot_saved(boot, index, term, bytes),
            Event::Arrive(flow) => self.arrive(*flow),
            Event::Resume { flow, resume } => self.resume(flow, resume),
            Event::Deadline { flow } => self.deadline(flow),
            Event::Answer { node, agent, id, response } => self.answer_node(&node, agent, id, response),
            Event::Recorded { node, agent, success } => self.event_written(&node, agent, success),
            Event::Runtime { node, power, event, .. } => self.runtime_event(&node, power, event),
            Event::Checkpoint { node, power, bytes } => self.keep_checkpoint(&node, power, bytes),
            Event::Look => self.look(),
        }
    }

    /// Looks at what the last event changed.
    fn observe(&mut self) {
        let Some(view) = self.member.serving_view() else { return };
        let before = self.seen.revision();
        if view.revision() == before {
            return;
        }
        let view = view.clone();
        let changes = changes_since(&view, &self.seen);
        for change in &changes {
            if let Some(object) = change.new.as_ref().or(change.old.as_ref()) {
                self.trace.note(self.now.mono, format_args!("r{} {}", change.revision, object.key()));
            }
            self.trace.bytes(change.new.as_ref().map_or(&[], |object| object.body()));
            self.timelines.changed(self.now.mono, change);
        }
        self.seen = view;
        let checked = self.invariants.changed(self.now.mono, before, &self.seen, &changes);
        if let Err(broken) = checked {
            panic!("{broken}");
        }
        self.reached();
        if !std::mem::replace(&mut self.looking, true) {
            let delay = self.network();
            self.schedule(delay, Event::Look);
        }
    }

    /// Looks at what must hold when nothing is under way any more.
    pub(crate) fn check_converged(&self) {
        if let Err(broken) = Invariants::converged(&self.seen) {
            panic!("{broken}");
        }
    }
}

/// What happened between two views, in the order of revisions.
fn changes_since(view: &View, before: &View) -> Vec<Change> {
    let after = before.revision();
    let mut changes = Vec::new();
    for resource in view.resources().into_iter().chain(before.resources()) {
        if view.last_change(&resource) > after && !changes.iter().any(|change: &Change| of(change, &resource)) {
            changes.extend(view.changes_after(&resource, after).unwrap_or_default());
        }
    }
    changes.sort_by_key(|change| change.revision);
    changes
}

fn of(change: &Change, resource: &coracle_api::GroupResource) -> bool {
    change.new.as_ref().or(change.old.as_ref()).is_some_and(|object| object.key().resource == *resource)
}
