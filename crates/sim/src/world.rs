//! The driver: a heap of events under a virtual clock, and the machines that they are for.
//!
//! Events of one instant come in the order in which they were made; timers of that instant come after them. Nothing here
//! decides anything about Kubernetes: inputs go to the machines, and what these want is carried out in the world's own way.

mod event_writer;
mod logs;
mod member;
mod mutant;
mod node;
mod request;
mod restore;
mod runtime;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::Response;
use coracle_apiserver::{Resume, ServerOptions};
use coracle_base::{DelayQueue, Instant, Now, Rng, Timestamp};
use coracle_engine::{ControlPlaneOptions, Input};
use coracle_node::RequestId;
use coracle_node::fake::Script;
use coracle_node::runtime::RuntimeEvent;
use coracle_raft::{Config, MemberId, PersistId};
use coracle_store::{Change, StoreOptions, View};

use crate::disk::Disk;
use crate::history::History;
use crate::invariants::{Agreement, Invariants};
use crate::network::Network;
use crate::timeline::Timelines;
use crate::trace::Trace;
use crate::{Mutation, Totals};

pub(crate) use member::Member;
pub(crate) use node::Seat;
pub(crate) use request::{Flow, Origin};
pub use restore::Backup;

/// What sets the draws of the network between members apart from all others of a seed.
const NETWORK: u64 = 0x6e65_7477_6f72_6b00;
/// The same of deliberate faults.
const MUTANT: u64 = 0x6d75_7461_6e74;
/// When every world begins.
const START: &str = "2026-11-22T10:00:00Z";
/// The longest that a request, an answer or a watch event is on its way, in microseconds: a home network's millisecond or two.
const NETWORK_MICROS_MAX: u64 = 2_000;

/// Something that is going to happen.
pub(crate) enum Event {
    /// A member's brain is told something.
    Brain { member: usize, boot: u64, input: Input },
    /// A batch is durable.
    Persisted { member: usize, boot: u64, id: PersistId },
    /// A snapshot is durable.
    Snapshot { member: usize, boot: u64, index: u64, term: u64, bytes: Vec<u8> },
    /// Transactions are forwarded once more, to whoever leads by then.
    ForwardAgain { from: usize, transactions: Vec<(u64, coracle_store::Transaction)>, boot: u64 },
    /// A message of one member reaches another.
    Peer { from: usize, to: usize, bytes: Vec<u8> },
    /// The state of one member is complete on another, in the start that it was sent to.
    State { from: usize, to: usize, boot: u64, message: coracle_raft::Message, index: u64, bytes: Vec<u8> },
    /// A member stops, because it was removed.
    Leave { member: usize, boot: u64 },
    /// A client gives up waiting.
    GiveUp { ticket: crate::history::Ticket },
    /// A client that follows a resource asks a member.
    Follow { follower: usize, attempt: u64 },
    /// It gives up waiting for an answer.
    Unfollow { follower: usize, attempt: u64 },
    /// Its stream has something to tell, if only the time.
    Watch { follower: usize, attempt: u64 },
    /// It is told something.
    Frames { follower: usize, attempt: u64, frames: Vec<Bytes>, closed: bool },
    /// A node looks for a member that answers.
    Reconnect { node: String },
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
    /// A member's nodes are told what has changed.
    Look { member: usize },
}

impl Event {
    /// Whether it is work under way, and not a timer.
    fn is_work(&self) -> bool {
        let timer = matches!(self, Self::Runtime { later: true, .. } | Self::GiveUp { .. } | Self::Reconnect { .. });
        let follows =
            matches!(self, Self::Follow { .. } | Self::Unfollow { .. } | Self::Watch { .. } | Self::Frames { .. });
        // Members always talk.
        !timer && !follows && !matches!(self, Self::Peer { .. } | Self::State { .. } | Self::ForwardAgain { .. })
    }

