//! One participant of a Raft group.

mod election;
mod guard;
mod io;
mod ready;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use coracle_base::{Instant, Now, Rng};
use raft::eraftpb::{self, Entry};
use raft::{RawNode, SnapshotStatus, StateRole};

use crate::log::Log;
use crate::membership::Step;
use crate::message::to_raft;
use crate::read::Reads;
use crate::{
    ChangeRefused, EntryKind, HardState, LogEntry, Membership, MembershipChange, Message, PersistId, Restored,
    SnapshotMark, SnapshotPointer, Status, WalBatch, status,
};

pub use io::{Config, Input, MemberId, Output, ProposalId};

/// The largest message of entries, and how many are on their way to one member.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Bytes that are proposed and not yet committed: beyond it proposals are dropped, so that a leader without a majority does
/// not fill its memory.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// The votes that wait for this member's disk: more than one of each member that a group has.
const VOTES_MAX: usize = 64;
/// The term of the entries that a new group begins with.
const FOUNDING_TERM: u64 = 1;

/// Term, role and leader.
type Standing = (u64, StateRole, u64);

/// A member.
pub struct Member {
    config: Config,
    node: RawNode<Log>,
    rng: Rng,
    /// Whether it has made a step: what it found at its start is looked at in the first.
    begun: bool,
    /// The election timeout in ticks, and for which role and term it was drawn.
    drawn: usize,
    standing: Standing,
    next_tick: Instant,
    next_persist: PersistId,
    /// The raft crate's number of what each batch holds.
    persisting: VecDeque<(PersistId, u64)>,
    /// A snapshot that another member sent is being made durable: nothing behind it is applied before.
    installing: Option<(PersistId, u64)>,
    /// The hard state, and what of it was handed over to be made durable.
    hard_state: HardState,
    written: HardState,
    /// Who is in the group, by the index from which it is so, back to the last snapshot.
    memberships: VecDeque<(u64, Membership)>,
    /// What this member proposed, by index and term.
    proposals: BTreeMap<(u64, u64), ProposalId>,
    reads: Reads,
    /// Votes that came while a batch is on its way: with the last of them this member would lead, and a leader's log is durable.
    votes: Vec<Message>,
    leading: bool,
    leader: u64,
    out: Vec<Output>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raft = &self.node.raft;
        f.debug_struct("Member")
            .field("id", &self.config.id)
            .field("role", &raft.state)
            .field("term", &raft.term)
            .field("committed", &raft.raft_log.committed)
            .finish_non_exhaustive()
    }
}

impl Member {
    /// A member with nothing, or with what it had.
    ///
    /// # Panics
    ///
    /// On a configuration that Raft cannot work with (id zero, an election range shorter than the heartbeat), and on a log with
    /// gaps: who reads the log checks it first.
    pub fn new(now: Now, config: Config, restored: Option<Restored>, mut rng: Rng) -> Self {
        let founded = founding(&config.voters);
        let restored = restored.unwrap_or_else(|| founded.clone());
        let mut log = Log::new(restored.base, restored.snapshot.clone(), hard_state(&restored));
        let entries: Vec<Entry> = restored.entries.iter().map(to_raft).collect();
        log.append(&entries);
        let low = config.election_ticks().0;
        let settings = settings(&config, restored.snapshot.mark.index);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings, log, &logger).expect("the configuration and the log are sound");
        let next_tick = now.mono + config.tick();
        let reads = Reads::new((config.id.0, rng.next_u64()));
        let SnapshotPointer { mark, membership } = restored.snapshot.clone();
        let mut member = Self {
            config,
            node,
            rng,
            begun: false,
            drawn: low,
            standing: (0, StateRole::Follower, 0),
            next_tick,
            next_persist: PersistId(1),
            persisting: VecDeque::new(),
            installing: None,
            hard_state: restored.hard_state,
            written: restored.hard_state,
            memberships: VecDeque::from([(mark.index, membership)]),
            proposals: BTreeMap::new(),
            reads,
            votes: Vec::new(),
            leading: false,
            leader: 0,
            out: Vec::new(),
        };
        if !founded.entries.is_empty() && restored == founded {
            let Restored { entries, hard_state, .. } = restored;
            let id = member.hand_over(WalBatch { entries, hard_state: Some(hard_state), ..WalBatch::default() });
            member.persisting.push_back((id, 0));
        }
        member.draw_election_timeout();
        member.pin_election_timeout();
        member
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Who leads, as far as this member knows.
    pub fn leader(&self) -> Option<MemberId> {
        let leader = self.node.raft.leader_id;
        (leader != 0).then_some(MemberId(leader))
    }

