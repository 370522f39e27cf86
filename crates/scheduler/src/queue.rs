//! Pods that wait to be placed: ready by priority, resting after a failure, or put aside until something changes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use coracle_api::ObjectKey;
use coracle_base::{DelayQueue, Instant};

/// The first wait after a failure, and the longest.
const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a pod is put aside at most, in case what would have helped it went unnoticed.
const ASIDE_MAX: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Resting,
    Aside,
    /// A decision on it is being carried out; whether something relevant changed meanwhile.
    Deciding {
        changed: bool,
    },
}

#[derive(Debug)]
struct Entry {
    priority: i64,
    /// First come, first served, within a priority.
    order: u64,
    failures: u32,
    /// When its back-off ends.
    rested_at: Instant,
    place: Place,
}

/// The queue; it holds every pod that has no node, each once.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: BTreeMap<ObjectKey, Entry>,
    ready: BTreeMap<(Reverse<i64>, u64), ObjectKey>,
    timers: DelayQueue<ObjectKey>,
    next_order: u64,
}

impl Queue {
    /// Takes a pod in, or takes note that it changed: what failed before may work now.
    pub(crate) fn add(&mut self, key: &ObjectKey, priority: i64, now: Instant) {
        match self.entries.get_mut(key) {
            None => {
                let order = self.next_order;
                self.next_order += 1;
                let entry = Entry { priority, order, failures: 0, rested_at: now, place: Place::Aside };
                self.entries.insert(key.clone(), entry);
                self.wake(key, now);
            }
            Some(entry) => {
                if entry.place == Place::Ready {
                    self.ready.remove(&(Reverse(entry.priority), entry.order));
                    entry.priority = priority;
                    self.ready.insert((Reverse(priority), entry.order), key.clone());
                } else {
                    entry.priority = priority;
                    self.wake(key, now);
                }
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.ready.remove(&(Reverse(entry.priority), entry.order));
            self.timers.remove(key);
        }
    }

    /// Takes the most important pod that is ready.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<ObjectKey> {
        while let Some(key) = self.timers.pop(now) {
            self.make_ready(&key);
        }
        let (_, key) = self.ready.pop_first()?;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.place = Place::Deciding { changed: false };
        }
        Some(key)
    }

    /// A pod that was taken could not be placed: it is put aside, unless something changed since, and rests before it is tried again.
    pub(crate) fn put_aside(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let changed = entry.place == Place::Deciding { changed: true };
        entry.failures += 1;
        entry.rested_at = now + backoff(entry.failures);
        entry.place = Place::Aside;
        self.timers.set(key.clone(), now + ASIDE_MAX);
        if changed {
            self.wake(key, now);
        }
    }

    /// A pod that was taken is tried again after its back-off: the decision on it could not be carried out.
    pub(crate) fn retry(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.failures += 1;
        entry.rested_at = now + backoff(entry.failures);
        entry.place = Place::Aside;
        self.wake(key, now);
    }

    /// Something changed that may help any pod.
    pub(crate) fn wake_all(&mut self, now: Instant) {
        let waits = |entry: &Entry| matches!(entry.place, Place::Aside | Place::Deciding { .. });
        let keys: Vec<ObjectKey> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.wake(&key, now);
        }
    }

    pub(crate) fn next_wakeup(&self) -> Option<Instant> {
        if self.ready.is_empty() { self.timers.next() } else { Some(Instant::ZERO) }
    }

    fn wake(&mut self, key: &ObjectKey, now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match entry.place {
            Place::Ready | Place::Resting => {}
            Place::Deciding { .. } => entry.place = Place::Deciding { changed: true },
            Place::Aside if entry.rested_at > now => {
                entry.place = Place::Resting;
                self.timers.set(key.clone(), entry.rested_at);
            }
            Place::Aside => self.make_ready(key),
        }
    }

    fn make_ready(&mut self, key: &ObjectKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.place = Place::Ready;
            self.timers.remove(key);
            self.ready.insert((Reverse(entry.priority), entry.order), key.clone());
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_INITIAL.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(BACKOFF_MAX)
}
