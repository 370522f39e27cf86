//! A disk that takes its time, and loses what it has not written when the power goes.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use coracle_base::{Instant, Rng};
use coracle_raft::{LogEntry, PersistId, Restored, WalBatch};
use coracle_store::{Store, StoreOptions};

use crate::Mutation;

/// The shortest and longest write: a good solid state disk's, and a bad one's.
pub(crate) const LATENCY: (Duration, Duration) = (Duration::from_micros(100), Duration::from_millis(4));

/// How many batches a disk that lies keeps in its memory.
const CACHED_MAX: usize = 12;

/// One member's log and snapshots.
pub(crate) struct Disk {
    /// The shortest and longest write.
    latency: (Duration, Duration),
    /// How many times as long it takes, and until when.
    slow: (u32, Instant),
    mutation: Option<Mutation>,
    /// What a disk that lies still has to write.
    cached: VecDeque<WalBatch>,
    /// The term before the one that the log has.
    earlier_term: u64,
    log: Option<Restored>,
    /// The snapshots that are complete, by index: the newest and the one before.
    snapshots: Vec<(u64, Vec<u8>)>,
    /// What is handed over and not durable yet, in order.
    pending: VecDeque<(PersistId, WalBatch)>,
    /// When the last of them is.
    busy_until: Instant,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = |entry: Option<&LogEntry>| entry.map(|entry| (entry.index, entry.term));
        let log = self.log.as_ref();
        f.debug_struct("Disk")
            .field("entries", &log.map(|log| (ends(log.entries.first()), ends(log.entries.last()))))
            .field("hard_state", &log.map(|log| log.hard_state))
            .field("snapshot", &log.map(|log| log.snapshot.mark))
            .field("snapshots", &self.snapshots.iter().map(|(index, _)| *index).collect::<Vec<_>>())
            .field("pending", &self.pending.len())
            .finish_non_exhaustive()
    }
}

impl Disk {
    /// An empty disk whose writes take between these.
    pub(crate) fn new(latency: (Duration, Duration), mutation: Option<Mutation>) -> Self {
        Self {
            latency,
            slow: (1, Instant::ZERO),
            mutation,
            cached: VecDeque::new(),
            earlier_term: 0,
            log: None,
            snapshots: Vec::new(),
            pending: VecDeque::new(),
            busy_until: Instant::ZERO,
        }
    }

    /// Everything takes so many times as long until then.
    pub(crate) fn slow_down(&mut self, factor: u32, until: Instant) {
        self.slow = (factor, until);
    }

    /// How long a write takes this time.
    pub(crate) fn latency(&self, now: Instant, rng: &mut Rng) -> Duration {
        let (factor, until) = self.slow;
        latency(self.latency, rng) * if now < until { factor } else { 1 }
    }

    /// Takes a batch; returns when it is durable. Batches become durable in order.
    pub(crate) fn write(&mut self, id: PersistId, batch: WalBatch, now: Instant, rng: &mut Rng) -> Instant {
        self.pending.push_back((id, batch));
        self.busy_until = self.busy_until.max(now) + self.latency(now, rng);
        self.busy_until
    }

    /// Everything up to this batch is durable now.
    pub(crate) fn written(&mut self, id: PersistId) {
        while let Some((_, batch)) = self.pending.pop_front_if(|(pending, _)| *pending <= id) {
            self.cached.push_back(batch);
        }
        let lies = if self.mutation == Some(Mutation::SkippedFsync) { CACHED_MAX } else { 0 };
        while self.cached.len() > lies
            && let Some(batch) = self.cached.pop_front()
        {
            self.commit(batch);
        }
    }

    /// Keeps a snapshot; the log still says which one counts, and that one stays.
    pub(crate) fn keep_snapshot(&mut self, index: u64, bytes: Vec<u8>) {
        let named = self.log.as_ref().map_or(0, |log| log.snapshot.mark.index);
        self.snapshots.retain(|(kept, _)| *kept != index);
        self.snapshots.push((index, bytes));
        self.snapshots.sort_by_key(|(index, _)| *index);
        let newest = self.snapshots.len().saturating_sub(2);
        let mut position = 0;
        self.snapshots.retain(|(index, _)| {
            position += 1;
            *index == named || position > newest
        });
    }

