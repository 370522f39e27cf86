//! The members: each with its brain, its disk and its clock, and what happens when it goes and comes back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use coracle_apiserver::{Proposed, Resume};
use coracle_base::{Instant, Now, Rng};
use coracle_engine::{ControlPlane, Input, NodeFeed, Output, PeerMessage, ProposalId, Restored, Settled, clock_jumped};
use coracle_raft::{MemberId, PersistId, ReadId};
use coracle_store::{Store, View};

use super::mutant::half;
use super::request::{Flow, Origin, Proposer, timed_out, unavailable};
use super::{Event, World};
use crate::disk::Disk;
use crate::invariants::Invariants;
use crate::{Class, Mutation};

/// One member.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: MemberId,
    /// Which start this is: what belongs to an earlier one does not happen.
    pub(crate) boot: u64,
    pub(super) plane: Option<ControlPlane>,
    /// When its brain has something to do, as it said after its last step.
    wakeup: Option<Instant>,
    pub(super) disk: Disk,
    pub(super) rng: Rng,
    /// The voters of its group at the beginning; none for one that joins.
    voters: Vec<MemberId>,
    /// The request that each proposal belongs to, and each read.
    proposals: BTreeMap<ProposalId, Proposer>,
    next_proposal: u64,
    pub(super) reads: BTreeMap<ReadId, u64>,
    next_read: u64,
    /// What waits for the disk.
    durable: PersistId,
    held: VecDeque<(PersistId, MemberId, PeerMessage)>,
    /// Everything that was acknowledged before this start is in its view again.
    serving: bool,
    /// The state as it was before the last crash, and as the cluster had it when this member started.
    lost: Option<View>,
    /// The state that it had last, where that is deliberately kept.
    kept: Option<Vec<u8>>,
    pub(super) owed: coracle_api::Revision,
    /// The state as it was last looked at, and for the invariants: nothing after a start.
    pub(super) noted: coracle_api::Revision,
    pub(super) checked: Option<View>,
    pub(super) feed: NodeFeed,
    pub(super) looking: bool,
    /// How far its wall clock is ahead, and its time at the last step.
    pub(super) ahead: Duration,
    last_step: Option<Now>,
    /// Its process stands still until then.
    pub(super) paused: Option<Instant>,
}

impl Member {
    pub(crate) fn new(id: MemberId, voters: Vec<MemberId>, disk: Disk, rng: Rng) -> Self {
        Self {
            id,
            boot: 0,
            plane: None,
            wakeup: None,
            disk,
            rng,
            voters,
            proposals: BTreeMap::new(),
            next_proposal: 0,
            reads: BTreeMap::new(),
            next_read: 0,
            durable: PersistId(0),
            held: VecDeque::new(),
            serving: false,
            lost: None,
            kept: None,
            owed: coracle_api::Revision(0),
            noted: coracle_api::Revision(0),
            checked: None,
            feed: NodeFeed::default(),
            looking: false,
            ahead: Duration::ZERO,
            last_step: None,
            paused: None,
        }
    }

    /// Whether its disk is in the middle of a write.
    pub(crate) fn is_writing(&self) -> bool {
        self.disk.is_writing()
    }

    /// Whether its process runs.
    pub(crate) fn is_running(&self) -> bool {
        self.plane.is_some()
    }

    /// Whether it answers requests.
    pub(crate) fn is_serving(&self) -> bool {
        self.serving
    }

    /// Its view, while it answers requests.
    pub(crate) fn serving_view(&self) -> Option<&View> {
        self.plane.as_ref().filter(|_| self.serving).map(ControlPlane::view)
    }

    /// Its brain, while it runs.
    pub(crate) fn plane(&self) -> Option<&ControlPlane> {
        self.plane.as_ref()
    }

    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        let due = self.wakeup?;
        Some(self.paused.map_or(due, |until| due.max(until)))
    }

    pub(super) fn propose(&mut self, from: Proposer) -> ProposalId {
        let id = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        self.proposals.insert(id, from);
        id
    }

    pub(super) fn read(&mut self, flow: u64) -> ReadId {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.reads.insert(id, flow);
        id
    }
}

