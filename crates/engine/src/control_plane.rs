//! One member's brain: consensus, the state, and (while it leads) the controllers and the scheduler.

mod propose;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_api::registry::Registry;
use coracle_api::settings::{ClusterSettings, SettingsObject};
use coracle_api::{GroupResource, Revision};
use coracle_apiserver::ServerOptions;
use coracle_base::{Instant, Now, Rng, Timestamp};
use coracle_controllers::{Controller, Manager};
use coracle_raft as raft;
use coracle_store::{Entry, Store, StoreOptions, View};

use crate::autopilot::{self, Autopilot, AutopilotOptions};
use crate::feature_level::Levels;
use crate::forward::{Accepted, Forwards};
use crate::key_values::Removal;
use crate::leader::Leader;
use crate::members::{MEMBERS, MemberRecord, Wants};
use crate::{Input, Output, PeerMessage, Settled};

use propose::{Batch, Pending};

/// What sets the number of a start apart from all else that is drawn from its seed.
const BOOT: u64 = 0xb007;
/// The read by which a member learns that its view has everything that was acknowledged before it was started.
const OWN_READ: raft::ReadId = raft::ReadId(u64::MAX);
/// How long a learner hears of nobody before it asks whether it still belongs to the group, and how often it asks.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How large the log behind the last snapshot becomes: a start reads no more than that, and a snapshot is not made for little.
pub const SNAPSHOT_AFTER_BYTES: usize = 64 << 20;

/// How a control plane is set up.
#[derive(Debug)]
pub struct ControlPlaneOptions {
    /// This member and its peers.
    pub raft: raft::Config,
    /// The API server's settings.
    pub server: Arc<ServerOptions>,
    /// The state's bounds.
    pub store: StoreOptions,
    /// Makes the controllers of a new lead.
    pub controllers: fn(&ServerOptions, &mut Rng) -> Vec<Box<dyn Controller>>,
    /// For everything that is drawn.
    pub seed: u64,
    /// How patient the leader is with its peers.
    pub autopilot: AutopilotOptions,
    /// A snapshot is made when the log behind the last one is so many bytes large: [`SNAPSHOT_AFTER_BYTES`] but in tests.
    pub snapshot_after: usize,
    /// What this member's program knows: [`crate::FEATURE_LEVEL`] but in tests.
    pub feature_level: u32,
}

/// The controllers that Coracle runs.
pub fn default_controllers(options: &ServerOptions, rng: &mut Rng) -> Vec<Box<dyn Controller>> {
    coracle_controllers::all(&options.ca_certificate, rng)
}

/// What a member had before it was started again.
#[derive(Debug)]
pub struct Restored {
    /// The state of the last snapshot.
    pub store: Option<Store>,
    /// The log behind it.
    pub raft: raft::Restored,
}

/// One member's brain.
#[derive(Debug)]
pub struct ControlPlane {
    pub(crate) options: ControlPlaneOptions,
    pub(crate) levels: Levels,
    pub(crate) removal: Removal,
    registry: Registry,
    raft: raft::Member,
    store: Store,
    view: View,
    rng: Rng,
    leader: Option<Leader>,
    /// The term of the lead, from the election on; `leader` is there once the term's first entry is applied.
    leading: Option<u64>,
    next_action: u64,
    /// What waits to be proposed here, or to be forwarded.
    pending: VecDeque<Pending>,
    batches: BTreeMap<raft::ProposalId, Batch>,
    next_batch: u64,
    forwards: Forwards,
    accepted: Accepted,
    autopilot: Autopilot,
    /// When the leader looks at its group again.
    next_look: Instant,
    /// Whether the view has everything that was acknowledged before this start, and whether that is being asked for.
    current: bool,
    asking: bool,
    /// When another member was last heard of, or asked whether this one still belongs to the group.
    heard: Instant,
    /// Whether this member was in the group when that was last looked at.
    belonged: bool,
    /// The state that another member sent, while the step that installs it is made.
    coming: Option<Box<Store>>,
    last_time: Timestamp,
    /// The index and term of the last entry that is in the state.
    applied: (u64, u64),
    /// The index of the last snapshot.
    saved: u64,
    log_bytes: usize,
    snapshotting: bool,
    /// A member needs a snapshot that is not there yet.
    snapshot_wanted: bool,
}

