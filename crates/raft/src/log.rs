//! The log in memory, as the `raft` crate reads it.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::{MemberId, Place, SnapshotMark, SnapshotPointer};

/// Entries behind `base`, and the state that goes with them.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The entry before the first.
    base: SnapshotMark,
    entries: VecDeque<Entry>,
    hard_state: HardState,
    /// The last snapshot, which can be sent; the raft crate begins with who was in the group then.
    snapshot: SnapshotPointer,
    /// Somebody is to get a snapshot who was not in the group at the time of the last one.
    wanted: Cell<bool>,
}

impl Log {
    pub(crate) fn new(base: SnapshotMark, snapshot: SnapshotPointer, hard_state: HardState) -> Self {
        Self { base, entries: VecDeque::new(), hard_state, snapshot, wanted: Cell::new(false) }
    }

    /// Appends, and replaces what stands at the first entry's index and behind it.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let next = self.base.index + 1 + self.entries.len() as u64;
        assert!(
            first.index > self.base.index && first.index <= next,
            "entry {} does not follow the log, which ends before {next}",
            first.index
        );
        self.entries.truncate((first.index - self.base.index - 1) as usize);
        self.entries.extend(entries.iter().cloned());
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// A snapshot up to here is durable.
    pub(crate) fn set_snapshot(&mut self, snapshot: SnapshotPointer) {
        self.snapshot = snapshot;
    }

    /// Begins anew behind a snapshot that came from another member.
    pub(crate) fn restart(&mut self, snapshot: SnapshotPointer) {
        self.entries.clear();
        self.base = snapshot.mark;
        self.snapshot = snapshot;
    }

    /// Whether a snapshot is missing that can be sent; asked once.
    pub(crate) fn take_wanted(&self) -> bool {
        self.wanted.take()
    }

    pub(crate) fn snapshot(&self) -> &SnapshotPointer {
        &self.snapshot
    }

    /// Forgets entries up to `index`, which must be in a snapshot.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.base.index < index {
            let Some(entry) = self.entries.pop_front() else { break };
            self.base = SnapshotMark { index: entry.index, term: entry.term };
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.base.index + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.base.index + self.entries.len() as u64
    }

    fn position(&self, index: u64) -> usize {
        (index - self.base.index - 1) as usize
    }
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.snapshot.membership.to_raft()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        assert!(high <= self.last() + 1, "entries up to {high} were asked for, the log ends at {}", self.last());
        let mut entries: Vec<Entry> =
            self.entries.range(self.position(low)..self.position(low) + (high - low) as usize).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.base.index {
            return Ok(self.base.term);
        }
        if index < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.entries.get(self.position(index)).map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let SnapshotPointer { mark, membership } = &self.snapshot;
        // A member does not take a snapshot of a group that it is not in.
        let knows = membership.place(MemberId(to)) != Place::Outside;
        if mark.index == 0 || mark.index < request_index || !knows {
            self.wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        // Only a descriptor: the state itself travels beside.
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = mark.index;
        metadata.term = mark.term;
        metadata.set_conf_state(membership.to_raft());
        Ok(snapshot)
    }
}