impl World {
    /// Starts a member from what its disk holds.
    pub(crate) fn start_member(&mut self, m: usize) {
        let owed = if self.members.len() > 1 { self.seen.revision() } else { coracle_api::Revision(0) };
        let store = &self.settings.store;
        let member = &mut self.members[m];
        assert!(member.plane.is_none(), "the member runs");
        member.boot += 1;
        member.owed = owed;
        member.checked = None;
        member.last_step = None;
        member.feed = NodeFeed::default();
        let (seed, id, voters) = (member.rng.next_u64(), member.id, member.voters.clone());
        let restored = member.disk.restored(store);
        let kept = member.kept.take().map(|kept| Store::restore(store.clone(), &kept).expect("a state is whole"));
        let restored = restored.map(|(store, raft)| Restored { store: kept.or(store), raft });
        let options = self.plane_options(id, voters, seed);
        let now = self.time_of(m);
        self.members[m].plane = Some(ControlPlane::new(now, options, restored));
        self.step_member(m, Input::Tick);
    }

    /// A member's process is killed, and of what its disk had not written some is lost.
    pub(crate) fn crash_member(&mut self, m: usize) {
        self.totals.add(Class::Crashes, 1);
        self.stop_member(m);
    }

    fn stop_member(&mut self, m: usize) {
        let seen = self.seen.clone();
        let alone = self.members.len() == 1;
        let keeps = self.is_wrong(Mutation::AppliedTwice);
        let member = &mut self.members[m];
        let plane = member.plane.take().expect("the member runs");
        member.kept = keeps.then(|| plane.view().snapshot());
        member.wakeup = None;
        let serving = std::mem::replace(&mut member.serving, false);
        if serving && alone {
            member.lost = Some(seen);
        }
        member.boot += 1;
        member.proposals.clear();
        member.reads.clear();
        member.held.clear();
        member.durable = PersistId(0);
        member.paused = None;
        member.looking &= alone;
        let mut rng = member.rng.fork();
        let lost = member.disk.crash(&mut rng);
        self.totals.add(Class::TornWrites, u64::from(lost > 0));
        self.totals.add(Class::LostWrites, lost.saturating_sub(1));
        let lost: Vec<u64> = self.flows.iter().filter(|(_, flow)| flow.member == m).map(|(id, _)| *id).collect();
        for flow in lost {
            self.waiting.remove(&flow);
            if let Some(flow) = self.flows.remove(&flow) {
                self.connection_lost(flow);
            }
        }
        self.streams_lost(m);
        if !alone {
            self.nodes_go_elsewhere(m);
        }
    }

    /// A member that was removed stops.
    pub(super) fn leave(&mut self, m: usize, boot: u64) {
        if self.members[m].boot == boot && self.members[m].is_running() {
            self.totals.add(Class::Removals, 1);
            self.stop_member(m);
        }
    }

    fn connection_lost(&mut self, flow: Flow) {
        match &flow.origin {
            Origin::Test(ticket) => self.history.end(self.now.mono, *ticket, crate::history::Outcome::Unknown),
            Origin::Brain(..) => {}
            Origin::Node { .. } | Origin::Follower { .. } => {
                self.answer(flow.origin, unavailable("the connection was lost").into());
            }
        }
    }

    /// A member's clocks: they run as the world's do, and its wall clock may be wrong.
    pub(super) fn time_of(&self, m: usize) -> Now {
        Now { mono: self.now.mono, wall: self.now.wall + self.members[m].ahead }
    }

    /// One step of a brain.
    pub(super) fn step_member(&mut self, m: usize, input: Input) {
        let now = self.time_of(m);
        self.stepped = Some(m);
        let last = self.members[m].last_step.replace(now);
        if last.is_some_and(|last| clock_jumped(last, now)) {
            self.step_plane(m, now, Input::ClockJumped);
        }
        self.step_plane(m, now, input);
    }

    fn step_plane(&mut self, m: usize, now: Now, input: Input) {
        let early = self.is_wrong(Mutation::ServedTooEarly);
        let Member { plane: Some(plane), wakeup, .. } = &mut self.members[m] else { return };
        let outputs = plane.step(now, input);
        let current = plane.is_current() || early;
        *wakeup = plane.next_wakeup();
        for output in outputs {
            self.carry_out(m, output);
        }
        if current && !std::mem::replace(&mut self.members[m].serving, true) {
            self.serve(m);
        }
    }

