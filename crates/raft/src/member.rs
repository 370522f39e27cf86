//! One participant of a Raft group.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use coracle_base::{Instant, Now, Rng};
use raft::eraftpb::{self, ConfState, Entry, EntryType, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use serde::{Deserialize, Serialize};

use crate::log::Log;
use crate::read::Reads;
use crate::{HardState, LogEntry, Message, PersistId, ReadId, Restored, SnapshotMark, WalBatch};

/// Ticks in a heartbeat interval: fine enough that drawn election timeouts differ.
const TICKS_PER_HEARTBEAT: u32 = 10;
/// Entries kept behind a snapshot, for members that are a little late.
const TAIL_ENTRIES: u64 = 1000;
/// The largest message of entries, and how many are on their way to one member.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
/// Bytes that are proposed and not yet committed: beyond it proposals are dropped, so that a leader without a majority does
/// not fill its memory.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// A member's id; never zero, never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId(pub u64);

/// Which proposal became of what; chosen by who proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId(pub u64);

/// How a member is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member.
    pub id: MemberId,
    /// The voters of a new group, this member among them.
    pub voters: Vec<MemberId>,
    /// How often a leader makes itself heard.
    pub heartbeat: Duration,
    /// How long a follower waits for a leader before it stands for election: a time between these is drawn each time.
    pub election: (Duration, Duration),
}

impl Config {
    /// A group of one, with the timings of a home network.
    pub fn single(id: MemberId) -> Self {
        Self {
            id,
            voters: vec![id],
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(600), Duration::from_millis(1200)),
        }
    }

    fn tick(&self) -> Duration {
        self.heartbeat / TICKS_PER_HEARTBEAT
    }

    /// The election range in ticks.
    fn election_ticks(&self) -> (usize, usize) {
        let ticks = |duration: Duration| (duration.as_nanos() / self.tick().as_nanos().max(1)) as usize;
        (ticks(self.election.0), ticks(self.election.1))
    }
}

/// What a member is told.
#[derive(Debug)]
pub enum Input {
    /// Nothing but that time has passed.
    Tick,
    /// A message of another member.
    Message(MemberId, Message),
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// Bytes to put into the log, if this member leads.
    Propose(ProposalId, Bytes),
    /// A read wants to see everything that was committed before it was asked for.
    ReadIndex(ReadId),
    /// A snapshot of the state up to this entry is durable: the log before it may go.
    SnapshotSaved {
        /// The index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
    },
}

/// What a member wants done.
#[derive(Debug)]
pub enum Output {
    /// Make this durable, atomically, and tell [`Input::Persisted`].
    Persist(PersistId, WalBatch),
    /// Send this, once everything up to `after` is durable.
    Send {
        /// To whom.
        to: MemberId,
        /// What.
        message: Message,
        /// What must be durable first: nothing for what a leader replicates.
        after: Option<PersistId>,
    },
    /// Apply this committed entry; they come in the order of their indexes.
    Apply {
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
        /// Which proposal of this member it is.
        proposal: Option<ProposalId>,
        /// What it carries; empty for a leader's first.
        data: Bytes,
    },
    /// A proposal was not taken, or another entry came to its place: nothing was or will be done of it.
    Dropped(ProposalId),
    /// Everything that the read must see is applied by the outputs before this one.
    Readable(ReadId),
    /// Too many reads wait.
    Unreadable(ReadId),
    /// This member leads in this term.
    Leading(u64),
    /// It no longer does.
    Following,
}

/// Term, role and leader.
type Standing = (u64, StateRole, u64);