    /// Who is in the group, as far as this member has applied.
    pub fn membership(&self) -> &Membership {
        self.memberships.back().map(|(_, membership)| membership).expect("the last is never removed")
    }

    /// How this member stands, and its peers while it leads.
    pub fn status(&self) -> Status {
        status::status(self.config.id, &self.node, self.membership())
    }

    /// When [`Input::Tick`] is due. A group of one has nobody to hear from: once it leads it needs no time.
    pub fn next_wakeup(&self) -> Option<Instant> {
        if !self.begun {
            Some(Instant::ZERO)
        } else if !self.is_alone() {
            [Some(self.next_due()), self.reads.next_wakeup(self.config.heartbeat)].into_iter().flatten().min()
        } else if self.is_due_to_lead() {
            Some(Instant::ZERO)
        } else {
            None
        }
    }

    /// One step.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        if !std::mem::replace(&mut self.begun, true) {
            self.collect();
        }
        self.pass_time(now, &input);
        match input {
            Input::Tick => {}
            Input::Message(from, message) => self.receive(from, message),
            Input::Snapshot(from, message) => self.receive_snapshot(from, message),
            Input::SnapshotSent(to, complete) => {
                let outcome = if complete { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.node.report_snapshot(to.0, outcome);
            }
            Input::Unreachable(member) => self.node.report_unreachable(member.0),
            Input::Gone(member) => self.gone(member),
            Input::Persisted(id) => self.persisted(id),
            Input::Propose(id, data) => self.propose(id, &data),
            Input::ChangeMembership(id, change) => self.change_membership(id, &change),
            Input::TransferLead(to) => {
                if self.is_leader() {
                    self.node.transfer_leader(to.0);
                }
            }
            Input::HandOver => self.hand_over_lead(),
            Input::GiveUpLead => self.give_up_lead(),
            Input::ReadIndex(id) => {
                if !self.reads.push(id, now.mono) {
                    self.out.push(Output::Unreadable(id));
                }
            }
            Input::SnapshotSaved { index, term } => self.snapshot_saved(SnapshotMark { index, term }),
        }
        self.pin_election_timeout();
        self.collect();
        self.end_change();
        self.read(now);
        self.pin_election_timeout();
        if self.node.store().take_wanted() {
            self.out.push(Output::SnapshotWanted);
        }
        std::mem::take(&mut self.out)
    }

    fn read(&mut self, now: Now) {
        self.out.extend(self.reads.expired(now.mono).map(Output::Unreadable));
        if let Some(context) = self.reads.due(now.mono, self.config.heartbeat) {
            self.node.read_index(context);
            self.collect();
        }
    }

    fn receive(&mut self, from: MemberId, message: Message) {
        // A descriptor without its state: a log without its state is worse than being late.
        if message.is_snapshot() || !self.bears(from, &message) {
            return;
        }
        if message.asks_to_lead() && self.installing.is_some() {
            return;
        }
        if message.is_vote() && !self.persisting.is_empty() {
            // What does not fit is asked for again at the next election.
            if self.votes.len() < VOTES_MAX {
                self.votes.push(message);
            }
            return;
        }
        // A message that does not fit the member's state is stale, not an error of ours.
        let _ = self.node.step(message.0);
    }

    fn receive_snapshot(&mut self, from: MemberId, message: Message) {
        if message.is_snapshot() && self.bears(from, &message) {
            let _ = self.node.step(message.0);
        }
    }

    fn propose(&mut self, id: ProposalId, data: &bytes::Bytes) {
        if !self.is_leader() || self.node.propose(Vec::new(), data.to_vec()).is_err() {
            self.out.push(Output::Dropped(id));
            return;
        }
        self.appended(id);
    }

    fn appended(&mut self, proposal: ProposalId) {
        let raft = &self.node.raft;
        let (index, term) = (raft.raft_log.last_index(), raft.term);
        self.proposals.insert((index, term), proposal);
        self.out.push(Output::Appended { proposal, term, index });
    }

    fn change_membership(&mut self, id: ProposalId, change: &MembershipChange) {
        let step = match self.begin_change(change) {
            Ok(step) => step,
            Err(refused) => return self.out.push(Output::Refused(id, refused)),
        };
        if self.node.propose_conf_change(step.encode().to_vec(), step.to_raft()).is_ok() {
            self.appended(id);
        } else {
            self.out.push(Output::Dropped(id));
        }
    }

    fn begin_change(&self, change: &MembershipChange) -> Result<Step, ChangeRefused> {
        let membership = self.membership();
        if !self.is_leader() {
            return Err(ChangeRefused::NotLeader);
        }
        if self.node.raft.has_pending_conf() || membership.is_joint() {
            return Err(ChangeRefused::UnderWay);
        }
        let step = Step::begin(membership, change).ok_or(ChangeRefused::Nothing)?;
        let stays = |voter: &&MemberId| change.0.get(voter).is_none_or(|place| *place == crate::Place::Voter);
        let comes = change.0.values().any(|place| *place == crate::Place::Voter);
        if !comes && membership.voters.iter().find(stays).is_none() {
            return Err(ChangeRefused::NoVoter);
        }
        if change.0.get(&self.config.id).is_some_and(|place| *place != crate::Place::Voter) {
            return Err(ChangeRefused::Leader);
        }
        Ok(step)
    }

    /// A change that is in effect with both majorities is ended by the leader, whoever began it.
    fn end_change(&mut self) {
        if !self.is_leader() || !self.membership().is_joint() || self.node.raft.has_pending_conf() {
            return;
        }
        if self.membership().voters.contains(&self.config.id) {
            let step = Step::leave();
            // It is tried again at the next step.
            let _ = self.node.propose_conf_change(step.encode().to_vec(), step.to_raft());
            self.collect();
        } else {
            // Who goes with the end of the change lets somebody end it who stays.
            self.hand_over_lead();
            self.collect();
        }
    }

    fn hand_over_lead(&mut self) {
        if self.is_leader()
            && self.node.raft.lead_transferee.is_none()
            && let Some(heir) = self.heir()
        {
            self.node.transfer_leader(heir.0);
        }
    }

    /// The voter that is the least behind among those that are there.
    fn heir(&self) -> Option<MemberId> {
        let membership = self.membership();
        let peers = self.status().peers;
        let heirs = peers.iter().filter(|peer| peer.active && membership.voters.contains(&peer.id));
        heirs.max_by_key(|peer| (peer.matched, std::cmp::Reverse(peer.id))).map(|peer| peer.id)
    }

    fn give_up_lead(&mut self) {
        let membership = self.membership();
        let others = membership.voters.iter().any(|voter| *voter != self.config.id);
        if self.is_leader() && others {
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
        }
    }

    fn snapshot_saved(&mut self, mark: SnapshotMark) {
        if mark.index <= self.node.store().snapshot().mark.index {
            return; // a later one came from another member meanwhile
        }
        while self.memberships.get(1).is_some_and(|(from, _)| *from <= mark.index) {
            self.memberships.pop_front();
        }
        let pointer = SnapshotPointer { mark, membership: self.memberships[0].1.clone() };
        let keep_from = mark.index.saturating_sub(self.config.tail);
        let log = self.node.mut_store();
        log.set_snapshot(pointer.clone());
        log.compact(keep_from);
        self.hand_over(WalBatch { snapshot: Some(pointer), compact_to: Some(keep_from), ..WalBatch::default() });
    }
}