    /// The member has everything that was acknowledged: nodes and clients are let in.
    fn serve(&mut self, m: usize) {
        let member = &mut self.members[m];
        let Some(plane) = &member.plane else { return };
        let view = plane.view().clone();
        assert!(view.revision() >= member.owed, "member {} serves a state that is too old", member.id.0);
        if let Some(lost) = member.lost.take()
            && let Err(broken) = Invariants::recovered(&lost, &view)
        {
            panic!("{broken}; the log: {:?}", self.members[m].disk);
        }
        self.feed_nodes(m, &view);
    }

    fn carry_out(&mut self, m: usize, output: Output) {
        let boot = self.members[m].boot;
        match output {
            Output::Persist(id, batch) => {
                let now = self.now.mono;
                let member = &mut self.members[m];
                if let Err(broken) = self.agreement.appended(member.id, &batch.entries) {
                    panic!("{broken}");
                }
                let durable = member.disk.write(id, batch, now, &mut member.rng);
                self.schedule_at(durable, Event::Persisted { member: m, boot, id });
            }
            Output::Send { to, message, after } => match after {
                Some(after) if after > self.members[m].durable && !self.is_wrong(Mutation::WordBeforeFsync) => {
                    self.members[m].held.push_back((after, to, message));
                }
                _ => self.transmit(m, to, &message),
            },
            Output::SendSnapshot { to, message, mark } => self.send_state(m, to, message, mark.index),
            Output::Settled(id, settled) => {
                let Some(from) = self.members[m].proposals.remove(&id) else { return };
                let outcome = match settled {
                    Settled::Applied(outcome) => Proposed::Settled(outcome),
                    Settled::NotLeader => return self.not_led(from),
                    Settled::Unknown => Proposed::Unsettled(timed_out()),
                };
                self.settled(from, outcome);
            }
            Output::Readable(id) => {
                if let Some(flow) = self.members[m].reads.remove(&id) {
                    self.schedule(Duration::ZERO, Event::Resume { flow, resume: Resume::Start });
                }
            }
            Output::Unreadable(id) => {
                if let Some(flow) = self.members[m].reads.remove(&id) {
                    self.finish(flow, timed_out().into());
                }
            }
            Output::Prepare { id, term, request } => {
                let flow = Flow::new(Origin::Brain(m, boot, id), Some(term), request).via(m);
                self.schedule(Duration::ZERO, Event::Arrive(Box::new(flow)));
            }
            Output::SaveSnapshot { index, term, view } => {
                let bytes = view.snapshot();
                let took = self.pieces(m);
                self.schedule(took, Event::Snapshot { member: m, boot, index, term, bytes });
            }
            Output::Installed(_) => {
                self.totals.add(Class::Snapshots, 1);
                self.members[m].checked = None;
            }
            Output::Membership(_) => self.totals.add(Class::Memberships, 1),
            Output::Removed => self.schedule(Duration::ZERO, Event::Leave { member: m, boot }),
            Output::Leader(_) => {}
            other => panic!("an output that this driver does not know: {other:?}"),
        }
    }

    /// Sends a message as the network lets it.
    fn transmit(&mut self, from: usize, to: MemberId, message: &PeerMessage) {
        let id = self.members[from].id;
        let Some(target) = self.members.iter().position(|member| member.id == to) else { return };
        self.note_forward(from, message);
        for delay in self.network.send(id, to) {
            let bytes = message.encode();
            self.schedule(delay, Event::Peer { from, to: target, bytes });
        }
    }

    pub(super) fn delivered(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let (sender, target) = (self.members[from].id, self.members[to].id);
        if self.network.is_cut(sender, target) {
            return;
        }
        if !self.members[to].is_running() {
            // The connection is refused, which the sender sees.
            if self.members[from].is_running() {
                self.step_member(from, Input::Unreachable(target));
            }
            return;
        }
        let message = PeerMessage::decode(bytes).expect("a message is read as it was written");
        self.step_member(to, Input::Peer(sender, message));
    }