/// A member.
pub struct Member {
    config: Config,
    node: RawNode<Log>,
    rng: Rng,
    /// The election timeout in ticks, and for which role and term it was drawn.
    drawn: usize,
    standing: Standing,
    next_tick: Instant,
    next_persist: PersistId,
    /// The raft crate's number of what each batch holds.
    persisting: VecDeque<(PersistId, u64)>,
    /// By index: the term and id of what this member proposed.
    proposals: BTreeMap<u64, (u64, ProposalId)>,
    reads: Reads,
    /// Votes that came while a batch is on its way: with the last of them this member would lead, and a leader's log is durable.
    votes: Vec<Message>,
    leading: bool,
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
    /// On a configuration that Raft cannot work with (id zero, no voters, an election range shorter than the heartbeat), and
    /// on a log with gaps: who reads the log checks it first.
    pub fn new(now: Now, config: Config, restored: Option<Restored>, mut rng: Rng) -> Self {
        let restored = restored.unwrap_or_default();
        let conf_state = ConfState { voters: config.voters.iter().map(|id| id.0).collect(), ..ConfState::default() };
        let mut hard_state = eraftpb::HardState::default();
        hard_state.term = restored.hard_state.term;
        hard_state.vote = restored.hard_state.vote;
        hard_state.commit = restored.hard_state.commit.max(restored.snapshot.index);
        let mut log = Log::new(restored.base, restored.snapshot, hard_state, conf_state);
        let entries: Vec<Entry> = restored.entries.iter().map(to_raft).collect();
        log.append(&entries);
        let (low, high) = config.election_ticks();
        let settings = raft::Config {
            id: config.id.0,
            election_tick: low,
            heartbeat_tick: TICKS_PER_HEARTBEAT as usize,
            min_election_tick: low,
            max_election_tick: high,
            applied: restored.snapshot.index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            check_quorum: true,
            pre_vote: true,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&settings, log, &logger).expect("the configuration and the log are sound");
        let next_tick = now.mono + config.tick();
        let reads = Reads::new((config.id.0, rng.next_u64()));
        let mut member = Self {
            config,
            node,
            rng,
            drawn: low,
            standing: (0, StateRole::Follower, 0),
            next_tick,
            next_persist: PersistId(1),
            persisting: VecDeque::new(),
            proposals: BTreeMap::new(),
            reads,
            votes: Vec::new(),
            leading: false,
            out: Vec::new(),
        };
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

    /// When [`Input::Tick`] is due. A group of one has nobody to hear from: once it leads it needs no time.
    pub fn next_wakeup(&self) -> Option<Instant> {
        if !self.is_alone() {
            Some(self.next_tick)
        } else if self.node.raft.state == StateRole::Follower {
            Some(Instant::ZERO)
        } else {
            None
        }
    }

    /// One step.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Output> {
        match input {
            Input::Tick => self.tick(now),
            Input::Message(from, message) => self.receive(from, message),
            Input::Persisted(id) => self.persisted(id),
            Input::Propose(id, data) => self.propose(id, &data),
            Input::ReadIndex(id) => {
                if !self.reads.push(id) {
                    self.out.push(Output::Unreadable(id));
                }
            }
            Input::SnapshotSaved { index, term } => self.snapshot_saved(index, term),
        }
        self.pin_election_timeout();
        self.collect();
        if let Some(context) = self.reads.due(now.mono, self.config.heartbeat) {
            self.node.read_index(context);
            self.collect();
        }
        self.pin_election_timeout();
        std::mem::take(&mut self.out)
    }

    fn receive(&mut self, from: MemberId, message: Message) {
        if message.0.from != from.0 || !message.is_between_members() {
            return;
        }
        if message.0.get_msg_type() == MessageType::MsgSnapshot {
            // It carries no state yet, and a log without its state is worse than being late.
            return;
        }
        if message.is_vote() && !self.persisting.is_empty() {
            // One vote of each member is enough; what does not fit is asked for again at the next election.
            if self.votes.len() < self.config.voters.len() * 2 {
                self.votes.push(message);
            }
            return;
        }
        // A message that does not fit the member's state is stale, not an error of ours.
        let _ = self.node.step(message.0);
    }

    fn is_alone(&self) -> bool {
        self.config.voters == [self.config.id]
    }

    fn tick(&mut self, now: Now) {
        if self.is_alone() {
            if self.node.raft.state == StateRole::Follower {
                // Alone there is nobody to wait for.
                let _ = self.node.campaign();
            }
            return;
        }
        while self.next_tick <= now.mono {
            let stands = self.node.tick() && !self.is_leader();
            if stands {
                // It stands for election, perhaps once more in the same role and term.
                self.draw_election_timeout();
            }
            self.pin_election_timeout();
            self.next_tick = self.next_tick + self.config.tick();
            if now.mono.saturating_since(self.next_tick) > self.config.election.1 {
                // The process stood still: what it missed is not made up for, or it would count as many silent heartbeats.
                self.next_tick = now.mono + self.config.tick();
            }
        }
    }

    fn draw_election_timeout(&mut self) {
        let (low, high) = self.config.election_ticks();
        self.drawn = low + self.rng.below((high - low) as u64) as usize;
    }

    /// The raft crate draws from the thread's generator; a run must replay from its seed, so its draw is overwritten. Whether it
    /// drew cannot be told from its value, which may be the same by chance: a new role, term or leader is what tells.
    fn pin_election_timeout(&mut self) {
        let raft = &self.node.raft;
        let standing = (raft.term, raft.state, raft.leader_id);
        if standing != self.standing {
            self.standing = standing;
            self.draw_election_timeout();
        }
        self.node.raft.set_randomized_election_timeout(self.drawn);
    }

    fn propose(&mut self, id: ProposalId, data: &Bytes) {
        if !self.is_leader() || self.node.propose(Vec::new(), data.to_vec()).is_err() {
            self.out.push(Output::Dropped(id));
            return;
        }
        let raft = &self.node.raft;
        self.proposals.insert(raft.raft_log.last_index(), (raft.term, id));
    }

    fn persisted(&mut self, id: PersistId) {
        let mut number = None;
        while let Some((batch, raft)) = self.persisting.front() {
            if *batch > id {
                break;
            }
            number = Some(*raft);
            self.persisting.pop_front();
        }
        if let Some(number) = number {
            self.node.on_persist_ready(number);
        }
        if self.persisting.is_empty() {
            for Message(vote) in std::mem::take(&mut self.votes) {
                let _ = self.node.step(vote);
            }
        }
    }