    /// Whether something is handed over and not durable yet.
    pub(crate) fn is_writing(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The bytes of a snapshot that is kept.
    pub(crate) fn snapshot(&self, index: u64) -> Option<Vec<u8>> {
        self.snapshots.iter().find(|(kept, _)| *kept == index).map(|(_, bytes)| bytes.clone())
    }

    /// The power goes: of what was on its way some is written, in order. The batch that was being written then is torn, and a log
    /// takes it for not there; those behind it are lost. Returns how many are gone, the torn one among them.
    pub(crate) fn crash(&mut self, rng: &mut Rng) -> u64 {
        if !self.cached.is_empty() {
            self.pending.clear();
            self.cached.clear();
        }
        if self.mutation == Some(Mutation::VoteForgotten) {
            self.forget_vote();
        }
        let survivors = rng.below(self.pending.len() as u64 + 1);
        for _ in 0..survivors {
            if let Some((_, batch)) = self.pending.pop_front() {
                self.commit(batch);
            }
        }
        let lost = self.pending.len() as u64;
        self.pending.clear();
        self.busy_until = Instant::ZERO;
        lost
    }

    /// What a member that starts finds: the state of the last snapshot, and the log.
    pub(crate) fn restored(&self, options: &StoreOptions) -> Option<(Option<Store>, Restored)> {
        let log = self.log.clone()?;
        let index = log.snapshot.mark.index;
        let snapshot = self.snapshots.iter().find(|(saved, _)| *saved == index);
        let store =
            snapshot.map(|(_, bytes)| Store::restore(options.clone(), bytes).expect("the disk damages nothing"));
        assert!(index == 0 || store.is_some(), "the log names a snapshot that was not kept");
        Some((store, log))
    }

    /// The log is replaced: it begins behind a state that comes from elsewhere.
    pub(crate) fn replace(&mut self, log: Restored, state: Vec<u8>) {
        self.pending.clear();
        self.cached.clear();
        self.snapshots = vec![(log.snapshot.mark.index, state)];
        self.log = Some(log);
    }

    fn commit(&mut self, batch: WalBatch) {
        let log = self.log.get_or_insert_default();
        let term = log.hard_state.term;
        log.write(batch);
        if log.hard_state.term > term {
            self.earlier_term = term;
        }
    }

    fn forget_vote(&mut self) {
        let Some(log) = &mut self.log else { return };
        log.hard_state.vote = 0;
        let known = log.entries.last().map_or(log.snapshot.mark.term, |entry| entry.term);
        if known <= self.earlier_term {
            log.hard_state.term = self.earlier_term;
        }
    }
}

/// A time between these.
pub(crate) fn latency((least, most): (Duration, Duration), rng: &mut Rng) -> Duration {
    least + Duration::from_micros(rng.below(most.saturating_sub(least).as_micros() as u64))
}

#[cfg(test)]
mod tests {
    use coracle_raft::HardState;

    use super::*;

    fn batch(index: u64) -> WalBatch {
        let entry = LogEntry { index, term: 1, data: vec![1].into(), ..LogEntry::default() };
        let hard_state = Some(HardState { term: 1, vote: 1, commit: index });
        WalBatch { entries: vec![entry], hard_state, ..WalBatch::default() }
    }

    fn found(disk: &Disk) -> usize {
        disk.restored(&StoreOptions::default()).map_or(0, |(_, restored)| restored.entries.len())
    }

    #[test]
    fn a_crash_loses_only_what_was_not_written_and_keeps_the_order() {
        let mut lost = 0;
        for seed in 0..50 {
            let (mut disk, mut rng) = (Disk::new(LATENCY, None), Rng::seeded(seed));
            for index in 1..=4 {
                disk.write(PersistId(index), batch(index), Instant::ZERO, &mut rng);
            }
            disk.written(PersistId(2));
            disk.crash(&mut rng);
            let found = found(&disk);
            assert!((2..=4).contains(&found), "{found} entries");
            let log = disk.log.unwrap_or_default();
            assert!(log.entries.iter().map(|entry| entry.index).eq(1..=found as u64));
            lost += 4 - found;
        }
        assert!(lost > 0, "no seed lost anything");
    }

    #[test]
    fn entries_that_come_again_replace_what_was_there() {
        let mut disk = Disk::new(LATENCY, None);
        for index in [1, 2, 3, 2] {
            disk.commit(batch(index));
        }
        assert_eq!(found(&disk), 2);
    }
}