    /// Moves the state of a snapshot to another member, piece by piece.
    fn send_state(&mut self, m: usize, to: MemberId, message: coracle_raft::Message, index: u64) {
        let (from, boot) = (self.members[m].id, self.members[m].boot);
        let target = self.members.iter().position(|member| member.id == to);
        let bytes = self.members[m].disk.snapshot(index);
        let arrives = target.is_some_and(|target| self.members[target].is_running()) && !self.network.is_cut(from, to);
        let took = self.pieces(m);
        match (target, bytes) {
            (Some(target), Some(bytes)) if arrives => {
                let receiver = self.members[target].boot;
                self.schedule(took, Event::State { from: m, to: target, boot: receiver, message, index, bytes });
            }
            _ => {
                let input = Input::SnapshotSent(to, false);
                self.schedule(took, Event::Brain { member: m, boot, input });
            }
        }
    }

    /// How long a member's disk takes for a state, which is written and read in many pieces.
    fn pieces(&mut self, m: usize) -> Duration {
        let now = self.now.mono;
        let Member { disk, rng, .. } = &mut self.members[m];
        (0..8).map(|_| disk.latency(now, rng)).sum()
    }

    pub(super) fn state_arrived(
        &mut self,
        (from, to, boot): (usize, usize, u64),
        message: coracle_raft::Message,
        index: u64,
        bytes: Vec<u8>,
    ) {
        let (sender, target) = (self.members[from].id, self.members[to].id);
        let complete = self.members[to].boot == boot && !self.network.is_cut(sender, target);
        if complete {
            let mut store = Store::restore(self.settings.store.clone(), &bytes).expect("a state is whole");
            if self.is_wrong(Mutation::HalfSnapshot) {
                store = half(&store);
            }
            self.members[to].disk.keep_snapshot(index, bytes);
            self.step_member(to, Input::SnapshotReceived { from: sender, message, store: Box::new(store) });
        }
        let boot = self.members[from].boot;
        let input = Input::SnapshotSent(target, complete);
        self.schedule(Duration::from_millis(1), Event::Brain { member: from, boot, input });
    }

    pub(super) fn persisted(&mut self, m: usize, boot: u64, id: PersistId) {
        let member = &mut self.members[m];
        if boot == member.boot {
            member.disk.written(id);
            member.durable = id;
            while let Some((_, to, message)) = self.members[m].held.pop_front_if(|(after, ..)| *after <= id) {
                self.transmit(m, to, &message);
            }
            self.step_member(m, Input::Persisted(id));
        }
    }

    pub(super) fn snapshot_saved(&mut self, m: usize, boot: u64, index: u64, term: u64, bytes: Vec<u8>) {
        if boot == self.members[m].boot {
            self.members[m].disk.keep_snapshot(index, bytes);
            self.step_member(m, Input::SnapshotSaved { index, term });
        }
    }
}

// What a scenario does to a member.
impl World {
    /// A member is told something by its driver.
    pub(crate) fn tell_member(&mut self, m: usize, input: Input) {
        let boot = self.members[m].boot;
        self.schedule(Duration::ZERO, Event::Brain { member: m, boot, input });
    }

    /// A member's process stands still until then.
    pub(crate) fn pause_member(&mut self, m: usize, until: Instant) {
        self.members[m].paused = Some(until);
    }

    /// A member's disk takes so many times as long until then.
    pub(crate) fn slow_disk(&mut self, m: usize, factor: u32, until: Instant) {
        self.totals.add(Class::SlowDisks, 1);
        self.members[m].disk.slow_down(factor, until);
    }

    /// A member's wall clock is set.
    pub(crate) fn set_clock(&mut self, m: usize, ahead: Duration) {
        self.members[m].ahead = ahead;
    }

    /// Compares the whole states of the members that run, which have applied equally much.
    pub(crate) fn check_replicas(&mut self) {
        for member in &self.members {
            if let Some(plane) = member.plane()
                && let Err(broken) = self.agreement.whole(member.id, plane.view())
            {
                panic!("{broken}");
            }
        }
    }
}