    fn snapshot_saved(&mut self, index: u64, term: u64) {
        let mark = SnapshotMark { index, term };
        let keep_from = index.saturating_sub(TAIL_ENTRIES);
        let log = self.node.mut_store();
        log.set_snapshot(mark);
        log.compact(keep_from);
        let batch = WalBatch { snapshot: Some(mark), compact_to: Some(keep_from), ..WalBatch::default() };
        let id = self.next_persist;
        self.next_persist = PersistId(id.0 + 1);
        self.out.push(Output::Persist(id, batch));
    }

    /// Everything that the raft crate has ready, as outputs.
    fn collect(&mut self) {
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if let Some(soft) = ready.ss() {
                self.role_changed(soft.raft_state);
            }
            for read in ready.take_read_states() {
                self.reads.answer(&read.request_ctx, read.index);
            }
            let messages = ready.take_messages();
            let mut unsent = self.send(messages, None);
            let committed = ready.take_committed_entries();
            self.apply(committed);
            let after = self.persist(&ready);
            let messages = ready.take_persisted_messages();
            unsent.extend(self.send(messages, after));
            let number = ready.number();
            self.node.advance_append_async(ready);
            if after.is_none() {
                // Nothing is on its way: it is as durable as it will be. Kept until the next batch, the records of an idle
                // leader's heartbeats would pile up.
                self.node.on_persist_ready(number);
            }
            for member in unsent {
                self.node.report_snapshot(member, SnapshotStatus::Failure);
            }
        }
        let applied = self.node.raft.raft_log.applied;
        self.out.extend(self.reads.possible(applied).map(Output::Readable));
    }

    fn role_changed(&mut self, role: StateRole) {
        let leading = role == StateRole::Leader;
        if leading != self.leading {
            self.leading = leading;
            self.out.push(if leading { Output::Leading(self.node.raft.term) } else { Output::Following });
        }
    }

    /// Hands over what must be durable; returns the batch that a message of this ready waits for.
    fn persist(&mut self, ready: &raft::Ready) -> Option<PersistId> {
        let mut batch = WalBatch::default();
        if !ready.entries().is_empty() {
            self.node.mut_store().append(ready.entries());
            batch.entries = ready.entries().iter().map(from_raft).collect();
        }
        if let Some(state) = ready.hs() {
            self.node.mut_store().set_hard_state(state.clone());
            // A commit index alone need not be durable: it is learned again.
            if ready.must_sync() {
                batch.hard_state = Some(HardState { term: state.term, vote: state.vote, commit: state.commit });
            }
        }
        if batch == WalBatch::default() {
            // Nothing to write: it is durable as soon as what was handed over before is.
            if let Some(last) = self.persisting.back_mut() {
                last.1 = ready.number();
            }
        } else {
            let id = self.next_persist;
            self.next_persist = PersistId(id.0 + 1);
            self.persisting.push_back((id, ready.number()));
            self.out.push(Output::Persist(id, batch));
        }
        self.persisting.back().map(|(id, _)| *id)
    }

    /// Hands over messages; returns the members that a snapshot was for. No state travels yet: who is later than the log's tail
    /// stays late.
    fn send(&mut self, messages: Vec<eraftpb::Message>, after: Option<PersistId>) -> Vec<u64> {
        let mut unsent = Vec::new();
        for message in messages {
            if message.get_msg_type() == MessageType::MsgSnapshot {
                unsent.push(message.to);
            } else {
                self.out.push(Output::Send { to: MemberId(message.to), message: Message(message), after });
            }
        }
        unsent
    }

    fn apply(&mut self, entries: Vec<Entry>) {
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        for entry in entries {
            let proposal = match self.proposals.remove(&entry.index) {
                Some((term, id)) if term == entry.term => Some(id),
                Some((_, id)) => {
                    self.out.push(Output::Dropped(id));
                    None
                }
                None => None,
            };
            assert_eq!(entry.get_entry_type(), EntryType::EntryNormal, "membership changes are not proposed yet");
            self.out.push(Output::Apply { term: entry.term, index: entry.index, proposal, data: entry.data });
        }
        let begins = self.is_leader() && !self.node.raft.apply_to_current_term();
        self.node.advance_apply_to(last);
        if begins && self.node.raft.apply_to_current_term() {
            // Before this the raft crate dropped reads.
            self.reads.retry();
        }
    }
}

fn from_raft(entry: &Entry) -> LogEntry {
    LogEntry { index: entry.index, term: entry.term, data: entry.data.clone() }
}

fn to_raft(entry: &LogEntry) -> Entry {
    Entry { index: entry.index, term: entry.term, data: entry.data.clone(), ..Entry::default() }
}

#[cfg(test)]
mod tests;