    /// The member whose process it happens in.
    fn member(&self) -> Option<usize> {
        match self {
            Self::Brain { member, .. } | Self::Persisted { member, .. } | Self::Snapshot { member, .. } => {
                Some(*member)
            }
            Self::Look { member } | Self::Leave { member, .. } => Some(*member),
            Self::Peer { to, .. } | Self::State { to, .. } => Some(*to),
            _ => None,
        }
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
            Self::Persisted { member, id, .. } => write!(f, "disk {} persisted {}", member + 1, id.0),
            Self::Peer { from, to, bytes } => match coracle_engine::PeerMessage::decode(bytes) {
                Ok(coracle_engine::PeerMessage::Raft(message)) => write!(f, "peer {message:?}"),
                other => write!(f, "peer {} -> {} {other:?}", from + 1, to + 1),
            },
            Self::ForwardAgain { from, .. } => write!(f, "{} forwards again", from + 1),
            Self::State { from, to, index, .. } => write!(f, "state {index} of {} on {}", from + 1, to + 1),
            Self::Leave { member, .. } => write!(f, "member {} leaves", member + 1),
            Self::GiveUp { ticket } => write!(f, "client gives up {}", ticket.0),
            Self::Follow { follower, .. } => write!(f, "follower {follower} asks"),
            Self::Unfollow { follower, attempt } => write!(f, "follower {follower} has waited enough in {attempt}"),
            Self::Watch { follower, .. } => write!(f, "stream of follower {follower} wakes"),
            Self::Frames { follower, frames, closed, .. } => {
                write!(
                    f,
                    "follower {follower} hears {} frames{}",
                    frames.len(),
                    if *closed { ", the last" } else { "" }
                )
            }
            Self::Reconnect { node } => write!(f, "{node} reconnects"),
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
            Self::Look { member } => write!(f, "nodes of {} look", member + 1),
        }
    }
}

/// How a world is set up.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    /// After how many bytes of log a snapshot is made, and how many entries stay behind it.
    pub(crate) snapshot_after: usize,
    pub(crate) tail: u64,
    /// The state's bounds.
    pub(crate) store: StoreOptions,
    /// The shortest and longest write of a member's disk.
    pub(crate) disk: (Duration, Duration),
    /// How many of the last events are printed when a run fails.
    pub(crate) trace_lines: usize,
    /// What is deliberately wrong.
    pub(crate) mutation: Option<Mutation>,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) members: Vec<Member>,
    pub(crate) network: Network,
    pub(crate) agreement: Agreement,
    pub(crate) totals: Totals,
    settings: Settings,
    /// The member that the last event was for.
    stepped: Option<usize>,
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
    /// What deliberate faults are drawn from.
    mutant: Rng,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    /// How many of the events are work under way.
    work: usize,
    timers: DelayQueue<String>,
    flows: BTreeMap<u64, Flow>,
    next_flow: u64,
    waiting: request::Waiting,
    pub(crate) followers: Vec<watch::Follower>,
    pub(crate) invariants: Invariants,
    /// The state as it was last looked at.
    seen: View,
}

impl World {
    /// A world with members and nothing else.
    pub(crate) fn new(settings: Settings) -> Self {
        let Settings { seed, members, trace_lines, .. } = settings;
        let mut rng = Rng::seeded(seed);
        let options = Arc::new(ServerOptions { advertise: String::new(), ..ServerOptions::default() });
        let wall = Timestamp::parse(START).expect("a constant");
        let now = Now { mono: Instant::ZERO, wall };
        let voters: Vec<MemberId> = (1..=members as u64).map(MemberId).collect();
        let new =
            |id: &MemberId| Member::new(*id, voters.clone(), Disk::new(settings.disk, settings.mutation), rng.fork());
        let members: Vec<Member> = voters.iter().map(new).collect();
        let network = Network::new(Rng::seeded(seed ^ NETWORK));
        let seen = coracle_store::Store::new(settings.store.clone()).view();
        let mut world = Self {
            now,
            members,
            network,
            agreement: Agreement::default(),
            totals: Totals::default(),
            settings,
            stepped: None,
            seats: BTreeMap::new(),
            scripts: BTreeMap::new(),
            #[cfg(feature = "wasm")]
            images: None,
            history: History::default(),
            timelines: Timelines::default(),
            trace: Trace::keeping(trace_lines),
            steps: 0,
            options,
            rng,
            mutant: Rng::seeded(seed ^ MUTANT),
            events: BTreeMap::new(),
            next_event: 0,
            work: 0,
            timers: DelayQueue::default(),
            flows: BTreeMap::new(),
            next_flow: 0,
            waiting: request::Waiting::new(),
            followers: Vec::new(),
            invariants: Invariants::default(),
            seen,
        };
        for m in 0..world.members.len() {
            world.start_member(m);
        }
        world
    }