impl ControlPlane {
    /// A new member, or one that had something before.
    pub fn new(now: Now, options: ControlPlaneOptions, restored: Option<Restored>) -> Self {
        let mut rng = Rng::seeded(options.seed);
        let (store, log) = match restored {
            Some(Restored { store, raft }) => (store, Some(raft)),
            None => (None, None),
        };
        let saved = log.as_ref().map_or((0, 0), |log| (log.snapshot.mark.index, log.snapshot.mark.term));
        let behind = log.iter().flat_map(|log| &log.entries).filter(|entry| entry.index > saved.0);
        let log_bytes = behind.map(|entry| entry.data.len()).sum();
        let known = log.as_ref().map(|log| log.snapshot.membership.place(options.raft.id));
        let belonged = known.is_some_and(|place| place != raft::Place::Outside);
        let store = store.unwrap_or_else(|| Store::new(options.store.clone()));
        let view = store.view();
        let last_time = view.time();
        let raft = raft::Member::new(now, options.raft.clone(), log, rng.fork());
        let forwards = Forwards::new(Rng::seeded(options.seed ^ BOOT).next_u64());
        Self {
            registry: Registry::builtin(),
            raft,
            view,
            store,
            rng,
            leader: None,
            leading: None,
            next_action: 0,
            pending: VecDeque::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            forwards,
            accepted: Accepted::default(),
            autopilot: Autopilot::default(),
            next_look: Instant::ZERO,
            current: false,
            asking: false,
            heard: now.mono,
            belonged,
            coming: None,
            last_time,
            applied: saved,
            saved: saved.0,
            log_bytes,
            snapshotting: false,
            snapshot_wanted: false,
            levels: Levels::default(),
            removal: Removal::default(),
            options,
        }
    }

    /// The state, as everybody reads it.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The index and term of the last entry that is in the view.
    pub fn applied(&self) -> (u64, u64) {
        self.applied
    }

    /// Whether this member leads and the controllers run.
    pub fn is_leading(&self) -> bool {
        self.leader.is_some()
    }

    /// The term in which this member leads, from its election on.
    pub fn lead_term(&self) -> Option<u64> {
        self.leading
    }

    /// Whether the view has everything that was acknowledged before this member was started: before that nobody may see it.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// Who leads, as far as this member knows.
    pub fn leader(&self) -> Option<raft::MemberId> {
        self.raft.leader()
    }

    /// Who is in the group, as far as this member has applied.
    pub fn membership(&self) -> &raft::Membership {
        self.raft.membership()
    }

