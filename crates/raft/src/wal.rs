//! What a member wants made durable, and what it is given back at the next start.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::Membership;
use crate::membership::Step;

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

/// Why a log is none that a member can begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unsound {
    /// An entry is missing.
    #[error("it has entry {found} where {expected} should be")]
    Gap {
        /// The index that should come next.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// Terms fall along it, or its last one was forgotten.
    #[error("the term of entry {0} does not fit what is before and after it")]
    Term(u64),
    /// An entry that changes the group cannot be read, is of a newer version, or does not fit the group.
    #[error("entry {0} is no change of the group that this version can make")]
    Change(u64),
    /// What was committed is missing.
    #[error("it ends before entry {0}, which was committed")]
    Short(u64),
    /// Its group cannot be one.
    #[error("the group that it begins with cannot be one")]
    Group,
}

impl Restored {
    /// Whether a member can begin with it: what was read from a disk has to be looked at first, because consensus panics on a log with
    /// gaps.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Unsound> {
        let (mut last, mut term) = (self.base.index, self.base.term);
        for entry in &self.entries {
            if entry.index != last.saturating_add(1) {
                return Err(Unsound::Gap { expected: last.saturating_add(1), found: entry.index });
            }
            if entry.term < term {
                return Err(Unsound::Term(entry.index));
            }
            (last, term) = (entry.index, entry.term);
        }
        if term > self.hard_state.term {
            return Err(Unsound::Term(last));
        }
        let committed = self.hard_state.commit.max(self.snapshot.mark.index);
        if committed > last {
            return Err(Unsound::Short(committed));
        }
        if self.snapshot.mark.index < self.base.index {
            return Err(Unsound::Gap { expected: self.snapshot.mark.index + 1, found: self.base.index + 1 });
        }
        // A group without anybody is one that a member waits to be let into.
        if self.snapshot.membership != Membership::default() && !self.snapshot.membership.is_sound() {
            return Err(Unsound::Group);
        }
        self.check_changes()
    }

    /// Whether the group can take each change that is still to be applied: consensus panics on one that it cannot. Each was begun by a
    /// leader that had applied the one before, so that they fit one after the other or are damaged.
    fn check_changes(&self) -> Result<(), Unsound> {
        let behind = self.entries.iter().filter(|entry| entry.index > self.snapshot.mark.index);
        let mut group = self.snapshot.membership.clone();
        for entry in behind.filter(|entry| entry.kind == EntryKind::Membership) {
            let step = Step::decode(&entry.data).ok();
            group = step.and_then(|step| group.after(&step)).ok_or(Unsound::Change(entry.index))?;
        }
        Ok(())
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemberId;

    fn log(entries: &[(u64, u64)]) -> Restored {
        let entry = |(index, term): &(u64, u64)| LogEntry { index: *index, term: *term, ..LogEntry::default() };
        let term = entries.last().map_or(0, |(_, term)| *term);
        Restored {
            hard_state: HardState { term, ..HardState::default() },
            entries: entries.iter().map(entry).collect(),
            ..Restored::default()
        }
    }

    #[test]
    fn a_log_that_a_member_cannot_begin_with_is_told_from_one_that_it_can() {
        log(&[]).check().unwrap();
        log(&[(1, 1), (2, 1), (3, 4)]).check().unwrap();
        assert_eq!(log(&[(1, 1), (3, 1)]).check(), Err(Unsound::Gap { expected: 2, found: 3 }));
        assert_eq!(log(&[(1, 2), (2, 1)]).check(), Err(Unsound::Term(2)));
        let with = |change: fn(&mut Restored)| {
            let mut log = log(&[(1, 1), (2, 1)]);
            change(&mut log);
            log.check()
        };
        assert_eq!(with(|log| log.hard_state.term = 0), Err(Unsound::Term(2)));
        assert_eq!(with(|log| log.hard_state.commit = 3), Err(Unsound::Short(3)));
        assert_eq!(with(|log| log.entries[1].kind = EntryKind::Membership), Err(Unsound::Change(2)));
        assert_eq!(with(|log| log.snapshot.membership.learners = vec![MemberId(1)]), Err(Unsound::Group));
    }
}