    /// A member that is in no group yet; it does not run.
    pub(crate) fn add_member(&mut self, id: MemberId) -> usize {
        let rng = self.rng.fork();
        let disk = Disk::new(self.settings.disk, self.settings.mutation);
        self.members.push(Member::new(id, Vec::new(), disk, rng));
        self.members.len() - 1
    }

    /// Whether this is deliberately wrong.
    fn is_wrong(&self, mutation: Mutation) -> bool {
        self.settings.mutation == Some(mutation)
    }

    /// What everything is drawn from.
    pub(crate) fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// The place of a member in the list.
    #[track_caller]
    pub(crate) fn place(&self, id: MemberId) -> usize {
        self.members.iter().position(|member| member.id == id).unwrap_or_else(|| panic!("there is no member {}", id.0))
    }

    /// The member that leads in the highest term.
    pub(crate) fn leader(&self, among: impl Fn(MemberId) -> bool) -> Option<usize> {
        let leads = |m: &usize| {
            let member = &self.members[*m];
            among(member.id) && member.plane().is_some_and(coracle_engine::ControlPlane::is_leading)
        };
        let term = |m: &usize| self.members[*m].plane().map(|plane| plane.status().term);
        (0..self.members.len()).filter(leads).max_by_key(term)
    }

    /// How a control plane of this world is set up.
    fn plane_options(&self, id: MemberId, voters: Vec<MemberId>, seed: u64) -> ControlPlaneOptions {
        let Settings { snapshot_after, tail, ref store, .. } = self.settings;
        ControlPlaneOptions {
            raft: Config { voters, tail, ..Config::single(id) },
            autopilot: coracle_engine::AutopilotOptions::default(),
            server: Arc::clone(&self.options),
            store: store.clone(),
            controllers: coracle_engine::default_controllers,
            seed,
            snapshot_after,
            feature_level: coracle_engine::FEATURE_LEVEL,
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
    fn travel(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(NETWORK_MICROS_MAX))
    }

    /// Whether nothing is under way: what is left are timers.
    pub(crate) fn is_settled(&self) -> bool {
        self.work == 0 && self.next_due().is_none_or(|due| due > self.now.mono)
    }

    /// When the next event or timer is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let wakeups = self.members.iter().filter_map(Member::next_wakeup);
        let due = [event, self.timers.next()].into_iter().flatten().chain(wakeups).min();
        due.map(|due| due.max(self.now.mono))
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
            let wakeup = |m: &usize| self.members[*m].next_wakeup().map_or((true, Instant::ZERO), |due| (false, due));
            let m = (0..self.members.len()).min_by_key(wakeup);
            let m = m.expect("there is a member");
            self.trace.note(due, format_args!("brain {} timer", m + 1));
            self.step_member(m, Input::Tick);
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
        if let Some(until) = event.member().and_then(|m| self.members[m].paused)
            && until > self.now.mono
        {
            return self.schedule_at(until, event);
        }
        match event {
            Event::Brain { member, boot, input } => {
                if boot == self.members[member].boot {
                    self.step_member(member, input);
                }
            }
            Event::Persisted { member, boot, id } => self.persisted(member, boot, id),
            Event::Snapshot { member, boot, index, term, bytes } => {
                self.snapshot_saved(member, boot, index, term, bytes);
            }
            Event::ForwardAgain { from, transactions, boot } => self.forward_again(from, transactions, boot),
            Event::Peer { from, to, bytes } => self.delivered(from, to, &bytes),
            Event::State { from, to, boot, message, index, bytes } => {
                self.state_arrived((from, to, boot), message, index, bytes);
            }
            Event::Leave { member, boot } => self.leave(member, boot),
            Event::GiveUp { ticket } => {
                let now = self.now.mono;
                self.history.end(now, ticket, crate::history::Outcome::Unknown);
            }
            Event::Follow { follower, attempt } => self.begin_following(follower, attempt),
            Event::Unfollow { follower, attempt } => self.stop_waiting(follower, attempt),
            Event::Watch { follower, attempt } => self.wake_watch(follower, attempt),
            Event::Frames { follower, attempt, frames, closed } => self.frames(follower, attempt, &frames, closed),
            Event::Reconnect { node } => self.reconnect(&node),
            Event::Arrive(flow) => self.arrive(*flow),
            Event::Resume { flow, resume } => self.resume(flow, resume),
            Event::Deadline { flow } => self.deadline(flow),
            Event::Answer { node, agent, id, response } => self.answer_node(&node, agent, id, response),
            Event::Recorded { node, agent, success } => self.event_written(&node, agent, success),
            Event::Runtime { node, power, event, .. } => self.runtime_event(&node, power, event),
            Event::Checkpoint { node, power, bytes } => self.keep_checkpoint(&node, power, bytes),
            Event::Look { member } => self.look(member),
        }
    }

