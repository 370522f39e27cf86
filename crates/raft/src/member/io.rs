//! What a member is set up with, is told, and wants done.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{ChangeRefused, Membership, MembershipChange, Message, PersistId, ReadId, SnapshotMark, WalBatch};

/// Ticks in a heartbeat interval: fine enough that drawn election timeouts differ.
pub(super) const TICKS_PER_HEARTBEAT: u32 = 10;

/// Entries kept behind a snapshot where nobody says otherwise.
pub(super) const TAIL_ENTRIES: u64 = 1000;

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
    /// The voters of a new group, this member among them, and the same on all of them; none for a member that joins a group. A
    /// member that had a log before does not look at them.
    pub voters: Vec<MemberId>,
    /// How often a leader makes itself heard.
    pub heartbeat: Duration,
    /// How long a follower waits for a leader before it stands for election: a time between these is drawn each time.
    pub election: (Duration, Duration),
    /// How many entries stay in the log behind a snapshot, for members that are a little late.
    pub tail: u64,
}

impl Config {
    /// A group of one, with the timings of a home network.
    pub fn single(id: MemberId) -> Self {
        Self {
            id,
            voters: vec![id],
            heartbeat: Duration::from_millis(100),
            election: (Duration::from_millis(600), Duration::from_millis(1200)),
            tail: TAIL_ENTRIES,
        }
    }

    /// A member that joins a group: it waits until it is spoken to.
    pub fn joining(id: MemberId) -> Self {
        Self { voters: Vec::new(), ..Self::single(id) }
    }

    /// The same with the timings of a wired network, on which half a second without a leader is long.
    #[must_use]
    pub fn lan(self) -> Self {
        let election = (Duration::from_millis(200), Duration::from_millis(350));
        Self { heartbeat: Duration::from_millis(50), election, ..self }
    }

    pub(super) fn tick(&self) -> Duration {
        self.heartbeat / TICKS_PER_HEARTBEAT
    }

    /// The election range in ticks.
    pub(super) fn election_ticks(&self) -> (usize, usize) {
        let ticks = |duration: Duration| (duration.as_nanos() / self.tick().as_nanos().max(1)) as usize;
        (ticks(self.election.0), ticks(self.election.1))
    }
}

/// What a member is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Nothing but that time has passed.
    Tick,
    /// A message of another member. One that stands for a snapshot is not taken this way.
    Message(MemberId, Message),
    /// The state that goes with this message of another member is here, complete and durable.
    Snapshot(MemberId, Message),
    /// The state that [`Output::SendSnapshot`] asked to be moved is complete on the other member, or did not get there.
    SnapshotSent(MemberId, bool),
    /// What was sent to a member lately may be lost.
    Unreachable(MemberId),
    /// A member's process has ended, as far as can be told: the connection to it was lost, and nobody listens where it did. A
    /// follower of it need not wait in silence before it stands for election. A wrong word costs an election and nothing else.
    Gone(MemberId),
    /// Everything up to this batch is durable.
    Persisted(PersistId),
    /// Bytes to put into the log, if this member leads.
    Propose(ProposalId, Bytes),
    /// The group is to change, if this member leads.
    ChangeMembership(ProposalId, MembershipChange),
    /// Another member is to lead in this one's place. Nothing comes of it when this member does not lead, when the other is no
    /// voter, or when it cannot catch up within an election timeout.
    TransferLead(MemberId),
    /// This member is about to stop: if it leads and another voter is there, the one that is the least behind is to lead in its place.
    HandOver,
    /// This member no longer trusts its lead, because it may have slept: if others can lead it follows.
    GiveUpLead,
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
#[non_exhaustive]
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
    /// A member is later than the log reaches back: move the state of the last snapshot that was saved there, then let it step
    /// `message` with [`Input::Snapshot`], and tell [`Input::SnapshotSent`] here, whatever came of it.
    SendSnapshot {
        /// To whom.
        to: MemberId,
        /// What stands for the snapshot.
        message: Message,
        /// The snapshot that is meant.
        mark: SnapshotMark,
    },
    /// A member needs a snapshot, and the last one does not know it: save one soon, and tell [`Input::SnapshotSaved`].
    SnapshotWanted,
    /// The state is now the one that came with [`Input::Snapshot`]; the batch that follows makes that durable.
    Install {
        /// The snapshot's place.
        mark: SnapshotMark,
        /// Who is in the group.
        membership: Membership,
    },
    /// A proposal is in this member's log, not committed: it is settled when this index is applied, with this term or another.
    Appended {
        /// Which.
        proposal: ProposalId,
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
    },
    /// Apply this committed entry; they come in the order of their indexes, those of [`Output::Membership`] among them.
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
    /// A committed entry changed who is in the group.
    Membership {
        /// The entry's term.
        term: u64,
        /// The entry's index.
        index: u64,
        /// Which proposal of this member it is.
        proposal: Option<ProposalId>,
        /// Who is in it now. A member that is in none of its lists was removed, or is not yet told that it was added.
        membership: Membership,
    },
    /// A proposal was not taken, or another entry came to its place: nothing was or will be done of it.
    Dropped(ProposalId),
    /// A proposal's place went by in a snapshot: whether it was applied cannot be told.
    Unknown(ProposalId),
    /// A change of the group is not begun.
    Refused(ProposalId, ChangeRefused),
    /// Everything that the read must see is applied by the outputs before this one.
    Readable(ReadId),
    /// Too many reads wait, or this one has waited too long.
    Unreadable(ReadId),
    /// This member leads in this term.
    Leading(u64),
    /// It no longer does.
    Following,
    /// Who leads, as far as this member knows: a hint for whom to ask.
    Leader(Option<MemberId>),
}
