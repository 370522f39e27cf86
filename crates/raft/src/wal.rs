//! What a member wants made durable, and what it is given back at the next start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The number of a batch; one more at each, and a number that is durable means all before it are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersistId(pub u64);

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index, from 1.
    pub index: u64,
    /// The term it was proposed in.
    pub term: u64,
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

/// What is written at once, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalBatch {
    /// Entries to append. Whatever the log has at the first one's index and behind it is replaced.
    pub entries: Vec<LogEntry>,
    /// The new hard state.
    pub hard_state: Option<HardState>,
    /// The snapshot that the log now begins behind.
    pub snapshot: Option<SnapshotMark>,
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
    pub snapshot: SnapshotMark,
    /// The entry before the first one in `entries`: the snapshot's, or an earlier one when the log keeps a tail behind it.
    pub base: SnapshotMark,
    /// The log, without gaps.
    pub entries: Vec<LogEntry>,
}