    /// Looks at what the last event changed.
    fn observe(&mut self) {
        let Some(m) = self.stepped.take() else { return };
        if self.members.len() > 1 {
            self.agree(m);
        }
        let Some(view) = self.members[m].serving_view() else { return };
        let revision = view.revision();
        if revision > self.seen.revision() {
            let view = view.clone();
            self.saw(view);
        }
        if std::mem::replace(&mut self.members[m].noted, revision) == revision {
            return;
        }
        self.reached(m, revision);
        self.poll_watches(m);
        if !std::mem::replace(&mut self.members[m].looking, true) {
            let delay = self.travel();
            self.schedule(delay, Event::Look { member: m });
        }
    }

    /// The cluster has moved on.
    fn saw(&mut self, view: View) {
        let before = self.seen.revision();
        let (changes, missed) = changes_since(&view, &self.seen);
        for change in &changes {
            if let Some(object) = change.new.as_ref().or(change.old.as_ref()) {
                self.trace.note(self.now.mono, format_args!("r{} {}", change.revision, object.key()));
            }
            self.trace.bytes(change.new.as_ref().map_or(&[], |object| object.body()));
            self.timelines.changed(self.now.mono, change);
        }
        self.note_for_followers(self.seen.time(), &changes);
        if missed {
            self.followers.iter_mut().for_each(|follower| follower.topic.missed(view.revision()));
        }
        self.seen = view;
        let checked = self.invariants.changed(self.now.mono, before, &self.seen, &changes);
        if let Err(broken) = checked {
            panic!("{broken}");
        }
    }

    /// Looks at whether the members agree, after a step of one of them.
    fn agree(&mut self, m: usize) {
        let member = &self.members[m];
        let Some(plane) = member.plane() else { return };
        let (id, view) = (member.id, plane.view());
        let mut checked = plane.lead_term().map_or(Ok(()), |term| self.agreement.leads(id, term));
        let moved = match &member.checked {
            // After a start, and after a snapshot, the whole state is looked at.
            None => Some(self.agreement.whole(id, view)),
            Some(before) if before.revision() != view.revision() => {
                let (changes, _) = changes_since(view, before);
                Some(self.agreement.changed(id, view, &changes))
            }
            Some(_) => None,
        };
        if let Some(moved) = moved {
            checked = checked.and(moved);
            let view = view.clone();
            self.members[m].checked = Some(view);
        }
        if let Err(broken) = checked {
            panic!("{broken}");
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
/// What happened between two views, and whether some of it is gone already: entries that were committed long after they were made leave
/// the window in the step that applies them, when one of a later time comes with them.
fn changes_since(view: &View, before: &View) -> (Vec<Change>, bool) {
    let after = before.revision();
    let (mut changes, mut missed) = (Vec::new(), false);
    for resource in view.resources().into_iter().chain(before.resources()) {
        if view.last_change(&resource) > after && !changes.iter().any(|change: &Change| of(change, &resource)) {
            match view.changes_after(&resource, after) {
                Ok(found) => changes.extend(found),
                Err(_) => missed = true,
            }
        }
    }
    changes.sort_by_key(|change| change.revision);
    (changes, missed)
}

fn of(change: &Change, resource: &coracle_api::GroupResource) -> bool {
    change.new.as_ref().or(change.old.as_ref()).is_some_and(|object| object.key().resource == *resource)
}