    /// How this member stands, and its peers while it leads.
    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }

    /// When the next step has something to do without any other input.
    pub fn next_wakeup(&self) -> Option<Instant> {
        let leader = self.leader.as_ref().and_then(Leader::next_wakeup);
        let look = (self.leader.is_some() && self.has_list()).then_some(self.next_look);
        [self.raft.next_wakeup(), leader, look, self.removal.next_wakeup()].into_iter().flatten().min()
    }

    /// One step. It takes under a millisecond and never waits.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.take(now, input, &mut out);
        if self.raft.next_wakeup().is_some_and(|due| due <= now.mono) {
            self.step_raft(now, raft::Input::Tick, &mut out);
        }
        if !self.current && !std::mem::replace(&mut self.asking, true) {
            self.step_raft(now, raft::Input::ReadIndex(OWN_READ), &mut out);
        }
        self.look_at_rows(now, &mut out);
        self.propose(now, &mut out);
        self.lead(now, &mut out);
        self.look(now, &mut out);
        self.ask_around(now, &mut out);
        self.look_at_levels(now, &mut out);
        self.snapshot(&mut out);
        Self::forget_own(&mut out);
        out
    }

    pub(crate) fn take(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.step_raft(now, raft::Input::Tick, out),
            Input::Peer(from, message) => self.hear(now, from, message, out),
            Input::Unreachable(member) => self.step_raft(now, raft::Input::Unreachable(member), out),
            Input::Gone(member) => self.step_raft(now, raft::Input::Gone(member), out),
            Input::SnapshotReceived { from, message, store } => {
                self.coming = Some(store);
                self.step_raft(now, raft::Input::Snapshot(from, message), out);
                // Too late for it, or for another term: the state is not needed.
                self.coming = None;
            }
            Input::SnapshotSent(to, complete) => self.step_raft(now, raft::Input::SnapshotSent(to, complete), out),
            Input::Persisted(id) => self.step_raft(now, raft::Input::Persisted(id), out),
            Input::Submit(id, transaction) => self.submit(now, id, transaction, out),
            Input::Read(id) => self.step_raft(now, raft::Input::ReadIndex(id), out),
            Input::Answered(id, response) => {
                if let Some(leader) = &mut self.leader {
                    leader.answered(id, &response, now);
                }
            }
            Input::Heartbeat(node) => self.heartbeats(now, vec![node], out),
            Input::ClockJumped => {
                if let Some(leader) = &mut self.leader {
                    leader.clock_jumped(&self.view, now);
                }
                self.step_raft(now, raft::Input::GiveUpLead, out);
            }
            Input::TransferLead(to) => match self.raft.leader() {
                Some(leader) if leader != self.options.raft.id => {
                    out.push(Output::Send { to: leader, message: PeerMessage::TransferLead(to), after: None });
                }
                _ => self.step_raft(now, raft::Input::TransferLead(to), out),
            },
            Input::HandOver => self.step_raft(now, raft::Input::HandOver, out),
            Input::SnapshotFailed => self.snapshotting = false,
            Input::SnapshotSaved { index, term } => {
                self.snapshotting = false;
                self.saved = self.saved.max(index);
                self.step_raft(now, raft::Input::SnapshotSaved { index, term }, out);
            }
        }
    }

    /// A message of another member.
    fn hear(&mut self, now: Now, from: raft::MemberId, message: PeerMessage, out: &mut Vec<Output>) {
        self.heard = now.mono;
        if self.membership().place(from) == raft::Place::Outside
            && MemberRecord::find(&self.view, from).is_some_and(|record| record.wants == Wants::Removed)
            && message != PeerMessage::Removed
        {
            return out.push(Output::Send { to: from, message: PeerMessage::Removed, after: None });
        }
        match message {
            PeerMessage::Raft(message) => self.step_raft(now, raft::Input::Message(from, message), out),
            PeerMessage::Forward { term, boot, transactions } => {
                self.forwarded(now, (from, boot), term, transactions, out);
            }
            PeerMessage::Forwarded { boot, term, index, positions } => {
                self.forwards.placed(boot, term, index, positions);
            }
            PeerMessage::Declined { boot, numbers } => self.forwards.declined(boot, numbers),
            PeerMessage::Heartbeat { nodes } => {
                // Only to who leads: a message that went astray is not passed on for ever.
                if self.leader.is_some() {
                    self.heartbeats(now, nodes, out);
                }
            }
            PeerMessage::TransferLead(to) => self.step_raft(now, raft::Input::TransferLead(to), out),
            PeerMessage::Removed => out.push(Output::Removed),
        }
    }

    fn heartbeats(&mut self, now: Now, nodes: Vec<String>, out: &mut Vec<Output>) {
        if let Some(leader) = &mut self.leader {
            for node in &nodes {
                leader.heartbeat(node, now);
            }
        } else if let Some(to) = self.raft.leader().filter(|leader| *leader != self.options.raft.id) {
            out.push(Output::Send { to, message: PeerMessage::Heartbeat { nodes }, after: None });
        }
    }

    fn step_raft(&mut self, now: Now, input: raft::Input, out: &mut Vec<Output>) {
        for output in self.raft.step(now, input) {
            self.take_raft(now, output, out);
        }
    }

    fn take_raft(&mut self, now: Now, output: raft::Output, out: &mut Vec<Output>) {
        match output {
            raft::Output::Persist(id, batch) => {
                self.log_bytes += batch.size();
                out.push(Output::Persist(id, batch));
            }
            raft::Output::Send { to, message, after } => {
                out.push(Output::Send { to, message: PeerMessage::Raft(message), after });
            }
            raft::Output::SendSnapshot { to, message, mark } => out.push(Output::SendSnapshot { to, message, mark }),
            raft::Output::SnapshotWanted => self.snapshot_wanted = true,
            raft::Output::Install { mark, membership } => self.install(mark, membership, out),
            raft::Output::Appended { proposal, term, index } => self.appended(proposal, term, index, out),
            raft::Output::Apply { term, index, proposal, data } => self.apply(now, (term, index), proposal, &data, out),
            raft::Output::Membership { term, index, membership, .. } => {
                self.applied = (index, term);
                self.forwards.applied(index, term, &[]);
                self.next_look = now.mono;
                self.belongs(membership, out);
            }
            raft::Output::Dropped(id) => self.dropped(id, &Settled::NotLeader, out),
            raft::Output::Unknown(id) => self.dropped(id, &Settled::Unknown, out),
            raft::Output::Refused(_, why) => tracing::warn!(%why, "the members are not changed"),
            raft::Output::Leading(term) => {
                self.leading = Some(term);
                self.accepted.begin(term);
            }
            raft::Output::Following => self.follow(out),
            raft::Output::Leader(leader) => out.push(Output::Leader(leader)),
            raft::Output::Readable(OWN_READ) => self.current = true,
            raft::Output::Unreadable(OWN_READ) => self.asking = false,
            raft::Output::Readable(id) => out.push(Output::Readable(id)),
            raft::Output::Unreadable(id) => out.push(Output::Unreadable(id)),
            other => unreachable!("consensus wants something new: {other:?}"),
        }
    }

    /// Another member leads, or nobody: what waits here can be tried again elsewhere, and the lead's own machinery is lost.
    fn follow(&mut self, out: &mut Vec<Output>) {
        self.leading = None;
        self.autopilot = Autopilot::default();
        if let Some(leader) = self.leader.take() {
            self.next_action = leader.next_action();
        }
        self.give_back(out);
    }

    /// The state of another member takes the place of this one's.
    fn install(&mut self, mark: raft::SnapshotMark, membership: raft::Membership, out: &mut Vec<Output>) {
        let store = self.coming.take().expect("a snapshot is installed in the step that brings its state");
        self.store = *store;
        self.view = self.store.view();
        self.last_time = self.view.time();
        self.applied = (mark.index, mark.term);
        self.saved = mark.index;
        self.log_bytes = 0;
        self.forwards.installed(mark.index);
        out.push(Output::Installed(mark));
        self.belongs(membership, out);
    }

    /// Who is in the group has changed, perhaps without this member.
    fn belongs(&mut self, membership: raft::Membership, out: &mut Vec<Output>) {
        let belongs = membership.place(self.options.raft.id) != raft::Place::Outside;
        out.push(Output::Membership(membership));
        if std::mem::replace(&mut self.belonged, belongs) && !belongs {
            out.push(Output::Removed);
        }
    }

    fn apply(
        &mut self,
        now: Now,
        (term, index): (u64, u64),
        proposal: Option<raft::ProposalId>,
        data: &Bytes,
        out: &mut Vec<Output>,
    ) {
        self.applied = (index, term);
        if data.is_empty() {
            self.forwards.applied(index, term, &[]);
            return self.first_of_term(now, term);
        }
        let (origins, entry) = match proposal.and_then(|id| self.batches.remove(&id)) {
            Some(own) => (own.origins, own.entry),
            // A committed entry that cannot be read would split the members: stop here rather than go on without it.
            None => (Vec::new(), Entry::decode(data).expect("a committed entry is readable")),
        };
        let before = self.view.clone();
        self.last_time = entry.time;
        let results = self.store.apply(term, &entry);
        self.view = self.store.view();
        self.forwards.applied(index, term, &results);
        let own = origins.into_iter().zip(results).filter_map(|(origin, result)| Some((origin.own()?, result)));
        out.extend(own.map(|(id, result)| Output::Settled(id, Settled::Applied(result))));
        self.observe(&before);
    }

    /// The empty entry that a new leader begins its term with: from here on its view has everything that was acknowledged before.
    fn first_of_term(&mut self, now: Now, term: u64) {
        if self.leading != Some(term) {
            return;
        }
        let manager = Manager::new((self.options.controllers)(&self.options.server, &mut self.rng));
        let (registry, options) = (self.registry.clone(), Arc::clone(&self.options.server));
        let leader = Leader::new(manager, &self.view, registry, options, self.rng.fork(), self.next_action, now);
        self.leader = Some(leader);
        // A new leader has everything that was committed before its term.
        self.current = true;
    }

    /// Tells the leader what changed since a view.
    fn observe(&mut self, before: &View) {
        let Some(leader) = &mut self.leader else { return };
        // A resource whose last object went has none now: it counts among those from before.
        let resources: BTreeSet<GroupResource> = self.view.resources().into_iter().chain(before.resources()).collect();
        let before = before.revision();
        for resource in resources {
            if self.view.last_change(&resource) <= before {
                continue;
            }
            // The window always reaches back to the entry before: it is trimmed in whole entries.
            for change in self.view.changes_after(&resource, before).unwrap_or_default() {
                leader.observe(&self.view, &change);
            }
        }
    }

    fn lead(&mut self, now: Now, out: &mut Vec<Output>) {
        let (Some(leader), Some(term)) = (&mut self.leader, self.leading) else { return };
        let requests = leader.run(&self.view, now);
        out.extend(requests.into_iter().map(|(id, request)| Output::Prepare { id, term, request }));
    }

    /// Whether there is a list of members that the group is to follow.
    pub(crate) fn has_list(&self) -> bool {
        self.view.last_change(&MEMBERS) > Revision(0)
    }

    /// Asks the voters, when nobody is heard of, whether this member still belongs to the group. Who has a vote stands for election and
    /// learns it so; a learner that was removed while it was away would never be spoken to again.
    fn ask_around(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono.saturating_since(self.heard) < SILENCE_MAX
            || self.membership().place(self.options.raft.id) != raft::Place::Learner
        {
            return;
        }
        self.heard = now.mono;
        for to in self.membership().voters.clone() {
            let message = PeerMessage::Heartbeat { nodes: Vec::new() };
            out.push(Output::Send { to, message, after: None });
        }
    }

    /// Brings the group to what the list of members asks for, a step at a time.
    fn look(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.leader.is_none() || now.mono < self.next_look || !self.has_list() {
            return;
        }
        self.next_look = now.mono + autopilot::LOOK_EVERY;
        let (records, status) = (MemberRecord::all(&self.view), self.raft.status());
        let settings = self.view.typed::<SettingsObject>(&ClusterSettings::key());
        let silence = settings.map(|object| Duration::from_secs(object.spec.voter_silence_seconds));
        let silent_max = silence.unwrap_or(self.options.autopilot.silent_max);
        let options = AutopilotOptions { silent_max, ..self.options.autopilot };
        match self.autopilot.look(now.mono, &options, &records, &status) {
            None => {}
            Some(autopilot::Step::TransferLead(to)) => self.step_raft(now, raft::Input::TransferLead(to), out),
            Some(autopilot::Step::Change(change)) => {
                tracing::info!(?change, "the members change");
                let id = raft::ProposalId(self.next_batch);
                self.next_batch += 1;
                self.step_raft(now, raft::Input::ChangeMembership(id, change), out);
            }
        }
    }

    fn snapshot(&mut self, out: &mut Vec<Output>) {
        // A log that was large at the start is not applied yet: what is saved then is the snapshot that it came with.
        let nothing_new = self.applied.0 <= self.saved;
        let due = self.log_bytes >= self.options.snapshot_after || self.snapshot_wanted;
        if !due || self.snapshotting || nothing_new {
            return;
        }
        self.log_bytes = 0;
        self.snapshot_wanted = false;
        self.snapshotting = true;
        let (index, term) = self.applied;
        out.push(Output::SaveSnapshot { index, term, view: self.view.clone() });
    }
}
