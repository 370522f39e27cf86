//! What a member wants made durable, and what it is given back at the next start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Membership;

/// The number of a batch; one more at each, and a number that is durable means all before it are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersistId(pub u64);

/// What an entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// For the state, or empty: the entry that a leader begins its term with.
    #[default]
    Normal,
    /// It changes who is in the group.
    Membership,
}

impl EntryKind {
    /// The number that stands for it in the log and in messages.
    pub fn number(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::Membership => 1,
        }
    }

    /// What a number stands for.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Normal, Self::Membership].into_iter().find(|kind| kind.number() == number)
    }
}

/// One entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index, from 1.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
    /// What it is for.
    pub kind: EntryKind,
    /// What it carries; empty for the entry that a leader begins its term with.
    pub data: Bytes,
}

/// What a member may never forget (Raft, section 5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: u64,
    /// Whom it voted for in that term; zero for nobody.
    pub vote: u64,
    /// The highest index that it knows to be committed.
    pub commit: u64,
}

/// Where a snapshot stands in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMark {
    /// The index of the last entry that is in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
}

/// The snapshot that a log begins behind, and who was in the group then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotPointer {
    /// Where it stands.
    pub mark: SnapshotMark,
    /// Who was in the group at that index.
    pub membership: Membership,
}

/// What is written at once, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalBatch {
    /// The log is given up as a whole: it begins behind `snapshot`, which came from another member. Done before anything else.
    pub restart: bool,
    /// Entries to append. Whatever the log has at the first one's index and behind it is replaced.
    pub entries: Vec<LogEntry>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
    /// The snapshot that the log now begins behind.
    pub snapshot: Option<SnapshotPointer>,
    /// Entries up to this index (inclusive) are no longer needed.
    pub compact_to: Option<u64>,
}

impl WalBatch {
    /// Roughly how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        self.entries.iter().map(|entry| entry.data.len() + 24).sum()
    }
}

/// What a member had made durable before it was started again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The hard state.
    pub hard_state: HardState,
    /// The snapshot that the state was loaded from; zeros for none.
    pub snapshot: SnapshotPointer,
    /// The entry before the first one in `entries`: the snapshot's, or an earlier one when the log keeps a tail behind it.
    pub base: SnapshotMark,
    /// The log, without gaps.
    pub entries: Vec<LogEntry>,
}

impl Restored {
    /// Takes a batch as a log on disk does: what a driver's own log must come to.
    pub fn write(&mut self, batch: WalBatch) {
        if let Some(pointer) = batch.snapshot {
            if batch.restart {
                self.entries.clear();
                self.base = pointer.mark;
            }
            self.snapshot = pointer;
        }
        if let Some(first) = batch.entries.first() {
            let keep = self.entries.partition_point(|entry| entry.index < first.index);
            self.entries.truncate(keep);
            self.entries.extend(batch.entries);
        }
        self.hard_state = batch.hard_state.unwrap_or(self.hard_state);
        if let Some(index) = batch.compact_to
            && let Ok(position) = self.entries.binary_search_by_key(&index, |entry| entry.index)
        {
            self.base = SnapshotMark { index, term: self.entries[position].term };
            self.entries.drain(..=position);
        }
    }
}