/// The log that every voter of a new group begins with: who is in the group comes from the log alone, so that a member that
/// begins with nothing learns it like everything else.
fn founding(voters: &[MemberId]) -> Restored {
    let mut voters = voters.to_vec();
    voters.sort();
    let entries: Vec<LogEntry> = (1..)
        .zip(&voters)
        .map(|(index, voter)| LogEntry {
            index,
            term: FOUNDING_TERM,
            kind: EntryKind::Membership,
            data: Step::found(*voter).encode(),
        })
        .collect();
    let hard_state = match entries.len() as u64 {
        0 => HardState::default(),
        commit => HardState { term: FOUNDING_TERM, vote: 0, commit },
    };
    Restored { hard_state, entries, ..Restored::default() }
}

fn hard_state(restored: &Restored) -> eraftpb::HardState {
    let mut hard_state = eraftpb::HardState::default();
    hard_state.term = restored.hard_state.term;
    hard_state.vote = restored.hard_state.vote;
    hard_state.commit = restored.hard_state.commit.max(restored.snapshot.mark.index);
    hard_state
}

fn settings(config: &Config, applied: u64) -> raft::Config {
    let (low, high) = config.election_ticks();
    raft::Config {
        id: config.id.0,
        election_tick: low,
        heartbeat_tick: io::TICKS_PER_HEARTBEAT as usize,
        min_election_tick: low,
        max_election_tick: high,
        applied,
        max_size_per_msg: MESSAGE_BYTES_MAX,
        max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        check_quorum: true,
        pre_vote: true,
        ..raft::Config::default()
    }
}

#[cfg(test)]
mod tests;
